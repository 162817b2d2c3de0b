"""From `--model`, `--device`, `--prompt` and `--vram` to a student that is ready to restore."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from instantvir_models.autoencoders.base import SPATIAL_FACTOR
from instantvir_models.checkpoints.load import EMBEDDED, LoadedStudent, load_student
from instantvir_models.checkpoints.prompt import read_prompt
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import DeviceMemoryError, UsageError
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.session import Session
from instantvir_models.students.base import Student
from instantvir_models.students.wan.plan import MemoryPlan, plan_memory, plan_that_fits
from instantvir_models.students.wan.student import Footprint, WanStudent
from instantvir_models.tasks import tasks_in

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")

RESERVE_BYTES = 0.3e9
"""Of a card's free memory, left for scratch space of its libraries, which no plan knows."""

RESERVE_SHARE = 0.05
"""Of a card's whole memory, left for what lies between tensors."""


@dataclass(frozen=True)
class OpenedStudent:
    """A student and the device it is for."""

    loaded: LoadedStudent
    device: torch.device
    """Where it is to compute; a full-size student is brought there by `fitted`."""
    dtype: torch.dtype | None = None
    """Weights are to have this type where memory allows; None for the one they have."""
    is_dtype_fixed: bool = False
    """Whether the user said which type the weights have."""


def open_student(
    model: str, *, device: str, prompt: str | None, dtype: torch.dtype | None = None
) -> OpenedStudent:
    """The student called `model`, for the device the user wants, told the prompt.

    Args:
        dtype: of the weights of a full-size student; None takes what is fast there.

    Raises:
        UsageError: if it cannot run there.
        CheckpointError: if there is no such student.
    """
    place = _place(model, device)
    fast = torch.bfloat16 if place.type == "cuda" else fastest_dtype()
    # into CPU memory first: what a card holds of it depends on the size of the frames
    preferred = fast if dtype is None else dtype
    loaded = load_student(model, dtype=preferred)
    student = loaded.student
    if isinstance(student, WanStudent):
        student = student.for_device(place)
        loaded = replace(loaded, student=student)
        if prompt is None and student.text.rows.shape[1]:
            logger.info("the prompt is that of the checkpoint (`--prompt` replaces it)")
        elif prompt is None:
            logger.info(
                "no prompt: the student restores without words (`--prompt` says what is seen)"
            )
        else:
            config = student.transformer.config
            text = read_prompt(prompt, text_dim=config.text_dim, text_len=config.text_len)
            loaded = replace(loaded, student=student.with_text(text))
    elif prompt is not None:
        logger.warning(f"`--prompt` has no effect: the model `{model}` does not read text")
    if loaded.revision is not None:
        logger.info(f"{model} is at commit {loaded.revision}")
    return OpenedStudent(loaded, place, preferred, is_dtype_fixed=dtype is not None)


def fitted(
    opened: OpenedStudent,
    size: tuple[int, int],
    *,
    temporal_radius: int,
    vram_gigabytes: float | None,
    tile_pixels: int | None = None,
) -> Student[Any]:
    """The student on its device, keeping to the memory allowed; says what it needs and gave up.

    On a card what is allowed is what is free there, unless the user says otherwise.

    Args:
        temporal_radius: frames on each side of a block that its operator looks at.
        tile_pixels: side of the tiles the user wants, 0 for none; None leaves it to memory.

    Raises:
        UsageError: if frames of `size` (height, width) do not fit at all.
        DeviceMemoryError: if memory runs out while weights go to their device.
    """
    if vram_gigabytes is not None and not 0 < vram_gigabytes <= 10_000:
        raise UsageError(
            f"`--vram` is {vram_gigabytes:g}; it is gigabytes, above 0 and at most 10000"
        )
    student = opened.loaded.student
    if not isinstance(student, WanStudent):
        if vram_gigabytes is not None:
            logger.warning("`--vram` has no effect: this model runs on the CPU in a few megabytes")
        return student
    request = _Request(opened, student, size, temporal_radius, vram_gigabytes, tile_pixels)
    try:
        return _placed(request)
    except torch.OutOfMemoryError as error:
        if vram_gigabytes is not None:
            raise _too_little(size) from error
    logger.warning(
        "memory ran out while weights went to the device: planning again with what is free"
    )
    torch.cuda.empty_cache()
    try:
        return _placed(request)
    except torch.OutOfMemoryError as error:
        raise _too_little(size) from error


@dataclass(frozen=True)
class _Request:
    """A full-size student and what it is to be fitted to."""

    opened: OpenedStudent
    student: WanStudent
    size: tuple[int, int]
    temporal_radius: int
    vram_gigabytes: float | None
    tile_pixels: int | None


def _placed(request: _Request) -> WanStudent:
    """The student where the plan wants it, which is said first."""
    plan, student = _said_plan(request), request.student
    if plan.dtype.itemsize > student.dtype.itemsize:
        logger.info("weights keep the rounding that less memory asked of them before")
    return student.placed(plan.footprint, dtype=plan.dtype, may_tile=request.tile_pixels is None)


def _too_little(size: tuple[int, int]) -> DeviceMemoryError:
    height, width = size
    return DeviceMemoryError(
        f"the device ran out of memory for {width}x{height} while weights went to it",
        hint="give a smaller `--vram`, free the device of other programs, or use `--device cpu`",
    )


