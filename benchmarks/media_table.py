"""What becomes of each kind of file in each container: works, loses what is named, or is refused.

    python -m benchmarks.media_table --scratch runs/media_table [--out FILE] [--seconds 150]

Tiny files are made by the FFmpeg on the path, one for each container, video codec, sound codec and
kind of subtitles that it writes together. Each goes through the media path with a model that changes
nothing, into each of `TARGETS`, and what both files say is compared: pictures and their times, sound and
how long it is, words and times of subtitles, titles and languages. What differs and is not named is
`WRONG`. Rows that are done lie in the scratch folder: the same command goes on, and with `--seconds` one
that has worked so long ends behind its row, without a table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Stream

from benchmarks.receipts import machine
from instantvir_models.errors import InstantVIRError
from instantvir_models.media import EncoderSettings, create_video, open_video
from instantvir_models.media.companions import codec_of
from instantvir_models.media.subtitles import text_rewriter

TARGETS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts")
WITHIN_SECONDS = 0.0011
"""What Matroska rounds to."""
SOUND_WITHIN_SECONDS = 0.15
"""Packets of sound are as long as that, and a decoder swallows the first."""
CONVERTED_WITHIN_SECONDS = 0.09
"""What a decoder of sound swallows at first (WMA), or an encoder puts in front."""
PICTURE_SECONDS = 0.04
NO_LENGTH_OF_PICTURES = frozenset({".ts", ".mpg", ".avi", ".flv", ".wmv", ".webm", ".nut"})
"""Containers that do not say, or not exactly, how long the last picture is shown."""
NO_TIMES_OF_SOUND = frozenset({".avi", ".dv"})


@dataclass(frozen=True)
class Container:
    """What FFmpeg writes into one kind of file."""

    suffix: str
    videos: tuple[str, ...]
    sounds: tuple[str, ...]
    subtitles: tuple[str, ...] = ("none",)


SOURCES = (
    Container(".mp4", ("libx264", "libx265", "libaom-av1", "mpeg4"),
              ("aac", "ac3", "libmp3lame", "alac", "flac", "libopus"), ("none", "mov_text")),
    Container(".mov", ("libx264", "prores_ks", "mjpeg", "qtrle", "dvvideo"),
              ("aac", "alac", "pcm_s16be", "pcm_s24le", "pcm_mulaw"), ("none", "mov_text")),
    Container(".mkv", ("libx264", "libvpx-vp9", "ffv1", "mpeg2video", "mjpeg"),
              ("aac", "flac", "libopus", "libvorbis", "pcm_s16le", "ac3", "dca", "truehd"),
              ("none", "subrip", "ass", "webvtt", "dvdsub", "pgs")),
    Container(".webm", ("libvpx", "libvpx-vp9"), ("libopus", "libvorbis"), ("none", "webvtt")),
    Container(".avi", ("mpeg4", "mjpeg", "rawvideo", "ffv1", "huffyuv", "dvvideo"),
              ("pcm_s16le", "libmp3lame", "ac3", "pcm_mulaw", "wmav2")),
    Container(".ts", ("libx264", "libx265", "mpeg2video"), ("aac", "mp2", "ac3", "eac3"),
              ("none", "dvbsub")),
    Container(".mpg", ("mpeg1video", "mpeg2video"), ("mp2", "ac3", "pcm_s16be")),
    Container(".dv", ("dvvideo",), ("pcm_s16le",)),
    Container(".wmv", ("wmv1", "wmv2", "msmpeg4"), ("wmav1", "wmav2", "libmp3lame")),
    Container(".flv", ("flv", "libx264"), ("aac", "libmp3lame", "pcm_u8")),
    Container(".mxf", ("mpeg2video", "dnxhd"), ("pcm_s16le", "pcm_s24le")),
    Container(".ogv", ("libtheora",), ("libvorbis", "libopus", "flac")),
    Container(".nut", ("ffv1", "libx264"), ("pcm_s16le", "libmp3lame")),
    Container(".3gp", ("h263", "libx264"), ("aac",)),
    Container(".gif", ("gif",), ("none",)),
    Container(".apng", ("apng",), ("none",)),
)  # fmt: skip
SIZES = {"dvvideo": "720x576", "dnxhd": "1280x720", "h263": "128x96"}
LARGE_SECONDS = 0.12
SMALL_SECONDS = 0.4
OPTIONS = {
    "prores_ks": "-pix_fmt yuv422p10le", "mjpeg": "-pix_fmt yuvj420p", "qtrle": "-pix_fmt rgb24",
    "dvvideo": "-pix_fmt yuv420p", "dnxhd": "-pix_fmt yuv422p -b:v 60M", "huffyuv": "-pix_fmt yuv422p",
    "libx265": "-x265-params log-level=error", "libaom-av1": "-cpu-used 8", "dca": "-strict -2",
    "truehd": "-strict -2", "libx264": "-pix_fmt yuv420p", "libopus": "-b:a 64k", "flac": "-strict -2",
}  # fmt: skip
TEXT = (
    "1\n00:00:00,040 --> 00:00:00,080\nHello there\nagain\n\n"
    "2\n00:00:00,100 --> 00:00:00,350\nBye\n"
)


@dataclass(frozen=True)
class Row:
    """One kind of file, and what becomes of it in each container of `TARGETS`."""

    suffix: str
    video: str
    sound: str
    subtitles: str
    outcomes: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What a file says of itself, in seconds from where its video or sound begins first."""

    shown: tuple[float, ...]
    """When each picture is."""
    end: float
    """When the last one has been shown."""
    heard: tuple[tuple[float, float], ...]
    """Beginning and length of each track of sound."""
    read: tuple[tuple[float, str], ...]
    """Beginning and words of subtitles; no words where they are pictures."""
    codecs: tuple[str, ...]
    """Of sound, and of subtitles."""
    title: str


