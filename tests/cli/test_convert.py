"""What `convert` and `info` do with files that nobody meant for them, and with places to write."""

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.checkpoints import tensors as tensors_module
from instantvir_models.checkpoints.config import WanCheckpoint, read_config
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.errors import VideoWriteError
from instantvir_models.outputs import claim as claim_module
from tests.wan_small import small_autoencoder, small_student


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def said(result):
    return " ".join(result.stderr.split())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "lean.ckpt"
    torch.save(small_autoencoder("lean").state_dict(), path)
    return path


def empty(path):
    path.touch()


def text(path):
    path.write_text("hello world\n" * 10)


def cut(path):
    torch.save(small_autoencoder("lean").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def garbled(path):
    torch.save(small_autoencoder("lean").state_dict(), path)
    data = bytearray(path.read_bytes())
    for place in range(100, 900, 7):
        data[place] ^= 0x55
    path.write_bytes(data)


def loop(path):
    path.symlink_to(path)


def dangling(path):
    path.symlink_to("nowhere")


def number_of_a_list(path):
    torch.save([1, 2], path)


def numbered_tensors(path):
    torch.save({1: torch.zeros(3)}, path)


def tensor_without_axes(path):
    torch.save({"patch_embedding.weight": torch.zeros(())}, path)


def sparse(path):
    torch.save({"latent_bottleneck.phi": torch.zeros(3, 3).to_sparse()}, path)


def whole_module(path):
    torch.save(small_autoencoder("lean"), path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (empty, "is empty"),
        (text, "is damaged, or no file of weights"),
        (cut, "is damaged, or no file of weights"),
        (garbled, "is damaged, or no file of weights"),
        (os.mkdir, "holds no weights"),
        (loop, "there is no file"),
        (dangling, "there is no file"),
        (os.mkfifo, "there is no file"),
        (number_of_a_list, "holds no dictionary of tensors"),
        (numbered_tensors, "holds no dictionary of tensors"),
        (tensor_without_axes, "`patch_embedding.weight` has shape ()"),
        (sparse, "the file does not hold that many values"),
        (whole_module, "opening it could run code: refused"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence_and_leaves_nothing(tmp_path, make, sentence):
    make(tmp_path / "model.pt")
    result = run("convert", tmp_path / "model.pt", "-o", tmp_path / "out")
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert sentence in said(result)
    assert not (tmp_path / "out").exists()


def test_a_training_state_gives_its_network(tmp_path, weights):
    """As Lightning saves it: the optimizer lies beside the weights."""
    moments = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    state = {f"autoencoder.{k}": v for k, v in torch.load(weights).items()}
    stored = {"state_dict": state, "optimizer_states": [moments], "epoch": 3, "callbacks": {}}
    torch.save(stored, tmp_path / "last.ckpt")
    assert run("convert", tmp_path / "last.ckpt", "-o", tmp_path / "out").exit_code == 0
    written = load_file(tmp_path / "out" / "autoencoder.safetensors")
    assert written.keys() == small_autoencoder("lean").state_dict().keys()


def test_tensors_that_share_memory_are_written_each(tmp_path):
    """As sharded trainings save them: all views of one long vector."""
    state = small_autoencoder("lean").state_dict()
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    views = flat.split([tensor.numel() for tensor in state.values()])
    shared = {k: v.view(state[k].shape) for k, v in zip(state, views, strict=True)}
    shared["encoder.fusion_layer.dconv_layer.0.ds_conv.bias"] = shared[
        "decoder.fusion_layer.dconv_layer.0.ds_conv.bias"
    ]
    torch.save(shared, tmp_path / "flat.pt")
    result = run("convert", tmp_path / "flat.pt", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    written = load_file(tmp_path / "out" / "autoencoder.safetensors")
    assert all(torch.equal(written[key], shared[key]) for key in state)


def test_a_name_that_is_not_utf8_is_read(tmp_path, weights):
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/l\xff.pt")
    weights.rename(strange)
    result = run("convert", strange, "-o", tmp_path / "out", "--operators", "blur\x1b[31m")
    assert result.exit_code == 0, result.stderr
    config = read_config(tmp_path / "out")
    assert (config.source, config.operators) == ("l?.pt (LeanVAE)", "blur?[31m")
    assert "made from: l?.pt" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", ["afile", "afile/below", "y" * 300])
def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path, weights, name):
    (tmp_path / "afile").write_text("mine")
    result = run("convert", weights, "-o", tmp_path / name)
    assert result.exit_code in (ExitStatus.BAD_OUTPUT, ExitStatus.NO_CHECKPOINT)
    assert f"error: `{tmp_path / name}" in said(result).replace(" ", "").replace(":`", ": `")
    assert (tmp_path / "afile").read_text() == "mine"


def test_a_folder_with_another_configuration_is_left_alone(tmp_path, weights):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')
    before = contents(foreign)
    result = run("convert", weights, "-o", foreign)
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert "does not say `format`" in said(result)
    assert contents(foreign) == before


@pytest.mark.parametrize("there_before", [False, True])
def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, weights, monkeypatch, there_before):
    out = tmp_path / "out"
    if there_before:
        save_folder(small_student(), out, WanCheckpoint(task="deblur"))
    before = contents(out) if there_before else None

    def half_written(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensors_module, "save_file", half_written)
    result = run("convert", weights, "-o", out, "--overwrite")
    assert result.exit_code == ExitStatus.BAD_OUTPUT
    assert "cannot be written: No space left on device" in said(result)
    assert out.exists() == there_before
    assert not there_before or contents(out) == before


def test_a_part_that_is_there_is_not_replaced_without_leave(tmp_path, weights):
    out = tmp_path / "out"
    save_folder(small_student(), out, WanCheckpoint(task="deblur"))
    before = contents(out)
    result = run("convert", weights, "-o", out)
    assert result.exit_code == ExitStatus.USAGE
    assert "autoencoder.safetensors` exists already" in said(result).replace(" au", "au")
    assert contents(out) == before
    shorter = ["--overwrite", "--dtype", "float16"]
    assert run("convert", weights, "-o", out, *shorter).exit_code == 0
    assert contents(out)["autoencoder.safetensors"] != before["autoencoder.safetensors"]
    for output in (out, tmp_path / "rows.safetensors"):
        assert run("convert", "--prompt", "", "-o", output).exit_code == 0
        again = run("convert", "--prompt", "", "-o", output)
        assert again.exit_code == ExitStatus.USAGE
        assert "exists already" in said(again)


def test_what_a_killed_conversion_left_is_told_and_not_taken(tmp_path, weights):
    out = tmp_path / "out"
    save_folder(small_student(), out, WanCheckpoint(task="deblur"))
    good = (out / "transformer.safetensors").read_bytes()
    left = out / ".autoencoder.safetensors.instantvir"
    left.mkdir()
    (left / "lock").touch()
    (left / "transformer.safetensors").write_bytes(b"half")
    result = run("convert", weights, "-o", out, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert (out / "transformer.safetensors").read_bytes() == good
    assert "left by a run that was ended" in said(result) or "of an earlier run" in said(result)
    assert not left.exists()


def test_the_configuration_takes_its_place_last(tmp_path, monkeypatch):
    """What stops half-way between is found: new weights never have old digests that fit them."""
    save_folder(small_student(), tmp_path, WanCheckpoint())
    before, move = contents(tmp_path), claim_module.move_over

    def stops_at_the_weights(path, target):
        if path.name == "transformer.safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return move(path, target)

    monkeypatch.setattr(claim_module, "move_over", stops_at_the_weights)
    with pytest.raises(VideoWriteError, match="Input/output error"):
        save_folder(small_student(), tmp_path, WanCheckpoint(task="sr"))
    assert contents(tmp_path)["config.json"] == before["config.json"]
    assert not list(tmp_path.glob(".*.instantvir"))


def test_weights_may_be_read_by_whom_the_configuration_may(tmp_path, weights):
    out = tmp_path / "out"
    run("convert", weights, "-o", out)
    modes = {path.stat().st_mode for path in out.iterdir()}
    assert modes == {weights.stat().st_mode}


def test_a_part_may_be_converted_in_place(tmp_path):
    """The file is still mapped into memory while the new one is written."""
    save_folder(small_student(), tmp_path, WanCheckpoint(task="deblur"))
    before = load_file(tmp_path / "autoencoder.safetensors")
    result = run(
        "convert", tmp_path / "autoencoder.safetensors", "-o", tmp_path, "--dtype", "float16",
        "--overwrite",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    after = load_file(tmp_path / "autoencoder.safetensors")
    assert all(torch.equal(after[key], before[key].half()) for key in before)
    assert run("info", tmp_path).exit_code == 0


@pytest.mark.parametrize("where", ["tensor", "shard", "log"])
def test_what_other_people_wrote_cannot_steer_a_terminal(tmp_path, where):
    steering = "\x1b]0;title\x07\x1b[31m\u202e"
    if where == "tensor":
        torch.save({f"conv{steering}": torch.zeros(1)}, tmp_path / "model.pt")
        result = run("convert", tmp_path / "model.pt", "-o", tmp_path / "out")
    elif where == "shard":
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"x": f"{steering}.safetensors"}}))
        result = run("convert", index, "-o", tmp_path / "out")
    else:
        out = tmp_path / "out"
        left = out / f".{steering}.instantvir"
        left.mkdir(parents=True)
        (left / "lock").touch()
        (left / "weights").write_text("half")
        torch.save(small_autoencoder("lean").state_dict(), tmp_path / "lean.ckpt")
        result = run("convert", tmp_path / "lean.ckpt", "-o", out)
    assert "?]0;title??[31m?" in result.stderr.replace("\n", "").replace(" ", "")
    assert all(letter.isprintable() or letter == "\n" for letter in result.stderr)


