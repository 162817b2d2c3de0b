"""Damage is told where it is, and nothing else is called so; names and places that are odd work."""

from fractions import Fraction

import av
import numpy as np
import pytest

from instantvir_models.errors import VideoWriteError
from instantvir_models.media import create_video, open_video
from instantvir_models.media.ffmpeg_errors import write_error
from instantvir_models.media.names import as_address
from instantvir_models.outputs.names import scheme_of
from tests.media_clips import make_clip, picture
from tests.models.test_media_companions import restored


def read(path, **options):
    """All frames and what could not be read."""
    with open_video(path, **options) as reader:
        return list(reader), reader.damage


def test_avi_with_empty_places_is_whole(tmp_path):
    """Programs that capture write nothing where a picture stays; this was called cut short."""
    clip = make_clip(tmp_path / "in.avi", codec="mpeg4", pts=[0, 4, 8, 12, 16])
    frames, damage = read(clip)
    assert damage.message is None
    assert [frame.pts_seconds for frame in frames] == pytest.approx(
        [0, 0.16, 0.32, 0.48, 0.64], abs=1e-6
    )


@pytest.mark.parametrize(("codec", "options"), [("mpeg4", {"bf": "2"}), ("libx264", {"bf": "2"})])
def test_avi_shows_its_pictures_from_the_beginning_at_a_constant_rate(tmp_path, codec, options):
    clip = make_clip(tmp_path / "in.avi", codec=codec, options=options, num_frames=20)
    frames, damage = read(clip)
    assert damage.message is None
    assert [frame.pts_seconds for frame in frames] == pytest.approx(
        [i / 25 for i in range(20)], abs=1e-6
    )
    for index, frame in enumerate(frames):
        assert np.abs(frame.pixels.astype(int) - picture(index, 32, 32)).mean() < 12


