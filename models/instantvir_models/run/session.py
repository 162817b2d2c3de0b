"""The one way through: measured frames in, restored frames out, block by block.

`restore`, `stream` and `benchmark` are callers of `Session`. What comes out depends on the frames
alone, not on how they were cut into packets.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.clock import Step, StepClock
from instantvir_models.errors import DeviceMemoryError, UsageError
from instantvir_models.media.convert import levels, stored_levels, to_unit
from instantvir_models.operators.compose import awaits_masks
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement
from instantvir_models.run.held import HeldFrames
from instantvir_models.run.kept import KeptMemory, can_be_kept
from instantvir_models.solvers.base import Restored, Solver, Window, block_size, checked
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.solvers.detail import followed, with_detail_kept
from instantvir_models.students.base import ERROR_CELL
from instantvir_models.students.text import TextRows
from instantvir_models.tiles import TILE_PIXELS

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

KEPT_BLOCK_TIMES = 4096
"""Latest block times kept for percentiles."""

KEPT_FRAME_STDS = 8192
"""Latest frames of which is kept how far the solver believes to be off."""

KEPT_GUARDED_FRAMES = 4096
"""Latest frames kept of those that the solver did not get right."""


@dataclass(frozen=True)
class GuardedFrame:
    """A frame of which the solver's estimate, in some tiles, could not be right."""

    frame: int
    """Its index in the video."""
    replaced: float
    """The part of its area that is the initial estimate instead, up to 1."""


@dataclass(frozen=True, kw_only=True)
class SessionReport:
    """What a session has done so far."""

    frames_in: int
    frames_out: int
    estimate_seconds: float
    """Seconds for initial estimates, of the device that computes them; likewise below."""
    student_seconds: float
    """Seconds for the student, or for all that another solver does."""
    consistency_seconds: float
    """Seconds for data consistency and the residual."""
    convert_seconds: float
    """Seconds between 8- or 16-bit pixels and tensors."""
    block_seconds: tuple[float, ...]
    """Wall seconds of each of the latest blocks."""
    frame_std: tuple[float, ...]
    """How far the solver believes to be off in each of the latest frames, in the [-1, 1] range."""
    residual: float | None
    """||A x - y|| / ||y|| over all frames out; None before the first block."""
    frames_guarded: int
    """Frames out that are the initial estimate here or there, because what the solver made of them
    contradicted the measurement or had no reason in it."""
    frames_replaced: int
    """Of those, frames that are the initial estimate altogether."""
    guarded: tuple[GuardedFrame, ...]
    """The latest of `frames_guarded`, one by one."""


@dataclass(frozen=True, kw_only=True)
class SessionMemory:
    """All that a session knows at the end of a block, so that another one can go on there."""

    state: Any
    """The solver's."""
    window: list[Tensor]
    known: list[NDArray[np.bool_] | None]
    guessed: list[NDArray[np.bool_] | None]
    restored: list[Tensor]
    first_in_window: int
    num_skipped: int
    frames_in: int
    frames_out: int
    is_state_new: bool
    bit_depth_is_16: bool
    frames_guarded: int
    frames_replaced: int
    guarded: list[GuardedFrame]
    squared_error: float
    squared_measurement: float