def facts_of(path: Path) -> Facts:
    """What the file at `path` says."""
    starts: dict[int, float] = {}
    read = []
    with open_video(path, threads=1) as reader:
        frames = list(reader)
        assert reader.demuxer is not None
        others = [s for s in reader.demuxer.others if s.type in ("audio", "subtitle")]
        codecs = tuple(codec_of(stream) for stream in others)
        title = reader.demuxer.container.metadata.get("title", "")
        for packet in reader.demuxer.waiting.drain():
            begin = float((packet.pts or 0) * Fraction(packet.time_base or 1))
            if packet.stream.type == "audio":
                starts.setdefault(packet.stream_index, begin)
            elif packet.stream.type == "subtitle" and packet.size > 2:
                read.append((begin, _words_of(packet)))
        indices = [s.index for s in others if s.type == "audio"]
    last = frames[-1]
    return Facts(
        tuple(frame.pts_seconds for frame in frames),
        last.pts_seconds + float(last.duration * last.time_base),
        tuple((starts.get(i, 0.0), _heard_seconds(path, i)) for i in indices),
        tuple(read),
        codecs,
        title,
    )


def _words_of(packet: av.Packet[Stream]) -> str:
    words = text_rewriter(codec_of(packet.stream), "subrip")
    return words(bytes(packet)).decode().strip() if words else ""


def _heard_seconds(path: Path, index: int) -> float:
    with av.open(str(path)) as container:
        return sum(_lengths(container, index))


def _lengths(container: InputContainer, index: int) -> Iterator[float]:
    for packet in container.demux(container.streams[index]):
        try:
            for frame in packet.decode():
                assert isinstance(frame, av.AudioFrame)
                yield frame.samples / frame.sample_rate
        except av.FFmpegError:
            continue


def differences(before: Facts, after: Facts, target: str, losses: Sequence[str]) -> list[str]:
    """What two files say differently, less what is named as lost, in words."""
    found = []
    rounded = PICTURE_SECONDS / 2 if target == ".avi" else 0.0
    if len(before.shown) != len(after.shown):
        found.append(f"{len(before.shown)} pictures become {len(after.shown)}")
    elif any(
        abs((b - before.shown[0]) - (a - after.shown[0])) > WITHIN_SECONDS + rounded
        for b, a in zip(before.shown, after.shown, strict=True)
    ):
        found.append("times of pictures differ")
    lasts = [facts.end - facts.shown[0] for facts in (before, after)]
    longest = max((b - a for a, b in itertools.pairwise(before.shown)), default=PICTURE_SECONDS)
    within = 1.5 * longest if target in NO_LENGTH_OF_PICTURES else WITHIN_SECONDS
    if abs(lasts[0] - lasts[1]) > within:
        found.append(f"{lasts[0]:.3f} s of pictures become {lasts[1]:.3f}")
    if after.shown[0] > before.shown[0] + PICTURE_SECONDS:
        found.append(f"the first picture comes at {after.shown[0]:.3f} s")
    if not any("audio" in loss or "sound" in loss for loss in losses):
        found += _differences_of_sound(before, after, target)
    if not any("subtitle" in loss for loss in losses):
        found += _differences_of_text(before, after)
    if before.title != after.title and not any("`title`" in loss for loss in losses):
        found.append(f"the title `{before.title}` becomes `{after.title}`")
    return found


