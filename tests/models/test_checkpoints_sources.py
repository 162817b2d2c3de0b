"""Which files `convert` takes for one set of weights, and which it refuses."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from instantvir_models.checkpoints.convert import convert
from instantvir_models.errors import CheckpointError
from tests.wan_small import small_autoencoder


def in_shards(state, folder, stem, *, index=False, count=3):
    """The shards of `state` in `folder`, with or without an index; the names of the files."""
    folder.mkdir(exist_ok=True)
    keys = sorted(state)
    names = [f"{stem}-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]
    weight_map = {}
    for number, name in enumerate(names):
        part = {key: state[key] for key in keys[number::count]}
        weight_map |= dict.fromkeys(part, name)
        save_file(part, folder / name)
    if index:
        text = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / f"{stem}.safetensors.index.json").write_text(text)
    return names


@pytest.mark.parametrize(
    "names",
    [
        ("ema.pt", "model.pt"),
        ("model.fp16.safetensors", "model.safetensors"),
        ("model.bin", "model.safetensors"),
        ("Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"),
    ],
)
def test_a_folder_with_several_sets_of_weights_is_not_guessed_at(tmp_path, names):
    """Merging them would make a network that nobody trained."""
    state = small_autoencoder("lean").state_dict()
    for number, name in enumerate(names):
        path = tmp_path / name
        tensors = {key: tensor + number for key, tensor in state.items()}
        (save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)
    with pytest.raises(CheckpointError) as failure:
        convert(tmp_path, tmp_path / "out")
    assert f"holds 2 sets of weights: `{names[0]}`, `{names[1]}`" in str(failure.value)
    assert failure.value.hint == f"give the one you mean, such as `{tmp_path / names[0]}`"
    found, _ = convert(tmp_path / names[1], tmp_path / "out")
    assert all(torch.equal(found.tensors[key], state[key] + 1) for key in state)


@pytest.mark.parametrize("given", ["folder", "index", "second shard"])
def test_shards_beside_an_index_are_one_set(tmp_path, given):
    state = small_autoencoder("lean").state_dict()
    names = in_shards(state, tmp_path, "model", index=True)
    source = {
        "folder": tmp_path,
        "index": tmp_path / "model.safetensors.index.json",
        "second shard": tmp_path / names[1],
    }[given]
    found, _ = convert(source, tmp_path / "out")
    assert all(torch.equal(found.tensors[key], state[key]) for key in state)


def test_two_rows_of_shards_are_two_sets(tmp_path):
    state = small_autoencoder("lean").state_dict()
    in_shards(state, tmp_path, "model", index=True)
    half = in_shards({k: v.half() for k, v in state.items()}, tmp_path, "model.fp16", index=True)
    with pytest.raises(CheckpointError, match=r"holds 2 sets of weights: `model\.fp16\.s"):
        convert(tmp_path, tmp_path / "out")
    found, _ = convert(tmp_path / half[0], tmp_path / "out")
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float16}


@pytest.mark.parametrize("index", [False, True])
def test_a_missing_shard_is_named(tmp_path, index):
    names = in_shards(small_autoencoder("lean").state_dict(), tmp_path, "model", index=index)
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"one of 3 shards, and 1 are missing: `{names[1]}`"):
        convert(tmp_path, tmp_path / "out")


def test_shards_that_hold_the_same_tensor_are_refused(tmp_path):
    state = small_autoencoder("lean").state_dict()
    names = in_shards(state, tmp_path, "model")
    save_file(state, tmp_path / names[2])
    with pytest.raises(CheckpointError, match="tensors that another file holds too"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"x": "../x"}}', '{"weight_map": {}}',
     '{"weight_map": {"x": 3}}', '{"weight_map": {"x": ""}}'],
)  # fmt: skip
def test_a_bad_index_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is no index of shards"):
        convert(tmp_path, tmp_path / "out")


def test_a_pickle_of_the_old_kind_is_read(tmp_path):
    """Files from before PyTorch 1.6 cannot be mapped into memory."""
    state = small_autoencoder("lean").state_dict()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    found, _ = convert(tmp_path / "old.pt", tmp_path / "out")
    assert all(torch.equal(found.tensors[key], state[key]) for key in state)


def test_a_pickle_that_would_unpack_to_more_than_its_size_is_refused(tmp_path):
    state = small_autoencoder("lean").state_dict()
    torch.save(state, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in stored.infolist():
            bomb.writestr(entry.filename, stored.read(entry))
    with pytest.raises(CheckpointError, match="compressed archive, which PyTorch does not write"):
        convert(tmp_path / "bomb.pt", tmp_path / "out")
    state["latent_bottleneck.phi"] = torch.ones(1, 1).expand(10**6, 10**6)
    torch.save(state, tmp_path / "view.pt")
    with pytest.raises(CheckpointError, match="the file does not hold that many values"):
        convert(tmp_path / "view.pt", tmp_path / "out")


class Evil:
    def __reduce__(self):
        return (Path.write_text, (Path("owned"), "owned"))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": {"x": torch.zeros(1)}, "extra": Evil()}, "evil.pt")
    with pytest.raises(CheckpointError, match="opening it could run code: refused"):
        convert(Path("evil.pt"), tmp_path / "out")
    assert not Path("owned").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not a pickle at all", "is damaged|could run code"),
        (pickle.dumps({"a": 1}), "is damaged|could run code|no dictionary of tensors"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content, sentence):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        convert(path, tmp_path / "out")


def test_an_unknown_network_is_refused_by_name(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(
        CheckpointError, match=re.escape("no network known here (such as conv.weight)")
    ):
        convert(tmp_path / "model.pt", tmp_path / "out")
