"""Undo a degradation that instantvir does not know: rows blended by a cheap deinterlacer.

    python examples/custom_operator.py blended.mkv sharp.mkv

`A` and its adjoint say what happened, `traits` tells a student how strong it was; the inverse follows.
"""

import sys

import torch
from torch import Tensor

import instantvir

LEVEL = 1 / 127.5
"""One 8-bit level, where pixels go from -1 to 1."""


class BlendedRows(instantvir.Operator):
    """Every row is the mean of itself and the one below; the last row stays."""

    spec = "blended_rows"  # a name for reports; only operators of the grammar can be read back

    def A(self, x: Tensor) -> Tensor:
        below = torch.cat([x[..., 1:, :], x[..., -1:, :]], -2)
        return (x + below) / 2

    def A_adjoint(self, y: Tensor) -> Tensor:
        above = torch.cat([torch.zeros_like(y[..., :1, :]), y[..., :-1, :]], -2)
        x = (y + above) / 2
        x[..., -1, :] += y[..., -1, :] / 2
        return x

    @property
    def traits(self) -> instantvir.OperatorTraits:
        # two taps in one direction: as much blur as a Gaussian of 0.35 px in both
        return instantvir.OperatorTraits(blur_sigma=0.35)


def main(source: str, destination: str) -> None:
    """Restore `source`, blended and with noise of 2 levels."""
    blended = instantvir.Degradation(operator=BlendedRows(), noise_std=2 * LEVEL)
    report = instantvir.restore(source, destination, operator=blended, codec="ffv1")
    print(f"{report.frames} frames; |A x - y| / |y| is {report.residual:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except instantvir.InstantVIRError as error:
        sys.exit(f"{error}\n{error.hint or ''}")
