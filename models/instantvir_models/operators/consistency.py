"""Data consistency: the estimate may add what the measurement lacks, not contradict it."""

from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.modes import (
    Grid,
    Steps,
    adjoint,
    are_gains,
    forward,
    from_modes,
    shrunk,
    to_modes,
)
from instantvir_models.operators.prior import noise_variance


def data_consistency(
    x_hat: Tensor, measurement: Measurement, *, estimate_std: Tensor | float
) -> Tensor:
    """The most probable x given both y and the estimate, [B, T, 3, H, W].

    argmin_x |A x - y|^2 / noise^2 + |x - x_hat|^2 / estimate^2, in closed form:
    (I + w A^T A)^-1 (x_hat + w A^T y) with w = estimate_std^2 / noise_std^2.

    Args:
        x_hat: a solver's estimate [B, T, 3, H, W].
        estimate_std: the solver's own error in the [-1, 1] range, number or scalar tensor.
    """
    weight = _weight(measurement, estimate_std)
    steps = _gains(x_hat, measurement)
    if steps is None:
        return measurement.operator.nearest_to(x_hat, measurement.y, weight)
    return _frames(_nearest_modes(steps, x_hat, measurement, weight), measurement)


def consistent_and_measured(
    x_hat: Tensor, measurement: Measurement, *, estimate_std: Tensor | float
) -> tuple[Tensor, Tensor]:
    """`data_consistency`, x, and A x: where the DCT diagonalises A, the modes of x are there already."""
    steps = _gains(x_hat, measurement)
    if steps is None:
        x = data_consistency(x_hat, measurement, estimate_std=estimate_std)
        return x, measurement.operator.A(x)
    modes = _nearest_modes(steps, x_hat, measurement, _weight(measurement, estimate_std))
    return _frames(modes, measurement), _frames(forward(steps, modes), measurement)


def _weight(measurement: Measurement, estimate_std: Tensor | float) -> Tensor | float:
    return estimate_std**2 / noise_variance(measurement)


def _gains(x_hat: Tensor, measurement: Measurement) -> Steps | None:
    """A as steps, where each multiplies modes by numbers; None where it does more."""
    steps = measurement.operator.mode_steps(Grid(x_hat.shape[1], *x_hat.shape[-2:]))
    return steps if steps is not None and steps and are_gains(steps) else None


def _nearest_modes(
    steps: Steps, x_hat: Tensor, measurement: Measurement, weight: Tensor | float
) -> Tensor:
    b = to_modes(x_hat, over_time=measurement.over_time)
    return shrunk(steps, b + weight * adjoint(steps, measurement.y_modes), weight)


def _frames(modes: Tensor, measurement: Measurement) -> Tensor:
    return from_modes(modes, over_time=measurement.over_time)


def relative_residual(x: Tensor, measurement: Measurement) -> float:
    """||A x - y|| / ||y||, the part of the measurement that x does not explain."""
    error = measurement.operator.A(x) - measurement.y
    return float(error.norm() / measurement.y.norm().clamp_min(1e-12))
