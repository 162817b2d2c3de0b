"""The suite: every row is kept, what fails is a row, what was interrupted goes on."""

import csv
import io
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.media import EncoderSettings, Frame, create_video
from instantvir_models.metrics.fvd import frechet_distance
from instantvir_models.operators.measurement import Degradation
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.flow import FlowConfig, FlowNetwork, FlowPrior, ImagePrior
from instantvir_models.priors.noise import white
from instantvir_models.solvers.base import Solver
from instantvir_models.solvers.registry import named_solver
from instantvir_models.suite.clips import CleanClip, bundled_clips, clips_of
from instantvir_models.suite.counting import CountedPrior
from instantvir_models.suite.measuring import Meter
from instantvir_models.suite.peers import Peer, PeerError
from instantvir_models.suite.published import published
from instantvir_models.suite.results import SuiteReceipt, SuiteSolver, load_film, load_suite
from instantvir_models.suite.runner import PAPER_TASKS, SuitePlan, case_of, run_suite
from instantvir_models.suite.systems import (
    CLASSICAL,
    ONE_PASS,
    STUDENT,
    Made,
    Priors,
    System,
    open_priors,
    paper_systems,
)
from instantvir_models.suite.tables import (
    cells,
    csv_text,
    floor,
    header,
    losses,
    markdown,
    means,
    true_features,
)

RECEIPT = SuiteReceipt(
    command="instantvir benchmark --suite paper", instantvir="0", python="3", torch="2", cpu="x",
    cores=2, threads=1, seed=0, started="2026-01-01T00:00:00+00:00",
)  # fmt: skip

DENOISE, SR = PAPER_TASKS[0], PAPER_TASKS[2]


def clip(name="a", seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 200, (1, 4, 6, 3), dtype=np.uint8)
    frames = small.repeat(8, 1).repeat(8, 2).repeat(2, 0)
    return CleanClip(name, frames, 25.0)


def system(name, solver, family=CLASSICAL):
    about = SuiteSolver(name=name, about="x", family=family)
    return System(about, lambda _: Made(solver), 0, evaluations_per_frame=0)


@dataclass(frozen=True)
class Crashing(Solver[None]):
    @property
    def frames_per_block(self):
        return 1

    def restore_block(self, window, state):
        raise RuntimeError("out of luck")


@dataclass(frozen=True)
class Interrupting(Crashing):
    def restore_block(self, window, state):
        raise KeyboardInterrupt


def plan(*systems, **changed):
    given = {"name": "paper", "clips": (clip(),), "systems": systems, "tasks": (DENOISE,)}
    return SuitePlan(**given | changed)


def run(wanted, folder):
    said: list[str] = []
    suite = run_suite(wanted, folder, RECEIPT, say=said.append)
    return suite, [sentence for sentence in said if sentence[0].isdigit()]


def initial(name=STUDENT):
    return system(name, named_solver("nlmeans"), ONE_PASS)


def test_every_row_has_measures_cost_and_a_film(tmp_path):
    suite, said = run(plan(initial(), clips=(clip("a"), clip("b", 1))), tmp_path)
    assert suite.is_complete
    assert len(said) == 2
    row = suite.row(STUDENT, "denoise", "b")
    assert row.metrics["psnr"] > suite.measured[1].metrics["psnr"]
    assert {"ssim", "frame_difference_psnr", "warping_error", "residual_over_noise"} <= {
        *row.metrics
    }
    assert [curve.measure for curve in row.curves][:2] == ["psnr", "ssim"]
    assert np.mean(row.curves[0].values) == pytest.approx(row.metrics["psnr"], abs=1e-4)
    assert row.seconds_per_frame > 0
    restored = load_film(row.film, tmp_path)
    assert restored.shape == clip().frames.shape
    np.testing.assert_array_equal(load_film(suite.clips[0].truth, tmp_path), clip().frames)


def test_a_solver_that_crashes_or_refuses_is_a_row_that_says_so(tmp_path):
    suite, said = run(
        plan(system("crash", Crashing()), system("fill", named_solver("telea"))), tmp_path
    )
    crashed, refused = suite.rows
    assert crashed.failure == "RuntimeError: out of luck"
    assert not crashed.is_refused
    assert refused.is_refused
    assert "cannot undo `identity+noise" in refused.failure
    assert "failed" in said[0]
    text = markdown(suite)
    assert all(len(cells(suite, mean)) == len(header(suite)) for mean in means(suite))
    assert "| crash | failed: RuntimeError: out of luck |" in text
    assert "| fill | cannot undo it |" in text


