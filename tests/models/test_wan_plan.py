"""What the full-size student costs, against published measurements at 832x480."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from instantvir_kernels.tools.roofline import StudentShape, student_costs, total
from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.errors import UsageError
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.peak_memory import PeakMemory
from instantvir_models.students.base import Conditioning, condition
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.plan import (
    CONSISTENCY_BYTES,
    FRAME_BYTES,
    plan_memory,
    plan_that_fits,
    tokens_per_latent,
)
from instantvir_models.students.wan.student import Footprint, Resting, WanSettings, WanStudent
from instantvir_models.students.wan.transformer import PATCH, WanConfig, WanMemory, WanTransformer
from tests.meta_card import CARD, MetaCard
from tests.wan_small import TRANSFORMER, small_student

SIZE = {"height": 480, "width": 832}
LATENT = (60, 104)


def full_size(kind, config):
    with torch.device("meta"):
        return kind(config).requires_grad_(False)


@pytest.fixture(scope="module")
def blocks():
    """TFLOP of the first blocks of a video, counted while the network runs on the meta device.

    All 512 rows of the prompt are given, as in the measurements.
    """
    transformer, memory = full_size(WanTransformer, WanConfig()), WanMemory()
    text = TextRows(torch.empty(1, 512, 4096, device="meta"), 512)
    counts = []
    for _ in range(3):
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            transformer.velocity_of_block(
                torch.empty(1, 3, 16, *LATENT, device="meta"), timestep=522, text=text,
                memory=memory, window_latents=21,
            )  # fmt: skip
        counts.append(counter.get_total_flops() / 1e12)
    return counts


@pytest.mark.parametrize(("past_blocks", "teraflops"), [(0, 16.2 + 0.145), (1, 20.2), (2, 24.3)])
def test_the_transformer_costs_what_was_measured(blocks, past_blocks, teraflops):
    assert blocks[past_blocks] == pytest.approx(teraflops, rel=0.01)


@pytest.mark.parametrize("past_blocks", [1, 2])
def test_the_roofline_is_the_arithmetic_of_the_network(blocks, past_blocks):
    """The shape that kernels assume is this transformer's, and the work is counted right."""
    config = WanConfig()
    shape = StudentShape(
        width=config.dim,
        ffn_width=config.ffn_dim,
        heads=config.num_heads,
        head_dim=config.dim // config.num_heads,
        layers=config.num_layers,
        text_tokens=config.text_len,
        patch_channels=PATCH**2 * config.latent_channels,
    )
    assert shape == StudentShape()
    tokens = WanSettings().latents_per_block * tokens_per_latent(**SIZE)
    counted = total(student_costs(shape, tokens=tokens, past_blocks=past_blocks)).flop
    assert counted / 1e12 == pytest.approx(blocks[past_blocks], rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "config", "encode", "decode"),
    [(LeanVAE, LeanConfig(), 0.426, 1.059), (WanVAE, WanVaeConfig(), 24.2, 40.6)],
)
def test_a_block_of_an_autoencoder_costs_what_was_measured(kind, config, encode, decode):
    """TFLOP of a block after the first."""
    network, memory = full_size(kind, config), CausalMemory()

    def teraflops(step, shape):
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            step(torch.empty(shape, device="meta"), memory)
        return counter.get_total_flops() / 1e12

    teraflops(network.encode, (1, 9, 3, 480, 832))
    teraflops(network.decode, (1, 3, 16, *LATENT))
    assert teraflops(network.encode, (1, 12, 3, 480, 832)) == pytest.approx(encode, rel=0.01)
    assert teraflops(network.decode, (1, 3, 16, *LATENT)) == pytest.approx(decode, rel=0.01)


WHOLE = Footprint(21, 3)
"""What a published student takes by itself."""


def test_memory_of_the_published_student():
    plan = plan_memory(
        WanConfig(), LeanConfig(), WanSettings(), WHOLE, **SIZE, dtype=torch.bfloat16
    )
    assert plan.weights == pytest.approx(2.84e9 + 0.08e9, rel=0.01)
    assert plan.cache == pytest.approx(6.04e9 + 0.094e9, rel=0.01)
    assert plan.autoencoder_state == pytest.approx(0.256e9, rel=0.01)
    assert 0 < plan.activations < 2e9
    assert "cache of 21 latents 6.1" in str(plan)


@pytest.mark.parametrize(
    ("autoencoder", "window_latents", "gigabytes"),
    [(LeanConfig(), 3, 5.03), (LeanConfig(), 9, 6.86), (LeanConfig(), 21, 10.38), (WanVaeConfig(), 9, 18.14)],
)  # fmt: skip
def test_the_plan_is_what_a_card_took(autoencoder, window_latents, gigabytes):
    """`torch.cuda.max_memory_allocated` on an H200, benchmarks/results/card_h200.md."""
    settings = WanSettings(window_latents=window_latents)
    plan = plan_memory(
        WanConfig(), autoencoder, settings, Footprint(window_latents, 3), **SIZE,
        dtype=torch.bfloat16, text_rows=1,
    )  # fmt: skip
    assert plan.total / 1e9 == pytest.approx(gigabytes, rel=0.02)


