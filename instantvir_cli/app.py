"""The `instantvir` command: one verb per file, one place where errors become exit statuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from instantvir_cli import __version__
from instantvir_cli.exit_status import STATUS_OF, ExitStatus
from instantvir_cli.options import (
    BlurSigmaOption,
    CodecOption,
    CrfOption,
    DeviceOption,
    JsonOption,
    LatencyOption,
    MaskOption,
    ModelOption,
    NoiseOption,
    OperatorOption,
    OverwriteOption,
    PresetOption,
    PromptOption,
    QuietOption,
    ScaleOption,
    StartOption,
    TaskOption,
    ThreadsOption,
    TileOption,
    VramOption,
)
from instantvir_models.errors import InstantVIRError

if TYPE_CHECKING:
    from instantvir_models.tasks import TaskOptions


class Commands(TyperGroup):
    """Turns an expected error into a sentence, a hint and an exit status; lets bugs traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InstantVIRError as error:
            from instantvir_cli.console import fail

            fail(str(error), error.hint)
            raise typer.Exit(STATUS_OF.get(type(error), ExitStatus.FAILURE)) from error
        except KeyboardInterrupt:
            from instantvir_cli.console import fail

            fail("interrupted; no unfinished file was left behind", None)
            raise typer.Exit(ExitStatus.INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    help="Restore degraded video in one causal pass: deblur, super-resolve, inpaint, denoise.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"instantvir {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    pass


def _task_options(
    operator: str | None,
    blur_sigma: float | None,
    noise: float | None,
    scale: int | None,
    mask: Path | None,
) -> TaskOptions:
    """What `restore` and `stream` ask about the degradation, as the library takes it."""
    from instantvir_models.tasks import TaskOptions

    return TaskOptions(
        operator=operator, blur_sigma=blur_sigma, noise_levels=noise, scale=scale, mask=mask
    )


@app.command()
def restore(
    inputs: Annotated[
        list[str], typer.Argument(help="Videos, image patterns, or `-`", metavar="IN...")
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File, folder (with `/`), image pattern or `-`"),
    ] = None,
    task: TaskOption = None,
    operator: OperatorOption = None,
    blur_sigma: BlurSigmaOption = None,
    noise: NoiseOption = None,
    scale: ScaleOption = None,
    mask: MaskOption = None,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    prompt: PromptOption = None,
    vram: VramOption = None,
    tile: TileOption = None,
    latency: LatencyOption = None,
    threads: ThreadsOption = None,
    codec: CodecOption = None,
    crf: CrfOption = None,
    preset: PresetOption = None,
    pix_fmt: Annotated[str | None, typer.Option(help="Pixel format of the output")] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="Container, for `-o -` (such as nut or matroska)")
    ] = None,
    start: StartOption = None,
    duration: Annotated[float | None, typer.Option(help="Seconds to restore")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The clean video, to report the gain in dB")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write OUT.compare.mp4 and OUT.compare.png")
    ] = False,
    compare_style: Annotated[str, typer.Option(help="side or wipe")] = "side",
    overwrite: OverwriteOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing")
    ] = False,
    json_summary: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Restore IN and write the result beside it (IN.restored.mp4) or to --output."""
    from instantvir_cli.restore import RestoreRequest, restore_all  # torch loads here

    restore_all(
        RestoreRequest(
            inputs=tuple(inputs), output=output, tasks=tuple(task or ()),
            task_options=_task_options(operator, blur_sigma, noise, scale, mask),
            model=model, device=device,
            prompt=prompt, vram=vram, tile=tile, latency=latency, threads=threads, codec=codec,
            crf=crf, preset=preset, pix_fmt=pix_fmt, output_format=output_format, start=start,
            duration=duration, reference=reference, compare=compare, compare_style=compare_style,
            overwrite=overwrite, dry_run=dry_run, json_summary=json_summary, quiet=quiet,
        )
    )  # fmt: skip


@app.command()
def stream(
    source: Annotated[
        str, typer.Argument(help="`-`, a camera, an address or a file", metavar="[IN]")
    ] = "-",
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="`-`, a file, an address or `camera:`; may repeat"),
    ] = None,
    task: TaskOption = None,
    operator: OperatorOption = None,
    blur_sigma: BlurSigmaOption = None,
    noise: NoiseOption = None,
    scale: ScaleOption = None,
    mask: MaskOption = None,
    latency: LatencyOption = None,
    on_overload: Annotated[
        str | None,
        typer.Option(help="drop, skip, degrade or block; cameras and networks drop, pipes block"),
    ] = None,
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Open a lost camera or address again")
    ] = False,
    silence: Annotated[
        float | None,
        typer.Option(help="Seconds a network may say nothing before it counts as lost; usually 20"),
    ] = None,
    follow: Annotated[
        float | None, typer.Option(help="The file is growing; it ends after so many still seconds")
    ] = None,
    input_format: Annotated[
        str | None, typer.Option(help="FFmpeg's name of the input format or device")
    ] = None,
    input_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for FFmpeg, such as rtsp_transport=tcp; may repeat"),
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of raw input or camera")] = None,
    pix_fmt: Annotated[str | None, typer.Option(help="Pixel format of raw input")] = None,
    fps: Annotated[float | None, typer.Option(help="Frame rate of raw input or camera")] = None,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    prompt: PromptOption = None,
    vram: VramOption = None,
    tile: TileOption = None,
    threads: ThreadsOption = None,
    codec: CodecOption = None,
    crf: CrfOption = None,
    preset: PresetOption = None,
    output_pix_fmt: Annotated[str | None, typer.Option(help="Pixel format of the output")] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="Container of `-o -` and addresses")
    ] = None,
    overwrite: OverwriteOption = False,
    preview: Annotated[
        str | None, typer.Option(help="[HOST:]PORT of a page with a wipe, numbers and controls")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Secret of the page and the metrics; made where others can reach them"),
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="Socket to make, for `instantvir control` and scripts")
    ] = None,
    snapshots: Annotated[Path, typer.Option(help="Folder for pairs of pictures kept")] = Path(),
    metrics: Annotated[
        str | None, typer.Option(help="[HOST:]PORT for Prometheus (needs instantvir[live])")
    ] = None,
    json_lines: Annotated[
        Path | None, typer.Option(help="File that gets the status, once a second")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Restore a live source while it runs: same frames as `restore`, with a bounded delay."""
    from instantvir_cli.stream import StreamRequest, run_stream  # torch loads here

    run_stream(
        StreamRequest(
            source=source, outputs=tuple(outputs or ()), tasks=tuple(task or ()),
            task_options=_task_options(operator, blur_sigma, noise, scale, mask),
            latency=latency, on_overload=on_overload, reconnect=reconnect, silence=silence,
            follow=follow,
            input_format=input_format, input_options=tuple(input_option or ()), size=size,
            pix_fmt=pix_fmt, fps=fps, model=model, device=device, prompt=prompt, vram=vram,
            tile=tile, threads=threads, codec=codec, crf=crf, preset=preset,
            output_pix_fmt=output_pix_fmt, output_format=output_format, overwrite=overwrite,
            preview=preview, token=token, control=control, snapshots=snapshots, metrics=metrics,
            json_lines=json_lines, quiet=quiet,
        )
    )  # fmt: skip


