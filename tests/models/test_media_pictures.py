"""Pictures are what the source says they are: fields, crop, opacity, colour, HDR, stills."""

import contextlib
import io
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from instantvir_models.errors import VideoOpenError, VideoWriteError
from instantvir_models.media import EncoderSettings, Frame, create_video, open_video
from instantvir_models.media.color import ColorTags, resolved, to_rgb
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.matrices import to_rgb_levels
from instantvir_models.media.side_data import give_side_data, side_data_of
from tests.media_clips import make_clip, picture
from tests.models.test_media_companions import restored

PQ, HLG = 16, 18


def frames_of(path):
    with open_video(path) as reader:
        return list(reader)


def some_frames(count, width=32, height=32, alpha=None):
    return [
        Frame(picture(i, width, height), i, Fraction(1, 25), 1, alpha=alpha) for i in range(count)
    ]


def write(target, frames, **settings):
    height, width = frames[0].pixels.shape[:2]
    with create_video(
        target, width=width, height=height, settings=EncoderSettings(**settings)
    ) as writer:
        for frame in frames:
            writer.write(frame)


def interlaced(path, *, is_top_first):
    order = "tff" if is_top_first else "bff"
    options = {"flags": "+ildct+ilme", "x264-params": f"{order}=1"}
    return make_clip(path, num_frames=3, height=32, options=options)


@pytest.mark.parametrize("is_top_first", [True, False])
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov", "out.ts"])
def test_fields_are_never_called_progressive(tmp_path, target, is_top_first):
    clip = interlaced(tmp_path / "in.mkv", is_top_first=is_top_first)
    with open_video(clip) as reader:
        assert reader.info.is_interlaced
    restored(clip, tmp_path / target)
    suffix = {"out.ts": "mpegts"}.get(target)
    with av.open(str(tmp_path / target), format=suffix) as container:
        assert next(container.decode(video=0)).interlaced_frame
    with open_video(tmp_path / target) as reader:
        assert reader.info.is_interlaced
        assert reader.info.is_top_field_first == is_top_first


def test_what_cannot_say_that_it_has_fields_is_named(tmp_path):
    clip = interlaced(tmp_path / "in.mkv", is_top_first=True)
    with open_video(clip) as reader, create_video(
        tmp_path / "out.webm", info_of=reader, width=32, height=32,
        settings=EncoderSettings(codec="vp9"),
    ) as writer:  # fmt: skip
        for frame in reader:
            writer.write(frame)
    assert "that the video is interlaced, which libvpx-vp9 cannot say" in writer.losses


