"""The `instantvir` command: one verb per file, one place where errors become exit statuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from instantvir_cli import __version__
from instantvir_cli.exit_status import STATUS_OF, STATUS_OF_SIGNAL, ExitStatus
from instantvir_cli.groups import Verb, takes_groups
from instantvir_cli.options import (
    RECIPES,
    BatchOptions,
    ComparisonOptions,
    ConversionOptions,
    DegradationOptions,
    EncodingOptions,
    FarmOptions,
    FieldOptions,
    FileDegradationOptions,
    JsonOption,
    LiveEncodingOptions,
    LiveSourceOptions,
    MeasuringOptions,
    ModelOptions,
    OverwriteOption,
    QuietOption,
    ServingOptions,
    SourceOptions,
    SuiteOptions,
    SweptModelOptions,
    completed,
    refuse_given,
)
from instantvir_cli.shortage import shortage_behind
from instantvir_cli.signals import ended_by_signals
from instantvir_cli.standard_streams import occupy_closed
from instantvir_models.errors import InstantVIRError, UsageError


def let_threads_sleep() -> None:
    """Before torch is loaded: its threads sleep while they wait for one another, instead of turning.

    On a machine that is busy otherwise the one that turns keeps the other from its work: a deblurred frame
    of 832x480 took five times as long beside two other programs, and on an idle one 7 to 10 % longer.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class Commands(TyperGroup):
    """Turns an expected error into a sentence, a hint and an exit status; lets bugs traceback."""

    def invoke(self, ctx: Any) -> Any:
        occupy_closed()
        let_threads_sleep()
        try:
            with ended_by_signals():
                return super().invoke(ctx)
        except InstantVIRError as error:
            from instantvir_cli.console import fail

            fail("; ".join((str(error), *notes_of(error))), error.hint)
            raise typer.Exit(STATUS_OF.get(type(error), ExitStatus.FAILURE)) from error
        except KeyboardInterrupt as error:
            from instantvir_cli.console import fail

            what = _INTERRUPTIONS.get(str(error), "interrupted")
            left = notes_of(error) or ("no unfinished file was left behind",)
            fail("; ".join((what, *left)), None)
            raise typer.Exit(STATUS_OF_SIGNAL.get(str(error), ExitStatus.INTERRUPTED)) from None
        except (MemoryError, ImportError, OSError, RuntimeError) as error:
            from instantvir_cli.console import fail

            shortage = shortage_behind(error)
            if shortage is None:
                raise
            fail(*shortage)
            raise typer.Exit(ExitStatus.FAILURE) from error


_INTERRUPTIONS = {"SIGTERM": "ended by SIGTERM", "SIGHUP": "ended by SIGHUP"}


def notes_of(error: BaseException) -> tuple[str, ...]:
    """What was added to an error on its way, such as what of the work is kept."""
    return tuple(getattr(error, "__notes__", ()))


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
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


@app.command(
    cls=Verb,
    short_help="Restore videos into files",
    epilog="""\
instantvir restore old.mp4
instantvir restore old.mp4 --dry-run --picture found.png
instantvir restore old.mp4 --task deblur
instantvir restore small.mkv --task sr --scale 2 --task denoise -o large.mkv
instantvir restore *.mp4 --task deblur -o restored/ --json
instantvir restore tapes/ --recursive -o restored/ --jobs 2
instantvir restore film.mp4 --dust --task denoise
instantvir restore tapes/*.mkv --task denoise -o /shared/restored/ --cluster auto
instantvir restore tapes/*.mkv --task denoise -o /shared/restored/ --shard 0/3
instantvir restore film.mkv --task denoise -o /shared/restored/ --cluster auto --split 5
ffmpeg -i in.mp4 -f nut - | instantvir restore - --task denoise -o - --format nut | ffplay -""",
)
@takes_groups
def restore(
    *,
    inputs: Annotated[
        list[str],
        typer.Argument(help="Videos, folders of videos, image patterns, or `-`", metavar="IN..."),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="File, folder (with `/`), image pattern or `-`"),
    ] = None,
    degradation: FileDegradationOptions,
    model: ModelOptions,
    part: FieldOptions,
    encoding: EncodingOptions,
    comparison: ComparisonOptions,
    batch: BatchOptions,
    farm: FarmOptions,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG of what was found: what changes, noise, the codec's blocks"),
    ] = None,
    json_summary: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Restore IN and write the result beside it (IN.restored.mp4) or to --output.

    Told nothing, it looks what is wrong, says it, and mends what is sure to get better.
    """
    from instantvir_cli import console
    from instantvir_cli.restore import RestoreRequest, restore_all  # torch loads here

    console.set_up(quiet=quiet)
    restore_all(
        RestoreRequest(
            inputs=tuple(inputs),
            output=output,
            degradation=degradation,
            model=model,
            part=part,
            encoding=encoding,
            comparison=comparison,
            farm=farm,
            may_overwrite=overwrite,
            is_dry_run=dry_run,
            picture=picture,
            as_json=json_summary,
            batch=batch,
            is_quiet=quiet,
        )
    )


@app.command(
    cls=Verb,
    short_help="Restore a live source while it runs",
    epilog="""\
