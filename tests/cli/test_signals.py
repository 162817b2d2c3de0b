"""What SIGINT, SIGTERM and SIGHUP leave behind, of every verb that writes: nothing, or what is kept."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.signals import EndedBySignal, ended_by_signals, told_of_signals
from tests.kills import cpu_seconds, ended, run_command
from tests.media_clips import make_clip

STATUS = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.HUNG_UP,
}
SEGMENT = 20
TASK = ("--operator", "noise:std=3", "--threads", "1", "--quiet")


def command(*words, said=None, segment=SEGMENT, keep_seconds=float("inf")):
    """The command as work of a child."""
    return partial(run_command, tuple(map(str, words)), segment, said, keep_seconds)


def hidden_in(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".instantvir")]


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("verb", ["restore", "degrade"])
def test_a_signal_leaves_nothing(tmp_path, verb, number):
    make_clip(tmp_path / "in.mp4", width=48, height=32, num_frames=400, audio=True)
    words = {
        "restore": ["restore", *TASK, "--compare"],
        "degrade": ["degrade", "--operator", "blur:sigma=2"],
    }[verb]
    said = tmp_path / "said"
    work = command(*words, tmp_path / "in.mp4", "-o", tmp_path / "out.mkv", said=said)
    status = ended(work, when=lambda pid: bool(hidden_in(tmp_path)), by=number)
    assert status == STATUS[number], said.read_text()
    assert "no unfinished file was left behind" in said.read_text()
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "said"]


def test_what_is_kept_is_said_and_gone_on_with(tmp_path):
    make_clip(tmp_path / "in.mp4", width=48, height=32, num_frames=70)
    said, target = tmp_path / "said", tmp_path / "out.mp4"
    work = command("restore", *TASK, tmp_path / "in.mp4", "-o", target, said=said)
    kept = tmp_path / ".out.mp4.instantvir" / "00001.json"
    assert ended(work, when=lambda pid: kept.exists(), by=signal.SIGTERM) == 143
    words = " ".join(said.read_text().split())
    assert "ended by SIGTERM; the first" in words
    assert "the same command goes on there" in words
    assert ended(work) == 0
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "said"]


def test_a_short_run_is_kept_too(tmp_path):
    """A run of fewer frames than a piece has began anew after Ctrl-C."""
    make_clip(tmp_path / "in.mp4", width=48, height=32, num_frames=70)
    said, target = tmp_path / "said", tmp_path / "out.mp4"
    words = ("restore", *TASK, tmp_path / "in.mp4", "-o", target)
    work = command(*words, said=said, segment=250, keep_seconds=0)
    kept = tmp_path / ".out.mp4.instantvir" / "loose.json"
    assert ended(work, when=lambda pid: kept.exists(), by=signal.SIGINT) == 130
    assert "the same command goes on there" in " ".join(said.read_text().split())
    assert ended(work) == 0
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4", "said"]


def test_a_stopped_run_sleeps_and_goes_on(tmp_path):
    """Ctrl-Z, and `fg`."""
    make_clip(tmp_path / "in.mp4", width=48, height=32, num_frames=40)
    work = command("restore", *TASK, tmp_path / "in.mp4", "-o", tmp_path / "out.mp4")
    slept = []

    def sleeps(pid):
        if not slept and hidden_in(tmp_path):
            os.kill(pid, signal.SIGTSTP)
            slept.append(comes_to_sleep(pid))
            os.kill(pid, signal.SIGCONT)
        return False

    assert ended(partial(in_a_group_of_its_own, work), when=sleeps) == 0
    assert slept == [True]
    assert sorted(os.listdir(tmp_path)) == ["in.mp4", "out.mp4"]


def in_a_group_of_its_own(work):
    """As a shell starts what it may stop; a group that no shell would continue hears no Ctrl-Z."""
    os.setpgid(0, 0)
    work()


def comes_to_sleep(pid):
    """Whether a child stops, within half a minute."""
    for _ in range(3000):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


def killed_batch(folder, *, kills, seed):
    """A batch of three, killed at random moments, ends as if nobody had."""
    tapes, out = folder / "tapes", folder / "out"
    tapes.mkdir()
    for name in ("a.mp4", "b.mkv", "c.mp4"):
        make_clip(tapes / name, width=48, height=32, num_frames=50, audio=True)
    work = command("restore", *TASK, tapes, "-o", f"{out}/")
    spent = []
    assert ended(work, when=lambda pid: spent.append(cpu_seconds(pid)) or False) == 0
    expected = {path.name: path.read_bytes() for path in out.iterdir()}
    chance, done = random.Random(seed), 0
    while done < kills:
        for path in out.iterdir():
            path.unlink()
        while True:
            at = chance.uniform(0, 0.6 * max(spent))
            if done == kills:
                at = float("inf")
            status = ended(work, when=lambda pid, at=at: cpu_seconds(pid) >= at)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            done += 1
        assert {path.name: path.read_bytes() for path in out.iterdir()} == expected


def test_a_killed_batch_ends_as_if_nobody_had(tmp_path):
    killed_batch(tmp_path, kills=2, seed=1)


@pytest.mark.slow
def test_ten_kills_of_a_batch(tmp_path):
    killed_batch(tmp_path, kills=10, seed=2)


def test_signals_that_come_together_are_one_wish(monkeypatch):
    """A terminal that closes sends several, and tidying up is not to be cut off."""
    heard = []
    with ended_by_signals():
        with pytest.raises(EndedBySignal, match="SIGHUP"):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
    with ended_by_signals(), told_of_signals(heard.append):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        monkeypatch.setattr("instantvir_cli.signals.GRACE_SECONDS", -1.0)
        with pytest.raises(EndedBySignal, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
