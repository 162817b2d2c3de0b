"""What a signal may do to `instantvir stream`, and what it is without standard streams."""

import os
import signal
import subprocess
import threading

import numpy as np
import pytest

from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.stream import _ending_well
from instantvir_models.live.source import SourceSettings
from instantvir_models.live.stream import LiveSettings, LiveStream
from instantvir_models.run.resolution import SAMPLE_FRAMES
from tests.cli.test_stream import KNOWN, STREAM, ended, process, recorded, wait_for
from tests.live_tools import stdin_from


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_says_nothing_in_the_thread_it_interrupts(monkeypatch, number):
    """That thread may hold the report's lock; the sentence comes from another."""
    read_end, write_end = os.pipe()
    speakers = []
    before = signal.getsignal(number)
    with os.fdopen(read_end, "rb", buffering=0) as silent, os.fdopen(write_end, "wb"):
        monkeypatch.setattr("sys.stdin", silent)
        live = LiveStream(
            SourceSettings(source="-"),
            LiveSettings(),
            on_event=lambda sentence: speakers.append((threading.current_thread(), sentence)),
        )
        opening = threading.Thread(target=lambda: _quietly(live.start), daemon=True)
        opening.start()
        with _ending_well(live):
            signal.raise_signal(number)
            assert live.is_asked_to_stop
            wait_for(lambda: any("asked to stop" in said for _, said in speakers), "the sentence")
        assert signal.getsignal(number) == before
        opening.join(20)
        live.close()
    assert threading.main_thread() not in [thread for thread, _ in speakers]


def _quietly(call):
    try:
        call()
    except Exception:  # nothing was ever written to that pipe
        return


def test_a_sample_ends_where_the_size_changes(monkeypatch, tmp_path):
    """A sample of frames of two sizes could not be stacked; the rest is restored all the same."""
    parts = [
        recorded(
            tmp_path / f"{size}.ts", "--frames", 6, "--size", size, "--format", "mpegts",
            "--codec", "libx264", "--pix-fmt", "yuv420p",
        ).read_bytes()
        for size in ("96x64", "128x64")
    ]  # fmt: skip
    with stdin_from(monkeypatch, b"".join(parts), iter(lambda: 4096, None)):
        live = LiveStream(SourceSettings(source="-"), LiveSettings(), on_event=lambda said: None)
        live.start()
        try:
            sample = live.sample(SAMPLE_FRAMES)
        finally:
            live.close()
    assert SAMPLE_FRAMES > 6, "else the change comes after the sample"
    assert np.stack([frame.pixels for frame in sample]).shape == (6, 64, 96, 3)


@pytest.mark.parametrize(
    ("closed", "expected", "sentence"),
    [("<&-", ExitStatus.BAD_INPUT, "standard input is closed"),
     (">&-", ExitStatus.BAD_OUTPUT, "standard output is closed")],
)  # fmt: skip
def test_closed_standard_streams_are_sentences(tmp_path, closed, expected, sentence):
    path = recorded(tmp_path / "in.nut", "--frames", 3)
    with path.open("rb") as source:
        command = ["sh", "-c", f'exec "$@" {closed}', "sh"]
        command += [*STREAM, "-", "-o", "-", *KNOWN]
        pipes = {"stdin": source, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with process(*command, **pipes) as restorer:
            status, errors = ended(restorer)
    flat = " ".join(errors.split())
    assert sentence in flat
    assert "Traceback" not in errors
    assert status == expected
