"""Options that several verbs share, in groups: one spelling, one help text.

Only what `--help` may cost is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from instantvir_models.solvers.registry import METHODS
from instantvir_models.tasks import TASKS, TaskOptions, either, parse_tasks

if TYPE_CHECKING:
    import torch

    from instantvir_models.media import EncoderSettings, InputRules
    from instantvir_models.media.fields import FieldChoice
    from instantvir_models.run.opening import OpenedSolver, SessionLimits

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
MODELS = ("tiny", "wan-lean", "wan")
STYLES = ("side", "wipe")
FIELDS = ("auto", "none", "top", "bottom", "telecine")
CODECS = ("h264", "hevc", "av1", "vp9", "prores", "ffv1")
OVERLOADS = ("drop", "skip", "degrade", "block")
RECIPES = (
    "tiny", "tiny-card", "enlarge-card", "refine", "enlarge", "calibrate", "tiny-teacher",
    "tiny-self-supervised", "tiny-amortised", "tiny-by-task", "tiny-posterior", "sharpen", "adapt",
    "wan-1.3b-lean", "wan-1.3b",
)  # fmt: skip


def completed(names: tuple[str, ...]) -> Callable[[str], Iterator[str]]:
    """What a shell asks for the values of an option that start with what was typed."""

    def values(incomplete: str) -> Iterator[str]:
        return (name for name in names if name.startswith(incomplete))

    return values


def completed_tasks(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of tasks that start so, each with what it is."""
    return ((task.name, task.about) for task in TASKS.values() if task.name.startswith(incomplete))


QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print a summary as JSON on standard output")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing output")]


@dataclass(frozen=True, kw_only=True)
class DegradationOptions:
    """What happened to the video."""

    PANEL: ClassVar = "Degradation"

    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", help=f"{either([*TASKS])}; may repeat", autocompletion=completed_tasks
        ),
    ] = None
    operator: Annotated[
        str | None,
        typer.Option(help="What happened to the video, exactly: `blur:sigma=3+noise:std=5`"),
    ] = None
    blur_sigma: Annotated[
        float | None, typer.Option(help="Blur in pixels; estimated if not given")
    ] = None
    noise: Annotated[
        float | None, typer.Option(help="Noise in levels of 255; estimated if not given")
    ] = None
    scale: Annotated[int | None, typer.Option(help="Enlargement for `sr`, 2 to 8 (default 4)")] = (
        None
    )
    mask: Annotated[
        Path | None,
        typer.Option(
            help="White where pixels are known: an image, or a video or folder with one per frame"
        ),
    ] = None
    dust: Annotated[
        bool,
        typer.Option(
            "--dust",
            help="Fill dust and scratches of film, found in each frame; noise goes, too, but for --noise 0",
        ),
    ] = False

    sharpness: Annotated[
        float,
        typer.Option(
            help="Part of the fine contrast that is known to be missing to give back, 0 to 1.5; 0 is nearest "
            "to the truth, 0.5 looks crisper for a tenth of a dB"
        ),
    ] = 0.0

    def read(self) -> TaskOptions:
        """The same as the library takes it; UsageError for an unknown task or a bad number."""
        return TaskOptions(
            tasks=parse_tasks(self.task or ()),
            operator=self.operator,
            blur_sigma=self.blur_sigma,
            noise_levels=self.noise,
            scale=self.scale,
            mask=self.mask,
            dust=self.dust,
            sharpness=self.sharpness,
        )


@dataclass(frozen=True, kw_only=True)
class FileDegradationOptions(DegradationOptions):
    """The same, and what a stream does not take."""

    keep_detail: Annotated[
        float | None,
        typer.Option(
            help="Part of the fine contrast that stays everywhere, 0 to 1, so that faint texture is "
            "not smoothed; found where nothing is told, else 0"
        ),
    ] = None

    def read(self) -> TaskOptions:
        """As `DegradationOptions.read`."""
        return replace(super().read(), keep_detail=self.keep_detail)


