"""How sharp a restoration is: the mean of all that a place may have been, or as crisp as one of them.

What is nearest to the truth on average is the mean of what may have been there, and a mean is smoother
than anything that it is the mean of: of each coefficient's energy it lacks what is expected of its error,
E|x|^2 = |x_hat|^2 + E|x - x_hat|^2. So where a solver says how far it is off, place by place, it also says
how much fine contrast is missing there. Giving that back is the optimal transport of a Gaussian signal's
means to the signal, and to go only a part of that way, or a little beyond, stays on the frontier between
error and looks (Freirich, Michaeli, Meir, 2021: "A theory of the distortion-perception tradeoff in
Wasserstein space").
"""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.solvers.detail import mean_over
from instantvir_models.students.base import ERROR_CELL, Estimate
from instantvir_models.students.fusion import LUMA
from instantvir_models.students.layers import padded

ERROR_SHARE = (0.7, 0.7, 0.18)
"""Energy of a student's error in the horizontal, vertical and diagonal band over its mean square, median of
twelve training clips, blur and enlargement by four (noise of 25 levels: .62, .69, .21)."""

MOST_GAIN = 2.0
"""On a coefficient. With 3, the same LPIPS costs up to a fifth more."""

AROUND = 5
"""Side in coefficients of the square over which there is so much energy. With 3 to 9 within a tenth."""

FLOOR = (0.25 * LEVEL) ** 2
"""Of energy: less of it nobody sees."""


def sharpened(estimate: Estimate, sharpness: float) -> Estimate:
    """`estimate` with a part of the fine brightness contrast that its expected error says it lacks.

    How far it believes to be off grows by what was changed: exactly so, if it was the mean.

    Args:
        sharpness: 0 changes nothing, 1 gives back all of it, 1.5 more than that.
    """
    if sharpness == 0:
        return estimate
    x_hat = estimate.x_hat
    x = _with_energy(x_hat, _variance(estimate), sharpness)
    moved = (x - x_hat).square().mean(2, keepdim=True)
    std = (estimate.std.square() + moved.mean((1, 2, 3, 4))).sqrt()
    std_map = estimate.std_map
    if std_map is not None:
        cells = F.avg_pool2d(moved.flatten(0, 1), ERROR_CELL, ceil_mode=True)
        std_map = (std_map.square() + cells.unflatten(0, moved.shape[:2])).sqrt()
    return replace(estimate, x_hat=x, std=std, std_map=std_map)


def _variance(estimate: Estimate) -> Tensor:
    """[B, T, 1, h, w] expected error, squared, in cells."""
    if estimate.std_map is not None:
        return estimate.std_map.square()
    frames, _, height, width = estimate.x_hat.shape[1:]
    cells = (-(-height // ERROR_CELL), -(-width // ERROR_CELL))
    return estimate.std.square().view(-1, 1, 1, 1, 1).expand(-1, frames, 1, *cells)


def _with_energy(x_hat: Tensor, variance: Tensor, sharpness: float) -> Tensor:
    """x_hat [B, T, 3, H, W] whose fine bands of brightness have a part of the energy they lack."""
    height, width = x_hat.shape[-2:]
    bands = haar(padded(x_hat.flatten(0, 1), ERROR_CELL))
    expected = F.interpolate(variance.flatten(0, 1), scale_factor=2, mode="bilinear")
    luma = bands.new_tensor(LUMA).view(3, 1, 1)
    for first, share in zip((3, 6, 9), ERROR_SHARE, strict=True):
        band = bands[:, first : first + 3]
        energy = mean_over(band.square().mean(1, keepdim=True), AROUND) + FLOOR
        gain = (1 + share * expected / energy).sqrt().clamp_max(MOST_GAIN)
        band += sharpness * (gain - 1) * (band * luma).sum(1, keepdim=True)
    x = inverse_haar(bands)[..., :height, :width]
    return x.unflatten(0, x_hat.shape[:2])
