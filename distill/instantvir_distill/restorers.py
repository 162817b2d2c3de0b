"""Students as methods see them: functions from examples to reconstructions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from instantvir_distill.methods.base import Example, Reconstruction, during
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.students.base import Student, condition
from instantvir_models.students.fused import FusedStudent, Refined, Start


class FusedRestorer:
    """The embedded student on several examples at once, as it will run.

    Args:
        dtype: of products; weights stay float32.
    """

    def __init__(self, student: FusedStudent, *, dtype: torch.dtype) -> None:
        self.student, self.dtype = student, dtype

    def __call__(self, examples: Sequence[Example]) -> list[Reconstruction]:
        starts = [started(example, self.student) for example in examples]
        with torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype == torch.bfloat16):
            refined = self._refined(starts)
        return [
            self._consistent(example, start, one)
            for example, start, one in zip(examples, starts, refined, strict=True)
        ]

    def _consistent(self, example: Example, start: Start, refined: Refined) -> Reconstruction:
        height, width = example.measurement.operator.clean_size(*example.measurement.y.shape[-2:])
        x_hat = refined.x_hat[None, ..., :height, :width]
        if not self.student.is_final(start.traits):
            std = refined.variance.detach().mean().sqrt()
            x_hat = data_consistency(x_hat, example.inside, estimate_std=std)
        return Reconstruction(x_hat, start.variance_init[..., :height, :width], refined.variance)

    def _refined(self, starts: list[Start]) -> list[Refined]:
        """What becomes of each example; those of one size, and of one branch, at once."""
        alike: dict[tuple[bool, torch.Size], list[int]] = {}
        for i, start in enumerate(starts):
            alike.setdefault((start.y_small is not None, start.x_init.shape[-2:]), []).append(i)
        out: dict[int, Refined] = {}
        for key in sorted(alike):
            chosen = alike[key]
            joined = self.student.refine(_joined([starts[i] for i in chosen]))
            counts = [len(starts[i].x_init) for i in chosen]
            parts = zip(*(t.split(counts) for t in vars(joined).values()), strict=True)
            out |= {i: Refined(*part) for i, part in zip(chosen, parts, strict=True)}
        return [out[i] for i in range(len(starts))]


class SequenceRestorer:
    """Any student, one whole sequence after the other under its causal mask."""

    def __init__(self, student: Student[Any]) -> None:
        self.student = student

    def __call__(self, examples: Sequence[Example]) -> list[Reconstruction]:
        return [self._restored(example) for example in examples]

    def _restored(self, example: Example) -> Reconstruction:
        shown = condition(example.measurement, self.student.capabilities.traits)
        estimate = self.student.restore_sequence(shown)
        x_hat, frames = estimate.x_hat[:, example.frames], example.frames
        variance = estimate.std.square().mean().expand(x_hat.shape[1], 1, 1, 1)
        if not estimate.is_final:
            std = estimate.std.detach().square().mean().sqrt()
            x_hat = data_consistency(x_hat, during(example.measurement, frames), estimate_std=std)
        start = (shown.x_init[:, frames] - x_hat).detach().square().mean().clamp_min(1e-6)
        return Reconstruction(x_hat, start.expand(x_hat.shape[1], 1, *x_hat.shape[-2:]), variance)


def started(example: Example, student: FusedStudent) -> Start:
    """What the student starts from, for the learned frames."""
    block = student.frames_per_block
    needed = -(-example.frames.stop // block) * block  # later frames change nothing
    shown = condition(during(example.measurement, slice(0, needed)), student.config.traits)
    return _frames(student.start(shown, student.new_state()), example.frames)


def _frames(start: Start, frames: slice) -> Start:
    return Start(**{name: value[frames] for name, value in _present(start).items()})


def _joined(starts: list[Start]) -> Start:
    return Start(
        **{
            name: torch.cat([getattr(start, name) for start in starts])
            for name in _present(starts[0])
        }
    )


def _present(start: Start) -> dict[str, Tensor]:
    return {name: value for name, value in vars(start).items() if value is not None}