@pytest.mark.parametrize(
    ("name", "options", "container_options"),
    [
        ("in.avi", {}, {}),
        ("in.flv", {}, {}),
        ("in.mkv", {}, {}),
        ("in.mp4", {"g": "10"}, {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_file_that_is_cut_short_says_so_and_a_whole_one_does_not(
    tmp_path, name, options, container_options
):
    codec = "mpeg4" if name == "in.avi" else "libx264"
    clip = make_clip(
        tmp_path / name, num_frames=50, width=64, height=64, codec=codec,
        options=options, container_options=container_options,
    )  # fmt: skip
    frames, damage = read(clip)
    assert (len(frames), damage.message) == (50, None)
    data = clip.read_bytes()
    portion = 0.8 if name == "in.avi" else 0.6  # AVI begins with a long header
    clip.write_bytes(data[: int(len(data) * portion)])
    frames, damage = read(clip)
    assert 3 < len(frames) < 50
    assert "cut short" in damage.message


def test_packets_that_cannot_be_decoded_are_named_with_their_times(tmp_path):
    clip = make_clip(tmp_path / "in.mov", num_frames=50, codec="png", pix_fmt="rgb24")
    with av.open(str(clip)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    data = clip.read_bytes()
    for index in (10, 11, 12, 40):
        data = data.replace(packets[index], b"\0" * len(packets[index]))
    clip.write_bytes(data)
    frames, damage = read(clip, threads=1)
    assert len(frames) == 46
    assert damage.message == "4 packets could not be decoded (at 0.40-0.48, 1.60 s)"


def test_a_recording_that_begins_in_the_middle_says_what_is_missing(tmp_path):
    clip = make_clip(
        tmp_path / "in.ts",
        num_frames=50,
        audio=True,
        options={"g": "25", "bf": "0", "sc_threshold": "0"},
    )
    data = clip.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    clip.write_bytes(b"".join(packets[:3] + packets[len(packets) // 8 :]))
    frames, damage = read(clip)
    assert len(frames) == 25
    assert "before the first keyframe (at 0." in damage.message
    assert frames[0].pts_seconds > 0.3  # the sound begins before it
    assert np.abs(frames[0].pixels.astype(int) - picture(25, 32, 32)).mean() < 12


def test_pictures_that_refer_to_what_is_not_there_are_missed(tmp_path):
    """MPEG-2 leaves out without a word those between a cut and its first keyframe."""
    clip = make_clip(
        tmp_path / "in.ts", num_frames=30, codec="mpeg2video", options={"g": "10", "bf": "2"}
    )
    with av.open(str(clip)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        second = [p for p in packets if p.is_keyframe][1].pos
    data = clip.read_bytes()
    clip.write_bytes(data[: 188 * 3] + data[second - second % 188 :])
    frames, damage = read(clip)
    assert "2 packets could not be decoded before the first keyframe" in damage.message
    assert 15 < len(frames) < 22


def test_two_recordings_in_one_are_shown_one_after_the_other(tmp_path):
    """The second began at the time of the first, and the output could not be written."""
    clip = make_clip(tmp_path / "a.ts", num_frames=15, audio=True, options={"bf": "0"})
    both = tmp_path / "both.ts"
    both.write_bytes(clip.read_bytes() * 2)
    for target in ("out.mp4", "out.mkv"):
        restored(both, tmp_path / target)
        frames, _ = read(tmp_path / target)
        times = [frame.pts_seconds for frame in frames]
        assert len(times) == 30
        assert times[-1] == pytest.approx(1.18, abs=0.05)
        with av.open(str(tmp_path / target)) as container:
            sound = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
        assert sound == sorted(sound)
        assert sound[-1] == pytest.approx(1.18, abs=0.1)


def test_a_size_that_changes_keeps_what_was_done(tmp_path):
    """It ended the run, and nothing of it was left."""
    small = make_clip(tmp_path / "small.ts", num_frames=10, options={"bf": "0"})
    large = make_clip(
        tmp_path / "large.ts", num_frames=10, width=64, height=64, options={"bf": "0"}
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, damage = read(both)
    assert len(frames) == 20
    assert {frame.pixels.shape for frame in frames} == {(32, 32, 3)}
    assert "10 frames of 64x64 scaled to the first size (at 0.40-0.76 s)" in damage.message
    large_square = picture(0, 64, 64)[::2, ::2]
    assert np.abs(frames[10].pixels.astype(int) - large_square).mean() < 12


@pytest.mark.parametrize(
    "name",
    ["Show: part 1.mp4", "2024-11-14T22:57:44.mp4", "100%d done.mp4", "what?.mp4", "x" * 240 + ".mp4",
     "rtsp: a guide.mp4", "file it.mp4", "[Group] 01.mp4", "line\nbreak.mp4"],
)  # fmt: skip
def test_every_name_works(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "plain.mp4", num_frames=2).rename(name)
    restored(name, f"o{name[1:]}")
    assert len(read(f"o{name[1:]}")[0]) == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("rtsp://camera/1", "rtsp"),
        ("file:x.mp4", "file"),
        ("pipe:0", "pipe"),
        ("Show: part 1.mp4", None),
        ("C:\\x.mp4", None),
        ("12:30.mp4", None),
    ],
)
def test_a_colon_makes_no_address(text, scheme):
    assert scheme_of(text) == scheme
    assert as_address(text) == (text if scheme else f"file:{text}")


def test_a_missing_folder_of_images_is_made(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", num_frames=2)
    restored(clip, tmp_path / "new" / "folder" / "out_%03d.png")
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["out_001.png", "out_002.png"]


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_tags_in_another_alphabet_refuse_no_film(tmp_path, suffix):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    clip = make_clip(
        tmp_path / f"in{suffix}", num_frames=2, codec=codec, metadata={"title": "Cafe_noir_x"}
    )
    clip.write_bytes(clip.read_bytes().replace(b"Cafe_noir_x", b"Caf\xe9_noir_x"))
    restored(clip, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert tags["title"] == "Café_noir_x"


@pytest.mark.parametrize(
    ("number", "hint"),
    [(22, "refuses what it was given"), (13, "permissions"), (5, "disk"), (28, "free some space")],
)
def test_the_hint_suits_what_happened(number, hint):
    error = write_error(OSError(number, "reason"), "`x.mp4`", codec="libx264", format_name="mp4")
    assert isinstance(error, VideoWriteError)
    assert hint in error.hint


def test_a_partial_file_has_no_longer_name_than_file_systems_allow(tmp_path):
    frame_rate = Fraction(25)
    clip = make_clip(tmp_path / "in.mkv", num_frames=1)
    name = "é" * 125 + ".mp4"
    with (
        open_video(clip) as reader,
        create_video(
            tmp_path / name, info_of=reader, width=32, height=32, frame_rate=frame_rate
        ) as writer,
    ):
        for frame in reader:
            writer.write(frame)
    assert (tmp_path / name).exists()
