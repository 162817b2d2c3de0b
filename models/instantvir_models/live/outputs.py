"""The outputs of `instantvir stream`: from what the user typed to open sinks."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from instantvir_models.errors import UsageError
from instantvir_models.live.network_sink import NetworkSink
from instantvir_models.live.next_file import FileOfEachStretch
from instantvir_models.live.output import LiveOutput
from instantvir_models.live.sink import LiveSink
from instantvir_models.live.stream import LiveStream
from instantvir_models.live.virtual_camera import VirtualCamera
from instantvir_models.media import EncoderSettings, VideoWriter, create_video
from instantvir_models.media.connection import Connection, can_connect
from instantvir_models.media.live_io import StandardOutput
from instantvir_models.media.muxer import pieces_of, suffix_tells_format, writes_several
from instantvir_models.media.names import is_network_address
from instantvir_models.media.rehearsal import check_output
from instantvir_models.media.timeline import DEFAULT_FRAME_RATE
from instantvir_models.outputs.names import identity_of, numbered, scheme_of, written_path
from instantvir_models.outputs.rule import refuse

CAMERA = "camera:"
DEFAULT_PIPE_FORMAT = "nut"
_ONLY_FORMAT_OF_SCHEME = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp"}
_FORMAT_OF_SCHEME = {
    "udp": "mpegts",
    "tcp": "mpegts",
    "http": "mpegts",
    "https": "mpegts",
}


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """Where the restored stream goes and how it is encoded."""

    destinations: tuple[str, ...]
    encoder: EncoderSettings
    output_format: str | None
    fps: float | None
    """Where the source does not say."""
    reconnect: bool
    silence_seconds: float
    """A server that takes nothing for so long counts as lost."""
    overwrite: bool
    next_file_seconds: float | None = None
    """After a pause that is longer, files go on in a next one; None goes on in the same."""


def check_outputs(plan: OutputPlan, source: str) -> None:
    """UsageError for outputs that collide, exist already or are the input; VideoWriteError for a
    file that cannot be made. Nothing has been opened by then."""
    taken: set[object] = set()
    for destination in plan.destinations:
        path = _local_path(destination)
        place = destination if path is None else identity_of(path) or path.resolve()
        if place in taken:
            raise UsageError(f"`{destination}` is given twice as an output")
        taken.add(place)
        if path is not None:
            refuse(path, reads=(source,), may_replace=plan.overwrite)
            for piece in (
                pieces_of(path) if writes_several(_format_of(destination, plan), path) else ()
            ):
                refuse(piece, may_replace=plan.overwrite)
            check_output(destination, plan.encoder, output_format=_format_of(destination, plan))


def _local_path(text: str) -> Path | None:
    """The file that is to be made; None for a pipe, an address or a camera."""
    return None if text.startswith(CAMERA) else written_path(text)


def new_outputs(
    plan: OutputPlan,
    stream: LiveStream,
    height: int,
    width: int,
    on_event: Callable[[str], None],
) -> list[LiveOutput]:
    """One output per destination. Files are opened here, so that a bad path is told at once."""
    opened: list[tuple[Path, LiveSink]] = []
    try:
        return [
            _new_output(destination, plan, stream, height, width, on_event, opened)
            for destination in plan.destinations
        ]
    except BaseException:
        for path, sink in opened:  # nothing was written to them yet
            sink.abort()
            path.unlink(missing_ok=True)
        raise


def is_consumer_gone(output: LiveOutput) -> bool:
    """Whether the output ended because the program behind the pipe did, which is its right."""
    return output.name == "-" and isinstance(
        getattr(output.failure, "__cause__", None), BrokenPipeError
    )


def _new_output(
    destination: str,
    plan: OutputPlan,
    stream: LiveStream,
    height: int,
    width: int,
    on_event: Callable[[str], None],
    opened: list[tuple[Path, LiveSink]],
) -> LiveOutput:
    pipe = StandardOutput() if destination == "-" else None
    given_up = threading.Event()
    if destination.startswith(CAMERA):
        open_sink: Callable[[], LiveSink] = partial(
            VirtualCamera,
            destination[len(CAMERA) :] or None,
            height=height,
            width=width,
            fps=_fps(plan, stream),
        )
    else:
        open_sink = partial(_open_writer, pipe or destination, plan, stream, height, width)
    if is_network_address(destination) and can_connect(_format_of(destination, plan)):
        open_sink = partial(
            NetworkSink,
            destination,
            timeout_seconds=plan.silence_seconds,
            given_up=given_up,
            new_writer=partial(_open_writer, plan=plan, stream=stream, height=height, width=width),
        )
    if (path := _local_path(destination)) is not None:
        if plan.next_file_seconds is not None:
            open_sink = partial(
                FileOfEachStretch,
                lambda number: _open_writer(
                    str(numbered(path, number)), plan, stream, height, width
                ),
                pause_seconds=plan.next_file_seconds,
            )
        opened.append((path, open_sink()))
        open_sink = partial(_take, [opened[-1][1]])
    return LiveOutput(
        destination,
        open_sink,
        queue_size=stream.settings.queue_size,
        reconnect=plan.reconnect and is_network_address(destination),
        is_only_one=len(plan.destinations) == 1,
        on_event=on_event,
        pulse=stream.watchdog.add(f"output {destination}"),
        on_give_up=pipe.give_up if pipe else given_up.set,
    )


def _open_writer(
    destination: str | StandardOutput | Connection,
    plan: OutputPlan,
    stream: LiveStream,
    height: int,
    width: int,
) -> VideoWriter:
    assert stream.source is not None
    with stream.source.open_reader() as reader:
        return create_video(
            destination,  # type: ignore[arg-type]
            info_of=reader,
            width=width,
            height=height,
            settings=replace(plan.encoder, keyframe_interval=max(1, round(_fps(plan, stream)))),
            frame_rate=plan.fps,
            output_format=_format_of(destination, plan),
            is_live=True,
            overwrite=plan.overwrite,
        )


def _take(opened: list[LiveSink]) -> LiveSink:
    return opened.pop()


def _fps(plan: OutputPlan, stream: LiveStream) -> float:
    assert stream.source is not None
    rate = stream.source.reader.info.frame_rate
    return plan.fps or float(rate or DEFAULT_FRAME_RATE)


def _format_of(destination: str | StandardOutput | Connection, plan: OutputPlan) -> str | None:
    """FFmpeg's name of the container; None where the name of a file tells. What the plan asks for is
    for outputs whose names do not tell: `-o live.mkv -o - --format nut` are two containers."""
    if isinstance(destination, StandardOutput):
        return plan.output_format or DEFAULT_PIPE_FORMAT
    address = destination.name if isinstance(destination, Connection) else destination
    scheme = scheme_of(address) or ""
    if scheme in _ONLY_FORMAT_OF_SCHEME:
        return _ONLY_FORMAT_OF_SCHEME[scheme]
    if _local_path(address) is not None and suffix_tells_format(address):
        return None
    return plan.output_format or _FORMAT_OF_SCHEME.get(scheme)
