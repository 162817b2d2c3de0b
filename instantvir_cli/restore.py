"""`instantvir restore`: parse -> resolve -> restore -> report."""

import glob
import itertools
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from instantvir_cli import __version__, console
from instantvir_cli.compare import STYLES, Comparison
from instantvir_cli.degradation import (
    check_task_options,
    check_tile,
    describe_estimates,
    parse_tasks,
    resolved_degradation,
)
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.gain import Gain
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError
from instantvir_models.media import EncoderSettings, Frame, VideoReader, create_video, open_video
from instantvir_models.run.opening import OpenedSolver, SessionLimits, open_student
from instantvir_models.run.pipeline import PipelineReport, restore_video
from instantvir_models.run.session import Session
from instantvir_models.tasks import SAMPLE_FRAMES, Resolved, TaskOptions

logger = logging.getLogger(__name__)

WRITABLE_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}
"""Containers that the output may share with the input; others become .mp4."""


@dataclass(frozen=True, kw_only=True)
class RestoreRequest:
    """What the user typed."""

    inputs: tuple[str, ...]
    output: str | None
    tasks: tuple[str, ...]
    task_options: TaskOptions
    model: str
    device: str
    prompt: str | None
    vram: float | None
    tile: int | None
    latency: int | None
    threads: int | None
    codec: str | None
    crf: int | None
    preset: str | None
    pix_fmt: str | None
    output_format: str | None
    start: float | None
    duration: float | None
    reference: Path | None
    compare: bool
    compare_style: str
    overwrite: bool
    dry_run: bool
    json_summary: bool
    quiet: bool

    @property
    def encoder_settings(self) -> EncoderSettings:
        """The part that describes the output file."""
        return EncoderSettings(
            codec=self.codec, crf=self.crf, preset=self.preset, pix_fmt=self.pix_fmt
        )


@dataclass(frozen=True)
class _Job:
    """One input and where its restoration goes."""

    source: str
    destination: str

    @property
    def companion_stem(self) -> Path:
        """Where comparisons go: beside the output, or in the working folder for a pipe."""
        if self.destination == "-":
            return Path("restored")
        path = Path(self.destination)
        return path.with_name(path.stem.replace("%", ""))


def restore_all(request: RestoreRequest) -> None:
    """Restore every input; the exit status says whether all went well."""
    console.set_up(quiet=request.quiet)
    _check(request)
    jobs = _jobs(request)
    use_threads(request.threads)
    opened = open_student(request.model, device=request.device, prompt=request.prompt)
    console.tell(opened.notices)
    summaries = [_restore_one(job, request, opened) for job in jobs]
    if request.json_summary:
        typer.echo(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=2))
    if any(summary["damage"] for summary in summaries):
        raise typer.Exit(ExitStatus.PARTIAL)


def _check(request: RestoreRequest) -> None:
    check_task_options(request.task_options)
    if request.compare_style not in STYLES:
        raise UsageError(f"`--compare-style` is `{request.compare_style}`; it is `side` or `wipe`")
    check_tile(request.tile)
    parse_tasks(request.tasks)


def _jobs(request: RestoreRequest) -> list[_Job]:
    """One job per input; refuses what would overwrite or collide."""
    sources = [path for text in request.inputs for path in _expanded(text)]
    output = request.output
    into_folder = output is not None and (output.endswith("/") or Path(output).is_dir())
    if len(sources) > 1 and not into_folder:
        raise UsageError(
            f"{len(sources)} inputs need a folder to go to",
            hint="give `-o FOLDER/`, with the slash",
        )
    if into_folder and not request.dry_run:
        assert output is not None
        _make_folder(Path(output))
    jobs = [_Job(source, _destination(source, output, into_folder)) for source in sources]
    taken: set[str] = set()
    for job in jobs:
        if job.destination in taken:
            raise UsageError(f"two inputs would be written to `{job.destination}`")
        taken.add(job.destination)
        _refuse_to_overwrite(job, request)
    return jobs


