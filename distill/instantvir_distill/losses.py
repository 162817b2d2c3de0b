"""Losses, one pure function each; x and x_hat are [B, T, 3, H, W] in [-1, 1]."""

from torch import Tensor


def charbonnier(error: Tensor, epsilon: float = 2e-3) -> Tensor:
    """Mean of sqrt(error^2 + epsilon^2), a smooth absolute value."""
    return (error.square() + epsilon**2).sqrt().mean()


def regression(x_hat: Tensor, x: Tensor, *, temporal_weight: float) -> Tensor:
    """Distance to the clean frames, plus distance of the frame differences (flicker)."""
    error = x_hat - x
    loss = charbonnier(error)
    if x.shape[1] > 1 and temporal_weight:
        loss = loss + temporal_weight * charbonnier(error.diff(dim=1))
    return loss
