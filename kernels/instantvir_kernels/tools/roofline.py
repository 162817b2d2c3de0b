"""Bytes and FLOP of every kernel of one block, and the time a card cannot beat: a model, not a
measurement.

One block is `tokens` tokens through a Wan2.1-shaped student and LeanVAE. FLOP are 2 x multiply-adds.
Bytes are what must cross the memory of the card if each tensor is read or written once per
operation that touches it: `fused_bytes` with the kernels of this package, `unfused_bytes` with one
PyTorch operation after the other. kernels/README.md derives the counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from instantvir_kernels import tiles
from instantvir_kernels.tools.baseline import Report
from instantvir_kernels.tools.occupancy import ARCHITECTURES

BYTES = 2
"""Per number: bfloat16."""


@dataclass(frozen=True, kw_only=True)
class StudentShape:
    """Sizes of the transformer; the defaults are Wan2.1-T2V-1.3B."""

    width: int = 1536
    ffn_width: int = 8960
    heads: int = 12
    head_dim: int = 128
    layers: int = 30
    text_tokens: int = 512
    patch_channels: int = 64
    """Numbers per token on the way in and on the way out."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderShape:
    """Layers of LeanVAE: (width, inner width of the feed-forward, number) on the way in and out."""

    encoder: tuple[tuple[int, int, int], ...] = ((128, 341, 2), (384, 1024, 2), (512, 1365, 4))
    decoder: tuple[tuple[int, int, int], ...] = (
        (128, 341, 2), (384, 1024, 2), (512, 1365, 4),
        (512, 1365, 8),  # two unrolled ISTA steps, two layers there and two back
    )  # fmt: skip
    width: int = 512
    latent_channels: int = 16
    pixels_per_token: int = 768
    """Of the three colors: 4 frames of 8 x 8."""


@dataclass(frozen=True)
class Cost:
    """What one kernel does in one block, all layers together."""

    name: str
    flop: float
    fused_bytes: float
    unfused_bytes: float
    on_tensor_cores: bool = True

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.name,
            self.flop + other.flop,
            self.fused_bytes + other.fused_bytes,
            self.unfused_bytes + other.unfused_bytes,
        )


@dataclass(frozen=True)
class Card:
    """What a data sheet promises: dense bfloat16, float32 and memory, in FLOP/s and bytes/s."""

    name: str
    capability: int
    multiprocessors: int
    tensor_flops: float
    float_flops: float
    bandwidth: float


CARDS = (
    Card("A100 SXM", 80, 108, 312e12, 19.5e12, 2.039e12),
    Card("H100 SXM", 90, 132, 989e12, 67e12, 3.35e12),
    Card("H200 SXM", 90, 132, 989e12, 67e12, 4.8e12),
)


def student_costs(shape: StudentShape, *, tokens: int, past_blocks: int) -> list[Cost]:
    """Costs of one block that attends to itself and `past_blocks` blocks of as many tokens."""
    row = tokens * shape.width * BYTES  # one activation of the stream
    wide = tokens * shape.ffn_width * BYTES
    layers, keys = shape.layers, tokens * (past_blocks + 1)
    text = 2 * shape.text_tokens * shape.width * BYTES

    def attention(name: str, keys: int, kv_bytes: float) -> Cost:
        flop = 4.0 * tokens * keys * shape.width * layers
        moved = (2 * row + kv_bytes) * layers
        return Cost(name, flop, moved, moved)

    def step(name: str, fused: float, unfused: float) -> Cost:
        return Cost(name, 0.0, fused * layers, unfused * layers, on_tensor_cores=False)

    return [
        attention("self-attention", keys, 2 * keys * shape.width * BYTES),
        attention("cross-attention", shape.text_tokens, text),
        _linears(shape, tokens, row, wide),
        # three per layer: x, y -> x', LN(x'); the last gate's sum feeds the next layer's norm
        step("residual + norm + modulation", 12 * row, 27 * row),
        step("qk-norm + RoPE + ring write", 6 * row, 26 * row),
        step("norm of the text queries", 2 * row, 2 * row),
        step("GELU", 0, 2 * wide),
    ]


def _linears(shape: StudentShape, tokens: int, row: float, wide: float) -> Cost:
    """All matrix products of the stream; those of the text run once per prompt and are left out."""
    squares = 6  # q, k, v, out of self-attention; q, out of cross-attention
    weights = squares * shape.width**2 + 2 * shape.width * shape.ffn_width
    ends = 2 * shape.width * shape.patch_channels
    flop = 2.0 * tokens * (weights * shape.layers + ends)
    stored = (weights + 2 * shape.width**2) * shape.layers + ends
    moved = (4 + 2 + 2 + 2) * row + 2 * (row + wide)  # qkv, out, q, out, in and out of the FFN
    total = moved * shape.layers + stored * BYTES
    return Cost("linears", flop, total, total)


