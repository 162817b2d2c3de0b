"""A prior that has seen a measurement: posterior means given noisy signal and y together.

With a prior that takes noise levels per pixel, or per box mean and rest, two Gaussian looks at x -
the noisy signal and the measurement - are one look at the precision-weighted mean of both, for
every operator that is diagonal in that basis: 1/s^2 = 1/r^2 + d^2/q^2 per coefficient. For
denoising this is the posterior teacher of NCVSD (arXiv 2506.09416); for masks and box enlargement
it is the same formula per coefficient. Any other operator: the prior's own estimate made consistent
with y, as if its errors were white.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate, noise_variance
from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import (
    NoiseLevel,
    PixelNoise,
    PooledNoise,
    box_means,
    enlarged_boxes,
    white,
)

ANNEALING = (0.5, 0.35, 0.24, 0.17, 0.12, 0.08, 0.055, 0.04)
"""Noise levels of `annealed_estimate`, [-1, 1] range."""


@dataclass(frozen=True)
class Look:
    """z = x + S e: a signal as far as it is seen, and how noisy that is."""

    z: Tensor
    """[B, T, C, H, W]."""
    noise: NoiseLevel


def combined_look(z: Tensor, noise_std: Tensor, measurement: Measurement) -> Look | None:
    """All that z = x + r e and y tell of x in one look; None where y is no look at coefficients.

    Args:
        z: [B, T, C, H, W] pixels.
        noise_std: r, [B].
    """
    operator, y = measurement.operator, measurement.y
    r2 = noise_std.to(z).square().reshape(-1, 1, 1, 1, 1)
    q2 = noise_variance(measurement)
    if operator.is_identity or operator.only_selects:
        known = operator.known_pixels(y)
        seen = (torch.ones_like(z[:, :, :1]) if known is None else known.to(z)) / q2
        s2 = 1 / (1 / r2 + seen)
        return Look(s2 * (z / r2 + seen * y), PixelNoise(s2.sqrt()))
    if isinstance(operator, Downsample) and operator.kernel == "area":
        factor = operator.factor
        pooled_q2 = factor**2 * q2  # of a mean as a coefficient of length one
        s2 = 1 / (1 / r2 + 1 / pooled_q2)
        means = box_means(z, factor)
        known_means = s2 * (means / r2 + enlarged_boxes(y, factor) / pooled_q2)
        return Look(z - means + known_means, PooledNoise(r2.sqrt(), s2.sqrt(), factor))
    return None


def denoise_given(
    prior: Prior, z: Tensor, noise_std: Tensor, measurement: Measurement, *, maps: bool = True
) -> Tensor:
    """E[z_0 | z, y], of the shape of z: exact where the measurement is a look at coefficients.

    Elsewhere, and for priors without maps, `prior.denoise` made consistent with y in closed form,
    its errors taken as white; in latents that is one decoding and one encoding.

    Args:
        z: the noisy signal that the prior knows, pixels or latents.
        noise_std: [B].
        maps: whether a prior that accepts levels for each coefficient is asked with them.
    """
    is_told_maps = prior.accepts_maps and (maps or measurement.operator.is_identity)
    look = combined_look(z, noise_std, measurement) if is_told_maps else None
    if look is not None:
        return prior.denoise(look.z, look.noise)
    x = prior.decode(prior.denoise(z, white(noise_std, dtype=z.dtype)))
    consistent = [
        data_consistency(
            x[b : b + 1],
            Measurement(measurement.y[b : b + 1], measurement.degradation),
            estimate_std=prior.error_std(float(std)),
        )
        for b, std in enumerate(noise_std.expand(len(x)).tolist())
    ]
    return prior.encode(torch.cat(consistent))


def posterior_mean(
    prior: Prior, measurement: Measurement, levels: tuple[float, ...] = ANNEALING
) -> Tensor:
    """E[x | y] as far as the prior tells, frames [B, T, 3, H, W].

    One evaluation, exact, where the measurement is a look at coefficients; `annealed_estimate`
    elsewhere.
    """
    like = _empty(measurement)
    largest = like.new_full((len(like),), prior.largest_std)
    look = combined_look(like, largest, measurement) if prior.accepts_maps else None
    if look is None:
        return annealed_estimate(prior, measurement, levels)
    return prior.decode(prior.denoise(look.z, look.noise))


def annealed_estimate(
    prior: Prior, measurement: Measurement, levels: tuple[float, ...] = ANNEALING
) -> Tensor:
    """The prior's and the measurement's say in turn, at falling noise, [B, T, 3, H, W].

    Half-quadratic splitting with a denoiser (plug-and-play; Zhang et al., 2021) from the initial
    estimate; nothing random.
    """
    x = initial_estimate(measurement)
    for level in levels:
        z = prior.encode(x)
        x = prior.decode(prior.denoise(z, white(level, dtype=z.dtype)))
        x = data_consistency(x, measurement, estimate_std=prior.error_std(level))
    return x


def _empty(measurement: Measurement) -> Tensor:
    """Zeros of the shape of the clean frames."""
    y = measurement.y
    return y.new_zeros(*y.shape[:-2], *measurement.operator.clean_size(*y.shape[-2:]))
