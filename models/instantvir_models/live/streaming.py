"""A live stream from what a person names to its end: `instantvir stream` as calls."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.live.output import LiveOutput
from instantvir_models.live.outputs import OutputPlan, check_outputs, is_consumer_gone, new_outputs
from instantvir_models.live.overload import Overload
from instantvir_models.live.source import SILENCE_SECONDS, SourceSettings
from instantvir_models.live.status import LiveStatus
from instantvir_models.live.stream import LiveStream
from instantvir_models.media import Frame
from instantvir_models.run.opening import OpenedSolver, SessionLimits
from instantvir_models.run.resolution import (
    SAMPLE_FRAMES,
    Resolved,
    needs_first_frames,
    resolve_video,
)
from instantvir_models.run.session import Session
from instantvir_models.students.fitting import Notice
from instantvir_models.tasks import TaskOptions


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """How a live source is restored.

    Raises:
        UsageError: for outputs that collide, exist already or are the input.
        VideoWriteError: for a file that cannot be made. Nothing has been opened by then.
    """

    name: str
    """What the user calls the source; a note beside a file of that name counts."""
    source: SourceSettings
    outputs: OutputPlan
    wanted: TaskOptions = field(default_factory=TaskOptions)
    limits: SessionLimits = field(default_factory=SessionLimits)
    on_overload: Overload | None = None
    """None drops frames of cameras and networks and lets pipes and files wait."""

    def __post_init__(self) -> None:
        check_outputs(self.outputs, self.name)

    @property
    def overload(self) -> Overload:
        """What happens to frames that come faster than they can be restored."""
        if self.on_overload is not None:
            return self.on_overload
        return Overload.DROP if self.source.cannot_wait else Overload.BLOCK


def source_settings(
    source: str,
    *,
    input_format: str | None = None,
    input_options: Mapping[str, str] | None = None,
    size: str | None = None,
    pix_fmt: str | None = None,
    fps: float | None = None,
    reconnect: bool = False,
    silence: float | None = None,
    follow: float | None = None,
) -> SourceSettings:
    """What to open, with FFmpeg's names for cameras and raw frames.

    Args:
        source: `-`, a camera (its number or device), an address or a file.
        input_format: FFmpeg's name of the format or device, where it does not follow.
        size: WIDTHxHEIGHT of raw frames or a camera.
        pix_fmt, fps: of raw frames or a camera.
        silence, follow: seconds; see `SourceSettings`.

    Raises:
        UsageError: if they do not go together.
    """
    for flag, value, what in (
        ("--follow", follow, "a number of seconds above 0"),
        ("--silence", silence, "a number of seconds above 0"),
        ("--fps", fps, "a number above 0"),
    ):
        if value is not None and value <= 0:
            raise UsageError(f"`{flag}` is {value:g}; it is {what}")
    if input_format is None and (source.isdecimal() or source.startswith("/dev/video")):
        source, input_format = _camera(source)
    options = dict(input_options or {})
    if size is not None:
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
            raise UsageError(f"`--size` is `{size}`; it is WIDTHxHEIGHT")
        options["video_size"] = size
        input_format = input_format or "rawvideo"
    elif input_format == "rawvideo":
        raise UsageError("raw frames do not say their size", hint="give `--size WIDTHxHEIGHT`")
    elif pix_fmt is not None and input_format is None:
        raise UsageError(
            "`--pix-fmt` describes raw frames, which need `--size` too",
            hint="for the output say `--output-pix-fmt`",
        )
    if pix_fmt is not None:
        options["pixel_format"] = pix_fmt
    if fps is not None and input_format is not None:
        options["framerate"] = f"{fps:g}"
    return SourceSettings(
        source=source,
        input_format=input_format,
        input_options=tuple(options.items()),
        reconnect=reconnect,
        silence_seconds=SILENCE_SECONDS if silence is None else silence,
        follow_seconds=follow,
    )


def _camera(source: str) -> tuple[str, str]:
    """What FFmpeg calls a camera on this system, and the device format."""
    if sys.platform == "darwin":
        return source, "avfoundation"
    if sys.platform == "win32":
        raise UsageError(
            "Windows names cameras by their title",
            hint="`instantvir stream 'video=NAME' --input-format dshow`",
        )
    return (f"/dev/video{source}" if source.isdecimal() else source), "v4l2"


def resolve_stream(plan: StreamPlan, stream: LiveStream) -> Resolved:
    """The degradation of a stream that was started; looks at its first frames only if it has to."""
    assert stream.source is not None
    sample = []
    if needs_first_frames(plan.name, plan.wanted):
        sample = [frame.pixels for frame in stream.sample(SAMPLE_FRAMES)]
    is_lossy = not stream.source.reader.info.is_lossless
    return resolve_video(plan.name, plan.wanted, sample=sample, is_lossy=is_lossy)


def restore_stream(
    plan: StreamPlan,
    stream: LiveStream,
    solver: OpenedSolver,
    resolved: Resolved,
    *,
    on_event: Callable[[str], None],
    on_notices: Callable[[Iterable[Notice]], None],
    on_size: Callable[[int, int], None],
    on_pair: Callable[[Frame, Frame], None],
) -> tuple[LiveStatus, list[LiveOutput]]:
    """What came of restoring a started stream until it ends, and its outputs, which have ended too.

    Args:
        on_event: called with a sentence when something happens to an output, from any thread.
        on_notices: called when a session is made, with what a person is to be told about it.
        on_size: called once, with the height and width of the restored frames.
        on_pair: called with each measured frame and what is shown of it.
    """
    outputs: list[LiveOutput] = []

    def new_session(height: int, width: int) -> Session:
        made = solver.new_session(
            resolved.degradation, height=height, width=width, limits=plan.limits
        )
        on_notices(made.notices)
        return made.session

    def open_outputs(height: int, width: int) -> list[LiveOutput]:
        on_size(height, width)
        outputs.extend(new_outputs(plan.outputs, stream, height, width, on_event))
        return outputs

    return stream.run(new_session, open_outputs, on_pair=on_pair), outputs


def raise_failures(stream: LiveStream, outputs: Iterable[LiveOutput]) -> None:
    """Raise what ended an output before its time, or that no frame ever came."""
    for output in outputs:
        if output.failure is not None and not is_consumer_gone(output):
            raise output.failure
    assert stream.source is not None
    if not stream.source.loss and stream.counters.count("in") == 0:
        raise VideoOpenError("no frame came before the stream was stopped")