def autoencoder_costs(shape: AutoencoderShape, *, tokens: int) -> list[Cost]:
    """Costs of encoding and decoding one block of `tokens` places of LeanVAE's grid, 3 in time."""
    return [
        _autoencoder_linears("encoder linears", shape, shape.encoder, tokens, products=1),
        _autoencoder_linears("decoder linears", shape, shape.decoder, tokens, products=5),
        _depthwise(shape, tokens),
        _haar(shape, tokens),
    ]


def _autoencoder_linears(
    name: str, shape: AutoencoderShape, layers: tuple[tuple[int, int, int], ...], tokens: int, *,
    products: int,
) -> Cost:  # fmt: skip
    """Feed-forwards, patch embedding and `products` products with the latent's matrices."""
    ffn = sum(3 * width * inner * number for width, inner, number in layers)
    patch = 96 * 128 + 672 * 384
    latent = products * shape.width * shape.latent_channels
    moved = sum(
        # norm 2, in 1 + 2 inner, gate 3 inner, out inner + 1, sum 3; fused: norm and gate in place
        (7 * width + 6 * inner) * number
        for width, inner, number in layers
    )
    moved_bytes = float(tokens * (moved + 2 * shape.pixels_per_token) * BYTES)
    return Cost(name, 2.0 * tokens * (ffn + patch + latent), moved_bytes, moved_bytes)


def _depthwise(shape: AutoencoderShape, tokens: int) -> Cost:
    channels = sum(width * number for width, _, number in shape.encoder + shape.decoder)
    plane = tokens / 3 * channels * BYTES
    # fused: 3 planes and a memory of 2 in, 3 out. Unfused: concatenate 10, to channels-first 10,
    # convolve 8, back and add 9.
    return Cost(
        "depthwise convolution", 2.0 * 27 * channels * tokens, 8 * plane, 37 * plane,
        on_tensor_cores=False,
    )  # fmt: skip


def _haar(shape: AutoencoderShape, tokens: int) -> Cost:
    """Once on the way in, once out: each of three axes splits or joins, then patches are gathered."""
    pixels = float(tokens * shape.pixels_per_token * BYTES)
    # an axis: sum and difference (2 x (1 read + 1/2 written)), concatenation 2; patches 2
    return Cost("Haar bands and patches", 0.0, 2 * 2 * pixels, 2 * (3 * 5 + 2) * pixels, False)


def total(costs: list[Cost], name: str = "sum") -> Cost:
    """All costs as one."""
    return sum(costs, Cost(name, 0.0, 0.0, 0.0))


def tile_utilisation(
    card: Card, tile: tiles.Tile, report: Report, *, queries: int, heads: int
) -> float:
    """Share of the card that works on real rows while attention runs, from the compiler's numbers.

    Programs run in waves of (programs per multiprocessor) x (multiprocessors); the last wave and
    the ragged last tile are partly empty.
    """
    architecture = ARCHITECTURES[card.capability]
    resident = report.programs_per_multiprocessor(architecture) * card.multiprocessors
    waves = ceil(ceil(queries / tile.block_q) * heads / resident)
    return queries / tile.block_q * heads / (waves * resident)


@dataclass(frozen=True)
class Prediction:
    """Times of one block that the model gives, in seconds."""

    compute: float
    """Products alone."""
    fused: float
    unfused: float

    @classmethod
    def of(
        cls, costs: list[Cost], card: Card, *, sustained: float, attention_utilisation: float
    ) -> "Prediction":
        """Each kernel takes as long as its products or its bytes, whichever is longer; one by one.

        Args:
            costs: of one block.
            card: where it runs.
            sustained: share of the card's peak that products reach.
            attention_utilisation: `tile_utilisation`, a further factor for self-attention.
        """

        def product_seconds(cost: Cost) -> float:
            peak = card.tensor_flops * sustained if cost.on_tensor_cores else card.float_flops
            if cost.name == "self-attention":
                peak *= attention_utilisation
            return cost.flop / peak

        def seconds(moved: Callable[[Cost], float]) -> float:
            return sum(max(product_seconds(c), moved(c) / card.bandwidth) for c in costs)

        return cls(
            compute=sum(map(product_seconds, costs)),
            fused=seconds(lambda cost: cost.fused_bytes),
            unfused=seconds(lambda cost: cost.unfused_bytes),
        )
