"""Small files may not ask for much: notes, masks, specifications and configurations of strangers."""

import io
import json
import os
import struct
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from instantvir_models.autoencoders.lean import LeanConfig
from instantvir_models.checkpoints.config import WanCheckpoint, write_config
from instantvir_models.checkpoints.folder import load_folder
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.prior import load_prior
from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.operators.sidecar import FORMAT, read_sidecar, sidecar_path
from instantvir_models.operators.spec import Specification, load_mask, save_mask
from instantvir_models.students.wan.transformer import WanConfig


def packed(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_masks_come_back_as_they_were_saved(tmp_path):
    mask = (torch.rand(3, 1, 5, 7) < 0.5).float()
    assert torch.equal(load_mask(save_mask(mask, tmp_path / "mask")), mask)


def test_a_small_file_that_claims_gigabytes_of_masks_is_refused_before_they_are_made(tmp_path):
    shape = np.array([2000, 1000, 900])
    path = packed(tmp_path / "m.npz", shape=shape, known=np.zeros(1000, np.uint8))
    assert path.stat().st_size < 600
    with pytest.raises(UsageError, match="2000 masks of 900x1000, more than such a file means"):
        load_mask(path)


def test_masks_that_unpack_to_more_than_they_say_are_not_unpacked(tmp_path):
    path = packed(tmp_path / "m.npz", shape=np.array([1, 8, 8]), known=np.zeros(2**24, np.uint8))
    with pytest.raises(UsageError, match="at most 8 are right"):
        load_mask(path)


DAMAGED = {
    "pickled": {"shape": np.array([1, 8, 8]), "known": np.array([{}, 1], object)},
    "of floats": {"shape": np.array([1.0, 8.0, 8.0]), "known": np.zeros(8, np.uint8)},
    "negative": {"shape": np.array([-1, -8, 8]), "known": np.zeros(8, np.uint8)},
    "overflowing": {"shape": np.array([2**32, 2**32, 1]), "known": np.zeros(0, np.uint8)},
    "empty": {"shape": np.array([0, 8, 8]), "known": np.zeros(0, np.uint8)},
    "flat": {"shape": np.array([64]), "known": np.zeros(8, np.uint8)},
    "without masks": {"shape": np.array([1, 8, 8])},
    "without a shape": {"known": np.zeros(8, np.uint8)},
    "short": {"shape": np.array([1, 8, 8]), "known": np.zeros(7, np.uint8)},
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_masks_of_another_kind_are_a_sentence(tmp_path, kind):
    with pytest.raises(UsageError, match="is not a mask of ours"):
        load_mask(packed(tmp_path / "m.npz", **DAMAGED[kind]))


def test_every_damaged_byte_of_a_mask_file_is_a_sentence_or_no_damage(tmp_path):
    mask = (torch.rand(2, 1, 8, 8) < 0.5).float()
    whole = save_mask(mask, tmp_path / "mask").read_bytes()
    broken = tmp_path / "broken.npz"
    for place in range(len(whole)):
        for change in (0x01, 0xFF):
            data = bytearray(whole)
            data[place] ^= change
            broken.write_bytes(data)
            with suppress(UsageError):
                assert torch.equal(load_mask(broken), mask)
        broken.write_bytes(whole[:place])
        with pytest.raises(UsageError):
            load_mask(broken)


def test_an_encrypted_mask_is_a_sentence(tmp_path):
    path = packed(tmp_path / "m.npz", shape=np.array([1, 8, 8]), known=np.zeros(8, np.uint8))
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + flags] |= 1
            place = data.find(signature, place + 1)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not a mask of ours"):
        load_mask(path)


def test_a_picture_that_claims_gigabytes_is_no_mask(tmp_path):
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "m.png").write_bytes(png)
    with pytest.raises(UsageError, match="100000x100000 pixels"):
        load_mask(tmp_path / "m.png")
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65000, 65000, 1) + b"\x01\x11\x00"
    (tmp_path / "m.jpg").write_bytes(jpeg)
    with pytest.raises(UsageError, match="65000x65000 pixels"):
        load_mask(tmp_path / "m.jpg")


def test_a_picture_with_a_part_larger_than_itself_is_no_mask(tmp_path):
    """158 bytes of which OpenCV made a gigabyte."""
    whole = save_mask(torch.ones(1, 1, 8, 8), tmp_path / "m")
    assert load_mask(whole).shape == (1, 1, 8, 8)
    data = bytearray(whole.read_bytes())
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = struct.pack(">I", 2**30)
    whole.write_bytes(data)
    with pytest.raises(UsageError, match="is not an image"):
        load_mask(whole)


