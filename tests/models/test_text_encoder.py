"""Wan's umT5 file as the text encoder that transformers loads, by name, by number and end to end."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.convert import convert, recognise
from instantvir_models.checkpoints.folder import save_prompt
from instantvir_models.checkpoints.prompt import encode
from instantvir_models.checkpoints.text_encoder import (
    TextEncoderConfig,
    save_text_encoder,
    text_encoder_tensors,
    text_encoder_to_transformers,
)
from instantvir_models.errors import CheckpointError

SMALL = TextEncoderConfig(
    vocab_size=64, text_dim=16, attention_dim=24, ffn_dim=40, num_heads=3, num_layers=2,
    num_buckets=8,
)  # fmt: skip


def official_weights(config=SMALL, seed=0):
    """Random weights under Wan's names, scaled so that attention is neither flat nor a single row."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 1 + 0.1 * torch.randn(shape.shape, generator=generator)
        if "norm" in name
        else torch.randn(shape.shape, generator=generator) * (1 if "bed" in name else 0.3)
        for name, shape in text_encoder_tensors(config).items()
    }


def bucket(distance, num_buckets):
    """T5's number of a signed distance, up to 128 words, half of them for each direction."""
    half = num_buckets // 2
    exact, size = half // 2, abs(distance)
    if size >= exact:
        size = exact + int(math.log(size / exact) / math.log(128 / exact) * (half - exact))
    return min(size, half - 1) + (half if distance > 0 else 0)


