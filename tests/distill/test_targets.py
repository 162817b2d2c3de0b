"""Examples that come again: the teacher is asked once, and nothing else is different."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from instantvir_distill.config import CriticConfig, StockConfig
from instantvir_distill.distillation import in_epoch
from instantvir_distill.launch import Material, distill, objective_of
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.released import Released
from instantvir_distill.methods.summed import Summed
from instantvir_distill.targets import KeptTargets, fingerprint
from instantvir_distill.trainer import Trainer
from instantvir_models.checkpoints.prior import save_prior
from instantvir_models.errors import UsageError
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.mask import GuessedMask, Mask
from instantvir_models.operators.measurement import Degradation, Measurement
from tests.media_clips import make_clip
from tests.small_runs import SMALL, clip, small_prior, trainer


def config(tmp_path, **settings):
    """Four steps of one size, the examples of two of them."""
    teacher = tmp_path / "prior.safetensors"
    if not teacher.exists():
        save_prior(small_prior(), teacher)
    phase = replace(SMALL.phases[0], steps=4)
    wanted = {"method": Amortise(), "epoch_steps": 2, "phases": (phase,), **settings}
    return replace(SMALL, teacher=str(teacher), **wanted)


def kept_run(config, folder, targets):
    """A trainer whose targets are kept."""
    clips = [clip("a_1")]
    material = Material(clips=folder, targets=targets)
    return Trainer(config, objective_of(config, material, clips), folder)


def made(folder):
    return load_file(folder / "student.safetensors")


@pytest.fixture
def asked(monkeypatch):
    """How often a teacher was asked for a target."""
    times = []
    target = Amortise.target

    def counted(self, prior, measurement):
        times.append(measurement)
        return target(self, prior, measurement)

    monkeypatch.setattr(Amortise, "target", counted)
    return times


KEEPING = {
    "amortise": {"method": Amortise()},
    "by_task": {"method": ByTask(others=Amortise())},
    "sum": {"method": Summed(), "critic": CriticConfig()},
}


@pytest.mark.parametrize("name", KEEPING)
def test_a_run_that_keeps_targets_equals_one_that_asks_anew(tmp_path, name, asked):
    wanted = config(tmp_path, **KEEPING[name])
    trainer(wanted, [clip("a_1")], tmp_path / "anew").run()
    anew = len(asked)
    asked.clear()
    kept_run(wanted, tmp_path / "kept", tmp_path / "targets").run()
    assert anew == 16
    assert len(asked) == 8  # four examples of two steps
    expected, actual = made(tmp_path / "anew"), made(tmp_path / "kept")
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def test_frames_are_encoded_once(tmp_path):
    """The published sum compares latents of the clean and of the measured video with each output's."""
    wanted = config(tmp_path, method=Released(), critic=CriticConfig())
    trainer(wanted, [clip("a_1")], tmp_path / "anew").run()
    kept_run(wanted, tmp_path / "kept", tmp_path / "targets").run()
    assert len(files(tmp_path / "targets")) == 16  # two of each of four examples of two steps
    expected, actual = made(tmp_path / "anew"), made(tmp_path / "kept")
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def test_another_run_asks_nothing_that_was_asked_before(tmp_path, asked):
    targets = tmp_path / "targets"
    kept_run(config(tmp_path), tmp_path / "one", targets).run()
    asked.clear()
    other = config(tmp_path, method=Amortise(powers={"sr": 0.25}), muon_lr=0.001)
    kept_run(other, tmp_path / "two", targets).run()
    assert not asked
    kept_run(config(tmp_path, method=Amortise(levels=(0.1,))), tmp_path / "three", targets).run()
    assert len(asked) == 8


def test_a_run_that_is_resumed_in_a_later_epoch_equals_the_uninterrupted_one(tmp_path):
    wanted = config(tmp_path)
    kept_run(wanted, tmp_path / "whole", tmp_path / "targets").run()
    first = kept_run(wanted, tmp_path / "cut", tmp_path / "others")
    for _ in range(3):
        first.update()
    first.save()
    kept_run(wanted, tmp_path / "cut", tmp_path / "others").run()
    expected, actual = made(tmp_path / "whole"), made(tmp_path / "cut")
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def test_every_epoch_has_the_examples_of_the_first_in_an_order_of_its_own():
    epochs = [[in_epoch(40 * e + i, 40, 7) for i in range(40)] for e in range(4)]
    assert epochs[0] == list(range(40))
    assert all(sorted(epoch) == epochs[0] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [in_epoch(step, 0, 7) for step in (0, 1, 10**6)] == [0, 1, 10**6]


def measured(seed=0, operator=None, **degradation):
    y = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    settings = {"operator": operator or GaussianBlur(1.0), "noise_std": 0.1, **degradation}
    return Measurement(y, Degradation(**settings))


def half(seed):
    kept = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) < 0.5
    return Mask(kept.float())


