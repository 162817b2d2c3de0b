"""Checkpoints of the full-size student: layouts in and out, and everything that may be wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.checkpoints import folder as folder_module
from instantvir_models.checkpoints.config import (
    WanCheckpoint,
    from_json,
    read_config,
)
from instantvir_models.checkpoints.convert import convert, recognise
from instantvir_models.checkpoints.folder import (
    damaged_files,
    files_of,
    load_folder,
    save_folder,
    save_network,
)
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.names import transformer_to_diffusers, wan_vae_to_diffusers
from instantvir_models.checkpoints.prompt import load_rows, save_rows
from instantvir_models.checkpoints.tensors import write_tensors
from instantvir_models.errors import CheckpointError
from instantvir_models.students.wan.student import SrInput, WanSettings
from instantvir_models.students.wan.transformer import WanConfig, WanMemory, WanTransformer
from tests.small_disk import small_disk
from tests.wan_small import TRANSFORMER, drawn, small_autoencoder, small_student, small_text

KEYS = Path(__file__).parents[1] / "data" / "keys"


def full_size(kind):
    config = {WanTransformer: WanConfig, LeanVAE: LeanConfig, WanVAE: WanVaeConfig}[kind]()
    with torch.device("meta"):
        return kind(config).state_dict()


def published_keys(name):
    """{key: shape} of a published checkpoint."""
    lines = (KEYS / name).read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (WanTransformer, "dit_wan1.3b.txt"),
        (LeanVAE, "leanvae16.txt"),
        (WanVAE, "wanvae.txt"),
    ],
)
def test_names_and_shapes_are_the_published_ones(kind, name):
    ours = {key: str(tuple(tensor.shape)) for key, tensor in full_size(kind).items()}
    published = published_keys(name)
    training_only = {"std_layer.weight", "std_layer.bias"}
    assert ours == {k: v for k, v in published.items() if k not in training_only}


@pytest.mark.parametrize(
    ("kind", "rename", "name"),
    [
        (WanTransformer, transformer_to_diffusers, "dit_to_diffusers.tsv"),
        (WanVAE, wan_vae_to_diffusers, "wanvae_to_diffusers.tsv"),
    ],
)
def test_diffusers_names_at_full_size(kind, rename, name):
    pairs = dict(line.split("\t") for line in (KEYS / name).read_text().splitlines())
    assert pairs == {key: rename(key) for key in full_size(kind)}
    assert len(set(pairs.values())) == len(pairs)


def wrappings(state):
    """Every way a training keeps a student, by what people call it."""
    prefixed = {f"model.{k}": v for k, v in state.items()}
    critic = {k: torch.zeros_like(v) for k, v in prefixed.items()}
    compiled = {
        f"_fsdp_wrapped_module.model._orig_mod.{k}".replace(
            "blocks.0.", "blocks.0._checkpoint_wrapped_module."
        ): v
        for k, v in state.items()
    }
    return {
        "bare": state,
        "trained": {"generator": prefixed, "critic": critic},
        "averaged beside": {"generator": prefixed, "generator_ema": critic, "critic": critic},
        "outer model": {"model": state},
        "wrapped": {"generator": compiled, "critic": critic},
        "data parallel": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
        "diffusers": {transformer_to_diffusers(k): v for k, v in state.items()},
    }


def as_source(stored, folder, suffix):
    path = folder / f"model{suffix}"
    torch.save(stored, path)
    (folder / "config.json").write_text(json.dumps({"num_heads": TRANSFORMER.num_heads}))
    return path


@pytest.mark.parametrize("layout", wrappings({"x": torch.zeros(1)}))
def test_every_layout_of_a_student_becomes_ours(tmp_path, layout):
    state = drawn(WanTransformer(TRANSFORMER)).state_dict()
    source = as_source(wrappings(state)[layout], tmp_path, ".pt")
    found, config = convert(source, tmp_path / "out", task="deblur")
    assert found.config == replace(TRANSFORMER, text_len=512)
    written = load_file(tmp_path / "out" / "transformer.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    assert config.task == "deblur"
    assert damaged_files(tmp_path / "out", config.sha256) == []


def test_the_card_says_what_it_is_and_leaves_a_better_one_alone(tmp_path):
    source = as_source(drawn(WanTransformer(TRANSFORMER)).state_dict(), tmp_path, ".pt")
    out = tmp_path / "out"
    _, config = convert(source, out, task="deblur", operators="blur:sigma=3")
    card = (out / "README.md").read_text()
    for part in ("trained for: deblur", "blur:sigma=3", config.sha256["transformer.safetensors"]):
        assert part in card
    torch.save(small_autoencoder("lean").state_dict(), tmp_path / "lean.ckpt")
    convert(tmp_path / "lean.ckpt", out)
    assert "autoencoder: LeanVAE" in (out / "README.md").read_text()
    (out / "README.md").write_text("# by hand")
    convert(tmp_path / "lean.ckpt", out)
    assert (out / "README.md").read_text() == "# by hand"


def test_two_conversions_at_once_add_a_part_each(tmp_path, monkeypatch):
    """The second one ends while the first still writes its tensors."""
    source = as_source(drawn(WanTransformer(TRANSFORMER)).state_dict(), tmp_path, ".pt")
    torch.save(small_autoencoder("lean").state_dict(), tmp_path / "lean.ckpt")
    write_shards = folder_module.write_shards

    def beside_another(*args, **kwargs):
        monkeypatch.setattr(folder_module, "write_shards", write_shards)
        convert(tmp_path / "lean.ckpt", tmp_path / "out")
        return write_shards(*args, **kwargs)

    monkeypatch.setattr(folder_module, "write_shards", beside_another)
    _, config = convert(source, tmp_path / "out", task="deblur")
    assert config == read_config(tmp_path / "out")
    assert config.transformer is not None
    assert config.lean is not None
    assert config.sha256.keys() == {"transformer.safetensors", "autoencoder.safetensors"}
    assert damaged_files(tmp_path / "out", config.sha256) == []


def test_weights_beyond_the_range_of_a_type_are_refused(tmp_path):
    state = small_autoencoder("lean").state_dict()
    state["latent_bottleneck.phi"] = state["latent_bottleneck.phi"].clone()
    state["latent_bottleneck.phi"].view(-1)[0] = 1e6
    torch.save(state, tmp_path / "lean.ckpt")
    with pytest.raises(CheckpointError, match=r"`latent_bottleneck\.phi` .* range of float16"):
        convert(tmp_path / "lean.ckpt", tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "lean.ckpt", tmp_path / "out", dtype=torch.bfloat16)


def test_averaged_weights_are_taken_on_request(tmp_path):
    state = drawn(WanTransformer(TRANSFORMER)).state_dict()
    source = as_source(wrappings(state)["averaged beside"], tmp_path, ".pt")
    found, _ = convert(source, tmp_path / "out", use_average=True)
    assert not any(tensor.any() for tensor in found.tensors.values())
    source = as_source(wrappings(state)["trained"], tmp_path, ".pt")
    with pytest.raises(CheckpointError, match="holds no averaged weights"):
        convert(source, tmp_path / "other", use_average=True)


@pytest.mark.parametrize("kind", ["lean", "wan"])
@pytest.mark.parametrize("layout", ["bare", "with arguments", "diffusers", "safetensors", "shards"])
def test_every_layout_of_an_autoencoder_becomes_ours(tmp_path, kind, layout):
    state = small_autoencoder(kind).state_dict()
    extra = {"std_layer.weight": torch.zeros(16, 32), "std_layer.bias": torch.zeros(16)}
    stored = state | (extra if kind == "lean" else {})
    if layout == "with arguments":
        stored = {
            "args": {"latent_dim": 16},
            "state_dict": {f"autoencoder.{k}": v for k, v in stored.items()},
        }
    if layout == "diffusers":
        if kind == "lean":
            pytest.skip("diffusers has no LeanVAE")
        stored = {wan_vae_to_diffusers(k): v for k, v in stored.items()}
    source = tmp_path / "vae.pth"
    if layout == "safetensors":
        source = tmp_path / "vae.safetensors"
        save_file(stored, source)
    elif layout == "shards":
        source = tmp_path / "shards"
        source.mkdir()
        keys = sorted(stored)
        for index, part in enumerate((keys[:20], keys[20:])):
            save_file(
                {k: stored[k] for k in part}, source / f"vae-0000{index + 1}-of-00002.safetensors"
            )
    else:
        torch.save(stored, source)
    found, config = convert(source, tmp_path / "out")
    assert found.config == small_autoencoder(kind).config
    assert found.dropped == (tuple(sorted(extra)) if kind == "lean" else ())
    written = load_file(tmp_path / "out" / "autoencoder.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    assert (config.lean is None) == (kind == "wan")


def test_layout_to_ours_to_diffusers_and_back():
    state = drawn(WanTransformer(TRANSFORMER)).state_dict()
    theirs = {transformer_to_diffusers(k): v for k, v in state.items()}
    back = recognise(theirs, num_heads=TRANSFORMER.num_heads).tensors
    assert back.keys() == state.keys()
    assert all(back[key] is state[key] for key in state)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_a_folder_gives_the_student_back(tmp_path, kind):
    student = small_student(kind, window_latents=9, sink_latents=1, sr_input=SrInput.PIXELS)
    save_folder(student, tmp_path, WanCheckpoint(task="sr"))
    loaded = load_student(str(tmp_path))
    assert loaded.checkpoint.task == "sr"
    assert loaded.student.settings == student.settings
    for part in ("transformer", "autoencoder"):
        ours, theirs = (getattr(s, part).state_dict() for s in (student, loaded.student))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert loaded.student.text.rows.shape == (1, 0, TRANSFORMER.text_dim)


@torch.inference_mode()
def test_a_prompt_padded_in_its_file_means_the_same(tmp_path):
    """Wan's own encoder gives zero rows behind the words; a file may hold them or leave them off."""
    rows = small_text(rows=4).rows.to(torch.bfloat16).float()
    padded = torch.nn.functional.pad(rows, (0, 0, 0, TRANSFORMER.text_len - 4))
    z = torch.randn(1, 3, 16, 4, 4)

    def velocity(rows):
        save_rows(rows, tmp_path / "rows.safetensors", text="")
        text = load_rows(
            tmp_path / "rows.safetensors",
            text_dim=TRANSFORMER.text_dim,
            text_len=TRANSFORMER.text_len,
        )
        transformer = drawn(WanTransformer(TRANSFORMER))
        return transformer.velocity_of_block(
            z, timestep=522, text=text, memory=WanMemory(), window_latents=3
        )

    torch.testing.assert_close(velocity(rows), velocity(padded), rtol=0, atol=1e-5)
    assert not torch.allclose(velocity(rows), velocity(rows[:, :0]), atol=1e-2)


