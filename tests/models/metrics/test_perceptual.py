import pickle

import numpy as np
import pytest
import torch

from instantvir_models.errors import CheckpointError
from instantvir_models.metrics.perceptual import Lpips, installed_lpips, load_lpips

CHANNELS = (3, 64, 192, 384, 256, 256)
SIDES = (11, 5, 3, 3, 3)


def drawn_weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(side, side, *CHANNELS[i : i + 2]) for i, side in enumerate(SIDES)]
    backbone = {
        f"Conv_{i}": {
            "kernel": (rng.normal(size=shape) / np.sqrt(np.prod(shape[:3]))).astype("f4"),
            "bias": np.zeros(shape[3], "f4"),
        }
        for i, shape in enumerate(shapes)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, n, 1)).astype("f4")}}
        for i, n in enumerate(CHANNELS[1:])
    }
    return {"AlexNet_0": backbone, **heads}


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(1)
    clean = rng.integers(0, 256, (2, 64, 72, 3), dtype=np.uint8)
    return (clean // 2, clean)


def test_distance_is_zero_for_equal_frames_and_the_same_both_ways(pair):
    lpips = Lpips(drawn_weights())
    darker, clean = pair
    assert lpips(clean, clean).tolist() == [0, 0]
    assert lpips(darker, clean).min() > 0
    np.testing.assert_allclose(lpips(darker, clean), lpips(clean, darker), rtol=1e-5)


def test_the_first_layer_by_hand():
    """One layer counts, its kernel is the red pixel in the middle: features are 0 or of length 1."""
    weights = drawn_weights()
    for layer in weights["AlexNet_0"].values():
        layer["kernel"][:] = 0
    weights["AlexNet_0"]["Conv_0"]["kernel"][5, 5, 0, :2] = 1, -1
    for head in range(1, 5):
        weights[f"NetLinLayer_{head}"]["Conv_0"]["kernel"][:] = 0
    bright, dark = np.full((1, 64, 64, 3), 255, np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
    apart = weights["NetLinLayer_0"]["Conv_0"]["kernel"][0, 0, :2, 0].sum()
    assert Lpips(weights)(bright, dark)[0] == pytest.approx(apart, rel=1e-5)


def test_weights_are_read_from_a_pickle_of_arrays(tmp_path, pair):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(drawn_weights(), protocol=4))
    assert load_lpips(path)(*pair).tolist() == Lpips(drawn_weights())(*pair).tolist()


class Harmful:
    def __reduce__(self):
        return print, ("harm",)


@pytest.mark.parametrize("content", [Harmful(), {"AlexNet_0": {}}, {}])
def test_what_is_no_lpips_is_refused(tmp_path, capsys, content):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="holds no LPIPS weights"):
        load_lpips(path)
    assert not capsys.readouterr().out


def test_installed_weights_are_found_or_there_are_none():
    assert installed_lpips() is None or isinstance(installed_lpips(), Lpips)


def drawn_vgg(seed=0):
    rng = np.random.default_rng(seed)
    channels = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    backbone = {
        f"Conv_{i}": {
            "kernel": (rng.normal(size=(3, 3, *channels[i : i + 2])) / 30).astype("f4"),
            "bias": np.zeros(channels[i + 1], "f4"),
        }
        for i in range(13)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": rng.random((1, 1, n, 1)).astype("f4")}}
        for i, n in enumerate((64, 128, 256, 512, 512))
    }
    return {"VGG16_0": backbone, **heads}


def test_vgg_is_read_where_lpips_reads_it(pair):
    """After the second, fourth, seventh, tenth and last convolution, at 1 to 1/16 of the size."""
    lpips = Lpips(drawn_vgg())
    shapes = [tuple(f.shape[1:]) for f in lpips._features(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
    darker, clean = pair
    assert lpips(clean, clean).tolist() == [0, 0]
    assert lpips(darker, clean).min() > 0


def test_other_clean_frames_are_looked_at_anew(pair):
    darker, clean = pair
    lpips = Lpips(drawn_weights())
    first = lpips(darker, clean)
    lpips(clean, darker)
    changed = clean.copy()
    changed[1] //= 3
    assert lpips(darker, changed)[0] == first[0]
    assert lpips(darker, changed)[1] != first[1]
    assert lpips(darker, clean).tolist() == first.tolist()