def _differences_of_sound(before: Facts, after: Facts, target: str) -> list[str]:
    if len(before.heard) != len(after.heard):
        return [f"{len(before.heard)} tracks of sound become {len(after.heard)}"]
    found = []
    for (b_start, b_length), (a_start, a_length) in zip(before.heard, after.heard, strict=True):
        if abs(b_length - a_length) > SOUND_WITHIN_SECONDS:
            found.append(f"{b_length:.2f} s of sound become {a_length:.2f}")
        offset = (a_start - after.shown[0]) - (b_start - before.shown[0])
        is_copied = before.codecs[:1] == after.codecs[:1]
        within = WITHIN_SECONDS if is_copied else CONVERTED_WITHIN_SECONDS
        if target not in NO_TIMES_OF_SOUND and abs(offset) > within:
            found.append(f"sound is moved by {offset:.3f} s")
    return found


def _differences_of_text(before: Facts, after: Facts) -> list[str]:
    if len(before.read) != len(after.read):
        return [f"{len(before.read)} subtitles become {len(after.read)}"]
    pairs = zip(before.read, after.read, strict=True)
    moved = [after.shown[0] - before.shown[0]]
    return [
        f"the subtitle `{b[1]}` at {b[0]:.3f} s becomes `{a[1]}` at {a[0]:.3f} s"
        for b, a in pairs
        if b[1] != a[1] or abs(b[0] + moved[0] - a[0]) > 2 * WITHIN_SECONDS
    ]


def outcome(source: Path, before: Facts, target: Path) -> str:
    """What becomes of `source` in `target`, as a cell of the table."""
    try:
        with (
            open_video(source, threads=1) as reader,
            create_video(
                target,
                info_of=reader,
                width=reader.info.width,
                height=reader.info.height,
                settings=EncoderSettings(threads=1),
            ) as writer,
        ):
            for frame in reader:
                writer.write(frame)
    except InstantVIRError as error:
        return f"refused: {error}"
    after = facts_of(target)
    if wrong := differences(before, after, target.suffix, writer.losses):
        return f"WRONG: {'; '.join(wrong)}"
    if writer.losses:
        return f"loses: {'; '.join(writer.losses)}"
    became = [f"{b} as {a}" for b, a in zip(before.codecs, after.codecs, strict=True) if a != b]
    return f"works, {', '.join(became)}" if became else "works"


def combinations(container: Container) -> Iterator[tuple[str, str, str]]:
    """Every video with every sound, and the first video with every sound and kind of subtitles."""
    first, kinds = container.videos[0], container.subtitles
    for video, sound in itertools.product(container.videos, container.sounds or ("none",)):
        for subtitles in kinds if video == first else kinds[:1]:
            yield video, sound, subtitles


