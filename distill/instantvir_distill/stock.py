"""Examples on a card: made by all processors, kept, and learned from again and again.

A card learns from the embedded student's examples much faster than processors make them (optical flow,
codecs). So what nothing learned has a part in is done once, by processes of their own (`Makers`), and
what comes out of it stays on the card (`Stock`), from where each step draws, turned and mirrored. A
whole batch then goes through network, data consistency and loss at once.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_distill.losses import miscalibration
from instantvir_distill.methods.base import CleanExample
from instantvir_distill.restorers import started
from instantvir_models.operators.dct import dct, dct2
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.modes import Fold, Gain, Grid
from instantvir_models.operators.prior import noise_variance
from instantvir_models.students.fused import FusedStudent, Refined, Start

SEQUENCES_AT_ONCE = 16
"""What a maker hands over together."""

WAITING = 24
"""Handfuls that may wait to be taken; makers then pause."""

SYMMETRIES = 8
"""Of a square: mirrored, turned by quarters."""

SECONDS_BETWEEN_LOOKS = 5.0
"""Of a maker that waits, for whether anybody still wants what it makes."""

RECOLOURED_SHARE = 1 / 4
"""Of what is drawn, with its colours exchanged."""


@dataclass(frozen=True)
class Prepared:
    """n sequences of t learned frames of H x H pixels, as the network, consistency and loss see them."""

    pictures: Tensor
    """[n, t, 18, H, H] half precision: what `PLANES` names."""
    y_small: Tensor
    """[n, t, 3, h, h] half precision, for the branch for enlargement; h is 0 elsewhere."""
    modes: Tensor
    """[n, H, H] what A does along one side, between DCT modes of x and of y; 0 where it is no inverse."""
    numbers: Tensor
    """[n, 4 + traits]: whether what the network says is final, the noise variance of the measurement,
    the power of the loss, the task, and what the student was told."""

    def __len__(self) -> int:
        return len(self.pictures)

    def changed(self, change: Callable[[Tensor], Tensor]) -> Prepared:
        """Every tensor changed."""
        return Prepared(**{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def planes(self, name: str) -> Tensor:
        """[n, t, C, H, H] float32."""
        return self.pictures[:, :, PLANES[name]].float()

    @property
    def is_final(self) -> Tensor:
        return self.numbers[:, 0] > 0

    @property
    def noise_variance(self) -> Tensor:
        return self.numbers[:, 1]

    @property
    def power(self) -> Tensor:
        return self.numbers[:, 2]

    @property
    def task(self) -> Tensor:
        """Which of the tasks, [n]."""
        return self.numbers[:, 3].long()

    @property
    def traits(self) -> Tensor:
        return self.numbers[:, 4:]

    @property
    def start(self) -> Start:
        """All frames [n t, ...] before the network."""

        def frames(x: Tensor) -> Tensor:
            return x.flatten(0, 1).contiguous(memory_format=torch.channels_last)

        length = self.pictures.shape[1]
        return Start(
            x_init=frames(self.planes("x_init")),
            x_bar=frames(self.planes("x_bar")),
            variance_init=frames(self.planes("variance_init").exp()),
            variance=frames(self.planes("variance").exp()),
            y_view=frames(self.planes("y_view")),
            known=frames(self.planes("known")),
            traits=self.traits.repeat_interleave(length, 0),
            y_small=frames(self.y_small.float()) if self.y_small.shape[-1] else None,
        )


PLANES = {
    "x": slice(0, 3), "x_init": slice(3, 6), "x_bar": slice(6, 9), "y_view": slice(9, 12),
    "y_modes": slice(12, 15), "known": slice(15, 16), "variance_init": slice(16, 17),
    "variance": slice(17, 18),
}  # fmt: skip
"""Clean frames; what the network starts from; the DCT modes of y in the upper left corner; which
pixels were measured; logarithms of variances."""


def prepared(
    examples: Sequence[CleanExample],
    student: FusedStudent,
    *,
    powers: Sequence[float],
    tasks: Sequence[int],
) -> Prepared:
    """`examples`, all of one size, as far as nothing learned has a part in it.

    Args:
        powers: of the loss of each.
        tasks: numbers of them, for the log.
    """
    each = [
        _prepared(example, student, power, task)
        for example, power, task in zip(examples, powers, tasks, strict=True)
    ]
    return _together(each, torch.stack)


def _together(each: Sequence[Prepared], how: Callable[[list[Tensor]], Tensor]) -> Prepared:
    return Prepared(**{f.name: how([getattr(e, f.name) for e in each]) for f in fields(Prepared)})


def _prepared(example: CleanExample, student: FusedStudent, power: float, task: int) -> Prepared:
    start = started(example, student)
    inside, size = example.inside, example.x.shape[-1]
    is_final = student.is_final(start.traits)
    modes = torch.zeros(size, size)
    y_modes = torch.zeros(*example.x.shape[1:])
    if not is_final and not inside.operator.only_selects:
        modes, y_modes = _between_modes(inside, size)
    pictures = torch.cat(
        [example.x[0], start.x_init, start.x_bar, start.y_view, y_modes, start.known,
         start.variance_init.log(), start.variance.log()], 1
    )  # fmt: skip
    small = start.y_small if start.y_small is not None else start.x_init[..., :0, :0]
    numbers = [float(is_final), noise_variance(inside), power, float(task)]
    return Prepared(
        pictures.half(), small.half(), modes, torch.cat([torch.tensor(numbers), start.traits[0]])
    )


def _between_modes(measurement: Measurement, size: int) -> tuple[Tensor, Tensor]:
    """A along one side, and the modes of y in the corner of [t, 3, size, size]."""
    y = measurement.y[0]
    steps = measurement.operator.mode_steps(Grid(len(y), size, size))
    if steps is None:
        raise ValueError(f"{measurement.operator!r} does not keep modes apart")
    along = torch.eye(size, dtype=torch.float64)
    for step in steps:
        if isinstance(step, Fold):
            along = step.rows @ along
        else:
            assert isinstance(step, Gain)
            first_row = step.gain[0, 0, 0]  # of g g^T
            along = (first_row / first_row[0].sqrt())[:, None] * along
    modes = torch.zeros(size, size)
    modes[: len(along)] = along.float()
    y_modes = torch.zeros(len(y), 3, size, size)
    y_modes[..., : y.shape[-2], : y.shape[-1]] = dct2(y)
    return modes, y_modes


def turned(examples: Prepared, symmetry: int, colours: Sequence[int] = (0, 1, 2)) -> Prepared:
    """The same examples mirrored and turned by one of `SYMMETRIES`, their colours in another order."""
    pictures, small = examples.pictures, examples.y_small
    sign = (-1.0) ** torch.arange(pictures.shape[-1], device=pictures.device)
    signs = pictures.new_ones(PLANES["variance"].stop, *pictures.shape[-2:])
    if symmetry & 1:
        signs[PLANES["y_modes"]] *= sign
    if symmetry & 2:
        signs[PLANES["y_modes"]] *= sign[:, None]
    dims = [dim for bit, dim in ((1, -1), (2, -2)) if symmetry & bit]
    kept = pictures[:, :, PLANES["y_modes"]] * signs[PLANES["y_modes"]]
    pictures, small = pictures.flip(dims), small.flip(dims)
    pictures = torch.cat(
        [pictures[:, :, : PLANES["y_modes"].start], kept, pictures[:, :, PLANES["known"].start :]],
        2,
    )
    if symmetry & 4:
        pictures, small = pictures.mT, small.mT
    if tuple(colours) != (0, 1, 2):
        order = [first + c for first in range(0, PLANES["known"].start, 3) for c in colours]
        order += range(PLANES["known"].start, PLANES["variance"].stop)
        pictures, small = pictures[:, :, order], small[:, :, list(colours)]
    return replace(examples, pictures=pictures, y_small=small)


def consistent(x_hat: Tensor, examples: Prepared, variance: Tensor) -> Tensor:
    """`data_consistency` of every sequence x_hat [n, t, 3, H, H] at once.

    Args:
        variance: [n] of the error of x_hat, as expected.
    """
    weight = (variance / examples.noise_variance)[:, None, None, None, None]
    known, y = examples.planes("known"), examples.planes("y_view")
    weighed = weight * known
    selected = (x_hat + weighed * y) / (1 + weighed)
    is_modal = examples.modes.abs().amax((1, 2)) > 0
    out = torch.where(
        is_modal[:, None, None, None, None], _solved(x_hat, examples, weight), selected
    )
    return torch.where(examples.is_final[:, None, None, None, None], x_hat, out)


def _solved(x_hat: Tensor, examples: Prepared, weight: Tensor) -> Tensor:
    """x_hat + w A^T (y - A x_hat) / (1 + w A A^T), between modes (Woodbury)."""
    basis = _basis(x_hat.shape[-1], x_hat.device)
    along = examples.modes[:, None, None]
    x_modes = basis @ x_hat @ basis.mT
    missing = examples.planes("y_modes") - along @ x_modes @ along.mT
    power = examples.modes.square().sum(-1)
    missing = missing / (1 + weight * (power[:, :, None] * power[:, None])[:, None, None])
    return x_hat + basis.mT @ (weight * (along.mT @ missing @ along)) @ basis


@lru_cache(maxsize=4)
def _basis(size: int, device: torch.device) -> Tensor:
    """Orthonormal DCT-II, [size, size]."""
    return dct(torch.eye(size, dtype=torch.float64), 0).float().to(device)


@dataclass(frozen=True)
class StockLoss:
    """Of a batch."""

    total: Tensor
    by_example: Tensor
    """[n]."""


def loss_of(student: FusedStudent, examples: Prepared, *, calibration_weight: float) -> StockLoss:
    """That of `Regression`, of a whole batch at once."""
    start, x = examples.start, examples.planes("x")
    refined = student.refine(start)
    x_hat = refined.x_hat.unflatten(0, x.shape[:2])
    expected = refined.variance.unflatten(0, x.shape[:2])
    made = consistent(x_hat, examples, expected.detach().mean((1, 2, 3, 4)))
    squared = (made - x).square().mean((1, 2, 3, 4))
    first = start.variance_init.unflatten(0, x.shape[:2]).mean((1, 2, 3, 4))
    each = (squared / first + 1e-4) ** examples.power
    wrong = _miscalibrated(made, x, refined)
    return StockLoss(each.mean() + calibration_weight * wrong, each)


def _miscalibrated(made: Tensor, x: Tensor, refined: Refined) -> Tensor:
    squared = (made.detach() - x).square().mean(2, keepdim=True).flatten(0, 1)
    squared = F.interpolate(squared, size=refined.variance.shape[-2:], mode="area")
    return miscalibration(squared, refined.variance)


class Stock:
    """A ring of examples where the network is; new ones take the place of the oldest.

    Args:
        size: sequences that it holds.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.taken = 0
        self._kept: Prepared | None = None

    def __len__(self) -> int:
        return min(self.taken, self.size)

    def add(self, new: Prepared) -> None:
        """Keep these."""
        if self._kept is None:
            self._kept = new.changed(
                lambda t: torch.empty(self.size, *t.shape[1:], dtype=t.dtype, device=self.device)
            )
        places = (self.taken + torch.arange(len(new))) % self.size
        for field in fields(Prepared):
            kept, given = getattr(self._kept, field.name), getattr(new, field.name)
            kept[places.to(self.device)] = given.to(self.device)
        self.taken += len(new)

    def drawn(self, count: int, rng: np.random.Generator) -> Prepared:
        """`count` sequences at random, turned and recoloured."""
        assert self._kept is not None
        chosen = torch.from_numpy(rng.integers(len(self), size=count)).to(self.device)
        drawn = self._kept.changed(lambda t: t[chosen])
        parts = np.array_split(np.arange(count), SYMMETRIES)
        each = []
        for symmetry, part in enumerate(parts):
            if not len(part):
                continue
            inside = slice(int(part[0]), int(part[-1]) + 1)
            is_recoloured = rng.random() < RECOLOURED_SHARE
            colours = rng.permutation(3).tolist() if is_recoloured else (0, 1, 2)
            some = drawn.changed(lambda t, inside=inside: t[inside])  # type: ignore[misc]
            each.append(turned(some, symmetry, colours))
        return _together(each, torch.cat)


