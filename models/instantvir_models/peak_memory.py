"""How much memory operations take, counted tensor by tensor, on any device, also on `meta`."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

CONVOLUTIONS = (
    torch.ops.aten.convolution,
    torch.ops.aten.conv1d,
    torch.ops.aten.conv2d,
    torch.ops.aten.conv3d,
)


class PeakMemory(TorchDispatchMode):
    """While entered, counts the bytes of tensors that operations made and nobody has let go of.

    Tensors that were there before do not count. Of scratch space inside operations only that of
    convolutions does: cuDNN works with channels last, and turns input, weights and output around.
    On the `meta` device nothing is computed and the count is the same.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._known: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in self._unknown((args, kwargs)):
            self._known[tensor.untyped_storage()] = None
        out = func(*args, **kwargs)
        for tensor in self._unknown(out):
            self._count(tensor.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + _scratch_bytes(func, args, out))
        return out

    def _unknown(self, tree: Any) -> list[Tensor]:
        tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
        return [tensor for tensor in tensors if tensor.untyped_storage() not in self._known]

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:  # two outputs may share one
            return
        size = storage.nbytes()
        self._known[storage] = None
        weakref.finalize(storage, self._let_go, size)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _let_go(self, size: int) -> None:
        self.live_bytes -= size


def _scratch_bytes(func: Any, args: tuple[Any, ...], out: Any) -> int:
    """What an operation takes for itself while it runs."""
    if getattr(func, "overloadpacket", None) not in CONVOLUTIONS:
        return 0
    x, weight = args[:2]
    is_depthwise = x.shape[1 - weight.ndim] != weight.shape[1]  # which has kernels of its own
    return 0 if is_depthwise else x.nbytes + weight.nbytes + out.nbytes
