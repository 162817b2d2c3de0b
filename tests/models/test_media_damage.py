"""Damage is told where it is, and nothing else is called so; names and places that are odd work."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from instantvir_models.errors import VideoOpenError, VideoWriteError
from instantvir_models.media import check_sums, create_video, open_video
from instantvir_models.media.check_sums import SliceCheckSums
from instantvir_models.media.expected import ExpectedPictures
from instantvir_models.media.ffmpeg_errors import write_error
from instantvir_models.media.names import as_address
from instantvir_models.media.whole import ebml_element, holds_all
from instantvir_models.outputs.names import scheme_of
from tests.media_clips import make_clip, picture
from tests.models.test_media_companions import restored, with_sound


def with_a_flipped_bit(path, kind, number, seed):
    """A copy of a file with one bit of the `number`th packet of a kind of stream turned over."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(**{kind: 0}) if p.size]
        begin, size = packets[number].pos, packets[number].size
        data = bytearray(path.read_bytes())
    # Matroska's block begins before its data: look for the data themselves.
    place = data.find(bytes(packets[number])[-16:], begin) + 16 - size
    rng = np.random.default_rng(seed)
    data[place + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    damaged = path.with_stem(f"{path.stem}-{kind}-{seed}")
    damaged.write_bytes(data)
    return damaged


def lossless(path, **options):
    """Ten frames of FFV1; as measurements are written, without options."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25, options={"g": "1", **options})
        video.width, video.height, video.pix_fmt = 64, 48, "bgr0"
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def test_every_flipped_bit_of_ffv1_is_told(tmp_path):
    """FFmpeg says so to its log, and shows the picture before in the place."""
    clip = lossless(tmp_path / "in.mkv", level="3")
    for seed in range(40):
        frames, damage = read(with_a_flipped_bit(clip, "video", seed % 10, seed))
        assert len(frames) == 10
        assert "1 frame with a wrong check sum" in (damage.message or ""), seed
        assert f"(at {seed % 10 / 25:.2f} s)" in damage.message
        assert damage.corrupt_frames == 1


@pytest.mark.parametrize("level", ["3", "1"])
def test_whole_ffv1_is_whole_with_and_without_check_sums(tmp_path, level):
    frames, damage = read(lossless(tmp_path / "in.mkv", level=level))
    assert len(frames) == 10
    assert damage.message is None


def test_a_check_sum_of_before_there_was_one_that_fits_is_remembered():
    """The first picture of all may be the damaged one."""
    whole = _one_slice(b"picture")
    sums = SliceCheckSums("ffv1")
    assert sums.contradicted(b"!" + whole[1:], Fraction(0)) == []
    assert sums.contradicted(whole, Fraction(1)) == [Fraction(0)]
    assert sums.contradicted(whole[:3], Fraction(2)) == [Fraction(2)]


def _one_slice(data):
    body = data + len(data).to_bytes(3, "big") + b"\0"
    crc = check_sums._crc(memoryview(body), 0)
    return body + crc.to_bytes(4, "big")


QUICK = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:keyint=5:open-gop=0"}


def compressed(path, codec, **options):
    """Ten frames that no codec predicts well."""
    noise = np.random.default_rng(0).normal(0, 12, (48, 64, 3))
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=options)
        video.width, video.height = 64, 48
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(10):
            pixels = picture(index, 64, 48) + np.roll(noise, index, 1)
            frame = av.VideoFrame.from_ndarray(
                pixels.clip(0, 255).astype(np.uint8), format="rgb24"
            ).reformat(format=video.pix_fmt)
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def pixels_of(frames):
    return [frame.pixels.tobytes() for frame in frames]


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libvpx-vp9", "mpeg4"])
def test_every_flipped_bit_in_matroska_is_told(tmp_path, codec):
    """Few bits of HEVC, and none of VP9, are told by a decoder; each cluster has a check sum that nobody
    looked at."""
    clip = compressed(tmp_path / "in.mkv", codec, **(QUICK if codec == "libx265" else {}))
    assert read(clip)[1].message is None
    for seed in range(10):
        damage = read(with_a_flipped_bit(clip, "video", seed % 10, seed))[1]
        assert "1 part of the file with a wrong check sum (at 0.00 s)" in damage.message, seed


def test_a_damaged_cluster_is_told_where_it_is_and_not_where_it_is_passed_over(tmp_path):
    clip = make_clip(
        tmp_path / "in.mkv", num_frames=250, options={"g": "25"},
        container_options={"cluster_time_limit": "2000"},
    )  # fmt: skip
    damaged = with_a_flipped_bit(clip, "video", 120, 3)
    assert "part of the file with a wrong check sum (at 4." in read(damaged)[1].message
    for start, is_told in ((3.9, True), (8.0, False)):
        _, damage = read(damaged, start_seconds=start, duration_seconds=1.5)
        assert ("part of the file" in (damage.message or "")) == is_told, start


def test_parts_without_end_are_not_counted(tmp_path, monkeypatch):
    """A file of nothing but empty elements would take minutes."""
    clip = make_clip(tmp_path / "in.mkv", num_frames=2)
    looked_at = []

    def element(file, at):
        looked_at.append(at)
        return ebml_element(file, at)

    monkeypatch.setattr(check_sums, "MOST_PARTS", 3)
    monkeypatch.setattr(check_sums, "ebml_element", element)
    assert read(clip)[1].message is None
    assert len(looked_at) == 3


def test_a_damaged_description_of_tracks_is_told(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", metadata={"title": "a"})
    data = bytearray(clip.read_bytes())
    tracks = data.index(bytes.fromhex("1654ae6b"))
    data[data.index(b"\x22\xb5\x9c", tracks) + 4] ^= 1  # a letter of a language
    clip.write_bytes(data)
    assert "1 part of the file with a wrong check sum (at 0.00 s)" in read(clip)[1].message


def test_every_flipped_bit_of_hevc_with_hashes_is_told(tmp_path):
    """FFmpeg compares them, and tells its log."""
    options = {**QUICK, "x265-params": QUICK["x265-params"] + ":hash=1"}
    clip = compressed(tmp_path / "in.mp4", "libx265", **options)
    whole, damage = read(clip)
    assert damage.message is None
    for seed in range(12):
        frames, damage = read(with_a_flipped_bit(clip, "video", seed % 10, seed))
        if pixels_of(frames) != pixels_of(whole):
            assert damage.message is not None, seed


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_a_picture_that_does_not_come_is_told(tmp_path, codec, threads):
    """Of a slice whose head makes no sense FFmpeg told its log alone."""
    options = QUICK if codec == "libx265" else {"preset": "12", "svtav1-params": "lp=1"}
    clip = compressed(tmp_path / "in.mp4", codec, **options)
    assert read(clip, threads=threads)[1].message is None
    data, lost = clip.read_bytes(), 0
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for packet in packets[1:]:  # without the first, there may be nothing
        for byte in range(4 if codec == "libx265" else 0, 8):
            damaged = bytearray(data)
            damaged[data.index(packet) + byte] ^= 64
            clip.write_bytes(damaged)
            frames, damage = read(clip, threads=threads)
            if len(frames) < 10:
                lost += 1
                assert damage.message is not None, byte
                assert damage.lost_packets >= 10 - len(frames)
    assert lost > 5


def test_leading_pictures_without_what_they_refer_to_are_not_missed():
    """Those of an open group of pictures behind a place that was sought."""
    expected = ExpectedPictures("hevc")
    for pts in (10, 8, 9, 14, 12):
        expected.sent(pts)
    assert expected.shown(10) == []
    assert expected.shown(14) == [12]
    lost_key = ExpectedPictures("hevc")
    for pts in (0, 2, 1, 5):
        lost_key.sent(pts)
    assert lost_key.shown(5) == [0, 1, 2]
    assert ExpectedPictures("h264").ended() == []
    endless = ExpectedPictures("av1")
    lost = [time for pts in range(2000) for time in endless.sent(pts)]
    assert lost == list(range(2000 - 512))


def test_a_slice_of_h264_that_ends_too_early_is_told(tmp_path):
    """CAVLC often has no other sign: of 16 flipped bits in 39 that changed pictures nothing was told."""
    clip = compressed(tmp_path / "in.mp4", "libx264", **{"x264-params": "cabac=0:threads=1"})
    assert read(clip)[1].message is None
    for seed in (2, 15, 25, 26):
        damage = read(with_a_flipped_bit(clip, "video", seed % 10, seed))[1]
        assert "1 frame had to be guessed in part" in (damage.message or ""), seed


def jpegs(folder):
    """Three pictures of 64x48."""
    for index in range(3):
        noise = np.random.default_rng(index).normal(0, 12, (48, 64, 3))
        pixels = (picture(index, 64, 48) + noise).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"in_{index}.jpg"), pixels[..., ::-1])
    return folder / "in_%d.jpg"


def with_codes_that_mean_nothing(data):
    """A JPEG of whose codes ten bytes are ones."""
    place = len(data) * 3 // 4
    return data[:place] + b"\xff\x00" * 5 + data[place + 10 :]


def test_a_jpeg_that_is_mended_is_told_and_shown(tmp_path):
    """FFmpeg told its log alone: of a picture among others, and of one in a film."""
    pattern = jpegs(tmp_path)
    assert read(pattern)[1].message is None
    damaged = tmp_path / "in_1.jpg"
    damaged.write_bytes(with_codes_that_mean_nothing(damaged.read_bytes()))
    frames, damage = read(pattern)
    assert len(frames) == 3
    assert damage.message == "`in_1.jpg` had to be guessed in part"
    assert read(pattern, start_seconds=0.08)[1].message is None

    film = compressed(tmp_path / "in.avi", "mjpeg")
    assert read(film)[1].message is None
    with av.open(str(film)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    film.write_bytes(
        film.read_bytes().replace(packets[4], with_codes_that_mean_nothing(packets[4]))
    )
    frames, damage = read(film)
    assert len(frames) == 10
    assert damage.message == "1 frame had to be guessed in part (at 0.16 s)"
    assert damage.lost_packets == 0


def test_a_packet_that_is_too_large_is_told_with_its_size(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", codec="ffv1", num_frames=4)
    with av.open(str(clip)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    largest = min(sizes) - 1
    with open_video(clip, threads=1) as reader:
        reader.demuxer._largest_packet_bytes = largest
        assert len(list(reader)) < 4
        message = reader.damage.message
    assert f"of more than {largest / 1e6:.3g} MB left out" in message
    assert "`--max-pixels`" in message


def test_where_a_video_was_looked_for_is_told(tmp_path):
    """A source that goes on behind what was looked at may hold one all the same."""
    sound = with_sound(tmp_path / "clip.mkv", "pcm_s16le", num_frames=2, seconds=70.0)
    with av.open(str(sound)) as source, av.open(str(tmp_path / "long.wav"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(VideoOpenError) as caught:
        open_video(tmp_path / "long.wav")
    assert caught.value.hint == "found 1 audio stream (pcm_s16le) in its first 5 MB"


@pytest.mark.parametrize("codec", ["flac", "ac3", "aac"])
def test_damaged_sound_that_is_copied_is_told(tmp_path, codec):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        sound = container.add_stream(codec, rate=48_000, layout="mono")
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(picture(index, 32, 32), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
        wave = (np.sin(np.arange(48_000) / 20) * 9000).astype(np.float32) / 32768
        form = sound.codec_context.format.name
        whole = wave if form.startswith("flt") else (wave * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format=form, layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        container.mux(video.encode(None))
    assert read(path)[1].message is None
    told = [read(with_a_flipped_bit(path, "audio", 3, seed))[1].message for seed in range(12)]
    assert sum("1 damaged packet of sound (stream 1)" in (text or "") for text in told) >= (
        3 if codec == "aac" else 12
    )


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


def test_pictures_that_a_transport_stream_lost_are_named(tmp_path):
    """A hole of a few kilobytes cost thirteen pictures, six that were in it and seven that the decoder
    left out without a word, and the status was 0."""
    clip = make_clip(tmp_path / "whole.ts", width=64, height=48, num_frames=40, options={"bf": "0"})
    data = clip.read_bytes()
    packets = len(data) // 188
    hole = tmp_path / "hole.ts"
    hole.write_bytes(data[: packets // 3 * 188] + data[packets // 2 * 188 :])
    with open_video(hole) as reader:
        shown = len(list(reader))
        assert "lost with damaged packets" in reader.damage.message
    assert reader.damage.lost_packets == 40 - shown > 0
    twice = tmp_path / "twice.ts"  # where nothing is missing, packets are corrupt, too
    twice.write_bytes(data + data)
    with open_video(twice) as reader:
        assert len(list(reader)) == 80
        assert reader.damage.message is None


def test_a_gap_of_the_clock_is_no_part_of_what_is_left(tmp_path):
    """The time left of 1.2 s of film counted the 1000 s between its two recordings."""
    once = make_clip(tmp_path / "a.ts", width=64, height=48, num_frames=15, options={"bf": "0"})
    later = tmp_path / "b.ts"
    with av.open(str(once)) as source, av.open(str(later), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts + 90_000_000, packet.dts + 90_000_000
                packet.stream = copied
                target.mux(packet)
    both = tmp_path / "both.ts"
    both.write_bytes(once.read_bytes() + later.read_bytes())
    with open_video(both) as reader:
        assert len([reader.expected_frames() for _ in zip(range(20), reader, strict=False)]) == 20
        assert reader.expected_frames() == pytest.approx(30, abs=8)


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


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg1video", "mpeg4", "libx264"])
def test_a_size_that_changes_costs_no_picture(tmp_path, codec):
    """The decoders of MPEG forget the picture that they hold back: 29 of 30 came, in silence."""
    options = {"bf": "2", "g": "5"}
    parts = [
        make_clip(tmp_path / f"{width}.ts", width=width, codec=codec, options=options).read_bytes()
        for width in (32, 64)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(parts[0] + parts[1] + parts[0])
    frames, damage = read(both, threads=1)
    assert len(frames) == 30
    assert "10 frames of 64x32 scaled to the first size (at 0.40-0.76 s)" in damage.message
    times = [frame.pts_seconds for frame in frames]
    assert times == pytest.approx([i / 25 for i in range(30)], abs=1e-3)


def test_text_that_changes_in_an_mpeg_4_stream_costs_no_picture(tmp_path):
    """Each head had its time behind it, and the pictures around it were lost as if the size changed."""
    options = {"bf": "2", "g": "5"}
    clip = make_clip(tmp_path / "in.ts", codec="mpeg4", options=options, num_frames=30)
    told = tmp_path / "told.mkv"
    heads = 0
    with av.open(str(clip)) as source, av.open(str(told), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            data = bytes(packet)
            begin = data.find(b"\0\0\1\xb3")  # its group, behind the head
            if packet.is_keyframe and begin > 0:
                heads += 1
                data = data[:begin] + b"\0\0\1\xb2time%03d" % heads + data[begin:]
            if data:
                written = av.Packet(data)
                written.pts, written.dts, written.time_base = (
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                )
                written.is_keyframe, written.stream = packet.is_keyframe, stream
                target.mux(written)
    assert heads > 3
    frames, damage = read(told, threads=1)
    assert len(frames) == 30
    assert damage.message is None


@pytest.mark.parametrize("with_subtitles", [False, True])
def test_pauses_of_subtitles_do_not_excuse_pictures_that_are_missing(tmp_path, with_subtitles):
    clip = make_clip(tmp_path / "in.mkv", num_frames=150, options={"g": "10", "bf": "0"})
    subtitles = tmp_path / "in.srt"
    subtitles.write_text(
        "1\n00:00:00,100 --> 00:00:00,500\na\n\n2\n00:00:03,600 --> 00:00:03,900\nb\n"
    )
    path = tmp_path / "both.mkv"
    with (
        av.open(str(clip)) as video,
        av.open(str(subtitles)) as text,
        av.open(str(path), "w") as target,
    ):
        streams = [(video, target.add_stream_from_template(video.streams[0]))]
        if with_subtitles:
            streams.append((text, target.add_stream_from_template(text.streams[0])))
        packets = [
            (packet, to) for source, to in streams for packet in source.demux() if packet.size
        ]
        for packet, to in sorted(packets, key=lambda each: each[0].pts * each[0].time_base):
            packet.stream = to
            target.mux(packet)
    data = path.read_bytes().replace(
        b"DURATION", b"XURATION"
    )  # what each stream promises for itself
    path.write_bytes(data)
    assert read(path)[1].message is None
    kept = len(data) * 3 // 4
    path.write_bytes(data[:kept] + bytes(len(data) - kept))
    assert read(path)[1].lost_packets > 20


def test_a_fragmented_mp4_that_ends_within_its_sound_says_so(tmp_path):
    """All its pictures were there, so nobody said that it was cut."""
    clip = with_sound(tmp_path / "whole.mp4", "aac", seconds=2, num_frames=50, options={"g": "10"})
    fragmented = tmp_path / "in.mp4"
    with (
        av.open(str(clip)) as source,
        av.open(
            str(fragmented), "w", container_options={"movflags": "frag_keyframe+empty_moov"}
        ) as target,
    ):
        streams = [
            target.add_stream_from_template(stream, opaque=True) for stream in source.streams
        ]
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    assert read(fragmented)[1].message is None
    data = fragmented.read_bytes()
    begin = data.rindex(b"mdat") - 4
    size = int.from_bytes(data[begin : begin + 4])
    for cut in (begin + size - 4, begin + size // 2):
        fragmented.write_bytes(data[:cut])
        assert "is cut short" in read(fragmented)[1].message, cut


@pytest.mark.parametrize(
    ("behind", "is_whole"),
    [(b"", None), (b"\0\0\0\x08free", None), (bytes(64), None), (b"\xff" * 64, None),
     (b"\0\0\1\0mdat", False), (b"\0\0\0\1moof" + (1 << 40).to_bytes(8), False)],
)  # fmt: skip
def test_boxes_tell_whether_a_file_was_cut(tmp_path, behind, is_whole):
    clip = make_clip(tmp_path / "in.mp4", num_frames=2)
    clip.write_bytes(clip.read_bytes() + behind)
    assert holds_all(clip, "mov,mp4,m4a,3gp,3g2,mj2") is is_whole


def test_long_packets_of_sound_at_the_end_are_no_cut(tmp_path):
    """A whole FLV was called cut short by the length of its last packet of sound."""
    with av.open(str(tmp_path / "in.flv"), "w") as container:
        video = container.add_stream("flv", rate=25, width=64, height=48, pix_fmt="yuv420p")
        sound = container.add_stream("adpcm_swf", rate=22_050)
        sound.codec_context.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4 * 4096), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 22_050, 0
        resampler = av.AudioResampler("s16", "mono", 22_050, frame_size=4096)
        for frame in resampler.resample(silence):
            container.mux(sound.encode(frame))
        for index in range(15):
            shown = av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")
            shown.pts = index
            container.mux(video.encode(shown.reformat(format="yuv420p")))
        container.mux([*video.encode(None), *sound.encode(None)])
    frames, damage = read(tmp_path / "in.flv")
    assert len(frames) == 15
    assert damage.message is None


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


@pytest.mark.parametrize("seed", range(6))
def test_wrong_bytes_in_a_transport_stream_cost_what_they_hit(tmp_path, seed):
    """Some made times of two hours, packets of streams that are not there (a traceback), or packets
    of sound for which the muxer gave up the film."""
    clip = with_sound(tmp_path / "in.ts", "aac", num_frames=25, seconds=1.0)
    random = np.random.default_rng(seed)
    data = np.frombuffer(clip.read_bytes() * 3, np.uint8).copy()
    places = random.choice(np.arange(188 * 8, len(data)), 600, replace=False)
    data[places] = random.integers(0, 256, 600)
    damaged = tmp_path / "damaged.ts"
    damaged.write_bytes(data.tobytes())
    restored(damaged, tmp_path / "out.mp4")
    frames, _ = read(tmp_path / "out.mp4")
    _, damage = read(damaged)
    assert len(frames) > 20
    assert frames[-1].pts_seconds < 15  # one wrong time may be taken for a gap, of 10 s at most
    assert damage.message is not None


def test_a_hole_in_a_transport_stream_is_read_past(tmp_path):
    """FFmpeg looks for a packet in 64 KiB at a time, and then asks to be called again."""
    clip = make_clip(tmp_path / "in.ts", options={"g": "5", "bf": "0"}, num_frames=20)
    data = clip.read_bytes()
    middle = len(data) // 188 // 2 * 188
    damaged = tmp_path / "damaged.ts"
    damaged.write_bytes(data[:middle] + bytes(300_000) + data[middle:])
    frames, damage = read(damaged)
    assert len(frames) > 15
    assert "could not be decoded" in damage.message


def test_avi_that_ends_in_places_without_a_picture_is_whole(tmp_path):
    """FFmpeg shows no empty places, so a long tail of them looked like a file that was cut."""
    clip = make_clip(tmp_path / "in.avi", codec="mpeg4", pts=[0, 1, 2, 3, 49])
    data = bytearray(clip.read_bytes())
    last = data.rindex(b"00dc", 0, data.index(b"idx1"))
    size = int.from_bytes(data[last + 4 : last + 8], "little")
    rest = size + size % 2 - 8
    data[last + 4 : last + 16] = bytes(4) + b"JUNK" + rest.to_bytes(4, "little")
    entry = data.rindex(b"00dc")
    data[entry + 12 : entry + 16] = bytes(4)
    clip.write_bytes(data)
    frames, damage = read(clip)
    assert damage.message is None
    assert [round(f.pts_seconds, 3) for f in frames] == [0, 0.04, 0.08, 0.12]
    assert frames[-1].pts_seconds + float(frames[-1].duration * frames[-1].time_base) == 2


@pytest.mark.parametrize("name", ["in.avi", "in.mkv", "in.flv", "in.wmv", "in.ogv", "in.mxf"])
def test_a_cut_is_missed_nowhere(tmp_path, name):
    """FFmpeg reads an AVI or WMV file that was cut as if it ended there."""
    clip = make_clip(tmp_path / "clip.mkv", width=64, height=48, num_frames=30, audio=True)
    whole = tmp_path / name
    restored(clip, whole)
    assert read(whole)[1].message is None
    data = whole.read_bytes()
    for part in (0.5, 0.7, 0.9) if name != "in.mxf" else (0.5, 0.7):  # whose end may be an index
        whole.write_bytes(data[: int(part * len(data))])
        frames, damage = read(whole)
        assert damage.message is not None, (part, len(frames))
