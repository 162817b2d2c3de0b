"""Weights that rest in CPU memory and come to the device for their turn.

A card then holds a few layers of a transformer instead of all of them. The same numbers meet the
same operations, so the result is the same to the bit; what it costs is the way over the bus, most
of it hidden behind the layer that computes meanwhile.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

SLOTS = 2
"""Layers on the device at once: the one that computes, and the next one on its way."""

HOME = torch.device("cpu")
"""Where weights rest."""


class Offload:
    """Where the weights of a student are: the one owner of that, for all sessions of the student.

    Any of these sessions may move the weights, so all of them belong to one thread.

    What stays on the device at all times are the parameters around the layers, and those that
    belong to a layer directly.

    Args:
        transformer: with `layers` in it, all of one kind.
        autoencoder: comes and goes as a whole.
        device: where the student computes.
    """

    def __init__(
        self,
        transformer: nn.Module,
        layers: nn.ModuleList,
        autoencoder: nn.Module,
        device: torch.device,
    ) -> None:
        self.device = device
        self.is_resting = False
        self._layers = layers
        self._autoencoder = autoencoder
        coming = list(autoencoder.modules())
        for layer in layers:
            coming += [module for part in layer.children() for module in part.modules()]
        self._coming = coming
        known = set(coming)
        self._staying = [module for module in transformer.modules() if module not in known]

    def rest(self) -> None:
        """Let the weights rest in CPU memory, page-locked where they go to a card from there."""
        _replace(self._staying, lambda weight: weight.to(self.device))
        _replace(self._coming, lambda weight: _at_home(weight, self.device))
        self.is_resting = True

    def wake(self) -> None:
        """Bring all weights to the device to stay."""
        _replace((*self._staying, *self._coming), lambda weight: weight.to(self.device))
        self.is_resting = False

    def new_turns(self) -> "LayerTurns":
        """Room on the device for the layers of one session."""
        return LayerTurns(self._layers, self.device)

    @contextmanager
    def autoencoder_on_device(self) -> Iterator[None]:
        """While entered, the autoencoder's weights are on the device."""
        if not self.is_resting:
            yield
            return
        modules = list(self._autoencoder.modules())
        homes = [dict(module.named_parameters(recurse=False)) for module in modules]
        try:
            _replace(modules, lambda weight: weight.to(self.device, copy=True))
            yield
        finally:
            for module, home in zip(modules, homes, strict=True):
                for name, weight in home.items():
                    setattr(module, name, weight)


class LayerTurns:
    """Gives the layers of a stack in order, each with its weights on the device until the next.

    There are never more than `SLOTS` of them there: their weights are copied into layers that were
    made once. On a card the next layer's come on a stream of their own while one computes.

    Args:
        layers: all of one kind; only read.
    """

    def __init__(self, layers: nn.ModuleList, device: torch.device) -> None:
        self._layers = layers
        self._device = device
        self._slots = [_empty_copy(layers[0], device) for _ in range(min(SLOTS, len(layers)))]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[nn.Module]:
        try:
            self._fetch(0)
            for index in range(len(self)):
                self._await_copies()
                # the other slot: only layers before this one, all of them under way, have used it
                if index + 1 < len(self):
                    self._fetch(index + 1)
                yield self._slots[index % len(self._slots)]
        finally:  # who goes away early may free the slots: not before their weights have come
            self._await_copies()

    @property
    def device_bytes(self) -> int:
        """Memory of the slots."""
        return sum(p.numel() * p.element_size() for s in self._slots for p in s.parameters())

    def _fetch(self, index: int) -> None:
        slot = self._slots[index % len(self._slots)]
        with self._copying():
            for there, here in zip(
                slot.parameters(), self._layers[index].parameters(), strict=True
            ):
                there.copy_(here, non_blocking=True)

    def _copying(self) -> AbstractContextManager[object]:
        """On the stream of copies, once what was asked of the device before has been done."""
        if self._stream is None:
            return nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._stream)

    def _await_copies(self) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)


def _empty_copy(layer: nn.Module, device: torch.device) -> nn.Module:
    with torch.inference_mode(False):
        return copy.deepcopy(layer).to_empty(device=device).eval().requires_grad_(False)


def _replace(modules: Iterable[nn.Module], moved: Callable[[Tensor], Tensor]) -> None:
    """Put `moved` weights into the modules, their children left alone."""
    with torch.inference_mode(False):  # weights outlive the block at which memory ran out
        for module in modules:
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(moved(weight.data), weight.requires_grad))


def _at_home(weight: Tensor, device: torch.device) -> Tensor:
    resting = weight.to(HOME)
    if device.type != "cuda":
        return resting
    try:
        return resting.pin_memory()
    except RuntimeError as error:  # the system limits how much may be locked
        logger.info("weights rest in ordinary memory, which is slower: %s", error)
        return resting
