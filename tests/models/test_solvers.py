"""The seam between time and mathematics: every solver keeps the promises of a session."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from instantvir_models.errors import UsageError
from instantvir_models.media.convert import to_unit
from instantvir_models.operators.blur import GaussianBlur, TemporalBlur
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import WHOLE_CLIP, Restored, Solver, Window, block_size
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.solvers.guesses import GUESS_STD, corrected_guess
from instantvir_models.solvers.registry import METHODS, named_solver
from instantvir_models.solvers.tiled import TiledSolver

HEIGHT, WIDTH = 24, 32


def half_known(height=HEIGHT, width=WIDTH, num_frames=1):
    generator = torch.Generator().manual_seed(0)
    return Mask((torch.rand(num_frames, 1, height, width, generator=generator) > 0.3).float())


UNDOES = {
    "map": Degradation(operator=GaussianBlur(1.5), noise_std=0.05),
    "as_measured": Degradation(operator=Identity(), noise_std=0.1),
    "telea": Degradation(operator=half_known(), noise_std=0.0),
    "navier_stokes": Degradation(operator=half_known(), noise_std=0.0),
    "biharmonic": Degradation(operator=half_known(), noise_std=0.0),
    "bicubic": Degradation(operator=Downsample(2), noise_std=0.0),
    "lanczos": Degradation(operator=Downsample(2), noise_std=0.0),
    "bicubic_consistent": Degradation(operator=Downsample(2), noise_std=0.0),
    "wiener": Degradation(operator=GaussianBlur(1.5), noise_std=0.05),
    "richardson_lucy": Degradation(operator=GaussianBlur(1.5), noise_std=0.0),
    "nlmeans": Degradation(operator=Identity(), noise_std=0.1),
    "nlmeans_over_time": Degradation(operator=Identity(), noise_std=0.1),
    "ffmpeg_nlmeans": Degradation(operator=Identity(), noise_std=0.1),
}
"""Something that each method can undo."""


def clean_frames(num_frames, height=HEIGHT, width=WIDTH):
    """[1, T, 3, H, W] in [-1, 1]: waves that move by a pixel a frame."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = [
        torch.stack(
            [torch.sin((x + t) / (2.0 + c)) * torch.cos(y / (3.0 - c / 2)) for c in range(3)]
        )
        for t in range(num_frames)
    ]
    return 0.7 * torch.stack(frames)[None]


def measured_frames(degradation, num_frames=7, height=HEIGHT, width=WIDTH):
    """uint8 [T, h, w, 3]."""
    y = degradation.operator.A(clean_frames(num_frames, height, width))
    generator = torch.Generator().manual_seed(1)
    y = y + degradation.noise_std * torch.randn(y.shape, generator=generator)
    pixels = ((y + 1) * 127.5).round().clamp(0, 255).byte()
    return pixels[0].permute(0, 2, 3, 1).numpy()


def run(solver, degradation, frames, packets=None, **limits):
    session = Session(solver, degradation, height=frames.shape[1], width=frames.shape[2], **limits)
    out, start = [], 0
    for size in packets or [len(frames)]:
        out.append(session.push(frames[start : start + size]))
        start += size
    return np.concatenate([*out, session.flush()]), session


def error(pixels, clean):
    return float((to_unit(pixels) - clean).square().mean())


@pytest.mark.parametrize("name", METHODS)
def test_any_packetisation_gives_the_same_bits(name):
    degradation = UNDOES[name]
    frames = measured_frames(degradation)
    whole, session = run(named_solver(name), degradation, frames)
    assert session.report.frames_out == len(frames)
    for packets in ([1] * 7, [4, 0, 3]):
        cut, _ = run(named_solver(name), degradation, frames, packets)
        np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "as_measured"])
def test_a_method_restores(name):
    degradation, clean = UNDOES[name], clean_frames(7)
    frames = measured_frames(degradation)
    restored, _ = run(named_solver(name), degradation, frames)
    y = to_unit(frames)
    if degradation.operator.traits.scale > 1:
        y = y.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert error(restored, clean) < float((y - clean).square().mean())


