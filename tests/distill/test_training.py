"""Stories of a training run: it learns, resumes exactly and keeps validation apart."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from instantvir_distill import distillation, launch
from instantvir_distill.clips import Clip, load_clips, split
from instantvir_distill.config import Phase, StockConfig
from instantvir_distill.data import SAMPLERS, Sampler, _coarse
from instantvir_distill.evaluate import COLUMNS, CROPS, crops, measured, restored
from instantvir_distill.launch import distill
from instantvir_distill.losses import miscalibration, relative_error
from instantvir_distill.methods.base import Example
from instantvir_distill.optimizer import Muon, orthogonalised
from instantvir_distill.parallel import leave, whole
from instantvir_distill.recipes import RECIPES
from instantvir_distill.restorers import FusedRestorer
from instantvir_distill.saved import claim, last_step
from instantvir_distill.scenes import Photo, SceneSource, drawn, load_photos
from instantvir_models.checkpoints.load import load_student
from instantvir_models.errors import CheckpointError, UsageError, VideoOpenError
from instantvir_models.media.round_trip import mpeg, round_trip
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import LOSSY_STD, Degradation, Measurement
from instantvir_models.students.fused import FusedConfig, FusedStudent
from instantvir_models.tasks import TASKS
from tests.media_clips import make_clip
from tests.small_runs import SMALL, clip, trainer


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    clips = [clip("a_1"), clip("b_1", 1)]
    trainer(SMALL, clips, tmp_path / "whole").run()

    first = trainer(SMALL, clips, tmp_path / "cut")
    for _ in range(4):
        first.update()
    first.save()
    trainer(SMALL, clips, tmp_path / "cut").run()

    expected = load_file(tmp_path / "whole" / "student.safetensors")
    actual = load_file(tmp_path / "cut" / "student.safetensors")
    assert expected.keys() == actual.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def test_an_embedded_student_is_shared_out_too(tmp_path):
    """Its weights have channels last, which FSDP2 refuses."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        run = trainer(replace(SMALL, layout="sharded"), [clip("a_1")], tmp_path / "run")
        before = whole(run.objective.student.head.weight).clone()
        run.run()
        assert not torch.equal(whole(run.objective.student.head.weight), before)
        assert load_student(str(tmp_path / "run" / "student.safetensors"))
        del run
    finally:
        leave()


def test_training_goes_on_from_given_weights_and_its_result_is_a_model(tmp_path):
    """What a run wrote could not be given to `--model`."""
    first = trainer(SMALL, [clip("a_1")], tmp_path)
    first.save()
    average = first.objective.learners["student"].average
    written = load_student(str(tmp_path / "student.safetensors"))
    for name, tensor in average.items():
        torch.testing.assert_close(written.student.state_dict()[name], tensor, rtol=0, atol=0)

    onward = replace(
        SMALL, student=FusedConfig(), initial_weights=str(tmp_path / "student.safetensors")
    )
    second = trainer(onward, [clip("a_1")], tmp_path / "onward")
    student = second.objective.student
    assert student.config == SMALL.student
    for name, tensor in average.items():
        torch.testing.assert_close(student.state_dict()[name], tensor, rtol=0, atol=0)
    second.update()
    assert not torch.equal(student.head.weight, written.student.head.weight)


def test_a_branch_is_added_to_a_student_and_learns_alone(tmp_path):
    first = trainer(SMALL, [clip("a_1")], tmp_path)
    first.save()
    average = first.objective.learners["student"].average
    config = replace(
        RECIPES["enlarge"](),
        student=FusedConfig(enlarger_layers=1, enlarger_channels=8),
        initial_weights=str(tmp_path / "student.safetensors"),
        phases=(Phase(steps=2, crop=32, frames=1, samples=2),),
    )
    branch = trainer(config, [clip("a_1")], tmp_path / "branch")
    student = branch.objective.student
    before = student.enlarger.head.weight.detach().clone()
    branch.run()
    for name, tensor in average.items():
        torch.testing.assert_close(student.state_dict()[name], tensor, rtol=0, atol=0)
    assert not torch.equal(student.enlarger.head.weight, before)


