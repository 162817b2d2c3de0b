"""`instantvir stream`: parse -> open -> restore while it runs -> report."""

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

import typer

from instantvir_cli import console
from instantvir_cli.degradation import (
    check_task_options,
    check_tile,
    describe_estimates,
    needs_first_frames,
    parse_tasks,
    resolved_degradation,
)
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.live_controls import new_controls
from instantvir_cli.live_outputs import OutputPlan, check_outputs, is_consumer_gone, new_outputs
from instantvir_cli.live_report import Report
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.live.control_socket import ControlSocket
from instantvir_models.live.guarded_http import GuardedServer
from instantvir_models.live.metrics import MetricsServer
from instantvir_models.live.output import LiveOutput
from instantvir_models.live.overload import Overload
from instantvir_models.live.preview import LatestPair, PreviewServer
from instantvir_models.live.snapshot import Snapshots
from instantvir_models.live.source import SILENCE_SECONDS, SourceSettings
from instantvir_models.live.status import LiveStatus
from instantvir_models.live.stream import LiveSettings, LiveStream
from instantvir_models.media import EncoderSettings, Frame
from instantvir_models.run.opening import OpenedSolver, SessionLimits, open_student
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import block_size
from instantvir_models.tasks import SAMPLE_FRAMES, Resolved, TaskOptions

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What the user typed."""

    source: str
    outputs: tuple[str, ...]
    tasks: tuple[str, ...]
    task_options: TaskOptions
    latency: int | None
    on_overload: str | None
    reconnect: bool
    silence: float | None
    follow: float | None
    input_format: str | None
    input_options: tuple[str, ...]
    size: str | None
    pix_fmt: str | None
    fps: float | None
    model: str
    device: str
    prompt: str | None
    vram: float | None
    tile: int | None
    threads: int | None
    codec: str | None
    crf: int | None
    preset: str | None
    output_pix_fmt: str | None
    output_format: str | None
    overwrite: bool
    preview: str | None
    token: str | None
    control: Path | None
    snapshots: Path
    metrics: str | None
    json_lines: Path | None
    quiet: bool

    @property
    def silence_seconds(self) -> float:
        """How long a network may say nothing."""
        return SILENCE_SECONDS if self.silence is None else self.silence

    @property
    def output_plan(self) -> OutputPlan:
        """The part that describes the outputs."""
        return OutputPlan(
            destinations=self.outputs,
            encoder=EncoderSettings(
                codec=self.codec, crf=self.crf, preset=self.preset, pix_fmt=self.output_pix_fmt,
                low_latency=True,
            ),
            output_format=self.output_format,
            fps=self.fps,
            reconnect=self.reconnect,
            silence_seconds=self.silence_seconds,
            overwrite=self.overwrite,
        )  # fmt: skip


def run_stream(request: StreamRequest) -> None:
    """Restore until the source ends or the user stops it; the exit status says how it went."""
    console.set_up(quiet=request.quiet)
    _check(request)
    use_threads(request.threads)
    source = _source_settings(request)
    overload = _overload(request, source)
    opened = open_student(request.model, device=request.device, prompt=request.prompt)
    console.tell(opened.notices)
    frames_per_block = block_size(opened.solver, request.latency)
    report = Report(json_lines=request.json_lines)
    stream = LiveStream(
        source,
        LiveSettings(overload=overload, frames_per_block=frames_per_block),
        controls=new_controls(opened, request.prompt),
        on_event=report.event,
    )
    with ExitStack() as stack:
        stack.enter_context(_ending_well(stream))
        stack.callback(stream.close)
        pairs = _serve(request, stream, stack)
        with _stopped_is_interrupted(stream):
            stream.start()
        status, outputs = _run(request, stream, opened, report, pairs)
    report.summary(status)
    _exit(stream, outputs)


def _run(
    request: StreamRequest,
    stream: LiveStream,
    opened: OpenedSolver,
    report: Report,
    pairs: LatestPair | None,
) -> tuple[LiveStatus, list[LiveOutput]]:
    assert stream.source is not None
    outputs: list[LiveOutput] = []
    snapshots = Snapshots(request.snapshots, stream.controls, on_event=report.event)
    resolved = _resolved(request, stream)
    console.warn_all(opened.doubts(resolved.degradation))

    def new_session(height: int, width: int) -> Session:
        made = opened.new_session(
            resolved.degradation,
            height=height,
            width=width,
            limits=SessionLimits(
                gigabytes=request.vram,
                tile_pixels=request.tile,
                frames_per_block=request.latency,
            ),
        )
        console.tell(made.notices)
        return made.session

    def open_outputs(height: int, width: int) -> list[LiveOutput]:
        _describe(request, resolved, stream, opened, (width, height))
        outputs.extend(new_outputs(request.output_plan, stream, height, width, report.event))
        return outputs

    def on_pair(measured: Frame, restored: Frame) -> None:
        if pairs is not None:
            pairs.put(measured, restored)
        snapshots.consider(measured, restored)

    with snapshots, report.live(stream.status):
        status = stream.run(new_session, open_outputs, on_pair=on_pair)
    return status, outputs


def _check(request: StreamRequest) -> None:
    check_task_options(request.task_options)
    check_tile(request.tile)
    parse_tasks(request.tasks)
    if not request.outputs and request.preview is None:
        raise UsageError(
            "the restored stream goes nowhere",
            hint="give `-o -`, `-o FILE`, `-o rtmp://...` or `--preview 8080`",
        )
    check_outputs(request.output_plan, request.source)
    if request.follow is not None and request.follow <= 0:
        raise UsageError(f"`--follow` is {request.follow:g}; it is a number of seconds above 0")
    if request.silence is not None and request.silence <= 0:
        raise UsageError(f"`--silence` is {request.silence:g}; it is a number of seconds above 0")
    if request.fps is not None and request.fps <= 0:
        raise UsageError(f"`--fps` is {request.fps:g}; it is a number above 0")


def _source_settings(request: StreamRequest) -> SourceSettings:
    """What to open, with FFmpeg's names for cameras and raw frames."""
    source, input_format = request.source, request.input_format
    if input_format is None and (source.isdecimal() or source.startswith("/dev/video")):
        source, input_format = _camera(source)
    options = _input_options(request.input_options)
    if request.size is not None:
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", request.size):
            raise UsageError(f"`--size` is `{request.size}`; it is WIDTHxHEIGHT")
        options["video_size"] = request.size
        input_format = input_format or "rawvideo"
    elif input_format == "rawvideo":
        raise UsageError("raw frames do not say their size", hint="give `--size WIDTHxHEIGHT`")
    elif request.pix_fmt is not None and input_format is None:
        raise UsageError(
            "`--pix-fmt` describes raw frames, which need `--size` too",
            hint="for the output say `--output-pix-fmt`",
        )
    if request.pix_fmt is not None:
        options["pixel_format"] = request.pix_fmt
    if request.fps is not None and input_format is not None:
        options["framerate"] = f"{request.fps:g}"
    settings = SourceSettings(
        source=source,
        input_format=input_format,
        input_options=tuple(options.items()),
        reconnect=request.reconnect,
        silence_seconds=request.silence_seconds,
        follow_seconds=request.follow,
    )
    if request.reconnect and not settings.can_come_back and not request.outputs:
        console.warn("`--reconnect` has no effect on a pipe or a file")
    return settings


