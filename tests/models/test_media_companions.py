"""What comes along with a video: copied, else converted, else named."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from benchmarks.media_table import bitmap_subtitles
from instantvir_models.media import create_video, open_video
from instantvir_models.media.programme import service_tags
from instantvir_models.media.subtitles import text_rewriter
from instantvir_models.media.timecode import later_timecode
from tests.media_clips import make_clip, make_images, packets_of

SAMPLE_RATE = 48_000


def with_sound(
    path, codec, *, channels=2, seconds=0.4, late_seconds=Fraction(0), clock_seconds=0,
    video="libx264", **clip,
):  # fmt: skip
    """A clip with a sine in `codec` that begins `late_seconds` after time 0, which the file's clock
    calls `clock_seconds`."""
    suffix = path.suffix if video in ("flv", "qtrle", "wmv2") else ".mkv"
    silent = make_clip(
        path.with_name(f"silent{suffix}"), **{"num_frames": 10, "codec": video} | clip
    )
    layout = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[channels]
    # MP3 begins before 0, for which AVI would delay all pictures but the first.
    options = {"avoid_negative_ts": "disabled"} if path.suffix == ".avi" else {}
    with (
        av.open(str(silent)) as source,
        av.open(str(path), "w", container_options=options) as target,
    ):
        target.metadata.update(source.metadata)
        copied = target.add_stream_from_template(source.streams.video[0], opaque=True)
        if path.suffix == ".avi":
            copied.time_base = Fraction(1, 25)
        sound = target.add_stream(
            codec, rate=SAMPLE_RATE, bit_rate=128_000, options={"strict": "experimental"}
        )
        sound.codec_context.layout = layout
        frames = sine(sound.codec_context, seconds, late_seconds)
        encoded = [p for frame in [*frames, None] for p in sound.encode(frame)]
        pictures = [p for p in source.demux(video=0) if p.size]
        for packet in pictures:
            packet.stream = copied
        for packet in sorted(
            [*pictures, *encoded], key=lambda p: float((p.dts or 0) * p.time_base)
        ):
            later = round(clock_seconds / packet.time_base)
            packet.pts += later
            packet.dts = None if packet.dts is None else packet.dts + later
            target.mux(packet)
    return path


def sine(context, seconds, late_seconds=Fraction(0)):
    """Frames as the encoder takes them."""
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.tile((0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32), (2, 1))
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone), format="fltp", layout="stereo")
    frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
    frame.pts = int(late_seconds * SAMPLE_RATE)
    resampler = av.AudioResampler(
        format=context.format, layout=context.layout, rate=SAMPLE_RATE,
        frame_size=context.frame_size or 1024,
    )  # fmt: skip
    return [*resampler.resample(frame), *resampler.resample(None)]


def restored(source, target, **options):
    """The writer, closed, of what `restore` does when the model changes nothing."""
    with (
        open_video(source, **options) as reader,
        create_video(
            target, info_of=reader, width=reader.info.width, height=reader.info.height
        ) as writer,
    ):
        for frame in reader:
            writer.write(frame)
    return writer


def codecs_of(path, kind="audio"):
    with av.open(str(path)) as container:
        return [s.codec_context.codec.canonical_name for s in container.streams if s.type == kind]


@pytest.mark.parametrize(
    ("codec", "target", "becomes"),
    [
        ("pcm_s16le", "out.mp4", "alac"),
        ("flac", "out.mp4", "flac"),
        ("wmav2", "out.mp4", "aac"),
        ("pcm_mulaw", "out.mp4", "aac"),
        ("ac3", "out.mp4", "ac3"),
        ("pcm_s24le", "out.mov", "pcm_s24le"),
        ("flac", "out.mov", "alac"),
        ("pcm_s16le", "out.webm", "opus"),
        ("wmav2", "out.mkv", "aac"),
        ("libopus", "out.avi", "mp3"),
        ("flac", "out.ts", "aac"),
        ("wmav2", "out.nut", "aac"),
        ("mp3", "out.nut", "mp3"),
    ],
)
def test_sound_is_copied_or_becomes_what_the_container_holds(tmp_path, codec, target, becomes):
    """Some of these were silent films with status 0, others ended without one."""
    suffix = ".avi" if codec in ("wmav2", "pcm_mulaw") else ".mkv"
    video = "mpeg4" if suffix == ".avi" else "libx264"
    clip = with_sound(tmp_path / f"in{suffix}", codec, video=video)
    writer = restored(clip, tmp_path / target)
    assert codecs_of(tmp_path / target) == [becomes]
    assert writer.losses == ()
    assert not writer.is_silent
    with av.open(str(tmp_path / target)) as container:
        samples = sum(f.samples for f in container.decode(audio=0))
    assert samples > 0.37 * SAMPLE_RATE


@pytest.mark.parametrize("late_seconds", [Fraction(0), Fraction(3, 10)])
def test_converted_sound_stays_where_it_was(tmp_path, late_seconds):
    clip = with_sound(tmp_path / "in.mkv", "pcm_s16le", late_seconds=late_seconds)
    restored(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        first = next(container.decode(audio=0))
        began = float(first.pts * first.time_base)
        assert began == pytest.approx(float(late_seconds), abs=1e-3)


def test_lossless_sound_stays_lossless(tmp_path):
    clip = with_sound(tmp_path / "in.mkv", "pcm_s16le")
    restored(clip, tmp_path / "out.mp4")
    before, after = (
        np.concatenate([f.to_ndarray().reshape(-1, 2) if not f.format.is_planar else
                        f.to_ndarray().T for f in av.open(str(path)).decode(audio=0)])
        for path in (clip, tmp_path / "out.mp4")
    )  # fmt: skip
    assert np.array_equal(before, after[: len(before)])


def test_sound_that_cannot_be_carried_is_named_and_the_film_is_silent(tmp_path, caplog):
    clip = with_sound(tmp_path / "in.mkv", "aac")
    with (
        caplog.at_level(logging.WARNING),
        open_video(clip) as reader,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("instantvir_models.media.companions.Companions._copied", refuse)
        patch.setattr("instantvir_models.media.companions.Companions._converted", refuse)
        with create_video(tmp_path / "out.mkv", info_of=reader, width=32, height=32) as writer:
            for frame in reader:
                writer.write(frame)
    assert writer.losses == ("the audio stream 1 (aac), which matroska cannot hold",)
    assert writer.is_silent
    assert "not carried over: the audio stream 1 (aac)" in caplog.text


def refuse(*arguments):
    return None


def test_a_packet_that_comes_twice_is_written_once(tmp_path):
    clip = with_sound(tmp_path / "in.mkv", "ac3")
    with open_video(clip) as reader:
        append = reader.demuxer.waiting.append

        def twice(packet):
            append(packet)
            copy = av.Packet(bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.duration, copy.stream = packet.duration, packet.stream
            append(copy)

        reader.demuxer.waiting.append = twice
        with create_video(tmp_path / "out.mp4", info_of=reader, width=32, height=32) as writer:
            for frame in reader:
                writer.write(frame)
    before = [data for _, data in packets_of(clip, "audio")]
    assert [data for _, data in packets_of(tmp_path / "out.mp4", "audio")] == before


def with_font_and_cover(tmp_path):
    cover = make_images(tmp_path, 1)[0].read_bytes()
    plain = make_clip(tmp_path / "plain.mkv", num_frames=5)
    path = tmp_path / "in.mkv"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0], opaque=True)
        target.add_attachment("A Font.ttf", "application/x-truetype-font", b"no font at all")
        target.add_attachment("cover.png", "image/png", cover)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    return path, cover


def test_fonts_and_covers_stay_in_matroska(tmp_path):
    path, cover = with_font_and_cover(tmp_path)
    assert restored(path, tmp_path / "out.mkv").losses == ()
    with av.open(str(tmp_path / "out.mkv")) as container:
        (font,) = (s for s in container.streams if s.type == "attachment")
        assert font.data == b"no font at all"
        assert font.metadata["filename"] == "A Font.ttf"
        assert font.metadata["mimetype"] == "application/x-truetype-font"
        assert cover_in(container) == cover


def test_mp4_holds_the_cover_and_no_font(tmp_path):
    path, cover = with_font_and_cover(tmp_path)
    writer = restored(path, tmp_path / "out.mp4")
    assert writer.losses == ("the attachment `A Font.ttf`, which mp4 cannot hold",)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert cover_in(container) == cover
    again = restored(tmp_path / "out.mp4", tmp_path / "again.mp4")
    assert again.losses == ()
    with av.open(str(tmp_path / "again.mp4")) as container:
        assert cover_in(container) == cover


def cover_in(container):
    (cover,) = (s for s in container.streams.video if s.disposition & Disposition.attached_pic)
    return next(bytes(packet) for packet in container.demux(cover))


def test_a_second_video_comes_along(tmp_path):
    clip = tmp_path / "in.mkv"
    with av.open(str(clip), "w") as target:
        streams = [
            target.add_stream("libx264", rate=25, width=w, height=32, pix_fmt="yuv420p")
            for w in (64, 32)
        ]
        for index in range(5):
            for stream in streams:
                pixels = np.full((32, stream.width, 3), 90, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                target.mux(stream.encode(frame))
        for stream in streams:
            target.mux(stream.encode(None))
    for name in ("out.mkv", "out.mp4"):
        restored(clip, tmp_path / name)
        with av.open(str(tmp_path / name)) as container:
            assert sorted(s.width for s in container.streams.video) == [32, 64]
            assert sum(p.size > 0 for p in container.demux(container.streams.video)) == 10


def test_chapters_subtitles_and_sound_are_trimmed_alike(tmp_path):
    clip = make_clip(
        tmp_path / "in.mkv", num_frames=50, audio=True, options={"g": "5"},
        chapters=[(0, 0.9, "one"), (0.9, 2, "two")],
        subtitles=[(0.1, 0.2, "early"), (0.9, 1.2, "over the cut"), (1.3, 1.35, "inside")],
    )  # fmt: skip
    restored(clip, tmp_path / "out.mkv", start_seconds=1, duration_seconds=0.4)
    with av.open(str(tmp_path / "out.mkv")) as container:
        (chapter,) = container.chapters()
        unit = chapter["time_base"]
        assert (chapter["start"] * unit, chapter["end"] * unit) == (0, Fraction(2, 5))
    texts = packets_of(tmp_path / "out.mkv", "subtitles")
    assert texts == [(0.0, b"over the cut"), (pytest.approx(0.3, abs=1e-3), b"inside")]
    sound = [time for time, _ in packets_of(tmp_path / "out.mkv", "audio")]
    assert 0 <= sound[0] < 0.025
    assert 0.37 < sound[-1] < 0.4


@pytest.mark.parametrize(
    ("text", "frames", "rate", "later"),
    [
        ("01:00:00:00", 25, Fraction(25), "01:00:01:00"),
        ("00:00:59;29", 1, Fraction(30_000, 1001), "00:01:00;02"),
        ("00:09:59;29", 1, Fraction(30_000, 1001), "00:10:00;00"),
        ("00:00:00;00", 17_982, Fraction(30_000, 1001), "00:10:00;00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("no timecode", 1, Fraction(25), None),
    ],
)
def test_a_timecode_counts_on(text, frames, rate, later):
    assert later_timecode(text, frames, rate) == later


@pytest.mark.parametrize(("start_seconds", "timecode"), [(None, "01:00:00:00"), (1, "01:00:01:00")])
def test_a_timecode_comes_along_and_is_that_of_the_first_frame(tmp_path, start_seconds, timecode):
    clip = make_clip(tmp_path / "in.mov", num_frames=50, metadata={"timecode": "01:00:00:00"})
    with open_video(clip) as reader:
        assert reader.info.timecode == "01:00:00:00"
    for name in ("out.mov", "out.mp4", "out.mkv"):
        restored(clip, tmp_path / name, start_seconds=start_seconds)
        with open_video(tmp_path / name) as reader:
            assert reader.info.timecode == timecode


def test_what_quicktime_calls_maker_and_model_is_what_others_call_so(tmp_path):
    clip = make_clip(
        tmp_path / "in.mov", num_frames=2, container_options={"movflags": "use_metadata_tags"},
        metadata={"com.apple.quicktime.make": "Maker", "com.apple.quicktime.model": "Model"},
    )  # fmt: skip
    for name in ("out.mov", "out.mkv"):
        restored(clip, tmp_path / name)
        with av.open(str(tmp_path / name)) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            assert (tags["make"], tags["model"]) == ("Maker", "Model")


@pytest.mark.parametrize(
    ("data", "codec", "target", "text"),
    [
        (b"Hello <i>there</i>\nsecond", "subrip", "mov_text", b"\0\x12Hello there\nsecond"),
        (rb"0,0,D,,0,0,0,,{\an8}Hello, {\i1}there{\i0}\Nsecond", "ass", "subrip",
         b"Hello, there\nsecond"),
        (b"\0\x05Hello and styles", "mov_text", "subrip", b"Hello"),
    ],
)  # fmt: skip
def test_text_keeps_its_words_and_lines(data, codec, target, text):
    assert text_rewriter(codec, target)(data) == text


def test_pictures_of_subtitles_are_no_text():
    assert text_rewriter("dvd_subtitle", "mov_text") is None


def test_tags_that_a_container_has_no_place_for_are_named(tmp_path):
    tags = {"title": "A film", "director": "Somebody"}
    clip = make_clip(tmp_path / "in.mkv", metadata=tags, chapters=[(0, 0.2, "One")])
    lost = {s: restored(clip, tmp_path / f"out{s}").losses for s in (".mkv", ".mp4", ".ts")}
    assert lost[".mkv"] == ()
    assert lost[".mp4"] == ("the tag `director`, which mp4 cannot hold",)
    assert lost[".ts"] == (
        "the tags `director`, `title`, which mpegts cannot hold",
        "the chapters, which mpegts cannot hold",
    )


def test_a_language_that_a_container_does_not_say_is_named(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", audio=True)
    assert restored(clip, tmp_path / "out.mp4").losses == ()
    (loss,) = restored(clip, tmp_path / "out.avi").losses
    assert loss == "the language of audio stream 1 (aac, deu)"


def test_the_name_of_a_track_goes_back_and_forth(tmp_path):
    """MP4 calls it a handler: Matroska was given `VideoHandler` and no title."""
    clip = with_sound(tmp_path / "in.mkv", "aac")
    with av.open(str(clip)) as source, av.open(str(tmp_path / "named.mkv"), "w") as target:
        streams = [target.add_stream_from_template(s) for s in source.streams]
        streams[1].metadata["title"] = "Commentary"
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    restored(tmp_path / "named.mkv", tmp_path / "out.mp4")
    restored(tmp_path / "out.mp4", tmp_path / "back.mkv")
    with av.open(str(tmp_path / "back.mkv")) as container:
        picture, sound = container.streams
        assert {key.lower() for key in picture.metadata} <= {"encoder", "duration"}
        assert sound.metadata["title"] == "Commentary"


def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path):
    """Cutting without encoding keeps the sound since the keyframe; Matroska played it."""
    whole = with_sound(tmp_path / "whole.mp4", "aac", seconds=2.0, num_frames=50)
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        streams = [target.add_stream_from_template(s) for s in source.streams]
        for packet in source.demux():
            if packet.size:
                late = round(1 / packet.time_base)
                packet.pts, packet.dts = packet.pts - late, packet.dts - late
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    for target in ("out.mkv", "out.mp4"):
        restored(cut, tmp_path / target)
        shown, heard = (
            [p.pts * p.time_base for p in packets]
            for packets in packets_by_stream(tmp_path / target)
        )
        assert (min(shown), len(shown)) == (0, 25)
        assert max(heard) == pytest.approx(1, abs=0.05)
    assert packets_of(tmp_path / "out.mkv", "audio")[0][0] > -0.15  # what a decoder needs
    with open_video(cut) as reader:  # and for streams, which take packets by themselves
        list(reader)
        assert min(p.pts * p.time_base for p in reader.demuxer.take_waiting()) > -0.15


def packets_by_stream(path):
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.size and not p.is_discard]
        return [[p for p in packets if p.stream_index == s.index] for s in container.streams]


@pytest.mark.parametrize("name", ["out.mxf", "out.ogv", "out.wmv", "out.mpg"])
def test_other_containers_hold_a_film_with_sound(tmp_path, name):
    """MXF lost every sound, for it begins with nothing but a video; the others were refused."""
    clip = make_clip(tmp_path / "in.mkv", width=64, height=48, audio=True)
    writer = restored(clip, tmp_path / name)
    assert [loss for loss in writer.losses if "language" not in loss] == []
    assert not writer.is_silent
    with av.open(str(tmp_path / name)) as container:
        assert len(list(container.decode(video=0))) == 10
    with av.open(str(tmp_path / name)) as container:
        assert len(list(container.decode(audio=0))) > 5


def test_a_last_packet_whose_length_nothing_tells_is_heard(tmp_path):
    """ALAC in Matroska: MP4 hid the last 4096 samples of it, as FFmpeg's own copies do."""
    clip = with_sound(tmp_path / "in.mkv", "alac")
    restored(clip, tmp_path / "out.mp4")
    samples = []
    for path in (clip, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            samples.append(sum(frame.samples for frame in container.decode(audio=0)))
    assert samples[0] == samples[1]


@pytest.mark.parametrize(
    ("codec", "channels", "target", "becomes", "is_whole"),
    [
        ("pcm_s16le", 4, "out.mp4", ("flac", 4), True),
        ("pcm_s16le", 8, "out.mp4", ("flac", 8), True),
        ("pcm_s16le", 16, "out.mp4", ("alac", 2), False),
        ("flac", 6, "out.mpg", ("ac3", 6), True),
        ("flac", 8, "out.wmv", ("wmav2", 2), False),
    ],
)
def test_channels_that_are_mixed_away_are_named(
    tmp_path, codec, channels, target, becomes, is_whole
):
    """ALAC refuses some layouts, and the film was silent; sixteen channels became two in silence."""
    clip = with_sound(tmp_path / "in.mkv", codec, channels=channels)
    writer = restored(clip, tmp_path / target)
    assert any("channels" in loss for loss in writer.losses) is not is_whole
    with av.open(str(tmp_path / target)) as container:
        context = container.streams.audio[0].codec_context
        assert (context.codec.canonical_name, context.layout.nb_channels) == becomes


def test_packets_shorter_than_the_clock_of_matroska_are_not_pushed_apart(tmp_path):
    """TrueHD has 1200 packets a second, which Matroska counts in milliseconds: a film of 1.2 s had
    1.44 s of sound."""
    silent = make_clip(tmp_path / "silent.mkv", num_frames=30)
    with av.open(str(silent)) as source, av.open(str(tmp_path / "in.mkv"), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0], opaque=True)
        sound = target.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="stereo")
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                target.mux(packet)
        for number in range(1440):
            packet = av.Packet(number.to_bytes(4, "big") * 40)
            packet.pts = packet.dts = 40 * number
            packet.time_base, packet.stream = Fraction(1, SAMPLE_RATE), sound
            target.mux(packet)
    restored(tmp_path / "in.mkv", tmp_path / "out.mkv")
    before, after = (
        packets_by_stream(path)[1] for path in (tmp_path / "in.mkv", tmp_path / "out.mkv")
    )
    assert [packet.pts for packet in after] == [packet.pts for packet in before]


