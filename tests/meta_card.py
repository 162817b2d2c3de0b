"""The `meta` device as a stand-in for a card: no numbers, but strict about where they are."""

import torch
from torch.utils._pytree import tree_leaves

from instantvir_models.peak_memory import PeakMemory

CARD = torch.device("meta")
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.to)


class MetaCard(PeakMemory):
    """While entered, `meta` counts its memory, gives any numbers where it is read, and mixes with nothing.

    A number (a tensor without dimensions) may be on either side, as on a card.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1.0
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if func.overloadpacket in COPIES:
            if torch.device("cpu") in leaves and tensors[0].is_meta:
                return torch.empty_like(tensors[0], device="cpu")
        elif func is not torch.ops.aten.copy_.default:
            places = {tensor.device.type for tensor in tensors if tensor.ndim}
            assert len(places) < 2, f"{func} mixes tensors on the card and in CPU memory"
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _count(self, storage):
        if storage.device == CARD:
            super()._count(storage)
