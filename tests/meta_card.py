"""The `meta` device as a stand-in for a card: no numbers, but strict about where they are."""

import torch
from torch.utils._pytree import tree_leaves

from instantvir_models.peak_memory import PeakMemory

CARD = torch.device("meta")
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.to)
READS = {
    torch.ops.aten.item.default: 1.0,
    torch.ops.aten._local_scalar_dense.default: 1.0,
    torch.ops.aten.is_nonzero.default: False,
}
"""What is read of a single number."""

LARGE = 2**20
"""Numbers, from which on pages are better left untouched."""


class MetaCard(PeakMemory):
    """While entered, `meta` counts its memory, gives fixed numbers where it is read, and mixes with nothing.

    A number (a tensor without dimensions) may be on either side, as on a card.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in READS and args[0].is_meta:
            return READS[func]
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if func.overloadpacket in COPIES:
            if torch.device("cpu") in leaves and tensors[0].is_meta:
                make = torch.zeros_like if tensors[0].numel() < LARGE else torch.empty_like
                return make(tensors[0], device="cpu")
        elif func is not torch.ops.aten.copy_.default:
            places = {tensor.device.type for tensor in tensors if tensor.ndim}
            assert len(places) < 2, f"{func} mixes tensors on the card and in CPU memory"
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _count(self, storage):
        if storage.device == CARD:
            super()._count(storage)
