"""The published solvers, each as its prior, schedule, correction and re-noising.

What their released code does otherwise than their papers, and what is done here otherwise than
there, is in `suite/systems.py` beside each name.
"""

from torch import Tensor

from instantvir_models.operators.base import Operator
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.priors.base import Prior
from instantvir_models.solvers.iterative.corrections import (
    Conjugate,
    Descent,
    ErrorProx,
    Guidance,
    NormGuidance,
    Projection,
    Prox,
)
from instantvir_models.solvers.iterative.levels import (
    at_times,
    quadratic,
    shifted,
    spaced,
    strided,
    uniform,
)
from instantvir_models.solvers.iterative.loop import (
    Draws,
    Iterative,
    Renoising,
    Start,
    predicted,
)

DPS_STEP_SIZE = 0.3
DPS_STEP_SIZE_OF_MASKS = 0.5

SVI_LEVELS, SVI_CG_STEPS, SVI_ETA = 20, 5, 0.15

VISION_XL_TIMES = tuple(range(280, -1, -40))
"""25 steps of a DDPM, those up to time 300; the released table of noise is shifted by one."""

VISION_XL_CG_STEPS, VISION_XL_ETA = 10, 0.2

DDNM_LEVELS, DDNM_ETA = 100, 0.85

DIFFPIR_LEVELS = 100
DIFFPIR_FRESH = {"deblur": 0.1, "sr": 0.25, "mask": 1.0}
"""Share of the fresh noise in variance."""

FLOWDPS_LEVELS, FLOWDPS_SHIFT = 28, 4.0

LVTINO_LEVELS = (0.757, 0.522, 0.375, 0.255, 0.125)
LVTINO_START_WEIGHT = 200.0
LVTINO_FLOW_STEPS = 4


def dps(prior: Prior, degradation: Degradation, *, levels: int = 1000) -> Iterative:
    """Diffusion posterior sampling (Chung et al., ICLR 2023; arXiv 2209.14687)."""
    size = DPS_STEP_SIZE_OF_MASKS if _only_selects(degradation.operator) else DPS_STEP_SIZE
    return Iterative(
        prior=prior,
        levels=spaced(levels),
        correction=NormGuidance(size, levels),
        renoising=Renoising("keep", "ancestral"),
        is_clipped=True,
    )


def svi(prior: Prior, *, is_damped: bool = True) -> Iterative:
    """Solving video inverse problems using image diffusion models (Kwon and Ye, ICLR 2025; 2409.02574)."""
    return Iterative(
        prior=prior,
        levels=strided(SVI_LEVELS),
        correction=Conjugate(SVI_CG_STEPS, is_damped),
        renoising=Renoising("keep", SVI_ETA, is_shared=True),
    )


def vision_xl(prior: Prior, *, as_released: bool = True, is_damped: bool = True) -> Iterative:
    """VISION-XL (Kwon and Ye, ICCV 2025; arXiv 2412.00156).

    Args:
        as_released: the frames before the last correction come out, as its code has it.
    """
    return Iterative(
        prior=prior,
        levels=at_times(list(VISION_XL_TIMES), is_scaled=True),
        correction=Conjugate(VISION_XL_CG_STEPS, is_damped, low_pass=True),
        renoising=Renoising("keep", VISION_XL_ETA, is_shared=True),
        start=InvertedStart(at_times(list(VISION_XL_TIMES[::-1]), is_scaled=True)),
        returns_prediction=as_released,
    )


def ddnm(prior: Prior, *, levels: int = DDNM_LEVELS, eta: float = DDNM_ETA) -> Iterative:
    """Denoising diffusion null-space models (Wang et al., ICLR 2023; arXiv 2212.00490)."""
    return Iterative(
        prior=prior,
        levels=strided(levels),
        correction=Projection(),
        renoising=Renoising("keep", eta),
    )


def diffpir(prior: Prior, degradation: Degradation, *, levels: int = DIFFPIR_LEVELS) -> Iterative:
    """Denoising diffusion models for plug-and-play restoration (Zhu et al., 2023; arXiv 2305.08995)."""
    operator = degradation.operator
    kind = "sr" if operator.traits.scale > 1 else "mask" if _only_selects(operator) else "deblur"
    return Iterative(
        prior=prior,
        levels=quadratic(levels),
        correction=Prox(),
        renoising=Renoising("refit", DIFFPIR_FRESH[kind] ** 0.5),
    )


def pigdm(prior: Prior, *, levels: int = 100, as_released: bool = True) -> Iterative:
    """Pseudoinverse-guided diffusion (Song et al., ICLR 2023), as a guided flow.

    Args:
        as_released: guidance falls off with 1 + r^2, as its code has it; else as in the paper, which
            reaches the posterior of white signals.
    """
    return Iterative(
        prior=prior,
        levels=uniform(levels),
        correction=Guidance(1.0, falls_off=as_released),
        renoising=Renoising("refit"),
    )


def flowdps(prior: Prior) -> Iterative:
    """FlowDPS (Kim et al., ICCV 2025; arXiv 2503.08136)."""
    return Iterative(
        prior=prior,
        levels=shifted(FLOWDPS_LEVELS, FLOWDPS_SHIFT),
        correction=Descent(),
        renoising=Renoising("keep", "rising"),
    )


def lvtino(prior: Prior) -> Iterative:
    """LVTINO without its image branch (Spagnoletti et al., arXiv 2510.01339).

    It asks a consistency model, which gives samples; here a few steps of the probability flow do.
    """
    return Iterative(
        prior=prior,
        levels=LVTINO_LEVELS,
        correction=ErrorProx(),
        renoising=Renoising("keep", 1.0),
        start=ConsistentStart(LVTINO_START_WEIGHT),
        flow_steps=LVTINO_FLOW_STEPS,
        returns_prediction=True,
    )


def _only_selects(operator: Operator) -> bool:
    return operator.only_selects and not operator.is_identity


class ConsistentStart(Start):
    """The argmin of weight |A x - y|^2 + |x|^2, with noise (LVTINO)."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def begun(self, measurement: Measurement, prior: Prior, level: float, draws: Draws) -> Tensor:
        operator, weight = measurement.operator, self.weight
        z = prior.encode(operator.solve(weight * operator.A_adjoint(measurement.y), weight))
        return (1 - level) * z + level * draws.fresh(z)


class InvertedStart(Start):
    """The first frame of A^T y, taken back to noise along the schedule, for all frames (VISION-XL).

    Args:
        rising: levels of the way back; the last one is where the loop begins.
    """

    def __init__(self, rising: tuple[float, ...]) -> None:
        self.rising = rising

    def begun(self, measurement: Measurement, prior: Prior, level: float, draws: Draws) -> Tensor:
        y = like_clean(measurement)
        x_t = prior.encode(y[:, :1])
        for here, above in zip(self.rising, self.rising[1:], strict=False):
            prediction = predicted(prior, x_t, here)
            x_t = (1 - above) * prediction.z_0 + above * prediction.noise
        return x_t.expand(-1, y.shape[1], *(-1 for _ in x_t.shape[2:])).clone()


def like_clean(measurement: Measurement) -> Tensor:
    """y as large as the clean frames, small pixels repeated."""
    y = measurement.selected
    height, width = measurement.operator.clean_size(*y.shape[-2:])
    factor = height // y.shape[-2]
    assert (factor * y.shape[-2], factor * y.shape[-1]) == (height, width)
    return y.repeat_interleave(factor, -1).repeat_interleave(factor, -2) if factor > 1 else y
