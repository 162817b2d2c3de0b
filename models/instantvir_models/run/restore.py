"""One video restored into a file by one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instantvir_models.checkpoints.load import EMBEDDED
from instantvir_models.errors import UsageError
from instantvir_models.media import EncoderSettings, InputRules
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.reach import MOST_PIXELS
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.opening import SessionLimits, open_chosen
from instantvir_models.run.plan import RestorePlan, planned_jobs
from instantvir_models.run.restoration import log_notices, prepared
from instantvir_models.run.restore_report import OnProgress, RestoreReport
from instantvir_models.solvers.base import Solver
from instantvir_models.tasks import TaskOptions, parse_tasks


def restore(
    source: str | Path,
    destination: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    operator: str | Degradation | None = None,
    blur_sigma: float | None = None,
    noise: float | None = None,
    scale: int | None = None,
    mask: str | Path | None = None,
    dust: bool = False,
    keep_detail: float | None = None,
    sharpness: float = 0.0,
    model: str = EMBEDDED,
    solver: str | Solver[Any] | None = None,
    device: str = "auto",
    prompt: str | None = None,
    vram: float | None = None,
    tile: int | None = None,
    latency: int | None = None,
    start: float | None = None,
    duration: float | None = None,
    fields: str = "auto",
    same_rate: bool = False,
    follow_references: bool = False,
    max_pixels: int = MOST_PIXELS,
    sandbox: bool = False,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    output_format: str | None = None,
    reference: str | Path | None = None,
    compare_style: str | None = None,
    report: str | Path | None = None,
    uncertainty: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> RestoreReport:
    """What came of restoring one video into a file: `instantvir restore` as a call.

    Args:
        source: a video, an image pattern such as `in_%04d.png`, or `-` for standard input.
        destination: a file, a folder (with `/`), an image pattern or `-`; None writes
            `IN.restored.mp4` beside the input.
        task: `denoise`, `deblur`, `sr`, `inpaint`, or several of them; with nothing told at all, what
            `diagnose` finds is mended where that is sure to help.
        operator: what happened to the video, exactly: `blur:sigma=3+noise:std=5`, or a
            `Degradation` with an operator of your own.
        blur_sigma: pixels; estimated if not given.
        noise: 8-bit levels; estimated if not given.
        scale: enlargement for `sr`, 2 to 8; 4 if not given.
        mask: an image, or a video or folder of images with one for each frame, white where pixels are
            known; estimated if not given.
        dust: whether dust and scratches are found and filled, too, or alone.
        keep_detail: part of the fine contrast that stays everywhere, 0 to 1, so that faint texture is
            not smoothed; found where nothing is told, else 0.
        sharpness: part of the fine contrast, that the student's expected error says is missing, to be given
            back, 0 to 1.5; 0 is the least error.
        model: what `load_student` takes.
        solver: a method without weights instead, by its name, or one of your own.
        device: `auto`, `cpu` or `cuda`.
        prompt: what is seen, for a student that reads text; or a file of precomputed rows.
        vram: gigabytes a full-size student may take; None takes what is free on the card.
        tile: side of the tiles in pixels, a multiple of 64; 0 never tiles.
        latency: frames per block.
        start, duration: seconds of the input to skip and to take.
        fields: of an interlaced video, which comes first: `top`, `bottom`, `telecine` (film at 3:2),
            `none` for whole pictures; `auto` finds out.
        same_rate: one frame for two fields, instead of one for each at twice the rate.
        follow_references: whether files and addresses that the input names are opened, too.
        max_pixels: of the largest picture that is decoded or made.
        sandbox: whether a process of its own decodes the input, which can reach nothing else.
        codec, crf, preset, pix_fmt, output_format: of the output, as the command names them.
        reference: the clean video, to measure the gain against.
        compare_style: `side` or `wipe` also writes a comparison beside the output.
        report: where a page goes that shows it: a wipe, what was found, how long it took.
        uncertainty: where a grey video goes that shows how far each pixel is expected to be off, ten
            grey levels for each 8-bit level.
        overwrite: whether files that exist may be replaced.
        resume: whether what was begun has to be gone on with; else it is where this is the same call.
        on_progress: called after every frame; what it raises ends the run and leaves no file.

    Raises:
        InstantVIRError: a sentence and a hint, of the kind that says what is wrong: `UsageError`,
            `VideoOpenError`, `VideoWriteError`, `CheckpointError`, `DeviceMemoryError`.
    """
    plan = RestorePlan(
        wanted=TaskOptions(
            tasks=parse_tasks((task,) if isinstance(task, str) else task),
            operator=operator,
            blur_sigma=blur_sigma,
            noise_levels=noise,
            scale=scale,
            mask=None if mask is None else Path(mask),
            dust=dust,
            keep_detail=keep_detail,
            sharpness=sharpness,
        ),
        limits=SessionLimits(gigabytes=vram, tile_pixels=tile, frames_per_block=latency),
        start_seconds=start,
        duration_seconds=duration,
        fields=FieldChoice(fields=fields, each_field=not same_rate),
        rules=InputRules(
            follow_references=follow_references, max_pixels=max_pixels, sandbox=sandbox
        ),
        encoder=EncoderSettings(codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt),
        output_format=output_format,
        reference=None if reference is None else Path(reference),
        comparison_style=compare_style,
        must_go_on=resume,
        page=None if report is None else Path(report),
        errors=None if uncertainty is None else Path(uncertainty),
    )
    jobs = planned_jobs(
        [str(source)], None if destination is None else str(destination), plan, overwrite=overwrite
    )
    if len(jobs) > 1:
        raise UsageError(f"`{source}` are {len(jobs)} videos", hint="restore them one by one")
    opened = open_chosen(model=model, solver=solver, device=device, prompt=prompt)
    with prepared(jobs[0], plan, opened) as restoration:
        log_notices((*opened.notices, *restoration.notices))
        return restoration.run(on_progress)
