"""Colours are measured against the definition of the matrices, not against another swscale call."""

import av
import numpy as np
import pytest

from instantvir_models.media import ColorTags, EncoderSettings, create_video, open_video
from instantvir_models.media.color import from_rgb, resolved, to_rgb
from tests.media_clips import make_clip

KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def flat_yuv(pix_fmt, levels):
    """A 16x16 frame with one value per plane."""
    frame = av.VideoFrame(16, 16, pix_fmt)
    dtype = np.uint8 if pix_fmt.endswith("p") else np.dtype("<u2")
    for plane, level in zip(frame.planes, levels, strict=True):
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, level, dtype))
    return frame


def rgb_of(levels, depth, matrix, is_full):
    """H.273: the RGB, 0..1, that three code values mean."""
    kr, kb = KR_KB[matrix]
    unit = 2 ** (depth - 8)
    black, luma_span, chroma_span = (
        (0, 2**depth - 1, 2**depth - 1) if is_full else (16 * unit, 219 * unit, 224 * unit)
    )
    y = (levels[0] - black) / luma_span
    cb, cr = ((level - 128 * unit) / chroma_span for level in levels[1:])
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.clip([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], 0, 1)


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize(
    ("pix_fmt", "depth"), [("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p12le", 12)]
)
def test_yuv_means_what_the_standard_says(pix_fmt, depth, matrix, color_range):
    unit = 2 ** (depth - 8)
    for levels in ((60, 100, 170), (180, 140, 90), (16, 128, 128), (235, 128, 128)):
        levels = tuple(level * unit for level in levels)
        tags = ColorTags(color_range, matrix)
        pixels = to_rgb(flat_yuv(pix_fmt, levels), tags)
        expected = rgb_of(levels, depth, matrix, color_range == 2)
        scale = 255 if depth == 8 else 65535
        assert np.abs(pixels[4, 4].astype(float) - expected * scale).max() <= 2


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize(
    ("pix_fmt", "depth"), [("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv444p12le", 12)]
)
def test_rgb_returns_from_yuv_within_two_levels(pix_fmt, depth, matrix, color_range):
    maximum = 255 if depth == 8 else 65535
    colors = np.random.default_rng(0).integers(0, maximum, (12, 3))
    tags = ColorTags(color_range, matrix)
    for color in colors:
        pixels = np.broadcast_to(color, (8, 8, 3)).astype(np.uint8 if depth == 8 else np.uint16)
        frame = from_rgb(pixels, pix_fmt, tags)
        assert (frame.color_range, frame.colorspace) == (color_range, matrix)
        error = np.abs(to_rgb(frame, tags).astype(float) - pixels).max() / maximum
        assert error * (2**depth - 1) <= 2.05


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_colours_do_not_ring_beside_an_edge(pix_fmt):
    pixels = np.zeros((16, 32, 3), np.uint8 if pix_fmt == "yuv420p" else np.uint16)
    maximum = np.iinfo(pixels.dtype).max
    pixels[:, :16], pixels[:, 16:] = (
        np.array([0.7, 0.2, 0.3]) * maximum,
        np.array([0.3, 0.4, 0.8]) * maximum,
    )
    tags = ColorTags(1, 1)
    error = np.abs(to_rgb(from_rgb(pixels, pix_fmt, tags), tags).astype(float) - pixels) / maximum
    assert error[:, np.r_[:13, 19:32]].max() < 2.5 / 255


@pytest.mark.parametrize(
    ("pix_fmt", "bits"),
    [("bgr0", 8), ("gbrp", 8), ("gbrp10le", 10), ("gbrp16le", 16), ("rgb48le", 16)],
)
def test_rgb_formats_lose_nothing(pix_fmt, bits):
    levels = np.random.default_rng(0).integers(0, 2**bits, (9, 7, 3))
    maximum = 255 if bits == 8 else 65535
    pixels = np.round(levels * (maximum / (2**bits - 1))).astype(
        np.uint8 if bits == 8 else np.uint16
    )
    tags = resolved(ColorTags(), pix_fmt=pix_fmt, height=9)
    np.testing.assert_array_equal(to_rgb(from_rgb(pixels, pix_fmt, tags), tags), pixels)


@pytest.mark.parametrize(("height", "matrix"), [(480, 6), (719, 6), (720, 1), (1080, 1)])
def test_untagged_video_is_601_when_small_and_709_when_large(height, matrix):
    assert resolved(ColorTags(), pix_fmt="yuv420p", height=height) == ColorTags(1, matrix)


def test_untagged_gray_and_yuvj_are_full_range():
    assert resolved(ColorTags(), pix_fmt="gray", height=64).range == 2
    assert resolved(ColorTags(), pix_fmt="yuvj420p", height=64).range == 2