def test_a_chain_of_down_samplings_is_bounded():
    with pytest.raises(UsageError, match="shrinks by 512 in all; at most 64"):
        Specification.read("down:factor=8+down:factor=8+down:factor=8")
    assert Specification.read("down:factor=8+down:factor=8").factor == 64
    with pytest.raises(UsageError, match="more than 16 operators"):
        Specification.read("+".join(["blur:sigma=1"] * 17))


def noted(folder, operator, **more):
    """A video with a note that says `operator`."""
    video = folder / "y.mkv"
    note = {"format": FORMAT, "operator": operator, **more}
    sidecar_path(video).write_text(json.dumps(note))
    return video


def test_a_note_names_files_of_its_own_folder_only(tmp_path):
    folder = tmp_path / "video"
    folder.mkdir()
    mask = save_mask(torch.ones(1, 1, 8, 8), tmp_path / "secret")
    (folder / "link.png").symlink_to(mask)
    (folder / "a").mkdir()
    for named in ("../secret.png", str(mask), "link.png", "a/../../secret.png"):
        video = noted(folder, f"mask:path={named}")
        with pytest.raises(UsageError, match="not in the folder of the video") as caught:
            read_sidecar(video)
        assert "--follow-references" in caught.value.hint
        assert read_sidecar(video, follow_references=True) is not None
    save_mask(torch.ones(1, 1, 8, 8), folder / "own")
    assert read_sidecar(noted(folder, "mask:path=own.png")) is not None


def test_a_note_that_names_a_pipe_does_not_wait_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UsageError, match="no such file"):
        read_sidecar(noted(tmp_path, "mask:path=pipe.png"))


@pytest.mark.parametrize("named", ["a\0b.png", "x" * 5000 + ".png", "\ud800.png"])
def test_a_note_that_names_what_no_file_is_called_is_a_sentence(tmp_path, named):
    with pytest.raises(UsageError):
        read_sidecar(noted(tmp_path, f"mask:path={named}"))


def test_a_huge_or_deep_note_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="larger than 65536 bytes"):
        read_sidecar(noted(tmp_path, "blur:sigma=1", more="x" * 2**16))
    video = tmp_path / "y.mkv"
    sidecar_path(video).write_text("[" * 60_000)
    with pytest.raises(UsageError, match="not an operator note of ours"):
        read_sidecar(video)


def test_layers_that_no_file_holds_are_not_made(tmp_path):
    """A configuration of a kilobyte took minutes and gigabytes, without any weights."""
    transformer = WanConfig(dim=16, ffn_dim=32, num_heads=2, num_layers=256)
    lean = LeanConfig(separate_layers=64, fusion_layers=64, ista_steps=64, ista_layers=64)
    save_file({"a": torch.zeros(1)}, tmp_path / "transformer.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "autoencoder.safetensors")
    digests = {"transformer.safetensors": "", "autoencoder.safetensors": ""}
    config = WanCheckpoint(transformer=transformer, lean=lean, sha256=digests)
    write_config(tmp_path, config)
    with pytest.raises(CheckpointError, match=r"1 tensors are there.*at least 256"):
        load_folder(tmp_path)


def test_sizes_of_embedded_networks_are_bounded(tmp_path):
    usual = {"frames_per_block": 3, "window": 4095, "num_heads": 4095}
    metadata = {"format": "instantvir-tiny", "config": json.dumps(usual)}
    save_file({"a": torch.zeros(1)}, tmp_path / "tiny.safetensors", metadata)
    with pytest.raises(CheckpointError, match="no usable configuration"):
        load_student(str(tmp_path / "tiny.safetensors"))
    metadata = {
        "format": "instantvir-flow-prior",
        "config": json.dumps({"bottom_layers": 4000}),
        "errors": json.dumps({"noise_std": [1], "error_std": [1]}),
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "prior.safetensors", metadata)
    with pytest.raises(CheckpointError, match="layers"):
        load_prior(tmp_path / "prior.safetensors")


def test_what_a_stored_member_is_called_is_no_path(tmp_path):
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as stored:
        buffer = io.BytesIO()
        np.save(buffer, np.array([1, 8, 8]))
        stored.writestr("../shape.npy", buffer.getvalue())
    with pytest.raises(UsageError, match="is not a mask of ours"):
        load_mask(path)