ModelOption = Annotated[
    str,
    typer.Option(
        help="tiny (built in), wan-lean, wan, ORG/REPO[@revision], a folder or a .safetensors file",
        autocompletion=completed(MODELS),
    ),
]
SolverOption = Annotated[
    str | None,
    typer.Option(
        help="A method without weights instead of a model, such as map, wiener, telea or nlmeans",
        metavar="NAME",
        autocompletion=completed(tuple(METHODS)),
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(help="What is seen, for models that read text; or a file of precomputed rows"),
]
VramOption = Annotated[
    float | None,
    typer.Option(help="Gigabytes a full-size model may take (default: what is free on the card)"),
]
TileOption = Annotated[int | None, typer.Option(help="Tile side, a multiple of 64; 0 never tiles")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What restores it, and what that may take."""

    PANEL: ClassVar = "Model"

    model: ModelOption = "tiny"
    solver: SolverOption = None
    device: Annotated[
        str, typer.Option(help=either(DEVICES), autocompletion=completed(DEVICES))
    ] = "auto"
    prompt: PromptOption = None
    vram: VramOption = None
    tile: TileOption = None
    latency: Annotated[
        int | None,
        typer.Option(help="Frames per block, 1 to 3: fewer look less far ahead (default 3)"),
    ] = None
    threads: Annotated[int | None, typer.Option(help="CPU threads for the student")] = None

    def open(self, *, dtype: torch.dtype | None = None) -> OpenedSolver:
        """What is to restore, ready to be fitted to a video.

        Raises:
            UsageError, CheckpointError: if there is none such, or it cannot run there.
        """
        from instantvir_models.run.opening import open_chosen

        return open_chosen(
            model=self.model,
            solver=self.solver,
            device=self.device,
            prompt=self.prompt,
            dtype=dtype,
        )

    def limits(self) -> SessionLimits:
        """What a session may take; UsageError for tiles that cannot be."""
        from instantvir_models.run.opening import SessionLimits

        return SessionLimits(
            gigabytes=self.vram, tile_pixels=self.tile, frames_per_block=self.latency
        )


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How far an input may reach, and what it may cost."""

    PANEL: ClassVar = "Source"

    follow_references: Annotated[
        bool,
        typer.Option(
            "--follow-references", help="Open files and addresses that the input names, too"
        ),
    ] = False
    max_pixels: Annotated[
        int | None, typer.Option(help="Of the largest picture; usually 67 million")
    ] = None

    def rules(self) -> InputRules:
        """The same as the library takes it; UsageError for a number that cannot be."""
        from instantvir_models.media.reach import MOST_PIXELS, InputRules

        return InputRules(
            follow_references=self.follow_references,
            max_pixels=MOST_PIXELS if self.max_pixels is None else self.max_pixels,
        )


@dataclass(frozen=True, kw_only=True)
class SourceOptions(InputOptions):
    """Which part of the input."""

    PANEL: ClassVar = "Source"

    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="Decode in a process of its own that can reach nothing"),
    ] = False
    start: Annotated[float | None, typer.Option(help="Seconds to skip at the start")] = None
    duration: Annotated[float | None, typer.Option(help="Seconds to take")] = None

    def rules(self) -> InputRules:
        """As `InputOptions.rules`, with the sandbox."""
        return replace(super().rules(), sandbox=self.sandbox)


