"""Data consistency: the estimate may add what the measurement lacks, not contradict it."""

from torch import Tensor

from instantvir_models.operators.measurement import Measurement
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
    weight = estimate_std**2 / noise_variance(measurement)
    return measurement.operator.nearest_to(x_hat, measurement.y, weight)


def relative_residual(x: Tensor, measurement: Measurement) -> float:
    """||A x - y|| / ||y||, the part of the measurement that x does not explain."""
    error = measurement.operator.A(x) - measurement.y
    return float(error.norm() / measurement.y.norm().clamp_min(1e-12))