def test_sound_in_avi_is_played_as_long_as_it_was(tmp_path):
    """A copy of AC3 had its packets at a tenth of the time between them, and nothing was said."""
    clip = with_sound(tmp_path / "in.avi", "ac3", video="mpeg4", seconds=1.2, num_frames=30)
    restored(clip, tmp_path / "out.avi")
    last = packets_by_stream(tmp_path / "out.avi")[1][-1]
    assert float(last.pts * last.time_base) == pytest.approx(1.18, abs=0.05)


def test_the_name_of_a_service_stays_or_is_named(tmp_path):
    """PyAV shows nothing of it, and it was lost in silence."""
    clip = make_clip(tmp_path / "silent.mkv")
    with av.open(str(clip)) as source, av.open(str(tmp_path / "in.ts"), "w") as target:
        target.metadata.update(service_name="Ch\u00e2teau 4", service_provider="BBC")
        copied = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copied
                target.mux(packet)
    assert restored(tmp_path / "in.ts", tmp_path / "out.ts").losses == ()
    said = {"service_name": "Ch\u00e2teau 4", "service_provider": "BBC"}
    assert service_tags(tmp_path / "out.ts") == said
    (loss,) = restored(tmp_path / "in.ts", tmp_path / "out.mp4").losses
    assert "`service_name`" in loss


