"""Several workers as one: torch's own engines average gradients and hold weights."""

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

Layout = Literal["replicated", "sharded"]

SECONDS_TO_LET_GO = 0.3

Ask = Callable[[], tuple[Tensor, ...]]
"""What asks a network, any of its methods and as often as it likes, and gives back the loss first."""


def world_size() -> int:
    """How many workers train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; 0 writes what is shown to people."""
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    """Waits for all workers."""
    if dist.is_initialized():
        dist.barrier()


def leave() -> None:
    """End the process group, after the other workers have come here, too; networks that were `joined`
    are gone by then.

    torch waits for its thread while it holds the interpreter, and the thread needs the interpreter to
    let go of the last that was sent: it is given the time, or both wait for ever.
    """
    gc.collect()
    barrier()
    time.sleep(SECONDS_TO_LET_GO)
    dist.destroy_process_group()


class _Asked(nn.Module):
    """A network behind whatever asks it: what engines see is one forward pass, a loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ask: Ask) -> tuple[Tensor, ...]:
        return ask()


class _AllAsked(_Asked):
    """The same, where a branch of the network may be asked by one worker and not by another.

    Every weight then has a gradient in every worker, of zeros where it had none, and nothing has to
    search the graph for those without one.
    """

    def forward(self, ask: Ask) -> tuple[Tensor, ...]:
        loss, *others = ask()
        learned = [weight.sum() for weight in self.network.parameters() if weight.requires_grad]
        return loss + 0 * torch.stack(learned).sum(), *others


def joined(
    network: nn.Module,
    layout: Layout,
    *,
    entries: Sequence[str],
    products: torch.dtype = torch.float32,
) -> nn.Module:
    """A module whose call asks `network` and whose backward pass averages over all workers.

    Args:
        entries: names of the methods of `network` that will be asked, where weights are sharded.
        products: what layers multiply in where weights are sharded; the weights that learn, their
            gradients and all that is around the layers are float32.
    """
    asked = _Asked(network)
    if not dist.is_initialized() or (world_size() == 1 and layout == "replicated"):
        return asked
    if layout == "sharded":
        # of views that are returned; nothing is changed in place that came out of a layer
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        for weight in network.parameters():  # those of convolutions may have channels last
            weight.data = weight.data.contiguous()
        mesh = init_device_mesh(next(network.parameters()).device.type, (world_size(),))
        policy = MixedPrecisionPolicy(
            param_dtype=products, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for layer in getattr(network, "blocks", ()):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
            for name in getattr(layer, "entries", ()):
                register_fsdp_forward_method(layer, name)
        fully_shard(network, mesh=mesh)
        for name in entries:
            register_fsdp_forward_method(network, name)
        return asked
    return DistributedDataParallel(_AllAsked(network))


@contextmanager
def unless_last(asked: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Gradients of what is asked inside are averaged over workers with the last part only."""
    if isinstance(asked, DistributedDataParallel) and not is_last:
        with asked.no_sync():
            yield
        return
    yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor without the parts of other workers missing; every worker has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
