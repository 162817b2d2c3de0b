"""Laws of the causal Wan transformer, and equality with the reference implementation's outputs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instantvir_kernels.dispatch import norm_rope_write
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.rope import rotations
from instantvir_models.students.wan.schedule import clean_from_velocity, sigma_at
from instantvir_models.students.wan.transformer import WanConfig, WanMemory, WanTransformer
from tests.wan_small import TRANSFORMER, drawn, small_text

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "wan_student.safetensors"


def latents(num_latents, height=4, width=6, batch=1):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, num_latents, 16, height, width, generator=generator)


def rolled_out(transformer, z, sizes, *, text=None, window=21, sink=0, memory=None):
    memory = memory or WanMemory()
    out, start = [], 0
    for size in sizes:
        out.append(
            transformer.velocity_of_block(
                z[:, start : start + size], timestep=522, text=text or small_text(),
                memory=memory, window_latents=window, sink_latents=sink,
            )
        )  # fmt: skip
        start += size
    return torch.cat(out, 1)


@torch.inference_mode()
def test_the_cached_roll_out_equals_the_reference():
    golden = load_file(GOLDEN)
    config = WanConfig(dim=96, ffn_dim=192, num_heads=3, num_layers=2, text_dim=32, text_len=16)
    transformer = WanTransformer(config)
    transformer.load_state_dict(
        {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    )
    text = TextRows(golden["text_rows"], 16)
    z = golden["latent_in"].transpose(1, 2)
    expected = golden["velocity_cached_blocks_of_3"].transpose(1, 2)
    cached = rolled_out(transformer, z, [3, 3, 3], text=text)
    torch.testing.assert_close(cached, expected, rtol=0, atol=1e-4)
    whole = transformer.velocity_of_sequence(z, timestep=522, text=text, latents_per_block=3)
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[3, 3, 3], [3, 3, 2], [2, 2, 2, 1], [1] * 5, [4]])
def test_a_cached_roll_out_equals_the_masked_sequence(sizes):
    transformer = drawn(WanTransformer(TRANSFORMER))
    z = latents(sum(sizes), batch=2)
    whole = transformer.velocity_of_sequence(
        z, timestep=522, text=small_text(), latents_per_block=sizes[0]
    )
    torch.testing.assert_close(rolled_out(transformer, z, sizes), whole, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_window_and_sink_equal_a_masked_reference(monkeypatch):
    """Latent 0 for ever plus the last 4, in blocks of 2: every other key is masked out."""
    transformer = drawn(WanTransformer(TRANSFORMER))
    z, tokens = latents(10), 2 * 3
    actual = rolled_out(transformer, z, [2] * 5, window=4, sink=1)

    index = torch.arange(10).repeat_interleave(tokens)
    last_in_block = index // 2 * 2 + 1
    age = last_in_block[:, None] - index[None, :]
    allowed = (age >= 0) & ((age < 4) | (index[None, :] < 1))

    def masked(q, k, v, *, tokens_per_block):
        heads = (t.transpose(1, 2) for t in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=allowed)
        return attended.transpose(1, 2)

    module = "instantvir_models.students.wan.transformer.block_causal_attention"
    monkeypatch.setattr(module, masked)
    expected = transformer.velocity_of_sequence(
        z, timestep=522, text=small_text(), latents_per_block=2
    )
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_later_block_changes_nothing_before_it():
    transformer = drawn(WanTransformer(TRANSFORMER))
    z = latents(6)
    before = transformer.velocity_of_sequence(
        z, timestep=522, text=small_text(), latents_per_block=3
    )
    z[:, 3:] = 5.0
    after = transformer.velocity_of_sequence(
        z, timestep=522, text=small_text(), latents_per_block=3
    )
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=0)
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@torch.inference_mode()
def test_two_hundred_blocks_in_constant_memory():
    transformer = drawn(WanTransformer(TRANSFORMER))
    memory, places = WanMemory(), set()
    for _ in range(200):
        velocity = rolled_out(transformer, latents(3), [3], window=6, sink=1, memory=memory)
        places.add(tuple(cache._k.data_ptr() for cache in memory.caches))
    assert len(places) == 1
    assert [len(cache) for cache in memory.caches] == [7 * 6] * 2
    assert memory.next_latent == 600
    assert torch.isfinite(velocity).all()


@torch.inference_mode()
def test_one_row_stands_for_all_padded_rows():
    """Same as attending to every zero row, which the published students do."""
    transformer = drawn(WanTransformer(TRANSFORMER))
    short = small_text(rows=3)
    padded = torch.nn.functional.pad(short.rows, (0, 0, 0, TRANSFORMER.text_len - 3))
    z = latents(3)
    expected = rolled_out(transformer, z, [3], text=TextRows(padded, TRANSFORMER.text_len))
    torch.testing.assert_close(
        rolled_out(transformer, z, [3], text=short), expected, rtol=1e-5, atol=1e-5
    )
    unpadded = rolled_out(transformer, z, [3], text=TextRows(short.rows, 3))
    assert (unpadded - expected).std() > 0.01 * expected.std()


@torch.inference_mode()
def test_an_empty_prompt_is_padding_alone():
    transformer = drawn(WanTransformer(TRANSFORMER))
    zeros = torch.zeros(1, TRANSFORMER.text_len, TRANSFORMER.text_dim)
    z = latents(3)
    expected = rolled_out(transformer, z, [3], text=TextRows(zeros, TRANSFORMER.text_len))
    empty = TextRows(zeros[:, :0], TRANSFORMER.text_len)
    torch.testing.assert_close(
        rolled_out(transformer, z, [3], text=empty), expected, rtol=1e-5, atol=1e-5
    )


@torch.inference_mode()
def test_scores_depend_on_the_distance_of_frames_alone():
    q, k = torch.randn(2, 1, 6, 32).unbind(0)
    weight = torch.ones(32)

    def rotated(x, first_frame):
        cos, sin = rotations((1, 2, 3), first_frame=first_frame, head_dim=32, device=x.device)
        rings = torch.empty(2, 1, 6, 1, 32)
        return norm_rope_write(
            x, x, x, *rings, q_weight=weight, k_weight=weight, cos=cos, sin=sin, first_slot=0
        )

    def scores(first_query, first_key):
        return torch.einsum("bqnd,bknd->bqk", rotated(q, first_query), rotated(k, first_key))

    torch.testing.assert_close(scores(5, 2), scores(100_005, 100_002), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores(5, 2), scores(6, 2))


def test_the_schedule_of_the_published_students():
    assert sigma_at(522) == pytest.approx(12 / 23)
    assert sigma_at(757) == pytest.approx(0.75675672)
    assert sigma_at(1000) == 1
    assert sigma_at(0) == pytest.approx(0.00794439, abs=1e-7)
    with pytest.raises(ValueError, match="from 0 to 1000, got 1001"):
        sigma_at(1001)


def test_the_velocity_leads_back_to_the_clean_latent():
    clean, noise = torch.randn(2, 3, 4)
    x_t = 0.25 * clean + 0.75 * noise
    torch.testing.assert_close(clean_from_velocity(x_t, noise - clean, sigma=0.75), clean)


def test_every_weight_learns():
    transformer = drawn(WanTransformer(TRANSFORMER)).requires_grad_(True)
    velocity = transformer.velocity_of_sequence(
        latents(4), timestep=522, text=small_text(), latents_per_block=2
    )
    velocity.square().mean().backward()
    silent = [n for n, p in transformer.named_parameters() if p.grad is None or not p.grad.any()]
    # a shift of all keys alike changes no softmax; qk-norm in between makes it change this one
    assert silent == []


def test_half_precision_weights_stay_close():
    transformer = drawn(WanTransformer(TRANSFORMER))
    expected = rolled_out(transformer, latents(3), [3])
    half = rolled_out(transformer.bfloat16(), latents(3).bfloat16(), [3])
    assert half.dtype == torch.bfloat16
    error = (half.float() - expected).norm() / expected.norm()
    assert error < 0.03


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="5 heads do not divide a width of 48"):
        replace(TRANSFORMER, num_heads=5)
    assert math.isclose(WanConfig().dim / WanConfig().num_heads, 128)
