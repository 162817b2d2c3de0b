"""Stories of `restore FILE` with nothing told, on files that are odd: it helps, or it leaves them."""

import json
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from instantvir_models.media import open_video
from tests.cli.test_restore import DATA, assert_fails, frames_of, run
from tests.models.test_fields import panning as panning_fields
from tests.models.test_fields import woven
from tests.models.test_fields import written as written_fields

SIZE = (64, 96)
H264 = ("libx264", "yuv420p", {"crf": "20", "g": "5"})
LOSSLESS = ("ffv1", "bgr0", {})


@pytest.fixture(scope="module")
def clean():
    """[16, 64, 96, 3]: a photo seen by a moving camera."""
    photo = cv2.imread(str(DATA / "clips" / "flower.png"))[40:, :, ::-1]
    return np.stack([photo[t : t + SIZE[0], t : t + SIZE[1]] for t in range(16)])


def noisy(frames, levels):
    noise = np.random.default_rng(0).standard_normal(frames.shape)
    return np.rint(frames + levels * noise).clip(0, 255).astype(np.uint8)


def written(path, frames, codec, pix_fmt, options, *, rate=25):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pix_fmt
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    return path


def psnr(frames, clean):
    error = np.square(np.asarray(frames, float) - clean).mean()
    return 10 * np.log10(255**2 / max(error, 1e-3))


def restored(path):
    """(frames, what `--json` says) of the file restored with nothing told."""
    target = path.with_name("new.mkv")
    result = run("restore", path, "-o", target, "--codec", "ffv1", "--json")
    assert result.exit_code in (0, 5), result.stderr
    return np.stack(frames_of(target)), json.loads(result.stdout)


@pytest.mark.parametrize("codec", [LOSSLESS, H264], ids=["lossless", "h264"])
@pytest.mark.parametrize("levels", [0, 15])
def test_one_frame_is_not_made_worse(clean, tmp_path, codec, levels):
    path = written(tmp_path / "one.mkv", noisy(clean[:1], levels), *codec)
    frames, _ = restored(path)
    before = psnr(frames_of(path), clean[:1])
    assert psnr(frames, clean[:1]) >= before - 0.01


@pytest.mark.parametrize("order", [1, -1], ids=["dirty first", "clean first"])
def test_of_a_file_cut_from_two_kinds_no_half_is_made_worse(clean, tmp_path, order):
    """Places behind the beginning are looked at, so that the clean half is seen, wherever it is."""
    halves = [noisy(clean[:8], 20), clean[8:]][::order]
    truth = np.concatenate([clean[:8], clean[8:]][::order])
    path = written(tmp_path / "cut.mkv", np.concatenate(halves), *LOSSLESS, rate=3)
    frames, said = restored(path)
    before = np.stack(frames_of(path))
    for half in (slice(0, 8), slice(8, 16)):
        assert psnr(frames[half], truth[half]) >= psnr(before[half], truth[half]) - 0.01
    assert said["command"] is None


@pytest.mark.parametrize("name", ["head.mp4", "head.ts"])
def test_a_file_whose_beginning_cannot_be_read_is_restored_from_where_it_can(clean, tmp_path, name):
    path = written(tmp_path / name, noisy(clean, 10), *H264, rate=5)
    data = bytearray(path.read_bytes())
    lost = slice(48, len(data) * 2 // 5)
    data[lost] = np.random.default_rng(0).bytes(lost.stop - lost.start)
    path.write_bytes(bytes(data))
    frames, said = restored(path)
    assert 0 < len(frames) <= 16
    assert said["damage"]


def test_a_file_of_which_nothing_can_be_read_is_refused_in_a_sentence(clean, tmp_path):
    path = written(tmp_path / "lost.mkv", clean, *H264)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert_fails(run("restore", path), 3, "is not a video")


def test_whole_frames_are_made_of_fields_even_if_nothing_else_is_wrong(tmp_path):
    """It was copied with its combs, after a notice that said otherwise."""
    frames = panning_fields(24)
    path = written_fields(tmp_path / "in.mkv", woven(frames, "bottom"), rate=Fraction(25))
    target = tmp_path / "out.mkv"
    result = run("restore", path, "-o", target, "--codec", "ffv1", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["findings"][0]["sentence"] == "interlaced, bottom field first"
    assert not said["is_unchanged"]
    with open_video(target) as reader:
        assert reader.info.frame_rate == 50
        whole = np.stack([frame.pixels for frame in reader])
    assert psnr(whole, frames) > psnr(np.repeat(frames_of(path), 2, 0), frames) + 5


@pytest.mark.parametrize("levels", [0, 12])
def test_a_stream_of_which_nothing_is_told_is_looked_at_first(clean, tmp_path, levels):
    """It was refused, where `restore` looks for itself."""
    source = written(tmp_path / "in.mkv", noisy(clean, levels), *LOSSLESS)
    target = tmp_path / "out.mkv"
    result = run("stream", source, "-o", target, "--codec", "ffv1")
    assert result.exit_code == 0, result.stderr
    before, after = np.stack(frames_of(source)), np.stack(frames_of(target))
    assert "the same as a command" not in result.stderr
    if levels == 0:
        assert np.array_equal(before, after)
        assert "frames pass as they are; if you see more, say what it is" in result.stderr
    else:
        assert psnr(after, clean) > psnr(before, clean) + 2
        assert "to do: take away noise" in result.stderr
