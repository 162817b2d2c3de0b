"""A source that changes its size or its frame rate while it runs, with real processes.

Transport streams can: FFmpeg's demuxers of NUT and Matroska keep to the first header they read.
"""

import subprocess
from itertools import pairwise

import numpy as np
import pytest

from instantvir_models.media import open_video
from tests.cli.test_stream import ended, numbers_in, recorded, stream, summary_of
from tests.cli.test_stream import log as log  # the fixture

TRANSPORT = ("--format", "mpegts", "--codec", "libx264", "--pix-fmt", "yuv420p")


def piped(pieces, *args):
    """(exit status, standard error) of a stream whose producer writes one piece after another."""
    with stream(*args, stdin=subprocess.PIPE) as restorer:
        for piece in pieces:
            restorer.stdin.write(piece.read_bytes())
        restorer.stdin.close()
        restorer.stdin = None
        return ended(restorer)


@pytest.mark.parametrize("sizes", [("96x64", "192x96"), ("192x96", "96x64")])
def test_a_pipe_may_change_its_size(tmp_path, log, sizes):
    pieces = [
        recorded(tmp_path / size, "--frames", 8, "--size", size, *TRANSPORT) for size in sizes
    ]
    target = tmp_path / "out.mkv"
    status, errors = piped(pieces, "-", "-o", target, "--json-lines", log)
    assert status == 0, errors
    assert f"the input changes to {sizes[1]}" in " ".join(errors.split())
    summary = summary_of(log)
    assert (summary["frames_in"], summary["frames_out"], summary["size_changes"]) == (16, 16, 1)
    width, height = map(int, sizes[0].split("x"))
    with open_video(target) as reader:
        frames = list(reader)
    assert [frame.pixels.shape for frame in frames] == [(height, width, 3)] * 16
    assert all(b.pts > a.pts for a, b in pairwise(frames))


@pytest.mark.parametrize("rates", [(25, 10), (10, 25)])
def test_a_pipe_may_change_its_frame_rate(tmp_path, log, rates):
    pieces = [
        recorded(tmp_path / f"{fps}", "--frames", 10, "--fps", fps, *TRANSPORT) for fps in rates
    ]
    target = tmp_path / "out.mkv"
    status, errors = piped(pieces, "-", "-o", target, "--json-lines", log)
    assert status == 0, errors
    summary = summary_of(log)
    assert summary["frames_in"] == summary["frames_out"] == 20
    assert numbers_in(target) == 2 * list(range(10))
    with open_video(target) as reader:
        seconds = np.array([frame.pts_seconds for frame in reader])
    assert np.diff(seconds)[:9] == pytest.approx(1 / rates[0], abs=2e-3)
    assert np.diff(seconds)[11:] == pytest.approx(1 / rates[1], abs=2e-3)