def late(solver):
    return replace(system("late", solver), cost=100)


def test_an_interrupted_suite_goes_on(tmp_path):
    clips = (clip("a"), clip("b", 1))
    with pytest.raises(KeyboardInterrupt):
        run(plan(initial(), late(Interrupting()), clips=clips), tmp_path)
    kept = load_suite(tmp_path)
    assert [row.solver for row in kept.rows] == [STUDENT] * 2
    suite, said = run(plan(initial(), late(named_solver("nlmeans")), clips=clips), tmp_path)
    assert suite.is_complete
    assert len(said) == 2
    assert said[0].startswith("3 of 4: late")
    assert suite.row(STUDENT, "denoise", "a") == kept.rows[0]


def test_a_suite_that_was_interrupted_before_its_first_row_goes_on(tmp_path):
    """Real files take minutes to make and look at, so what is known of each is kept, too."""
    looked_at = []

    def once(task, clip, seed):
        looked_at.append(clip.name)
        if looked_at == ["a", "b"]:
            raise KeyboardInterrupt
        return case_of(task, clip, seed)

    wanted = plan(clips=(clip("a"), clip("b", 1)), make_case=once)
    with pytest.raises(KeyboardInterrupt):
        run(wanted, tmp_path)
    assert [measured.clip for measured in load_suite(tmp_path).measured] == ["a"]
    suite, _ = run(wanted, tmp_path)
    assert looked_at == ["a", "b", "b"]
    assert [measured.clip for measured in suite.measured] == ["a", "b"]


def test_what_failed_is_tried_again_and_so_is_a_solver_that_has_changed(tmp_path):
    run(plan(system("crash", Crashing()), initial("same")), tmp_path)
    mended = system("crash", named_solver("nlmeans"))
    suite, said = run(plan(mended, initial("same")), tmp_path)
    assert len(said) == 1
    assert suite.rows[0].failure is None
    other = replace(mended, about=replace(mended.about, settings="stronger"))
    assert len(run(plan(other, initial("same")), tmp_path)[1]) == 1


def test_who_goes_on_with_another_version_is_in_the_receipt(tmp_path):
    run(plan(initial()), tmp_path)
    for version, said in (("0", "0"), ("1", "0 and 1"), ("1", "0 and 1")):
        receipt = replace(RECEIPT, instantvir=version)
        suite = run_suite(plan(initial()), tmp_path, receipt, say=print)
        assert suite.receipt.instantvir == said


def test_a_folder_of_another_suite_is_refused(tmp_path):
    run(plan(initial()), tmp_path)
    with pytest.raises(UsageError, match="holds a suite of other clips"):
        run(plan(initial(), clips=(clip("b", 1),)), tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "results.md").write_text("mine")
    with pytest.raises(UsageError, match="but no suite"):
        run(plan(initial()), tmp_path)
    assert (tmp_path / "results.md").read_text() == "mine"


def test_all_solvers_get_the_same_measurement():
    first, again = (case_of(DENOISE, clip(), 0) for _ in range(2))
    np.testing.assert_array_equal(first.y, again.y)
    assert first.measurement.noise_std == pytest.approx(25 / 127.5)


# ---------------------------------------------------------------------- tables


def test_tables_say_who_is_ahead_and_what_the_papers_say(tmp_path):
    better, worse = system("mine", named_solver("nlmeans")), system(STUDENT, named_solver("map"))
    suite, _ = run(plan(worse, better, published=published()), tmp_path)
    ahead = losses(suite, "denoise")
    assert ahead[0].startswith("mine: PSNR dB")
    text = markdown(suite)
    assert "| InstantViR (LeanVAE) | 31.78 |" in text
    assert "Not measured here" in text
    student, other = means(suite)
    assert student.times_slower == pytest.approx(1)
    assert other.times_slower > 0
    assert student.psnr_ahead == 0
    expected = suite.rows[1].metrics["psnr"] - suite.rows[0].metrics["psnr"]
    assert other.psnr_ahead == pytest.approx(expected)
    assert f"| {expected:+.2f} |" in text
    assert all(len(cells(suite, mean)) == len(header(suite)) for mean in means(suite))
    lines = list(csv.DictReader(io.StringIO(csv_text(suite))))
    assert [line["solver"] for line in lines] == [STUDENT, "mine"]
    assert float(lines[1]["psnr"]) == suite.rows[1].metrics["psnr"]