def _said_plan(request: _Request) -> MemoryPlan:
    """What of the student fits; says so, and what was given up."""
    opened, student, tile_pixels = request.opened, request.student, request.tile_pixels
    checkpoint = opened.loaded.checkpoint
    assert checkpoint is not None
    assert checkpoint.autoencoder is not None
    height, width = request.size
    settings = student.settings
    dtype = opened.dtype or student.dtype
    networks = student.transformer.config, checkpoint.autoencoder, settings
    text_rows = student.text.attended_rows
    tile = None if tile_pixels is None else tile_pixels // SPATIAL_FACTOR
    whole = plan_memory(
        *networks,
        Footprint(settings.window_latents, settings.latents_per_block, tile or 0),
        height=height, width=width, dtype=dtype, text_rows=text_rows,
        temporal_radius=request.temporal_radius,
    )  # fmt: skip
    plan, note = whole, ""
    budget = _budget(opened.device, request.vram_gigabytes)
    if budget is not None:
        plan = plan_that_fits(
            *networks, height=height, width=width,
            dtypes=_dtypes(dtype, is_fixed=opened.is_dtype_fixed),
            budget_bytes=budget.num_bytes, budget_source=budget.source, tile_latents=tile,
            can_rest=opened.device.type != "cpu", text_rows=text_rows,
            temporal_radius=request.temporal_radius,
        )  # fmt: skip
        note = f" of {budget}"
    if given_up := plan.given_up(whole):
        note += f"; all of it would take {whole.total / 1e9:.2f} GB, so {'; '.join(given_up)}"
    logger.info(f"memory for {width}x{height}: {plan}{note}")
    return plan


@dataclass(frozen=True)
class _Budget:
    """Memory that a student may take, and who says so."""

    num_bytes: float
    source: str
    """`allowed` or `free`."""

    def __str__(self) -> str:
        return f"{self.num_bytes / 1e9:.2f} GB {self.source}"


def _budget(device: torch.device, vram_gigabytes: float | None) -> _Budget | None:
    if vram_gigabytes is not None:
        return _Budget(vram_gigabytes * 1e9, "allowed")
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    mine = torch.cuda.memory_reserved(device)  # kept for reuse, or about to be let go of
    reserve = RESERVE_BYTES + RESERVE_SHARE * total
    return _Budget(max(0.0, free + mine - reserve), "free")


def _dtypes(dtype: torch.dtype, *, is_fixed: bool) -> tuple[torch.dtype, ...]:
    """Types that weights may have, the preferred first."""
    if dtype.itemsize <= torch.bfloat16.itemsize or is_fixed:
        return (dtype,)
    return (dtype, torch.bfloat16)


def warn_of_another_task(loaded: LoadedStudent, degradation: Degradation) -> None:
    """Say so where the student was trained for something else than what happened to the video."""
    trained_for = None if loaded.checkpoint is None else loaded.checkpoint.task
    happened = [task.name for task in tasks_in(degradation.operator.traits)]
    if trained_for is not None and trained_for not in happened:
        logger.warning(
            f"`{loaded.name}` was trained for {trained_for}, this video needs "
            f"{' and '.join(happened)}; expect poor results"
        )


def _place(model: str, device: str) -> torch.device:
    if device not in DEVICES:
        raise UsageError(f"`--device` is `{device}`", hint="it is `auto`, `cpu` or `cuda`")
    is_tiny = model == EMBEDDED or model.endswith(".safetensors")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and not is_tiny else "cpu")
    if device == "cuda" and (is_tiny or not torch.cuda.is_available()):
        reason = (
            "the embedded student runs on the CPU only"
            if torch.cuda.is_available()
            else "no CUDA device is available"
        )
        raise UsageError(f"cannot use `--device cuda`: {reason}", hint="use `--device auto`")
    return torch.device(device)


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """What a session may take, as a user says it; None leaves it to what is there.

    Raises:
        UsageError: for tiles that cannot be.
    """

    vram_gigabytes: float | None = None
    """Of a full-size student."""
    tile_pixels: int | None = None
    """Side of the tiles, a multiple of 64; 0 never tiles."""
    frames_per_block: int | None = None
    """Frames restored together."""

    def __post_init__(self) -> None:
        if self.tile_pixels is not None and (self.tile_pixels < 0 or self.tile_pixels % 64):
            raise UsageError(f"`--tile` is {self.tile_pixels}; it is a multiple of 64")


def new_session(
    opened: OpenedStudent,
    degradation: Degradation,
    limits: SessionLimits,
    *,
    height: int,
    width: int,
    dtype: torch.dtype | None = None,
) -> Session:
    """A session for measured frames of this size, its student fitted to the memory there is.

    Raises:
        UsageError, DeviceMemoryError: if they do not fit, or do not suit the student.
    """
    operator = degradation.operator
    student = fitted(
        opened,
        operator.clean_size(height, width),
        temporal_radius=operator.temporal_radius,
        vram_gigabytes=limits.vram_gigabytes,
        tile_pixels=limits.tile_pixels,
    )
    return Session(
        student,
        degradation,
        height=height,
        width=width,
        tile_pixels=limits.tile_pixels,
        dtype=dtype,
        device=opened.device,
        frames_per_block=limits.frames_per_block,
    )