def test_large_networks_are_cut_into_shards(tmp_path):
    state = drawn(WanTransformer(TRANSFORMER)).state_dict()
    config = WanCheckpoint(transformer=TRANSFORMER)
    sharded = save_network(tmp_path, config, "transformer", state, shard_bytes=100_000)
    names = files_of(sharded, "transformer")
    assert len(names) > 2
    assert names[0] == f"transformer-00001-of-{len(names):05}.safetensors"
    joined = {k: v for name in names for k, v in load_file(tmp_path / name).items()}
    assert joined.keys() == state.keys()
    whole = save_network(tmp_path, sharded, "transformer", state)
    assert files_of(whole, "transformer") == ["transformer.safetensors"]
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == ["transformer.safetensors"]


def test_a_missing_part_says_how_to_add_it(tmp_path):
    state = drawn(WanTransformer(TRANSFORMER)).state_dict()
    convert(as_source(state, tmp_path, ".pt"), tmp_path / "out")
    with pytest.raises(CheckpointError, match="has no autoencoder") as failure:
        load_folder(tmp_path / "out")
    assert "instantvir convert LeanVAE.ckpt" in failure.value.hint


def test_numbers_may_be_written_as_integers():
    assert from_json(WanSettings, {"shift": 8}).shift == 8.0


def test_a_published_name_without_weights_says_how_to_convert():
    for name, autoencoder in (("wan-lean", "LeanVAE-dim16.ckpt"), ("wan", "Wan2.1_VAE.pth")):
        with pytest.raises(CheckpointError, match=f"`{name}` .* no public weights yet") as failure:
            load_student(name)
        assert f"instantvir convert {autoencoder} -o DIR" in failure.value.hint


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(CheckpointError, match="no model called `huge`") as failure:
        load_student("huge")
    assert "`wan-lean`" in failure.value.hint


@pytest.mark.parametrize("room", [0, 100, 4000])
def test_a_disk_that_has_no_room_for_tensors_is_what_the_system_says(tmp_path, room):
    """The library's own error was no OSError: the pieces of a run ended in a traceback."""
    with small_disk(room), pytest.raises(OSError, match="File too large"):
        write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1000)})
