"""One grammar for degradations: what parses, and what each mistake is told."""

import json

import cv2
import numpy as np
import pytest
import torch

from instantvir_models.errors import UsageError
from instantvir_models.operators.compose import Composition
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.operators.sidecar import (
    forget_sidecar,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from instantvir_models.operators.spec import (
    OPERATOR_EXAMPLES,
    ClipShape,
    Specification,
    load_mask,
    parse_degradation,
    quoted,
    save_mask,
)

SHAPE = ClipShape(num_frames=4, height=24, width=36)


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that the examples name."""
    cv2.imwrite(
        str(tmp_path / "mask.png"), np.tile([[255, 0], [0, 255]], (12, 18)).astype(np.uint8)
    )
    cv2.imwrite(str(tmp_path / "kernel.png"), np.full((3, 5), 99, np.uint8))
    return tmp_path


@pytest.mark.parametrize("name", OPERATOR_EXAMPLES)
def test_every_example_parses_acts_and_reads_back(name, folder):
    degradation = parse_degradation(OPERATOR_EXAMPLES[name], shape=SHAPE, base=folder)
    again = parse_degradation(degradation.spec, shape=SHAPE, base=folder)
    x = torch.rand(1, 4, 3, 24, 36)
    torch.testing.assert_close(again.operator.A(x), degradation.operator.A(x))
    assert again.noise_std == pytest.approx(degradation.noise_std, rel=1e-3)


def test_noise_is_in_levels_of_255():
    assert parse_degradation("identity+noise:std=25").noise_std == pytest.approx(25 * LEVEL)


def test_the_first_part_acts_first():
    operator = parse_degradation("blur:sigma=2+down:factor=2").operator
    assert isinstance(operator, Composition)
    assert operator.measured_size(24, 36) == (12, 18)


def test_a_random_mask_after_down_has_the_small_size():
    operator = parse_degradation("down:factor=2+mask:keep=0.5", shape=SHAPE).operator
    assert operator.A(torch.rand(1, 4, 3, 24, 36)).shape[-2:] == (12, 18)


@pytest.mark.parametrize(
    ("spec", "sentence", "hint"),
    [
        ("blurr:sigma=3", "no operator called `blurr`", "did you mean `blur`"),
        ("wobble", "no operator called `wobble`", "use `identity`"),
        ("blur", "`blur` needs `sigma=`", "blur:sigma=3"),
        ("blur:sgma=3", "`blur` needs `sigma=`", ""),
        ("blur:sigma=3,colour=2", "`blur` has no `colour`", "it takes"),
        ("down:factor=4,kernl=area", "`down` has no `kernl`", "did you mean `kernel`"),
        ("blur:sigma=much", "`sigma` in `blur` is much; it is a number from 0 to 50", ""),
        ("blur:sigma=nan", "is nan; it is a number", ""),
        ("blur:sigma=99", "is 99; it is a number from 0 to 50", ""),
        ("blur:sigma=1,sigma=2", "`sigma` is given twice", ""),
        ("blur:3", "`3` in `blur` is not `key=value`", ""),
        ("down:factor=2.5", "it is a whole number", ""),
        ("down:factor=1", "it is a number from 2 to 8", ""),
        ("down:factor=2,kernel=lanczos", "is `lanczos`; it is `area` or `bicubic`", ""),
        ("temporal:size=4", "it is an odd number of frames", ""),
        ("noise:std=5+blur:sigma=1", "comes after the noise", "put `noise` last"),
        ("noise:std=-1", "it is a number from 0 to 255", ""),
        ("", "has an empty part", ""),
        ("blur:sigma=1++noise:std=1", "has an empty part", ""),
        ("mask:path=nowhere.png", "no such file", ""),
        ("mask:keep=0.5", "without the size of the video", "mask:path=FILE"),
        ("mask", "`mask` needs `keep=`", "mask:path=mask.png"),
    ],
)
def test_each_mistake_is_named(spec, sentence, hint):
    with pytest.raises(UsageError) as caught:
        parse_degradation(spec)
    assert sentence in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_a_mask_that_is_no_image_is_named(tmp_path):
    (tmp_path / "mask.png").write_text("not a picture")
    with pytest.raises(UsageError, match="is not an image"):
        load_mask(tmp_path / "mask.png")
    (tmp_path / "mask.npz").write_text("not an archive")
    with pytest.raises(UsageError, match="not a mask of ours"):
        load_mask(tmp_path / "mask.npz")


@pytest.mark.parametrize("frames", [1, 3])
def test_a_saved_mask_loads_bit_for_bit(tmp_path, frames):
    mask = (torch.rand(frames, 1, 7, 13) > 0.5).float()
    path = save_mask(mask, tmp_path / "clip.mkv.mask")
    assert torch.equal(load_mask(path), mask)


@pytest.mark.parametrize(
    "spec", ["blur:sigma=3+noise:std=2.55", "mask:keep=0.5,seed=3,per_frame=1"]
)
def test_the_note_beside_a_video_reads_back(tmp_path, spec):
    degradation = parse_degradation(spec, shape=SHAPE)
    write_sidecar(tmp_path / "clip.mkv", degradation, seed=3)
    noted = read_sidecar(tmp_path / "clip.mkv")
    assert noted is not None
    x = torch.rand(1, 4, 3, 24, 36)
    torch.testing.assert_close(noted.operator.A(x), degradation.operator.A(x))
    assert noted.noise_std == pytest.approx(degradation.noise_std)
    assert isinstance(noted.operator, (type(degradation.operator), Mask))


def test_no_note_is_none_and_a_bad_one_is_named(tmp_path):
    video = tmp_path / "clip.mkv"
    assert read_sidecar(video) is None
    for text in ("no json", json.dumps({"format": "other"}), json.dumps([1])):
        sidecar_path(video).write_text(text)
        with pytest.raises(UsageError, match="is not an operator note of ours"):
            read_sidecar(video)


def test_a_specification_says_what_it_holds_before_anything_is_made_of_it():
    said = Specification.read(
        "blur:sigma=2 + down:factor=2 + down:factor=3,kernel=area+mask:keep=0.5"
    )
    assert said.factor == 6
    assert said.noise_std is None
    assert said.seeded(7).spec == (
        "blur:sigma=2+down:factor=2+down:factor=3,kernel=area+mask:keep=0.5,seed=7"
    )
    assert Specification.read("mask:keep=0.5,seed=3").seeded(7).spec == "mask:keep=0.5,seed=3"


def test_noise_of_zero_is_named_and_a_file_called_noise_is_not():
    assert Specification.read("identity+noise:std=0").noise_std == 0
    assert Specification.read("psf:path=noise.png").noise_std is None


def test_a_note_keeps_the_mask_of_a_composition(tmp_path):
    shape = ClipShape(num_frames=2, height=16, width=24)
    degradation = parse_degradation("blur:sigma=2+mask:keep=0.5,seed=1+noise:std=3", shape=shape)
    write_sidecar(tmp_path / "y.mkv", degradation, seed=1)
    noted = read_sidecar(tmp_path / "y.mkv")
    x = torch.rand(1, 2, 3, 16, 24)
    assert torch.equal(noted.operator.A(x), degradation.operator.A(x))
    assert noted.noise_std == pytest.approx(degradation.noise_std)


def test_each_mask_of_a_note_has_a_file_of_its_own(tmp_path):
    """The second was written over the first, and the note said they were one."""
    shape = ClipShape(num_frames=1, height=16, width=24)
    twice = parse_degradation("mask:keep=0.5,seed=1+mask:keep=0.3,seed=2", shape=shape)
    write_sidecar(tmp_path / "y.mkv", twice, seed=1)
    x = torch.rand(1, 1, 3, 16, 24)
    assert torch.equal(read_sidecar(tmp_path / "y.mkv").operator.A(x), twice.operator.A(x))


NAMES = [
    "a+b.png",
    "1,5 m.png",
    '"x".png',
    'say "a+b".png',
    " a.png ",
    "a=b:c.png",
    '=".png',
    '"+"',
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_file_can_be_said(name):
    for text in (f"mask:path={quoted(name)}", f"blur:sigma=1+psf:path={quoted(name)}+noise:std=2"):
        read = Specification.read(text)
        assert read.parts[-1].values["path"] == name
        assert Specification.read(read.spec) == read


@pytest.mark.parametrize("name", ["a+b, c.mkv", '"quoted"+.mkv'])
def test_a_note_names_the_mask_of_every_video(tmp_path, name):
    """`+` and `,` in the name of the video made a note that could not be read."""
    shape = ClipShape(num_frames=1, height=16, width=24)
    hidden = parse_degradation("mask:keep=0.5,seed=1+noise:std=5", shape=shape)
    write_sidecar(tmp_path / name, hidden, seed=1)
    x = torch.rand(1, 1, 3, 16, 24)
    assert torch.equal(read_sidecar(tmp_path / name).operator.A(x), hidden.operator.A(x))


def test_a_note_finds_its_point_spread_from_the_folder_of_the_video(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "out").mkdir()
    cv2.imwrite(str(tmp_path / "work" / "k.png"), np.eye(3, dtype=np.uint8) * 255)
    monkeypatch.chdir(tmp_path / "work")
    blurred = parse_degradation("psf:path=k.png")
    write_sidecar(tmp_path / "out" / "y.mkv", blurred, seed=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not in the folder of the video"):
        read_sidecar(tmp_path / "out" / "y.mkv")
    noted = read_sidecar(tmp_path / "out" / "y.mkv", follow_references=True)
    assert torch.equal(noted.operator.psf, blurred.operator.psf)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_mask_is_told(tmp_path, content):
    path = tmp_path / "mask.npz"
    if content is None:
        np.savez(path, shape=np.array([1, 48, 64]), known=np.zeros(3, np.uint8))
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a mask of ours"):
        load_mask(path)


def test_a_new_video_takes_the_note_of_the_old_one_away(tmp_path):
    video = tmp_path / "y.mkv"
    write_sidecar(video, parse_degradation("blur:sigma=2"), seed=0)
    forget_sidecar(video)
    assert read_sidecar(video) is None
    sidecar_path(video).write_text("{}")  # somebody else's
    forget_sidecar(video)
    assert sidecar_path(video).exists()
