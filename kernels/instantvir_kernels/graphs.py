"""One block of a stream recorded as CUDA graphs, so that a block costs one launch, not thousands.

A step writes its keys into the ring slot whose turn it is, so the recorded addresses differ from
block to block, but come around: one graph per slot is all there is once the window is full.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]
"""Takes and returns tensors; reads and writes nothing else but buffers that stay where they are."""


class Recording(Protocol):
    """A recorded sequence of launches."""

    def replay(self) -> None:
        """Launch all of it again, on the same addresses."""


class Recorder(Protocol):
    """How launches are recorded; CUDA's is the real one, tests bring their own."""

    def warm_up(self, run: Callable[[], object]) -> None:
        """Run eagerly where compiling and allocating is allowed."""

    def record(self) -> tuple[Recording, AbstractContextManager[object]]:
        """A recording, and the context inside which launches go into it."""


class CudaRecorder:
    """Records on a side stream; all recordings share one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], object]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)

    def record(self) -> tuple[Recording, AbstractContextManager[object]]:
        graph = torch.cuda.CUDAGraph()
        return graph, torch.cuda.graph(graph, pool=self._pool)


@dataclass(frozen=True)
class _Layout:
    """What must stay as it was for a recording to be valid."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> "_Layout":
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


@dataclass(frozen=True)
class _Recorded:
    recording: Recording
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class BlockGraphs:
    """Runs a step eagerly until the stream is steady, then replays one recording per ring slot.

    Args:
        step: one block. It must not ask the device for values (no `.item()`).
        recorder: `CudaRecorder()`, or None to run everything eagerly, as on a CPU.
    """

    def __init__(self, step: Step, recorder: Recorder | None) -> None:
        self._step = step
        self._recorder = recorder
        self._recorded: dict[tuple[Hashable, tuple[_Layout, ...]], _Recorded] = {}

    def __call__(self, *inputs: Tensor, slot: Hashable, is_steady: bool) -> tuple[Tensor, ...]:
        """What `step(*inputs)` returns; after a replay, valid until the next call.

        Args:
            inputs: copied to where the recording reads them.
            slot: tells apart the addresses that the step writes to, such as the first ring slot.
            is_steady: the window is full. While it fills, shapes change with every block and a
                recording would serve once, so none is made.
        """
        if self._recorder is None or not is_steady:
            return self._step(*inputs)
        key = slot, tuple(map(_Layout.of, inputs))
        found = self._recorded.get(key)
        if found is None:
            return self._record(self._recorder, key, inputs)
        for kept, given in zip(found.inputs, inputs, strict=True):
            kept.copy_(given)
        found.recording.replay()
        return found.outputs

    def _record(
        self,
        recorder: Recorder,
        key: tuple[Hashable, tuple[_Layout, ...]],
        inputs: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Record, and return what the eager warm-up computed: launches in a recording do not run."""
        kept = tuple(tensor.clone(memory_format=torch.preserve_format) for tensor in inputs)
        outputs: list[tuple[Tensor, ...]] = []
        recorder.warm_up(lambda: outputs.append(self._step(*kept)))
        recording, recorded = recorder.record()
        with recorded:
            static = self._step(*kept)
        self._recorded[key] = _Recorded(recording, kept, static)
        return outputs[0]
