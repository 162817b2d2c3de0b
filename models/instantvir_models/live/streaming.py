"""A live stream from what a person names to its end: `instantvir stream` as calls."""

import logging
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from instantvir_models.checkpoints.load import EMBEDDED
from instantvir_models.checkpoints.prompt import read_prompt
from instantvir_models.diagnosis.sample import FRAMES_PER_PLACE, Sample
from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.live.output import LiveOutput
from instantvir_models.live.outputs import OutputPlan, check_outputs, is_consumer_gone, new_outputs
from instantvir_models.live.overload import Overload
from instantvir_models.live.source import SILENCE_SECONDS, SourceSettings
from instantvir_models.live.status import LiveStatus
from instantvir_models.live.stream import LiveSettings, LiveStream
from instantvir_models.media import USUAL_RULES, EncoderSettings, Frame, InputRules
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.reach import MOST_PIXELS
from instantvir_models.operators.mask import MaskFile
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.masks import MasksFor, masks_along
from instantvir_models.run.opening import OpenedSolver, SessionLimits, open_chosen
from instantvir_models.run.resolution import (
    SAMPLE_FRAMES,
    Resolved,
    needs_first_frames,
    needs_to_be_looked_at,
    resolve_by_looking,
    resolve_video,
)
from instantvir_models.run.restoration import doubts_of, log_notices
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import WHOLE_CLIP, Solver, block_size
from instantvir_models.students.fitting import Notice
from instantvir_models.tasks import TaskOptions, parse_tasks

logger = logging.getLogger(__name__)

LOOKED_AT_FRAMES = 24
"""The first frames of a stream of which nothing is told, which wait until they were looked at."""


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
    fields: str = "none",
    same_rate: bool = False,
    rules: InputRules = USUAL_RULES,
) -> SourceSettings:
    """What to open, with FFmpeg's names for cameras and raw frames.

    Args:
        source: `-`, a camera (its number or device), an address or a file.
        input_format: FFmpeg's name of the format or device, where it does not follow.
        size: WIDTHxHEIGHT of raw frames or a camera.
        pix_fmt, fps: of raw frames or a camera.
        silence, follow: seconds; see `SourceSettings`.
        fields, same_rate: as `FieldChoice` takes them.
        rules: how far it may reach.

    Raises:
        UsageError: if they do not go together.
    """
    for flag, value, what in (
        ("--follow", follow, "a number of seconds above 0"),
        ("--silence", silence, "a number of seconds above 0"),
        ("--fps", fps, "a number above 0"),
    ):
        if value is not None and not 0 < value < math.inf:
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
        fields=FieldChoice(fields=fields, each_field=not same_rate),
        rules=rules,
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


def overload_of(name: str) -> Overload:
    """The policy called `name`; UsageError if there is none."""
    if name not in list(Overload):
        raise UsageError(f"`--on-overload` is `{name}`", hint=f"use {', '.join(Overload)}")
    return Overload(name)


def new_stream(
    plan: StreamPlan, solver: OpenedSolver, *, prompt: str | None, on_event: Callable[[str], None]
) -> LiveStream:
    """The stream of a plan, not yet started: everything on, told the prompt of its solver.

    Raises:
        UsageError: if the solver has to see the whole clip, or was not made for such blocks.
    """
    frames_per_block = block_size(solver.solver, plan.limits.frames_per_block)
    if frames_per_block == WHOLE_CLIP:
        raise UsageError(
            f"`{solver.name}` has to see the whole clip, and a stream has no end",
            hint="give `--latency`, such as 8 frames, or restore a file",
        )
    settings = LiveSettings(overload=plan.overload, frames_per_block=frames_per_block)
    controls = new_controls(solver, prompt, sharpness=plan.wanted.sharpness)
    return LiveStream(plan.source, settings, controls=controls, on_event=on_event)


def new_controls(opened: OpenedSolver, prompt: str | None, *, sharpness: float) -> Controls:
    """Everything on, the prompt that the solver was opened with, and this sharpness."""
    text, can_sharpen = opened.solver.needs.text, opened.solver.can_be_sharpened
    if text is None:
        return Controls(ControlSettings(sharpness=sharpness), can_sharpen=can_sharpen)
    read = partial(read_prompt, text_dim=text.text_dim, text_len=text.text_len)
    settings = ControlSettings(prompt=prompt, sharpness=sharpness)
    return Controls(settings, read_prompt=read, can_sharpen=can_sharpen)