def _expanded(text: str) -> list[str]:
    """Files that `text` stands for; image patterns and addresses stay as they are."""
    is_video_glob = any(c in text for c in "*?[") and not Path(text).exists()
    if not is_video_glob or Path(text).suffix.lower() in {
        ".png",
        ".jpg",
        ".jpeg",
        ".tif",
        ".tiff",
        ".bmp",
    }:
        return [text]
    found = sorted(glob.glob(text))
    if not found:
        raise UsageError(f"no file matches `{text}`")
    return found


def _make_folder(folder: Path) -> None:
    from instantvir_models.errors import VideoWriteError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoWriteError(
            f"cannot make the folder `{folder}`: {error.strerror}", hint="choose another with `-o`"
        ) from error


def _destination(source: str, output: str | None, into_folder: bool) -> str:
    if output is not None and not into_folder:
        return output
    if source == "-":
        raise UsageError("standard input has no name to derive one from", hint="give `-o FILE`")
    path = Path(source)
    suffix = path.suffix.lower() if path.suffix.lower() in WRITABLE_SUFFIXES else ".mp4"
    stem = path.stem.replace("*", "").replace("%", "").strip("_-.") or "frames"
    name = f"{stem}.restored{suffix}"
    return str(Path(output) / name) if output is not None else str(path.with_name(name))


def _refuse_to_overwrite(job: _Job, request: RestoreRequest) -> None:
    if job.destination == "-":
        if request.json_summary:
            raise UsageError("standard output cannot hold both the video and `--json`")
        return
    target = Path(job.destination)
    if (
        job.source != "-"
        and target.exists()
        and Path(job.source).exists()
        and target.samefile(job.source)
    ):
        raise UsageError(f"`{target}` is the input itself", hint="choose another name with `-o`")
    written = [target]
    if request.compare:
        written += _comparison_paths(job)
    for path in written:
        if path.exists() and not path.is_dir() and not request.overwrite:
            raise UsageError(f"`{path}` exists already", hint="give `--overwrite`, or another `-o`")


def _comparison_paths(job: _Job) -> list[Path]:
    stem = job.companion_stem
    return [stem.with_name(f"{stem.name}.compare.{suffix}") for suffix in ("mp4", "png")]


def _restore_one(job: _Job, request: RestoreRequest, opened: OpenedSolver) -> dict[str, Any]:
    """The summary of one restored video."""
    with ExitStack() as stack:
        reader = stack.enter_context(
            open_video(job.source, start_seconds=request.start, duration_seconds=request.duration)
        )
        frames = iter(reader)
        first = list(itertools.islice(frames, SAMPLE_FRAMES))
        resolved = resolved_degradation(
            job.source,
            request.tasks,
            request.task_options,
            sample=[frame.pixels for frame in first],
            is_lossy=not reader.info.is_lossless,
        )
        console.warn_all(opened.doubts(resolved.degradation))
        made = opened.new_session(
            resolved.degradation,
            height=reader.info.height,
            width=reader.info.width,
            limits=SessionLimits(
                gigabytes=request.vram,
                tile_pixels=request.tile,
                frames_per_block=request.latency,
            ),
        )
        console.tell(made.notices)
        session = made.session
        _describe(job, reader, session, resolved, opened)
        if request.dry_run:
            return _summary(job, reader, session, resolved, opened, None, None)
        gain = None
        if request.reference is not None:
            gain = Gain(request.reference, start_seconds=request.start)
            stack.callback(gain.close)
        report = _run(job, request, reader, itertools.chain(first, frames), session, gain)
        _report(job, reader, resolved, report, gain)
        return _summary(job, reader, session, resolved, opened, report, gain)


def _describe(
    job: _Job, reader: VideoReader, session: Session, resolved: Resolved, opened: OpenedSolver
) -> None:
    describe_estimates(resolved)
    height, width = session.output_size
    knowledge = "known" if resolved.is_operator_known else "estimated or assumed"
    console.say(
        f"{job.source} ({reader.info.width}x{reader.info.height}) -> {job.destination} "
        f"({width}x{height}); operator {resolved.degradation.spec} ({knowledge}); "
        f"model {opened.name} on {opened.device.type}"
    )


