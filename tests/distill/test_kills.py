"""A run of training that is killed at any step on the disk goes on, and becomes what it would have."""

import mmap
import os
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import pytest

from instantvir_cli.signals import ended_by_signals
from instantvir_distill.saved import last_checkpoint
from instantvir_distill.trainer import Trainer
from tests.distill.test_trainer import CONFIG, Fit, same, weights
from tests.warm import Case, _count_steps

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


def two_updates(folder):
    trainer = Trainer(CONFIG, Fit(), folder)
    for _ in range(2):
        trainer.update()
        trainer.save()


def killed(folder, step, by=signal.SIGKILL, work=two_updates):
    """What came of `work`, which was sent a signal before one of its steps on the disk."""
    count = mmap.mmap(-1, 8)
    child = os.fork()
    if not child:
        with suppress(BaseException), ended_by_signals():  # as the command hears them
            case = Case(args=[], folder=str(folder), kill_at=step, signal=by)
            _count_steps(case, count)
            work(folder)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Killed(status, int.from_bytes(count[:], "little"))


class Killed(NamedTuple):
    """How a child ended, minus the signal if one did it, and its steps on the disk."""

    status: int
    steps: int


def left_by(tmp_path, step, by):
    """What was left behind by the kill, in words."""
    whole, folder = tmp_path / "whole", tmp_path / str(step)
    if not whole.exists():
        Trainer(CONFIG, Fit(), whole).run()
    shutil.rmtree(folder, ignore_errors=True)
    ended = killed(folder, step, by)
    left = "hidden folder" if unfinished(folder) else "nothing hidden"
    Trainer(CONFIG, Fit(), folder).run()
    same(weights(whole), weights(folder), rtol=0, atol=0)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000012"]
    assert not unfinished(folder), step
    return f"{'ended' if ended.status >= 0 else 'killed'}, {left}"


def unfinished(folder):
    return [*folder.rglob("*.instantvir"), *folder.rglob("*.part")]


def test_some_kills(tmp_path):
    last = killed(tmp_path / "counted", None).steps
    for step in (last // 3, last // 2, last - 1):
        left_by(tmp_path, step, signal.SIGKILL)


def test_a_finished_run_that_is_run_again_and_killed_keeps_its_checkpoint(tmp_path):
    """It was taken away, file by file, before the same one got its name."""
    whole = tmp_path / "whole"
    Trainer(CONFIG, Fit(), whole).run()

    def again(folder):
        Trainer(CONFIG, Fit(), folder).run()

    last = killed(shutil.copytree(whole, tmp_path / "counted"), None, work=again).steps
    for step in range(max(1, last - 3), last + 1):
        folder = shutil.copytree(whole, tmp_path / str(step))
        killed(folder, step, work=again)
        assert [path.name for path in last_checkpoint(folder).iterdir()], step
        again(folder)
        same(weights(whole), weights(folder), rtol=0, atol=0)


def fifty_steps(tmp_path):
    """Spread over a whole run."""
    last = killed(tmp_path / "counted", None).steps
    return [1 + index * (last - 1) // 49 for index in range(50)]


@pytest.mark.slow
@pytest.mark.parametrize("by", SIGNALS)
def test_fifty_kills(tmp_path, by):
    found = Counter(left_by(tmp_path, step, by) for step in fifty_steps(tmp_path))
    sys.stdout.write(f"{'distill':<20} signal {by:>2}: {dict(found)}\n")
