"""A full-size student made to keep to the memory there is: planned, placed, and told in words."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from instantvir_models.autoencoders.base import SPATIAL_FACTOR
from instantvir_models.errors import DeviceMemoryError, UsageError
from instantvir_models.students.fitting import FitRequest, Fitted, Notice
from instantvir_models.students.wan.cost import AutoencoderConfig
from instantvir_models.students.wan.plan import MemoryPlan, plan_memory, plan_that_fits
from instantvir_models.students.wan.settings import Footprint, WanSettings
from instantvir_models.students.wan.transformer import WanConfig

RESERVE_BYTES = 0.3e9
"""Of a card's free memory, left for scratch space of its libraries, which no plan knows."""

RESERVE_SHARE = 0.05
"""Of a card's whole memory, left for what lies between tensors."""

LARGEST_GIGABYTES = 10_000

KEPT_ROUNDING = Notice("weights keep the rounding that less memory asked of them before")

PLANNING_AGAIN = Notice(
    "memory ran out while weights went to the device: planning again with what is free",
    is_warning=True,
)


@dataclass(frozen=True)
class Networks:
    """What decides how much memory a student takes."""

    transformer: WanConfig
    autoencoder: AutoencoderConfig
    settings: WanSettings
    text_rows: int
    """Rows of the prompt that are attended to."""


StudentT_co = TypeVar("StudentT_co", covariant=True)


class Place(Protocol[StudentT_co]):
    """Brings a student to its device, no more of it than a footprint says."""

    def __call__(
        self, footprint: Footprint, *, dtype: torch.dtype, may_tile: bool
    ) -> StudentT_co: ...


def fitted(
    networks: Networks,
    weights_dtype: torch.dtype,
    request: FitRequest,
    *,
    place: Place[StudentT_co],
) -> Fitted[StudentT_co]:
    """The student where the plan wants it, with what it needs and gave up in words.

    On a card what is allowed is what is free there, unless the request says otherwise.

    Args:
        weights_dtype: the type that the weights have now.

    Raises:
        UsageError: if frames of that size do not fit at all.
        DeviceMemoryError: if memory runs out while weights go to their device.
    """
    check_allowed(request.allowed_gigabytes)

    notices: list[Notice] = []

    def placed() -> StudentT_co:
        planned = planned_for(networks, weights_dtype, request)
        notices.append(planned.notice)
        if planned.plan.dtype.itemsize > weights_dtype.itemsize:
            notices.append(KEPT_ROUNDING)
        may_tile = request.tile_pixels is None
        return place(planned.plan.footprint, dtype=planned.plan.dtype, may_tile=may_tile)

    try:
        return Fitted(placed(), tuple(notices))
    except torch.OutOfMemoryError as error:
        if request.allowed_gigabytes is not None:
            raise _too_little(request.size) from error
    notices.append(PLANNING_AGAIN)
    torch.cuda.empty_cache()
    try:
        return Fitted(placed(), tuple(notices))
    except torch.OutOfMemoryError as error:
        raise _too_little(request.size) from error


@dataclass(frozen=True)
class Planned:
    """What of a student fits, and the sentence that says so."""

    plan: MemoryPlan
    given_up: tuple[str, ...]
    """What is different from all of it, in words with their price."""
    notice: Notice


def planned_for(networks: Networks, weights_dtype: torch.dtype, request: FitRequest) -> Planned:
    """What of the student fits the memory there is.

    Raises:
        UsageError: if not even one block of such frames fits.
    """
    height, width = request.size
    dtype = request.dtype or weights_dtype
    configs = networks.transformer, networks.autoencoder, networks.settings
    tile = None if request.tile_pixels is None else request.tile_pixels // SPATIAL_FACTOR
    settings = networks.settings
    whole = plan_memory(
        *configs,
        Footprint(settings.window_latents, settings.latents_per_block, tile or 0),
        height=height,
        width=width,
        dtype=dtype,
        text_rows=networks.text_rows,
        temporal_radius=request.temporal_radius,
    )
    plan, note = whole, ""
    budget = _budget(request)
    if budget is not None:
        plan = plan_that_fits(
            *configs,
            height=height,
            width=width,
            dtypes=_dtypes(dtype, is_fixed=request.is_dtype_fixed),
            budget_bytes=budget.num_bytes,
            budget_source=budget.source,
            tile_latents=tile,
            can_rest=request.device.type != "cpu",
            text_rows=networks.text_rows,
            temporal_radius=request.temporal_radius,
        )
        note = f" of {budget}"
    given_up = tuple(plan.given_up(whole))
    if given_up:
        note += f"; all of it would take {whole.total / 1e9:.2f} GB, so {'; '.join(given_up)}"
    return Planned(plan, given_up, Notice(f"memory for {width}x{height}: {plan}{note}"))


def check_allowed(gigabytes: float | None) -> None:
    """Refuse an amount of memory that nobody can mean.

    Raises:
        UsageError: likewise.
    """
    if gigabytes is not None and not 0 < gigabytes <= LARGEST_GIGABYTES:
        raise UsageError(
            f"`--vram` is {gigabytes:g}; it is gigabytes, above 0 and at most {LARGEST_GIGABYTES}"
        )


def _too_little(size: tuple[int, int]) -> DeviceMemoryError:
    height, width = size
    return DeviceMemoryError(
        f"the device ran out of memory for {width}x{height} while weights went to it",
        hint="give a smaller `--vram`, free the device of other programs, or use `--device cpu`",
    )


@dataclass(frozen=True)
class _Budget:
    """Memory that a student may take, and who says so."""

    num_bytes: float
    source: str
    """`allowed` or `free`."""

    def __str__(self) -> str:
        return f"{self.num_bytes / 1e9:.2f} GB {self.source}"


def _budget(request: FitRequest) -> _Budget | None:
    if request.allowed_gigabytes is not None:
        return _Budget(request.allowed_gigabytes * 1e9, "allowed")
    if request.device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(request.device)
    mine = torch.cuda.memory_reserved(request.device)  # kept for reuse, or about to be let go of
    reserve = RESERVE_BYTES + RESERVE_SHARE * total
    return _Budget(max(0.0, free + mine - reserve), "free")


def _dtypes(dtype: torch.dtype, *, is_fixed: bool) -> tuple[torch.dtype, ...]:
    """Types that weights may have, the preferred first."""
    if dtype.itemsize <= torch.bfloat16.itemsize or is_fixed:
        return (dtype,)
    return (dtype, torch.bfloat16)