def _input_options(texts: tuple[str, ...]) -> dict[str, str]:
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(
                f"`--input-option` is `{text}`; it is NAME=VALUE",
                hint="for example `--input-option rtsp_transport=tcp`",
            )
        options[name] = value
    return options


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


def _overload(request: StreamRequest, source: SourceSettings) -> Overload:
    if request.on_overload is None:
        return Overload.DROP if source.cannot_wait else Overload.BLOCK
    if request.on_overload not in list(Overload):
        raise UsageError(
            f"`--on-overload` is `{request.on_overload}`", hint=f"use {', '.join(Overload)}"
        )
    return Overload(request.on_overload)


def _serve(request: StreamRequest, stream: LiveStream, stack: ExitStack) -> LatestPair | None:
    """Start the metrics, the control socket and the preview that were asked for."""
    if request.metrics is not None:
        host, port = _address(request.metrics, "--metrics")
        metrics = MetricsServer(stream.status, host=host, port=port, token=request.token)
        _begin(metrics, "metrics", stack)
    if request.control is not None:
        control = ControlSocket(request.control, controls=stream.controls, status=stream.status)
        control.start()
        stack.callback(control.stop)
        console.say(f"controls at {request.control}: `instantvir control {request.control} status`")
    if request.preview is None:
        return None
    host, port = _address(request.preview, "--preview")
    pairs = LatestPair()
    server = PreviewServer(
        host=host, port=port, pairs=pairs, controls=stream.controls, status=stream.status,
        token=request.token,
    )  # fmt: skip
    _begin(server, "preview", stack)
    return pairs