class Session:
    """One video being restored: the only owner of mutable state.

    Args:
        solver: what restores each block; may serve many sessions.
        degradation: what happened to the video.
        height, width: size of the measured frames in pixels.
        tile_pixels: side of the tiles, a multiple of 64; None decides by size, 0 never tiles.
        device: where everything between the pixels is computed; the solver must be there.
        frames_per_block: frames restored together, at most the solver's own number, which None
            takes. Fewer mean less delay and less look-ahead; 1 has none.
        keep_detail: part of the fine contrast of the initial estimate that stays everywhere, 0 to 1.
        follow: part of the way from the initial estimate to what the solver makes that is gone, 0 to 1.
        sharpness: part of the missing fine contrast that the solver gives back, 0 to 1.5.

    Raises:
        UsageError: if a mask in the operator does not fit the frames, or the solver was not made
            for such blocks, tiles or such an operator.
    """

    def __init__(
        self,
        solver: Solver[Any],
        degradation: Degradation,
        *,
        height: int,
        width: int,
        tile_pixels: int | None = None,
        device: torch.device | str = "cpu",
        frames_per_block: int | None = None,
        keep_detail: float = 0.0,
        follow: float = 1.0,
        sharpness: float = 0.0,
    ) -> None:
        self.degradation = degradation
        self.keep_detail, self.follow = keep_detail, follow
        self.sharpness = sharpness
        """As `change_sharpness` changes it."""
        self.frames_per_block = block_size(solver, frames_per_block)
        """Frames that are restored together."""
        self.is_student_skipped = False
        """While True, blocks are restored by the initial estimate and data consistency alone. The
        solver then begins anew: it has not seen what came between."""
        self.is_shrunk = False
        """While True, blocks are restored at half their height and width and enlarged again, in less
        than a third of the time; only where the session `can_shrink`. The solver begins anew whenever
        this changes."""
        self.keeps_errors = False
        """While True, how far the solver believes to be off is kept place by place, until it is
        `taken_errors`."""
        self.measured_size = (height, width)
        self.output_size = degradation.operator.clean_size(height, width)
        solver.check(degradation)
        solver = solver.with_sharpness(sharpness) if sharpness else solver
        self._solver = _tiled_if_large(solver, self.output_size, tile_pixels)
        self._state = self._solver.new_state()
        self._is_state_new, self._is_state_shrunk = True, False
        self._cheap_solver = InitialEstimate()
        self._device = torch.device(device)
        self._check_operator()
        self._awaits_masks = awaits_masks(degradation.operator)

        self._radius = degradation.operator.temporal_radius
        self._held = HeldFrames(self.measured_size, self._device)
        self._num_skipped = 0
        self._next_out = 0
        self._restored: deque[Tensor] = deque(maxlen=max(1, self._radius))
        self._bit_depth_is_16 = False

        self._frames_in = 0
        self.frames_guarded = 0
        """Frames out so far that are the initial estimate in some place; see `report`."""
        self._frames_replaced = 0
        self._guarded: deque[GuardedFrame] = deque(maxlen=KEPT_GUARDED_FRAMES)
        self._clock = StepClock(self._device)
        self._block_seconds: deque[float] = deque(maxlen=KEPT_BLOCK_TIMES)
        self._frame_std: deque[float] = deque(maxlen=KEPT_FRAME_STDS)
        self._latest_std: Tensor | None = None
        self._errors: list[NDArray[np.float32]] = []
        self._squared_error = self._squared_measurement = 0.0

    def push(
        self,
        frames: Pixels,
        known: NDArray[np.bool_] | None = None,
        guessed: NDArray[np.bool_] | None = None,
    ) -> Pixels:
        """Restored frames [m, H, W, 3] that became ready by `frames` [n, h, w, 3]; m may be 0.

        Output pixels have the type of the input's (uint8 or uint16).

        Args:
            known: [n, h, w], False where what a frame shows is lost; None where nothing is but what
                the operator loses.
            guessed: [n, h, w], True where a pixel was not measured but computed from around it.

        Raises:
            UsageError: if the frames or masks are not of the size or type the session was made for,
                or there are none and the operator says that they come with the frames.
            DeviceMemoryError: if not even the smallest step fits the device.
        """
        self._check_frames(frames)
        self._check_masks(frames, known, guessed)
        with self._clock.on_device(Step.CONVERT):
            self._held.add(to_unit(frames, self._device)[0], known, guessed)
        self._frames_in += len(frames)
        return self._restore_ready(is_end=False)

    def flush(self) -> Pixels:
        """The restored frames still held back, [m, H, W, 3]; call once, when the input has ended."""
        return self._restore_ready(is_end=True)

    def taken_errors(self) -> NDArray[np.float32]:
        """[m, H, W] the root mean square error that the solver expects at each pixel of the frames that
        came out since this was last asked, in 8-bit levels; of a solver that does not tell places
        apart, the same everywhere. Kept only while `keeps_errors`; not while `is_shrunk`."""
        errors, self._errors = self._errors, []
        return np.concatenate(errors) if errors else np.empty((0, *self.output_size), np.float32)

    def skip(self, num_frames: int) -> None:
        """Let the frames pushed next be `num_frames` later in the video; before the first `push`.

        Raises:
            ValueError: if frames were pushed already.
        """
        if self._frames_in:
            raise ValueError(f"{self._frames_in} frames were pushed; a new session can skip")
        self._num_skipped += num_frames

    @property
    def can_be_kept(self) -> bool:
        """Whether the memory of the solver can be put on a disk."""
        return can_be_kept(self._solver.state_type)

    def memory(self) -> KeptMemory:
        """What another session needs to go on behind the frames that came out so far."""
        return KeptMemory.of(
            SessionMemory(
                state=self._state,
                window=self._held.frames,
                known=self._held.known,
                guessed=self._held.guessed,
                restored=list(self._restored),
                first_in_window=self._held.first,
                num_skipped=self._num_skipped,
                frames_in=self._frames_in,
                frames_out=self._next_out,
                is_state_new=self._is_state_new,
                bit_depth_is_16=self._bit_depth_is_16,
                frames_guarded=self.frames_guarded,
                frames_replaced=self._frames_replaced,
                guarded=list(self._guarded),
                squared_error=self._squared_error,
                squared_measurement=self._squared_measurement,
            )
        )

    def go_on(self, kept: KeptMemory) -> None:
        """Take over what a session like this one knew; before the first `push`.

        The next frame to push is the one with the index `frames_in`.

        Raises:
            ValueError: if frames were pushed already, or it is not the memory of such a session.
        """
        if self._frames_in:
            raise ValueError(f"{self._frames_in} frames were pushed; a new session can go on")
        memory = kept.as_of(SessionMemory, state=self._solver.state_type)
        self._state = memory.state
        self._held = replace(
            self._held,
            frames=memory.window,
            known=memory.known,
            guessed=memory.guessed,
            first=memory.first_in_window,
        )
        self._restored.extend(memory.restored)
        self._num_skipped = memory.num_skipped
        self._frames_in, self._next_out = memory.frames_in, memory.frames_out
        self._is_state_new = memory.is_state_new
        self._bit_depth_is_16 = memory.bit_depth_is_16
        self.frames_guarded, self._frames_replaced = memory.frames_guarded, memory.frames_replaced
        self._guarded.extend(memory.guarded)
        self._squared_error = memory.squared_error
        self._squared_measurement = memory.squared_measurement

    @property
    def frames_out(self) -> int:
        """Frames that came out, those of a session before included that this one goes on with."""
        return self._next_out

    def change_text(self, text: TextRows) -> None:
        """From the next block on the solver reads this prompt; what it remembers stays.

        Raises:
            UsageError: if it reads no text.
        """
        self._solver = self._solver.with_text(text)

    def change_sharpness(self, sharpness: float) -> None:
        """From the next block on the solver gives back so much of the missing fine contrast, 0 to 1.5.

        Raises:
            UsageError: if it cannot be sharpened.
        """
        self._solver = self._solver.with_sharpness(sharpness)
        self.sharpness = sharpness

    def restarted(self) -> "Session":
        """A new session for other frames like these; asks for no more memory than this one has."""
        height, width = self.measured_size
        return type(self)(
            self._solver.no_larger_than(self._state),
            self.degradation,
            height=height,
            width=width,
            tile_pixels=0,  # the solver is in tiles already if it is to be
            device=self._device,
            frames_per_block=self.frames_per_block,
            keep_detail=self.keep_detail,
            follow=self.follow,
            sharpness=self.sharpness,
        )

    @property
    def can_shrink(self) -> bool:
        """Whether blocks may be restored at half size: of an operator that says what it is there, in
        whole pixels, by a solver that can begin anew with a block of any number of frames."""
        is_even = not any(side % 2 for side in self.measured_size)
        begins_anywhere = self._solver.first_block_frames == self._solver.frames_per_block
        return is_even and begins_anywhere and self.degradation.operator.halved() is not None

    @property
    def frames_held(self) -> int:
        """Frames that were pushed and have not come out yet."""
        return self._frames_in - self._next_out

    @property
    def frames_until_ready(self) -> int:
        """Frames to push until the next block comes out, at least 1."""
        return self._next_block_frames + self._radius - self.frames_held

    @property
    def _next_block_frames(self) -> int:
        if self._is_state_new:
            return min(self.frames_per_block, self._solver.first_block_frames)
        return self.frames_per_block

    @property
    def report(self) -> SessionReport:
        """Counts, times and the residual so far."""
        residual = None
        if self._squared_measurement > 0:
            residual = (self._squared_error / self._squared_measurement) ** 0.5
        return SessionReport(
            frames_in=self._frames_in,
            frames_out=self._next_out,
            estimate_seconds=self._clock.seconds(Step.ESTIMATE),
            student_seconds=self._clock.seconds(Step.STUDENT),
            consistency_seconds=self._clock.seconds(Step.CONSISTENCY),
            convert_seconds=self._clock.seconds(Step.CONVERT),
            block_seconds=tuple(self._block_seconds),
            frame_std=tuple(self._frame_std),
            residual=residual,
            frames_guarded=self.frames_guarded,
            frames_replaced=self._frames_replaced,
            guarded=tuple(self._guarded),
        )

    def _restore_ready(self, *, is_end: bool) -> Pixels:
        out: list[Pixels] = []
        while True:
            waiting = self._held.end - self._next_out
            size = self._next_block_frames
            if is_end and 0 < waiting <= size + self._radius:
                size = min(size, waiting)
            elif waiting < size + self._radius:
                break
            if waiting == 0:
                break
            out.append(self._restore_block(size))
        if not out:
            kind: type[Any] = np.uint16 if self._bit_depth_is_16 else np.uint8
            return np.empty((0, *self.output_size, 3), kind)
        restored: Pixels = np.concatenate(out)  # type: ignore[assignment]
        return restored

    def _restore_block(self, size: int) -> Pixels:
        """The next `size` frames; forgets the measured frames no later block needs."""
        started = time.perf_counter()
        before = self._next_out - self._held.first
        inside = slice(before, before + size)
        happened = self.degradation.at_frame(self._num_skipped + self._held.first)
        # not inference mode: a solver may ask for gradients, also of what operators keep
        with torch.no_grad(), self._memory_shortage_told():
            seen_until = self._next_out + size + self._radius
            measurement = self._held.measured_before(seen_until, happened)
            if self.is_shrunk:
                x = _enlarged(self._estimate(_halved(measurement), inside))
            else:
                x = self._estimate(measurement, inside)
        with self._clock.on_device(Step.CONVERT):
            found = levels(x, 65535 if self._bit_depth_is_16 else 255)
        pixels = stored_levels(found)  # waits for the device
        self._clock.settle()

        self._next_out += size
        self._held.drop_before(self._next_out - self._radius)
        self._block_seconds.append(time.perf_counter() - started)
        if self._latest_std is not None:
            self._frame_std.extend([float(self._latest_std.mean())] * size)
        return pixels

    def _estimate(self, measurement: Measurement, inside: slice) -> Tensor:
        """Restored frames [1, size, 3, H, W] of the part `inside` of the measured window."""
        height, width = measurement.operator.clean_size(*measurement.y.shape[-2:])
        past = measurement.y.new_empty(1, 0, 3, height, width)
        past = torch.cat([past, *(frame[None, None] for frame in self._restored)], 1)
        window = Window(measurement, inside, past[:, : inside.start])
        with self._clock.on_device(Step.STUDENT):
            restored = self._solved(window)
        self._latest_std = restored.std
        if self.keeps_errors:
            self._errors.append(_expected_errors(restored, window))
        with self._clock.on_device(Step.CONSISTENCY):
            self._add_residual(restored, measurement, inside)
            x = restored.x[:, inside]
            if self._radius:
                # a copy of each: one frame would keep all of its block and what is beside it
                self._restored.extend(frame.clone() for frame in x[0])
        self._count_guarded(restored)
        return x

    def _solved(self, window: Window) -> Restored:
        if self.is_student_skipped:
            self._begin_anew()
            self._is_state_new = True
            return self._cheap_solver.restore_block(window, None)
        if self.is_shrunk != self._is_state_shrunk:
            self._begin_anew()
            self._is_state_shrunk = self.is_shrunk
        self._is_state_new = False
        restored = checked(self._solver.restore_block(window, self._state), window, self._solver)
        if self.follow < 1:
            restored = followed(restored, window, self.follow)
        if self.keep_detail == 0:
            return restored
        return with_detail_kept(restored, window, self.keep_detail)

    def _begin_anew(self) -> None:
        """Forget the video so far; what memory once did not suffice for is not tried again."""
        self._solver = self._solver.no_larger_than(self._state)
        self._state = self._solver.new_state()

    def _count_guarded(self, restored: Restored) -> None:
        first = self._num_skipped + self._next_out
        found = [GuardedFrame(first + t, part) for t, part in enumerate(restored.replaced) if part]
        self._guarded.extend(found)
        self.frames_guarded += len(found)
        self._frames_replaced += sum(each.replaced == 1 for each in found)

    def _add_residual(self, restored: Restored, measurement: Measurement, inside: slice) -> None:
        A_x = measurement.operator.A(restored.x) if restored.A_x is None else restored.A_x
        error = (A_x - measurement.selected)[:, inside]
        self._squared_error += float(error.square().sum())
        self._squared_measurement += float(measurement.y[:, inside].square().sum())

    @contextmanager
    def _memory_shortage_told(self) -> Iterator[None]:
        """Where memory runs out and no smaller step helps, say so to a person."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            height, width = self.output_size
            raise DeviceMemoryError(
                f"the device ran out of memory at {width}x{height}",
                hint="restore smaller frames, free the device of other programs, or use "
                "`--device cpu`",
            ) from error

    def _check_operator(self) -> None:
        """Let the operator say now, not at the first block, that it does not fit the frames."""
        y = torch.zeros(1, 1, 3, *self.measured_size)
        self.degradation.operator.A(self.degradation.operator.A_adjoint(y))

    def _check_frames(self, frames: Pixels) -> None:
        height, width = self.measured_size
        if frames.ndim != 4 or frames.shape[1:] != (height, width, 3):
            raise UsageError(
                f"this session restores frames of {width}x{height}, got an array of {frames.shape}",
                hint="frames are [n, height, width, 3]; start a new session when the size changes",
            )
        if frames.dtype not in (np.uint8, np.uint16):
            raise UsageError(f"frames are uint8 or uint16, got {frames.dtype}")
        is_16 = frames.dtype == np.uint16
        if self._frames_in and is_16 != self._bit_depth_is_16:
            raise UsageError("the bit depth of the frames changed within a session")
        self._bit_depth_is_16 = is_16

    def _check_masks(self, frames: Pixels, *masks: NDArray[np.bool_] | None) -> None:
        if masks[0] is None and self._awaits_masks:
            raise UsageError(
                f"the masks of `{self.degradation.operator.spec}` come with the frames",
                hint="push both: `session.push(frames, known)`",
            )
        for mask in masks:
            if mask is not None and (mask.dtype != np.bool_ or mask.shape != frames.shape[:3]):
                raise UsageError(
                    f"masks are bool {frames.shape[:3]}, as the frames, "
                    f"got {mask.dtype} {mask.shape}"
                )


def _expected_errors(restored: Restored, window: Window) -> NDArray[np.float32]:
    """[frames inside, H, W] in 8-bit levels."""
    height, width = restored.x.shape[-2:]
    if restored.std_map is None:
        std = float(restored.std[0]) / LEVEL
        return np.full((window.num_frames, height, width), std, np.float32)
    cells = restored.std_map[0].float() / LEVEL
    fine = F.interpolate(cells, scale_factor=ERROR_CELL, mode="bilinear", align_corners=False)
    return fine[:, 0, :height, :width].cpu().numpy()


def _halved(measurement: Measurement) -> Measurement:
    """The measurement of the video at half its height and width, of averages over 2x2 pixels."""
    operator = measurement.operator.halved()
    assert operator is not None, "ask `can_shrink` first"
    degradation = replace(
        measurement.degradation, operator=operator, noise_std=measurement.noise_std / 2
    )
    return Measurement(F.avg_pool2d(measurement.y[0], 2)[None], degradation)


def _enlarged(x: Tensor) -> Tensor:
    """x [1, T, 3, H, W] at twice its height and width."""
    return F.interpolate(x[0], scale_factor=2, mode="bicubic", align_corners=False)[None]


def _tiled_if_large(
    solver: Solver[Any], size: tuple[int, int], tile_pixels: int | None
) -> Solver[Any]:
    if tile_pixels is None:
        largest = solver.needs.tile_above_pixels
        tile_pixels = TILE_PIXELS if largest is not None and size[0] * size[1] > largest else 0
    return solver.in_tiles(tile_pixels) if tile_pixels else solver
