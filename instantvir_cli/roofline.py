"""`instantvir benchmark --roofline`: what a card could do at best with a block, counted on paper."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from instantvir_cli.standard_streams import put
from instantvir_kernels import tiles
from instantvir_kernels.tools import roofline
from instantvir_kernels.tools.baseline import read_baseline
from instantvir_kernels.tools.roofline import (
    AutoencoderShape,
    Card,
    Cost,
    Prediction,
    StudentShape,
)
from instantvir_models.errors import UsageError

PAST_BLOCKS = (0, 2, 6)
SUSTAINED = (1.0, 0.6)
"""Shares of the peak that products are taken to reach: the limit, and what good kernels reach."""

LATENTS_PER_BLOCK, FRAMES_PER_BLOCK = 3, 12
BLOCKS_PER_CLIP, FRAMES_PER_CLIP = 7, 81
ASSUMPTIONS = (
    "A model, not a measurement: Wan2.1-1.3B student and LeanVAE, bfloat16, batch 1, one pass per "
    "block, steady state.",
    "Each kernel takes as long as its products or its bytes, whichever is longer; kernels follow "
    "one another without gaps.",
    "Every tensor crosses memory once per operation; keys are read from memory once and shared by "
    "the tiles of queries through the cache of the card.",
    "Self-attention is slowed by partly empty waves of tiles, at the occupancy that the compiler "
    "reports; products of cuBLAS are not.",
    "Unfused is one PyTorch operation after the other around attention; attention is one pass in "
    "both. Text encoding, video input and output and data consistency are left out.",
    "The clip is 81 frames in 7 blocks that see all before them, decoded but not encoded: what the "
    "35.56 FPS reported for an A100 count.",
)


@dataclass(frozen=True)
class Row:
    """One line of the table of speeds."""

    card: str
    window: str
    """Past blocks in the window, or the clip."""
    sustained: float
    attention_utilisation: float
    fused_ms: float
    unfused_ms: float
    fused_fps: float
    unfused_fps: float


def run_roofline(*, size: str, as_json: bool) -> None:
    """Print the counted costs and the predicted speeds of blocks of this size, WIDTHxHEIGHT.

    Raises:
        UsageError: if the size is not two multiples of 16.
    """
    width, height = _size(size)
    costs = {past: _costs(width, height, past) for past in PAST_BLOCKS}
    rows = [
        row
        for card in roofline.CARDS
        for sustained in SUSTAINED
        for row in _rows(card, costs, sustained, width=width, height=height)
    ]
    if as_json:
        put(json.dumps(_summary(width, height, costs, rows), indent=2))
    else:
        _print_tables(width, height, costs, rows)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    sides = [int(side) for side in (width, height) if side.isdigit()]
    if len(sides) != 2 or any(side == 0 or side % 16 for side in sides):
        raise UsageError(
            f"`--size` is `{text}`",
            hint="with --roofline it is WIDTHxHEIGHT in multiples of 16, such as 832x480",
        )
    return sides[0], sides[1]


def _tokens(width: int, height: int) -> int:
    return LATENTS_PER_BLOCK * (width // 16) * (height // 16)


def _costs(width: int, height: int, past_blocks: int) -> list[Cost]:
    student = roofline.student_costs(
        StudentShape(), tokens=_tokens(width, height), past_blocks=past_blocks
    )
    # the autoencoder's grid is twice as fine: the student joins 2 x 2 latents to a token
    places = 4 * _tokens(width, height)
    return student + roofline.autoencoder_costs(AutoencoderShape(), tokens=places)


def _rows(
    card: Card, costs: dict[int, list[Cost]], sustained: float, *, width: int, height: int
) -> list[Row]:
    """A steady stream with each window, and the clip that the paper times."""
    shape = StudentShape()
    tile = tiles.table()[card.capability][tiles.ATTENTION][shape.head_dim]
    report = read_baseline().reports[f"sm_{card.capability}/attention-d128-bf16"]
    utilisation = roofline.tile_utilisation(
        card, tile, report, queries=_tokens(width, height), heads=shape.heads
    )

    def row(window: str, frames: int, blocks: list[list[Cost]]) -> Row:
        times = [
            Prediction.of(block, card, sustained=sustained, attention_utilisation=utilisation)
            for block in blocks
        ]
        fused, unfused = sum(t.fused for t in times), sum(t.unfused for t in times)
        return Row(
            card.name,
            window,
            sustained,
            utilisation,
            1e3 * fused,
            1e3 * unfused,
            frames / fused,
            frames / unfused,
        )

    clip = [
        [cost for cost in _costs(width, height, past) if cost.name != "encoder linears"]
        for past in range(BLOCKS_PER_CLIP)
    ]
    rows = [row(str(past), FRAMES_PER_BLOCK, [block]) for past, block in costs.items()]
    return [*rows, row("clip", FRAMES_PER_CLIP, clip)]


def _summary(
    width: int, height: int, costs: dict[int, list[Cost]], rows: list[Row]
) -> dict[str, Any]:
    return {
        "kind": "model",
        "assumptions": ASSUMPTIONS,
        "size": [width, height],
        "tokens_per_block": _tokens(width, height),
        "triton": read_baseline().triton,
        "costs": {past: [asdict(c) for c in of_block] for past, of_block in costs.items()},
        "speeds": [asdict(row) for row in rows],
    }


def _print_tables(width: int, height: int, costs: dict[int, list[Cost]], rows: list[Row]) -> None:
    out = Console()
    work = Table(title=f"one block of {_tokens(width, height)} tokens, {width}x{height}, by kernel")
    work.add_column("kernel", no_wrap=True)
    for past in PAST_BLOCKS:
        work.add_column(f"{past} past", justify="right")
    work.add_column("unfused", justify="right")
    work.add_column("fused", justify="right")
    last = PAST_BLOCKS[-1]
    with_sum = {past: [*of_block, roofline.total(of_block)] for past, of_block in costs.items()}
    for index, cost in enumerate(with_sum[last]):
        flops = [f"{with_sum[past][index].flop / 1e12:.3f}" for past in PAST_BLOCKS]
        moved = f"{cost.unfused_bytes / 1e9:.2f}", f"{cost.fused_bytes / 1e9:.2f}"
        work.add_row(cost.name, *flops, *moved, end_section=index == len(costs[last]) - 1)
    work.caption = f"TFLOP by past blocks in the window; GB with {last} of them"
    out.print(work)
    speed = Table(title="predicted, student and autoencoder (a model)")
    for name in (
        "card",
        "window",
        "of peak",
        "tiles busy",
        "ms unfused",
        "ms fused",
        "FPS unfused",
        "FPS fused",
    ):
        is_card = name == "card"
        speed.add_column(name, justify="left" if is_card else "right", no_wrap=is_card)
    for row in rows:
        speed.add_row(
            row.card,
            row.window,
            f"{row.sustained:.0%}",
            f"{row.attention_utilisation:.0%}",
            f"{row.unfused_ms:.0f}",
            f"{row.fused_ms:.0f}",
            f"{row.unfused_fps:.0f}",
            f"{row.fused_fps:.0f}",
            end_section=row.window == "clip",
        )
    out.print(speed)
    for sentence in ASSUMPTIONS:
        out.print(f"- {sentence}", highlight=False)
