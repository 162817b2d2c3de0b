"""Noise levels of the published schedules, as shares s of the flow path x_t = (1 - s) x + s e.

A schedule of any family is a list of s: s = r / (1 + r) at noise r over signal, and r^2 =
(1 - abar) / abar in the words of DDPM.
"""

import math
from functools import lru_cache

DDPM_STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02
"""The linear schedule of Ho et al. (2020)."""

SCALED_BETAS = 0.00085, 0.012
"""Ends of the schedule of latent diffusion, linear in the root."""


def flow_level(std: float) -> float:
    """s of noise of `std` on a signal: (1 - s) (x + std e)."""
    return std / (1 + std)


def noise_std(level: float) -> float:
    """Noise over signal at s, 0 <= s < 1."""
    return level / (1 - level)


@lru_cache(maxsize=2)
def ddpm_stds(*, is_scaled: bool = False) -> tuple[float, ...]:
    """Noise over signal after 1 to 1000 steps of a DDPM; `is_scaled` for that of latent diffusion."""
    first, last = SCALED_BETAS if is_scaled else (FIRST_BETA, LAST_BETA)
    kept, stds = 1.0, []
    for step in range(DDPM_STEPS):
        part = step / (DDPM_STEPS - 1)
        if is_scaled:
            beta = (math.sqrt(first) * (1 - part) + math.sqrt(last) * part) ** 2
        else:
            beta = first * (1 - part) + last * part
        kept *= 1 - beta
        stds.append(math.sqrt((1 - kept) / kept))
    return tuple(stds)


def at_times(times: list[int], *, is_scaled: bool = False) -> tuple[float, ...]:
    """Flow levels at times from 0 to 999 of a DDPM."""
    stds = ddpm_stds(is_scaled=is_scaled)
    return tuple(flow_level(stds[time]) for time in times)


def spaced(count: int) -> tuple[float, ...]:
    """`count` levels at equal distances of time, the last one at time 0."""
    return at_times([round(i * (DDPM_STEPS - 1) / max(count - 1, 1)) for i in range(count)][::-1])


def strided(count: int) -> tuple[float, ...]:
    """`count` levels, every 1000 / count steps of time down to 0: 950, 900, ..., 0 for 20."""
    stride = DDPM_STEPS // count
    return at_times([stride * i for i in range(count)][::-1])


def quadratic(count: int) -> tuple[float, ...]:
    """`count` levels at squares of equal distances of time, dense where noise is weak."""
    last = DDPM_STEPS - 1
    times = [round(last * (i / max(count - 1, 1)) ** 2) for i in range(count)]
    return at_times(sorted(set(times), reverse=True))


def uniform(count: int, largest: float = 0.999) -> tuple[float, ...]:
    """`count` levels at equal distances on the flow path, from `largest` down, 0 left out."""
    return tuple(largest * (count - i) / count for i in range(count))


def shifted(count: int, shift: float, largest: float = 0.999) -> tuple[float, ...]:
    """`count` levels, equal distances bent towards noise: s = c u / (1 + (c - 1) u) for a shift c."""
    return tuple(shift * u / (1 + (shift - 1) * u) for u in uniform(count, largest))