@pytest.mark.parametrize("recipe", ["refine", "enlarge", "calibrate"])
def test_a_recipe_goes_on_from_the_embedded_student(tmp_path, recipe):
    """Its branch for enlargement gets no gradient in a step without enlargement by four."""
    config = RECIPES[recipe]()
    small = replace(config.phases[0], steps=2, crop=64, frames=3, samples=2)
    config = replace(config, workers=1, phases=(small,), mix=config.mix[:1])
    run = trainer(config, [clip("a_1")], tmp_path)
    student = run.objective.student
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    run.run()
    changed = {n for n, w in student.named_parameters() if not torch.equal(w, before[n])}
    assert changed
    assert all(name.startswith(config.learned) for name in changed)


def _wait_until(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_workers_end_when_the_run_is_killed(tmp_path):
    """They trained on, and a second run in the same folder then wrote over them.

    torch sends them SIGINT, which what a shell starts in the background ignores.
    """
    script = (
        "import os, pathlib, sys, time; sys.path[:0] = sys.argv[2].split(os.pathsep)\n"
        "from instantvir_distill import launch\n"
        "launch._given = lambda *_: []\n"
        "if __name__ == '__main__':\n"
        "    from instantvir_distill.recipes import tiny\n"
        "    launch._check = lambda *_: None\n"
        "    launch.distill(tiny(), clips=pathlib.Path(sys.argv[1]), folder=pathlib.Path(sys.argv[1]))\n"
        "else:\n"
        "    def forever(*a):\n"
        "        pid = pathlib.Path(sys.argv[1], 'pid-' + os.environ['RANK'])\n"
        "        pid.write_text(str(os.getpid()))\n"
        "        time.sleep(600)\n"
        "    launch.run_worker = forever\n"
    )
    (tmp_path / "run.py").write_text(script)
    roots = os.pathsep.join(map(str, (Path(p).resolve() for p in sys.path if p)))
    run = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path, roots],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        assert _wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
        assert all(map(_is_running, pids))
    finally:
        run.kill()
        run.wait()
    assert _wait_until(lambda: not any(map(_is_running, pids)), 20)


LAUNCHED = """
import os, signal, sys, time
sys.path[:0] = sys.argv[2].split(os.pathsep)
from dataclasses import replace
from pathlib import Path
from instantvir_distill import launch, trainer
from tests.small_runs import SMALL

trainer.SAVE_EVERY_SECONDS = 1000 if sys.argv[3] == "interrupted" else 0
folder = Path(sys.argv[1])
first = trainer.Trainer.update

def update(self):
    if sys.argv[3] == "killed" and self.step == 3 and os.environ["RANK"] == "1":
        if not (folder / "was-killed").exists():
            (folder / "was-killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3] == "gives up" and self.step == 3 and os.environ["RANK"] == "1":
        with (folder / "tries-1").open("a") as tries:
            tries.write(".")
        raise trainer.TrainingError("the loss is nan")
    if sys.argv[3] == "interrupted" and self.step == 3 and os.environ["RANK"] == "0":
        if not (folder / "was-interrupted").exists():
            (folder / "was-interrupted").touch()
            os.kill(os.getppid(), signal.SIGINT)
            while not self._is_asked_to_stop():
                time.sleep(0.05)
    return first(self)

trainer.Trainer.update = update
if __name__ == "__main__":
    config = replace(SMALL, workers=2)
    launch.distill(config, clips=folder.parent / "clips", folder=folder)
"""


def _launched(tmp_path, name, *command):
    (tmp_path / "run.py").write_text(LAUNCHED)
    roots = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
    made = subprocess.run(
        [sys.executable, *command, tmp_path / "run.py", tmp_path / name, roots, name],
        capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": roots},
    )  # fmt: skip
    return made


