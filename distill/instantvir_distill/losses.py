"""Losses, one pure function each."""

from torch import Tensor


def relative_error(
    x_hat: Tensor, x: Tensor, *, variance: Tensor | float, power: float = 0.5
) -> Tensor:
    """A power of the squared error over `variance`, the squared error of the start; a scalar.

    Every sample counts by how much better it became, whatever its noise; the smaller the power,
    the more by the ratio in decibels, which is large where much can be improved.
    """
    return ((x_hat - x).square().mean() / variance + 1e-4) ** power


def miscalibration(squared_error: Tensor, variance: Tensor) -> Tensor:
    """Minus the log-likelihood of errors of an expected `variance`, both [n, 1, h, w]; a scalar.

    It is least where each variance is the mean of the squared errors that look alike.
    """
    return 0.5 * (squared_error / variance + variance.log()).mean()
