"""Whatever a student says, nothing leaves that contradicts the measurement or is no picture."""

import math

import numpy as np
import pytest
import torch

from instantvir_models.operators.blur import GaussianBlur, TemporalBlur
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement, noisy, stored
from instantvir_models.run.session import GuardedFrame, Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.solvers.guard import BLEND_PIXELS, TILE_PIXELS, Held, guarded, kept_part
from instantvir_models.students.base import Estimate
from instantvir_models.students.tiny import TinyConfig, TinyStudent
from tests.models.test_session import moving_frames

HEIGHT, WIDTH = 72, 96


class Saying(TinyStudent):
    """Says `make(x_init)` of every block."""

    def __init__(self, make, std=0.05, *, is_final=False):
        super().__init__(TinyConfig())
        self.make, self.says_std, self.is_final = make, std, is_final

    def restore_block(self, block, state):
        x = self.make(block.x_init)
        return Estimate(x, x.new_full((len(x),), self.says_std), is_final=self.is_final)


def picture():
    """[1, 3, 3, H, W] with much and with little contrast."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) / 9, torch.arange(WIDTH) / 7, indexing="ij")
    waves = torch.stack([(x + y).sin(), (x * 1.7).cos(), (y * x / 9).sin()])
    return (0.6 * waves * (x / x.max())).expand(1, 3, 3, HEIGHT, WIDTH)


def scattered(keep):
    generator = torch.Generator().manual_seed(3)
    return Mask((torch.rand(3, 1, HEIGHT, WIDTH, generator=generator) < keep).float())


DEGRADATIONS = {
    "denoise": Degradation(operator=Identity(), noise_std=10 * LEVEL),
    "inpaint": Degradation(operator=scattered(0.5), noise_std=0.0),
    "noisy holes": Degradation(operator=scattered(0.5), noise_std=5 * LEVEL),
    "deblur": Degradation(operator=GaussianBlur(1.6), noise_std=2 * LEVEL),
    "enlarge": Degradation(operator=Downsample(4, "area"), noise_std=0.0),
    "blur over time": Degradation(operator=TemporalBlur.uniform(3), noise_std=2 * LEVEL),
    "unseen": Degradation(
        operator=Composition([GaussianBlur(2), scattered(0.7)]), noise_std=2 * LEVEL
    ),
}


@pytest.fixture(params=DEGRADATIONS)
def window(request):
    return window_of(request.param)


def window_of(name):
    degradation = DEGRADATIONS[name]
    generator = torch.Generator().manual_seed(5)
    y = noisy(degradation.operator.A(picture()), degradation.noise_std, generator=generator)
    return Window.whole(Measurement(stored(y), degradation))


def restored(student, window):
    with torch.no_grad():
        return Amortised(student, dtype=torch.float32).restore_block(window, student.new_state())


def initial(window):
    return InitialEstimate().restore_block(window, None)


@pytest.mark.parametrize("is_final", [False, True])
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 1e30, 1.0, -1.0], ids=["nan", "inf", "huge", "white", "black"]
)
def test_a_constant_that_is_sure_of_itself_becomes_the_initial_estimate(window, value, is_final):
    student = Saying(lambda x: torch.full_like(x, value), std=1e-4, is_final=is_final)
    found = restored(student, window)
    assert torch.equal(found.x, initial(window).x)
    assert found.replaced == (1, 1, 1)


def test_a_doubt_that_is_no_number_does_no_harm(window):
    found = restored(Saying(lambda x: x, std=math.nan), window)
    assert found.x.isfinite().all()
    assert found.std.isfinite().all()


def test_the_truth_stays_to_the_bit(window):
    truth = Restored(picture(), torch.ones(1))
    sound = torch.ones(1, 3, 1, HEIGHT, WIDTH, dtype=torch.bool)
    found = guarded(Held.against(window, truth), initial(window).x, window, is_sound=sound)
    assert torch.equal(found.x, truth.x)
    assert torch.equal(found.A_x, window.measurement.operator.A(truth.x))
    assert found.replaced == ()


def test_what_is_right_stays_beside_what_is_wrong(window):
    """One broken corner: far from it nothing changes, in it is the initial estimate."""

    def broken(x):
        x = x.clone()
        x[..., :20, :20] = math.nan
        return x

    found = restored(Saying(broken), window)
    whole = restored(Saying(lambda x: x), window)
    reach = TILE_PIXELS + 2 * BLEND_PIXELS
    assert torch.equal(found.x[..., :20, :20], initial(window).x[..., :20, :20])
    torch.testing.assert_close(found.x[..., reach:, :], whole.x[..., reach:, :], atol=0.02, rtol=0)
    assert all(0.1 < part < 0.6 for part in found.replaced)


def test_what_forgot_the_measurement_is_reminded_before_it_is_replaced():
    """A student that weighs y itself, and in one corner did not: there data consistency does."""
    window = window_of("denoise")
    off = torch.zeros(HEIGHT, WIDTH)
    off[:20, :20] = 2 * window.measurement.noise_std
    student = Saying(lambda x: picture() + off, std=0.1, is_final=True)
    found = restored(student, window)
    assert found.replaced == ()
    assert torch.equal(found.x[..., 64:, :], picture()[..., 64:, :])
    error = (found.x - window.measurement.y)[..., :20, :20]
    assert error.square().mean().sqrt() < 1.25 * window.measurement.noise_std


def test_noise_on_black_can_only_go_up():
    """The picture is darker than its measurement, and no less right for that."""
    degradation = Degradation(operator=Identity(), noise_std=50 * LEVEL)
    x = torch.full((1, 3, 3, HEIGHT, WIDTH), -1.0)
    generator = torch.Generator().manual_seed(1)
    y = stored(noisy(x, degradation.noise_std, generator=generator))
    window = Window.whole(Measurement(y, degradation))
    assert restored(Saying(lambda y: x, is_final=True), window).replaced == ()


def test_replaced_tiles_have_no_seam():
    wrong = torch.zeros(1, 1, 1, 3, 4, dtype=torch.bool)
    wrong[..., 1, 2] = True
    kept = kept_part(wrong, 32, (90, 120))
    assert kept[..., 32:64, 64:96].max() == 0
    assert kept[..., :16, :].min() == 1
    steps = torch.cat([kept.diff(dim=-1).abs().flatten(), kept.diff(dim=-2).abs().flatten()])
    assert steps.max() <= 1 / (2 * BLEND_PIXELS + 1) + 1e-6


def test_of_few_measured_pixels_nothing_is_concluded():
    """One pixel in fifty is measured, and its noise can be three times its deviation."""
    degradation = Degradation(operator=scattered(0.02), noise_std=20 * LEVEL)
    generator = torch.Generator().manual_seed(1)
    x = torch.zeros(1, 3, 3, HEIGHT, WIDTH)
    y = degradation.operator.A(noisy(x, degradation.noise_std, generator=generator))
    window = Window.whole(Measurement(y, degradation))
    sound = torch.ones(1, 3, 1, HEIGHT, WIDTH, dtype=torch.bool)
    truth = Restored(x, torch.ones(1))
    held = Held.against(window, truth)
    assert guarded(held, x, window, is_sound=sound).replaced == ()


def test_detail_out_of_nowhere_is_taken_back():
    """It does not contradict the measurement: what enlargement lost can be anything."""
    operator = Downsample(4, "area")
    window = Window.whole(
        Measurement(torch.zeros(1, 3, 3, 16, 24), Degradation(operator=operator, noise_std=0.0))
    )
    stripes = torch.tensor([0.5, -0.5]).repeat(48)
    found = restored(Saying(lambda x: x + stripes), window)
    assert torch.equal(found.x, initial(window).x)


def test_where_the_operator_that_was_told_is_wrong_the_student_is_not_blamed():
    """No estimate explains such a y: the initial one contradicts it as much."""
    degradation = Degradation(operator=GaussianBlur(4), noise_std=LEVEL)
    window = Window.whole(Measurement(picture(), degradation))
    found = restored(Saying(lambda x: 0.98 * x), window)
    assert found.replaced == ()


def test_flat_holes_are_not_filled_with_anything():
    """A hole in front of a picture with contrast: the known pixels have it too."""
    found = restored(Saying(torch.zeros_like), window_of("inpaint"))
    assert min(found.replaced) > 0.6


def wrong_now_and_then():
    calls = iter(range(1000))

    def make(x):
        x = x.clone()
        if next(calls) % 2:
            x[:, 0, :, :, :30] = 1
        return x

    return Amortised(Saying(make), dtype=torch.float32)


@pytest.mark.parametrize("packet", [1, 4, 11])
def test_frames_are_counted_one_by_one_however_they_arrive(packet):
    frames = moving_frames(11)
    degradation = Degradation(operator=Identity(), noise_std=3 * LEVEL)
    session = Session(
        wrong_now_and_then(), degradation, height=frames.shape[1], width=frames.shape[2]
    )
    session.skip(100)
    parts = [session.push(frames[i : i + packet]) for i in range(0, 11, packet)]
    shown = np.concatenate([*parts, session.flush()])
    size = session.frames_per_block
    expected = [100 + first for first in range(size, 11, 2 * size)]
    report = session.report
    assert [each.frame for each in report.guarded] == expected
    assert report.frames_guarded == len(expected)
    assert isinstance(report.guarded[0], GuardedFrame)
    assert np.abs(shown.astype(int) - frames).max() < 40