REFUSING = [name for name in METHODS if type(named_solver(name)).check is not Solver.check]


@pytest.mark.parametrize("name", REFUSING)
def test_what_a_method_cannot_undo_is_refused_in_words(name):
    degradation = Degradation(
        operator=Composition([GaussianBlur(1), Downsample(2), half_known(12, 16)]), noise_std=0.1
    )
    with pytest.raises(UsageError, match="cannot undo `blur:sigma=1") as caught:
        Session(named_solver(name), degradation, height=12, width=16)
    assert "map" in caught.value.hint


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(UsageError, match="no solver called `weiner`") as caught:
        named_solver("weiner")
    assert caught.value.hint == "did you mean `wiener`?"


@pytest.mark.parametrize("name", ["telea", "navier_stokes", "biharmonic"])
def test_known_pixels_survive_filling_in_sixteen_bits(name):
    degradation = UNDOES[name]
    frames = measured_frames(degradation).astype(np.uint16) * 257 + 3
    restored, _ = run(named_solver(name), degradation, frames)
    known = degradation.operator.mask[0, 0].bool().numpy()
    np.testing.assert_array_equal(restored[:, known], frames[:, known])


def test_a_whole_clip_comes_out_when_it_has_ended():
    degradation = UNDOES["nlmeans_over_time"]
    frames = measured_frames(degradation)
    session = Session(named_solver("nlmeans_over_time"), degradation, height=HEIGHT, width=WIDTH)
    assert session.frames_per_block == WHOLE_CLIP
    assert len(session.push(frames)) == 0
    assert session.frames_held == 7
    assert len(session.flush()) == 7


def test_a_whole_clip_may_be_cut_after_all():
    assert block_size(named_solver("nlmeans_over_time"), 8) == 8
    with pytest.raises(UsageError, match="blocks of 0 frames"):
        block_size(named_solver("nlmeans_over_time"), 0)


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("map", GaussianBlur(1.5)),
        ("map", half_known(144, 136)),
        ("telea", half_known(144, 136, 4)),
        ("bicubic_consistent", Downsample(3)),
        ("nlmeans", Identity()),
    ],
)
def test_in_tiles_a_method_restores_the_same(name, operator):
    height, width = (144, 136) if operator.traits.scale == 1 else (48 * 3, 46 * 3)
    degradation = Degradation(operator=operator, noise_std=0.02)
    frames = measured_frames(degradation, 4, height, width)
    whole, _ = run(named_solver(name), degradation, frames, tile_pixels=0)
    tiled, _ = run(named_solver(name), degradation, frames, tile_pixels=64)
    assert np.abs(whole.astype(int) - tiled).mean() < 0.3


def test_a_tile_of_a_composition_sees_its_part_of_every_operator():
    generator = torch.Generator().manual_seed(0)
    operator = Composition(
        [Mask((torch.rand(1, 1, 24, 24, generator=generator) > 0.5).float()), Downsample(2)]
    )
    x = torch.rand(1, 1, 3, 24, 24, generator=generator)
    rows, columns = slice(4, 16), slice(8, 24)
    part = operator.cropped(rows, columns).A(x[..., rows, columns])
    torch.testing.assert_close(part, operator.A(x)[..., 2:8, 4:12])


def test_frames_restored_before_are_given_to_who_restores_the_next():
    """The past belongs to the session, so that skipped blocks and other solvers share it."""
    seen = []

    class Watching(InitialEstimate):
        def restore_block(self, window, state):
            seen.append(window)
            return super().restore_block(window, state)

    degradation = Degradation(operator=TemporalBlur.uniform(5), noise_std=0.02)
    frames = measured_frames(degradation, 9)
    restored, _ = run(Watching(), degradation, frames)
    assert [window.inside.start for window in seen] == [0, 2, 2]
    given = (seen[-1].past + 1) * 127.5
    expected = torch.from_numpy(restored[4:6]).permute(0, 3, 1, 2)[None].float()
    assert (given.clamp(0, 255) - expected).abs().max() <= 0.51


