"""Stories of `instantvir stream` with real processes: what breaks around it must not break it."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.synthetic_camera import read_stamp
from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.media import open_video
from tests.media_clips import packets_of

ROOT = Path(__file__).parents[2]
STREAM = [sys.executable, "-c", "from instantvir_cli.app import app; app()", "stream"]
CAMERA = [sys.executable, str(ROOT / "benchmarks" / "synthetic_camera.py")]
KNOWN = ["--operator", "identity+noise:std=3", "--threads", "1"]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(
        str(ROOT / folder) for folder in (".", "kernels", "models", "distill")
    ),
}
PATIENCE_SECONDS = 90
"""Until a process counts as hanging; nothing here depends on how long it takes."""


@contextmanager
def process(*command, **options):
    """A process that is gone afterwards, whatever happened."""
    started = subprocess.Popen([str(c) for c in command], env=ENVIRONMENT, **options)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()
        for pipe in (started.stdin, started.stdout, started.stderr):
            if pipe is not None:
                pipe.close()


def camera(*args, **options):
    return process(*CAMERA, *args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)


@contextmanager
def stream(*args, **options):
    """A running stream; when it has ended, nothing that it started may be left, zombies included."""
    options = {"stderr": subprocess.PIPE, "start_new_session": True, **options}
    with process(*STREAM, *args, *KNOWN, **options) as started:
        yield started
    assert is_group_empty(started.pid), "the stream has left a process behind"


def is_group_empty(number):
    """Whether no process of this group exists any more."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return True
    return False


def ended(process):
    """(exit status, standard error) of a process that ends by itself."""
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, (errors or b"").decode()


def recorded(path, *args):
    """A file of the synthetic camera, made as fast as it goes."""
    subprocess.run(
        [*CAMERA, "--burst", "--output", str(path), *map(str, args)], check=True, env=ENVIRONMENT
    )
    return path


def numbers_in(path):
    """Burned-in numbers of the frames of a file, and whether its time stamps only grow."""
    with open_video(path) as reader:
        frames = list(reader)
    times = [frame.pts * frame.time_base for frame in frames]
    assert all(b > a for a, b in pairwise(times))
    return [read_stamp(frame.pixels)[0] for frame in frames]


def summary_of(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (summary,) = [line["summary"] for line in lines if "summary" in line]
    lost = summary["frames_dropped"] + summary["frames_abandoned"]
    assert summary["frames_in"] == summary["frames_out"] + lost
    states = [output["state"] for output in summary["outputs"]]
    if not states or "closed" in states:
        assert summary["frames_abandoned"] == 0, "as long as an output is left all are restored"
    return summary


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "status.jsonl"


def test_a_pipe_gets_what_restore_writes_and_a_file_beside_it(tmp_path, log):
    path = recorded(tmp_path / "in.nut", "--frames", 10, "--audio", "pcm_s16le", "--noise", 3)
    live, offline = tmp_path / "live.nut", tmp_path / "offline.mkv"
    with path.open("rb") as source, live.open("wb") as pipe:
        args = ("-o", "-", "-o", tmp_path / "also.mp4", "--json-lines", log)
        with stream(*args, stdin=source, stdout=pipe) as restorer:
            status, errors = ended(restorer)
    assert status == 0, errors
    done = CliRunner().invoke(
        app, ["restore", str(path), *KNOWN, "-o", str(offline), "--codec", "ffv1"]
    )
    assert done.exit_code == 0, done.stderr
    with open_video(live) as a, open_video(offline) as b:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.pixels, y.pixels)
            assert x.pts_seconds == pytest.approx(y.pts_seconds, abs=1e-3)
    assert numbers_in(tmp_path / "also.mp4") == list(range(10))
    assert [output["frames_written"] for output in summary_of(log)["outputs"]] == [10, 10]
    with av.open(str(live)) as container:
        sound = b"".join(bytes(packet) for packet in container.demux(audio=0))
    samples = np.frombuffer(sound, np.int16).reshape(10, -1)
    assert (samples == np.arange(10)[:, None]).all(), "the sound of frame n has the value n"


def test_a_killed_producer_leaves_a_whole_file(tmp_path, log):
    target = tmp_path / "out.mp4"
    with camera("--fps", 12, "--seconds", 100) as source:
        args = ("-o", target, "--json-lines", log)
        with stream(*args, stdin=source.stdout) as restorer:
            source.stdout.close()
            wait_for(lambda: target.exists() and target.stat().st_size > 3000, "the first fragment")
            source.send_signal(signal.SIGKILL)
            status, errors = ended(restorer)
    assert status in (0, ExitStatus.PARTIAL), errors  # the last packet may be cut in two
    summary = summary_of(log)
    assert summary["frames_dropped"] == 0
    numbers = numbers_in(target)
    assert numbers == list(range(summary["frames_in"]))


