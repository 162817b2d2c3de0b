"""Noisy frames, and holes, filtered once more, with what a student made of them as the pilot.

The second step of BM3D (Dabov et al., 2007) and of its kin: in overlapping blocks of 8x8 pixels and
all frames at once, of colours that are made independent, what the pilot has little of is mostly the
noise that it kept. Each coefficient is multiplied by P / (P + noise), P the power of the pilot.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.operators.measurement import LEVEL

CELL, CELLS = 4, 2
"""A block is two cells of four pixels wide and high; blocks begin at every cell."""

ROWS_AT_ONCE = 8
"""Rows of blocks, whose coefficients stay in a processor's cache."""

COLOURS = (
    (1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)),
    (1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)),
    (1 / math.sqrt(6), -2 / math.sqrt(6), 1 / math.sqrt(6)),
)
"""Brightness and two differences, orthonormal: .4 dB at noise of 5 levels beside red, green and blue."""

LEVELS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0)
"""Of noise, in 8 bits, at which the numbers below were found on sixteen training clips: the least mean
error in decibels; .35 dB at 25 levels to .7 dB at 2, and no clip lost (`benchmarks/fit_pilot.py`)."""
NOISE_SHARE = (1.0, 1.0, 0.75, 0.5, 0.5, 0.5)
"""Of the variance of the noise, as which it counts: a pilot lacks some of what there is."""
FILTERED = (1.0, 1.0, 0.95, 0.85, 0.65, 0.65)
"""How much of the result is what was filtered."""
MEASURED = (0.55, 0.5, 0.42, 0.41, 0.46, 0.54)
"""How much of that is made of the noisy frames, and not of the pilot."""
ERROR_LEFT = (0.933, 0.922, 0.927, 0.941, 0.96, 0.955)
"""What the error then is, of that of the pilot."""

HOLE_SHARES = (1.0, 0.5)
"""Of the squared error in holes, as which noise counts each time: .3 dB where half of the pixels are
there, .05 to .6 dB for boxes, lines and other parts, on six training clips; none lost."""
LEAST_HOLES = 0.02
"""Part of the pixels; of fewer holes the error is not known any better."""
FILLED_ERROR_LEFT = 0.96
"""What the error then is, of that before: .33 dB less where half of the pixels are there."""


def filtered(x_hat: Tensor, y: Tensor, noise_std: float) -> Tensor:
    """[n, 3, H, W]: the frames x_hat of one block, what they kept of white noise taken away.

    Adding a constant to both adds it to the result, and what is black or white stays so: means of
    blocks are the pilot's.

    Args:
        y: the noisy frames [n, 3, H, W], in the order of time; x_hat where nothing was measured (.2 to
            1.5 dB on training clips, whatever is missing).
        noise_std: of y, [-1, 1] range, above 0.
    """
    share, part, measured = (along(noise_std, v) for v in (NOISE_SHARE, FILTERED, MEASURED))
    found = shrunk(x_hat, torch.lerp(x_hat, y, measured), share * noise_std**2)
    return torch.lerp(x_hat, found, part)


def filled(x_hat: Tensor, y: Tensor, known: Tensor, variance: Tensor) -> Tensor:
    """[n, 3, H, W]: the frames x_hat of one block, nearer to what is around in their holes.

    What blocks have little of is taken away, and what was measured is put back, twice (iterated
    shrinkage, as in Guleryuz, 2006).

    Args:
        y: measured frames [n, 3, H, W], exact where `known` [n, 1, H, W] is 1.
        variance: of the error of x_hat, the mean over all pixels, above 0; a tensor of one number,
            so that no device is waited for.
    """
    holes = (1 - known.mean()).clamp_min(LEAST_HOLES)
    for share in HOLE_SHARES:
        found = shrunk(x_hat, x_hat, share * variance / holes)
        x_hat = torch.lerp(found, y, known)
    return x_hat


