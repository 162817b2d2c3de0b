"""The loop by itself: what is learned here is a line through points."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from instantvir_distill import saved
from instantvir_distill import trainer as loop
from instantvir_distill.config import Phase, RunConfig
from instantvir_distill.launch import _keep_reason, _reason
from instantvir_distill.learner import Learner, Rates
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.parallel import leave, rank, world_size
from instantvir_distill.saved import alone, claim, last_checkpoint, material_changed
from instantvir_distill.trainer import Trainer, TrainingError
from instantvir_models.errors import CheckpointError, UsageError, VideoWriteError
from tests.small_disk import small_disk
from tests.small_runs import SMALL

CONFIG = RunConfig(
    phases=(Phase(steps=12, crop=8, frames=1, samples=4),), workers=1, warmup_steps=2, muon_lr=0.02,
    adam_lr=0.05, spike=math.inf,
)  # fmt: skip


class Net(nn.Module):
    """Two layers, and a branch that not every sample goes through."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.inner = nn.Linear(6, 8)
        self.head = nn.Linear(8, 6)
        self.branch = nn.Linear(6, 6)

    def forward(self, x, *, by_branch=False):
        y = self.head(torch.tanh(self.inner(x)))
        return y + self.branch(x) if by_branch else y


class Fit:
    """Two networks, the second with two updates a step; every worker sees a part of each batch."""

    def __init__(self, *, layout="replicated", wrong_at=None, uses_branch=True):
        self.nets = {"student": Net(), "critic": Net()}
        common = {"muon_lr": 0.02 if layout == "replicated" else 0.0, "adam_lr": 0.05}
        self.learners = {
            "student": Learner(self.nets["student"], Rates(ema_decay=0.9, **common), layout=layout),
            "critic": Learner(
                self.nets["critic"], Rates(updates_per_step=2, **common), layout=layout
            ),
        }
        self.wrong_at, self.uses_branch = wrong_at, uses_branch

    def prepare(self, step):
        self.x = torch.sin(torch.arange(24.0).view(4, 6) * (step + 1))[rank() :: world_size()]

    def ask(self, name, step, update, part):
        # one worker's samples go through the branch, those of the other do not
        by_branch = self.uses_branch and rank() == 0 and step % 2 == 0
        errors = (
            self.nets[name](self.x, by_branch=by_branch) - self.x.cos() * (1 + update)
        ).square()
        loss = errors.mean()
        return (loss * math.nan if step == self.wrong_at else loss, loss)

    def shown(self, name, asked):
        return {name: float(asked[1].detach())}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def write(self, folder):
        average = self.learners["student"].whole_average()
        if rank() == 0:
            torch.save(average, folder / "student.pt")


def weights(folder):
    return torch.load(folder / "student.pt", weights_only=True)


def same(a, b, **tolerance):
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


def test_a_resumed_run_equals_the_uninterrupted_one_for_every_network(tmp_path):
    Trainer(CONFIG, Fit(), tmp_path / "whole").run()
    first = Trainer(CONFIG, Fit(), tmp_path / "cut")
    for _ in range(5):
        first.update()
    first.save()
    second = Trainer(CONFIG, Fit(), tmp_path / "cut")
    second.run()
    same(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)
    whole = Trainer(CONFIG, Fit(), tmp_path / "whole")
    whole.resume()
    for name, net in whole.objective.nets.items():
        same(net.state_dict(), second.objective.nets[name].state_dict(), rtol=0, atol=0)
        one, two = (run.objective.learners[name] for run in (whole, second))
        assert list(one.norms) == list(two.norms)  # what the next spike is told by
        assert len(one.norms) == CONFIG.steps * one.rates.updates_per_step


