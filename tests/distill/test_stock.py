"""Examples on a card: what is learned from a stock is what would be learned from each example."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from instantvir_distill.config import Phase, StockConfig
from instantvir_distill.data import ENLARGEMENT_BELOW_4, ENLARGEMENT_BY_4, Sampler
from instantvir_distill.launch import distill
from instantvir_distill.methods.base import Networks
from instantvir_distill.methods.regression import Regression
from instantvir_distill.recipes import RECIPES
from instantvir_distill.restorers import FusedRestorer
from instantvir_distill.saved import load_checkpoint, save_checkpoint
from instantvir_distill.sources import CleanVideos
from instantvir_distill.stock import (
    PLANES,
    SYMMETRIES,
    Makers,
    Prepared,
    Stock,
    consistent,
    loss_of,
    prepared,
    turned,
)
from instantvir_distill.stocked import Stocked
from instantvir_distill.trainer import Trainer
from instantvir_models.checkpoints.load import load_student
from instantvir_models.errors import UsageError
from instantvir_models.students.fused import FusedConfig, FusedStudent
from tests.media_clips import make_clip
from tests.small_runs import clip

TASKS = ("denoise", "inpaint", "inpaint", "deblur", ENLARGEMENT_BELOW_4, "denoise")


def student(**size):
    torch.manual_seed(0)
    made = FusedStudent(FusedConfig(fine_channels=8, coarse_channels=8, bottom_channels=8, **size))
    for weight in made.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    return made


def examples(tasks, *, seed=0, crop=48):
    source = CleanVideos(Sampler([clip("a_1"), clip("b_1", 1)], lossy_fraction=0.2))
    source.seed(seed)
    return source.clean_examples(tasks, crops=[crop] * len(tasks), frames=4, learned=2)


@pytest.mark.parametrize("tasks", [TASKS, (ENLARGEMENT_BY_4,) * 3], ids=["network", "branch"])
def test_the_loss_of_a_batch_is_that_of_its_examples(tasks):
    """Batched modes, masks and weights against operators and consistency one by one."""
    is_branch = tasks[0] == ENLARGEMENT_BY_4
    learner = student(enlarger_layers=int(is_branch), enlarger_channels=8)
    method = Regression(powers={"denoise": 0.25})
    for seed in range(3):
        given = examples(tasks, seed=seed)
        restore = FusedRestorer(learner, dtype=torch.float32)
        expected = method.loss(given, Networks(restore), torch.Generator())
        powers = [method.power(task) for task in tasks]
        batch = prepared(given, learner, powers=powers, tasks=range(len(tasks)))
        found = loss_of(learner, batch, calibration_weight=method.calibration_weight)
        torch.testing.assert_close(
            found.by_example, torch.stack(expected.by_example), rtol=5e-3, atol=5e-3
        )
        torch.testing.assert_close(found.total, expected.total, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_what_is_turned_stays_consistent_with_what_was_measured(symmetry):
    learner = student()
    batch = prepared(examples(TASKS), learner, powers=[0.5] * len(TASKS), tasks=range(len(TASKS)))
    x_hat = batch.planes("x") + 0.1 * torch.randn(batch.planes("x").shape)
    variance = torch.full((len(TASKS),), 0.01)
    colours = (2, 0, 1)
    whole = replace(
        batch, pictures=torch.cat([x_hat.half(), batch.pictures[:, :, PLANES["x_init"].start :]], 2)
    )
    seen = turned(whole, symmetry, colours)
    made = consistent(seen.planes("x"), seen, variance)
    expected = consistent(whole.planes("x"), whole, variance)
    as_before = replace(
        whole,
        pictures=torch.cat([expected.half(), whole.pictures[:, :, PLANES["x_init"].start :]], 2),
    )
    again = turned(as_before, symmetry, colours).planes("x")
    torch.testing.assert_close(made, again, rtol=0, atol=4e-3)
    assert symmetry == 0 or not torch.allclose(again, expected, atol=0.05)


def test_a_stock_keeps_the_newest_and_draws_all_of_them():
    learner, stock = student(), Stock(5, torch.device("cpu"))
    for seed in range(4):
        batch = prepared(
            examples(("denoise",) * 2, seed=seed), learner, powers=[1, 1], tasks=[seed] * 2
        )
        stock.add(batch)
        assert len(stock) == min(2 * (seed + 1), 5)
    drawn = stock.drawn(64, np.random.default_rng(0))
    assert set(drawn.task.tolist()) == {1, 2, 3}
    assert len(drawn) == 64


def _broken(seed, place):
    raise ValueError("broken")
    yield


def test_makers_that_die_are_missed():
    makers = Makers(_broken, count=1)

    def wait():
        for _ in range(100):
            makers.next(seconds=0.5)

    with pytest.raises(RuntimeError, match="have died"):
        wait()


def _counted(seed, place):
    """Handfuls that say which they are."""
    for number in range(100 * seed + place, 100 * seed + 100):
        pictures, modes = torch.zeros(1, 1, 18, 8, 8), torch.zeros(1, 8, 8)
        yield Prepared(pictures, torch.zeros(1, 0), modes, torch.full((1, 5), float(number)))


def test_makers_go_on_where_they_were_told_and_know_their_place():
    makers = Makers(_counted, count=1, seed=2, place=40)
    assert [int(makers.next(seconds=60).task) for _ in range(3)] == [240, 241, 242]
    assert makers.place == 43
    makers.close()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_makers_leave_ctrl_c_to_their_worker():
    """They died of it in front of it, and the step that it was about to end was lost."""
    makers = Makers(_counted, count=1)
    makers.next(seconds=60)
    (process,) = makers._processes
    os.kill(process.pid, signal.SIGINT)
    later = [makers.next(seconds=60) for _ in range(20)]
    assert all(handful is not None for handful in later)
    assert process.is_alive()
    makers.close()


class OneAtATime:
    """Makes a handful for each step, in this process, so that all of it belongs to the step."""

    def __init__(self, make, *, count, seed, place):
        self.made, self.place, self.is_due = make(seed, place), place, True

    def next(self, *, seconds):
        self.is_due = not self.is_due
        if self.is_due:
            return None
        self.place += 1
        return next(self.made)

    def close(self):
        pass


def test_a_run_that_goes_on_takes_other_examples_from_where_it_stopped(tmp_path, monkeypatch):
    """With a stock of one handful, new at each step, it comes to the same as the uninterrupted one."""
    monkeypatch.setattr("instantvir_distill.stocked.Makers", OneAtATime)
    monkeypatch.setattr("instantvir_distill.stocked.SEQUENCES_AT_ONCE", 4)
    config = replace(
        RECIPES["tiny-card"](),
        device="cpu",
        student=FusedConfig(fine_channels=8, coarse_channels=8, bottom_channels=8),
        stock=StockConfig(sequences=4, least=4),
        lossy_fraction=0.0,
        phases=(Phase(steps=4, crop=24, frames=3, samples=4, frames_learned=1),),
    )

    def run(folder):
        sampler = Sampler([clip("a_1"), clip("b_1", 1)], lossy_fraction=0.0)
        return Trainer(config, Stocked(config, lambda: CleanVideos(sampler)), tmp_path / folder)

    whole, first = run("whole"), run("parts")
    whole.run()
    for _ in range(2):
        first.update()
    first.save()
    second = run("parts")
    second.run()
    assert whole.objective.makers.place == second.objective.makers.place == 4
    for a, b in zip(*(r.objective.student.parameters() for r in (whole, second)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_checkpoint_without_a_place_begins_with_the_first_examples(tmp_path):
    """Those of 0.5.0."""
    save_checkpoint({"step": torch.tensor(3)}, tmp_path, step=3)
    state = {"step": torch.tensor(0), "place": torch.tensor(0)}
    load_checkpoint(state, tmp_path)
    assert (int(state["step"]), int(state["place"])) == (3, 0)


@pytest.mark.parametrize("recipe", ["tiny-card", "enlarge-card"])
def test_the_recipes_of_a_card_run_on_its_stand_in(tmp_path, recipe):
    (tmp_path / "clips").mkdir()
    for name in ("a_1", "b_1"):
        make_clip(tmp_path / "clips" / f"{name}.mp4", width=64, height=64, num_frames=8)
    config = RECIPES[recipe]()
    first = tmp_path / "first.safetensors"
    if config.initial_weights is not None:
        from instantvir_models.checkpoints.load import save_student

        save_student(student(), first, dtype=torch.float32)
    config = replace(
        config,
        device="cpu",
        initial_weights=str(first) if config.initial_weights else None,
        student=FusedConfig(
            fine_channels=8, coarse_channels=8, bottom_channels=8,
            enlarger_layers=config.student.enlarger_layers and 1, enlarger_channels=8,
        ),
        stock=StockConfig(sequences=40, least=16, makers=1),
        phases=(Phase(steps=3, crop=48, frames=4, samples=8, frames_learned=2),),
    )  # fmt: skip
    made = distill(config, clips=tmp_path / "clips", folder=tmp_path / "run")
    assert load_student(str(made)).student.config == config.student


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stock": None}, "learns from a stock"),
        ({"method": "self_supervised"}, "makes them anew"),
        ({"phases": 2}, "give one phase"),
        ({"method": "self_supervised", "stock": None}, "makes them anew"),
    ],
)
def test_what_does_not_go_with_a_stock_is_said(change, sentence):
    from instantvir_distill.methods.self_supervised import SelfSupervised

    config = RECIPES["tiny-card"]()
    if "method" in change:
        change = {**change, "method": SelfSupervised()}
    if "phases" in change:
        change = {"phases": config.phases * 2}
    with pytest.raises(UsageError, match=sentence):
        replace(config, **change)


def test_network_and_branch_are_not_mixed(tmp_path):
    """Their examples are of different shapes, and ended in an error of torch's."""
    config = replace(
        RECIPES["tiny-card"](), device="cpu", mix=("denoise", "sr"), initial_weights="tiny"
    )
    with pytest.raises(UsageError, match="its branch for x4"):
        Stocked(config, lambda: None)


def test_a_teacher_does_not_train_on_a_card_in_name_only():
    with pytest.raises(UsageError, match="on the CPU"):
        replace(RECIPES["tiny-teacher"](), device="cuda")