Make = Callable[[int, int], Iterator[Prepared]]


class Makers:
    """Processes that make examples, and a thread that takes them.

    Args:
        make: makes one handful after the other; called in each process with a seed of its own and the
            number of the first, has to be picklable.
        count: processes.
        place: number of the first handful of each.
    """

    def __init__(self, make: Make, *, count: int, seed: int = 0, place: int = 0) -> None:
        self.place = place
        context = torch.multiprocessing.get_context("spawn")
        self._made: Any = context.Queue(maxsize=WAITING)
        self._here: queue.Queue[tuple[int, Prepared]] = queue.Queue(maxsize=WAITING)
        self._processes = [
            context.Process(
                target=_make_for_ever, args=(make, seed + k, place, self._made), daemon=True
            )
            for k in range(count)
        ]
        for process in self._processes:
            process.start()
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            with suppress(EOFError, OSError):  # a maker that ended while it handed something over
                number, tensors = self._made.get()
                self._here.put((number, Prepared(*tensors)))

    def next(self, *, seconds: float) -> Prepared | None:
        """A handful, or None if there is none in time; `place` is then behind all that were taken.

        Raises:
            RuntimeError: if no process is left to make one.
        """
        try:
            number, made = self._here.get(timeout=seconds) if seconds else self._here.get_nowait()
        except queue.Empty:
            if not any(process.is_alive() for process in self._processes):
                raise RuntimeError("all processes that make examples have died") from None
            return None
        self.place = max(self.place, number + 1)
        return made

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()


def _make_for_ever(make: Make, seed: int, place: int, made: Any) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the worker, which ends its step first
    parent = os.getppid()
    for number, handful in enumerate(make(seed, place), place):
        tensors = tuple(getattr(handful, field.name) for field in fields(handful))
        while os.getppid() == parent:
            with suppress(queue.Full):
                made.put((number, tensors), timeout=SECONDS_BETWEEN_LOOKS)
                break
        else:
            return
