"""Whether a configuration restores what it should, asked before anybody is told how fast it is."""

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from instantvir_models.errors import DeviceMemoryError, InstantVIRError, UsageError
from instantvir_models.media import open_video
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.session import Session
from instantvir_models.speed.opening import open_planned
from instantvir_models.speed.plan import SpeedPlan

Pixels = NDArray[Any]

CHECKED_BLOCKS = 2
"""The first has no history, the second has."""

LEAST_DB = {torch.float32: 60.0, torch.bfloat16: 38.0, torch.float16: 44.0}
"""How near to the same restoration in float32, as a PSNR of 8-bit pixels."""

EQUAL_DB = 100.0
"""Said of frames that are equal."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was compared, and how it came out."""

    frames: int
    """Frames that were restored."""
    psnr_to_float32: float | None
    """dB; None where there was nothing to compare with, and `unchecked` says why."""
    least_psnr: float
    """dB below which a configuration is wrong."""
    unchecked: str | None = None
    """A sentence: why there is no reference."""


class IncorrectError(InstantVIRError):
    """A configuration that does not restore what it should, so its speed is not told."""


def checked(plan: SpeedPlan, opened: OpenedSolver, clip: Path, degradation: Degradation) -> Check:
    """How a configuration compares with float32 on the first blocks of a clip.

    Raises:
        IncorrectError: if frames are missing, of the wrong size, no picture at all, or too far from
            the same restoration in float32.
    """
    reference, unchecked = _reference(plan, opened, clip, degradation)
    restored = _restored(plan, opened, clip, degradation)
    least = LEAST_DB[opened.solver.needs.dtype]
    check = Check(
        frames=len(restored),
        psnr_to_float32=None if reference is None else _psnr(restored, reference),
        least_psnr=least,
        unchecked=unchecked,
    )
    if check.psnr_to_float32 is not None and check.psnr_to_float32 < least:
        raise IncorrectError(
            f"no speed is reported: `{opened.name}` in {_name(opened.solver.needs.dtype)} is "
            f"{check.psnr_to_float32:.1f} dB from the same in float32, and {least:g} dB are asked for",
            hint="say so to the project, with this command",
        )
    return check


def _restored(
    plan: SpeedPlan, opened: OpenedSolver, clip: Path, degradation: Degradation
) -> Pixels:
    """The first frames [T, H, W, 3], which are as many and as large as they have to be."""
    with open_video(clip) as reader:
        height, width = reader.info.height, reader.info.width
        session = opened.new_session(
            degradation, height=height, width=width, limits=plan.limits
        ).session
        taken = islice(reader, _frames_to_check(session))
        frames: Pixels = np.stack([frame.pixels for frame in taken])
    restored = np.concatenate([session.push(frames), session.flush()])
    expected = (len(frames), *session.output_size, 3)
    if restored.shape != expected:
        raise IncorrectError(
            f"no speed is reported: {expected} pixels should have come out, and {restored.shape} did"
        )
    if not np.isfinite(session.report.residual or 0.0):
        raise IncorrectError("no speed is reported: what came out is not made of numbers")
    return restored


def _frames_to_check(session: Session) -> int:
    return min(CHECKED_BLOCKS * session.frames_per_block, 24)


def _reference(
    plan: SpeedPlan, opened: OpenedSolver, clip: Path, degradation: Degradation
) -> tuple[Pixels | None, str | None]:
    """The same in float32, or why there is none."""
    if opened.loaded is None:
        return None, f"`{opened.name}` computes in one type alone"
    exact = open_planned(replace(plan, dtype="float32", device=opened.device.type))
    try:
        return _restored(plan, exact, clip, degradation), None
    except (DeviceMemoryError, UsageError) as error:
        return None, f"float32 could not be tried: {error}"
    finally:
        del exact
        if opened.device.type == "cuda":
            torch.cuda.empty_cache()


def _psnr(a: Pixels, b: Pixels) -> float:
    """dB, of all pixels together."""
    scale = np.iinfo(a.dtype).max
    square = float(np.mean((a.astype(np.float64) - b) ** 2)) / scale**2
    return EQUAL_DB if square == 0 else min(EQUAL_DB, float(-10 * np.log10(square)))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