def test_info_of_a_video_names_what_looks_at_videos(tmp_path):
    """It was called an unreadable checkpoint that one should download again."""
    (tmp_path / "film.mkv").write_bytes(b"\x1aE\xdf\xa3")
    result = run("info", tmp_path / "film.mkv")
    assert result.exit_code == 2
    assert "--dry-run" in result.stderr


@pytest.mark.parametrize(
    ("make", "name", "sentence"),
    [
        (None, "/dev/zero", "is no file or folder, so it holds no model"),
        (os.mkfifo, "pipe", "is no file or folder, so it holds no model"),
        (None, "x" * 300, "cannot be read: File name too long"),
        (loop, "loop", "no model called"),
        (empty, "empty.safetensors", "it ends after 0 bytes"),
        (os.mkdir, "folder", "there is no config.json"),
    ],
)
def test_info_of_what_is_no_model_is_a_sentence(tmp_path, monkeypatch, make, name, sentence):
    monkeypatch.chdir(tmp_path)
    if make is not None:
        make(tmp_path / name)
    result = run("info", name)
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert sentence in said(result)


def test_info_tells_what_is_missing_from_what_differs(tmp_path):
    save_folder(small_student(), tmp_path, WanCheckpoint())
    (tmp_path / "transformer.safetensors").unlink()
    result = run("info", tmp_path)
    assert result.exit_code == ExitStatus.NO_CHECKPOINT
    assert "error: transformer.safetensors is missing" in said(result)