@pytest.mark.parametrize("seed", range(5))
def test_tables_of_services_that_are_damaged_tell_something_or_nothing(tmp_path, seed):
    random = np.random.default_rng(seed)
    clip = bytearray(make_clip(tmp_path / "in.ts", width=64, height=48).read_bytes())
    for at in random.integers(0, 188 * 3, 60):
        clip[at] = random.integers(256)
    clip[0] = clip[188] = clip[376] = 0x47
    (tmp_path / "in.ts").write_bytes(clip)
    assert isinstance(service_tags(tmp_path / "in.ts"), dict)


@pytest.mark.parametrize(
    ("target", "is_kept"),
    [("out.mkv", True), ("out.mp4", True), ("out.mov", False), ("out.avi", False)],
)
def test_what_a_track_is_marked_as_stays_or_is_named(tmp_path, target, is_kept):
    clip = with_sound(tmp_path / "plain.mkv", "ac3")
    with av.open(str(clip)) as source, av.open(str(tmp_path / "in.mkv"), "w") as marked:
        copies = [marked.add_stream_from_template(s, opaque=True) for s in source.streams]
        copies[1].disposition = Disposition.comment
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                marked.mux(packet)
    losses = restored(tmp_path / "in.mkv", tmp_path / target).losses
    assert any("marked comment" in loss for loss in losses) is not is_kept
    with av.open(str(tmp_path / target)) as container:
        assert (Disposition.comment in container.streams.audio[0].disposition) is is_kept