def _run(
    job: _Job,
    request: RestoreRequest,
    reader: VideoReader,
    frames: Iterator[Frame],
    session: Session,
    gain: Gain | None,
) -> PipelineReport:
    """Restore and write; on any failure nothing is left under a final name."""
    height, width = session.output_size
    with ExitStack() as stack:
        writer = create_video(
            job.destination,
            info_of=reader,
            width=width,
            height=height,
            settings=request.encoder_settings,
            output_format=request.output_format,
        )
        stack.callback(writer.abort)
        comparison = None
        if request.compare:
            video_path, sheet_path = _comparison_paths(job)
            comparison = Comparison(
                video_path, sheet_path, width=width, height=height,
                style=request.compare_style, frame_rate=reader.info.frame_rate,
            )  # fmt: skip
            stack.callback(comparison.abort)
        progress = stack.enter_context(_progress())
        task_id = progress.add_task("restoring", total=reader.info.num_frames, fps="")

        def on_pair(original: Frame, restored: Frame) -> None:
            if gain is not None:
                gain.add(original, restored)
            if comparison is not None:
                comparison.add(original, restored)
            progress.advance(task_id)
            speed = progress.tasks[task_id].speed
            progress.update(task_id, fps=f"{speed:.1f} FPS" if speed else "")

        report = restore_video(frames, session, writer, on_pair=on_pair)
        writer.close()
        if comparison is not None:
            comparison.close()
        return report


def _progress() -> Progress:
    """A live line on a terminal, nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TimeRemainingColumn(),
        console=console.console,
        disable=console.console.quiet or not sys.stderr.isatty(),
        transient=True,
    )


def _report(
    job: _Job, reader: VideoReader, resolved: Resolved, report: PipelineReport, gain: Gain | None
) -> None:
    busy = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.stage_seconds.items())
    console.say(
        f"{report.frames} frames in {report.wall_seconds:.1f} s ({report.fps:.2f} FPS; seconds: {busy})"
    )
    if report.session.residual is not None:
        against = "" if resolved.is_operator_known else "estimated "
        console.say(
            f"residual |A x - y| / |y| against the {against}operator: {report.session.residual:.4f}"
        )
    if report.session.frames_replaced:
        console.warn(
            f"{report.session.frames_replaced} of {report.frames} frames are the initial estimate: "
            "what the student made of them contradicted the measurement"
        )
    if gain is not None:
        console.say(
            f"PSNR against the reference: {gain.input_psnr:.2f} dB before, {gain.output_psnr:.2f} dB "
            f"after, gain {gain.output_psnr - gain.input_psnr:+.2f} dB"
        )
    if reader.damage.message:
        console.warn(f"`{job.source}` is damaged: {reader.damage.message}")


def _summary(
    job: _Job,
    reader: VideoReader,
    session: Session,
    resolved: Resolved,
    opened: OpenedSolver,
    report: PipelineReport | None,
    gain: Gain | None,
) -> dict[str, Any]:
    """What `--json` prints for one video."""
    height, width = session.output_size
    return {
        "version": __version__,
        "input": job.source,
        "output": None if report is None else job.destination,
        "input_size": [reader.info.width, reader.info.height],
        "output_size": [width, height],
        "frames": report.frames if report else None,
        "fps": report.fps if report else None,
        "wall_seconds": report.wall_seconds if report else None,
        "stage_seconds": report.stage_seconds if report else None,
        "operator": resolved.degradation.spec,
        "is_operator_known": resolved.is_operator_known,
        "is_lossy_input": resolved.degradation.is_lossy,
        "noise_levels": resolved.degradation.noise_std * 127.5,
        "estimates": [asdict(estimate) for estimate in resolved.estimates],
        "residual": report.session.residual if report else None,
        "frames_replaced": report.session.frames_replaced if report else None,
        "input_psnr": gain.input_psnr if gain else None,
        "output_psnr": gain.output_psnr if gain else None,
        "model": opened.name,
        "model_sha256": opened.sha256,
        "damage": reader.damage.message if report else None,
    }
