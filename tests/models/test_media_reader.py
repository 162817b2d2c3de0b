import itertools
import re
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import create_video, open_video
from instantvir_models.media.container_reader import ContainerReader
from instantvir_models.media.image_reader import ImageReader
from instantvir_models.media.packets import PacketQueue
from tests.media_clips import make_clip, make_images, picture, set_display_matrix

CODECS = {
    ".mp4": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "ffv1",
    ".ts": "libx264",
}


def frames_of(source, **options):
    with open_video(source, **options) as reader:
        return list(reader)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 25])
def test_every_frame_comes_once(tmp_path, suffix, num_frames):
    clip = make_clip(tmp_path / f"clip{suffix}", num_frames=num_frames, codec=CODECS[suffix])
    with open_video(clip) as reader:
        frames = list(reader)
        assert reader.damage.message is None
    assert len(frames) == num_frames
    times = [frame.pts_seconds - frames[0].pts_seconds for frame in frames]
    np.testing.assert_allclose(times, np.arange(num_frames) / 25, atol=1e-9)
    for index, frame in enumerate(frames):
        assert np.abs(frame.pixels.astype(float) - picture(index, 32, 32)).mean() < 12


def test_info_tells_the_facts(tmp_path):
    clip = make_clip(
        tmp_path / "clip.mp4",
        width=48,
        height=64,
        num_frames=12,
        fps=30,
        audio=True,
        sample_aspect_ratio=Fraction(4, 3),
    )
    with open_video(clip) as reader:
        info = reader.info
    assert (info.width, info.height, info.num_frames, info.frame_rate) == (48, 64, 12, 30)
    assert info.duration_seconds == pytest.approx(0.4)
    assert (info.codec_name, info.pix_fmt, info.bit_depth, info.is_lossless) == (
        "h264",
        "yuv420p",
        8,
        False,
    )
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert [(a.codec_name, a.language, a.sample_rate, a.channels) for a in info.audio_streams] == [
        ("aac", "deu", 48_000, 1)
    ]


def test_variable_frame_times_are_exact(tmp_path):
    pts = [0, 1, 5, 6, 30, 31, 90]
    clip = make_clip(tmp_path / "clip.mkv", pts=pts, time_base=Fraction(1, 1000))
    assert [frame.pts for frame in frames_of(clip)] == pts


def test_a_stream_without_times_gets_increasing_ones(tmp_path):
    clip = make_clip(tmp_path / "clip.h264", num_frames=9)
    frames = frames_of(clip)
    assert len(frames) == 9
    assert all(a.pts < b.pts for a, b in itertools.pairwise(frames))
    assert frames[-1].pts_seconds - frames[0].pts_seconds == pytest.approx(8 / 25)


def test_iterating_again_goes_on(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=6)
    with open_video(clip) as reader:
        first = [next(iter(reader)).pts for _ in range(2)]
        assert len(first + [frame.pts for frame in reader]) == 6


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [
        (0.4, 0.2, range(10, 15)),
        (1.0, None, range(25, 50)),
        (None, 0.12, range(3)),
        (1.9, 5.0, range(48, 50)),
        (0, 0.04, range(1)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_start_and_duration_choose_the_frames(tmp_path, suffix, start, duration, expected):
    clip = make_clip(tmp_path / f"clip{suffix}", num_frames=50, options={"g": "12"})
    frames = frames_of(clip, start_seconds=start, duration_seconds=duration)
    whole = frames_of(clip)
    assert [frame.pts for frame in frames] == [whole[i].pts for i in expected]
    np.testing.assert_array_equal(frames[-1].pixels, whole[expected[-1]].pixels)


def test_a_start_behind_the_end_is_an_error(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=5)
    with pytest.raises(VideoOpenError, match="holds no video frames") as caught:
        open_video(clip, start_seconds=9)
    assert "behind the end" in caught.value.hint


@pytest.mark.parametrize(
    ("matrix", "degrees", "upright"),
    [
        ((0, 1, -1, 0), 90, lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), 270, lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, -1), 180, lambda p: np.rot90(p, 2)),
        ((-1, 0, 0, 1), 0, lambda p: p[:, ::-1]),
    ],
)
def test_frames_come_upright(tmp_path, matrix, degrees, upright):
    clip = make_clip(
        tmp_path / "clip.mp4", width=48, height=32, num_frames=2, sample_aspect_ratio=Fraction(2, 1)
    )
    lying = frames_of(clip)
    set_display_matrix(clip, *matrix)
    with open_video(clip) as reader:
        info, frames = reader.info, list(reader)
    assert info.rotation_degrees == degrees
    assert info.is_mirrored == (matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0)
    assert (info.height, info.width) == frames[0].pixels.shape[:2]
    assert info.sample_aspect_ratio == (Fraction(1, 2) if degrees in (90, 270) else Fraction(2, 1))
    for old, new in zip(lying, frames, strict=True):
        np.testing.assert_array_equal(upright(old.pixels), new.pixels)


