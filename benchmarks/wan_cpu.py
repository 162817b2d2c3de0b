"""The full-size networks beside their reference forms on this CPU: same shapes, same weights.

    python benchmarks/wan_cpu.py [--json FILE]

The forms of a network run in turns in one process, single-threaded; the number is CPU seconds, the
claim is the ratio. Outputs are compared first: no time is taken of something that computes something
else. About six minutes on a free core. Needs the `parity` extra.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn

from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE, _Layers
from instantvir_models.autoencoders.wan import LATENT_MEAN, LATENT_STD, WanVAE, WanVaeConfig
from instantvir_models.checkpoints.names import transformer_to_diffusers, wan_vae_to_diffusers
from instantvir_models.cpu import keep_freed_memory
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.transformer import WanConfig, WanMemory, WanTransformer

LARGEST_ERROR = {torch.float32: 2e-3, torch.bfloat16: 0.3}
"""Of outputs with a standard deviation of about one, through deep random networks: the largest of
millions of values, in bfloat16 each with 8 bits through 24 layers, often on both sides."""


@dataclass(frozen=True)
class Pair:
    """One comparison."""

    name: str
    shape: str
    dtypes: str
    """Ours, theirs."""
    ours_cpu_seconds: float
    theirs_cpu_seconds: float
    largest_difference: float

    @property
    def ratio(self) -> float:
        """How many times less CPU time ours takes."""
        return self.theirs_cpu_seconds / self.ours_cpu_seconds


def main() -> None:
    """Run every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PAIRS, help="one network")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command does; it speeds up both sides
    pairs: list[Pair] = []
    for name in [given.only] if given.only else PAIRS:
        torch.manual_seed(0)
        with torch.inference_mode():
            found = PAIRS[name](given.rounds)
        print(*map(_line, found), sep="\n", flush=True)
        pairs += found
    if given.json:
        report = {
            "cpu": platform.processor() or platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            "threads": 1,
            "rounds": given.rounds,
            "pairs": [asdict(pair) | {"ratio": pair.ratio} for pair in pairs],
        }
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def transformer_pairs(rounds: int) -> list[Pair]:
    """Two layers of Wan2.1-1.3B on the first block, all 512 text rows padded but 20."""
    config = WanConfig(num_layers=2)
    ours = WanTransformer(config).eval()
    theirs = WanTransformer3DModel(
        num_attention_heads=12, attention_head_dim=128, in_channels=16, out_channels=16,
        text_dim=4096, freq_dim=256, ffn_dim=8960, num_layers=2,
    ).eval()  # fmt: skip
    theirs.load_state_dict({transformer_to_diffusers(k): v for k, v in ours.state_dict().items()})
    z = torch.randn(1, 3, 16, 30, 52)
    rows = torch.randn(1, 20, 4096)
    padded = nn.functional.pad(rows, (0, 0, 0, 492))
    timestep = torch.tensor([522])

    def in_dtype(dtype: torch.dtype) -> Forms:
        ours.to(dtype)
        theirs.to(dtype)
        block, text = z.to(dtype), TextRows(rows.to(dtype), 512)
        first, embeds = block.transpose(1, 2), padded.to(dtype)
        return {
            "ours": lambda: ours.velocity_of_block(
                block, timestep=522, text=text, memory=WanMemory(), window_latents=3
            ),
            "theirs": lambda: theirs(
                first, timestep=timestep, encoder_hidden_states=embeds
            ).sample.transpose(1, 2),
        }

    return _in_each_dtype(
        "transformer, 2 layers, first block", "416x240, 3 latents", in_dtype, rounds
    )


def wan_decode_pairs(rounds: int) -> list[Pair]:
    """The published Wan autoencoder: blocks of three latents against one latent at a time."""
    ours = WanVAE(WanVaeConfig()).eval()
    theirs = AutoencoderKLWan().eval()
    theirs.load_state_dict({wan_vae_to_diffusers(k): v for k, v in ours.state_dict().items()})
    z = torch.randn(1, 6, 16, 8, 12)
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (LATENT_MEAN, LATENT_STD))

    def in_dtype(dtype: torch.dtype) -> Forms:
        ours.to(dtype)
        theirs.to(dtype)
        raw = (z.transpose(1, 2) * std + mean).to(dtype)
        parts = z.to(dtype).split(3, 1)

        def in_blocks() -> Tensor:
            memory = CausalMemory()
            return torch.cat([ours.decode(part, memory) for part in parts], 1).clamp(-1, 1)

        return {"ours": in_blocks, "theirs": lambda: theirs.decode(raw).sample.transpose(1, 2)}

    return _in_each_dtype("Wan decode, 6 latents", "96x64, 21 frames", in_dtype, rounds)


