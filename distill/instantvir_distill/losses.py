"""Losses, one pure function each; numbers are those of docs/reference/distillation.md.

`x` are clean frames, `x_hat` an estimate after data consistency, `z` the same as a prior knows it
(pixels or latents), all [B, T, C, H, W]; `noise_std` is r of z_r = z + r e, [B].
"""

import torch
from torch import Tensor

from instantvir_models.operators.measurement import Measurement


def relative_error(
    x_hat: Tensor, x: Tensor, *, variance: Tensor | float, power: float = 0.5
) -> Tensor:
    """A power of the squared error over `variance`, the squared error of the start; a scalar. (1)

    Every sample counts by how much better it became, whatever its noise; the smaller the power,
    the more by the ratio in decibels, which is large where much can be improved.
    """
    return ((x_hat - x).square().mean() / variance + 1e-4) ** power


def miscalibration(squared_error: Tensor, variance: Tensor) -> Tensor:
    """Minus the log-likelihood of errors of an expected `variance`, both [n, 1, h, w]; a scalar. (2)

    It is least where each variance is the mean of the squared errors that look alike.
    """
    return 0.5 * (squared_error / variance + variance.log()).mean()


def denoising_error(z_hat: Tensor, z: Tensor, noise_std: Tensor, *, signal_std: float) -> Tensor:
    """Squared error of a denoiser's output, over what no denoiser could know, a scalar. (3)

    Weight 1/r^2 + 1/s^2 with s the standard deviation of the signal (Karras et al., 2022).
    """
    weight = 1 / noise_std.square() + 1 / signal_std**2
    return ((z_hat - z).square().mean((1, 2, 3, 4)) * weight).mean()


def score_difference(
    of_student: Tensor, of_prior: Tensor, noise_std: Tensor, weight: Tensor | float = 1.0
) -> Tensor:
    """Gradient of weight x KL(q_r || p_r) with respect to z, [B, T, C, H, W]. (4)

    weight (f - p) / r^2, where f and p are the posterior means of student's outputs (its critic) and
    of natural video at the same z_r (Diff-Instruct; DAVI). Weight 1 is the integral KL.
    """
    scale = torch.as_tensor(weight).to(noise_std) / noise_std.square()
    return scale.reshape(-1, 1, 1, 1, 1) * (of_student - of_prior)


def unit_difference(of_student: Tensor, of_prior: Tensor, z: Tensor) -> Tensor:
    """(f - p) / mean |z - p| for each video, [B, T, C, H, W]; 0 where z is p. (5)

    The gradient of DMD, DMD2, CausVid and Self-Forcing.
    """
    size = (z - of_prior).abs().mean((1, 2, 3, 4), keepdim=True)
    return torch.nan_to_num((of_student - of_prior) / size, nan=0.0, posinf=0.0, neginf=0.0)


def with_gradient(z: Tensor, gradient: Tensor) -> Tensor:
    """A scalar whose derivative with respect to z is `gradient` over the number of elements. (6)

    1/2 mean |z - stop(z - gradient)|^2: what remains of z's own dependence (a decoder and another
    encoder, say) is followed. At least float32, for z - gradient loses small gradients.
    """
    z = z if z.dtype == torch.float64 else z.float()
    goal = (z - gradient.to(z)).detach()
    return 0.5 * (z - goal).square().mean()


def likelihood(x_hat: Tensor, measurement: Measurement, *, variance: float) -> Tensor:
    """-log p(y | x_hat) without its constant, over the number of elements of x_hat; a scalar. (7)

    Args:
        variance: of the noise.
    """
    residual = measurement.operator.A(x_hat) - measurement.selected
    return residual.square().sum() / (2 * variance * x_hat.numel())


def discrepancy(residual_power: Tensor, *, variance: float) -> Tensor:
    """Factor from 0 to 1 on the likelihood's gradient: none once noise explains the residual. (8)

    max(0, 1 - q^2 / residual^2); Morozov's principle, for a student that is a function of y alone
    would otherwise copy the noise.
    """
    return (1 - variance / residual_power.detach().clamp_min(1e-12)).clamp_min(0)


def sure(
    seen: Tensor, moved: Tensor, y: Tensor, probe: Tensor, *, noise_std: float, step: float
) -> Tensor:
    """Stein's unbiased estimate of the squared error of A x_hat, a scalar. (9)

    mean |y - s|^2 - q^2 + 2 q^2 / (M step) b . (s' - s), with s = A R(y), s' = A R(y + step b).

    Args:
        seen, moved: s and s'.
        probe: b, white with variance 1.
        noise_std: q.
    """
    divergence = (probe * (moved - seen)).mean() / step
    return (y - seen).square().mean() - noise_std**2 + 2 * noise_std**2 * divergence


def recorrupted(
    y: Tensor, noise_std: float, gain: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Two measurements with independent noise out of one, (y + a q w, y - q w / a). (10)

    Recorrupted-to-recorrupted (Pang et al., 2021): the squared error against the second of what was
    made from the first is the squared error against the truth, and a constant.

    Args:
        gain: a; the first is as noisy as sqrt(1 + a^2) q.
    """
    w = noise_std * torch.randn(y.shape, generator=generator, dtype=y.dtype).to(y)
    return y + gain * w, y - w / gain


def hidden_error(
    x_hat: Tensor, y: Tensor, hidden: Tensor, *, variance: Tensor, power: float
) -> Tensor:
    """`relative_error` on measured pixels that were hidden from the student, a scalar. (11)

    Args:
        hidden: [1, T, 1, H, W], 1 where a pixel of y was hidden; at least one.
        variance: [1, T, 1, H, W] squared error of the start.
    """
    count = hidden.sum()
    error = ((x_hat - y).square() * hidden).sum() / (count * y.shape[2])
    start = (variance * hidden).sum() / count
    return (error / start + 1e-4) ** power


def fisher(
    of_student: Tensor, of_prior: Tensor, z: Tensor, noise_std: Tensor, *, share: float = 0.5
) -> Tensor:
    """A scalar that follows the gradient of the paper's written loss, E |score difference|^2. (12)

    (p - f) . ((p - z) - share (p - f)) / r^2: with a share of 1/2 half the gradient of
    E |f - p|^2 / r^2; 1, common in code (SiD), is biased. Differentiable through z_r into both
    networks, whose own weights stand still.
    """
    difference = of_prior - of_student
    product = difference * ((of_prior - z) - share * difference)
    return (product.mean((1, 2, 3, 4)) / noise_std.square()).mean()


def hinge(of_natural: Tensor, of_student: Tensor) -> Tensor:
    """What a discriminator minimises: natural video above 1, outputs below -1; a scalar. (13)

    Lim and Ye, 2017; on a teacher's features, at its noise levels, as in LADD (Sauer et al., 2024).
    """
    return (1 - of_natural).clamp_min(0).mean() + (1 + of_student).clamp_min(0).mean()


def unnaturalness(of_student: Tensor) -> Tensor:
    """What a student minimises against that discriminator, a scalar. (14)"""
    return -of_student.mean()