def plan_of(autoencoder, footprint, *, dtype=torch.bfloat16, **options):
    return plan_memory(
        WanConfig(), autoencoder, WanSettings(), footprint, **SIZE, dtype=dtype, **options
    )


def test_tiles_help_only_where_their_past_rests_elsewhere():
    """Each remembers its halo too: beside the decoder that takes more than whole frames save."""
    whole, tiled = (plan_of(WanVaeConfig(), Footprint(21, 1, tile)) for tile in (0, 32))
    assert tiled.autoencoder_state > whole.autoencoder_state
    assert tiled.total > whole.total
    whole, tiled = (
        plan_of(WanVaeConfig(), Footprint(21, 1, tile, Resting.PAST_FRAMES)) for tile in (0, 32)
    )
    assert tiled.autoencoder_state == whole.autoencoder_state == 0
    assert tiled.total < whole.total


def fitting(autoencoder, budget_bytes, dtypes=(torch.bfloat16,), **options):
    return plan_that_fits(
        WanConfig(), autoencoder, WanSettings(), **SIZE, dtypes=dtypes,
        budget_bytes=budget_bytes, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("autoencoder", "chunks"),
    [(LeanConfig(), [3, 1, 3]), (WanVaeConfig(), [3, 1, 3, 1])],
)
def test_what_costs_only_time_is_given_up_first(autoencoder, chunks):
    """Each budget is a byte short of the plan before; of a device that is the CPU nothing can rest.

    In bfloat16 a chunk of LeanVAE takes less than data consistency: smaller ones save nothing.
    """
    plan, seen = fitting(autoencoder, 80e9, (torch.float32, torch.bfloat16)), []
    while plan.footprint.window_latents == 21:
        seen.append(plan)
        plan = fitting(autoencoder, plan.total - 1, (torch.float32, torch.bfloat16))
    assert seen[0].footprint == WHOLE
    both = [torch.float32] * 2 + [torch.bfloat16] * 2
    assert [p.dtype for p in seen] == both[: len(chunks)]
    assert [p.footprint.chunk_latents for p in seen] == chunks
    assert plan.footprint.window_latents == 18
    with pytest.raises(
        UsageError, match=r"832x480 needs at least .* more than the 1.00 GB allowed"
    ):
        fitting(autoencoder, 1e9)


def test_weights_leave_the_device_before_history_is_cut():
    plan, seen = fitting(WanVaeConfig(), 80e9), []
    while plan.footprint.window_latents == 21:
        seen.append(plan.footprint.resting)
        plan = fitting(WanVaeConfig(), plan.total - 1, can_rest=True)
    assert seen == sorted(seen)
    assert set(seen) == set(Resting)
    assert plan.footprint == Footprint(18, 1, 64, Resting.PAST_FRAMES)


def test_tiles_the_user_chose_stay():
    for tile in (0, 52):
        plan = fitting(WanVaeConfig(), 8e9, tile_latents=tile, can_rest=True)
        assert plan.footprint.tile_latents == tile


def test_nothing_is_given_up_that_need_not_be():
    """LeanVAE remembers little: sending its past frames away, or chunks of one, is no help first."""
    plan = fitting(LeanConfig(), 7.86e9, can_rest=True)
    assert plan.footprint == replace(WHOLE, resting=Resting.WEIGHTS)


def test_a_plan_says_what_it_gave_up():
    whole = plan_of(WanVaeConfig(), WHOLE, dtype=torch.float32)
    assert whole.given_up(whole) == []
    least = plan_of(WanVaeConfig(), Footprint(9, 1, 32, Resting.PAST_FRAMES))
    assert least.given_up(whole) == [
        "the autoencoder takes 1 latent at once (same result, a little slower)",
        "it works in tiles of 256 pixels (same result, slower)",
        "weights are bfloat16, not float32 (rounds more)",
        "weights rest in CPU memory (same result, slower)",
        "so do the autoencoder's past frames (same result, much slower)",
        "the history is 9 latents, not 21 (restores from less)",
    ]


@pytest.mark.parametrize(
    ("kind", "tile"),
    [("lean", 0), ("lean", 8), ("wan", 0), pytest.param("wan", 8, marks=pytest.mark.slow)],
)
def test_the_plan_counts_what_a_small_student_holds(kind, tile):
    """Real tensors: weights, cache and past frames to the byte, the rest from above."""
    student = small_student(kind, window_latents=6)
    footprint = Footprint(6, 3, tile)
    student = replace(student, memory_limit=footprint)
    autoencoder, height, width = student.autoencoder, 24, 168
    plan = plan_memory(
        TRANSFORMER, autoencoder.config, student.settings, footprint, height=height, width=width,
        dtype=torch.float32, text_rows=student.text.attended_rows,
    )  # fmt: skip
    assert plan.weights == sum(
        p.nbytes for net in (student.transformer, autoencoder) for p in net.parameters()
    )
    state = student.new_state()
    for frames in (9, 12):
        x = torch.rand(1, frames, 3, height, width)
        block = Conditioning(x, x, x[:, :, :1], torch.zeros(1, 14))
        with torch.inference_mode(), PeakMemory() as counted:
            student.restore_block(block, state)
    memory = state.transformer
    held = sum(cache._k.nbytes + cache._v.nbytes for cache in memory.caches)
    assert plan.cache == held + sum(t.nbytes for t in (*memory.text.keys, *memory.text.values))
    assert plan.autoencoder_state == state.autoencoder.num_bytes()
    # the estimate itself is in `frames`, with what the student is shown
    assert 0.5 * plan.activations < counted.peak_bytes < plan.activations + plan.frames


