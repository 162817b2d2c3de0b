"""What is measured: one configuration, or many that differ in a few of their settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import torch

from instantvir_models.checkpoints.load import EMBEDDED
from instantvir_models.errors import UsageError
from instantvir_models.run.opening import SessionLimits
from instantvir_models.tasks import parse_task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

SWEPT = ("size", "dtype", "device", "latency", "window", "threads")
"""Settings of which there may be several."""


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """One configuration, in the words of the command; None leaves a choice to the program.

    Raises:
        UsageError: for what cannot be.
    """

    clip: str | None = None
    """A video; None generates one."""
    task: str = "deblur"
    size: str = "832x480"
    """Of the generated clip."""
    frames: int = 48
    """Of the generated clip."""
    repeats: int = 3
    warmup: int = 1
    """Runs before those that count."""
    dtype: str = "auto"
    model: str = EMBEDDED
    solver: str | None = None
    device: str = "auto"
    prompt: str | None = None
    vram: float | None = None
    """Gigabytes."""
    tile: int | None = None
    latency: int | None = None
    """Frames of a block."""
    window: int | None = None
    """Latents that a full-size student attends to."""
    threads: int | None = None

    def __post_init__(self) -> None:
        parse_task(self.task)
        if self.dtype != "auto" and self.dtype not in DTYPES:
            raise UsageError(f"`--dtype` is `{self.dtype}`; it is auto, float32 or bfloat16")
        if self.repeats < 1 or self.warmup < 0 or self.frames < 1:
            raise UsageError("`--repeats` and `--frames` are at least 1, `--warmup` at least 0")
        parse_size(self.size)
        _ = self.limits  # refuses tiles that cannot be

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """What arithmetic is asked for; None for what is fast."""
        return DTYPES.get(self.dtype)

    @property
    def limits(self) -> SessionLimits:
        """What a session may take."""
        return SessionLimits(
            gigabytes=self.vram, tile_pixels=self.tile, frames_per_block=self.latency
        )

    def differences(self, others: Sequence["SpeedPlan"]) -> dict[str, str]:
        """Of the settings in which the others are not all alike, what they are here."""
        mine = asdict(self)
        return {
            name: "auto" if mine[name] is None else str(mine[name])
            for name in SWEPT
            if len({asdict(other)[name] for other in others}) > 1
        }


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of `832x480`.

    Raises:
        UsageError: if it says none.
    """
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"`--size` is `{text}`", hint="it is WIDTHxHEIGHT, such as 832x480")
    return int(width), int(height)


def parsed_list(text: str, option: str) -> tuple[str, ...]:
    """The parts of `a,b,c`.

    Raises:
        UsageError: if one is empty or there twice.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise UsageError(
            f"`{option}` is `{text}`", hint="it is one value, or several with commas between"
        )
    return parts


def parsed_numbers(text: str | None, option: str) -> tuple[int | None, ...]:
    """The numbers of `1,2,3`; None alone where there is no text.

    Raises:
        UsageError: if one is no whole number above 0.
    """
    if text is None:
        return (None,)
    parts = parsed_list(text, option)
    if not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"`{option}` is `{text}`; it is a whole number above 0, or several")
    return tuple(int(part) for part in parts)


def swept(
    plan: SpeedPlan,
    *,
    sizes: Sequence[str],
    dtypes: Sequence[str],
    devices: Sequence[str],
    latencies: Sequence[int | None],
    windows: Sequence[int | None],
    threads: Sequence[int | None],
) -> list[SpeedPlan]:
    """The plan with every combination of these, the last ones those that need no model opened anew."""
    return [
        replace(
            plan,
            dtype=dtype,
            device=device,
            window=window,
            size=size,
            latency=latency,
            threads=count,
        )
        for dtype, device, window, size, latency, count in product(
            dtypes, devices, windows, sizes, latencies, threads
        )
    ]