def saying(path, data, **options):
    """A clip whose container says `data`, which is FFmpeg's side data of a stream."""
    with av.open(str(path), "w", container_options={"strict": "unofficial"}) as container:
        with av.open(str(path.with_suffix(".nobody.mkv")), "w") as nobodys:
            streams = [
                made.add_stream("libx264", rate=25, width=32, height=32, pix_fmt="yuv420p")
                for made in (container, nobodys)
            ]
            assert give_side_data(streams[0], streams[1], data)
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(picture(index, 32, 32), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(streams[0].encode(frame))
        container.mux(streams[0].encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_what_a_container_crops_is_not_restored(tmp_path, suffix):
    crop = struct.pack("<4I", 2, 4, 6, 8)  # top, bottom, left, right
    clip = saying(tmp_path / f"in{suffix}", (("frame_cropping", crop),))
    with open_video(clip) as reader:
        assert (reader.info.width, reader.info.height) == (32 - 14, 32 - 6)
        pixels = next(iter(reader)).pixels
    with av.open(str(clip)) as container:
        whole = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(pixels.astype(int) - whole[2:28, 6:24]).mean() < 3


def test_what_a_codec_crops_is_cropped_to_the_column(tmp_path):
    plain = make_clip(tmp_path / "plain.mkv", num_frames=2, width=160, height=128)
    with av.open(str(plain)) as source, av.open(str(tmp_path / "in.mkv"), "w") as target:
        video = source.streams.video[0]
        copied = target.add_stream_from_template(video, opaque=True)
        edges = "crop_top=8:crop_bottom=4:crop_left=2:crop_right=6"
        cropped = BitStreamFilterContext(f"h264_metadata={edges}", video, copied)
        for packet in [*(p for p in source.demux(video) if p.size), None]:
            for made in cropped.filter(packet):
                made.stream = copied
                target.mux(made)
    with open_video(tmp_path / "in.mkv") as reader:
        assert (reader.info.width, reader.info.height) == (152, 116)
        pixels = next(iter(reader)).pixels
    assert np.abs(pixels.astype(int) - picture(0, 160, 128)[8:-4, 2:-6]).mean() < 4


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4", "out.mov"])
def test_a_spherical_video_stays_one(tmp_path, target):
    projection = ("spherical", struct.pack("<I3i5I", 0, 0, 0, 0, 0, 0, 0, 0, 0))
    clip = saying(tmp_path / "in.mkv", (projection,))
    said = dict(side_data_of_file(clip))["spherical"]
    writer = restored(clip, tmp_path / target)
    assert dict(side_data_of_file(tmp_path / target))["spherical"] == said
    assert writer.losses == ()
    lost = restored(clip, tmp_path / "out.avi")
    assert "that the video is spherical" in lost.losses


def side_data_of_file(path):
    with av.open(str(path)) as container:
        return side_data_of(container.streams.video[0])


@pytest.mark.parametrize(
    ("codec", "target"),
    [(None, "out.mp4"), ("hevc", "out.mkv"), ("av1", "out.mkv"), ("h264", "out.mov")],
)
def test_hdr10_stays_hdr10(tmp_path, codec, target):
    mastering = (
        "log-level=error:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
        "L(10000000,50):max-cll=1000,400"
    )
    clip = make_clip(
        tmp_path / "in.mkv", width=64, height=64, num_frames=3, codec="libx265",
        pix_fmt="yuv420p10le", color=(1, 9, PQ, 9), options={"x265-params": mastering},
    )  # fmt: skip
    with (
        open_video(clip) as reader,
        create_video(
            tmp_path / target, info_of=reader, width=64, height=64,
            settings=EncoderSettings(codec=codec),
        ) as writer,
    ):  # fmt: skip
        for frame in reader:
            writer.write(frame)
    assert writer.losses == ()
    with open_video(tmp_path / target) as reader:
        info = reader.info
    assert info.codec_name == {None: "hevc", "hevc": "hevc", "av1": "av1", "h264": "h264"}[codec]
    assert (info.color.transfer, info.color.primaries, info.bit_depth) == (PQ, 9, 10)
    assert info.hdr.light_level == (1000, 400)
    assert [float(nits) for nits in info.hdr.nits] == pytest.approx([0.005, 1000], rel=1e-2)
    red, white = info.hdr.primaries[0], info.hdr.primaries[3]
    assert [float(v) for v in red] == pytest.approx([0.68, 0.32], abs=1e-3)
    assert [float(v) for v in white] == pytest.approx([0.3127, 0.329], abs=1e-3)


@pytest.mark.parametrize("target", ["out.mp4", "out.mov"])
def test_apple_opens_hevc(tmp_path, target):
    write(tmp_path / target, some_frames(2, 64, 64), codec="hevc")
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize(
    ("target", "codec", "pix_fmt"),
    [
        ("out.mov", "prores", None),
        ("out.mov", "prores", "yuva444p10le"),
        ("out.mkv", "ffv1", None),
        ("out.mov", "qtrle", None),
        ("out.apng", None, None),
    ],
)
@pytest.mark.parametrize("source", ["yuva444p", "yuva444p10le"])
def test_opacity_is_carried(tmp_path, target, codec, pix_fmt, source):
    ramp = np.tile(np.linspace(0, 255, 32).round().astype(np.uint8), (32, 1))
    clip = tmp_path / "in.mkv"
    write(clip, some_frames(2, alpha=ramp), codec="ffv1", pix_fmt=source)
    assert np.abs(in_8_bits(frames_of(clip)[0].alpha) - ramp).max() <= 1
    with (
        open_video(clip) as reader,
        create_video(
            tmp_path / target, info_of=reader, width=32, height=32,
            settings=EncoderSettings(codec=codec, pix_fmt=pix_fmt),
        ) as writer,
    ):  # fmt: skip
        for frame in reader:
            writer.write(frame)
    assert writer.losses == ()
    assert np.abs(in_8_bits(frames_of(tmp_path / target)[0].alpha) - ramp).max() <= 2


def in_8_bits(alpha):
    return alpha.astype(int) if alpha.dtype == np.uint8 else np.rint(alpha / 257).astype(int)


def test_opacity_that_is_lost_is_named(tmp_path):
    """Every picture of a GIF has a channel of opacity: it is no loss where nothing shows through."""
    opaque = np.full((32, 32), 255, np.uint8)
    seen = opaque.copy()
    seen[:, :8] = 0
    clip = tmp_path / "in.mkv"
    write(clip, some_frames(2, alpha=opaque), codec="ffv1", pix_fmt="yuva420p")
    assert restored(clip, tmp_path / "out.mp4").losses == ()
    later = [*some_frames(2, alpha=opaque), *some_frames(3, alpha=seen)[2:]]
    write(clip, later, codec="ffv1", pix_fmt="yuva420p")
    losses = restored(clip, tmp_path / "out.mp4").losses
    assert losses == ("the transparency (alpha), which libx264 yuv420p cannot hold",)


def coded(rgb, matrix, transfer):
    """Y, C1, C2 of one colour, from the definitions of H.273, BT.2020 and BT.2100."""
    red, green, blue = rgb
    if matrix == 8:
        rest = (red + blue) / 2
        return (green + rest) / 2, (green - rest) / 2, (red - blue) / 2
    light = [to_light(value, transfer) for value in rgb]
    if matrix == 10:
        luma = from_light(np.dot([0.2627, 0.6780, 0.0593], light), transfer)
        cb, cr = blue - luma, red - luma
        return luma, cb / (1.9404 if cb <= 0 else 1.5816), cr / (1.7184 if cr <= 0 else 0.9936)
    lms = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) @ light / 4096
    weights = {
        PQ: [[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]],
        HLG: [[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]],
    }[transfer]
    return tuple(np.array(weights) / 4096 @ [from_light(v, transfer) for v in lms])


def to_light(value, transfer):
    if transfer == PQ:
        power = value ** (32 / 2523)
        return (max(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
    if transfer == HLG:
        dark = value**2 / 3
        return (
            dark if value <= 0.5 else (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
    return value / 4.5 if value < 4.5 * 0.0181 else ((value + 0.0993) / 1.0993) ** (1 / 0.45)


def from_light(value, transfer):
    if transfer == PQ:
        power = value ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    if transfer == HLG:
        bright = 0.17883277 * np.log(max(12 * value - 0.28466892, 1e-9)) + 0.55991073
        return np.sqrt(3 * value) if value <= 1 / 12 else bright
    return 4.5 * value if value < 0.0181 else 1.0993 * value**0.45 - 0.0993


@pytest.mark.parametrize(
    ("matrix", "transfer"), [(8, 1), (10, 14), (10, PQ), (10, HLG), (14, PQ), (14, HLG)]
)
@pytest.mark.parametrize("rgb", [(0.5, 0.5, 0.5), (0.8, 0.3, 0.2), (0.1, 0.4, 0.9), (0, 1, 0)])
def test_colour_without_a_matrix_of_three_numbers_is_what_was_coded(matrix, transfer, rgb):
    planes = [np.full((2, 2), v, np.float32) for v in coded(rgb, matrix, transfer)]
    got = to_rgb_levels(*planes, matrix=matrix, transfer=transfer)
    np.testing.assert_allclose(got[0, 0], rgb, atol=4e-3)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_such_colour_is_read_and_written_in_another_matrix(tmp_path, matrix, pix_fmt):
    """It ended in a traceback at 10 bits and was taken for BT.601 at 8."""
    frame = av.VideoFrame(16, 16, pix_fmt)
    gray = 2 ** (7 if pix_fmt == "yuv420p" else 9)
    for plane in frame.planes:
        dtype = np.uint8 if pix_fmt == "yuv420p" else np.uint16
        plane.update(np.full(plane.buffer_size // dtype().itemsize, gray, dtype).tobytes())
    tags = resolved(ColorTags(1, matrix, HLG, 9), pix_fmt=pix_fmt, height=16)
    assert tags.matrix == matrix
    pixels = to_rgb(frame, tags)
    assert np.ptp(pixels[0, 0].astype(int)) <= np.iinfo(pixels.dtype).max // 200  # gray is gray
    clip = make_clip(tmp_path / "in.mkv", num_frames=2, pix_fmt=pix_fmt, color=(1, matrix, HLG, 9))
    restored(clip, tmp_path / "out.mkv")
    with open_video(tmp_path / "out.mkv") as reader:
        assert reader.info.color.matrix == (6 if matrix == 8 else 9)
        written = next(iter(reader)).pixels.astype(float)
    with open_video(
        clip, fields=FieldChoice()
    ) as reader:  # looking for fields was a traceback, too
        assert len(list(reader)) == 2
    original = frames_of(clip)[0].pixels.astype(float)
    assert np.abs(written - original).mean() < np.iinfo(frames_of(clip)[0].pixels.dtype).max / 40


@pytest.mark.parametrize("suffix", [".gif", ".apng", ".webp"])
def test_animations_hold_every_frame(tmp_path, suffix):
    write(tmp_path / f"out{suffix}", some_frames(4))
    if suffix == ".webp" and "webp_anim" not in av.formats_available:
        assert (tmp_path / "out.webp").read_bytes()[8:12] == b"WEBP"
        return
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    for index, pixels in enumerate(frames):
        assert np.abs(pixels.astype(int) - picture(index, 32, 32)).mean() < 12


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.bmp", "out.tiff"])
def test_one_frame_becomes_one_picture(tmp_path, name):
    write(tmp_path / name, some_frames(1))
    with av.open(str(tmp_path / name)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(pixels.astype(int) - picture(0, 32, 32)).mean() < 4


def test_one_picture_does_not_hold_a_film(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", num_frames=3)
    with pytest.raises(VideoWriteError, match=r"holds one picture, and 3 are to come"):
        restored(clip, tmp_path / "out.png")
    with pytest.raises(VideoWriteError, match=r"holds one picture, and there are more"):
        write(tmp_path / "out.png", some_frames(2))
    assert not (tmp_path / "out.png").exists()


def test_a_container_of_constant_rate_shows_a_picture_again(tmp_path):
    pts = [0, 40, 200, 240]
    clip = make_clip(tmp_path / "in.mkv", pts=pts, time_base=Fraction(1, 1000))
    with (
        open_video(clip) as reader,
        create_video(
            tmp_path / "out.y4m", info_of=reader, width=32, height=32, frame_rate=25,
            output_format="yuv4mpegpipe",
        ) as writer,
    ):  # fmt: skip
        for frame in reader:
            writer.write(frame)
    shown = [frame.pixels for frame in frames_of(tmp_path / "out.y4m")]
    assert len(shown) == 7
    assert all(np.array_equal(shown[1], again) for again in shown[2:5])
    assert not np.array_equal(shown[1], shown[5])


def test_a_photograph_is_read_and_turned_upright(tmp_path):
    """PyAV 18 has no name for EXIF, and would tell nothing at all of a picture that has some."""
    encoded, jpeg = cv2.imencode(".jpg", np.full((16, 32, 3), 90, np.uint8))
    assert encoded
    one_entry = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)  # orientation: a quarter turn
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + one_entry
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
    (tmp_path / "a1.jpg").write_bytes(jpeg.tobytes()[:2] + segment + jpeg.tobytes()[2:])
    with open_video(str(tmp_path / "a%d.jpg")) as reader:
        assert (reader.info.width, reader.info.height) == (16, 32)
        assert len(list(reader)) == 1


def test_an_animation_that_cannot_be_read_says_what_can_be_done(tmp_path):
    write(tmp_path / "in.webp", some_frames(3))
    pipe = io.BytesIO((tmp_path / "in.webp").read_bytes())  # of a file the pictures are read
    with pytest.raises(VideoOpenError) as caught, open_video(pipe):
        pass
    assert "APNG or GIF" in caught.value.hint


def test_a_gif_keeps_what_is_transparent(tmp_path):
    """It was written opaque, and every opaque GIF was said to lose its transparency."""
    seen = np.full((32, 32), 255, np.uint8)
    seen[:, :16] = 0
    write(tmp_path / "in.mkv", some_frames(2, alpha=seen), codec="ffv1", pix_fmt="yuva420p")
    assert restored(tmp_path / "in.mkv", tmp_path / "out.gif").losses == ()
    assert np.abs(in_8_bits(frames_of(tmp_path / "out.gif")[0].alpha) - seen).max() == 0


def animated_webp(path, *, durations=(100, 300, 40)):
    """One still with opacity, laid at three places of a canvas, over what is there or instead of it."""
    encoder = av.CodecContext.create("libwebp", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 16, 12, "bgra"
    encoder.time_base, encoder.options = Fraction(1, 25), {"lossless": "1"}
    pixels = np.full((12, 16, 4), (10, 20, 200, 255), np.uint8)
    pixels[:6, :, 3] = 0
    (packet,) = encoder.encode(av.VideoFrame.from_ndarray(pixels, format="bgra"))
    still = bytes(packet)
    inner = still[12:] if still[12:16] == b"VP8L" else still[30:]
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + bytes([31, 0, 0, 23, 0, 0])
    chunks += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    for index, milliseconds in enumerate(durations):
        numbers = (4 * index, 0, 15, 11, milliseconds)
        body = b"".join(number.to_bytes(3, "little") for number in numbers)
        body += bytes([2 if index == 2 else 0]) + inner
        chunks += b"ANMF" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks)
    return path


def test_an_animated_webp_is_a_film(tmp_path):
    """FFmpeg reads no picture of one, not even of those that are written here."""
    clip = animated_webp(tmp_path / "in.webp")
    with open_video(clip) as reader:
        frames = list(reader)
        assert (reader.info.width, reader.info.height) == (32, 24)
    assert [float(f.pts * f.time_base) for f in frames] == [0, 0.1, 0.4]
    assert float(frames[-1].duration * frames[-1].time_base) == pytest.approx(0.04)
    assert tuple(frames[1].pixels[8, 12]) == (200, 20, 10)
    assert [frames[2].alpha[row, col] for row, col in ((8, 4), (2, 20), (8, 31), (8, 20))] == [
        255, 0, 255, 255,
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_animated_webp_is_refused_in_words(tmp_path, seed):
    random = np.random.default_rng(seed)
    data = bytearray(animated_webp(tmp_path / "in.webp").read_bytes())
    for at in random.integers(30, len(data), 4):
        data[at] = random.integers(256)
    (tmp_path / "in.webp").write_bytes(data[: random.integers(60, len(data) + 1)])
    with contextlib.suppress(VideoOpenError), open_video(tmp_path / "in.webp") as reader:
        list(reader)


def test_an_animation_of_gigabytes_is_not_read_into_memory(tmp_path):
    path = animated_webp(tmp_path / "in.webp")
    with path.open("r+b") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(VideoOpenError, match="it has more than 256 MiB"):
        open_video(path)