@pytest.mark.parametrize(("color_range", "expected"), [(1, 125.75), (2, 124)])
@pytest.mark.parametrize(("pix_fmt", "depth"), [("gray", 8), ("gray10le", 10), ("gray16le", 16)])
def test_gray_obeys_its_range(pix_fmt, depth, color_range, expected):
    frame = av.VideoFrame(16, 16, pix_fmt)
    dtype = np.uint8 if depth == 8 else np.dtype("<u2")
    level = 124 * 2 ** (depth - 8) if color_range == 1 else round(124 / 255 * (2**depth - 1))
    frame.planes[0].update(
        np.full(frame.planes[0].buffer_size // np.dtype(dtype).itemsize, level, dtype)
    )
    pixels = to_rgb(frame, ColorTags(color_range, 6))
    assert pixels[3, 3].astype(float) / np.iinfo(pixels.dtype).max * 255 == pytest.approx(
        expected, abs=0.5
    )


@pytest.mark.parametrize(
    "pix_fmt", ["gray", "gray10le", "pal8", "rgb565le", "ya8", "nv12", "p010le", "rgba64le"]
)
def test_unusual_formats_are_read(pix_fmt):
    white = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 255, np.uint8)).reformat(
        format="rgb24" if pix_fmt == "pal8" else pix_fmt
    )
    if pix_fmt == "pal8":
        palette = np.full((256, 4), 255, np.uint8)
        white = av.VideoFrame.from_ndarray((np.zeros((16, 16), np.uint8), palette), format="pal8")
    pixels = to_rgb(white, resolved(ColorTags(), pix_fmt=pix_fmt, height=16))
    assert pixels.shape == (16, 16, 3)
    assert pixels.min() >= 0.985 * np.iinfo(pixels.dtype).max


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "color", [(1, 1, 1, 1), (2, 1, 1, 1), (1, 6, 6, 6), (2, 5, 6, 5), (1, 9, 16, 9)]
)
def test_tags_are_kept_and_colours_stay(tmp_path, suffix, color):
    source = make_clip(tmp_path / f"in{suffix}", num_frames=2, color=color, options={"crf": "4"})
    target = tmp_path / f"out{suffix}"
    with open_video(source) as reader:
        assert reader.info.color == ColorTags(color[0], color[1], color[2], color[3])
        settings = EncoderSettings(crf=1)
        with create_video(target, info_of=reader, width=32, height=32, settings=settings) as writer:
            before = list(reader)
            for frame in before:
                writer.write(frame)
    with open_video(target) as reader:
        assert reader.info.color == ColorTags(color[0], color[1], color[2], color[3])
        after = list(reader)
    for old, new in zip(before, after, strict=True):
        assert np.abs(old.pixels.astype(float) - new.pixels).mean() < 2


def test_untagged_sources_get_the_tags_that_were_used(tmp_path):
    source = make_clip(tmp_path / "in.mp4", num_frames=1)
    with open_video(source) as reader:
        assert reader.info.color == ColorTags(0, 2, 2, 2)
        with create_video(tmp_path / "out.mp4", info_of=reader, width=32, height=32) as writer:
            for frame in reader:
                writer.write(frame)
    with open_video(tmp_path / "out.mp4") as reader:
        assert reader.info.color == ColorTags(1, 6, 2, 2)


@pytest.mark.parametrize(
    ("codec", "suffix"), [(None, ".mp4"), ("hevc", ".mkv"), ("av1", ".mkv"), ("prores", ".mov")]
)
def test_ten_bits_stay_ten_bits(tmp_path, codec, suffix):
    source = make_clip(
        tmp_path / "in.mkv",
        width=64,
        height=64,
        num_frames=2,
        pix_fmt="yuv420p10le",
        color=(1, 1, 1, 1),
        options={"crf": "1"},
    )
    crf = None if codec == "prores" else 8
    with (
        open_video(source) as reader,
        create_video(
            tmp_path / f"out{suffix}",
            info_of=reader,
            width=64,
            height=64,
            settings=EncoderSettings(codec=codec, crf=crf, threads=1),
        ) as writer,
    ):
        assert reader.info.bit_depth == 10
        before = list(reader)
        assert before[0].pixels.dtype == np.uint16
        for frame in before:
            writer.write(frame)
    with open_video(tmp_path / f"out{suffix}") as reader:
        assert reader.info.bit_depth == 10
        after = list(reader)
    error = np.abs(before[0].pixels.astype(float) - after[0].pixels) / 65535
    assert error.mean() < 0.012
    assert np.median(error) < 0.004