class _PlainLayers(nn.Module):
    """The straightforward form of `_Layers`: channels first and padded for a grouped `Conv3d`."""

    def __init__(self, layers: _Layers) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv.ds_conv for conv in layers.dconv_layer)
        self.nets = layers.ffd_layer
        self.is_residual = [conv.is_residual for conv in layers.dconv_layer]

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        functional = nn.functional
        for conv, net, is_residual in zip(self.convs, self.nets, self.is_residual, strict=True):
            padded = functional.pad(x.movedim(-1, 1), (1, 1, 1, 1, 2, 0)).contiguous()
            out = functional.conv3d(padded, conv.weight, conv.bias, groups=x.shape[-1])
            out = out.movedim(1, -1)
            x = x + out if is_residual else out
            norm, up, *_, down = net
            value, gate = up(norm(x)).chunk(2, -1)
            out = down(value * functional.gelu(gate))
            x = x + out if is_residual else out
        return x


def lean_decode_pairs(rounds: int) -> list[Pair]:
    """The published LeanVAE on the first block of a video.

    The last pair is what a person gains: ours in bfloat16, its default where the CPU computes in it.
    """
    z = torch.randn(1, 3, 16, 60, 104)
    state = LeanVAE(LeanConfig()).state_dict()
    forms: Forms = {}
    for name, dtype in SHORT_NAMES.items():
        ours, plain = LeanVAE(LeanConfig()).eval(), LeanVAE(LeanConfig()).eval()
        for network in (ours, plain):
            network.load_state_dict(state)
            network.to(dtype)
        for module in list(plain.modules()):
            for child_name, child in list(module.named_children()):
                if isinstance(child, _Layers):
                    setattr(module, child_name, _PlainLayers(child))
        forms[f"ours {name}"] = partial(_decode_first, ours, z.to(dtype))
        forms[f"theirs {name}"] = partial(_decode_first, plain, z.to(dtype))
    seconds, outputs = _measured(forms, rounds)
    return [
        _pair("LeanVAE decode, 3 latents", "832x480, 9 frames", seconds, outputs, mine, other)
        for mine, other in (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32"))
    ]


def _decode_first(network: LeanVAE, z: Tensor) -> Tensor:
    """`LeanVAE.decode` at the start of a video, without a look at modules that plain ones lack."""
    tokens = network.latent_bottleneck.decode(z.movedim(2, -1), memory := CausalMemory())
    return network.decoder(tokens, memory, is_first=True)


SHORT_NAMES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Forms = dict[str, Callable[[], Tensor]]
"""What is timed, by "ours" or "theirs" and for LeanVAE a dtype."""


def _in_each_dtype(
    name: str, shape: str, in_dtype: Callable[[torch.dtype], Forms], rounds: int
) -> list[Pair]:
    """One pair in float32, one in bfloat16."""
    pairs = []
    for short, dtype in SHORT_NAMES.items():
        forms = {f"{who} {short}": run for who, run in in_dtype(dtype).items()}
        pairs.append(_pair(name, shape, *_measured(forms, rounds), short, short))
    return pairs


def _measured(forms: Forms, rounds: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The least CPU seconds of each form, run in turns, and the output of a first, untimed run."""
    outputs = {who: run().float() for who, run in forms.items()}
    least = dict.fromkeys(forms, float("inf"))
    for _ in range(rounds):
        for who, run in forms.items():
            started = time.process_time()
            run()
            least[who] = min(least[who], time.process_time() - started)
    return least, outputs


def _pair(
    name: str,
    shape: str,
    seconds: dict[str, float],
    outputs: dict[str, Tensor],
    mine: str,
    other: str,
) -> Pair:
    """Ours in the dtype `mine` beside theirs in `other`.

    Raises:
        SystemExit: if they do not compute the same.
    """
    ours, theirs = f"ours {mine}", f"theirs {other}"
    expected = outputs[theirs]
    difference = float((outputs[ours] - expected).abs().max() / expected.std())
    if difference > LARGEST_ERROR[SHORT_NAMES[mine]]:
        raise SystemExit(f"{name}: {mine} and {other} differ by {difference:.1e} of the deviation")
    return Pair(name, shape, f"{mine}, {other}", seconds[ours], seconds[theirs], difference)


def _line(pair: Pair) -> str:
    """A row of the table in results/wan_cpu.md."""
    return (
        f"| {pair.name} | {pair.shape} | {pair.dtypes} | {pair.ours_cpu_seconds:.2f} s "
        f"| {pair.theirs_cpu_seconds:.2f} s | {pair.ratio:.2f} | {pair.largest_difference:.0e} |"
    )


PAIRS = {"transformer": transformer_pairs, "wan": wan_decode_pairs, "lean": lean_decode_pairs}

if __name__ == "__main__":
    main()