class Touches:
    """What a pickle can do to whoever reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def begun(folder):
    """A run that has a checkpoint."""
    run = Trainer(CONFIG, Fit(), folder)
    run.update()
    run.save()
    return run


def test_nothing_in_a_checkpoint_is_carried_out(tmp_path):
    """Its index and its numbers are pickles, and did what they said."""
    begun(tmp_path / "index")
    index = last_checkpoint(tmp_path / "index") / ".metadata"
    index.write_bytes(pickle.dumps(Touches(tmp_path / "touched")))
    with pytest.raises(CheckpointError, match=r"cannot be read: it names posix\.mkdir"):
        Trainer(CONFIG, Fit(), tmp_path / "index").run()
    run = begun(tmp_path / "values")
    saved.save_checkpoint(run._state() | {"step": Touches(tmp_path / "touched")},
                          run.folder, step=2)  # fmt: skip
    with pytest.raises(CheckpointError, match="cannot be read"):
        Trainer(CONFIG, Fit(), tmp_path / "values").run()
    assert not (tmp_path / "touched").exists()


def test_checkpoints_that_take_long_are_rare(tmp_path, monkeypatch):
    """Every two minutes, and not while most of the time would go into them."""
    now, saved_at = [0.0], []

    class Slow(Trainer):
        def update(self):
            now[0] += 60
            return super().update()

        def save(self):
            now[0] += 60
            saved_at.append(self.step)

    clock = SimpleNamespace(
        monotonic=lambda: now[0], time=time.time, process_time=time.process_time
    )
    monkeypatch.setattr(loop, "time", clock)
    long = replace(CONFIG, phases=(replace(CONFIG.phases[0], steps=40),))
    Slow(long, Fit(), tmp_path).run()
    assert saved_at == [3, 24, 40]


def test_a_damaged_checkpoint_is_said_to_be_one(tmp_path):
    begun(tmp_path)
    for path in last_checkpoint(tmp_path).iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"step-00000001` cannot be read: ") as caught:
        Trainer(CONFIG, Fit(), tmp_path).run()
    assert caught.value.hint == "remove it, and the run begins again"
    for damaged in (b"", b"text", b"cno_module\nname\n.", b"\x80\x04K\x01K\x02\x86s.", b"]x"):
        (last_checkpoint(tmp_path) / ".metadata").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot be read"):
            Trainer(CONFIG, Fit(), tmp_path).run()


def test_a_finished_run_writes_what_it_made_again(tmp_path):
    Trainer(CONFIG, Fit(), tmp_path).run()
    expected = weights(tmp_path)
    (tmp_path / "student.pt").unlink()
    Trainer(CONFIG, Fit(), tmp_path).run()
    same(expected, weights(tmp_path), rtol=0, atol=0)


BESIDE = replace(CONFIG, saves="beside")


def test_a_checkpoint_written_beside_is_of_the_step_it_was_begun_at(tmp_path, monkeypatch):
    """Training goes on meanwhile, in the same weights."""
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 0)
    Trainer(CONFIG, Fit(), tmp_path / "whole").run()
    first = Trainer(BESIDE, Fit(), tmp_path / "cut")
    for _ in range(5):
        first.update()
    first.save()
    first.update()  # the state that is written must not follow
    first._beside.finish()
    assert last_checkpoint(tmp_path / "cut").name == "step-00000005"
    Trainer(BESIDE, Fit(), tmp_path / "cut").run()
    same(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)
    assert [p.name for p in (tmp_path / "cut/checkpoints").iterdir()] == ["step-00000012"]


def test_a_checkpoint_beside_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    run = Trainer(BESIDE, Fit(), tmp_path)
    run.update()
    run.save()
    run._beside.finish()
    monkeypatch.setattr(saved, "async_save", failed_save)
    run.update()
    run.save()
    with pytest.raises(VideoWriteError, match="step 2 cannot be written: disk full") as caught:
        run._beside.finish()
    assert "step-00000001" in caught.value.hint
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def failed_save(state, **_):
    future = Future()
    future.set_exception(OSError("disk full"))
    return future


@pytest.mark.parametrize(
    ("config", "save_every", "kept"),
    [(CONFIG, 0, 5), (CONFIG, 120, 5), (BESIDE, 0, 4), (BESIDE, 120, None)],
)
def test_a_run_that_is_asked_to_stop_keeps_all_steps_so_far_where_that_is_quick(
    tmp_path, monkeypatch, config, save_every, kept
):
    """Beside, nobody knows how long it takes; what is being written is waited for."""
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", save_every)
    assert Trainer(CONFIG, Fit(), tmp_path / "whole").run()
    looks = iter(range(1, 100))
    stopped = Trainer(
        config, Fit(), tmp_path / "cut", is_asked_to_stop=lambda: next(looks) == 5
    ).run()
    assert not stopped
    last = last_checkpoint(tmp_path / "cut")
    assert (None if last is None else last.name) == (None if kept is None else f"step-{kept:08d}")
    assert Trainer(config, Fit(), tmp_path / "cut").run()
    same(weights(tmp_path / "whole"), weights(tmp_path / "cut"), rtol=0, atol=0)


def test_a_checkpoint_that_would_take_too_long_is_not_begun_at_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", 0)
    monkeypatch.setattr(loop, "LONGEST_LAST_SAVE_SECONDS", 0)
    looks = iter(range(1, 100))
    run = Trainer(CONFIG, Fit(), tmp_path, is_asked_to_stop=lambda: next(looks) == 5)
    assert not run.run()
    assert last_checkpoint(tmp_path).name == "step-00000004"


def test_a_checkpoint_that_was_left_unfinished_makes_room_for_the_next_one(tmp_path):
    """Killed while it was written, each of them stayed: 36 GB for a full-size student."""
    left = tmp_path / "checkpoints" / "step-00000003.part"
    left.mkdir(parents=True)
    (left / "data").write_bytes(b"1")
    run = Trainer(CONFIG, Fit(), tmp_path)
    run.update()
    run.save()
    assert not left.exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_two_workers_write_their_checkpoints_beside(tmp_path):
    mp.spawn(work, args=(2, tmp_path, "sharded", "beside"), nprocs=2)
    Trainer(CONFIG, Fit(layout="sharded", uses_branch=False), tmp_path / "one").run()
    same(weights(tmp_path / "one"), weights(tmp_path), rtol=0, atol=1e-5)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000012"]


def work(number, world, folder, layout, saves="in_turn"):
    torch.set_num_threads(1)
    loop.SAVE_EVERY_SECONDS = 0 if saves == "beside" else loop.SAVE_EVERY_SECONDS
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=world)
    fit = Fit(layout=layout, uses_branch=layout == "replicated")
    Trainer(replace(CONFIG, workers=world, layout=layout, saves=saves), fit, folder).run()
    del fit
    leave()


@pytest.mark.parametrize("layout", ["replicated", "sharded"])
def test_two_workers_equal_one(tmp_path, layout):
    """Gradients are means over workers; a branch that only one of them uses counts as half."""
    (tmp_path / "two").mkdir()
    mp.spawn(work, (2, tmp_path / "two", layout), nprocs=2)

    class Alone(Fit):
        def ask(self, name, step, update, part):
            by = (self.uses_branch and step % 2 == 0, False)
            halves = [
                (self.nets[name](self.x[i::2], by_branch=by[i]) - self.x[i::2].cos() * (1 + update))
                .square()
                .mean()
                for i in (0, 1)
            ]
            return (sum(halves) / 2, halves[0])

    fit = Alone(layout=layout, uses_branch=layout == "replicated")
    Trainer(CONFIG, fit, tmp_path / "one").run()
    same(weights(tmp_path / "two"), weights(tmp_path / "one"), rtol=1e-5, atol=1e-5)
    if layout == "sharded":  # a checkpoint of two workers is that of one
        again = Trainer(CONFIG, Alone(layout=layout, uses_branch=False), tmp_path / "two")
        again.resume()
        assert again.step == CONFIG.steps
        for name, net in again.objective.nets.items():
            same(net.state_dict(), fit.nets[name].state_dict(), rtol=1e-5, atol=1e-5)


def trained_until(number, world, folder, step):
    """As many workers as there happen to be, each with a part of the weights."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / f"store-{step}"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=world)
    config = replace(CONFIG, workers=world, layout="sharded")
    run = Trainer(config, Fit(layout="sharded", uses_branch=False), folder)
    if number == 0:
        saved.claim(config, folder)
    run.resume()
    while run.step < step:
        run.update()
    run.save()
    held = sum(w.to_local().numel() for w in run.objective.nets["student"].parameters())
    assert held == sum(w.numel() for w in run.objective.nets["student"].parameters()) / world
    del run
    leave()


