"""The suite of real files: everybody is told what is found, and what is better left is left."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from instantvir_models.metrics.fidelity import psnr
from instantvir_models.solvers.registry import named_solver
from instantvir_models.suite.clips import bundled_clips
from instantvir_models.suite.kinds import KINDS
from instantvir_models.suite.peers import Peer
from instantvir_models.suite.real import REAL_KINDS, REAL_TASKS, real_case_of
from instantvir_models.suite.results import SuiteReceipt, SuiteSolver
from instantvir_models.suite.runner import SuitePlan, run_suite
from instantvir_models.suite.systems import CLASSICAL, STUDENT, Made, System
from instantvir_models.suite.tables import markdown, means

RECEIPT = SuiteReceipt(
    command="instantvir benchmark --suite real", instantvir="1", python="3", torch="2", cpu="x",
    cores=2, threads=1, seed=0, started="2026-01-01T00:00:00+00:00",
)  # fmt: skip

TASKS = {task.name: task for task in REAL_TASKS}


@pytest.fixture(scope="module")
def clip():
    return bundled_clips()[0]


def test_kinds_whose_truth_is_the_clip_take_part():
    assert len(REAL_KINDS) == len(KINDS) - 3
    assert not {"interlaced", "cartoon crf 28", "screen crf 28"} & {*REAL_KINDS}


def test_a_noisy_file_is_told_as_noisy(clip):
    case = real_case_of(TASKS["lossless noise 10"], clip, 0)
    assert case.y.shape == clip.frames.shape
    assert 15 < psnr(case.y, clip.frames).mean() < 30
    assert case.measurement.noise_std > 0
    assert not case.is_unchanged
    assert case.told == case.measurement.degradation.spec


def test_the_same_seed_makes_the_same_file_and_it_is_made_once(clip):
    task = TASKS["phone at night"]
    case = real_case_of(task, clip, 0)
    assert real_case_of(task, clip, 0) is case
    again, other = (real_case_of.__wrapped__(task, clip, seed) for seed in (0, 1))
    assert np.array_equal(again.y, case.y)
    assert not np.array_equal(other.y, case.y)


def test_a_small_file_is_enlarged_by_the_factor(clip):
    case = real_case_of(TASKS["x2 bicubic"], clip, 0)
    assert case.y.shape[1:3] == (clip.size[0] // 2, clip.size[1] // 2)
    assert case.measurement.operator.traits.scale == 2


def test_a_suite_of_real_files(tmp_path, clip):
    """Peers are given the file itself; a clean one is left by everybody, at no cost."""
    about = SuiteSolver(name=STUDENT, about="x", family=CLASSICAL)
    copying = "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])"
    plan = SuitePlan(
        name="real",
        clips=(replace(clip, frames=clip.frames[:3]),),
        systems=(System(about, lambda _: Made(named_solver("map")), 0),),
        peers=(Peer("copy", (sys.executable, "-c", copying, "{in}", "{out}")),),
        tasks=(TASKS["clean lossless"], TASKS["mjpeg webcam q18 noise 6"]),
        make_case=real_case_of,
    )
    suite = run_suite(plan, tmp_path, RECEIPT, say=lambda text: None)
    assert suite.is_complete
    assert suite.measured[0].told == "nothing"
    left = suite.row(STUDENT, "clean lossless", clip.name)
    assert left.metrics["psnr"] == 100
    assert left.cpu_seconds_per_frame == 0
    copied = suite.row("copy", "mjpeg webcam q18 noise 6", clip.name)
    assert copied.metrics["psnr"] == pytest.approx(suite.measured[1].metrics["psnr"])
    assert all(mean.psnr_ahead is not None for mean in means(suite))
    text = markdown(suite)
    assert "What the papers say" not in text
    assert f"Found: {clip.name} `{suite.measured[1].told}`" in text


def test_dust_is_told_with_each_frame(clip):
    case = real_case_of(TASKS["film grain and dust"], clip, 0)
    if "dust" in case.told:
        assert case.known.shape == case.y.shape[:3]
        assert not np.all(case.known)