instantvir stream /dev/video0 --task denoise --preview 8080
instantvir stream rtsp://camera/ --reconnect --task deblur -o out.mkv -o rtmp://server/live/key
ffmpeg -i rtsp://camera/ -f nut -c:v rawvideo - | instantvir stream --task denoise -o - | ffplay -""",
)
@takes_groups
def stream(
    *,
    source: Annotated[
        str, typer.Argument(help="`-`, a camera, an address or a file", metavar="[IN]")
    ] = "-",
    output: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", help="`-`, a file, an address or `camera:`; may repeat"),
    ] = None,
    degradation: DegradationOptions,
    model: ModelOptions,
    capture: LiveSourceOptions,
    encoding: LiveEncodingOptions,
    serving: ServingOptions,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Restore a live source while it runs: same frames as `restore`, with a bounded delay."""
    from instantvir_cli import console
    from instantvir_cli.stream import StreamRequest, run_stream  # torch loads here

    console.set_up(quiet=quiet)
    run_stream(
        StreamRequest(
            source=source,
            destinations=tuple(output or ()),
            degradation=degradation,
            model=model,
            capture=capture,
            encoding=encoding,
            serving=serving,
            may_overwrite=overwrite,
        )
    )


@app.command(
    cls=Verb,
    short_help="Change a running stream",
    epilog="""\
instantvir control live.sock strength 0.5
instantvir control live.sock prompt "a street at night\"""",
)
def control(
    path: Annotated[Path, typer.Argument(help="What `stream --control` made", metavar="SOCKET")],
    wish: Annotated[
        str,
        typer.Argument(
            help="on, off, strength, sharpness, prompt, snapshot or status",
            autocompletion=completed(
                ("on", "off", "strength", "sharpness", "prompt", "snapshot", "status")
            ),
        ),
    ],
    value: Annotated[
        str | None, typer.Argument(help="0 to 1, or what is seen (or a file of rows)")
    ] = None,
) -> None:
    """Change a running stream, and print what it then says as JSON."""
    from instantvir_cli.control import control_stream

    control_stream(path, wish, value)