def test_a_consumer_that_leaves_ends_its_pipe_and_nothing_else(tmp_path, log):
    path = recorded(tmp_path / "in.nut", "--frames", 60)
    target = tmp_path / "out.mkv"
    with path.open("rb") as source:
        args = ("-o", "-", "-o", target, "--json-lines", log)
        with stream(*args, stdin=source, stdout=subprocess.PIPE) as restorer:
            assert restorer.stdout.read(100)
            restorer.stdout.close()
            restorer.stdout = None
            status, errors = ended(restorer)
    assert status == 0, errors
    assert "the program that reads `standard output` has stopped" in " ".join(errors.split())
    assert numbers_in(target) == list(range(60))
    pipe, file = summary_of(log)["outputs"]
    assert pipe["state"] == "failed"
    assert pipe["frames_dropped"] > 0
    assert file["frames_written"] == 60


def test_a_stream_whose_only_consumer_left_ends(tmp_path):
    with (
        camera("--fps", 20, "--seconds", 300) as source,
        stream("-o", "-", stdin=source.stdout, stdout=subprocess.PIPE) as restorer,
    ):
        source.stdout.close()
        assert restorer.stdout.read(100)
        restorer.stdout.close()
        restorer.stdout = None
        status, errors = ended(restorer)
    assert status == 0, errors