def _begin(server: GuardedServer, name: str, stack: ExitStack) -> None:
    """Serve until the stack unwinds, and say where."""
    server.start()
    stack.callback(server.stop)
    if server.has_made_token:
        typer.echo(f"{name} on {server.url}", err=True)  # even when quiet: nobody else knows it
    else:
        console.say(f"{name} on {server.url}")


def _address(text: str, flag: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"`{flag}` is `{text}`; it is a port or HOST:PORT")
    return host.strip("[]") or LOOPBACK, int(port)


def _resolved(request: StreamRequest, stream: LiveStream) -> Resolved:
    """The degradation; looks at the first frames only if it has to."""
    assert stream.source is not None
    sample = []
    if needs_first_frames(request.source, request.tasks, request.task_options):
        sample = [frame.pixels for frame in stream.sample(SAMPLE_FRAMES)]
    resolved = resolved_degradation(
        request.source,
        request.tasks,
        request.task_options,
        sample=sample,
        is_lossy=not stream.source.reader.info.is_lossless,
    )
    describe_estimates(resolved)
    return resolved


def _describe(
    request: StreamRequest,
    resolved: Resolved,
    stream: LiveStream,
    opened: OpenedSolver,
    output_size: tuple[int, int],
) -> None:
    assert stream.source is not None
    info, settings = stream.source.reader.info, stream.settings
    width, height = output_size
    targets = ", ".join(request.outputs) or "the preview"
    console.say(
        f"{request.source} ({info.width}x{info.height}) -> {targets} ({width}x{height}); "
        f"operator {resolved.degradation.spec}; model {opened.name} on {opened.device}; "
        f"blocks of {settings.frames_per_block}, overload: {settings.overload}"
    )


ValueT = TypeVar("ValueT")


@contextmanager
def _ending_well(stream: LiveStream) -> Iterator[None]:
    """While this lasts the first SIGINT, SIGTERM or SIGHUP ends the stream well, a second at once."""

    def end(number: int, frame: FrameType | None, *, restore: partial[None]) -> None:
        # Nothing here may take a lock: the interrupted code may hold it.
        restore()
        stream.stop()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in numbers:
        signal.signal(number, partial(end, restore=partial(restore_handlers)))
    try:
        yield
    finally:
        restore_handlers()


@contextmanager
def _stopped_is_interrupted(stream: LiveStream) -> Iterator[None]:
    """A source that could not be opened because the user stopped waiting is no bad input."""
    try:
        yield
    except VideoOpenError:
        if stream.is_asked_to_stop:
            raise KeyboardInterrupt from None
        raise


def _exit(stream: LiveStream, outputs: list[LiveOutput]) -> None:
    """Raise what is to be the exit status."""
    assert stream.source is not None
    for output in outputs:
        if output.failure is not None and not is_consumer_gone(output):
            raise output.failure
    loss = stream.source.loss
    if loss:
        console.warn(f"the input did not end well: {loss}")
        raise typer.Exit(ExitStatus.PARTIAL)
    if stream.counters.count("in") == 0:
        raise VideoOpenError("no frame came before the stream was stopped")
