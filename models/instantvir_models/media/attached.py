"""What comes along with the video of a container, found before it is read."""

from __future__ import annotations

from dataclasses import dataclass

from av.container import InputContainer
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.stream import VideoStream


@dataclass(frozen=True)
class Attached:
    """What hangs on a container without having a time."""

    covers: tuple[tuple[Stream, bytes], ...] = ()
    """Pictures of the whole, and their data."""
    attachments: tuple[AttachmentStream, ...] = ()


NOTHING_ATTACHED = Attached()


def attached_to(container: InputContainer) -> Attached:
    """Covers and attachments; to be asked before anything else is read, for covers come first."""
    covers = [stream for stream in container.streams.video if is_cover(stream)]
    found = {}
    if covers:
        demuxed = container.demux(covers)
        for _ in covers:
            packet = next(demuxed, None)
            if packet is None or packet.size == 0:
                break
            found[packet.stream_index] = (packet.stream, bytes(packet))
    attachments = [s for s in container.streams if isinstance(s, AttachmentStream)]
    return Attached(tuple(found.values()), tuple(attachments))


def companions_of(
    container: InputContainer, video: VideoStream, *, is_live: bool
) -> tuple[Stream, ...]:
    """The streams that come along with `video`: sound and subtitles, of files also other videos
    and data. Chapters and timecodes are read by FFmpeg itself."""
    kinds = ("audio", "subtitle") if is_live else ("audio", "subtitle", "video", "data")
    streams = [s for kind in kinds for s in container.streams if s.type == kind]
    return tuple(s for s in streams if s.index != video.index and _is_carried(s))


def left_out_of_streams(container: InputContainer, video: VideoStream) -> tuple[Stream, ...]:
    """What would come along with `video` to a file, and does not while it runs."""
    live = companions_of(container, video, is_live=True)
    return tuple(s for s in companions_of(container, video, is_live=False) if s not in live)


def is_cover(stream: Stream) -> bool:
    """Whether the stream is one picture of the whole, such as the cover of a disc."""
    return bool(Disposition(stream.disposition) & Disposition.attached_pic)


def timecode_of(container: InputContainer, video: VideoStream) -> str | None:
    """What the source's clock showed at its first frame, such as `01:00:00:00`."""
    described = [video.metadata, container.metadata]
    described += [s.metadata for s in container.streams if s.type == "data"]
    tags = [(key.lower(), value) for tags in described for key, value in tags.items()]
    return next((value for key, value in tags if key == "timecode"), None)


def _is_carried(stream: Stream) -> bool:
    if is_cover(stream):
        return False
    return stream.type != "data" or not (
        "timecode" in {key.lower() for key in stream.metadata} or stream.discard == Discard.all
    )