def test_a_live_source_says_which_videos_it_leaves_out(tmp_path, caplog):
    """`stream` lost them in silence."""
    with av.open(str(tmp_path / "in.mkv"), "w") as target:
        streams = [
            target.add_stream("ffv1", rate=25, width=32, height=32, pix_fmt="bgr0")
            for _ in range(2)
        ]
        for stream in streams:
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            target.mux(stream.encode(frame.reformat(format="bgr0")))
            target.mux(stream.encode(None))
    with open_video(tmp_path / "in.mkv", is_live=True):
        pass
    assert "not carried over: the video stream 1 (ffv1), of a live source" in caplog.text


def test_a_subtitle_that_is_a_picture_is_there_where_a_trim_begins(tmp_path):
    """It lasts until the next one, and says no length: it was lost, in silence."""
    sup = tmp_path / "in.sup"
    sup.write_bytes(b"".join(bitmap_subtitles()))  # from 0.04 to 0.10 s
    silent = make_clip(tmp_path / "silent.mkv", num_frames=10)
    with (
        av.open(str(silent)) as source,
        av.open(str(sup)) as subtitles,
        av.open(str(tmp_path / "in.mkv"), "w") as target,
    ):
        streams = [
            target.add_stream_from_template(read.streams[0], opaque=True)
            for read in (source, subtitles)
        ]
        for read, stream in zip((source, subtitles), streams, strict=True):
            for packet in read.demux():
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    for start, times in ((0.08, [0, 0.02]), (0.2, [0])):
        out = tmp_path / f"{start}.mkv"
        restored(tmp_path / "in.mkv", out, start_seconds=start)
        with av.open(str(out)) as container:
            shown = [float(p.pts * p.time_base) for p in container.demux(subtitles=0) if p.size]
        assert shown == pytest.approx(times, abs=1e-3)


def test_a_second_video_keeps_its_times(tmp_path):
    """Matroska tells no decoding times of the first B-frames, which were taken for going back."""
    clip = make_clip(tmp_path / "one.mkv", num_frames=12, options={"bf": "2"})
    with av.open(str(clip)) as source, av.open(str(tmp_path / "in.mkv"), "w") as target:
        (stream,) = source.streams.video
        both = [target.add_stream_from_template(stream, opaque=True) for _ in range(2)]
        for packet in source.demux(stream):
            for copy in both if packet.size else []:
                twin = av.Packet(bytes(packet))
                twin.pts, twin.dts, twin.duration = packet.pts, packet.dts, packet.duration
                twin.time_base, twin.is_keyframe = packet.time_base, packet.is_keyframe
                twin.stream = copy
                target.mux(twin)
    restored(tmp_path / "in.mkv", tmp_path / "out.mkv")
    before, after = (
        packets_by_stream(path)[1] for path in (tmp_path / "in.mkv", tmp_path / "out.mkv")
    )
    assert [packet.pts for packet in after] == [packet.pts for packet in before]
