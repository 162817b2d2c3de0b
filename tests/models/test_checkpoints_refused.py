"""Damaged and hostile checkpoint folders: each is refused by a sentence, before it costs memory."""

import json
from dataclasses import asdict, fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVaeConfig
from instantvir_models.checkpoints.config import (
    BOUNDS,
    FORMAT,
    WanCheckpoint,
    read_config,
)
from instantvir_models.checkpoints.convert import convert
from instantvir_models.checkpoints.folder import (
    load_folder,
    save_folder,
    save_network,
)
from instantvir_models.checkpoints.text_encoder import TextEncoderConfig
from instantvir_models.errors import CheckpointError
from instantvir_models.students.wan.student import WanSettings
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer
from tests.wan_small import LEAN, TRANSFORMER, drawn, small_student


def saved(folder, kind="lean"):
    save_folder(small_student(kind), folder, WanCheckpoint())
    return folder / "transformer.safetensors"


def rewritten(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def drop_two(tensors):
    del tensors["patch_embedding.bias"], tensors["blocks.1.ffn.0.weight"]


def add_one(tensors):
    tensors["blocks.7.extra"] = torch.zeros(1)


def reshape_one(tensors):
    tensors["head.head.bias"] = torch.zeros(3)


def make_integer(tensors):
    tensors["head.head.bias"] = tensors["head.head.bias"].to(torch.int8)


def make_infinite(tensors):
    tensors["head.head.bias"][0] = float("inf")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop_two, r"2 tensors are missing \(blocks.1.ffn.0.weight, patch_embedding.bias\), 0 are"),
        (add_one, r"0 tensors are missing, 1 are unknown \(blocks.7.extra\)"),
        (reshape_one, r"`head.head.bias` has shape \(3,\), expected \(64,\)"),
        (make_integer, r"`head.head.bias` is stored as torch.int8, expected a floating point type"),
        (make_infinite, r"`head.head.bias` holds values that are not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, sentence):
    rewritten(saved(tmp_path), change)
    with pytest.raises(CheckpointError, match=sentence):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda data: data[: len(data) // 2], "not a readable safetensors file"),
        (lambda data: data[:5], "ends after 5 bytes"),
        (lambda data: (2**62).to_bytes(8, "little") + data[8:], "within its header"),
        (lambda data: b"", "ends after 0 bytes"),
    ],
)
def test_a_cut_or_forged_file_is_refused(tmp_path, content, sentence):
    path = saved(tmp_path)
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(CheckpointError, match=sentence):
        load_folder(tmp_path)


def forged(change):
    """A change of the header of a safetensors file, its length corrected."""

    def apply(data):
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return apply


def overlap(header):
    header["head.head.bias"]["data_offsets"] = header["head.modulation"]["data_offsets"]


def reach_past_the_end(header):
    header["head.head.bias"]["data_offsets"][1] += 2**40


def claim_too_much(header):
    header["head.head.bias"]["shape"] = [2**40]


def name_an_unknown_type(header):
    header["head.head.bias"]["dtype"] = "F7"


def nest_deeply(header):
    header["head.head.bias"]["shape"] = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    "change", [overlap, reach_past_the_end, claim_too_much, name_an_unknown_type, nest_deeply]
)
def test_a_header_that_lies_is_refused(tmp_path, change):
    path = saved(tmp_path)
    path.write_bytes(forged(change)(path.read_bytes()))
    with pytest.raises(CheckpointError, match="not a readable safetensors file: "):
        load_folder(tmp_path)


def test_eight_bit_weights_are_refused_by_name(tmp_path):
    def make_eight_bit(tensors):
        tensors["head.head.bias"] = tensors["head.head.bias"].to(torch.float8_e4m3fn)

    rewritten(saved(tmp_path), make_eight_bit)
    with pytest.raises(CheckpointError, match=r"stored as torch\.float8_e4m3fn") as failure:
        load_folder(tmp_path)
    assert "quantised checkpoints are not supported" in failure.value.hint


def test_a_huge_header_is_refused_before_it_is_read(tmp_path):
    path = saved(tmp_path)
    size = 17 * 2**20
    with path.open("wb") as file:
        file.write(size.to_bytes(8, "little"))
        file.truncate(size + 100)
    with pytest.raises(CheckpointError, match="its header claims 17 MiB"):
        load_folder(tmp_path)


