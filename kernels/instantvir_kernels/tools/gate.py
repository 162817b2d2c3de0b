"""What a kernel must compute before anybody times it: the reference's result, every head of it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}
"""Of `reference.largest_error`, for kernels that multiply in this type; what rounding explains is
a fifth of it or less."""


def head_by_head(run: Callable[..., Sequence[Tensor]], *tensors: Tensor) -> list[Tensor]:
    """The results [B, S, N, D] of `run(*tensors)`, computed one head at a time.

    The scores of all heads together would not fit the memory of a card.
    """
    heads = range(tensors[0].shape[2])
    results = [run(*(tensor[:, :, n : n + 1] for tensor in tensors)) for n in heads]
    return [torch.cat(parts, 2) for parts in zip(*results, strict=True)]
