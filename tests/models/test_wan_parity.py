"""Equality with diffusers and transformers, same random weights; the `test` extra brings both."""

import pytest
import torch

from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.wan import LATENT_MEAN, LATENT_STD, WanVAE
from instantvir_models.checkpoints.convert import recognise
from instantvir_models.checkpoints.names import transformer_to_diffusers, wan_vae_to_diffusers
from instantvir_models.checkpoints.prompt import encode
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.transformer import WanMemory, WanTransformer
from tests.wan_small import TRANSFORMER, WAN_VAE, drawn, small_text


def diffusers_transformer():
    diffusers = pytest.importorskip("diffusers")
    return diffusers.WanTransformer3DModel(
        num_attention_heads=TRANSFORMER.num_heads,
        attention_head_dim=TRANSFORMER.dim // TRANSFORMER.num_heads,
        in_channels=16, out_channels=16, text_dim=TRANSFORMER.text_dim,
        freq_dim=TRANSFORMER.freq_dim, ffn_dim=TRANSFORMER.ffn_dim,
        num_layers=TRANSFORMER.num_layers,
    ).eval()  # fmt: skip


@torch.inference_mode()
def test_the_first_block_equals_diffusers():
    theirs, ours = diffusers_transformer(), drawn(WanTransformer(TRANSFORMER))
    theirs.load_state_dict({transformer_to_diffusers(k): v for k, v in ours.state_dict().items()})
    z = torch.randn(2, 3, 16, 6, 8)
    text = torch.nn.functional.pad(small_text(rows=3).rows, (0, 0, 0, TRANSFORMER.text_len - 3))
    expected = theirs(
        z.transpose(1, 2), timestep=torch.tensor([522, 522]),
        encoder_hidden_states=text.expand(2, -1, -1),
    ).sample.transpose(1, 2)  # fmt: skip
    actual = ours.velocity_of_block(
        z, timestep=522, text=small_text(rows=3), memory=WanMemory(), window_latents=3
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_diffusers_weights_come_back_and_forth():
    theirs = diffusers_transformer()
    found = recognise(theirs.state_dict(), num_heads=TRANSFORMER.num_heads)
    ours = WanTransformer(found.config)
    ours.load_state_dict(found.tensors)
    back = {transformer_to_diffusers(k): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(back, strict=True)


@torch.inference_mode()
def test_the_autoencoder_equals_diffusers():
    diffusers = pytest.importorskip("diffusers")
    ours = drawn(WanVAE(WAN_VAE))
    theirs = diffusers.AutoencoderKLWan(
        base_dim=WAN_VAE.base_channels, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
        temperal_downsample=[False, True, True],
    ).eval()  # fmt: skip
    theirs.load_state_dict({wan_vae_to_diffusers(k): v for k, v in ours.state_dict().items()})
    x = torch.rand(1, 17, 3, 24, 32) * 2 - 1
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (LATENT_MEAN, LATENT_STD))

    raw = theirs.encode(x.transpose(1, 2)).latent_dist.mode()
    z = ((raw - mean) / std).transpose(1, 2)
    memory = CausalMemory()
    encoded = torch.cat([ours.encode(part, memory) for part in x.split([9, 8], 1)], 1)
    torch.testing.assert_close(encoded, z, rtol=0, atol=1e-4)

    expected = theirs.decode(raw).sample.transpose(1, 2)
    memory = CausalMemory()
    decoded = torch.cat([ours.decode(part, memory) for part in z.split([3, 2], 1)], 1)
    torch.testing.assert_close(decoded.clamp(-1, 1), expected, rtol=0, atol=1e-4)


class WordTokenizer:
    """One number per letter: what the encoder sees does not matter here."""

    def __call__(self, texts, *, max_length, truncation, return_tensors, add_special_tokens):
        assert truncation
        assert return_tensors == "pt"
        assert add_special_tokens
        transformers = pytest.importorskip("transformers")
        letters = [ord(letter) % 60 + 2 for letter in texts[0]]
        ids = torch.tensor([[*letters[: max_length - 1], 1]])
        return transformers.BatchEncoding(
            {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        )


@torch.inference_mode()
def test_rows_without_padding_equal_the_padded_reference(monkeypatch):
    """The training padded to the full length with a mask and zeroed what lies behind the prompt."""
    transformers = pytest.importorskip("transformers")
    config = transformers.UMT5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        relative_attention_num_buckets=8, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    encoder = transformers.UMT5EncoderModel(config).eval()
    monkeypatch.setattr(
        "instantvir_models.checkpoints.prompt._text_encoder", lambda: (WordTokenizer(), encoder)
    )
    rows = encode("a red square", text_len=20)
    ids = WordTokenizer()(
        ["a red square"], max_length=20, truncation=True, return_tensors="pt",
        add_special_tokens=True,
    ).input_ids  # fmt: skip
    count = ids.shape[1]
    padded = torch.nn.functional.pad(ids, (0, 20 - count))
    mask = (torch.arange(20) < count).long()[None]
    expected = encoder(padded, attention_mask=mask).last_hidden_state[:, :count]
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    TextRows(rows, 20)
    assert encode("x" * 99, text_len=20).shape == (1, 20, 16)
