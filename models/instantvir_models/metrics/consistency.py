"""Whether a restored video explains the measurement: what it leaves of it over what noise explains."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.operators.measurement import Measurement, unexplained_std


def residual_over_noise(x: Tensor, measurement: Measurement) -> NDArray[np.float64]:
    """Rms of A x - y over that of noise, rounding and codec, [T]: 1 explains y, below fits its noise.

    Args:
        x: restored frames [1, T, 3, H, W] in [-1, 1].
    """
    operator, y = measurement.operator, measurement.y
    error = (operator.A(x) - measurement.selected).square()
    known = operator.known_pixels(y)
    counted = 1.0 if known is None else float(known.mean())
    rms = (error.mean((0, 2, 3, 4)) / counted).sqrt()
    return rms.double().numpy() / unexplained_std(measurement.degradation)
