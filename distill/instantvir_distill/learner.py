"""One network under training: its optimisers, its average, and what it does with a wild gradient."""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from instantvir_distill.optimizer import Muon, is_matrix
from instantvir_distill.parallel import Ask, Layout, joined, unless_last, whole
from instantvir_models.errors import UsageError

NORMS_KEPT = 200
"""Gradient norms whose median says what a spike is."""

NORMS_NEEDED = 20
"""Before that many are known, nothing is a spike."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast a network learns, and what it is protected from."""

    muon_lr: float
    adam_lr: float
    max_gradient_norm: float = 1.0
    spike: float = 8.0
    ema_decay: float | None = None
    """Of the average of its weights; None keeps no average."""
    updates_per_step: int = 1


class Learner:
    """Owns the optimisers and the average of a network; knows no loss.

    Args:
        learned: what the names of the weights that are trained begin with, several with commas.
        entries: methods of the network that losses ask, where weights are sharded.
        products: what its layers multiply in, where weights are sharded.
    """

    def __init__(
        self,
        network: nn.Module,
        rates: Rates,
        *,
        learned: str = "",
        layout: Layout = "replicated",
        entries: tuple[str, ...] = (),
        products: torch.dtype = torch.float32,
    ) -> None:
        self.network, self.rates = network, rates
        for name, weight in network.named_parameters():
            weight.requires_grad_(name.startswith(tuple(learned.split(","))))
        self._asked = joined(network, layout, entries=entries, products=products)
        self.average = (
            {name: value.detach().clone() for name, value in network.state_dict().items()}
            if rates.ema_decay is not None
            else {}
        )
        self.optimizers = _optimizers(network, rates, layout)
        self.norms: deque[float] = deque(maxlen=NORMS_KEPT)
        self.spikes = 0

    def learn(self, asks: Sequence[Ask], *, rate: float, step: int) -> tuple[Tensor, ...]:
        """What all `asks` gave back, the mean loss first, after one step against its gradient.

        Args:
            asks: equal parts of the step, learned from in turn.

        Raises:
            FloatingPointError: if the loss is not a number.
        """
        parts = []
        for number, ask in enumerate(asks, 1):
            with unless_last(self._asked, is_last=number == len(asks)):
                loss, *others = self._asked(ask)
                if not math.isfinite(float(loss.detach())):
                    raise FloatingPointError(f"the loss is {float(loss.detach())}")
                (loss / len(asks)).backward()
            parts.append((loss.detach(), *(other.detach() for other in others)))
        losses, others_of = [part[0] for part in parts], [part[1:] for part in parts]
        asked = torch.stack(losses).mean(), *(other for part in others_of for other in part)
        self._fill_missing()
        if not self._is_spike():
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * rate
                optimizer.step()
            self._update_average(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return asked

    def _fill_missing(self) -> None:
        """A branch that no sample of this step went through has a gradient of zeros."""
        for weight in self.network.parameters():
            if weight.requires_grad and weight.grad is None:
                weight.grad = torch.zeros_like(weight)

    def _is_spike(self) -> bool:
        """Whether the gradient is far longer than it usually is; else clips it."""
        total = nn.utils.clip_grad_norm_(self.network.parameters(), self.rates.max_gradient_norm)
        norm = float(whole(total))
        usual = statistics.median(self.norms) if len(self.norms) >= NORMS_NEEDED else math.inf
        is_spike = not norm <= self.rates.spike * usual
        if is_spike:
            self.spikes += 1
        else:
            self.norms.append(norm)
        return is_spike

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if self.rates.ema_decay is None:
            return
        decay = min(self.rates.ema_decay, (1 + step) / (10 + step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def whole_average(self) -> dict[str, Tensor]:
        """The averaged weights, complete; every worker has to ask."""
        return {name: whole(value) for name, value in self.average.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, as `torch.distributed.checkpoint` takes it."""
        norms = torch.full((NORMS_KEPT,), math.nan, dtype=torch.float64)
        norms[: len(self.norms)] = torch.tensor(list(self.norms), dtype=torch.float64)
        return {
            "network": get_model_state_dict(self.network),
            "optimizer": get_optimizer_state_dict(
                self.network,
                self.optimizers,
                options=StateDictOptions(flatten_optimizer_state_dict=True),
            ),
            "average": dict(self.average),
            "norms": norms,
            "spikes": torch.tensor(self.spikes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` whose tensors were read."""
        self.network.load_state_dict(state["network"])
        set_optimizer_state_dict(
            self.network,
            self.optimizers,
            optim_state_dict=state["optimizer"],
            options=StateDictOptions(flatten_optimizer_state_dict=True),
        )
        self.average = state["average"]
        self.norms.clear()
        self.norms.extend(float(norm) for norm in state["norms"] if not math.isnan(norm))
        self.spikes = int(state["spikes"])


def _optimizers(network: nn.Module, rates: Rates, layout: Layout) -> list[torch.optim.Optimizer]:
    """Muon for matrices and AdamW for the rest; where weights are sharded, AdamW for all."""
    named = [(name, weight) for name, weight in network.named_parameters() if weight.requires_grad]
    if not named:
        raise UsageError("no weight of the student is to be learned; `learned` names none")
    takes_muon = layout == "replicated" and rates.muon_lr > 0
    matrices = [w for name, w in named if takes_muon and is_matrix(name, w)]
    others = [w for name, w in named if not (takes_muon and is_matrix(name, w))]
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(Muon(matrices, lr=rates.muon_lr))
    if others:
        made.append(torch.optim.AdamW(others, lr=rates.adam_lr, weight_decay=0.0))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return made