def shrunk(pilot: Tensor, frames: Tensor, noise: float | Tensor) -> Tensor:
    """`frames` [n, 3, H, W] less what is not in the pilot, both of one block."""
    with torch.autocast(pilot.device.type, enabled=False):
        colours, over_time = _colours(pilot.device), _cosines(len(pilot), pilot.device)
        seen = _cells(_mixed(colours, pilot))
        given = None if frames is pilot else _cells(_mixed(colours, frames))
        total, weights = torch.zeros_like(seen), torch.zeros_like(seen[:1, :1, :1])
        for first in range(0, seen.shape[-2] - 1, ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE + 1)
            strip, weight = _filtered_strip(
                seen[..., rows, :], None if given is None else given[..., rows, :], over_time, noise
            )
            total[..., rows, :] += strip
            weights[..., rows, :] += weight
        found = _pixels(total / weights, pilot.shape[-2:])
        return _mixed(colours.mT, found)


def along(noise_std: float, values: tuple[float, ...]) -> float:
    """Of `values` at `LEVELS`, that at a noise between; beyond them that of the last."""
    place = math.log(max(noise_std / LEVEL, LEVELS[0]))
    for low, high, a, b in zip(LEVELS, LEVELS[1:], values, values[1:], strict=False):
        if place <= math.log(high):
            return a + (b - a) * (place - math.log(low)) / math.log(high / low)
    return values[-1]


def _filtered_strip(
    pilot: Tensor, frames: Tensor | None, over_time: Tensor, noise: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over blocks of what is filtered (the pilot itself if no frames), and of their weights, both
    in cells."""
    X = _over_time(_blocks(pilot), over_time)
    power = X.square()
    gain = power / (power + noise)
    gain[0, :, 0] = 1  # how bright a block is says nothing
    weight = 1 / (gain.square().sum((0, 1, 2)) + 1e-3)
    kept = gain * (X if frames is None else _over_time(_blocks(frames), over_time))
    kept[0, :, 0] = X[0, :, 0]
    kept = _over_time(kept * weight, over_time.T)
    back = F.conv_transpose2d(kept.flatten(0, 1), _basis(pilot.device))
    ones = pilot.new_ones(1, 1, CELLS, CELLS)
    return back.unflatten(0, pilot.shape[:2]), F.conv_transpose2d(weight[None, None], ones)[None]


def _mixed(matrix: Tensor, frames: Tensor) -> Tensor:
    """The colours [n, 3, H, W] mixed by a matrix [3, 3]."""
    return (matrix @ frames.flatten(2)).view_as(frames)


def _cells(frames: Tensor) -> Tensor:
    """[n, 3, 16, rows, columns], the pixels of each cell as channels; a border of a cell around."""
    height, width = frames.shape[-2:]
    right, bottom = CELL + -width % CELL, CELL + -height % CELL
    around = F.pad(frames, (CELL, right, CELL, bottom), mode="replicate")
    by_cell = around.unflatten(-1, (-1, CELL)).unflatten(
        -3, (-1, CELL)
    )  # n, 3, rows, 4, columns, 4
    return by_cell.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def _pixels(cells: Tensor, size: torch.Size) -> Tensor:
    """What `_cells` took apart, [n, 3, *size]."""
    by_cell = cells.unflatten(2, (CELL, CELL)).permute(0, 1, 4, 2, 5, 3)
    frames = by_cell.flatten(4).flatten(2, 3)
    return frames[..., CELL : CELL + size[0], CELL : CELL + size[1]]


def _blocks(cells: Tensor) -> Tensor:
    """[n, 3, 64, rows - 1, columns - 1] coefficients of the DCT of every block."""
    return F.conv2d(cells.flatten(0, 1), _basis(cells.device)).unflatten(0, cells.shape[:2])


def _over_time(values: Tensor, matrix: Tensor) -> Tensor:
    return torch.tensordot(matrix, values, 1)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept: also for who will ask for gradients
def _colours(device: torch.device) -> Tensor:
    return torch.tensor(COLOURS, device=device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _basis(device: torch.device) -> Tensor:
    """[64, 16, 2, 2], the cosines of a block of cells."""
    cosines = _cosines(CELL * CELLS, torch.device("cpu"))
    waves = torch.einsum("ay,bx->abyx", cosines, cosines).flatten(0, 1)[:, None]
    return F.pixel_unshuffle(waves, CELL).to(device)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _cosines(size: int, device: torch.device) -> Tensor:
    """[size, size], the orthonormal DCT-II."""
    k = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi * (k + 0.5) * k[:, None] / size) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.float().to(device)
