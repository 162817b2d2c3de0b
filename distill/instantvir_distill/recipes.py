"""Named training runs: functions that return a complete configuration."""

from collections.abc import Callable

from instantvir_distill.config import DistillConfig, Phase

NOISE_AND_HOLES = (
    "denoise", "inpaint", "deblur", "denoise", "denoise", "inpaint", "sr", "denoise",
)  # fmt: skip
"""Where the embedded student had most to gain once it knew every task."""

REFINEMENT = (
    Phase(
        steps=1000, crop=64, frames=9, clips_per_worker=4, rates=(0.7, 0.57), mix=NOISE_AND_HOLES
    ),
    Phase(
        steps=1200, crop=64, frames=9, clips_per_worker=4, rates=(0.57, 0.01), mix=NOISE_AND_HOLES
    ),
)


def tiny() -> DistillConfig:
    """The embedded student as it is shipped: supervised regression over all tasks at once."""
    return DistillConfig(
        phases=(
            Phase(steps=6500, crop=64, frames=6, clips_per_worker=4),
            Phase(steps=1500, crop=64, frames=6, clips_per_worker=4, rates=(1, 0.57)),
            Phase(steps=2000, crop=96, frames=6, clips_per_worker=4, rates=(0.57, 0.01)),
            # continued with longer sequences and with holes pre-filled as thin plates
            Phase(steps=600, crop=64, frames=9, clips_per_worker=4, rates=(0.6, 0.6)),
            Phase(steps=1200, crop=64, frames=9, clips_per_worker=4, rates=(0.6, 0.01)),
            *REFINEMENT,
        )
    )


def refine() -> DistillConfig:
    """A trained student trained on, such as the embedded one with clips of your own."""
    return DistillConfig(initial_weights="tiny", phases=REFINEMENT)


RECIPES: dict[str, Callable[[], DistillConfig]] = {"tiny": tiny, "refine": refine}
"""What `instantvir distill --recipe` knows."""
