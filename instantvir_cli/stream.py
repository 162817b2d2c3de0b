"""`instantvir stream`: parse -> open -> restore while it runs -> report."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import typer

from instantvir_cli import console
from instantvir_cli.degradation import describe_resolution
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.live_report import Report
from instantvir_cli.options import (
    DegradationOptions,
    LiveEncodingOptions,
    LiveSourceOptions,
    ModelOptions,
    ServingOptions,
)
from instantvir_cli.signals import told_of_signals
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.live.output import LiveOutput
from instantvir_models.live.outputs import OutputPlan
from instantvir_models.live.serve.control_socket import ControlSocket
from instantvir_models.live.serve.guarded_http import GuardedServer
from instantvir_models.live.serve.metrics import MetricsServer
from instantvir_models.live.serve.preview import LatestPair, PreviewServer
from instantvir_models.live.snapshot import Snapshots
from instantvir_models.live.status import LiveStatus
from instantvir_models.live.stream import LiveStream
from instantvir_models.live.streaming import (
    StreamPlan,
    new_stream,
    overload_of,
    raise_failures,
    resolve_stream,
    restore_stream,
    source_settings,
)
from instantvir_models.media import Frame
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.resolution import Resolved

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What the user typed."""

    source: str
    destinations: tuple[str, ...]
    degradation: DegradationOptions
    model: ModelOptions
    capture: LiveSourceOptions
    encoding: LiveEncodingOptions
    serving: ServingOptions
    may_overwrite: bool

    def plan(self) -> StreamPlan:
        """The same as the library takes it; UsageError where it makes no sense."""
        capture = self.capture
        if not self.destinations and self.serving.preview is None:
            raise UsageError(
                "the restored stream goes nowhere",
                hint="give `-o -`, `-o FILE`, `-o rtmp://...` or `--preview 8080`",
            )
        source = source_settings(
            self.source,
            input_format=capture.input_format,
            input_options=_input_options(capture.input_option or ()),
            size=capture.size,
            pix_fmt=capture.input_pix_fmt,
            fps=capture.fps,
            reconnect=capture.reconnect,
            silence=capture.silence,
            follow=capture.follow,
            fields=capture.fields,
            same_rate=capture.same_rate,
            rules=capture.rules(),
        )
        return StreamPlan(
            name=self.source,
            source=source,
            outputs=OutputPlan(
                destinations=self.destinations,
                encoder=self.encoding.settings(is_live=True),
                output_format=self.encoding.output_format,
                fps=capture.fps,
                reconnect=capture.reconnect,
                silence_seconds=source.silence_seconds,
                overwrite=self.may_overwrite,
                next_file_seconds=self.encoding.next_file,
            ),
            wanted=self.degradation.read(),
            limits=self.model.limits(),
            on_overload=None if capture.on_overload is None else overload_of(capture.on_overload),
        )


def run_stream(request: StreamRequest) -> None:
    """Restore until the source ends or the user stops it; the exit status says how it went."""
    plan, model, serving = request.plan(), request.model, request.serving
    if plan.source.reconnect and not plan.source.can_come_back and not plan.outputs.destinations:
        console.warn("`--reconnect` has no effect on a pipe or a file")
    use_threads(model.threads)
    solver = model.open()
    console.tell(solver.notices)
    report = Report(
        json_lines=serving.json_lines,
        page=serving.report,
        reads=(request.source,),
        may_replace=request.may_overwrite,
    )
    stream = new_stream(plan, solver, prompt=model.prompt, on_event=report.event)
    with ExitStack() as stack:
        stack.enter_context(_ending_well(stream))
        stack.callback(stream.close)
        pairs = _serve(serving, stream, stack)
        with _stopped_is_interrupted(stream):
            stream.start()
        snapshots = stack.enter_context(
            Snapshots(serving.snapshots, stream.controls, on_event=report.event)
        )
        status, outputs = _run(plan, stream, solver, report, pairs, snapshots)
    report.summary(status)
    raise_failures(stream, outputs)
    assert stream.source is not None
    if stream.source.loss:
        console.warn(f"the input did not end well: {stream.source.loss}")
        raise typer.Exit(ExitStatus.PARTIAL)
    report.raise_loss()


def _run(
    plan: StreamPlan,
    stream: LiveStream,
    solver: OpenedSolver,
    report: Report,
    pairs: LatestPair | None,
    snapshots: Snapshots,
) -> tuple[LiveStatus, list[LiveOutput]]:
    resolved = resolve_stream(plan, stream)
    describe_resolution(resolved, names_command=False)
    if resolved.is_nothing_to_do:
        console.warn(
            "the first frames show nothing that is sure to get better: frames pass as they are; if you see "
            "more, say what it is, such as `--task denoise`"
        )
        if plan.wanted.sharpness:
            console.warn("`--sharpness` has no effect: nothing is restored")
    console.warn_all(solver.doubts(resolved.degradation))

    def on_pair(measured: Frame, restored: Frame) -> None:
        if pairs is not None:
            pairs.put(measured, restored)
        snapshots.consider(measured, restored)

    with report.live(stream.status):
        return restore_stream(
            plan,
            stream,
            solver,
            resolved,
            on_event=report.event,
            on_notices=console.tell,
            on_size=partial(_describe, plan, resolved, stream, solver),
            on_pair=on_pair,
        )


def _input_options(texts: Sequence[str]) -> dict[str, str]:
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


def _serve(serving: ServingOptions, stream: LiveStream, stack: ExitStack) -> LatestPair | None:
    """Start the metrics, the control socket and the preview that were asked for."""
    if serving.metrics is not None:
        host, port = _address(serving.metrics, "--metrics")
        metrics = MetricsServer(stream.status, host=host, port=port, token=serving.token)
        _begin(metrics, "metrics", stack)
    if serving.control is not None:
        control = ControlSocket(serving.control, controls=stream.controls, status=stream.status)
        control.start()
        stack.callback(control.stop)
        console.say(f"controls at {serving.control}: `instantvir control {serving.control} status`")
    if serving.preview is None:
        return None
    host, port = _address(serving.preview, "--preview")
    pairs = LatestPair()
    server = PreviewServer(
        host=host,
        port=port,
        pairs=pairs,
        controls=stream.controls,
        status=stream.status,
        token=serving.token,
    )
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


def _describe(
    plan: StreamPlan,
    resolved: Resolved,
    stream: LiveStream,
    solver: OpenedSolver,
    height: int,
    width: int,
) -> None:
    assert stream.source is not None
    info, settings = stream.source.reader.info, stream.settings
    targets = ", ".join(plan.outputs.destinations) or "the preview"
    how = (
        "frames pass as they are"
        if resolved.is_nothing_to_do
        else f"operator {resolved.degradation.spec}; model {solver.name} on {solver.device}; "
        f"blocks of {settings.frames_per_block}"
    )
    console.say(
        f"{plan.name} ({info.width}x{info.height}) -> {targets} ({width}x{height}); {how}, "
        f"overload: {settings.overload}"
    )


@contextmanager
def _ending_well(stream: LiveStream) -> Iterator[None]:
    """While this lasts the first SIGINT, SIGTERM or SIGHUP ends the stream well, a second at once."""
    with told_of_signals(lambda number: stream.stop()):  # takes no lock
        yield


@contextmanager
def _stopped_is_interrupted(stream: LiveStream) -> Iterator[None]:
    """A source that could not be opened because the user stopped waiting is no bad input."""
    try:
        yield
    except VideoOpenError:
        if stream.is_asked_to_stop:
            raise KeyboardInterrupt from None
        raise