def guessed():
    """Leaves out what `half(0)` does, and shows a guess there."""
    mask = half(0)
    return GuessedMask(mask.mask, 1 - mask.mask, spec=mask.spec)


def test_what_decides_a_target_decides_its_name(tmp_path):
    """Two masks have one specification, and the pixels that they leave out may be black anyway."""
    black = torch.zeros(1, 2, 3, 16, 16)
    asked_about = [
        ("a", "how", measured()),
        ("b", "how", measured()),
        ("a", "else", measured()),
        ("a", "how", measured(seed=1)),
        ("a", "how", measured(noise_std=0.2)),
        ("a", "how", measured(is_lossy=True)),
        ("a", "how", measured(operator=GaussianBlur(1.5))),
        ("a", "how", Measurement(black, Degradation(operator=half(0), noise_std=0.1))),
        ("a", "how", Measurement(black, Degradation(operator=half(1), noise_std=0.1))),
        ("a", "how", measured(operator=half(0))),
        ("a", "how", measured(operator=guessed())),
    ]
    for number, (teacher, how, measurement) in enumerate(asked_about * 2):
        keep = KeptTargets(tmp_path, teacher)
        number %= len(asked_about)
        found = keep(how, measurement, lambda n=number: torch.full((1, 2, 3, 16, 16), float(n)))
        assert float(found.mean()) == number


def test_a_damaged_target_is_made_again(tmp_path):
    keep = KeptTargets(tmp_path, "a")
    truth = torch.rand(1, 2, 3, 16, 16)
    keep("how", measured(), lambda: truth)
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    for damaged in (whole[:-1000], b"", whole[:-5] + b"\x42" + whole[-4:]):
        path.write_bytes(damaged)
        torch.testing.assert_close(keep("how", measured(), lambda: truth), truth, rtol=0, atol=0)
        assert path.read_bytes() == whole


def test_a_teacher_is_known_by_all_its_files(tmp_path):
    folder = tmp_path / "teacher"
    (folder / "runs").mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    first = fingerprint(folder)
    (folder / "runs" / "log").write_bytes(b"changes all the time, and is no part of it")
    assert fingerprint(folder) == first
    (folder / "prompt").write_bytes(b"sea")
    second = fingerprint(folder)
    (folder / "prompt").write_bytes(b"sky")
    assert len({first, second, fingerprint(folder)}) == 3
    assert fingerprint(folder / "weights") == fingerprint(folder / "weights")


def test_what_cannot_be_kept_is_said_once_and_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    keep = KeptTargets(tmp_path / "file" / "targets", "a")
    for seed in range(3):
        assert float(keep("how", measured(seed), lambda: torch.ones(1))) == 1
    (said,) = [row.message for row in caplog.records if row.levelname == "WARNING"]
    assert "not kept: cannot write" in said


def test_a_run_keeps_its_targets_and_another_takes_them(tmp_path):
    """Two workers each, as the command starts them."""
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4", width=80, height=64)
    wanted = config(tmp_path, workers=2)
    distill(wanted, clips=tmp_path / "clips", folder=tmp_path / "one")
    kept = files(tmp_path / "one" / "targets")
    assert len(kept) == 8  # four examples of two steps
    targets = tmp_path / "one" / "targets"
    distill(wanted, clips=tmp_path / "clips", folder=tmp_path / "two", targets=targets)
    assert files(targets) == kept
    assert not (tmp_path / "two" / "targets").exists()


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_targets_that_nobody_would_keep_are_refused(tmp_path):
    anew = config(tmp_path, epoch_steps=0)
    clean = replace(config(tmp_path), method=Regression(), teacher=None)
    for wanted in (anew, clean):
        with pytest.raises(UsageError, match="no target is kept"):
            distill(wanted, clips=tmp_path, folder=tmp_path / "run", targets=tmp_path / "targets")


def test_a_stock_has_no_epochs():
    with pytest.raises(UsageError, match="would have no effect"):
        replace(SMALL, phases=SMALL.phases[:1], stock=StockConfig(), epoch_steps=5)