# ---------------------------------------------------------------------- FVD


def long_clip(name, seed):
    return replace(clip(name, seed), frames=clip(name, seed).frames.repeat(5, 0)[:9])


def test_fvd_stands_beside_what_the_truth_is_off_itself(tmp_path, monkeypatch):
    def network(frames):
        return np.array([[frames.mean(), frames.std()]])

    monkeypatch.setattr("instantvir_models.suite.measuring.installed_i3d", lambda: network)
    clips = tuple(long_clip(name, seed) for seed, name in enumerate("abcd"))
    suite, _ = run(plan(initial(), clips=clips), tmp_path)
    (mean,) = means(suite)
    assert mean.metrics["fvd"] > 0
    restored = np.array([row.features[0] for row in suite.rows])
    assert mean.metrics["fvd"] == frechet_distance(restored, true_features(suite))
    text = markdown(suite)
    assert "| FVD |" in text
    assert "FVD is of 4 windows of up to 16 frames, and the two halves of the truth" in text
    fewer = replace(suite, rows=suite.rows[:3])
    assert "fvd" not in means(fewer)[0].metrics  # it is of all clips or of none


def test_clips_too_short_for_fvd_are_told(tmp_path):
    suite, _ = run(plan(initial()), tmp_path)
    assert "looks at 9 frames or more, clips have 2" in suite.missing[-1]
    assert floor(suite) is None


# ---------------------------------------------------------------------- peers


def test_a_peer_is_given_a_lossless_video_and_gives_one_back(tmp_path):
    peer = Peer.read("copy=cp {in} {out}")
    suite, _ = run(plan(initial(), peers=(peer,)), tmp_path)
    row = suite.row("copy", "denoise", "a")
    assert row.failure is None
    np.testing.assert_array_equal(load_film(row.film, tmp_path), case_of(DENOISE, clip(), 0).y)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'echo no luck >&2; exit 3' {in} {out}", "ended with status 3: no luck"),
        ("true {in} {out}", "wrote no"),
        ("cp /dev/null {out} {in}", "ended with status"),
        ("there-is-no-such-program {in} {out}", "cannot be started"),
        ("cp {in} {out}", "it wrote 2 frames of 12x8, not 2 frames of 48x32"),
    ],
)
def test_a_peer_that_fails_is_told_in_words(command, said):
    y = case_of(SR, clip(), 0).y
    with pytest.raises(PeerError, match=said):
        Peer.read(f"mine={command}").restored(y, "sr", clip().size, 25.0)


@pytest.mark.parametrize("text", ["mine", "=cp {in} {out}", "mine=cp {in}", "mine='cp {in} {out}"])
def test_what_is_no_peer_is_refused(text):
    with pytest.raises(UsageError, match="--peer"):
        Peer.read(text)


def test_two_solvers_of_one_name_are_refused():
    with pytest.raises(UsageError, match="two solvers are called mine"):
        plan(initial("mine"), peers=(Peer.read("mine=cp {in} {out}"),))


# ---------------------------------------------------------------------- clips


def write_clip(path, frames):
    height, width = frames.shape[1:3]
    settings = EncoderSettings(codec="ffv1")
    with create_video(path, width=width, height=height, settings=settings, frame_rate=25) as writer:
        for index, pixels in enumerate(frames):
            writer.write(Frame(pixels, index, Fraction(1, 25), 1))


