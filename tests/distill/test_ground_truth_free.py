"""No clean frame in the loss, proven by clean frames that raise when anybody looks at them."""

from dataclasses import replace

import pytest
import torch

from instantvir_distill.clips import Clip
from instantvir_distill.config import CriticConfig, DistillConfig, Phase
from instantvir_distill.data import Sampler
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.base import CleanExample, Example, Reconstruction
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.variational import Variational, red_diff
from instantvir_distill.recipes import RECIPES
from instantvir_distill.sources import CleanVideos, MeasuredClip, MeasuredVideos, task_of
from instantvir_models.checkpoints.prior import save_prior
from instantvir_models.errors import UsageError
from instantvir_models.media import to_uint8, to_unit
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import FrameMasks, Mask
from instantvir_models.operators.measurement import Degradation, Measurement, degrade
from instantvir_models.operators.spec import Specification, parse_degradation
from instantvir_models.tasks import TASKS
from tests.small_runs import SMALL, clip, small_prior, trainer


class Secret(torch.Tensor):
    """Clean frames that nobody may look at; that they are there, and how large, is no secret."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in ("__get__", "size", "dim"):
            return super().__torch_function__(function, types, args, kwargs or {})
        raise AssertionError(f"a clean frame was looked at by {function}")


def guard(monkeypatch):
    """Clean frames come out of the data set as secrets; what degrades them may look."""
    clean, measured = Sampler.clean, Sampler._measured

    def guarded(self, *args):
        return clean(self, *args).as_subclass(Secret)

    def may_look(self, x, *args, **kwargs):
        with torch._C.DisableTorchFunctionSubclass():
            plain = x.as_subclass(torch.Tensor)
        sample = measured(self, plain, *args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return replace(sample, x=sample.x.as_subclass(Secret))

    monkeypatch.setattr(Sampler, "clean", guarded)
    monkeypatch.setattr(Sampler, "_measured", may_look)


def taught(tmp_path, method, **settings):
    """A small run of `method` with a teacher."""
    save_prior(small_prior(), tmp_path / "prior.safetensors")
    teacher = str(tmp_path / "prior.safetensors")
    return replace(SMALL, method=method, teacher=teacher, **settings)


FREE = {
    "self_supervised": lambda p: replace(SMALL, method=SelfSupervised()),
    "sure": lambda p: replace(SMALL, method=SelfSupervised(noise="sure"), compute="float32"),
    "amortise": lambda p: taught(p, Amortise()),
    "posterior_teacher": lambda p: taught(p, PosteriorTeacher()),
    "by_task": lambda p: taught(p, ByTask()),
    "red_diff": lambda p: taught(p, red_diff()),
    "blind": lambda p: taught(p, Variational(), critic=CriticConfig(updates_per_step=2)),
    "conditioned": lambda p: taught(p, Variational(critic="conditioned"), critic=CriticConfig()),
}


@pytest.mark.parametrize("name", FREE)
def test_a_method_without_ground_truth_never_looks_at_a_clean_frame(name, tmp_path, monkeypatch):
    guard(monkeypatch)
    config = FREE[name](tmp_path)
    run = trainer(config, [clip("a_1", size=(112, 112))], tmp_path / "run")
    before = [weight.detach().clone() for weight in run.objective.student.parameters()]
    run.run()
    assert run.step == config.steps
    after = list(run.objective.student.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(bool(weight.isfinite().all()) for weight in after)


def test_heads_compare_with_other_videos_alone(tmp_path, monkeypatch):
    """No clean frame of an example is looked at, and some of other videos are."""
    guard(monkeypatch)
    asked = []

    def other(self, like):
        asked.append(like.shape)
        return torch.zeros_like(like)

    monkeypatch.setattr(CleanVideos, "natural", other)
    config = taught(tmp_path, Adversarial(anchor_weight=0.0), critic=CriticConfig())
    run = trainer(config, [clip("a_1", size=(112, 112))], tmp_path / "run")
    run.run()
    assert run.step == config.steps
    assert len(asked) == sum(phase.steps * phase.samples for phase in config.phases)


def test_what_belongs_to_no_measurement_is_of_the_size_that_is_asked_for(tmp_path):
    config = taught(tmp_path, Adversarial(anchor_weight=0.0), critic=CriticConfig())
    objective = trainer(config, [clip("a_1")], tmp_path / "run").objective
    objective.prepare(0)
    like = torch.zeros(1, 2, 3, 24, 24)
    one, other = (objective.networks.natural(like) for _ in range(2))
    assert one.shape == other.shape == like.shape
    assert not torch.equal(one, other)


def test_the_guard_sees_a_method_that_looks(tmp_path, monkeypatch):
    guard(monkeypatch)
    with pytest.raises(AssertionError, match="a clean frame was looked at"):
        trainer(SMALL, [clip("a_1")], tmp_path).run()


def test_recipes_say_truly_whether_they_need_clean_clips():
    free = {
        name
        for name, recipe in RECIPES.items()
        if isinstance(config := recipe(), DistillConfig) and not config.method.reads_clean
    }
    assert free == {
        "tiny-self-supervised", "tiny-amortised", "tiny-by-task", "tiny-posterior", "sharpen",
        "adapt", "wan-1.3b-lean", "wan-1.3b",
    }  # fmt: skip


def test_examples_of_a_method_without_ground_truth_hold_none(tmp_path):
    for method, kind in ((SelfSupervised(), Example), (Regression(), CleanExample)):
        run = trainer(replace(SMALL, method=method), [clip("a_1")], tmp_path)
        assert {type(example) for example in run.objective.examples(0)} == {kind}


def measured_clip(spec, seed=0, frames=6):
    """A clip as `spec` leaves it, with its truth."""
    clean = clip("m_1", seed, size=(64, 64)).frames[:frames]
    x = torch.from_numpy(clean).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    given = MeasuredClip.of(Clip("m_1", clean), Specification.read(spec)).degradation
    y = degrade(x, given, generator=torch.Generator().manual_seed(seed)).y
    return Clip("m_1", to_uint8(y)), given, x


@pytest.mark.parametrize(
    "spec",
    [
        "identity+noise:std=20",
        "mask:keep=0.5,seed=0",
        "down:factor=2,kernel=area",
        "blur:sigma=1+noise:std=2",
    ],
)
def test_a_student_learns_where_only_measurements_exist(spec, tmp_path):
    video, _, _ = measured_clip(spec)
    config = replace(
        SMALL, method=SelfSupervised(), phases=(Phase(steps=2, crop=16, frames=3, samples=2),)
    )
    run = trainer(replace(config, measured_by=spec), [video], tmp_path)
    before = run.objective.student.enter.weight.detach().clone()
    run.run()
    assert not torch.equal(run.objective.student.enter.weight, before)


def test_measurements_alone_bring_a_student_nearer_to_the_truth(tmp_path):
    """The truth is hidden from training; no clean frame is on the disk, and none in memory."""
    video, given, x = measured_clip("identity+noise:std=40")
    phase = Phase(steps=40, crop=32, frames=3, samples=4, frames_learned=3)
    config = replace(SMALL, method=SelfSupervised(), phases=(phase,), compute="float32")
    run = trainer(replace(config, measured_by="identity+noise:std=40"), [video], tmp_path)
    asked = Example(Measurement(to_unit(video.frames), given), slice(0, 6), "denoise")

    def error():
        with torch.no_grad():
            (made,) = run.objective.networks.restore([asked])
        return float((made.x_hat - x).square().mean())

    before = error()
    while run.step < config.steps:
        run.update()
    assert error() < 0.9 * before


@pytest.mark.parametrize("spec", ["identity", "noise:std=0"])
def test_measurements_to_which_nothing_happened_are_refused(spec):
    """A run learned from them, for hours, that a tape is as it should be."""
    with pytest.raises(UsageError, match="nothing happened to the measurements"):
        MeasuredClip(clip("m_1"), parse_degradation(spec)).check()
    MeasuredClip(clip("m_1"), parse_degradation("noise:std=1")).check()


def test_masks_that_come_with_the_frames_are_refused():
    given = Degradation(operator=FrameMasks(spec="dust"), noise_std=0.0)
    with pytest.raises(UsageError, match="which pixels are lost in each frame"):
        MeasuredClip(clip("m_1"), given).check()


@pytest.mark.parametrize("method", [Regression(), Adversarial(anchor_weight=0.0)])
def test_what_needs_clean_clips_says_so(tmp_path, method):
    has_teacher = method.needs_prior
    config = (
        taught(tmp_path, method, critic=CriticConfig())
        if has_teacher
        else replace(SMALL, method=method)
    )
    message = f"`{method.name}` learns from clean videos, and there are only measured ones"
    with pytest.raises(UsageError, match=message):
        replace(config, measured_by="identity+noise:std=20")


@pytest.mark.parametrize(
    ("spec", "task"),
    [("identity+noise:std=5", "denoise"), ("blur:sigma=2", "deblur"), ("down:factor=3", "sr"),
     ("blur:sigma=1+down:factor=2", "sr")],
)  # fmt: skip
def test_a_measurement_says_its_task(spec, task):
    assert task_of(parse_degradation(spec)) == task
    assert task in TASKS


@pytest.mark.parametrize("spec", ["mask:keep=0.5,seed=0", "down:factor=2,kernel=area"])
def test_a_crop_of_a_measurement_is_the_measurement_of_a_crop(spec):
    """Without noise and rounding, where the operator looks at no neighbours."""
    video, given, x = measured_clip(spec)
    source = MeasuredVideos([MeasuredClip(video, given)])
    source.seed(3)
    (example,) = source.examples(["any"], crops=[32], frames=2, learned=1)
    y, operator = example.measurement.y, example.measurement.operator
    for first in range(x.shape[1] - 1):
        for top in range(0, 64, 2):
            for left in range(0, 64, 2):
                crop = x[:, first : first + 2, :, top : top + 32, left : left + 32]
                if crop.shape[-2:] == (32, 32):
                    seen = operator.A(crop)
                    if (seen - y).abs().max() < 0.01:
                        return
    pytest.fail("the crop is of no place")


def generator():
    return torch.Generator().manual_seed(0)


def example(operator, noise_std=0.1, size=(48, 48)):
    y = torch.randn(1, 3, 3, *size, generator=generator()).clamp(-1, 1)
    if isinstance(operator, Mask):
        y = operator.A(y)
    given = Degradation(operator=operator, noise_std=noise_std)
    return Example(Measurement(y, given), slice(1, 2), "any")


def test_hidden_pixels_were_measured_and_are_not_shown():
    mask = (torch.rand(1, 1, 48, 48, generator=generator()) < 0.5).float()
    asked = SelfSupervised().question(example(Mask(mask)), generator())
    shown = asked.examples[0].measurement.operator.mask[1:2]
    hidden = asked.hidden[0]
    assert hidden.sum() > 0
    assert (hidden * shown).sum() == 0
    torch.testing.assert_close(hidden + shown, mask)


def test_a_measurement_with_few_known_pixels_still_hides_one():
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 5, 7] = mask[..., 9, 9] = 1
    asked = SelfSupervised().question(example(Mask(mask)), generator())
    assert asked.hidden.sum() >= 1
    assert asked.examples[0].measurement.operator.mask.sum() >= 1


@pytest.mark.parametrize("operator", [Downsample(2), Downsample(4), GaussianBlur(3.0)], ids=repr)
def test_a_small_sharp_measurement_is_degraded_again(operator):
    """A blurred one is sharp when it is a quarter as large."""
    size = operator.measured_size(96, 96)
    asked = SelfSupervised().question(replace(example(operator, size=size), task="sr"), generator())
    again = asked.examples[0].measurement
    assert asked.x.shape[-2:] == (24, 24)
    assert again.y.shape == again.operator.A(torch.zeros(1, 3, 3, 24, 24)).shape


@pytest.mark.parametrize("noise", ["r2r", "sure"])
def test_what_comes_from_a_file_is_shown_as_a_file_holds_it(noise):
    """A student takes frames beyond black and white for unclipped, and restores them otherwise."""
    one = example(parse_degradation("identity").operator, noise_std=0.3)
    asked = SelfSupervised(noise=noise).question(one, generator())
    for shown in asked.examples:
        assert shown.measurement.y.abs().max() <= 1
    beyond = replace(one, measurement=replace(one.measurement, y=3 * one.measurement.y))
    asked = SelfSupervised(noise=noise).question(beyond, generator())
    assert asked.examples[-1].measurement.y.abs().max() > 3


def test_questions_are_answered_best_by_the_truth():
    """Of every kind of question: a perfect student has a smaller loss than the measurement."""
    x = torch.from_numpy(clip("a_1", size=(48, 48)).frames[:3]).permute(0, 3, 1, 2)[None]
    x = x.float() / 127.5 - 1
    one = torch.full((1, 1, 48, 48), 0.01)
    given = Degradation(operator=parse_degradation("identity").operator, noise_std=0.1)
    measurement = degrade(x, given, generator=generator())

    def made(x_hat):
        return Reconstruction(x_hat, one, one)

    asked = SelfSupervised().question(Example(measurement, slice(1, 2), "denoise"), generator())
    truth, copy = x[:, 1:2], asked.examples[0].measurement.y[:, 1:2]
    assert asked.loss([made(truth)]) < asked.loss([made(copy)])
    stein = SelfSupervised(noise="sure").question(
        Example(measurement, slice(1, 2), "denoise"), generator()
    )
    y, moved = (e.measurement.y[:, 1:2] for e in stein.examples)
    assert stein.loss([made(truth), made(truth)]) < stein.loss([made(y), made(moved)])


@pytest.mark.parametrize(
    "wrong", [{"noise_gain": (0, 1)}, {"hidden": (0.1, 1.0)}, {"noise": "n2n"}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"noise|hidden"):
        SelfSupervised(**wrong)
