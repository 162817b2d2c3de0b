"""A tiny video prior is made from clean clips, and says how far it is off."""

from dataclasses import replace

import torch

from instantvir_distill.config import Phase, TeacherConfig
from instantvir_distill.data import Sampler
from instantvir_distill.teaching import MEASURED_LEVELS, Teaching, measured_errors
from instantvir_models.checkpoints.prior import load_prior
from instantvir_models.priors.noise import PixelNoise, PooledNoise, white
from tests.small_runs import SMALL_PRIOR, clip, small_prior, trainer

CONFIG = TeacherConfig(
    phases=(Phase(steps=3, crop=16, frames=3, samples=2),), workers=1, network=SMALL_PRIOR,
    warmup_steps=2,
)  # fmt: skip


def test_a_prior_is_made_and_can_be_asked(tmp_path):
    trainer(CONFIG, [clip("a_1")], tmp_path).run()
    prior = load_prior(tmp_path / "teacher.safetensors")
    assert prior.errors.noise_std == MEASURED_LEVELS
    x = torch.zeros(1, 2, 3, 16, 16)
    assert prior.denoise(x, white(0.2)).shape == x.shape


def test_a_resumed_prior_equals_the_uninterrupted_one(tmp_path):
    trainer(CONFIG, [clip("a_1")], tmp_path / "whole").run()
    cut = trainer(CONFIG, [clip("a_1")], tmp_path / "cut")
    cut.update()
    cut.save()
    trainer(CONFIG, [clip("a_1")], tmp_path / "cut").run()
    whole, again = (
        load_prior(tmp_path / name / "teacher.safetensors") for name in ("whole", "cut")
    )
    for name, weight in whole.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], weight, rtol=0, atol=0)


def test_training_lowers_the_error(tmp_path):
    config = replace(CONFIG, warmup_steps=1, map_share=0.0, compute="float32")
    run = trainer(config, [clip("a_1")], tmp_path)
    losses = []
    for _ in range(15):
        run.step = 0  # the same samples and noise
        losses.append(run.update()["teacher"])
    assert losses[-1] < 0.9 * losses[0]


def test_noise_of_every_kind_is_drawn():
    teaching = Teaching(replace(CONFIG, map_share=0.7), Sampler([clip("a_1")], lossy_fraction=0.0))
    x = torch.zeros(1, 3, 3, 16, 16)
    drawn = [teaching.drawn_noise(x) for _ in range(60)]
    pixels = [noise for noise in drawn if isinstance(noise, PixelNoise)]
    pooled = [noise for noise in drawn if isinstance(noise, PooledNoise)]
    assert any(noise.std.numel() == 1 for noise in pixels)
    assert any(noise.std.numel() > 1 for noise in pixels)
    assert {noise.factor for noise in pooled} == {2, 4}
    assert all(bool((noise.pooled_std <= noise.std).all()) for noise in pooled)


def test_measured_errors_are_below_strong_noise_and_the_same_each_time():
    clean = [torch.zeros(1, 2, 3, 16, 16)]
    assert measured_errors(small_prior(), clean) == measured_errors(small_prior(), clean)
    table = measured_errors(small_prior(), clean)
    errors = table.error_std
    assert all(e < s for e, s in zip(errors, table.noise_std, strict=True) if s > 0.1)