def encoded(w, ids, config=SMALL):
    """Wan's text encoder written out: pre-norm, unscaled attention with a position bias per layer."""

    def norm(x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    x = w["token_embedding.weight"][ids]
    n = len(ids)
    buckets = torch.tensor(
        [[bucket(k - q, config.num_buckets) for k in range(n)] for q in range(n)]
    )
    for layer in range(config.num_layers):
        at = f"blocks.{layer}"
        y = norm(x, f"{at}.norm1")
        q, k, v = (
            (y @ w[f"{at}.attn.{part}.weight"].T).unflatten(-1, (config.num_heads, -1))
            for part in "qkv"
        )
        scores = torch.einsum("qnd,knd->nqk", q, k)
        bias = w[f"{at}.pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)
        y = torch.einsum("nqk,knd->qnd", (scores + bias).softmax(-1), v).flatten(1)
        x = x + y @ w[f"{at}.attn.o.weight"].T
        y = norm(x, f"{at}.norm2")
        gate = F.gelu(y @ w[f"{at}.ffn.gate.0.weight"].T, approximate="tanh")
        x = x + (gate * (y @ w[f"{at}.ffn.fc1.weight"].T)) @ w[f"{at}.ffn.fc2.weight"].T
    return norm(x, "norm")


def test_the_tensors_of_the_published_file():
    """242 tensors, 5,680,910,336 weights; the shapes as published, position bias in every layer."""
    tensors = text_encoder_tensors(TextEncoderConfig())
    assert len(tensors) == 242
    assert sum(tensor.numel() for tensor in tensors.values()) == 5_680_910_336
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["token_embedding.weight"] == (256384, 4096)
    assert shapes["blocks.23.pos_embedding.embedding.weight"] == (32, 64)
    assert shapes["blocks.23.ffn.gate.0.weight"] == (10240, 4096)
    assert shapes["blocks.0.attn.o.weight"] == (4096, 4096)


def test_full_size_names_and_shapes_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = TextEncoderConfig()
    with torch.device("meta"):
        theirs = transformers.UMT5EncoderModel(
            transformers.UMT5Config(
                vocab_size=config.vocab_size, d_model=config.text_dim, d_kv=64,
                d_ff=config.ffn_dim, num_layers=config.num_layers, num_heads=config.num_heads,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
    expected = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    del expected["encoder.embed_tokens.weight"]  # the same tensor as `shared.weight`
    ours = {
        text_encoder_to_transformers(name): tensor.shape
        for name, tensor in text_encoder_tensors(config).items()
    }
    assert ours == expected


def test_the_official_file_is_recognised_and_written_under_the_other_names(tmp_path):
    weights = official_weights()
    torch.save(weights, tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    tokenizer = tmp_path / "google" / "umt5-xxl"
    tokenizer.mkdir(parents=True)
    (tokenizer / "spiece.model").write_bytes(b"pieces")
    folder = tmp_path / "umt5"
    found, config = convert(tmp_path / "models_t5_umt5-xxl-enc-bf16.pth", folder)
    assert (found.layout, found.config, config) == (
        "umT5 text encoder, official names",
        SMALL,
        None,
    )
    written = load_file(folder / "model.safetensors")
    assert written.keys() == {text_encoder_to_transformers(name) for name in weights}
    for name, tensor in weights.items():
        assert torch.equal(written[text_encoder_to_transformers(name)], tensor)
    assert (folder / "spiece.model").read_bytes() == b"pieces"


@pytest.mark.parametrize("second_name", [False, True])
def test_transformers_names_come_back(second_name):
    weights = official_weights()
    theirs = {text_encoder_to_transformers(name): tensor for name, tensor in weights.items()}
    if second_name:
        theirs["encoder.embed_tokens.weight"] = theirs["shared.weight"]
    found = recognise(theirs)
    assert found.config == SMALL
    assert found.tensors.keys() == weights.keys()
    assert all(found.tensors[name] is weights[name] for name in weights)


def test_what_does_not_fit_is_named():
    weights = official_weights()
    del weights["blocks.1.pos_embedding.embedding.weight"]
    with pytest.raises(CheckpointError, match=r"1 tensors are missing \(blocks\.1\.pos_embedding"):
        recognise(weights)
    with pytest.raises(CheckpointError, match=r"`token_embedding\.weight` has shape \(64,\)"):
        recognise(weights | {"token_embedding.weight": torch.zeros(64)})


def test_a_text_encoder_has_a_folder_of_its_own(tmp_path):
    """Its config.json would take the place of the checkpoint's."""
    save_prompt(tmp_path / "made", WanCheckpoint(), torch.zeros(1, 2, 16), text="")
    before = (tmp_path / "made" / "config.json").read_bytes()
    torch.save(official_weights(), tmp_path / "t5.pth")
    with pytest.raises(CheckpointError, match="holds something else than a text encoder"):
        convert(tmp_path / "t5.pth", tmp_path / "made")
    assert (tmp_path / "made" / "config.json").read_bytes() == before


def test_files_beside_the_encoder_that_are_not_its_own_are_kept(tmp_path):
    """A folder of downloads holds the source, and weights of other people under like names."""
    source = tmp_path / "models_t5_umt5-xxl-enc-bf16.safetensors"
    save_file(official_weights(), source)
    (tmp_path / "model_student.safetensors").write_bytes(b"theirs")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        convert(source, tmp_path)
        after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert after.keys() - before.keys() == {"config.json", "model.safetensors"}
        assert all(after[name] == data for name, data in before.items())


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors"])
def test_weights_under_the_names_of_an_encoder_are_not_replaced(tmp_path, name):
    torch.save(official_weights(), tmp_path / "t5.pth")
    (tmp_path / name).write_bytes(b"theirs")
    with pytest.raises(CheckpointError, match="holds something else than a text encoder"):
        convert(tmp_path / "t5.pth", tmp_path)
    assert (tmp_path / name).read_bytes() == b"theirs"


@pytest.mark.parametrize("given", ["", "model.safetensors"])
def test_an_encoder_does_not_replace_its_own_source(tmp_path, given):
    save_text_encoder(tmp_path, SMALL, official_weights(), source=tmp_path / "t5.pth")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="would be replaced by what is made of it"):
        convert(tmp_path / given, tmp_path, dtype=torch.bfloat16)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_the_command_says_how_to_use_it(tmp_path):
    torch.save(official_weights(), tmp_path / "t5.pth")
    result = CliRunner().invoke(
        app, ["convert", str(tmp_path / "t5.pth"), "-o", str(tmp_path / "t")]
    )
    assert result.exit_code == ExitStatus.SUCCESS, result.stderr
    said = " ".join(result.stderr.split())
    assert "umT5 text encoder, official names, 22 tensors" in said
    assert "still needs its tokenizer" in said
    assert "export INSTANTVIR_TEXT_ENCODER=" in said


@pytest.mark.parametrize(
    "options", [("--prompt", "words"), ("--task", "sr"), ("--operators", "blur:sigma=3")]
)
def test_what_only_a_student_knows_is_refused_beside_an_encoder(tmp_path, options):
    torch.save(official_weights(), tmp_path / "t5.pth")
    result = CliRunner().invoke(
        app, ["convert", str(tmp_path / "t5.pth"), "-o", str(tmp_path / "t"), *options]
    )
    assert result.exit_code == ExitStatus.USAGE
    assert f"`{options[0]}` has no effect on a text encoder" in " ".join(result.stderr.split())
    assert not (tmp_path / "t").exists()


def make_tokenizer(folder):
    """One token for each of a few words, `</s>` behind the last, as umT5's ends its sentences."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {word: n for n, word in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "square"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


@torch.inference_mode()
@pytest.mark.parametrize("shard_bytes", [10**9, 4000])
def test_words_become_the_rows_of_the_official_encoder(tmp_path, monkeypatch, shard_bytes):
    """From Wan's file through convert, transformers and `encode`, against the maths written out."""
    pytest.importorskip("transformers")
    make_tokenizer(tmp_path)
    weights = official_weights()
    torch.save(weights, tmp_path / "t5.pth")
    monkeypatch.setattr("instantvir_models.checkpoints.text_encoder.SHARD_BYTES", shard_bytes)
    convert(tmp_path / "t5.pth", tmp_path / "umt5")
    shards = list((tmp_path / "umt5").glob("*.safetensors"))
    assert (len(shards) > 1) == (shard_bytes < 10**9)
    monkeypatch.setenv("INSTANTVIR_TEXT_ENCODER", str(tmp_path / "umt5"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = "a red square a square red " * 7
    ids = [3, 4, 5, 3, 5, 4] * 7 + [1]
    half = {name: tensor.to(torch.bfloat16).float() for name, tensor in weights.items()}
    torch.testing.assert_close(
        encode(text, text_len=512)[0].float(), encoded(half, ids), rtol=0.05, atol=0.05
    )
    from transformers import UMT5EncoderModel

    exact = UMT5EncoderModel.from_pretrained(tmp_path / "umt5", dtype=torch.float32).eval()
    rows = exact(torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(rows, encoded(weights, ids), rtol=1e-4, atol=1e-4)


def test_one_set_of_shards_takes_the_place_of_another(tmp_path, monkeypatch):
    """transformers would load a stale model.safetensors beside new shards."""
    monkeypatch.setattr("instantvir_models.checkpoints.text_encoder.SHARD_BYTES", 4000)
    save_text_encoder(tmp_path, SMALL, official_weights(), source=tmp_path / "t5.pth")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {p.name for p in tmp_path.glob("*.safetensors")}
    monkeypatch.setattr("instantvir_models.checkpoints.text_encoder.SHARD_BYTES", 10**9)
    save_text_encoder(tmp_path, SMALL, official_weights(), source=tmp_path / "t5.pth")
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