def configured(folder, change):
    """A folder whose config.json says `change`, and what a loader says to that."""
    values = {"format": FORMAT} | change if isinstance(change, dict) else change
    text = values if isinstance(values, str) else json.dumps(values)
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError) as failure:
        load_folder(folder)
    return str(failure.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "other"}, "the format is other"),
        ({"format_version": 2}, "this program reads instantvir-wan version 1"),
        ({"colour": 1}, "WanCheckpoint has no `colour`"),
        ({"settings": {"timestep": "late"}}, "`timestep` is 'late', expected int"),
        ({"settings": {"timestep": True}}, "`timestep` is True, expected int"),
        ({"settings": {"timestep": None}}, "`timestep` is None, expected int"),
        ({"settings": {"window_latents": 1}}, "does not hold a block of 3"),
        ({"settings": {"sr_input": "magic"}}, "'magic' is not a valid SrInput"),
        ({"sha256": {"../x": "0"}}, "`../x` is no weight file"),
        ({"sha256": {"*.safetensors": "0"}}, "`*.safetensors` is no weight file"),
        ({"sha256": {"a.safetensors/../../x": "0"}}, "`a.safetensors/../../x` is no weight file"),
        ({"sha256": ["x"]}, "`sha256` is ['x'], expected dict"),
        ({"transformer": []}, "WanConfig is an object"),
        ({"task": "\x1b[31mred"}, "`task` is '\\x1b[31mred', which cannot be printed"),
        ("[1, 2]", "a configuration is an object, got [1, 2]"),
        ('{"_class_name": "WanTransformer3DModel"}', "does not say `format`"),
        ("{", "is not usable"),
        ("[" * 100_000, "is not usable"),
    ],
)  # fmt: skip
def test_a_configuration_is_read_strictly(tmp_path, change, sentence):
    assert sentence in configured(tmp_path, change)


@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("transformer", '{"num_layers": 1000000000}', "`num_layers` is 1000000000, it is from 1 to"),
        ("transformer", '{"dim": 1000000000000}', "`dim` is 1000000000000, it is from 2 to 16384"),
        ("transformer", '{"dim": 1' + "0" * 400 + "}", "`dim` is a huge number"),
        ("transformer", '{"dim": -128}', "`dim` is -128"),
        ("transformer", '{"num_heads": 0}', "`num_heads` is 0"),
        ("transformer", '{"num_heads": 7}', "7 heads do not divide a width of 1536 evenly"),
        ("transformer", '{"eps": NaN}', "`eps` is nan"),
        ("transformer", '{"freq_dim": 33}', "freq_dim is half sines, half cosines, got 33"),
        ("settings", '{"window_latents": -3}', "`window_latents` is -3"),
        ("settings", '{"window_latents": 1000000000}', "`window_latents` is 1000000000"),
        ("settings", '{"sink_latents": -1}', "`sink_latents` is -1"),
        ("settings", '{"shift": NaN}', "`shift` is nan, it is from 0.01 to 1000"),
        ("settings", '{"shift": Infinity}', "`shift` is inf"),
        ("settings", '{"shift": 1' + "0" * 400 + "}", "`shift` is a huge number"),
        ("settings", '{"estimate_std": 0}', "`estimate_std` is 0"),
        ("lean", '{"fusion_layers": 1000000}', "`fusion_layers` is 1000000"),
        ("wan_vae", '{"level_multiples": [1]}', "a Wan autoencoder has 4 levels, got (1,)"),
        ("wan_vae", '{"base_channels": 1000000000}', "`base_channels` is 1000000000"),
        ("wan_vae", '{"latent_channels": 4}', "a Wan autoencoder has 16 latent channels, got 4"),
    ],
)  # fmt: skip
def test_absurd_numbers_are_refused_before_anything_is_built(tmp_path, part, value, sentence):
    said = configured(tmp_path, f'{{"format": "{FORMAT}", "{part}": {value}}}')
    assert sentence in said
    assert len(said) < 400


def test_every_number_of_a_configuration_has_bounds():
    kinds = WanSettings, WanConfig, LeanConfig, WanVaeConfig, TextEncoderConfig
    numbers = {f.name for kind in kinds for f in fields(kind)} - {"sr_input"}
    assert numbers == BOUNDS.keys()


def test_a_student_and_an_autoencoder_of_different_latents_do_not_go_together(tmp_path):
    lean = asdict(replace(LEAN, latent_channels=8))
    said = configured(tmp_path, {"transformer": asdict(TRANSFORMER), "lean": lean})
    assert "restores latents of 16 channels, the autoencoder makes 8" in said

    made = tmp_path / "made"
    transformer = drawn(WanTransformer(TRANSFORMER)).state_dict()
    save_network(made, WanCheckpoint(transformer=TRANSFORMER), "transformer", transformer)
    torch.save(drawn(LeanVAE(replace(LEAN, latent_channels=8))).state_dict(), tmp_path / "8.ckpt")
    with pytest.raises(CheckpointError, match="do not belong together"):
        convert(tmp_path / "8.ckpt", made)
    assert read_config(made).autoencoder is None
