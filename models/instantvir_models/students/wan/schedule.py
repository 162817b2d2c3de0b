"""The flow-matching schedule of Wan2.1 students: x_t = (1 - sigma) x_0 + sigma noise."""

from torch import Tensor

NUM_TIMESTEPS = 1000
"""Timesteps count from 0 (clean) to 1000 (pure noise)."""


def sigma_at(timestep: int, *, shift: float = 8.0) -> float:
    """The noise level at `timestep`, that of the nearest entry of the shifted schedule.

    The schedule has the entries sigma = shift s / (1 + (shift - 1) s) for s = 1, 0.999, ... 0.001,
    which stand at the timesteps 1000 sigma. With shift 8, timestep 522 has sigma 12/23.

    Raises:
        ValueError: if the timestep is outside the schedule.
    """
    if not 0 <= timestep <= NUM_TIMESTEPS:
        raise ValueError(f"a timestep is from 0 to {NUM_TIMESTEPS}, got {timestep}")
    levels = (shift * s / (1 + (shift - 1) * s) for s in _unshifted())
    return min(levels, key=lambda sigma: abs(NUM_TIMESTEPS * sigma - timestep))


def clean_from_velocity(x_t: Tensor, velocity: Tensor, *, sigma: float) -> Tensor:
    """x_0 = x_t - sigma v for the velocity v = noise - x_0, float32, any shape."""
    return x_t.float() - sigma * velocity.float()


def _unshifted() -> list[float]:
    return [(NUM_TIMESTEPS - i) / NUM_TIMESTEPS for i in range(NUM_TIMESTEPS)]
