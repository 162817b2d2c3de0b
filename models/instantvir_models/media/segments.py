"""A video that is encoded in pieces which stay on the disk, and joined when all are there.

Each piece begins with a keyframe of an encoder of its own, so it depends on nothing but its frames: a
run that was ended goes on behind the last whole piece, and what comes out is the same to the bit. What
comes along with the video is read a second time, when the pieces are joined.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from instantvir_models.media.container_writer import ContainerWriter
from instantvir_models.media.demux import Demuxer
from instantvir_models.media.encoder import VideoEncoder
from instantvir_models.media.frame import Frame
from instantvir_models.media.info import VideoInfo
from instantvir_models.media.limits import MATROSKA_FORMATS, MOV_FORMATS
from instantvir_models.media.timeline import RisingTimes

SEGMENTED_FORMATS = MOV_FORMATS | MATROSKA_FORMATS
"""Containers whose packets do not depend on where they are in the file."""

PLAYABLE_ALONE = {
    "h264": ".h264",
    "hevc": ".hevc",
    "av1": ".obu",
    "mpeg4": ".m4v",
    "mpeg2video": ".m2v",
    "mjpeg": ".mjpeg",
}
"""Codecs whose packets, one behind the other, are a file that players open, and how that is called."""

READ_AHEAD_SECONDS = Fraction(1)
"""Streams are interleaved within about this time."""


def ffmpeg_versions() -> str:
    """Of what encodes and joins."""
    parts = (f"{name} {'.'.join(map(str, av.library_versions[name]))}" for name in _LIBRARIES)
    return f"PyAV {av.__version__} ({', '.join(parts)})"


_LIBRARIES = ("libavcodec", "libavformat", "libswscale")


def can_be_segmented(path: Path, output_format: str | None, info: VideoInfo) -> bool:
    """Whether a video like this can be written to `path` in pieces."""
    suffixes = {".mp4", ".m4v", ".mov", ".mkv", ".webm"}
    named = path.suffix.lower() in suffixes if output_format is None else (
        output_format in SEGMENTED_FORMATS
    )  # fmt: skip
    return named and not info.has_alpha  # VP9 says it beside its packets


@dataclass(frozen=True)
class PacketNote:
    """What a packet is besides its data."""

    size: int
    pts: int
    dts: int | None
    duration: int
    is_keyframe: bool

    def packed(self) -> bytes:
        """As `_NOTE` holds it."""
        dts = _NO_TIME if self.dts is None else self.dts
        return _NOTE.pack(self.size, self.pts, dts, self.duration, self.is_keyframe)

    @classmethod
    def unpacked(cls, data: bytes) -> PacketNote:
        """What `packed` made this of."""
        size, pts, dts, duration, is_keyframe = _NOTE.unpack(data)
        return cls(size, pts, None if dts == _NO_TIME else dts, duration, is_keyframe)


_NOTE = struct.Struct("<qqqq?")
_NO_TIME = -(1 << 63)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One piece of an encoded video: a file of packets, and one of what they are besides."""

    path: Path
    header_bytes: int
    """What stands in front of the packets, for players that are given the piece alone."""
    num_bytes: int
    """Of the whole file."""
    time_base: Fraction
    num_packets: int

    @property
    def notes_path(self) -> Path:
        """The file of what the packets are besides their data."""
        return self.path.with_suffix(".times")

    def as_json(self) -> dict[str, Any]:
        """The piece in plain values, without the folder it is in."""
        return {
            "file": self.path.name,
            "header_bytes": self.header_bytes,
            "num_bytes": self.num_bytes,
            "time_base": str(self.time_base),
            "num_packets": self.num_packets,
        }

    @classmethod
    def from_json(cls, said: dict[str, Any], folder: Path) -> Segment:
        """The piece that `as_json` said.

        Raises:
            ValueError, KeyError, TypeError: if it is none.
        """
        return cls(
            path=folder / Path(said["file"]).name,
            header_bytes=int(said["header_bytes"]),
            num_bytes=int(said["num_bytes"]),
            time_base=Fraction(said["time_base"]),
            num_packets=int(said["num_packets"]),
        )

    @property
    def is_whole(self) -> bool:
        """Whether its files are there with all they should hold."""
        return (
            _size_of(self.path) == self.num_bytes
            and _size_of(self.notes_path) == self.num_packets * _NOTE.size
        )

    def read(self) -> Iterator[av.Packet[Stream]]:
        """Its packets in the order of decoding, each with its times."""
        with self.path.open("rb") as file, self.notes_path.open("rb") as notes:
            file.seek(self.header_bytes)
            for _ in range(self.num_packets):
                note = PacketNote.unpacked(notes.read(_NOTE.size))
                packet = av.Packet(file.read(note.size))
                packet.pts, packet.dts, packet.duration = note.pts, note.dts, note.duration
                packet.time_base, packet.is_keyframe = self.time_base, note.is_keyframe
                yield packet


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


