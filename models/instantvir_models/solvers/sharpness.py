"""How sharp a restoration is: the mean of all that a place may have been, or as crisp as one of them.

What is nearest to the truth on average is the mean of what may have been there, and a mean is smoother
than anything that it is the mean of: its fine contrast lacks of the energy of the truth's what is expected
of its error, E|x|^2 = |x_hat|^2 + E|x - x_hat|^2. So where a solver says how far it is off, place by place, it
also says how much fine contrast is missing there. Giving that back is the optimal transport of a Gaussian
signal's means to the signal, and to go only a part of that way, or a little beyond, stays on the frontier
between error and looks (Freirich, Michaeli, Meir, 2021: "A theory of the distortion-perception tradeoff in
Wasserstein space").

The fine contrast is what a small smooth window leaves of the brightness, at every pixel: in bands of blocks,
such as Haar's, the same energy comes back as stairs along smooth edges (which LPIPS likes).
"""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from instantvir_models.operators.measurement import LEVEL
from instantvir_models.solvers.detail import luma, mean_over
from instantvir_models.students.base import ERROR_CELL, Estimate

SPLINE = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""The smooth window, along either axis; with a second one, twice as wide, the same LPIPS costs more."""

ERROR_SHARE = 0.4
"""Energy of a student's error in the fine contrast over its mean square, median of twelve training clips, blur
and enlargement by four (noise of 25 levels .33, enlargement by two .65)."""

MOST_GAIN = 3.0
"""On fine contrast. With 2 half as much comes back; with 4, the same LPIPS costs more under noise."""

AROUND_PIXELS = 9
"""Side of the square over which there is so much energy."""

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
    added = sharpness * lacking(estimate.x_hat, _variance(estimate))
    moved = added.square()
    std = (estimate.std.square() + moved.mean((1, 2, 3, 4))).sqrt()
    std_map = estimate.std_map
    if std_map is not None:
        cells = F.avg_pool2d(moved.flatten(0, 1), ERROR_CELL, ceil_mode=True)
        std_map = (std_map.square() + cells.unflatten(0, moved.shape[:2])).sqrt()
    return replace(estimate, x_hat=estimate.x_hat + added, std=std, std_map=std_map)


def lacking(x_hat: Tensor, variance: Tensor) -> Tensor:
    """[B, T, 1, H, W] what frames lack of fine contrast in brightness, at most twice what they have.

    Args:
        x_hat: [B, T, 3, H, W].
        variance: [B, T, 1, ceil(H / 4), ceil(W / 4)] their expected error, squared, in cells.
    """
    height, width = x_hat.shape[-2:]
    fine = fine_contrast(luma(x_hat).flatten(0, 1))
    expected = F.interpolate(variance.flatten(0, 1), scale_factor=ERROR_CELL, mode="bilinear")
    energy = mean_over(fine.square(), AROUND_PIXELS) + FLOOR
    gain = (1 + ERROR_SHARE * expected[..., :height, :width] / energy).sqrt().clamp_max(MOST_GAIN)
    return ((gain - 1) * fine).unflatten(0, x_hat.shape[:2])


def fine_contrast(values: Tensor) -> Tensor:
    """[n, 1, H, W] less their smooth means."""
    half = len(SPLINE) // 2
    window = values.new_tensor(SPLINE)
    rows = F.conv2d(F.pad(values, (0, 0, half, half), mode="replicate"), window.view(1, 1, -1, 1))
    return values - F.conv2d(
        F.pad(rows, (half, half, 0, 0), mode="replicate"), window.view(1, 1, 1, -1)
    )


def _variance(estimate: Estimate) -> Tensor:
    """[B, T, 1, h, w] expected error, squared, in cells."""
    if estimate.std_map is not None:
        return estimate.std_map.square()
    frames, _, height, width = estimate.x_hat.shape[1:]
    cells = (-(-height // ERROR_CELL), -(-width // ERROR_CELL))
    return estimate.std.square().view(-1, 1, 1, 1, 1).expand(-1, frames, 1, *cells)