def _weights(tmp_path, name, made):
    assert made.returncode == 0, made.stderr
    return load_file(tmp_path / name / "student.safetensors")


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("killed", ()),
        pytest.param("torchrun", TORCHRUN, marks=pytest.mark.slow),
        pytest.param("killed", (*TORCHRUN, "--max-restarts=2"), marks=pytest.mark.slow),
    ],
)
def test_workers_come_to_the_same_when_one_is_killed_or_torchrun_starts_them(
    tmp_path, name, command
):
    (tmp_path / "clips").mkdir()
    for clip_name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / "clips" / clip_name, width=80, height=64)
    whole = _weights(tmp_path, "whole", _launched(tmp_path, "whole"))
    made = _launched(tmp_path, name, *command)
    other = _weights(tmp_path, name, made)
    assert (tmp_path / name / "was-killed").exists() == (name == "killed")
    said = "a worker died; all begin again after step 3" in made.stderr
    assert said == (name == "killed")
    for weight, value in whole.items():
        torch.testing.assert_close(other[weight], value, rtol=0, atol=0)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_all_steps_so_far(tmp_path):
    """What came after the last checkpoint was lost, in the first two minutes all."""
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4", width=80, height=64)
    whole = _weights(tmp_path, "whole", _launched(tmp_path, "whole"))
    stopped = _launched(tmp_path, "interrupted")
    assert stopped.returncode != 0
    assert "4 of 6 steps are kept" in stopped.stderr
    assert last_step(tmp_path / "interrupted") == 4
    other = _weights(tmp_path, "interrupted", _launched(tmp_path, "interrupted"))
    for weight, value in whole.items():
        torch.testing.assert_close(other[weight], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    "command", [(), pytest.param((*TORCHRUN, "--max-restarts=2"), marks=pytest.mark.slow)]
)
def test_a_worker_that_gives_up_alone_ends_the_run_and_is_heard(tmp_path, command):
    """The others waited for it for ever."""
    (tmp_path / "clips").mkdir()
    for clip_name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / "clips" / clip_name, width=80, height=64)
    made = _launched(tmp_path, "gives up", *command)
    assert made.returncode == 1
    assert "TrainingError: the loss is nan" in made.stderr
    assert command or "failed (exitcode" not in made.stderr  # what torch has to say
    assert (tmp_path / "gives up/tries-1").read_text() == "."


def test_training_lowers_the_loss_on_one_example(tmp_path):
    config = replace(SMALL, warmup_steps=1)
    run = trainer(config, [clip("a_1")], tmp_path)
    run.objective.prepare(0)
    run.objective.prepare = lambda step: None
    losses = []
    for _ in range(25):
        run.step = 0  # at the full rate
        losses.append(sum(run.update().values()))
    assert losses[-1] < 0.9 * losses[0]


def test_the_configuration_is_saved_beside_the_weights(tmp_path):
    claim(SMALL, tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["phases"][0]["crop"] == 24
    assert stored["method"]["name"] == "regression"
    assert stored["student"]["fine_channels"] == 16


def test_the_split_is_by_source():
    training, validation = split([clip("cat_01"), clip("cat_02"), clip("dog_01")], ["cat"])
    assert [c.name for c in training] == ["dog_01"]
    assert [c.name for c in validation] == ["cat_01", "cat_02"]


def test_every_task_falls_to_every_worker(monkeypatch):
    """Tasks were pinned to workers, and the one that wrote the log never saw one of them."""
    mix = RECIPES["tiny"]().mix
    monkeypatch.setattr(distillation, "world_size", lambda: 2)
    seen: list[set[str]] = []
    for rank in (0, 1):
        monkeypatch.setattr(distillation, "rank", lambda rank=rank: rank)
        seen.append({task for step in range(24) for task in distillation.dealt(mix, 4, step, 0)})
    assert seen == [set(TASKS), set(TASKS)]


def test_a_step_with_a_sudden_gradient_is_left_out(tmp_path):
    run = trainer(SMALL, [clip("a_1")], tmp_path)
    learner = run.objective.learners["student"]
    learner.norms.extend([1e-9] * 30)
    before = run.objective.student.head.weight.detach().clone()
    run.update()
    assert learner.spikes == 1
    assert torch.equal(run.objective.student.head.weight, before)


def test_the_rate_warms_up_stays_and_falls():
    config = replace(SMALL, phases=(Phase(steps=100, crop=24, frames=3),), warmup_steps=10)
    rates = [config.rate_at(step) for step in (0, 9, 30, 65, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.505, 0.01])


def test_photos_move_and_drawings_are_drawn():
    rng = np.random.default_rng(0)
    picture = clip("a_1").frames[0]
    photo = Photo("p", (np.tile(picture, (4, 4, 1)), np.tile(picture, (2, 2, 1))))
    scenes = SceneSource([clip("a_1")], [photo])
    for _ in range(12):
        assert scenes.sample(rng, crop=32, frames=3).shape == (3, 32, 32, 3)
    seen = scenes._seen(rng, 32, 3)
    assert not np.array_equal(seen[0], seen[2])
    assert drawn(rng, 32, 3).std() > 0


def test_validation_measures_every_column():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 120, 208, 3), dtype=np.uint8)
    clips = [Clip(name, frames) for name, _ in CROPS]
    _, x = next(crops(clips, frames=2))
    student = FusedStudent(SMALL.student).eval()
    for column in COLUMNS:
        with torch.inference_mode():
            result, *_ = restored(student, measured(x, column, seed=0), block=3)
        assert result.shape == x.shape