@app.command(
    cls=Verb,
    short_help="Make test material of a clean video",
    epilog="instantvir degrade clean.mp4 -o y.mkv --operator blur:sigma=3+noise:std=5",
)
@takes_groups
def degrade(
    *,
    source: Annotated[str, typer.Argument(help="Clean video", metavar="IN")],
    output: Annotated[str, typer.Option("--output", "-o", help="Measurement (.mkv is lossless)")],
    operator: Annotated[str, typer.Option(help="Such as `blur:sigma=3+noise:std=5`")],
    seed: Annotated[int, typer.Option(help="Of the noise and of random masks")] = 0,
    part: SourceOptions,
    encoding: EncodingOptions,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a measurement y = A x + n of IN, with a note of A beside it that `restore` picks up."""
    from instantvir_cli import console
    from instantvir_cli.degrade import degrade_file

    console.set_up(quiet=quiet)
    degrade_file(
        source,
        output,
        operator=operator,
        seed=seed,
        part=part,
        encoding=encoding,
        may_overwrite=overwrite,
    )


@app.command(
    cls=Verb,
    short_help="Measure speed here, or compare systems",
    epilog="""\
instantvir benchmark --size 832x480
instantvir benchmark clip.mp4 --task sr --json
instantvir benchmark clip.mp4 --task sr --baseline before.json
instantvir benchmark --size 424x240,832x480 --threads 1,2 --report speed.html
instantvir benchmark --suite paper -o results
instantvir benchmark --suite real --clips mine/ --crop 320x176 -o results-real
instantvir benchmark --roofline""",
)
@takes_groups
def benchmark(
    *,
    clip: Annotated[
        str | None, typer.Argument(help="Video; generated if not given", metavar="[CLIP]")
    ] = None,
    measuring: MeasuringOptions,
    suite: SuiteOptions,
    model: SweptModelOptions,
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Predict the large student on cards; measure nothing"),
    ] = False,
    overwrite: OverwriteOption = False,
    json_summary: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure the whole command, decode to encode, or compare systems.

    FPS by stage, delay per block, memory, energy; what restores something else than it does in float32
    gets no speed. Values with commas between are measured one after the other.
    """
    if roofline:
        from instantvir_cli.roofline import run_roofline

        run_roofline(size=measuring.size, as_json=json_summary)
        return
    import logging

    from instantvir_cli import console

    console.set_up(quiet=quiet)
    logging.getLogger("instantvir_models.media").setLevel(
        logging.WARNING
    )  # its own files are no news
    if suite.suite is not None:
        refuse_given(measuring, "a suite", but=("report",))
        if clip is not None:
            raise UsageError("a suite takes no clip", hint="`--clips` takes a folder of them")
        from instantvir_cli.suite import run_suite_command

        run_suite_command(
            suite,
            *model.of_suite(),
            report=measuring.report,
            may_overwrite=overwrite,
            as_json=json_summary,
        )
        return
    refuse_given(suite, "a benchmark without `--suite`")
    from instantvir_cli.benchmark import run_benchmark

    run_benchmark(clip, measuring, model, may_overwrite=overwrite, as_json=json_summary)


@app.command(
    cls=Verb,
    short_help="Make a checkpoint of published weights",
    epilog="""\
instantvir convert model.pt -o deblur/ --task deblur
instantvir convert LeanVAE-dim16.ckpt -o deblur/
instantvir convert --prompt "a street at night" -o deblur/""",
)
@takes_groups
def convert(
    *,
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
    about: ConversionOptions,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a checkpoint folder of published weights: student, autoencoder, text encoder, prompt."""
    from instantvir_cli import console
    from instantvir_cli.convert import run_convert

    console.set_up(quiet=quiet)
    run_convert(source, output, about, overwrite=overwrite)


@app.command(
    cls=Verb,
    short_help="Say what a checkpoint is, and check it",
    epilog="instantvir info tiny\ninstantvir info deblur/ --json",
)
def info(
    model: Annotated[str, typer.Argument(help="Anything `--model` takes", metavar="MODEL")],
    json_summary: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a checkpoint is, and check its files against their digests."""
    from instantvir_cli import console
    from instantvir_cli.info import show_info

    console.set_up(quiet=quiet)
    show_info(model, as_json=json_summary)


@app.command(
    cls=Verb,
    short_help="Make a trained student ready for the Hub",
    epilog="instantvir export runs/mine -o mine/ --push me/mine",
)
def export(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or a student's file or folder", metavar="SRC"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make")],
    push: Annotated[
        str | None, typer.Option(help="ORG/REPO on the Hub to upload it to", metavar="REPO")
    ] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a student that was trained ready for the Hub: weights, configuration, card."""
    from instantvir_cli import console
    from instantvir_cli.export import export_student

    console.set_up(quiet=quiet)
    export_student(source, output, push=push, overwrite=overwrite)


@app.command(
    cls=Verb,
    short_help="Train a student by a recipe",
    epilog="""\
instantvir distill --recipe refine --clips mine/ -o runs/mine
instantvir distill --measurements bad/ --operator blur:sigma=2+noise:std=5 -o runs/bad""",
)
def distill(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; continued if it exists")
    ],
    clips: Annotated[
        Path | None,
        typer.Option(help="Folder of clean videos, a list of them (.txt) or a shard (.tar)"),
    ] = None,
    measurements: Annotated[
        Path | None,
        typer.Option(help="Folder of measured videos, where no clean one exists; needs --operator"),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(help="What happened to the measurements: `blur:sigma=3+noise:std=5`"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="If you name none: with --clips `refine`, the student in the package, trained on; with "
            "--measurements `adapt`. Of that student, too, `enlarge` (its branch for x4), `calibrate`, "
            "`sharpen`. From random weights `tiny` (`tiny-card` on a card), and `tiny-by-task` (without a "
            "clean frame in the loss); `tiny-teacher`, what teaches it; `wan-1.3b-lean`, the paper's",
            autocompletion=completed(RECIPES),
            show_default=False,
        ),
    ] = None,
    initial_weights: Annotated[
        str | None, typer.Option("--init", help="Student to start from, as --model names it")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of sharp .jpg photos, seen by a moving camera")
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            help="Where what the teacher makes of examples is kept, if they come again (`--set epoch_steps`): "
            "a folder that several runs may share; OUTPUT/targets",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes of one thread each; of most recipes 2, under `torchrun` as many as it starts"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another value of a setting, such as `phases.0.steps=500`; may repeat. OUTPUT/config.json "
            "has them all",
        ),
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say how large it would be, and stop")
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Keep losses for TensorBoard, in OUTPUT/tensorboard"),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train a student by a recipe; run it again after a stop and it continues."""
    from instantvir_cli import console
    from instantvir_cli.distill import distill_recipe

    console.set_up(quiet=quiet)
    distill_recipe(
        recipe,
        clips=clips,
        measurements=measurements,
        operator=operator,
        photos=photos,
        targets=targets,
        folder=output,
        initial_weights=initial_weights,
        workers=workers,
        settings=settings or (),
        only_plan=only_plan,
        tensorboard=tensorboard,
    )