class _SegmentWriter:
    """Encodes frames into one piece.

    Args:
        home: the container that nobody reads, in which `encoder` has its stream.
    """

    def __init__(self, path: Path, encoder: VideoEncoder, home: OutputContainer) -> None:
        self._path, self._encoder, self._home = path, encoder, home
        self._file: BinaryIO | None = None
        self._header_bytes = 0
        self._time_base = Fraction(0)
        self._notes: list[PacketNote] = []

    @property
    def num_frames(self) -> int:
        return self._encoder.num_frames

    @property
    def moved(self) -> tuple[str, ...]:
        """That pictures are shown noticeably earlier or later than they were, in words."""
        return self._encoder.moved

    def write(self, frame: Frame) -> None:
        self._keep(self._encoder.encode(frame))

    def end(self) -> Segment:
        """The piece, whole and on the disk."""
        self._keep(self._encoder.last_packets())
        self._home.close()  # frees the encoder now; the two refer to one another
        assert self._file is not None
        num_bytes = self._file.tell()
        _end(self._file)
        segment = Segment(
            path=self._path,
            header_bytes=self._header_bytes,
            num_bytes=num_bytes,
            time_base=self._time_base,
            num_packets=len(self._notes),
        )
        with segment.notes_path.open("wb") as file:
            file.write(b"".join(note.packed() for note in self._notes))
            _end(file)
        return segment

    def discard(self) -> None:
        self._home.close()
        with suppress(OSError):  # a disk that is gone takes no more
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            self._path.unlink()

    def _keep(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            if self._file is None:
                self._begin(packet)
            assert self._file is not None
            data = bytes(packet)
            self._file.write(data)
            assert packet.pts is not None
            self._notes.append(
                PacketNote(
                    len(data),
                    packet.pts,
                    packet.dts,
                    packet.duration or 0,
                    bool(packet.is_keyframe),
                )
            )

    def _begin(self, packet: av.Packet[VideoStream]) -> None:
        header = self._encoder.header if self._path.suffix in PLAYABLE_ALONE.values() else b""
        self._file = self._path.open("wb")
        self._file.write(header)
        self._header_bytes = len(header)
        self._time_base = Fraction(packet.time_base)


def _end(file: BinaryIO) -> None:
    """Close a file that is on the disk then."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


class SegmentedWriter(ContainerWriter):
    """Takes frames as other writers do; what they become is there in pieces before it is whole.

    Args:
        folder: where pieces go.
        finished: the pieces that are there already, in their order; the frames that are written
            follow them.
        again: opens the input once more, to read what comes along.
        arguments: those of `ContainerWriter`.
    """

    def __init__(
        self,
        *arguments: Any,
        folder: Path,
        finished: Sequence[Segment],
        again: Callable[[], Demuxer | None],
        **named: Any,
    ) -> None:
        self._folder, self._again = folder, again
        self._segments = list(finished)
        self._current: _SegmentWriter | None = None
        super().__init__(*arguments, **named)
        if self._reader is not None and self._reader.demuxer is not None:
            self._reader.demuxer.waiting.refuse()

    def end_segment(self) -> Segment | None:
        """The frames since the last piece become one, which is on the disk then; None if there is
        no frame."""
        if self._current is None:
            return None
        with self._no_remains():
            segment = self._current.end()
        self._moved = self._moved or self._current.moved
        self._current = None
        self._segments.append(segment)
        return segment

    def _write(self, frame: Frame) -> None:
        if self._current is None:
            self._current = self._new_segment()
        self._current.write(frame)

    def _new_segment(self) -> _SegmentWriter:
        assert self._container is not None
        assert self._choice is not None
        home = av.open(io.BytesIO(), "w", format=self._container.format.name)
        encoder = self._new_encoder(home)
        codec = av.Codec(self._choice.codec, "w").canonical_name
        suffix = PLAYABLE_ALONE.get(codec, ".packets")
        return _SegmentWriter(self._folder / f"{len(self._segments):05d}{suffix}", encoder, home)

    def _mux_all(self) -> None:
        self.end_segment()
        along = _Along(self)
        rising = RisingTimes()
        for segment in self._segments:
            for packet in segment.read():
                along.carry_until((packet.dts or 0) * segment.time_base)
                packet.pts, packet.dts = rising.place(packet.pts, packet.dts)
                self._encoder.give(packet)
                assert self._container is not None
                self._container.mux(packet)
        along.carry_rest()

    @property
    def _num_frames(self) -> int:
        return sum(segment.num_packets for segment in self._segments)

    def _discard(self) -> None:
        if self._current is not None:
            self._current.discard()
            self._current = None
        super()._discard()
        if self._claim is not None:
            with suppress(OSError):
                self._claim.unfinished.unlink()  # where pieces are kept, it alone goes


class _Along:
    """What comes along, read again from the input beside the pieces: as much at a time as the place
    in the video asks for, so that the output depends on nothing else."""

    def __init__(self, writer: SegmentedWriter) -> None:
        self._companions = writer._companions
        self._span = writer._reader.span if writer._reader else None
        has_some = self._companions is not None and self._companions.has_tracks
        self._demuxer = writer._again() if has_some else None
        self._packets = iter(()) if self._demuxer is None else self._demuxer.passed_over()
        self._seconds: Fraction | None = None
        self._has_ended = False

    def carry_until(self, seconds: Fraction) -> None:
        """Hand over what belongs to the time before `seconds` of the output."""
        begin = self._span.begin_seconds if self._span else Fraction(0)
        while not self._has_ended and (
            self._seconds is None or self._seconds < begin + seconds + READ_AHEAD_SECONDS
        ):
            self._carry_next()

    def carry_rest(self) -> None:
        """Hand over all that is left."""
        while not self._has_ended:
            self._carry_next()
        if self._demuxer is not None:
            self._demuxer.close()

    def _carry_next(self) -> None:
        packet = next(self._packets, None)
        if packet is None:
            self._has_ended = True
            return
        time = packet.dts if packet.dts is not None else packet.pts
        if time is not None:
            self._seconds = max(self._seconds or Fraction(0), time * Fraction(packet.time_base))
        assert self._companions is not None
        self._companions.take(packet)