def test_the_recipe_holds_clips_back_and_never_trains_on_unknown_licences():
    config = RECIPES["tiny"]()
    assert {"mdn_bug", "sam2_"} <= set(config.validation_sources)  # their terms are not stated
    assert config.steps == sum(phase.steps for phase in config.phases)


def test_every_task_has_a_sampler():
    assert set(TASKS) <= set(SAMPLERS)


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_reproducible_and_fit_their_operator(task):
    def draw():
        sampler = Sampler([clip("a_1"), clip("b_1", 1)], lossy_fraction=0.0)
        sampler.seed(3, 1, 4)
        return [sampler.sample(task, crop=24, frames=3) for _ in range(6)]

    for one, two in zip(draw(), draw(), strict=True):
        torch.testing.assert_close(one.measurement.y, two.measurement.y, rtol=0, atol=0)
        assert one.x.shape == (1, 3, 3, 24, 24)
        assert one.measurement.operator.A(one.x).shape == one.measurement.y.shape
        assert one.x.abs().max() <= 1


def test_what_a_codec_added_is_told_as_noise():
    """Told only the noise before the codec, a student left what the codec had added."""
    sampler = Sampler([clip("a_1")], lossy_fraction=1.0)
    errors, told = [], []
    for seed in range(8):
        sampler.seed(seed)
        sample = sampler.sample("denoise", crop=32, frames=3)
        assert sample.measurement.degradation.is_lossy
        error = sample.measurement.y - sample.x
        errors.append(float(error.square().mean()))
        told.append(sample.measurement.noise_std**2 + LOSSY_STD**2)
    off = np.log(np.array(told) / np.maximum(errors, LOSSY_STD**2)) / 2
    assert np.abs(off).max() < 0.8
    assert np.abs(off).mean() < 0.3


@pytest.mark.parametrize("encoder", ["mpeg2video", "mpeg4", "mjpeg"])
def test_a_coarser_codec_takes_more(encoder):
    frames = clip("a_1").frames[:4]
    fine, coarse = (
        np.square(round_trip(frames, mpeg(encoder, quantiser)).astype(float) - frames).mean()
        for quantiser in (2, 24)
    )
    assert 0 < fine < coarse