def test_a_truncated_mp4_tells_what_is_missing(tmp_path):
    clip = make_clip(
        tmp_path / "clip.mp4",
        width=64,
        height=64,
        num_frames=50,
        container_options={"movflags": "faststart"},
        options={"crf": "1", "bf": "0"},
    )
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    with open_video(clip) as reader:
        frames = list(reader)
    damage = reader.damage
    assert 5 < len(frames) < 45
    assert damage.lost_packets == 50 - len(frames)
    assert "is cut short: it promises 50 frames" in damage.message


def test_a_truncated_mkv_tells_what_is_missing(tmp_path):
    clip = make_clip(
        tmp_path / "clip.mkv", width=64, height=64, num_frames=50, audio=True, options={"bf": "0"}
    )
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    with open_video(clip) as reader:
        frames = list(reader)
        assert 5 < len(frames) < 45
        assert abs(reader.damage.lost_packets - (50 - len(frames))) <= 2
        assert "is cut short" in reader.damage.message


def test_noise_in_the_middle_loses_few_frames_and_is_counted(tmp_path):
    clip = make_clip(
        tmp_path / "clip.mp4", width=64, height=64, num_frames=30, codec="mjpeg", pix_fmt="yuvj420p"
    )
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    clip.write_bytes(data)
    with open_video(clip) as reader:
        frames = list(reader)
        assert len(frames) >= 25
        damage = reader.damage
    assert len(frames) + damage.lost_packets == 30
    assert damage.lost_packets + damage.corrupt_frames > 0
    assert damage.message


@pytest.mark.parametrize("as_what", ["list", "glob", "pattern"])
def test_images_are_a_video(tmp_path, as_what):
    paths = make_images(tmp_path, 3)
    source = {
        "list": paths,
        "glob": str(tmp_path / "*.png"),
        "pattern": str(tmp_path / "frame_%05d.png"),
    }[as_what]
    with open_video(source, frame_rate=10) as reader:
        assert (reader.info.num_frames, reader.info.frame_rate, reader.info.is_lossless) == (
            3,
            10,
            True,
        )
        frames = list(reader)
    assert [frame.pts_seconds for frame in frames] == [0, 0.1, 0.2]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.pixels, picture(index, 32, 32))


def test_a_binary_file_object_is_a_source(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", num_frames=4)
    with clip.open("rb") as file:
        assert len(frames_of(file)) == 4


def test_standard_input_is_a_source(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", num_frames=7)
    code = "from instantvir_models.media import open_video; print(len(list(open_video('-'))))"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {MODELS!r}); {code}"],
        input=clip.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert run.stdout.split() == [b"7"]


def test_empty_standard_input_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "nothing").touch()
    with (tmp_path / "nothing").open() as empty:
        monkeypatch.setattr(sys, "stdin", empty)
        with pytest.raises(VideoOpenError, match="standard input is empty"):
            open_video("-")


def test_raw_video_needs_and_takes_options(tmp_path):
    raw = tmp_path / "clip.raw"
    raw.write_bytes(b"".join(picture(i, 16, 8).tobytes() for i in range(3)))
    options = {"video_size": "16x8", "pixel_format": "rgb24", "framerate": "10"}
    frames = frames_of(raw, input_format="rawvideo", input_options=options)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.pixels, picture(index, 16, 8))
    assert len(frames) == 3


