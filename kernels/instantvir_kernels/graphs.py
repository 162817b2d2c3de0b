"""One block of a stream recorded as CUDA graphs, so that a block costs one launch, not thousands.

A block writes its keys into the ring slot whose turn it is, so the recorded addresses differ from block to
block, but come around: one graph per slot is all there is once the window is full.
"""

import os
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


def recorder_for(device_type: str) -> type[CudaRecorder] | None:
    """What makes recorders of a device, where `INSTANTVIR_CUDA_GRAPHS=1` asks for them.

    They are not the rule before a card has shown what they give: a recording keeps the memory of a block
    for itself, which no plan counts.
    """
    is_wanted = os.environ.get("INSTANTVIR_CUDA_GRAPHS") == "1"
    return CudaRecorder if is_wanted and device_type == "cuda" else None


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


_Key = tuple[Hashable, tuple[_Layout, ...]]


@dataclass(frozen=True)
class _Recorded:
    recording: Recording
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class BlockGraphs:
    """Runs a step launch by launch when it comes for the first time, records it at the second, then replays.

    So a short block at the end of a video, whose shapes come once, is never recorded.
    """

    def __init__(self) -> None:
        self._met: set[_Key] = set()
        self._recorded: dict[_Key, _Recorded] = {}

    def __len__(self) -> int:
        """Recordings kept."""
        return len(self._recorded)

    def forget(self) -> None:
        """Drop all recordings: buffers that the step reads or writes are others now."""
        self._met.clear()
        self._recorded.clear()

    def __call__(
        self, recorder: Recorder, step: Step, *inputs: Tensor, slot: Hashable
    ) -> tuple[Tensor, ...]:
        """What `step(*inputs)` returns; after a replay, valid until the next call.

        Args:
            step: one block. It must not ask the device for values (no `.item()`), and must be the same
                for the same slot until `forget`.
            inputs: copied to where the recording reads them.
            slot: tells apart the addresses that the step writes to, such as the first ring slot.
        """
        key = slot, tuple(map(_Layout.of, inputs))
        found = self._recorded.get(key)
        if found is not None:
            for kept, given in zip(found.inputs, inputs, strict=True):
                kept.copy_(given)
            found.recording.replay()
            return found.outputs
        if key not in self._met:
            self._met.add(key)
            return step(*inputs)
        return self._record(recorder, step, key, inputs)

    def _record(
        self, recorder: Recorder, step: Step, key: _Key, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Record, and return what the warm-up computed: launches in a recording do not run."""
        kept = tuple(tensor.clone(memory_format=torch.preserve_format) for tensor in inputs)
        outputs: list[tuple[Tensor, ...]] = []
        recorder.warm_up(lambda: outputs.append(step(*kept)))
        recording, recorded = recorder.record()
        with recorded:
            static = step(*kept)
        self._recorded[key] = _Recorded(recording, kept, static)
        return outputs[0]