@dataclass(frozen=True, kw_only=True)
class FieldOptions(SourceOptions):
    """The same, and what it is of fields."""

    fields: Annotated[
        str,
        typer.Option(
            help="First field of an interlaced video: top, bottom, telecine (film at 3:2) or none; "
            "auto finds out",
            autocompletion=completed(FIELDS),
        ),
    ] = "auto"
    same_rate: Annotated[
        bool, typer.Option("--same-rate", help="One frame for two fields, not one for each")
    ] = False

    def choice(self) -> FieldChoice:
        """The part that is about fields; UsageError for a name that is none."""
        from instantvir_models.media.fields import FieldChoice

        return FieldChoice(fields=self.fields, each_field=not self.same_rate)


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """How the output is written."""

    PANEL: ClassVar = "Encoding"

    codec: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(CODECS)} or an FFmpeg encoder", autocompletion=completed(CODECS)
        ),
    ] = None
    crf: Annotated[int | None, typer.Option(help="Quality of the output, lower is better")] = None
    preset: Annotated[str | None, typer.Option(help="Speed preset of the encoder")] = None
    pix_fmt: Annotated[str | None, typer.Option(help="Pixel format of the output")] = None
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Container where no name tells it: of `-o -` (such as nut), addresses"
        ),
    ] = None

    def settings(self, *, is_live: bool = False) -> EncoderSettings:
        """The part that is the encoder's."""
        from instantvir_models.media import EncoderSettings

        return EncoderSettings(
            codec=self.codec,
            crf=self.crf,
            preset=self.preset,
            pix_fmt=self.pix_fmt,
            low_latency=is_live,
        )