def resolve_stream(plan: StreamPlan, stream: LiveStream) -> Resolved:
    """The degradation of a stream that was started; looks at its first frames only if it has to. With nothing
    told it is what they show that is sure to be undone well, for as long as the stream lasts."""
    assert stream.source is not None
    reader, rules = stream.source.reader, plan.source.rules
    is_lossy = not reader.info.is_lossless
    if needs_to_be_looked_at(plan.name, plan.wanted, rules):
        samples = _two_places(_first_frames(stream, LOOKED_AT_FRAMES))
        return resolve_by_looking(plan.name, samples, is_lossy=is_lossy, fields=reader.fields)
    sample = None
    if needs_first_frames(plan.name, plan.wanted, is_lossy=is_lossy, rules=rules):
        sample = Sample.of(_first_frames(stream, SAMPLE_FRAMES))
    resolved = resolve_video(plan.name, plan.wanted, sample=sample, is_lossy=is_lossy, rules=rules)
    _refuse_masks_that_cannot_come(plan, resolved.degradation)
    return resolved


def _first_frames(stream: LiveStream, count: int) -> list[Frame]:
    frames = stream.sample(count)
    if not frames:
        raise VideoOpenError("no frame came before the stream was stopped")
    return frames


def _two_places(frames: Sequence[Frame]) -> list[Sample]:
    """The first and the last of some frames, which are looked at as two places of a file are; one place
    where there are few."""
    starts = (0, len(frames) - FRAMES_PER_PLACE) if len(frames) >= 2 * FRAMES_PER_PLACE else (0,)
    return [Sample.of(frames[start : start + FRAMES_PER_PLACE]) for start in starts]


def _refuse_masks_that_cannot_come(plan: StreamPlan, degradation: Degradation) -> None:
    """Masks in a file belong to certain frames: a source that loses some has no such frames."""
    for part in degradation.operator.parts:
        if isinstance(part, MaskFile) and plan.source.cannot_wait:
            raise UsageError(
                f"the frames of `{plan.name}` have no numbers, so the masks of `{part.path}` "
                "belong to none of them",
                hint="give one image as the mask, or a pipe or a file as the source",
            )


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
    """What came of restoring a started stream until it ends, and its outputs, which have ended too. Where
    there is nothing to do the restoration is switched off, as `Controls` does it.

    Args:
        on_event: called with a sentence when something happens to an output, from any thread.
        on_notices: called when a session is made, with what a person is to be told about it.
        on_size: called once, with the height and width of the restored frames.
        on_pair: called with each measured frame and what is shown of it.
    """
    outputs: list[LiveOutput] = []
    if resolved.is_nothing_to_do:
        stream.controls.change(is_on=False)

    def new_session(height: int, width: int) -> Session:
        made = solver.new_session(
            resolved.degradation,
            height=height,
            width=width,
            limits=plan.limits,
            keep_detail=resolved.keep_detail,
            follow=resolved.follow,
            sharpness=plan.wanted.sharpness,
        )
        on_notices(made.notices)
        return made.session

    def open_outputs(height: int, width: int) -> list[LiveOutput]:
        on_size(height, width)
        outputs.extend(new_outputs(plan.outputs, stream, height, width, on_event))
        return outputs

    assert stream.source is not None
    info = stream.source.reader.info
    fit = MasksFor(
        size=(info.width, info.height), frame_rate=info.frame_rate, rules=plan.source.rules
    )
    with masks_along(resolved.degradation.operator, fit) as masks:
        return stream.run(new_session, open_outputs, on_pair=on_pair, masks=masks), outputs


def raise_failures(stream: LiveStream, outputs: Iterable[LiveOutput]) -> None:
    """Raise what ended an output before its time, or that no frame ever came."""
    for output in outputs:
        if output.failure is not None and not is_consumer_gone(output):
            raise output.failure
    assert stream.source is not None
    if not stream.source.loss and stream.counters.count("in") == 0:
        raise VideoOpenError("no frame came before the stream was stopped")