def test_a_run_goes_on_with_fewer_workers_and_with_more_again(tmp_path):
    """It was refused for another number of workers, whatever they hold of the weights."""
    for workers, step in ((2, 4), (1, 8), (2, CONFIG.steps)):
        mp.spawn(trained_until, (workers, tmp_path, step), nprocs=workers)
    assert last_checkpoint(tmp_path).name == f"step-{CONFIG.steps:08d}"
    Trainer(CONFIG, Fit(layout="sharded", uses_branch=False), tmp_path / "one").run()
    same(weights(tmp_path / "one"), weights(tmp_path), rtol=1e-5, atol=1e-5)


def test_weights_in_parts_are_asked_for_by_all_workers_alike():
    """One with a sample more would wait for the others for ever."""
    with pytest.raises(UsageError, match="4 samples of a step are not shared out evenly among 3"):
        replace(CONFIG, workers=3, layout="sharded")


def test_samples_learned_from_in_turn_count_as_if_at_once(tmp_path):
    class InTurn(Fit):
        def ask(self, name, step, update, part):
            whole, self.x = self.x, self.x[2 * part : 2 * part + 2]
            asked = super().ask(name, step, update, part)
            self.x = whole
            return asked

    Trainer(CONFIG, Fit(), tmp_path / "once").run()
    Trainer(replace(CONFIG, accumulate=2), InTurn(), tmp_path / "twice").run()
    same(weights(tmp_path / "once"), weights(tmp_path / "twice"), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="not 3 equal parts"):
        replace(CONFIG, accumulate=3)