@dataclass(frozen=True, kw_only=True)
class LiveEncodingOptions(EncodingOptions):
    """The same beside a raw input, whose pixel format is `--pix-fmt`."""

    pix_fmt: Annotated[
        str | None, typer.Option("--output-pix-fmt", help="Pixel format of the output")
    ] = None
    next_file: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="After a pause that is longer, files go on in the next, out.2.mkv; else it stays a gap",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class FarmOptions:
    """Who restores which of many videos."""

    PANEL: ClassVar = "Machines"

    shard: Annotated[
        str | None,
        typer.Option(
            help="Restore share i of n, such as 0/3; auto asks SLURM or torchrun", metavar="I/N"
        ),
    ] = None
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Restore on a Ray cluster: auto for the one that runs here, or ray://HOST",
            metavar="ADDRESS",
        ),
    ] = None

    split: Annotated[
        float | None,
        typer.Option(
            help="Cut one long video into pieces of about so many minutes, to be restored side by side",
            metavar="MINUTES",
        ),
    ] = None

    @property
    def are_asked_for(self) -> bool:
        """Whether this machine is one of several."""
        return self.shard is not None or self.cluster is not None


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """What shows how well it went."""

    PANEL: ClassVar = "Comparison"

    reference: Annotated[
        Path | None, typer.Option(help="The clean video, to report the gain in dB")
    ] = None
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write OUT.compare.mp4 and OUT.compare.png")
    ] = False
    compare_style: Annotated[
        str, typer.Option(help=either(STYLES), autocompletion=completed(STYLES))
    ] = "side"
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also write a page: a wipe, what was found, how long it took", metavar="OUT.html"
        ),
    ] = None
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            help="Also write how far each pixel is expected to be off: 10 grey levels for one of 255",
            metavar="OUT.mkv",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Many inputs, and what was begun."""

    PANEL: ClassVar = "Batch"

    recursive: Annotated[
        bool, typer.Option("--recursive", help="Of a folder, also the videos in its folders")
    ] = False
    jobs: Annotated[
        int, typer.Option(min=1, max=64, help="Videos restored side by side, in processes")
    ] = 1
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with what was begun, and end where that cannot be gone on with"
        ),
    ] = False
    next_file: Annotated[
        bool,
        typer.Option(
            "--next-file",
            help="Where pictures get another size, go on in the next file, out.2.mp4; "
            "else they are scaled to the first size",
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class LiveSourceOptions(InputOptions):
    """A source that does not wait."""

    PANEL: ClassVar = "Source"

    on_overload: Annotated[
        str | None,
        typer.Option(
            help="drop, skip, degrade or block; cameras and networks drop, pipes block",
            autocompletion=completed(OVERLOADS),
        ),
    ] = None
    reconnect: Annotated[
        bool, typer.Option("--reconnect", help="Open a lost camera or address again")
    ] = False
    silence: Annotated[
        float | None,
        typer.Option(help="Seconds a network may say nothing before it counts as lost; usually 20"),
    ] = None
    follow: Annotated[
        float | None, typer.Option(help="The file is growing; it ends after so many still seconds")
    ] = None
    input_format: Annotated[
        str | None, typer.Option(help="FFmpeg's name of the input format or device")
    ] = None
    input_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for FFmpeg, such as rtsp_transport=tcp; may repeat"),
    ] = None
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of raw input or camera")] = None
    input_pix_fmt: Annotated[
        str | None, typer.Option("--pix-fmt", help="Pixel format of raw input")
    ] = None
    fps: Annotated[float | None, typer.Option(help="Frame rate of raw input or camera")] = None
    fields: Annotated[
        str,
        typer.Option(
            help="First field of an interlaced source: top, bottom or telecine (film at 3:2); auto "
            "waits for 24 pictures and finds out, none takes them as they are",
            autocompletion=completed(FIELDS),
        ),
    ] = "none"
    same_rate: Annotated[
        bool, typer.Option("--same-rate", help="One frame for two fields, not one for each")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """What can be seen and changed while it runs."""

    PANEL: ClassVar = "While it runs"

    preview: Annotated[
        str | None, typer.Option(help="[HOST:]PORT of a page with a wipe, numbers and controls")
    ] = None
    token: Annotated[
        str | None,
        typer.Option(help="Secret of the page and the metrics; made where others can reach them"),
    ] = None
    control: Annotated[
        Path | None, typer.Option(help="Socket to make, for `instantvir control` and scripts")
    ] = None
    snapshots: Annotated[Path, typer.Option(help="Folder for pairs of pictures kept")] = Path()
    metrics: Annotated[
        str | None, typer.Option(help="[HOST:]PORT for Prometheus (needs instantvir[live])")
    ] = None
    json_lines: Annotated[
        Path | None, typer.Option(help="File that gets the status, once a second")
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(help="Page of delays, losses and outputs, in the end", metavar="OUT.html"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SweptModelOptions:
    """The same as `ModelOptions`, of some with several values."""

    PANEL: ClassVar = "Model"

    model: ModelOption = "tiny"
    solver: SolverOption = None
    device: Annotated[
        str,
        typer.Option(help=f"{either(DEVICES)}; or several", autocompletion=completed(DEVICES)),
    ] = "auto"
    prompt: PromptOption = None
    vram: VramOption = None
    tile: TileOption = None
    latency: Annotated[
        str | None,
        typer.Option(help="Frames per block, 1 to 3; or several (default 3)", metavar="N[,N]"),
    ] = None
    window: Annotated[
        str | None,
        typer.Option(help="Latents a full-size model attends to; or several", metavar="N[,N]"),
    ] = None
    threads: Annotated[
        str | None, typer.Option(help="CPU threads; or several, such as 1,2", metavar="N[,N]")
    ] = None

    def of_suite(self) -> tuple[str, int]:
        """The model, and how many threads it takes: what a suite can be told.

        Raises:
            UsageError: if anything else is given, or several numbers of threads.
        """
        from instantvir_models.errors import UsageError
        from instantvir_models.speed.plan import parsed_numbers

        refuse_given(self, "a suite", but=("model", "threads"))
        threads = parsed_numbers(self.threads, "--threads")
        if len(threads) > 1:
            raise UsageError("a suite takes one number of `--threads`")
        return self.model, threads[0] or 1


def refuse_given(group: object, who: str, *, but: tuple[str, ...] = ()) -> None:
    """Raise UsageError if one of a group's options was given that `who` takes no notice of."""
    given = [
        f"`--{field.name.replace('_', '-')}`"
        for field in fields(group)  # type: ignore[arg-type]
        if field.name not in but and getattr(group, field.name) != field.default
    ]
    if given:
        from instantvir_models.errors import UsageError

        raise UsageError(f"{who} takes no {' and no '.join(given)}")


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """What a benchmark measures."""

    PANEL: ClassVar = "Measuring"

    task: Annotated[str, typer.Option(help=either([*TASKS]), autocompletion=completed_tasks)] = (
        "deblur"
    )
    size: Annotated[str, typer.Option(help="Of the generated clip: WIDTHxHEIGHT; or several")] = (
        "832x480"
    )
    frames: Annotated[int, typer.Option(help="Frames of the generated clip")] = 48
    repeats: Annotated[int, typer.Option(help="Counted runs")] = 3
    warmup: Annotated[int, typer.Option(help="Runs before them")] = 1
    dtype: Annotated[
        str,
        typer.Option(
            help="auto, float32 or bfloat16; or several",
            autocompletion=completed(("auto", "float32", "bfloat16")),
        ),
    ] = "auto"
    baseline: Annotated[
        Path | None,
        typer.Option(help="What `--json` printed before; to be slower than it is a failure"),
    ] = None
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Part of the baseline's FPS that may be lost")
    ] = 0.1
    report: Annotated[
        Path | None,
        typer.Option(help="Also write a page (of a suite: report.html)", metavar="OUT.html"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """Which systems are compared, and on what."""

    PANEL: ClassVar = "Suite"

    suite: Annotated[
        str | None,
        typer.Option(
            help="paper: every system of its table, on the same clips and prior; real: the same on files "
            "of which nothing is told; slow, goes on where it was",
            autocompletion=completed(("paper", "real")),
        ),
    ] = None
    clips: Annotated[Path | None, typer.Option(help="Folder of clean videos; some are bundled")] = (
        None
    )
    length: Annotated[int, typer.Option(help="Frames of each of them", min=1)] = 5
    crop: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the middle that is taken of each")
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the results; suite/ if not given"),
    ] = None
    prior: Annotated[
        Path | None, typer.Option(help="Weights that iterative solvers ask, instead of the bundled")
    ] = None
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="A system that is left out, by its name in the tables; may be repeated; DPS takes most of "
            "the time",
            metavar="NAME",
        ),
    ] = None
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Another program: NAME=COMMAND with {in}, {out} and {task}; may be repeated"
        ),
    ] = None

    def crop_size(self) -> tuple[int, int] | None:
        """(height, width); None for whole frames.

        Raises:
            UsageError: if it is no size.
        """
        if self.crop is None:
            return None
        width, x, height = self.crop.partition("x")
        if not (x and width.isdigit() and height.isdigit()):
            from instantvir_models.errors import UsageError

            raise UsageError(f"`--crop` is `{self.crop}`", hint="it is WIDTHxHEIGHT, such as 96x64")
        return int(height), int(width)


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """What is said of the weights that are converted."""

    PANEL: ClassVar = "Weights"

    prompt: Annotated[
        str | None,
        typer.Option(help="Words, or a file of rows, the student reads unless told otherwise"),
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            help=f"What the student was trained for: {either([*TASKS])}",
            autocompletion=completed_tasks,
        ),
    ] = None
    operators: Annotated[
        str | None, typer.Option(help="Degradations seen in training, such as `blur:sigma=3`")
    ] = None
    average: Annotated[
        bool, typer.Option("--average", help="Take the averaged weights (generator_ema)")
    ] = False
    dtype: Annotated[
        str,
        typer.Option(
            help="keep, float32, bfloat16 or float16",
            autocompletion=completed(("keep", "float32", "bfloat16", "float16")),
        ),
    ] = "keep"

    @property
    def given_for_student(self) -> list[str]:
        """Names of the options in use that only a student's checkpoint knows."""
        given = {"--prompt": self.prompt, "--task": self.task, "--operators": self.operators}
        return [name for name, value in given.items() if value is not None]

    @property
    def given_for_weights(self) -> list[str]:
        """Names of the options in use that say something of weights."""
        given = {
            "--task": self.task is not None,
            "--operators": self.operators is not None,
            "--average": self.average,
            "--dtype": self.dtype != "keep",
        }
        return [name for name, is_given in given.items() if is_given]
