"""The counted work against counts that were made with torch's FLOP counter on the real models."""

import pytest

from instantvir_kernels import tiles
from instantvir_kernels.tools import roofline
from instantvir_kernels.tools.baseline import Report
from instantvir_kernels.tools.roofline import (
    AutoencoderShape,
    Card,
    Cost,
    Prediction,
    StudentShape,
    autoencoder_costs,
    student_costs,
    total,
)

TOKENS = 4680  # 832x480: 3 latents of 30 x 52
TERA = 1e12


def by_name(costs):
    return {cost.name: cost for cost in costs}


@pytest.mark.parametrize(("past_blocks", "tera"), [(0, 16.197), (2, 24.271), (6, 40.419)])
def test_flop_of_a_block_of_the_student(past_blocks, tera):
    """12.16 TFLOP + 4.037 for each block attended."""
    costs = student_costs(StudentShape(), tokens=TOKENS, past_blocks=past_blocks)
    assert total(costs).flop / TERA == pytest.approx(tera, rel=0.01)


@pytest.mark.parametrize(
    ("name", "tera"), [("linears", 11.71), ("cross-attention", 0.442), ("self-attention", 4.037)]
)
def test_flop_of_its_parts(name, tera):
    costs = by_name(student_costs(StudentShape(), tokens=TOKENS, past_blocks=0))
    assert costs[name].flop / TERA == pytest.approx(tera, rel=0.01)


def test_flop_of_a_clip_of_seven_blocks():
    costs = [student_costs(StudentShape(), tokens=TOKENS, past_blocks=n) for n in range(7)]
    assert sum(total(c).flop for c in costs) / TERA == pytest.approx(198.3, rel=0.01)


def test_flop_of_the_autoencoder():
    """LeanVAE, three latents: 0.426 TFLOP to encode, 1.059 to decode."""
    costs = by_name(autoencoder_costs(AutoencoderShape(), tokens=3 * 60 * 104))
    conv_channels = 3072, 7168
    conv = [2 * 27 * channels * 3 * 60 * 104 for channels in conv_channels]
    assert costs["depthwise convolution"].flop == sum(conv)
    encode = costs["encoder linears"].flop + conv[0]
    decode = costs["decoder linears"].flop + conv[1]
    assert encode / TERA == pytest.approx(0.426, rel=0.01)
    assert decode / TERA == pytest.approx(1.059, rel=0.01)


def test_bytes_of_weights_and_of_keys():
    """2.84 GB of weights but for those of text and time; 0.863 GB of keys and values per block."""
    few, many = (
        by_name(student_costs(StudentShape(), tokens=TOKENS, past_blocks=n)) for n in (0, 6)
    )
    grown = many["self-attention"].fused_bytes - few["self-attention"].fused_bytes
    assert grown / 6 == pytest.approx(0.863e9, rel=0.01)
    tiny = by_name(student_costs(StudentShape(), tokens=1, past_blocks=0))
    assert tiny["linears"].fused_bytes == pytest.approx(2.84e9, rel=0.03)


def test_fusing_removes_most_of_the_element_wise_traffic():
    """About 26 GB move around the products when every operation runs alone."""
    costs = student_costs(StudentShape(), tokens=TOKENS, past_blocks=0)
    steps = total([c for c in costs if not c.on_tensor_cores])
    assert steps.unfused_bytes == pytest.approx(26e9, rel=0.15)
    assert steps.fused_bytes < steps.unfused_bytes / 3
    assert all(c.fused_bytes <= c.unfused_bytes for c in costs)


def test_the_limit_is_that_of_the_peak_where_bytes_cost_nothing():
    """211.8 FPS on an A100 without history, 89.4 with six blocks (12 frames a block)."""
    card = Card("A100", 80, 108, 312e12, 1e30, 1e30)
    for past_blocks, fps in ((0, 211.8), (2, 145.4), (6, 89.4)):
        costs = student_costs(StudentShape(), tokens=TOKENS, past_blocks=past_blocks)
        costs += autoencoder_costs(AutoencoderShape(), tokens=4 * TOKENS)
        times = Prediction.of(costs, card, sustained=1.0, attention_utilisation=1.0)
        assert 12 / times.fused == pytest.approx(fps, rel=0.01)
        assert times.fused == times.unfused == times.compute


def test_a_kernel_takes_as_long_as_its_products_or_its_bytes():
    card = Card("c", 80, 108, tensor_flops=100.0, float_flops=10.0, bandwidth=2.0)
    costs = [Cost("p", 100.0, 1.0, 8.0), Cost("s", 1.0, 2.0, 6.0, on_tensor_cores=False)]
    times = Prediction.of(costs, card, sustained=0.5, attention_utilisation=1.0)
    assert times.compute == pytest.approx(2.0 + 0.1)
    assert times.fused == pytest.approx(2.0 + 1.0)
    assert times.unfused == pytest.approx(4.0 + 3.0)


def test_partly_empty_waves_and_ragged_tiles_cost_time():
    """4680 queries of 12 heads are 444 tiles of 128: 4.1 waves on 108 multiprocessors, so 5."""
    card = roofline.CARDS[0]
    tile = tiles.Tile(128, 64, 8, 3)
    report = Report(209, 0, 98_304, 8, 256, 36)
    busy = roofline.tile_utilisation(card, tile, report, queries=4680, heads=12)
    assert busy == pytest.approx(4680 / 128 * 12 / (5 * 108))