def test_clips_of_a_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no video in"):
        clips_of(tmp_path, num_frames=2, crop=None)
    with pytest.raises(UsageError, match="is no folder"):
        clips_of(tmp_path / "none", num_frames=2, crop=None)
    write_clip(tmp_path / "one.mkv", clip().frames)
    (tmp_path / "notes.txt").write_text("not a video")
    (found,) = clips_of(tmp_path, num_frames=2, crop=None)
    np.testing.assert_array_equal(found.frames, clip().frames)
    with pytest.raises(UsageError, match="has 2 frames, 5 are asked for") as caught:
        clips_of(tmp_path, num_frames=5, crop=None)
    assert caught.value.hint == "`--length 2`"
    write_clip(tmp_path / "two.mkv", clip().frames.repeat(2, 1))
    with pytest.raises(UsageError, match="different sizes: `one` 48x32, `two` 48x64") as caught:
        clips_of(tmp_path, num_frames=2, crop=None)
    assert "--crop" in caught.value.hint
    assert [c.size for c in clips_of(tmp_path, num_frames=2, crop=(32, 40))] == [(32, 40)] * 2
    with pytest.raises(UsageError, match="cannot be taken out"):
        clips_of(tmp_path, num_frames=2, crop=(64, 64))


def test_bundled_clips_are_small_and_of_one_size():
    clips = bundled_clips()
    assert len(clips) >= 6
    assert {c.frames.shape for c in clips} == {(5, 64, 96, 3)}
    assert all(c.source for c in clips)


# ---------------------------------------------------------------------- systems


def priors():
    torch.manual_seed(0)
    network = FlowNetwork(
        FlowConfig(
            fine_channels=8, coarse_channels=8, bottom_channels=8, coarse_layers=1, bottom_layers=1
        )
    )
    video = FlowPrior(network.eval().requires_grad_(False), ErrorTable((0.1, 1.0), (0.05, 0.2)))
    return Priors(video, ImagePrior(video, video.errors), "0" * 64)


def test_evaluations_are_counted_by_frames():
    counted = CountedPrior(priors().video)
    z = torch.zeros(1, 3, 3, 16, 16)
    with torch.no_grad():
        counted.denoise(z, white(0.5))
        counted.denoise(z[:, :1], white(0.5))
    assert (counted.frames, counted.frames_followed) == (4, 0)
    counted.denoise(z.clone().requires_grad_(), white(0.5))
    assert (counted.frames, counted.frames_followed) == (7, 3)


@pytest.mark.parametrize("task", PAPER_TASKS, ids=str)
def test_every_system_of_the_paper_restores_through_a_session(task, tmp_path):
    """With a network that knows nothing; the thousand steps of DPS are left to the slow one."""
    systems = tuple(s for s in paper_systems(priors()) if s.cost < 60)
    suite, _ = run(plan(*systems, tasks=(task,)), tmp_path)
    failed = {row.solver: row.failure for row in suite.rows if row.failure is not None}
    assert all(row.is_refused for row in suite.rows if row.failure is not None), failed
    by = {row.solver: row for row in suite.rows}
    assert by["SVI"].evaluations_per_frame == 14
    assert by["VISION-XL"].evaluations_per_frame == 8 + 7 / 2  # seven of one frame of two
    assert by["DiffIR2VR-Zero"].evaluations_per_frame == 50
    assert by["LVTINO"].evaluations_per_frame == 5 * 4
    assert by["FlowDPS"].evaluations_per_frame == 20  # eight of 28 levels are beyond the prior
    assert by[STUDENT].evaluations_per_frame == 1
    assert by["teacher, one evaluation"].evaluations_per_frame == 1


@pytest.mark.slow
def test_the_dear_systems_restore_too(tmp_path):
    systems = tuple(s for s in paper_systems(priors()) if s.cost > 60)
    suite, _ = run(plan(*systems, tasks=(SR,)), tmp_path)
    assert not [row.failure for row in suite.rows if row.failure is not None]
    assert suite.row("DPS", "sr", "a").gradients_per_frame > 600


def test_a_prior_that_is_missing_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="there is no prior") as caught:
        open_priors(tmp_path / "none.safetensors")
    assert "tiny-teacher" in caught.value.hint


def test_the_meter_measures_the_truth_as_the_truth():
    frames: Any = clip().frames.repeat(2, 1)
    case = case_of(DENOISE, replace(clip(), frames=frames), 0)
    found = Meter().measured(frames, frames, case.measurement, frames_per_block=1)
    assert found.metrics["psnr"] == 100
    assert found.metrics["ssim"] == pytest.approx(1)
    assert found.metrics["residual_over_noise"] == pytest.approx(1, abs=0.05)
    assert isinstance(case.measurement.degradation, Degradation)
