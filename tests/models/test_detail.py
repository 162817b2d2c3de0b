"""Nothing loses more fine contrast than it may."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import Restored, Solver, Window
from instantvir_models.solvers.detail import kept_detail


def luma(x):
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(2, keepdim=True)


def fine_contrast(x):
    grey = luma(x).flatten(0, 1)
    mean = F.avg_pool2d(grey, 5, 1, 2, count_include_pad=False)
    return F.avg_pool2d((grey - mean).square(), 9, 1, 4, count_include_pad=False).sqrt()


def smoothed(x):
    return F.avg_pool2d(x.flatten(0, 1), 5, 1, 2, count_include_pad=False).unflatten(0, x.shape[:2])


@pytest.fixture
def grass():
    return 0.1 * torch.randn(1, 2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("part", [0.5, 0.9, 0.97])
def test_every_place_keeps_the_wanted_part_of_its_fine_contrast(grass, part):
    kept = fine_contrast(kept_detail(grass, smoothed(grass), part)) / fine_contrast(grass)
    assert kept.min() > part - 0.03
    assert kept.mean() == pytest.approx(part, abs=0.01)


def test_none_kept_is_the_result_and_all_kept_the_brightness_before(grass):
    assert torch.allclose(kept_detail(grass, smoothed(grass), 0.0), smoothed(grass), atol=1e-6)
    kept = kept_detail(grass, smoothed(grass), 1.0)
    assert torch.allclose(luma(kept), luma(grass), atol=1e-6)


def test_of_fine_colour_less_is_kept(grass):
    kept = kept_detail(grass, smoothed(grass), 0.97)
    parts = [
        float((x - luma(x)).std() / (grass - luma(grass)).std()) for x in (kept, smoothed(grass))
    ]
    assert parts[1] + 0.2 < parts[0] < 0.7


def test_what_gains_contrast_is_left_as_it_is(grass):
    sharper = 1.5 * grass - 0.5 * smoothed(grass)
    assert torch.allclose(kept_detail(grass, sharper, 0.97), sharper, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_flat_picture_stays_a_number(value):
    flat = torch.full((1, 1, 3, 16, 16), value)
    assert torch.allclose(kept_detail(flat, flat, 0.97), flat, atol=1e-6)


def test_a_session_keeps_what_it_is_told_to():
    @dataclass(frozen=True)
    class Smooth(Solver[None]):
        frames_per_block = 2

        def restore_block(self, window: Window, state: None) -> Restored:
            return Restored(smoothed(window.measurement.y), torch.zeros(1))

    frames = np.random.default_rng(0).integers(90, 160, (2, 48, 64, 3), np.uint8)
    told = parse_degradation("identity+noise:std=5")
    contrast = []
    for part in (0.0, 0.9):
        session = Session(Smooth(), told, height=48, width=64, keep_detail=part)
        x = torch.from_numpy(session.push(frames)).permute(0, 3, 1, 2)[None] / 127.5
        contrast.append(float(fine_contrast(x).mean()))
    y = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 127.5
    assert contrast[0] < 0.5 * float(fine_contrast(y).mean())
    assert contrast[1] == pytest.approx(0.9 * float(fine_contrast(y).mean()), rel=0.03)


def test_a_session_follows_its_solver_as_far_as_it_is_told_to():
    @dataclass(frozen=True)
    class White(Solver[None]):
        frames_per_block = 1

        def restore_block(self, window: Window, state: None) -> Restored:
            return Restored(torch.ones_like(window.measurement.y), torch.zeros(1))

    frames = np.full((1, 48, 64, 3), 55, np.uint8)
    told = parse_degradation("identity+noise:std=5")
    shown = [
        Session(White(), told, height=48, width=64, follow=part).push(frames).mean()
        for part in (1.0, 0.5)
    ]
    assert shown == [255, 155]