def stream(
    source: str,
    outputs: str | Path | Sequence[str | Path],
    *,
    task: str | Sequence[str] = (),
    operator: str | Degradation | None = None,
    blur_sigma: float | None = None,
    noise: float | None = None,
    scale: int | None = None,
    mask: str | Path | None = None,
    dust: bool = False,
    sharpness: float = 0.0,
    model: str = EMBEDDED,
    solver: str | Solver[Any] | None = None,
    device: str = "auto",
    prompt: str | None = None,
    vram: float | None = None,
    tile: int | None = None,
    latency: int | None = None,
    on_overload: str | None = None,
    reconnect: bool = False,
    silence: float | None = None,
    follow: float | None = None,
    input_format: str | None = None,
    input_options: Mapping[str, str] | None = None,
    size: str | None = None,
    input_pix_fmt: str | None = None,
    fps: float | None = None,
    fields: str = "none",
    same_rate: bool = False,
    follow_references: bool = False,
    max_pixels: int = MOST_PIXELS,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    output_format: str | None = None,
    overwrite: bool = False,
    next_file: float | None = None,
    on_pair: Callable[[Frame, Frame], None] | None = None,
    on_event: Callable[[str], None] | None = None,
) -> LiveStatus:
    """What came of a live source when it has ended: `instantvir stream` as a call.

    Args:
        source: `-`, a camera (its number or device), an address or a file.
        outputs: one or several of `-`, a file, an address or `camera:`; an empty list only shows
            frames to `on_pair`.
        task, operator, blur_sigma, noise, scale, mask, sharpness, model, solver, device, prompt, vram, tile, latency:
            as `restore` takes them; with nothing told, what the first frames show is mended where that is
            sure to help, and else nothing is changed.
        dust: whether dust and scratches are found and filled, too, or alone; each frame waits for the
            next.
        on_overload: `drop`, `skip`, `degrade` or `block`; None drops frames of cameras and networks
            and lets pipes and files wait.
        reconnect: whether a lost camera or address is opened again.
        silence: seconds that a network may say nothing; 20 if not given.
        follow: the file is growing; it ends after so many still seconds.
        input_format, input_options: FFmpeg's names.
        size, input_pix_fmt, fps: of raw frames or a camera; `size` is WIDTHxHEIGHT.
        fields: of an interlaced source, which comes first: `top`, `bottom` or `telecine`; `auto`
            waits for 24 pictures and finds out; `none` takes pictures as they are.
        same_rate: one frame for two fields, instead of one for each at twice the rate.
        follow_references, max_pixels: as `restore` takes them.
        codec, crf, preset, pix_fmt, output_format: of the outputs, as the command names them.
        overwrite: whether files that exist may be replaced.
        next_file: after a pause of so many seconds a file goes on in the next one, `live.2.mkv`;
            None leaves the pause in the file.
        on_pair: called in this thread with each measured frame and what is shown of it; what it
            raises ends the stream.
        on_event: called from any thread with a sentence when something happens; None logs it.

    Raises:
        InstantVIRError: a sentence and a hint, as `restore` does; also of an output that was lost.
    """
    settings = source_settings(
        source,
        input_format=input_format,
        input_options=input_options,
        size=size,
        pix_fmt=input_pix_fmt,
        fps=fps,
        reconnect=reconnect,
        silence=silence,
        follow=follow,
        fields=fields,
        same_rate=same_rate,
        rules=InputRules(follow_references=follow_references, max_pixels=max_pixels),
    )
    destinations = (outputs,) if isinstance(outputs, str | Path) else outputs
    plan = StreamPlan(
        name=source,
        source=settings,
        outputs=OutputPlan(
            destinations=tuple(str(destination) for destination in destinations),
            encoder=EncoderSettings(
                codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt, low_latency=True
            ),
            output_format=output_format,
            fps=fps,
            reconnect=reconnect,
            silence_seconds=settings.silence_seconds,
            overwrite=overwrite,
            next_file_seconds=next_file,
        ),
        wanted=TaskOptions(
            tasks=parse_tasks((task,) if isinstance(task, str) else task),
            operator=operator,
            blur_sigma=blur_sigma,
            noise_levels=noise,
            scale=scale,
            mask=None if mask is None else Path(mask),
            dust=dust,
            sharpness=sharpness,
        ),
        limits=SessionLimits(gigabytes=vram, tile_pixels=tile, frames_per_block=latency),
        on_overload=None if on_overload is None else overload_of(on_overload),
    )
    opened = open_chosen(model=model, solver=solver, device=device, prompt=prompt)
    log_notices(opened.notices)
    tell = on_event or logger.warning
    with closing(new_stream(plan, opened, prompt=prompt, on_event=tell)) as live:
        live.start()
        resolved = resolve_stream(plan, live)
        log_notices(doubts_of(opened, resolved.degradation))
        status, live_outputs = restore_stream(
            plan,
            live,
            opened,
            resolved,
            on_event=tell,
            on_notices=log_notices,
            on_size=lambda height, width: None,
            on_pair=on_pair or (lambda measured, restored: None),
        )
    raise_failures(live, live_outputs)
    return status
