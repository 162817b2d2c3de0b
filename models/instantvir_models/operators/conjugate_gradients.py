"""Conjugate gradients, for what the DCT does not diagonalise."""

from collections.abc import Callable

from torch import Tensor


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    tolerance: float,
    max_steps: int,
    start: Tensor | None = None,
    preconditioner: Tensor | float = 1.0,
) -> Tensor:
    """Solution v of normal(v) = b for a symmetric positive definite `normal`, of the shape of b.

    Args:
        tolerance: residual over b, each over the root of the preconditioner, at which to stop.
        start: first guess; b over the preconditioner by default.
        preconditioner: what `normal` roughly multiplies each element with; positive.
    """
    v = b / preconditioner if start is None else start
    residual = b - normal(v)
    direction = residual / preconditioner
    energy = (residual * direction).sum()
    goal = tolerance**2 * (b.square() / preconditioner).sum()
    for _ in range(max_steps):
        if energy <= goal:
            break
        image = normal(direction)
        step = energy / (direction * image).sum()
        v = v + step * direction
        residual = residual - step * image
        corrected = residual / preconditioner
        energy, previous = (residual * corrected).sum(), energy
        direction = corrected + energy / previous * direction
    return v