def test_a_loss_that_is_no_number_stops_and_names_the_last_good_checkpoint(tmp_path):
    first = Trainer(CONFIG, Fit(), tmp_path)
    for _ in range(3):
        first.update()
    first.save()
    with pytest.raises(
        TrainingError, match=r"training of the student stopped at step 5: the loss is nan"
    ) as stopped:
        Trainer(CONFIG, Fit(wrong_at=5), tmp_path).run()
    assert "step-00000003" in stopped.value.hint
    assert last_checkpoint(tmp_path).name == "step-00000003"


def test_other_settings_are_told_and_the_run_stays_as_it_is(tmp_path):
    Trainer(CONFIG, Fit(), tmp_path).run()
    before = weights(tmp_path)
    other = replace(CONFIG, adam_lr=0.1, phases=(replace(CONFIG.phases[0], steps=14),))
    with pytest.raises(UsageError, match=r"`phases\.0\.steps` was 12 and is 14; `adam_lr`"):
        Trainer(other, Fit(), tmp_path).run()
    same(before, weights(tmp_path), rtol=0, atol=0)


def test_a_run_of_a_version_without_a_setting_goes_on_with_its_usual_value(tmp_path):
    """Every new setting ended the runs that had been begun before."""
    config = replace(SMALL, method=Regression(powers={"sr": 0.25}))
    claim(config, tmp_path)
    Trainer(config, Fit(), tmp_path).save()
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["epoch_steps"], settings["student"]["enlarger_channels"]
    del settings["phases"][1]["samples"], settings["method"]["calibration_weight"]
    for other, said in (
        (replace(config, epoch_steps=5), "`epoch_steps` was 0 and is 5"),
        (replace(config, student=replace(config.student, enlarger_channels=8)), "was 64 and is 8"),
        (replace(config, method=SelfSupervised()), "`method.name` was"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        with pytest.raises(UsageError, match=said):
            claim(other, tmp_path)
    settings["phases"][1]["samples"] = config.phases[1].samples  # else it would be the usual 12
    (tmp_path / "config.json").write_text(json.dumps(settings))
    claim(config, tmp_path)


def test_a_folder_is_for_one_run_at_a_time(tmp_path):
    with (
        alone(tmp_path),
        pytest.raises(UsageError, match="another run is at work"),
        alone(tmp_path),
    ):
        pass
    with alone(tmp_path):
        pass


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"), alone(tmp_path / "file"):
        pass
    with pytest.raises(VideoWriteError, match="cannot be written"), alone(tmp_path / "file/run"):
        pass


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    run = Trainer(CONFIG, Fit(), tmp_path)
    run.update()
    run.save()
    run.update()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "write_state", full)
    with pytest.raises(VideoWriteError, match=r"step 2 cannot be written: .*No space left") as told:
        run.save()
    assert "step-00000001" in told.value.hint
    again = Trainer(CONFIG, Fit(), tmp_path)
    again.resume()
    assert again.step == 1


def test_a_checkpoint_that_was_not_completed_is_none(tmp_path):
    run = Trainer(CONFIG, Fit(), tmp_path)
    run.update()
    run.save()
    (tmp_path / "checkpoints" / "step-00000009.part").mkdir()
    assert last_checkpoint(tmp_path).name == "step-00000001"
    run.update()
    run.save()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


KILLED = """
import sys
from pathlib import Path
from instantvir_distill import trainer
from tests.distill.test_trainer import CONFIG, Fit
trainer.SAVE_EVERY_SECONDS = 0
from dataclasses import replace
config = replace(CONFIG, phases=(replace(CONFIG.phases[0], steps=100000),))
Path(sys.argv[1], "started").touch()
trainer.Trainer(config, Fit(), Path(sys.argv[1])).run()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_run_killed_at_any_moment_goes_on(tmp_path):
    """It saves without a pause, so the signal falls into a checkpoint more often than not."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    steps = []
    for _ in range(2):
        before = last_checkpoint(tmp_path)
        run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
        deadline = time.monotonic() + 240
        while last_checkpoint(tmp_path) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
        config = json.loads((tmp_path / "config.json").read_text())
        phases = (replace(CONFIG.phases[0], steps=config["phases"][0]["steps"]),)
        again = Trainer(replace(CONFIG, phases=phases), Fit(), tmp_path)
        again.resume()
        steps.append(again.step)
    assert 0 < steps[0] < steps[1]
    # and what it went on to is what a run without a stop comes to
    whole = Trainer(replace(CONFIG, phases=phases), Fit(), tmp_path / "whole")
    while whole.step < again.step:
        whole.update()
    for name, net in again.objective.nets.items():
        same(net.state_dict(), whole.objective.nets[name].state_dict(), rtol=0, atol=0)


def test_rows_of_the_log_are_not_written_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("instantvir_distill.trainer.LOG_EVERY_STEPS", 1)
    run = Trainer(CONFIG, Fit(), tmp_path)
    run.update()
    run.save()
    with (tmp_path / "log.jsonl").open("w") as log:
        log.writelines(json.dumps({"step": step}) + "\n" for step in (1, 2, 3))
        log.write('{"step": 4, "cut')
    Trainer(CONFIG, Fit(), tmp_path).run()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, CONFIG.steps + 1))
    assert {"student", "critic", "student_spikes", "critic_norm"} <= set(rows[-1])


