"""What the full-size student costs, against published measurements at 832x480."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from instantvir_kernels.roofline import StudentShape, student_costs, total
from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.errors import UsageError
from instantvir_models.students.wan.plan import (
    plan_memory,
    plan_that_fits,
    tokens_per_latent,
)
from instantvir_models.students.wan.student import Footprint, WanSettings
from instantvir_models.students.wan.transformer import (
    PATCH,
    TextRows,
    WanConfig,
    WanMemory,
    WanTransformer,
)

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


def test_memory_of_the_published_student():
    plan = plan_memory(
        WanConfig(), LeanConfig(), WanSettings(), WHOLE, **SIZE, dtype=torch.bfloat16
    )
    assert plan.weights == pytest.approx(2.84e9 + 0.08e9, rel=0.01)
    assert plan.cache == pytest.approx(6.04e9 + 0.094e9, rel=0.01)
    assert plan.autoencoder_state == pytest.approx(0.256e9, rel=0.01)
    assert 0 < plan.activations < 2e9
    assert "cache of 21 latents 6.1" in str(plan)


def test_tiles_trade_activations_for_state():
    whole, tiled = (
        plan_memory(
            WanConfig(), WanVaeConfig(), WanSettings(), WHOLE, **SIZE, dtype=torch.bfloat16,
            tile_pixels=side,
        )
        for side in (0, 416)
    )  # fmt: skip
    assert tiled.activations < whole.activations
    assert tiled.autoencoder_state > whole.autoencoder_state


@pytest.mark.parametrize("autoencoder", [LeanConfig(), WanVaeConfig()])
def test_what_costs_only_time_is_given_up_first(autoencoder):
    given = {**SIZE, "dtype": torch.bfloat16}

    def fitting(budget_bytes):
        return plan_that_fits(
            WanConfig(), autoencoder, WanSettings(), **given, budget_bytes=budget_bytes
        )

    def total(footprint):
        return plan_memory(WanConfig(), autoencoder, WanSettings(), footprint, **given).total

    assert fitting(80e9).footprint == WHOLE
    assert fitting(total(Footprint(21, 1))).footprint.window_latents == 21
    for window in (18, 9, 3):
        assert fitting(total(Footprint(window, 1))).footprint == Footprint(window, 1)
    with pytest.raises(UsageError, match=r"832x480 needs at least .* more than the 2.0 GB allowed"):
        fitting(2e9)
