"""A recorder of launches that needs no card: every operation is kept, and done again on the same tensors."""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Operations in their order, with the tensors that they read and gave."""

    def __init__(self):
        super().__init__()
        self.operations = []
        self.replays = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, given))
        return given

    def replay(self):
        """Do all of it again; what an operation gives goes where it went when it was recorded."""
        self.replays += 1
        for func, args, kwargs, given in self.operations:
            for there, now in zip(
                tree_leaves(given), tree_leaves(func(*args, **kwargs)), strict=True
            ):
                if isinstance(there, torch.Tensor) and there.data_ptr() != now.data_ptr():
                    there.copy_(now)


class TapeRecorder:
    """As `CudaRecorder`, with tapes."""

    def __init__(self):
        self.tapes = []

    def warm_up(self, run):
        run()

    def record(self):
        tape = Tape()
        self.tapes.append(tape)

        @contextmanager
        def recording():
            with tape:
                yield

        return tape, recording()
