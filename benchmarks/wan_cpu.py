"""The full-size networks beside their reference forms on this CPU: same shapes, same weights.

    python benchmarks/wan_cpu.py [--json FILE]

Each pair runs in turns in one process, single-threaded; the number is CPU seconds, the claim is the
ratio. Outputs are compared first: no time is taken of something that computes something else.
Needs the `parity` extra.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor, nn

from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE, _DepthwiseConv
from instantvir_models.autoencoders.wan import LATENT_MEAN, LATENT_STD, WanVAE, WanVaeConfig
from instantvir_models.checkpoints.names import transformer_to_diffusers, wan_vae_to_diffusers
from instantvir_models.students.wan.transformer import (
    TextRows,
    WanConfig,
    WanMemory,
    WanTransformer,
)

LARGEST_ERROR = 2e-3
"""Of outputs with a standard deviation of about one, in float32 through deep random networks."""

LARGEST_BFLOAT16_ERROR = 0.2
"""The largest of half a million values, each with 8 bits through 24 layers."""


@dataclass(frozen=True)
class Pair:
    """One comparison."""

    name: str
    shape: str
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
    parser.add_argument("--only", choices=PAIRS, help="one pair")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = []
    for compare in [PAIRS[given.only]] if given.only else PAIRS.values():
        torch.manual_seed(0)
        with torch.inference_mode():
            pairs.append(compare(given.rounds))
        print(_line(pairs[-1]), flush=True)
    if given.json:
        report = {
            "cpu": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": 1,
            "dtype": "float32",
            "rounds": given.rounds,
            "pairs": [asdict(pair) | {"ratio": pair.ratio} for pair in pairs],
        }
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def transformer_pair(rounds: int) -> Pair:
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
    text, timestep = TextRows(rows, 512), torch.tensor([522])
    return _measured(
        "transformer, 2 layers, first block", "416x240, 3 latents",
        lambda: ours.velocity_of_block(
            z, timestep=522, text=text, memory=WanMemory(), window_latents=3
        ),
        lambda: theirs(
            z.transpose(1, 2), timestep=timestep, encoder_hidden_states=padded
        ).sample.transpose(1, 2),
        rounds,
    )  # fmt: skip


def wan_decode_pair(rounds: int) -> Pair:
    """The published Wan autoencoder: blocks of three latents against one latent at a time."""
    ours = WanVAE(WanVaeConfig()).eval()
    theirs = AutoencoderKLWan().eval()
    theirs.load_state_dict({wan_vae_to_diffusers(k): v for k, v in ours.state_dict().items()})
    z = torch.randn(1, 6, 16, 8, 12)
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (LATENT_MEAN, LATENT_STD))
    raw = z.transpose(1, 2) * std + mean

    def in_blocks() -> Tensor:
        memory = CausalMemory()
        return torch.cat([ours.decode(part, memory) for part in z.split(3, 1)], 1).clamp(-1, 1)

    return _measured(
        "Wan decode, 6 latents", "96x64, 21 frames", in_blocks,
        lambda: theirs.decode(raw).sample.transpose(1, 2), rounds,
    )  # fmt: skip


class _PlainDepthwiseConv(nn.Module):
    """The straightforward form of `_DepthwiseConv`: channels first, padded, back again."""

    def __init__(self, ds_conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = nn.Conv3d(*ds_conv.weight.shape[:1] * 2, 3, groups=len(ds_conv.weight))
        self.conv.load_state_dict(ds_conv.state_dict())

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        padded = nn.functional.pad(x.movedim(-1, 1).contiguous(), (1, 1, 1, 1, 2, 0))
        return self.conv(padded).movedim(1, -1).contiguous()


def lean_decode_pair(rounds: int) -> Pair:
    """The published LeanVAE on the first block of a video, both in float32."""
    return _lean_pair("LeanVAE decode, 3 latents", torch.float32, LARGEST_ERROR, rounds)


def lean_bfloat16_pair(rounds: int) -> Pair:
    """The same as it runs by default where the CPU computes in bfloat16, beside float32."""
    return _lean_pair("LeanVAE decode, bfloat16", torch.bfloat16, LARGEST_BFLOAT16_ERROR, rounds)


def _lean_pair(name: str, dtype: torch.dtype, largest_error: float, rounds: int) -> Pair:
    plain = LeanVAE(LeanConfig()).eval()
    ours = LeanVAE(LeanConfig()).eval()
    ours.load_state_dict(plain.state_dict())
    ours = ours.to(dtype)
    for module in list(plain.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, _DepthwiseConv):
                setattr(module, child_name, _PlainDepthwiseConv(child.ds_conv))
    z = torch.randn(1, 3, 16, 30, 52)

    def decode(network: LeanVAE, z: Tensor) -> Tensor:
        tokens = network.latent_bottleneck.decode(z.movedim(2, -1), memory := CausalMemory())
        return network.decoder(tokens, memory, is_first=True).float()

    return _measured(
        name, "416x240, 9 frames", lambda: decode(ours, z.to(dtype)), lambda: decode(plain, z),
        rounds, largest_error,
    )  # fmt: skip


def _measured(
    name: str,
    shape: str,
    ours: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
    rounds: int,
    largest_error: float = LARGEST_ERROR,
) -> Pair:
    """Both forms in turns; the least of each, after a comparison that also warms up."""
    expected = theirs()
    difference = float((ours() - expected).abs().max() / expected.std())
    if difference > largest_error:
        raise SystemExit(f"{name}: outputs differ by {difference:.1e} of their deviation")
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for who, run in (("ours", ours), ("theirs", theirs)):
            started = time.process_time()
            run()
            seconds[who].append(time.process_time() - started)
    return Pair(name, shape, min(seconds["ours"]), min(seconds["theirs"]), difference)


def _line(pair: Pair) -> str:
    return (
        f"{pair.name:<36}{pair.shape:<22}ours {pair.ours_cpu_seconds:7.2f} s   "
        f"reference {pair.theirs_cpu_seconds:7.2f} s   ratio {pair.ratio:5.2f}   "
        f"difference {pair.largest_difference:.0e}"
    )


PAIRS = {
    "transformer": transformer_pair,
    "wan": wan_decode_pair,
    "lean": lean_decode_pair,
    "lean-bfloat16": lean_bfloat16_pair,
}

if __name__ == "__main__":
    main()
