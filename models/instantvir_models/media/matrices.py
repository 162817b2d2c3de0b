"""Colour that is no matrix of three numbers: YCgCo, BT.2020 with constant luminance, and ICtCp.

Everything is float32 and full scale: Y and I from 0 to 1, differences from -0.5 to 0.5. Formulas of
ITU-T H.273 (MatrixCoefficients 8, 10, 14) and ITU-R BT.2020 and BT.2100.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

MATRIX_YCGCO, MATRIX_BT2020_CL, MATRIX_ICTCP = 8, 10, 14
OTHER_MATRICES = frozenset({MATRIX_YCGCO, MATRIX_BT2020_CL, MATRIX_ICTCP})
_PQ, _HLG = 16, 18

_LMS_OF_ICTCP = np.array(  # BT.2100, inverse of table 7
    [[1, 0.00860904, 0.11102963], [1, -0.00860904, -0.11102963], [1, 0.56003134, -0.32062717]]
)
_LMS_OF_ICTCP_HLG = np.array(
    [[1, 0.01571858, 0.20958107], [1, -0.01571858, -0.20958107], [1, 1.02127108, -0.60527449]]
)
_LMS_OF_RGB = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096


def to_rgb_levels(
    luma: Plane, first: Plane, second: Plane, *, matrix: int, transfer: int
) -> NDArray[np.float32]:
    """[H, W, 3] R'G'B' from 0 to 1 (not clipped), from the planes as they are stored.

    Args:
        matrix: one of `OTHER_MATRICES`.
        transfer: H.273's number of the transfer function, which two of them need.
    """
    if matrix == MATRIX_YCGCO:
        green, rest = luma + first, luma - first
        return np.stack([rest + second, green, rest - second], axis=-1)
    if matrix == MATRIX_BT2020_CL:
        return _constant_luminance(luma, first, second, transfer)
    return _ictcp(luma, first, second, transfer)


def _constant_luminance(luma: Plane, cb: Plane, cr: Plane, transfer: int) -> NDArray[np.float32]:
    blue = luma + cb * np.where(cb <= 0, 1.9404, 1.5816)
    red = luma + cr * np.where(cr <= 0, 1.7184, 0.9936)
    light = [_to_light(plane.clip(0, 1), transfer) for plane in (luma, red, blue)]
    green = (light[0] - 0.2627 * light[1] - 0.0593 * light[2]) / 0.6780
    rgb = np.stack([red, _from_light(green.clip(0, 1), transfer), blue], axis=-1)
    return rgb.astype(np.float32)


def _ictcp(intensity: Plane, ct: Plane, cp: Plane, transfer: int) -> NDArray[np.float32]:
    matrix = _LMS_OF_ICTCP_HLG if transfer == _HLG else _LMS_OF_ICTCP
    if transfer not in (_PQ, _HLG):
        transfer = _PQ
    lms = np.stack([intensity, ct, cp], axis=-1) @ matrix.T
    rgb = _to_light(lms.clip(0, 1), transfer) @ np.linalg.inv(_LMS_OF_RGB).T
    return _from_light(rgb.clip(0, 1), transfer).astype(np.float32)


def _to_light(signal: NDArray[np.floating], transfer: int) -> NDArray[np.float64]:
    """Linear light from 0 to 1 of a signal from 0 to 1."""
    value = signal.astype(np.float64)
    if transfer == _PQ:
        power = value ** (1 / _PQ_M2)
        return (np.maximum(power - _PQ_C1, 0) / (_PQ_C2 - _PQ_C3 * power)) ** (1 / _PQ_M1)
    if transfer == _HLG:
        dark = value**2 / 3
        return np.where(value <= 0.5, dark, (np.exp((value - _HLG_C) / _HLG_A) + _HLG_B) / 12)
    return np.where(value < 4.5 * _BETA, value / 4.5, ((value + _ALPHA - 1) / _ALPHA) ** (1 / 0.45))


def _from_light(light: NDArray[np.floating], transfer: int) -> NDArray[np.float64]:
    value = light.astype(np.float64)
    if transfer == _PQ:
        power = value**_PQ_M1
        return ((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)) ** _PQ_M2
    if transfer == _HLG:
        bright = _HLG_A * np.log(np.maximum(12 * value - _HLG_B, 1e-9)) + _HLG_C
        return np.where(value <= 1 / 12, np.sqrt(3 * value), bright)
    return np.where(value < _BETA, 4.5 * value, _ALPHA * value**0.45 - (_ALPHA - 1))


_ALPHA, _BETA = 1.09929682680944, 0.018053968510807
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
