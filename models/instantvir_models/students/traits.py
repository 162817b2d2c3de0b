"""What a student is told about operator and noise: numbers of order one, by name.

A student keeps the names it was trained with. A number that is new here is not told to it, and one
that is no longer here is 0, so weights outlive this list.
"""

import math
from collections.abc import Sequence

from instantvir_models.operators.measurement import Degradation


def described(degradation: Degradation) -> dict[str, float]:
    """Every number there is about a degradation, by name."""
    traits, noise_std = degradation.operator.traits, degradation.noise_std
    is_known = traits.known_fraction == 1
    changes_frames = traits.blur_sigma or traits.temporal_sigma or traits.is_antialiased_cubic
    return {
        "blur_sigma": traits.blur_sigma / 3,
        "log_blur_sigma": math.log1p(traits.blur_sigma),
        "is_blurred": float(traits.blur_sigma > 0),
        "is_scaled_by_2": float(traits.scale == 2),
        "is_scaled_by_3": float(traits.scale == 3),
        "is_scaled_by_4_or_more": float(traits.scale >= 4),
        "is_antialiased_cubic": float(traits.is_antialiased_cubic),
        "known_fraction": traits.known_fraction,
        "has_holes": float(traits.known_fraction < 1),
        "temporal_sigma": traits.temporal_sigma,
        "noise_std": noise_std * 10,
        "log_noise_std": math.log10(noise_std + 3e-3) + 1.5,
        "is_lossy": float(degradation.is_lossy),
        "is_identity": float(not changes_frames and traits.scale == 1 and is_known),
        "blur_departure": traits.blur_departure,
    }


def told(degradation: Degradation, names: Sequence[str]) -> list[float]:
    """The numbers called `names`; 0 for one that nobody knows."""
    known = described(degradation)
    return [known.get(name, 0.0) for name in names]
