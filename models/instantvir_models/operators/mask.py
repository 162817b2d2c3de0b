"""Missing pixels: masks fixed for a clip or changing per frame."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator, OperatorTraits
from instantvir_models.operators.modes import Grid

PLATE_STEPS = 6
"""Conjugate-gradient steps towards the thin plate. From a pull-push start, half of random pixels
missing, six steps come within 0.2 dB of the solution; each costs a hundredth of solving for it."""


class Mask(Operator):
    """Keeps the pixels where the mask is 1 and loses (sets to 0, mid-grey) the others.

    Args:
        mask: [T, 1, H, W] of 0 and 1; 1 marks a known pixel. T = 1 holds for the whole clip,
            otherwise frame t uses mask[t], and the last mask stays on.
        spec: how this mask is written in a specification.
    """

    only_selects = True

    def __init__(self, mask: Tensor, *, spec: str = "mask:path=mask.png") -> None:
        if mask.ndim != 4 or mask.shape[1] != 1:
            raise ValueError(f"a mask has shape [T, 1, H, W], got {tuple(mask.shape)}")
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("a mask holds only 0 (unknown) and 1 (known)")
        self.mask = mask
        self.spec = spec
        self._known_fraction = float(mask.mean(dtype=torch.float64))

    def _frames(self, x: Tensor) -> Tensor:
        """The mask of each frame of `x`, broadcastable to it."""
        height, width = self.mask.shape[-2:]
        if x.shape[-2:] != self.mask.shape[-2:]:
            raise UsageError(
                f"the mask is {width}x{height} but the video is {x.shape[-1]}x{x.shape[-2]}",
                hint="give a mask of the size of the video",
            )
        if len(self.mask) == 1:
            return self.mask.to(x)
        index = torch.arange(x.shape[1]).clamp_max(len(self.mask) - 1)
        return self.mask[index].to(x)

    def A(self, x: Tensor) -> Tensor:
        return x * self._frames(x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.A(y)  # diagonal

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        return b / (1 + weight * self._frames(b))

    def A_dagger(self, y: Tensor) -> Tensor:
        """y itself with the unknown pixels at 0: a projection is its own pseudo-inverse."""
        return self.A(y)

    @property
    def is_identity(self) -> bool:
        return self._known_fraction == 1

    def mode_energy(self, grid: Grid, later: Tensor) -> Tensor:
        return later * self._known_fraction

    def completed(self, y: Tensor) -> Tensor:
        """Holes filled smoothly, as a thin plate bends; known pixels stay."""
        return self._filled(y, self._frames(y))

    def _filled(self, y: Tensor, seen: Tensor) -> Tensor:
        """y with what is not `seen`, which broadcasts to [T, 1, H, W], filled smoothly."""
        known = seen.expand(*y.shape[:2], 1, *y.shape[-2:])
        filled = torch.where(known.bool(), y, pull_push(y * known, known))
        plates = [
            bend_like_plates(frame, holes)
            for frame, holes in zip(filled.flatten(0, 1), (1 - known).flatten(0, 1), strict=True)
        ]
        return torch.stack(plates).view_as(filled)

    def known_pixels(self, y: Tensor) -> Tensor:
        return self._frames(y)[None]

    def cropped(self, rows: slice, columns: slice) -> "Mask":
        return Mask(self.mask[..., rows, columns], spec=self.spec)

    def at_frame(self, first_frame: int) -> "Mask":
        if len(self.mask) == 1:
            return self
        return Mask(self.mask[min(first_frame, len(self.mask) - 1) :], spec=self.spec)

    @property
    def changes_over_time(self) -> bool:
        return len(self.mask) > 1

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits(known_fraction=self._known_fraction)


class GuessedMask(Mask):
    """Loses pixels, but in the place of some the measurement shows what was computed from what is
    around them: that is where their estimate starts.

    Args:
        mask: as `Mask` takes it.
        guessed: [T, 1, H, W] of 0 and 1, as many as there are masks; 1 where a guess is shown.
    """

    def __init__(self, mask: Tensor, guessed: Tensor, *, spec: str) -> None:
        super().__init__(mask, spec=spec)
        self.guessed = guessed

    def completed(self, y: Tensor) -> Tensor:
        seen = (self.mask + self.guessed).to(y)
        return y if bool((seen == 1).all()) else self._filled(y, seen)

    def cropped(self, rows: slice, columns: slice) -> "GuessedMask":
        return GuessedMask(
            self.mask[..., rows, columns], self.guessed[..., rows, columns], spec=self.spec
        )

    def at_frame(self, first_frame: int) -> "GuessedMask":
        first = min(first_frame, len(self.mask) - 1)
        return GuessedMask(self.mask[first:], self.guessed[first:], spec=self.spec)


class FrameMasks(Operator):
    """Loses other pixels in each frame; which ones comes along with the frames.

    It only says so. Once the frames are there `compose.masked` puts a `Mask` in its place.

    Args:
        spec: how it is written in a specification.
    """

    only_selects = True

    def __init__(self, *, spec: str) -> None:
        self.spec = spec

    def A(self, x: Tensor) -> Tensor:
        """x itself, before it is known which of its pixels were lost."""
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y

    def completed(self, y: Tensor) -> Tensor:
        return y

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits(known_fraction=FRACTION_TO_BE_TOLD)


def largest_known_part(mask: Tensor, *, grid: int = 16) -> tuple[slice, slice]:
    """Rows and columns of the largest rectangle of which every pixel is known in all frames; empty ones where
    there is none.

    Args:
        mask: [T, 1, H, W], 1 where a pixel is known.
        grid: pixels that its sides are multiples of.
    """
    known = mask.amin((0, 1)).numpy()
    rows, columns = (side // grid for side in known.shape)
    cells = (
        known[: rows * grid, : columns * grid].reshape(rows, grid, columns, grid).min((1, 3)) > 0
    )
    best, found = 0, (0, 0, 0, 0)
    heights = np.zeros(columns, int)
    for bottom, row in enumerate(cells, 1):
        heights = np.where(row, heights + 1, 0)  # of the known cells that end in this row
        for left in range(columns):
            lowest = np.minimum.accumulate(heights[left:])
            areas = lowest * np.arange(1, columns - left + 1)
            most = int(areas.argmax())
            if areas[most] > best:
                best = int(areas[most])
                found = (bottom - int(lowest[most]), bottom, left, left + most + 1)
    top, bottom, left, right = (grid * place for place in found)
    return slice(top, bottom), slice(left, right)


class MaskFile(FrameMasks):
    """Masks that are stored as a video, or as a folder of images.

    Args:
        path: of the video or the folder.
    """

    def __init__(self, path: Path, *, spec: str) -> None:
        super().__init__(spec=spec)
        self.path = path


class ChangingHoles(FrameMasks):
    """Holes that show in each frame by themselves, elsewhere in the next."""

    def __init__(self) -> None:
        super().__init__(spec="mask:path=estimated")


class Dust(FrameMasks):
    """Spots that one frame has and its neighbours do not: what lay on a film."""

    def __init__(self) -> None:
        super().__init__(spec="dust")

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits(known_fraction=0.99)  # it would be another picture with more of them


FRACTION_TO_BE_TOLD = 0.5
"""What stands for the share of known pixels as long as no frame has told it."""


def pull_push(values: Tensor, weights: Tensor) -> Tensor:
    """Smooth filling of the places where `weights` is small, [B, T, C, H, W].

    Normalised convolution at every scale, coarse to fine: each scale trusts its own average as
    far as it has seen known pixels, and takes the rest from the scale above (Gortler et al. 1996).

    Args:
        values: [B, T, C, H, W], already multiplied by the weights.
        weights: [B, T, 1, H, W] in [0, 1].
    """
    lead, size = values.shape[:-2], values.shape[-2:]
    summed = _smooth(values.flatten(0, 2)[:, None])
    weight = _smooth(weights.flatten(0, 2)[:, None])
    weight = weight.repeat_interleave(lead[2], 0)
    return _fill(summed, weight).reshape(*lead, *size)


def bend_like_plates(x: Tensor, holes: Tensor, *, steps: int = PLATE_STEPS) -> Tensor:
    """`x` with its holes moved towards the surface of least bending energy, [C, H, W].

    Conjugate gradients on the biharmonic equation inside the holes, borders mirrored.

    Args:
        x: [C, H, W] with any first guess inside the holes. One frame at a time fits in a cache.
        holes: [1, H, W], 1 where a pixel is unknown.
        steps: how many; the whole picture takes every step.
    """
    residual = _laplacian(_laplacian(x)).neg_().mul_(holes)
    direction, energy = residual, residual.square().sum()
    for _ in range(steps):
        image = _laplacian(_laplacian(direction)).mul_(holes)
        # no hole, nothing to bend: the tiny number keeps 0 / 0 away
        step = energy / (direction * image).sum().clamp_min(1e-20)
        x = torch.addcmul(x, direction, step)
        residual = torch.addcmul(residual, image, -step)
        energy, previous = residual.square().sum(), energy
        direction = torch.addcmul(residual, direction, energy / previous.clamp_min(1e-20))
    return x


def _laplacian(x: Tensor) -> Tensor:
    """Sum of the four neighbours minus four times the pixel, [C, H, W], borders mirrored."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    total = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    total += padded[:, 1:-1, :-2]
    total += padded[:, 1:-1, 2:]
    return total.sub_(x, alpha=4)


def _smooth(x: Tensor) -> Tensor:
    """`x` [n, 1, H, W] filtered by (1, 4, 6, 4, 1)^2 / 256 with mirrored borders: by (1, 2, 1)^2 twice,
    which borders that are mirrored by a pixel suffice for."""
    for _ in range(2):
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        for dim in (-1, -1, -2, -2):
            pairs = x.shape[dim] - 1
            x = x.narrow(dim, 0, pairs) + x.narrow(dim, 1, pairs)
    return x / 256


def _fill(summed: Tensor, weight: Tensor) -> Tensor:
    if min(summed.shape[-2:]) <= 2:
        total = weight.mean((-2, -1), keepdim=True).clamp_min(1e-6)
        above = (summed.mean((-2, -1), keepdim=True) / total).expand_as(summed)
    else:
        coarse = [
            F.avg_pool2d(t, 2, ceil_mode=True, count_include_pad=False) for t in (summed, weight)
        ]
        filled = _fill(*(_smooth(t) for t in coarse))
        above = F.interpolate(filled, size=summed.shape[-2:], mode="bilinear", align_corners=False)
    trust = 0.02
    return (summed + trust * above) / (weight + trust)