# A solver of the kind that is to come: posterior sampling with a prior that denoises.


class ToyPrior:
    """Frames that are independent pixels around mid-grey: the mean of x given x_t = x + sigma n."""

    variance = 0.25

    def denoise(self, x_t, sigma):
        return x_t * (self.variance / (self.variance + sigma**2))


@dataclass
class ToyState:
    """Noise that goes on from block to block."""

    generator: torch.Generator


@dataclass(frozen=True)
class ToyPosteriorSampling(Solver[ToyState]):
    """From noise to a video that explains y, guided by the gradient of |A x0 - y| (Chung et al. 2023)."""

    steps: int = 40
    guidance: float = 0.6

    @property
    def frames_per_block(self):
        return 4

    def new_state(self):
        return ToyState(torch.Generator().manual_seed(0))

    def restore_block(self, window: Window, state: ToyState) -> Restored:
        m, prior = window.measurement, ToyPrior()
        noise = torch.randn(m.y.shape, generator=state.generator)
        sigmas = torch.logspace(0, -2, self.steps)
        x_t = noise
        for sigma, following in zip(sigmas, [*sigmas[1:], torch.tensor(0.0)], strict=True):
            with torch.enable_grad():
                x_t = x_t.clone().requires_grad_()
                x_0 = prior.denoise(x_t, sigma)
                residual = (m.operator.A(x_0) - m.y).square().sum().sqrt()
                (gradient,) = torch.autograd.grad(residual, x_t)
            score_step = x_0 + following / sigma * (x_t - x_0)
            x_t = (score_step - self.guidance * gradient / gradient.std() * sigma / 10).detach()
        return Restored(x_t, x_t.new_full((1,), ToyPrior.variance**0.5))


def test_an_iterative_solver_fits_the_seam():
    degradation = Degradation(operator=GaussianBlur(1.0), noise_std=0.02)
    frames = measured_frames(degradation, 9)
    whole, session = run(ToyPosteriorSampling(), degradation, frames)
    cut, _ = run(ToyPosteriorSampling(), degradation, frames, [1] * 9)
    np.testing.assert_array_equal(cut, whole)
    assert session.report.residual < 0.3
    assert session.report.student_seconds > 0
    assert not session.can_shrink or session.restarted().frames_per_block == 4


def test_a_solver_without_tiles_or_text_says_so():
    degradation = Degradation(operator=Identity(), noise_std=0.0)
    with pytest.raises(UsageError, match="cannot work in tiles"):
        Session(ToyPosteriorSampling(), degradation, height=8, width=8, tile_pixels=64)
    session = Session(ToyPosteriorSampling(), degradation, height=8, width=8)
    with pytest.raises(UsageError, match="reads no text"):
        session.change_text(None)
    with pytest.raises(ValueError, match="multiple of 64"):
        TiledSolver(InitialEstimate(), 100)


def test_a_window_of_a_whole_measurement_has_no_past():
    y = torch.zeros(1, 5, 3, 4, 6)
    window = Window.whole(Measurement(y, Degradation(operator=Downsample(2), noise_std=0.0)))
    assert (window.num_frames, window.past.shape) == (5, (1, 0, 3, 8, 12))


def test_a_guess_moves_as_far_as_corrections_stand_out():
    generator = torch.Generator().manual_seed(0)
    guess = torch.rand(1, 2, 3, 16, 16, generator=generator)
    guessed = torch.zeros(2, 1, 16, 16)
    guessed[:, :, ::2] = 1
    for size, part in ((0.01 * GUESS_STD, 0.01), (100 * GUESS_STD, 0.99)):
        x = guess + size
        moved = (corrected_guess(guess, x, guessed) - guess) / size
        assert torch.equal(corrected_guess(guess, x, guessed)[..., 1::2, :], x[..., 1::2, :])
        rows = moved[..., ::2, :]
        assert (rows < part).all() if part < 0.5 else (rows > part).all()