def test_a_signal_does_not_wait_for_a_consumer_that_reads_nothing(tmp_path, log):
    with (
        camera("--fps", 20, "--seconds", 300) as source,
        stream(
            "-o", "-", "--json-lines", log, stdin=source.stdout, stdout=subprocess.PIPE
        ) as restorer,
    ):
        source.stdout.close()
        wait_for(lambda: log.exists() and '"queue_depth": 9' in log.read_text(), "the jam")
        restorer.send_signal(signal.SIGTERM)
        restorer.wait(PATIENCE_SECONDS)
        errors = restorer.stderr.read().decode()
    assert "- is stuck and was left behind" in " ".join(errors.split())
    assert summary_of(log)["frames_in"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_file_though_the_input_is_silent(tmp_path, log, number):
    target = tmp_path / "out.mp4"
    whole = recorded(tmp_path / "in.nut", "--frames", 20).read_bytes()
    args = ("-o", target, "--json-lines", log)
    with stream(*args, stdin=subprocess.PIPE) as restorer:
        restorer.stdin.write(whole)
        restorer.stdin.flush()  # and stays open
        wait_for(lambda: log.exists() and '"frames_in": 20' in log.read_text(), "reading it all")
        restorer.send_signal(number)
        status = restorer.wait(PATIENCE_SECONDS)
        errors = restorer.stderr.read().decode()
    assert status == 0, errors
    assert numbers_in(target) == list(range(20))
    assert summary_of(log)["frames_dropped"] == 0


def test_a_full_disk_ends_its_file_and_the_pipe_goes_on(tmp_path, log):
    path = recorded(tmp_path / "in.nut", "--frames", 40)
    target, live = tmp_path / "out.mkv", tmp_path / "live.nut"

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    # the limit holds for files, so standard output has to be a pipe; and no log
    with path.open("rb") as source, live.open("wb") as copy:
        args = ("-o", target, "-o", "-", "--codec", "ffv1")
        with stream(*args, stdin=source, stdout=subprocess.PIPE, preexec_fn=small_disk) as restorer:
            copy.write(restorer.stdout.read())
            status, errors = ended(restorer)
    assert status == ExitStatus.BAD_OUTPUT
    assert "out.mkv has ended: cannot write" in " ".join(errors.split())
    assert numbers_in(live) == list(range(40))
    kept = numbers_in(target)
    assert 0 < len(kept) < 40
    assert kept == list(range(len(kept)))


def test_a_killed_stream_leaves_a_playable_mp4(tmp_path):
    target = tmp_path / "out.mp4"
    with (
        camera("--fps", 12, "--seconds", 100) as source,
        stream("-o", target, stdin=source.stdout) as restorer,
    ):
        wait_for(lambda: target.exists() and target.stat().st_size > 5000, "two fragments")
        restorer.send_signal(signal.SIGKILL)
        restorer.wait(PATIENCE_SECONDS)
    numbers = numbers_in(target)
    assert len(numbers) >= 12
    assert numbers == list(range(len(numbers)))


def corrupted(data, *, percent, seed=0):
    """A transport stream with bytes changed in `percent` of its 188-byte packets, sparing the first."""
    rng = np.random.default_rng(seed)
    packets = np.frombuffer(data, np.uint8).copy().reshape(-1, 188)
    hit = 20 + np.flatnonzero(rng.random(len(packets) - 20) < percent / 100)
    packets[hit, 20:120] = rng.integers(0, 256, (len(hit), 100))
    assert len(hit)
    return packets.tobytes()


def test_damaged_packets_cost_frames_and_no_more(tmp_path, log):
    path = recorded(
        tmp_path / "in.ts", "--frames", 80, "--format", "mpegts", "--codec", "libx264",
        "--pix-fmt", "yuv420p", "--noise", 5, "--audio", "aac",
    )  # fmt: skip
    path.write_bytes(corrupted(path.read_bytes(), percent=1))
    target = tmp_path / "out.mkv"
    with path.open("rb") as source:
        args = ("-o", target, "--json-lines", log)
        with stream(*args, stdin=source) as restorer:
            status, errors = ended(restorer)
    assert status in (0, ExitStatus.PARTIAL), errors
    summary = summary_of(log)
    assert 60 <= summary["frames_in"] <= 80
    assert summary["outputs"][0]["frames_written"] == summary["frames_in"]
    assert len(numbers_in(target)) == summary["frames_in"]


def test_an_empty_pipe_is_a_sentence():
    with stream("-o", "-", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as restorer:
        status, errors = ended(restorer)
    assert status == ExitStatus.BAD_INPUT
    assert "standard input is empty" in " ".join(errors.split())
    assert "Traceback" not in errors


RTMP_SERVER = """
import av, sys
with av.open(sys.argv[1], options={"listen": "1", "analyzeduration": "100000"}) as container:
    video = container.streams.video[0]
    for packet in container.demux(video):
        for frame in video.codec_context.decode(packet):
            print(float(frame.pts * frame.time_base), flush=True)
"""


def rtmp_server(address):
    return process(
        sys.executable,
        "-c",
        RTMP_SERVER,
        address,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_an_rtmp_server_may_be_restarted(tmp_path, log):
    address = f"rtmp://127.0.0.1:{free_port()}/live/restored"
    with camera("--fps", 8, "--seconds", 300) as source:
        args = ("-o", address, "--reconnect", "--json-lines", log)
        with ExitStack() as running:
            with rtmp_server(address) as first:
                time.sleep(1)
                restorer = running.enter_context(stream(*args, stdin=source.stdout))
                before = [float(first.stdout.readline()) for _ in range(5)]
            with rtmp_server(address) as second:
                after = [float(second.stdout.readline()) for _ in range(5)]
                restorer.send_signal(signal.SIGTERM)
                errors = restorer.communicate(timeout=PATIENCE_SECONDS)[1].decode()
    assert restorer.returncode == 0, errors
    assert all(b > a for a, b in pairwise(before + after))
    (output,) = summary_of(log)["outputs"]
    assert output["reconnects"] == 1
    assert output["frames_dropped"] > 0
    flat = " ".join(errors.split())
    assert "is lost" in flat
    assert "is back" in flat


TCP_SERVER = """
import subprocess, sys, socket
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = server.accept()
subprocess.run(sys.argv[2:], stdout=connection.fileno())
"""


def test_a_network_source_may_go_away_and_come_back(tmp_path, log):
    port, target = free_port(), tmp_path / "out.mkv"
    live = [*CAMERA, "--fps", "10", "--format", "mpegts", "--codec", "libx264", "--pix-fmt",
            "yuv420p", "--audio", "aac"]  # fmt: skip
    server = [sys.executable, "-c", TCP_SERVER, port, *live]
    args = (f"tcp://127.0.0.1:{port}", "-o", target, "--reconnect", "--json-lines", log)
    with stream(*args) as restorer:
        with process(*server, "--frames", 20) as first:
            first.wait(PATIENCE_SECONDS)
        with process(*server, "--frames", 20) as second:
            second.wait(PATIENCE_SECONDS)
        wait_for(lambda: '"reconnects": 1' in log.read_text(), "the connection")
        time.sleep(2)
        restorer.send_signal(signal.SIGTERM)
        errors = restorer.communicate(timeout=PATIENCE_SECONDS)[1].decode()
    assert restorer.returncode in (0, ExitStatus.PARTIAL), errors
    summary = summary_of(log)
    assert summary["reconnects"] == 1
    assert len(numbers_in(target)) == summary["frames_out"] > 20
    assert summary["outputs"][0]["state"] == "closed"
    sound = [seconds for seconds, _ in packets_of(target, "audio")]
    assert all(b > a for a, b in pairwise(sound))
    with open_video(target) as reader:
        seconds = [frame.pts_seconds for frame in reader]
    assert abs(sound[-1] - seconds[-1]) < 0.5


def test_numbers_and_page_are_served_while_it_runs(tmp_path, log):
    metrics, page = free_port(), free_port()
    args = ("--preview", page, "--metrics", metrics, "--json-lines", log)
    with (
        camera("--fps", 10, "--seconds", 300) as source,
        stream(*args, stdin=source.stdout) as restorer,
    ):
        wait_for(lambda: log.exists() and '"status"' in log.read_text(), "the first status")
        text = fetched(f"http://127.0.0.1:{metrics}/metrics")
        assert "instantvir_frames_in_total" in text
        assert 'instantvir_delay_seconds{quantile="0.99"}' in text
        assert "restored" in fetched(f"http://127.0.0.1:{page}/")
        assert json.loads(fetched(f"http://127.0.0.1:{page}/status.json"))["frames_in"] > 0
        restorer.send_signal(signal.SIGTERM)
        restorer.wait(PATIENCE_SECONDS)
        assert restorer.returncode == 0, restorer.stderr.read().decode()
    assert summary_of(log)["outputs"] == []


def fetched(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


def in_this_process(*args):
    """A stream that ends by itself, without paying for another start."""
    return CliRunner().invoke(app, ["stream", *map(str, args), *KNOWN])


def test_several_containers_at_once(tmp_path):
    path = recorded(tmp_path / "in.nut", "--frames", 9)
    names = ["a.mp4", "a.mov", "a.ts", "a.webm", "a.m3u8", "a.flv"]
    outputs = [arg for name in names for arg in ("-o", tmp_path / name)]
    result = in_this_process(path, *outputs)
    assert result.exit_code == 0, result.stderr
    for name in names:
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 9, name


@pytest.mark.parametrize("latency", [1, 2])
def test_restore_with_the_same_latency_writes_the_same(tmp_path, latency):
    path = recorded(tmp_path / "in.nut", "--frames", 7, "--noise", 4)
    live, offline = tmp_path / "live.mkv", tmp_path / "offline.mkv"
    lossless = ["--codec", "ffv1", "--latency", latency]
    assert in_this_process(path, "-o", live, *lossless).exit_code == 0
    args = ["restore", path, "-o", offline, *lossless, *KNOWN]
    assert CliRunner().invoke(app, [str(arg) for arg in args]).exit_code == 0
    with open_video(live) as a, open_video(offline) as b:
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.pixels, y.pixels)
            assert x.pts_seconds == pytest.approx(y.pts_seconds, abs=1e-3)


def test_a_new_size_is_fitted_into_the_first(tmp_path, log):
    parts = [
        recorded(
            tmp_path / f"{size}.ts", "--frames", 6, "--size", size, "--format", "mpegts",
            "--codec", "libx264", "--pix-fmt", "yuv420p",
        )
        for size in ("96x64", "128x64")
    ]  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    target = tmp_path / "out.mkv"
    result = in_this_process(both, "-o", target, "--json-lines", log)
    assert result.exit_code == 0, result.stderr
    assert "the input changes to 128x64" in " ".join(result.stderr.split())
    assert summary_of(log)["size_changes"] == 1
    with open_video(target) as reader:
        shapes = [frame.pixels.shape for frame in reader]
    assert shapes == [(64, 96, 3)] * 12


def test_stopped_before_the_first_byte_is_interrupted_not_bad_input():
    with stream("-o", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as restorer:
        time.sleep(8)
        restorer.send_signal(signal.SIGTERM)
        status, errors = restorer.wait(PATIENCE_SECONDS), restorer.stderr.read().decode()
    is_early = status in (ExitStatus.TERMINATED, -signal.SIGTERM)
    assert is_early or status == ExitStatus.INTERRUPTED, errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_ten_silent_seconds_are_named_and_survived(tmp_path, log):
    data = recorded(tmp_path / "in.nut", "--frames", 30).read_bytes()
    target = tmp_path / "out.mkv"
    with stream("-o", target, "--json-lines", log, stdin=subprocess.PIPE) as restorer:
        restorer.stdin.write(data[: len(data) // 2])
        restorer.stdin.flush()
        wait_for(lambda: log.exists() and "so far" in log.read_text(), "the watchdog's word")
        restorer.stdin.write(data[len(data) // 2 :])
        restorer.stdin.close()
        restorer.stdin = None
        status, errors = ended(restorer)
    assert status == 0, errors
    flat = " ".join(errors.split())
    assert "input: waiting for a frame for 1" in flat
    assert "input goes on" in flat
    assert numbers_in(target) == list(range(30))


CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--window-size=900,900", "--virtual-time-budget=8000"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_original_and_restored_to_two_viewers(tmp_path):
    port = free_port()
    with (
        camera("--fps", 4, "--seconds", 300, "--noise", 40, "--size", "96x64") as source,
        process(
            *STREAM, "--operator", "identity+noise:std=40", "--threads", 1, "--preview", port,
            stdin=source.stdout, stderr=subprocess.DEVNULL,
        ) as restorer,
    ):  # fmt: skip
        address = f"http://127.0.0.1:{port}/"
        wait_for(lambda: answers(address + "pair.jpg"), "the first picture")
        viewers = []
        for wipe in (100, 0):
            shot = tmp_path / f"{wipe}.png"
            args = [*CHROMIUM, f"--user-data-dir={tmp_path / str(wipe)}", f"--screenshot={shot}"]
            viewers.append(
                subprocess.Popen(
                    ["chromium", *args, f"{address}#x={wipe}"], stderr=subprocess.DEVNULL
                )
            )
        for viewer in viewers:
            assert viewer.wait(PATIENCE_SECONDS) == 0
        restorer.send_signal(signal.SIGTERM)
        assert restorer.wait(PATIENCE_SECONDS) == 0
    # below the burned-in bits the measured picture is rough and the restored one smooth
    original, restored = (
        cv2.imread(str(tmp_path / f"{wipe}.png"))[250:500, 200:700].astype(int) for wipe in (100, 0)
    )
    assert roughness(restored) < 0.5 * roughness(original)


def roughness(picture):
    return np.abs(np.diff(picture[::9, ::9], axis=1)).mean()


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=10).status == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    ("args", "sentence", "hint"),
    [
        ([], "the restored stream goes nowhere", "-o -"),
        (["-o", "-", "-o", "-"], "`-` is given twice", ""),
        (["-o", "x.mkv", "-o", "./x.mkv"], "`./x.mkv` is given twice", ""),
        (["-o", "x.mkv", "--on-overload", "cry"], "`--on-overload` is `cry`", "drop, skip"),
        (["-o", "x.mkv", "--latency", "9"], "blocks of 9 frames do not suit", "1 to 3 frames"),
        (["-o", "x.mkv", "--preview", "here"], "`--preview` is `here`", ""),
        (["-o", "x.mkv", "--pix-fmt", "gray"], "`--pix-fmt` describes raw frames", "--size"),
        (["-o", "x.mkv", "--size", "big"], "`--size` is `big`", ""),
        (["-o", "x.mkv", "--input-format", "rawvideo"], "raw frames do not say", "--size"),
        (["-o", "x.mkv", "--follow", "-1"], "`--follow` is -1", ""),
        (["-o", "x.mkv", "--silence", "0"], "`--silence` is 0", ""),
        (["-o", "x.mkv", "--task", "denoize"], "no task called `denoize`", "denoise"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path, monkeypatch, args, sentence, hint):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["stream", "nothing.nut", "--task", "denoise", *args])
    assert result.exit_code == ExitStatus.USAGE, result.stderr
    flat = " ".join(result.stderr.split())
    assert sentence in flat
    assert hint in flat
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_not_overwritten(tmp_path):
    path = recorded(tmp_path / "in.nut", "--frames", 3)
    before = path.read_bytes()
    result = in_this_process(path, "-o", tmp_path / "." / "in.nut", "--overwrite")
    assert result.exit_code == ExitStatus.USAGE
    assert "is the input itself" in result.stderr
    assert path.read_bytes() == before


def test_a_bad_second_output_leaves_no_first_one(tmp_path):
    path = recorded(tmp_path / "in.nut", "--frames", 3)
    for bad in (tmp_path / "missing" / "x.mkv", tmp_path / "x.strange"):
        result = in_this_process(path, "-o", tmp_path / "out.mkv", "-o", bad)
        assert result.exit_code == ExitStatus.BAD_OUTPUT, result.stderr
        assert [p.name for p in tmp_path.iterdir()] == ["in.nut"]


def test_an_existing_output_is_kept(tmp_path):
    (tmp_path / "out.mkv").write_text("precious")
    result = CliRunner().invoke(
        app, ["stream", "x.nut", "--task", "denoise", "-o", str(tmp_path / "out.mkv")]
    )
    assert result.exit_code == ExitStatus.USAGE
    assert "exists already" in result.stderr
    assert (tmp_path / "out.mkv").read_text() == "precious"