def make_source(path: Path, video: str, sound: str, subtitles: str) -> None:
    """A tiny file; CalledProcessError where this FFmpeg cannot make it."""
    seconds = LARGE_SECONDS if video in ("dvvideo", "dnxhd") else SMALL_SECONDS
    size = SIZES.get(video, "64x48")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    command += f"-f lavfi -i testsrc2=s={size}:r=25:d={seconds}".split()
    if sound != "none":
        command += f"-f lavfi -i sine=d={seconds}:r=48000".split()
    if subtitles == "none":
        pass
    elif subtitles in ("pgs", "dvdsub", "dvbsub"):
        given = path.with_name("in.sup")
        given.write_bytes(b"".join(bitmap_subtitles()))
        command += ["-i", str(given)]
    else:
        given = path.with_name("in.srt")
        given.write_text(TEXT, encoding="utf-8")
        command += ["-i", str(given)]
    inputs = 1 + (sound != "none") + (subtitles != "none")
    command += [word for i in range(inputs) for word in ("-map", str(i))]
    command += ["-c:v", video, *OPTIONS.get(video, "").split()]
    if sound != "none":
        command += ["-c:a", sound, "-ac", "2", *OPTIONS.get(sound, "").split()]
        command += ["-ar", "44100"] if path.suffix == ".flv" else []
    if subtitles != "none":
        command += ["-c:s", "copy" if subtitles == "pgs" else subtitles]
    command += ["-metadata", "title=A title", "-threads", "1", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def bitmap_subtitles() -> Iterator[bytes]:
    """One square of 8x8 pixels, shown from 0.04 s to 0.10 s, as Blu-ray has them (PGS)."""
    screen = struct.pack(">HHB", 64, 48, 0x10)
    window = b"\x01\x00" + struct.pack(">HHHH", 8, 8, 8, 8)
    palette = b"\x00\x00\x01\xeb\x80\x80\xff"
    runs = (b"\x01" * 8 + b"\x00\x00") * 8
    picture = b"\x00\x00\x00\xc0" + (len(runs) + 4).to_bytes(3) + struct.pack(">HH", 8, 8) + runs
    shown = screen + b"\x00\x00\x80\x00\x00\x01" + b"\x00\x00\x00\x00" + struct.pack(">HH", 8, 8)
    gone = screen + b"\x00\x01\x00\x00\x00\x00"
    segments = [
        (0.04, 0x16, shown), (0.04, 0x17, window), (0.04, 0x14, palette), (0.04, 0x15, picture),
        (0.04, 0x80, b""), (0.10, 0x16, gone), (0.10, 0x17, window), (0.10, 0x80, b""),
    ]  # fmt: skip
    for seconds, kind, data in segments:
        pts = round(seconds * 90_000)
        yield b"PG" + struct.pack(">IIBH", pts, pts, kind, len(data)) + data


def row_of(container: Container, video: str, sound: str, subtitles: str, scratch: Path) -> Row:
    """One row, made and tried."""
    source = scratch / f"in{container.suffix}"
    source.unlink(missing_ok=True)
    try:
        make_source(source, video, sound, subtitles)
        before = facts_of(source)
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode("utf-8", "replace").strip().splitlines()
        outcomes = (f"FFmpeg writes no such file: {words[0] if words else error}",) * len(TARGETS)
    except InstantVIRError as error:
        outcomes = (f"refused: {error}",) * len(TARGETS)
    else:
        outcomes = tuple(outcome(source, before, scratch / f"out{t}") for t in TARGETS)
    return Row(container.suffix, video, sound, subtitles, outcomes)


def rows(scratch: Path) -> Iterator[Row]:
    """All of them; those that were done before are read from the scratch folder."""
    scratch.mkdir(parents=True, exist_ok=True)
    done_file = scratch / "rows.jsonl"
    done = {}
    for line in done_file.read_text(encoding="utf-8").splitlines() if done_file.exists() else ():
        known = json.loads(line)
        row = Row(**{**known, "outcomes": tuple(known["outcomes"])})
        done[row.suffix, row.video, row.sound, row.subtitles] = row
    for container in SOURCES:
        for kinds in combinations(container):
            key = (container.suffix, *kinds)
            if key not in done:
                done[key] = row_of(container, *kinds, scratch)
                with done_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(done[key])) + "\n")
            yield done[key]


def table(found: Sequence[Row]) -> str:
    """Markdown: what became of each, and each sentence once below."""
    notes: dict[str, int] = {}
    lines = [
        "| from | video | sound | subtitles | " + " | ".join(TARGETS) + " |",
        "|---" * (4 + len(TARGETS)) + "|",
    ]
    counts: Counter[str] = Counter()
    for row in found:
        cells = []
        for text in row.outcomes:
            kind, _, rest = text.partition(": ")
            counts[kind.partition(",")[0]] += 1
            number = f" [{notes.setdefault(rest, len(notes) + 1)}]" if rest else ""
            cells.append(kind + number)
        kinds = (row.suffix, row.video, row.sound, row.subtitles)
        lines.append(f"| {' | '.join((*kinds, *cells))} |")
    total = ", ".join(f"{name}: {count}" for name, count in counts.most_common())
    here = machine()
    receipt = ", ".join(
        f"{name} {here[name]}" for name in ("instantvir", "git", "python", "av", "cpu")
    )
    sentences = [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join(
        ["# What becomes of each kind of file", "", f"{(__doc__ or '').strip()}", "",
         f"{len(found)} files, {sum(counts.values())} cells: {total}. {receipt}", "", *lines, "", *sentences, ""]
    )  # fmt: skip


def main() -> None:
    """Make the table, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/media_table.md"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    arguments = parser.parse_args()
    logging.getLogger("instantvir_models").setLevel(logging.ERROR)
    end, found = time.monotonic() + arguments.seconds, []
    for row in rows(arguments.scratch):
        found.append(row)
        if time.monotonic() > end:
            print(f"{len(found)} rows; the same command goes on")
            return
    arguments.out.write_text(table(found), encoding="utf-8")
    for row in found:
        for target, text in zip(TARGETS, row.outcomes, strict=True):
            if text.startswith("WRONG"):
                print(row.suffix, row.video, row.sound, row.subtitles, target, text)


if __name__ == "__main__":
    main()
