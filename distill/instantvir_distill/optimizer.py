"""Muon for convolution and matrix weights, AdamW for everything else."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of Jordan et al. (2024), Muon."""


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to `matrices` [..., m, n], roughly (singular values near 1)."""
    a, b, c = NEWTON_SCHULZ
    is_wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if is_wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if is_wide else x.mT


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per weight matrix; convolutions are read as [out, in * k * k].

    Args:
        lr: step in units of the root mean square of a weight update times 0.2 sqrt(max(m, n)).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for weight in group["params"]:
                alike.setdefault(weight.flatten(1).shape, []).append(weight)
            for shape, weights in alike.items():
                self._step(
                    weights, lr=group["lr"] * 0.2 * max(shape) ** 0.5, momentum=group["momentum"]
                )

    def _step(self, weights: list[nn.Parameter], *, lr: float, momentum: float) -> None:
        """Of weights of one shape, whose matrices are orthogonalised together."""
        updates = []
        for weight in weights:
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            assert weight.grad is not None
            buffer = state["momentum"].lerp_(weight.grad, 1 - momentum)
            updates.append(weight.grad.lerp(buffer, momentum).flatten(1))
        for weight, matrix in zip(weights, orthogonalised(torch.stack(updates)), strict=True):
            weight.add_(matrix.view_as(weight), alpha=-lr)


def is_matrix(name: str, weight: Tensor) -> bool:
    """True for the weights Muon takes: convolutions and linear maps inside the network."""
    return weight.ndim >= 2 and not any(part in name for part in ("film", "head", "position"))