def test_coarse_noise_keeps_its_strength_and_loses_its_fineness():
    white = torch.randn(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    coarse = _coarse(white, 1.0)
    assert float(coarse.std()) == pytest.approx(float(white.std()), rel=1e-4)
    assert (coarse[..., 1:] - coarse[..., :-1]).std() < 0.8 * coarse.std()


def test_frames_that_nothing_depends_on_are_not_fused(monkeypatch):
    student = FusedStudent(SMALL.student)
    seen = []
    start = student.start
    monkeypatch.setattr(
        student,
        "start",
        lambda block, state: seen.append(block.x_init.shape[1]) or start(block, state),
    )
    y = torch.zeros(1, 6, 3, 16, 16)
    measurement = Measurement(y, Degradation(operator=Identity(), noise_std=0.1))
    for last in (1, 3, 4):
        example = Example(measurement, slice(last - 1, last), "denoise")
        FusedRestorer(student, dtype=torch.float32)([example])
    assert seen == [3, 3, 6]


def test_a_folder_without_clips_is_named(tmp_path):
    with pytest.raises(VideoOpenError, match="no video in"):
        load_clips(tmp_path, cache=tmp_path / "cache")
    with pytest.raises(VideoOpenError, match="there is no"):
        load_clips(tmp_path / "nowhere", cache=tmp_path / "cache")
    with pytest.raises(VideoOpenError, match=r"no \.jpg in"):
        load_photos(tmp_path)


def test_the_loss_is_one_where_nothing_was_gained():
    x = torch.zeros(1, 2, 3, 4, 4)
    noise = 0.1 * torch.ones_like(x)
    assert relative_error(x + noise, x, variance=0.1**2).item() == pytest.approx(1, abs=1e-3)
    assert relative_error(x + noise / 2, x, variance=0.1**2).item() == pytest.approx(0.5, abs=1e-3)


def test_calibration_is_best_at_the_true_error():
    squared_error = torch.tensor([1.0, 3.0])
    costs = [miscalibration(squared_error, torch.tensor(v)).item() for v in (1.0, 2.0, 4.0)]
    assert costs[1] < min(costs[0], costs[2])


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
def test_orthogonalised_brings_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix, steps=7))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_finds_the_minimum_of_a_quadratic():
    goal = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(6, 6))
    optimizer = Muon([weight], lr=0.1)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - goal).square().sum().backward()
        optimizer.step()
    assert (weight - goal).abs().max() < 0.1


def test_clips_that_are_too_small_are_named_before_anything_starts(tmp_path, caplog, monkeypatch):
    """One short clip among many ended the run, and the next one the next run."""
    folder = tmp_path / "clips"
    folder.mkdir()
    make_clip(folder / "short.mp4", width=64, height=64, num_frames=3)
    make_clip(folder / "small.mp4", width=64, height=32, num_frames=9)
    with pytest.raises(
        UsageError, match=r"no clip is long and large enough: .* `short` has 3 frames"
    ):
        distill(RECIPES["tiny"](), clips=folder, folder=tmp_path / "run")

    class BeginsError(Exception):
        pass

    def begins(config, training, folder):
        assert [clip.name for clip in training] == ["enough"]
        raise BeginsError

    monkeypatch.setattr(launch, "_say_what_begins", begins)
    make_clip(folder / "enough.mp4", width=104, height=96, num_frames=9)
    with caplog.at_level(logging.WARNING), pytest.raises(BeginsError):
        distill(RECIPES["tiny"](), clips=folder, folder=tmp_path / "run")
    told = "left out 2 of 3 clips, which have less than 9 frames of 96x96: `short`, `small`"
    assert told in caplog.text


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"initial_weights": "gone.safetensors"}, CheckpointError, "gone"),
        ({"initial_weights": "."}, CheckpointError, "holds no checkpoint"),
        (
            {"stock": StockConfig(), "device": "cuda", "phases": SMALL.phases[:1]},
            UsageError,
            "a card",
        ),
    ],
)
def test_what_is_not_there_is_told_before_clips_are_decoded(changed, kind, message, tmp_path):
    """Workers found out one by one, and those without a card in a traceback, three times over."""
    make_clip(tmp_path / "a.mp4", width=64, height=64)
    with pytest.raises(kind, match=message):
        distill(replace(SMALL, **changed), clips=tmp_path, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_photos_as_cameras_name_them_are_found(tmp_path):
    for name in ("a.JPG", "b.jpeg", "c.jpg", "d.txt"):
        cv2.imwrite(str(tmp_path / "x.jpg"), np.zeros((16, 16, 3), np.uint8))
        (tmp_path / "x.jpg").rename(tmp_path / name)
    assert [photo.name for photo in load_photos(tmp_path)] == ["a", "b", "c"]