@pytest.mark.parametrize(
    ("kind", "footprint"),
    [
        (LeanVAE, Footprint(9, 3)),
        pytest.param(LeanVAE, Footprint(9, 1, 0, Resting.WEIGHTS), marks=pytest.mark.slow),
        (WanVAE, Footprint(9, 1)),
        pytest.param(WanVAE, Footprint(9, 3), marks=pytest.mark.slow),
        (WanVAE, Footprint(9, 1, 64, Resting.PAST_FRAMES)),
    ],
)
def test_the_plan_holds_for_the_published_sizes(kind, footprint, monkeypatch):
    """The whole student on a stand-in for a card that counts and computes nothing, window full."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    transformer = full_size(WanTransformer, WanConfig()).bfloat16()
    autoencoder = full_size(kind, WanVaeConfig() if kind is WanVAE else LeanConfig()).bfloat16()
    if footprint.resting:  # in pages that nobody touches
        transformer, autoencoder = (n.to_empty(device="cpu") for n in (transformer, autoencoder))
    weights = [p for net in (transformer, autoencoder) for p in net.parameters()]
    there_before = sum(p.nbytes for p in weights if p.is_meta)
    text = TextRows(torch.empty(1, 0, 4096), 512)
    student = WanStudent(transformer, autoencoder, WanSettings(window_latents=9), text)
    plan = plan_memory(
        WanConfig(), autoencoder.config, student.settings, footprint, **SIZE,
        dtype=torch.bfloat16, text_rows=text.attended_rows,
    )  # fmt: skip
    with MetaCard() as card:
        student = student.for_device(CARD).placed(footprint)
        state = student.new_state()
        for frames in (9, 12, 12):
            sides = [(3, torch.float32)] * 2 + [(1, torch.float32)]
            y, view, known = (
                torch.empty(1, frames, c, 480, 832, device=CARD, dtype=kind) for c, kind in sides
            )
            block = Conditioning(y, view, known, torch.empty(1, 14, device=CARD))
            with torch.inference_mode():
                student.restore_block(block, state)
    assert 0.8 * plan.total < there_before + card.peak_bytes < 1.02 * plan.total


def test_an_operator_that_looks_beside_a_block_has_its_frames_there():
    """A block of 12 frames, and 12 on each side of it."""
    plain, wide = (plan_of(LeanConfig(), WHOLE, temporal_radius=r) for r in (0, 12))
    assert wide.frames == 3 * plain.frames
    assert wide.activations >= CONSISTENCY_BYTES * 36 * 480 * 832
    assert fitting(LeanConfig(), wide.total - 1, temporal_radius=12).footprint != WHOLE


@pytest.mark.parametrize(
    "spec",
    [
        "identity+noise:std=25",
        "blur:sigma=3+noise:std=2.55",
        "down:factor=4",
        "mask:keep=0.5,seed=0+noise:std=5",
        "blur:sigma=2+down:factor=2+noise:std=2",
        "temporal:size=3+noise:std=5",
        "temporal:size=3+blur:sigma=2+down:factor=2",
    ],
)
def test_the_plan_knows_what_a_session_takes_beside_the_student(spec):
    frames, height, width = 4, 64, 96
    shape = ClipShape(num_frames=frames, height=height, width=width)
    degradation = parse_degradation(spec, shape=shape)
    x = torch.rand(1, frames, 3, height, width) * 2 - 1
    measurement = Measurement(degradation.operator.A(x), degradation)
    with torch.inference_mode():
        condition(
            Measurement(measurement.y, degradation)
        )  # what is kept for every video of this size
        with PeakMemory() as before:
            block = condition(measurement)
        with PeakMemory() as after:
            corrected = data_consistency(torch.cat([x], 1), measurement, estimate_std=0.05)
            degradation.operator.A(corrected) - measurement.y
    pixels = frames * height * width
    shown = measurement.y.nbytes + before.live_bytes
    assert block.size == (height, width)
    assert shown + x.nbytes <= FRAME_BYTES * pixels
    total = (FRAME_BYTES + CONSISTENCY_BYTES) * pixels
    assert measurement.y.nbytes + before.peak_bytes <= total
    assert shown + x.nbytes + after.peak_bytes <= total
