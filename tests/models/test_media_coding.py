"""What a codec says of itself comes with the frames."""

import cv2
import numpy as np
import pytest

from instantvir_models.media import open_video
from instantvir_models.media.coding import FrameCoding, h264_steps, jpeg_steps, vp9_steps
from instantvir_models.media.hevc_headers import HEVCHeaders
from tests.media_clips import make_clip, picture, write_frames


def codings_of(path, count=3):
    with open_video(path, other_streams=False, threads=1) as reader:
        return [frame.coding for frame, _ in zip(reader, range(count), strict=False)]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "fine", "coarse"),
    [
        ("libx264", "yuv420p", {"qp": "10"}, {"qp": "40"}),
        ("mpeg2video", "yuv420p", {"qmin": "2", "qmax": "2"}, {"qmin": "20", "qmax": "20"}),
        ("mpeg4", "yuv420p", {"qmin": "2", "qmax": "2"}, {"qmin": "20", "qmax": "20"}),
        ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"}, {"qmin": "20", "qmax": "20"}),
        ("libvpx-vp9", "yuv420p", {"crf": "10", "b": "0"}, {"crf": "60", "b": "0"}),
    ],
)
def test_a_coarser_file_says_a_larger_step(tmp_path, codec, pix_fmt, fine, coarse):
    frames = [picture(t, 64, 48) for t in range(3)]
    steps = []
    for name, options in (("fine", fine), ("coarse", coarse)):
        path = write_frames(tmp_path / f"{name}.mkv", frames, codec, pix_fmt, options)
        codings = codings_of(path)
        assert codings[0].picture_type == "I"
        assert all(coding.num_bytes for coding in codings[:1])
        steps.append(codings[0].step)
    assert steps[1] > 4 * steps[0]


def test_the_quantiser_of_h264_is_the_one_that_was_asked_for(tmp_path):
    path = write_frames(
        tmp_path / "in.mkv", [picture(0, 64, 48)], "libx264", "yuv420p",
        {"qp": "28", "x264-params": "ipratio=1"},
    )  # fmt: skip
    [coding] = codings_of(path)
    np.testing.assert_allclose(coding.steps, 16, rtol=1e-5)  # 2^((28 - 4) / 6)
    assert coding.steps.shape == (12,)  # macroblocks


def test_steps_double_every_six_and_grow_without_a_gap():
    qp = np.arange(52, dtype=np.float32)
    np.testing.assert_allclose(h264_steps(qp[6:]), 2 * h264_steps(qp[:-6]), rtol=1e-5)
    ratio = vp9_steps(np.arange(1, 256, dtype=np.float32)) / vp9_steps(
        np.arange(255, dtype=np.float32)
    )
    assert ratio.min() > 1
    assert ratio[20:].max() < 1.05


@pytest.mark.parametrize("name", ["in.mkv", "in.mp4", "in.ts"])
@pytest.mark.parametrize("qp", [20, 38])
def test_key_frames_of_hevc_say_their_step(tmp_path, name, qp):
    options = {"x265-params": f"qp={qp}:ipratio=1:log-level=none"}
    frames = [picture(t, 64, 48) for t in range(3)]
    path = write_frames(tmp_path / name, frames, "libx265", "yuv420p", options)
    first, *others = codings_of(path)
    assert first.step == pytest.approx(2 ** ((qp - 4) / 6))
    assert all(coding.step is None and coding.num_bytes for coding in others)


def test_broken_headers_of_hevc_say_nothing_and_break_nothing(tmp_path):
    path = write_frames(tmp_path / "in.ts", [picture(0, 64, 48)], "libx265", "yuv420p")
    data = path.read_bytes()[188:]
    rng = np.random.default_rng(0)
    for _ in range(50):
        broken = bytearray(data[: int(rng.integers(0, 1500))])
        for at in rng.integers(0, max(1, len(broken)), 20):
            broken[at : at + 1] = bytes([int(rng.integers(256))])
        headers = HEVCHeaders(b"")
        assert headers.qp_of(bytes(broken)) is None or isinstance(headers.qp_of(bytes(broken)), int)
    assert HEVCHeaders(b"\x01" + b"\xff" * 30).qp_of(b"\0\0\0\1abc") is None


def test_jpeg_images_say_their_table(tmp_path):
    for quality in (95, 20):
        path = tmp_path / f"{quality}_0.jpg"
        cv2.imwrite(str(path), picture(0, 64, 48), [cv2.IMWRITE_JPEG_QUALITY, quality])
    [fine] = codings_of(tmp_path / "95_%d.jpg", 1)
    [coarse] = codings_of(tmp_path / "20_%d.jpg", 1)
    assert coarse.step > 8 * fine.step


def test_lossless_and_made_frames_say_nothing_of_steps(tmp_path):
    path = make_clip(tmp_path / "in.mkv", codec="ffv1", pix_fmt="bgr0")
    [coding] = codings_of(path, 1)
    assert coding.step is None
    assert coding.is_lossless
    assert not FrameCoding("hevc").is_lossless


@pytest.mark.parametrize("cut", [0, 1, 3, 10, 40, 90, 150])
def test_a_broken_jpeg_has_no_table_and_breaks_nothing(cut):
    table = bytes([0xFF, 0xDB, 0, 67, 0, *range(1, 65)])
    jpeg = bytes([0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 0, 0]) + table
    assert jpeg_steps(jpeg) is not None
    assert cut >= len(jpeg) or jpeg_steps(jpeg[:cut]) is None


def test_quantisers_are_not_asked_of_threads_that_may_not_be_done(tmp_path):
    """With frame threads FFmpeg handed out those of frames still in work: zeros, now and then."""
    frames = [picture(t, 64, 48) for t in range(3)]
    path = write_frames(tmp_path / "in.mkv", frames, "libx264", "yuv420p", {"qp": "28"})
    with open_video(path, threads=4) as reader:
        assert all(frame.coding.steps is None for frame in reader)
    with open_video(path, threads=1) as reader:
        assert all(frame.coding.step > 8 for frame in reader)