def test_a_run_that_goes_on_with_other_clips_says_so(tmp_path):
    """Clips that went, or could not be read this time, were missed in silence."""
    assert material_changed(["a", "a", "b"], has_photos=False, folder=tmp_path) is None
    assert (
        material_changed(["c"], has_photos=True, folder=tmp_path) is None
    )  # nothing was learned yet
    Trainer(CONFIG, Fit(), tmp_path).save()
    told = material_changed(["d"], has_photos=False, folder=tmp_path)
    assert told == "1 clip fewer (`c`), 1 clip more (`d`), no photos"
    assert material_changed(["d"], has_photos=False, folder=tmp_path) is None
    (tmp_path / "material.json").write_text("[")
    assert material_changed(["a"], has_photos=False, folder=tmp_path) is None


def test_a_run_whose_settings_cannot_be_read_does_not_go_on(tmp_path):
    run = Trainer(CONFIG, Fit(), tmp_path)
    run.save()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read, so nothing tells the settings"):
        run.run()


def test_other_settings_are_told_where_they_can_go_on(tmp_path):
    run = Trainer(CONFIG, Fit(), tmp_path)
    run.run()
    (tmp_path / "student.safetensors").touch()
    with pytest.raises(UsageError) as refused:
        claim(replace(CONFIG, seed=3), tmp_path)
    assert f"`--init {tmp_path / 'student.safetensors'}` goes on" in refused.value.hint


def test_a_folder_of_checkpoints_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(VideoWriteError, match="cannot write"):
        Trainer(CONFIG, Fit(), tmp_path).run()


def test_why_a_worker_gave_up_is_whole_or_said(tmp_path, capsys):
    """On a full disk it was an empty file, over which the parent fell."""
    with small_disk(5):
        _keep_reason(tmp_path, TrainingError("no room"))
    assert "no room" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    _keep_reason(tmp_path, TrainingError("no room", hint="make some"))
    assert str(_reason(tmp_path, None)) == "no room"


def test_a_run_that_begins_anew_begins_its_log_anew(tmp_path):
    """Stopped before its first checkpoint it left rows, and the curve went back in time."""
    row = json.dumps({"step": 50, "time": 1.0, "student": 1.0})
    (tmp_path / "log.jsonl").write_text(row + "\n")
    Trainer(CONFIG, Fit(), tmp_path).run()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, CONFIG.steps]


def test_a_network_of_which_nothing_is_learned_is_refused():
    with pytest.raises(UsageError, match="no weight of the student"):
        Learner(Net(), Rates(muon_lr=0.1, adam_lr=0.1), learned="nothing")


def test_the_folder_of_a_run_says_how_it_was_made(tmp_path):
    Trainer(CONFIG, Fit(), tmp_path).run()
    assert json.loads((tmp_path / "config.json").read_text())["adam_lr"] == 0.05