@app.command()
def control(
    path: Annotated[Path, typer.Argument(help="What `stream --control` made", metavar="SOCKET")],
    wish: Annotated[str, typer.Argument(help="on, off, strength, prompt, snapshot or status")],
    value: Annotated[
        str | None, typer.Argument(help="0 to 1, or what is seen (or a file of rows)")
    ] = None,
) -> None:
    """Change a running stream, and print what it then says as JSON."""
    from instantvir_cli.control import control_stream

    control_stream(path, wish, value)


@app.command()
def degrade(
    source: Annotated[str, typer.Argument(help="Clean video", metavar="IN")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Measurement (.mkv is lossless)")],
    operator: Annotated[str, typer.Option(help="Such as `blur:sigma=3+noise:std=5`")],
    seed: Annotated[int, typer.Option(help="Of the noise and of random masks")] = 0,
    codec: CodecOption = None,
    crf: Annotated[int | None, typer.Option(help="Quality, for lossy codecs")] = None,
    start: StartOption = None,
    duration: Annotated[float | None, typer.Option(help="Seconds to degrade")] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a measurement y = A x + n of IN, with a note of A beside it that `restore` picks up."""
    from instantvir_cli.degrade import degrade_file

    degrade_file(
        source, output, spec=operator, seed=seed, codec=codec, crf=crf, start=start,
        duration=duration, overwrite=overwrite, quiet=quiet,
    )  # fmt: skip


@app.command()
def benchmark(
    clip: Annotated[
        str | None, typer.Argument(help="Video; generated if not given", metavar="[CLIP]")
    ] = None,
    task: Annotated[str, typer.Option(help="deblur, sr, inpaint or denoise")] = "deblur",
    size: Annotated[str, typer.Option(help="Of the generated clip: WIDTHxHEIGHT")] = "832x480",
    frames: Annotated[int, typer.Option(help="Frames of the generated clip")] = 48,
    repeats: Annotated[int, typer.Option(help="Counted runs")] = 3,
    warmup: Annotated[int, typer.Option(help="Runs before them")] = 1,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16")] = "auto",
    threads: ThreadsOption = None,
    vram: VramOption = None,
    tile: TileOption = None,
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Predict the large student on cards; measure nothing"),
    ] = False,
    json_summary: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the whole command, decode to encode: FPS by stage, delay per block, memory."""
    if roofline:
        from instantvir_cli.roofline import run_roofline

        run_roofline(size=size, as_json=json_summary)
        return
    from instantvir_cli.benchmark import BenchmarkRequest, run_benchmark

    run_benchmark(
        BenchmarkRequest(
            clip=clip, task=task, size=size, frames=frames, repeats=repeats, warmup=warmup,
            model=model, device=device, dtype=dtype, threads=threads, vram=vram, tile=tile,
            json_summary=json_summary, quiet=quiet,
        )
    )  # fmt: skip


@app.command()
def convert(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Checkpoint folder, parts are added to it; or ROWS.safetensors"
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Argument(help="model.pt, .ckpt, .pth, .safetensors or a folder", metavar="[SRC]"),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Words, or a file of rows, the student reads unless told otherwise"),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What the student was trained for: deblur, sr, ...")
    ] = None,
    operators: Annotated[
        str | None, typer.Option(help="Degradations seen in training, such as `blur:sigma=3`")
    ] = None,
    average: Annotated[
        bool, typer.Option("--average", help="Take the averaged weights (generator_ema)")
    ] = False,
    dtype: Annotated[str, typer.Option(help="keep, float32, bfloat16 or float16")] = "keep",
    quiet: QuietOption = False,
) -> None:
    """Make a checkpoint folder of published weights: student, autoencoder, text encoder, prompt."""
    from instantvir_cli.convert import ConvertRequest, run_convert

    run_convert(
        ConvertRequest(
            source=source, output=output, prompt=prompt, task=task, operators=operators,
            use_average=average, dtype=dtype, quiet=quiet,
        )
    )  # fmt: skip


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Anything `--model` takes", metavar="MODEL")],
    json_summary: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a checkpoint is, and check its files against their digests."""
    from instantvir_cli.info import show_info

    show_info(model, json_summary=json_summary, quiet=quiet)


@app.command()
def distill(
    clips: Annotated[Path, typer.Option(help="Folder of clean .mp4 clips")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; continued if it exists")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="`tiny` (from scratch), `refine` (trains a student on) or `enlarge` (its branch for x4)"
        ),
    ] = "tiny",
    initial_weights: Annotated[
        str | None, typer.Option("--init", help="Student to start from, as `--model` names it")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of sharp .jpg photos, seen by a moving camera")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of one thread each")] = None,
    quiet: QuietOption = False,
) -> None:
    """Train a student by a recipe; run it again after a stop and it continues."""
    from instantvir_cli.distill import distill_recipe

    distill_recipe(
        recipe, clips=clips, photos=photos, folder=output, initial_weights=initial_weights,
        workers=workers, quiet=quiet,
    )  # fmt: skip