def make_audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("missing.mp4", None, r"`.*missing.mp4` does not exist", "spelling"),
        ("empty.mp4", b"", r"`.*empty.mp4` is empty", "0 bytes"),
        ("garbage.mp4", b"hello world " * 200, "is not a video that FFmpeg can read", "ffprobe"),
        ("folder", "folder", "is a directory", r"\*.png"),
        ("sound.mp4", "sound", "has no video stream", r"found 1 audio stream \(aac\)"),
        ("no*such.png", None, "no file matches", "pattern"),
        ("frame_%03d.png", None, "no file matches", "digits"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path, name, content, message, hint):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content == "sound":
        make_audio(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoOpenError, match=message) as caught:
        open_video(path)
    assert re.search(hint, caught.value.hint)


def test_an_unknown_format_is_a_sentence(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=1)
    with pytest.raises(VideoOpenError, match="cannot open"):
        open_video(clip, input_format="nonsense")


def test_images_of_different_sizes_are_an_error(tmp_path):
    paths = [
        *make_images(tmp_path, 1),
        make_clip(tmp_path / "other.mkv", width=16, height=16, num_frames=1),
    ]
    with (
        open_video(paths) as reader,
        pytest.raises(VideoOpenError, match="changes from 32x32 to 16x16"),
    ):
        list(reader)


@pytest.mark.parametrize("pix_fmt", ["yuva420p", "bgra", "yuva444p10le", "gbrap16le"])
def test_opacity_comes_beside_the_colours(tmp_path, pix_fmt):
    clip = make_clip(tmp_path / "clip.mkv", num_frames=2, codec="ffv1", pix_fmt=pix_fmt)
    frame = frames_of(clip)[0]
    assert frame.pixels.shape == (32, 32, 3)
    assert frame.alpha.shape == (32, 32)
    assert frame.alpha.dtype == frame.pixels.dtype
    assert (frame.alpha == np.iinfo(frame.alpha.dtype).max).all()


def test_gray_video_is_read_as_gray(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", num_frames=2, codec="ffv1", pix_fmt="gray")
    pixels = frames_of(clip)[0].pixels.astype(int)
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels - pixels[..., :1]).max() <= 1


def test_cover_art_is_no_video(tmp_path):
    """An MP3 or M4A with a picture inside has a "video stream" of one still."""
    sound = tmp_path / "sound.m4a"
    image = make_images(tmp_path, 1)[0]
    with av.open(str(sound), "w", format="mp4") as container, av.open(str(image)) as cover:
        stream = container.add_stream_from_template(cover.streams.video[0], opaque=True)
        stream.disposition = av.stream.Disposition.attached_pic
        for packet in cover.demux():
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(VideoOpenError, match="has no video stream"):
        open_video(sound)


MODELS = next(p for p in sys.path if p.endswith("models") and "site-packages" not in p)


def test_after_a_flood_of_sound_that_nobody_took_the_queue_takes_packets_again(monkeypatch):
    """One flood, of a source whose picture had paused, left the rest of the stream without sound."""
    monkeypatch.setattr("instantvir_models.media.packets.MAX_WAITING_BYTES", 100)
    waiting = PacketQueue()
    for _ in range(5):
        waiting.append(av.Packet(60))
    assert waiting.has_lost_some
    assert len(list(waiting.drain())) == 2
    assert not waiting.has_lost_some
    waiting.append(av.Packet(60))
    assert len(list(waiting.drain())) == 1


def test_a_writer_that_comes_after_a_flood_says_that_sound_is_lost(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("instantvir_models.media.packets.MAX_WAITING_BYTES", 100)
    with open_video(make_clip(tmp_path / "in.mkv", num_frames=30, audio=True)) as reader:
        frames = list(reader)
        with create_video(tmp_path / "out.mkv", info_of=reader, width=32, height=32) as writer:
            writer.write(frames[0])
    assert "the writer came too late" in caplog.text


def test_what_is_named_chooses_the_kind_of_reader(tmp_path):
    paths = make_images(tmp_path, 2)
    clip = make_clip(tmp_path / "clip.mkv", num_frames=2, audio=True)
    with open_video(clip) as container, open_video(str(tmp_path / "*.png")) as images:
        assert isinstance(container, ContainerReader)
        assert isinstance(images, ImageReader)
        assert [stream.kind for stream in container.info.audio_streams] == ["audio"]
        assert images.demuxer is None
        assert repr(images) == f"ImageReader(`{tmp_path}/*.png`, 32x32, png rgb24)"
    with open_video(paths[0]) as still:  # one file is a container, whatever it holds
        assert isinstance(still, ContainerReader)
