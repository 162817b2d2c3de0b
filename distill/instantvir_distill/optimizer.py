"""Muon for convolution and matrix weights, AdamW for everything else."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration of Jordan et al. (2024), Muon."""


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to `matrix` [m, n], roughly (singular values near 1)."""
    a, b, c = NEWTON_SCHULZ
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.mT


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
            for weight in group["params"]:
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                buffer = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(buffer, group["momentum"])
                matrix = orthogonalised(update.flatten(1))
                scale = 0.2 * max(matrix.shape) ** 0.5
                weight.add_(matrix.view_as(weight), alpha=-group["lr"] * scale)


def is_matrix(name: str, weight: Tensor) -> bool:
    """True for the weights Muon takes: convolutions and linear maps inside the network."""
    return weight.ndim >= 2 and not any(part in name for part in ("film", "head", "position"))
