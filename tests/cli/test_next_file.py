"""A video whose pictures get another size goes on in the next file, where that is wanted."""

import json

import av
import pytest

from tests.cli.test_restore import run
from tests.media_clips import make_clip


@pytest.fixture
def recording(tmp_path):
    """Ten pictures of 32x24 and ten of 48x32 with sound, as a broadcast that changes between programmes."""
    parts = [
        make_clip(
            tmp_path / f"{width}.ts",
            num_frames=10,
            width=width,
            height=height,
            audio=True,
            options={"bf": "0"},
        )
        for width, height in ((32, 24), (48, 32))
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    return both


def sizes_and_times(path):
    with av.open(str(path)) as container:
        return [(f.width, f.height, round(float(f.time), 3)) for f in container.decode(video=0)]


def sound_ends(path):
    with av.open(str(path)) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    return times[0], times[-1]


def test_each_size_has_its_file_from_time_0_on_with_its_sound(recording, tmp_path):
    result = run(
        "restore", recording, "--task", "denoise", "--noise", 3, "--solver", "map",
        "--next-file", "--json", "-o", tmp_path / "out.mkv",
    )  # fmt: skip
    rows = json.loads(result.stdout)
    assert [row["status"] for row in rows] == [0, 0]
    steps = [0.04 * index for index in range(10)]
    for name, width, height in (("out.mkv", 32, 24), ("out.2.mkv", 48, 32)):
        found = sizes_and_times(tmp_path / name)
        assert [size[:2] for size in found] == [(width, height)] * 10
        assert [size[2] for size in found] == pytest.approx(steps, abs=0.002)
        first, last = sound_ends(tmp_path / name)
        assert first == pytest.approx(0, abs=0.03)
        assert last == pytest.approx(0.38, abs=0.05)


def test_one_size_is_one_file(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", num_frames=4)
    run(
        "restore", clip, "--task", "denoise", "--noise", 3, "--solver", "map", "--next-file",
        "-o", tmp_path / "out.mkv",
    )  # fmt: skip
    assert len(sizes_and_times(tmp_path / "out.mkv")) == 4
    assert not (tmp_path / "out.2.mkv").exists()
