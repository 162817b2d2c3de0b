"""Laws of the streaming autoencoders, and equality with the reference implementations' outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.tiled import TiledAutoencoder
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from tests.wan_small import WAN_VAE, drawn, small_autoencoder

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def in_chunks(step, t, sizes):
    """`step` on consecutive parts of t along time, of one stream."""
    memory = CausalMemory()
    return torch.cat([step(part, memory) for part in t.split(sizes, 1)], 1)


def frames(num_frames, height=16, width=24):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(1, num_frames, 3, height, width, generator=generator) * 2 - 1


def latents(num_latents, height=2, width=3):
    return torch.randn(
        1, num_latents, 16, height, width, generator=torch.Generator().manual_seed(6)
    )


@torch.inference_mode()
def test_lean_equals_the_reference():
    golden = load_file(GOLDEN / "leanvae.safetensors")
    lean = LeanVAE(LeanConfig(low_channels=16, high_channels=48, fusion_layers=2))
    lean.load_state_dict(
        {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    )
    pixels, latent = golden["pixels_5_frames"].transpose(1, 2), golden["latent"].transpose(1, 2)
    for sizes in ([5], [1, 4]):
        encoded = in_chunks(lean.encode, 2 * pixels, sizes)  # the reference's pixels are halved
        torch.testing.assert_close(encoded, latent[:, :2], rtol=0, atol=1e-4)
    expected = golden["decoded_every_5th_pixel"].transpose(1, 2)
    for sizes in ([6], [3, 3], [1, 2, 3]):
        decoded = in_chunks(lean.decode, latent, sizes)[..., ::5, ::5]
        torch.testing.assert_close(decoded / 2, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_wan_equals_the_reference():
    golden = load_file(GOLDEN / "wan_vae.safetensors")
    wan = drawn(WanVAE(WAN_VAE), seed=4)
    stream = np.random.RandomState(5)
    pixels = torch.from_numpy(stream.uniform(-1, 1, (1, 3, 9, 24, 32)).astype(np.float32))
    latent = torch.from_numpy(stream.standard_normal((1, 16, 5, 3, 4)).astype(np.float32))
    for sizes in ([9], [1, 8], [5, 4]):
        encoded = in_chunks(wan.encode, pixels.transpose(1, 2), sizes)
        torch.testing.assert_close(encoded, golden["latent"].transpose(1, 2), rtol=0, atol=1e-4)
    expected = golden["decoded_clamped_every_3rd_pixel"].transpose(1, 2)
    for sizes in ([5], [1, 4], [3, 2]):
        decoded = in_chunks(wan.decode, latent.transpose(1, 2), sizes)[..., ::3, ::3]
        torch.testing.assert_close(decoded.clamp(-1, 1), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
@pytest.mark.parametrize("sizes", [[9, 12], [1, 4, 4, 12], [1, 20], [5, 8, 8]])
def test_encoding_a_stream_equals_encoding_the_whole(kind, sizes):
    autoencoder, x = small_autoencoder(kind), frames(21)
    whole = autoencoder.encode(x, CausalMemory())
    assert whole.shape == (1, 6, 16, 2, 3)
    streamed = in_chunks(autoencoder.encode, x, sizes)
    torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
@pytest.mark.parametrize("sizes", [[3, 3], [1, 1, 4], [1] * 6, [2, 4]])
def test_decoding_a_stream_equals_decoding_the_whole(kind, sizes):
    autoencoder, z = small_autoencoder(kind), latents(6)
    whole = autoencoder.decode(z, CausalMemory())
    assert whole.shape == (1, 21, 3, 16, 24)
    streamed = in_chunks(autoencoder.decode, z, sizes)
    torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_the_future_is_invisible(kind):
    autoencoder, x, z = small_autoencoder(kind), frames(9), latents(3)
    encoded, decoded = autoencoder.encode(x, CausalMemory()), autoencoder.decode(z, CausalMemory())
    x[:, 5:], z[:, 2:] = 0.9, 3.0
    torch.testing.assert_close(autoencoder.encode(x, CausalMemory())[:, :2], encoded[:, :2])
    torch.testing.assert_close(autoencoder.decode(z, CausalMemory())[:, :5], decoded[:, :5])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_streams_do_not_share_their_memory(kind):
    autoencoder = small_autoencoder(kind)
    streams = frames(9), -frames(9)
    alone = [in_chunks(autoencoder.encode, x, [5, 4]) for x in streams]
    memories = [CausalMemory(), CausalMemory()]
    parts = [
        [
            autoencoder.encode(x[:, part], memory)
            for x, memory in zip(streams, memories, strict=True)
        ]
        for part in (slice(0, 5), slice(5, 9))
    ]
    for both, expected in zip(zip(*parts, strict=True), alone, strict=True):
        torch.testing.assert_close(torch.cat(both, 1), expected, rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_the_memory_of_a_stream_is_constant(kind):
    autoencoder, memory = small_autoencoder(kind), CausalMemory()
    autoencoder.decode(latents(3), memory)
    after_one = memory.num_bytes()
    for _ in range(20):
        autoencoder.decode(latents(3), memory)
    assert memory.num_bytes() == after_one > 0


def test_the_memory_at_full_size():
    """Elements per pixel of the published networks, on the meta device: 832x480 in bfloat16."""
    expected = {"lean": (76.7e6, 178.9e6), "wan": (1.12e9, 1.89e9)}
    for kind, (encoder_bytes, decoder_bytes) in expected.items():
        with torch.device("meta"), torch.inference_mode():
            network = LeanVAE(LeanConfig()) if kind == "lean" else WanVAE(WanVaeConfig())
            network = network.bfloat16()
            encoder, decoder = CausalMemory(), CausalMemory()
            network.encode(torch.zeros(1, 5, 3, 480, 832, dtype=torch.bfloat16), encoder)
            network.decode(torch.zeros(1, 2, 16, 60, 104, dtype=torch.bfloat16), decoder)
        assert encoder.num_bytes() == pytest.approx(encoder_bytes, rel=0.01)
        assert decoder.num_bytes() == pytest.approx(decoder_bytes, rel=0.01)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_tiles_leave_no_seam(kind):
    """Exact to rounding: a halo covers what a tile sees, and attention is not cut."""
    whole = small_autoencoder(kind)
    tiled = TiledAutoencoder(whole, tile_latents=15)
    x, z = frames(9, height=32, width=240), latents(3, height=4, width=30)
    encoded = in_chunks(tiled.encode, x, [5, 4])
    torch.testing.assert_close(encoded, whole.encode(x, CausalMemory()), rtol=1e-4, atol=1e-4)
    decoded = in_chunks(tiled.decode, z, [2, 1])
    torch.testing.assert_close(decoded, whole.decode(z, CausalMemory()), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_a_smaller_halo_would_leave_a_seam(kind, monkeypatch):
    """The law above can fail: a quarter of the halo is not enough."""
    whole = small_autoencoder(kind)
    z = latents(1, height=4, width=30)
    expected = whole.decode(z, CausalMemory())
    monkeypatch.setattr(type(whole), "decode_halo", whole.decode_halo // 4)
    decoded = TiledAutoencoder(whole, tile_latents=15).decode(z, CausalMemory())
    assert not torch.allclose(decoded, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_frames_that_make_no_whole_latents_are_refused(kind):
    autoencoder, memory = small_autoencoder(kind), CausalMemory()
    with pytest.raises(ValueError, match=r"4 frames .* a stream starts with 1 \+ 4k"):
        autoencoder.encode(frames(4), memory)
    with pytest.raises(ValueError, match="divide by 8, got 24x12"):
        autoencoder.encode(frames(5, height=12), memory)
    autoencoder.encode(frames(5), memory)
    with pytest.raises(ValueError, match=r"5 frames .* go on with 4k"):
        autoencoder.encode(frames(5), memory)


@pytest.mark.parametrize("kind", ["wan", "lean"])
@pytest.mark.parametrize("sizes", [[13], [5, 4, 4]])
def test_layers_computed_again_have_the_same_gradient(sizes, kind):
    """Also where a chunk goes on from what was remembered of the one before it."""
    autoencoder, gradients = small_autoencoder(kind).double(), []
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, sum(sizes), 3, 16, 24, generator=generator).double() * 2 - 1
    kept = []

    def keep(tensor):
        kept[-1] += tensor.numel()
        return tensor

    for recompute in (False, True):
        autoencoder.recomputes_layers = recompute
        kept.append(0)
        given = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            memory = CausalMemory()
            z = torch.cat([autoencoder.encode(part, memory) for part in given.split(sizes, 1)], 1)
            memory, lengths = (
                CausalMemory(),
                [1 + (sizes[0] - 1) // 4, *(s // 4 for s in sizes[1:])],
            )
            back = torch.cat([autoencoder.decode(part, memory) for part in z.split(lengths, 1)], 1)
        (back * x).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < 0.5 * kept[0]
