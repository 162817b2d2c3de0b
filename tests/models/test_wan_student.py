"""The full-size student in a session, at small size: any packets, any length, any frame size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instantvir_models.operators.compose import Identity
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.measurement import Degradation, degrade
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.students.base import condition
from instantvir_models.students.wan.student import Footprint, SrInput, WanSettings, WanStudent
from tests.wan_small import small_student, small_text

HEIGHT, WIDTH = 24, 40  # neither is a multiple of 16


@pytest.fixture(scope="module")
def student():
    return small_student("lean", window_latents=6)


def clip(num_frames, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(3).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def run(student, frames, packets, spec="blur:sigma=1+noise:std=2"):
    degradation = parse_degradation(spec)
    session = Session(
        Amortised(student, torch.float32),
        degradation,
        height=frames.shape[1],
        width=frames.shape[2],
    )
    out, start = [], 0
    for size in packets:
        out.append(session.push(frames[start : start + size]))
        start += size
    return np.concatenate([*out, session.flush()]), session


@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_the_first_block_has_nine_frames_and_later_ones_twelve(kind):
    session = Session(
        Amortised(small_student(kind)), parse_degradation("blur:sigma=1"), height=16, width=16
    )
    frames = clip(33, 16, 16)
    ready = [len(session.push(frames[t : t + 1])) for t in range(33)]
    assert {t + 1: n for t, n in enumerate(ready) if n} == {9: 9, 21: 12, 33: 12}


@pytest.mark.parametrize("num_frames", [1, 2, 5, 8, 9, 10, 13, 21, 22])
def test_every_frame_comes_out_once(student, num_frames):
    frames = clip(num_frames)
    restored, session = run(student, frames, [num_frames])
    assert restored.shape == frames.shape
    assert session.report.frames_out == num_frames


def test_after_skipped_blocks_the_student_begins_anew(student):
    """It went on as if the video had not: latents of frames seconds apart were joined."""
    frames = clip(42)
    session = Session(
        Amortised(student, torch.float32), parse_degradation("identity+noise:std=5"), height=HEIGHT, width=WIDTH,

    )  # fmt: skip
    session.push(frames[:9])
    session.is_student_skipped = True
    session.push(frames[9:21])
    session.is_student_skipped = False
    resumed = session.push(frames[21:])
    assert len(resumed) == 21  # a block of 9, then one of 12
    expected, _ = run(student, frames[21:], [21], spec="identity+noise:std=5")
    np.testing.assert_array_equal(resumed, expected)


def test_a_prompt_changes_between_blocks_and_the_history_stays(student, unguarded):
    frames, other = clip(33), small_text(seed=9, rows=5)
    session = Session(
        Amortised(student, torch.float32), parse_degradation("identity+noise:std=5"), height=HEIGHT, width=WIDTH,

    )  # fmt: skip
    before = session.push(frames[:21])
    session.change_text(other)
    after = session.push(frames[21:])
    spec = "identity+noise:std=5"
    unchanged, _ = run(student, frames, [33], spec=spec)
    np.testing.assert_array_equal(before, unchanged[:21])
    assert not np.array_equal(after, unchanged[21:])
    from_the_start, _ = run(student.with_text(other), frames, [33], spec=spec)
    assert not np.array_equal(after, from_the_start[21:]), "what was seen with other words stays"
    without_history, _ = run(student.with_text(other), frames[21:], [12], spec=spec)
    assert not np.array_equal(after, without_history)


def test_the_same_prompt_again_changes_nothing(student):
    frames = clip(21)
    session = Session(
        Amortised(student, torch.float32), parse_degradation("blur:sigma=1+noise:std=2"), height=HEIGHT, width=WIDTH,

    )  # fmt: skip
    first = session.push(frames[:9])
    session.change_text(student.text)
    keys = session._state.transformer.text
    rest = session.push(frames[9:])
    assert session._state.transformer.text is keys, "they were computed again"
    np.testing.assert_array_equal(np.concatenate([first, rest]), run(student, frames, [21])[0])


def test_another_student_takes_over_the_state_with_its_own_words(student):
    """The law behind a change of prompt: only the keys of the words are new."""
    other = student.with_text(small_text(seed=9, rows=5))
    block = condition(
        degrade(torch.rand(1, 9, 3, 16, 16), Degradation(operator=Identity(), noise_std=0.0))
    )
    later = condition(
        degrade(torch.rand(1, 12, 3, 16, 16), Degradation(operator=Identity(), noise_std=0.0))
    )
    states = student.new_state(), student.new_state()
    for state in states:
        student.restore_block(block, state)
    changed = other.restore_block(later, states[0]).x_hat
    states[1].transformer.text = None  # as the reference resets its cache of the prompt
    torch.testing.assert_close(changed, other.restore_block(later, states[1]).x_hat, rtol=0, atol=0)
    assert states[0].transformer.next_latent == 6


def test_any_packetisation_gives_the_same_bits(student):
    frames = clip(24)
    whole, _ = run(student, frames, [24])
    for packets in ([1] * 24, [10, 0, 3, 11], [23, 1]):
        np.testing.assert_array_equal(run(student, frames, packets)[0], whole)


@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_two_sessions_interleaved_equal_two_alone(kind):
    student = small_student(kind)
    clips = clip(21, 16, 16), clip(21, 16, 16)[::-1].copy()
    alone = [run(student, frames, [21])[0] for frames in clips]
    degradation = parse_degradation("blur:sigma=1+noise:std=2")
    sessions = [
        Session(Amortised(student, torch.float32), degradation, height=16, width=16) for _ in clips
    ]
    together = [[], []]
    for t in range(21):
        for session, frames, out in zip(sessions, clips, together, strict=True):
            out.append(session.push(frames[t : t + 1]))
    for session, out, expected in zip(sessions, together, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate([*out, session.flush()]), expected)


def test_the_memory_of_a_session_is_constant(student):
    session = Session(Amortised(student), parse_degradation("identity"), height=16, width=16)
    frames = clip(12, 16, 16)
    session.push(frames)
    session.push(frames)
    session.push(frames)
    state = session._state
    held = (
        state.autoencoder.num_bytes(),
        [cache._k.data_ptr() for cache in state.transformer.caches],
    )
    for _ in range(20):
        session.push(frames)
    assert held == (
        state.autoencoder.num_bytes(),
        [cache._k.data_ptr() for cache in state.transformer.caches],
    )
    assert len(state.transformer.caches[0]) == student.settings.window_latents


def conditioned(x, operator, noise_std=0.0):
    return condition(degrade(x, Degradation(operator=operator, noise_std=noise_std)))


@torch.inference_mode()
def test_a_small_video_is_encoded_small_and_its_latent_enlarged():
    """The way the published x4 students were trained; the encoder never sees full-size frames."""
    seen = []

    class Watched:
        def __init__(self, inner):
            self.inner = inner

        def encode(self, x, memory):
            seen.append(tuple(x.shape))
            return self.inner.encode(x, memory)

        def decode(self, z, memory):
            seen.append(tuple(z.shape))
            return self.inner.decode(z, memory)

    inner = small_student()
    student = WanStudent(inner.transformer, Watched(inner.autoencoder), inner.settings, inner.text)
    x = torch.rand(1, 9, 3, 64, 96) * 2 - 1
    block = conditioned(x, Downsample(4))
    assert block.y_small.shape == (1, 9, 3, 16, 24)
    x_hat = student.restore_block(block, student.new_state()).x_hat
    assert x_hat.shape == x.shape
    assert seen == [(1, 9, 3, 16, 24), (1, 3, 16, 8, 12)]
    seen.clear()
    pixels = WanStudent(
        inner.transformer,
        Watched(inner.autoencoder),
        WanSettings(sr_input=SrInput.PIXELS),
        inner.text,
    )
    assert pixels.restore_block(block, pixels.new_state()).x_hat.shape == x.shape
    assert seen[0] == (1, 9, 3, 64, 96)


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width", "factor"), [(17, 21, 2), (13, 9, 3), (11, 15, 4)])
def test_odd_sizes_are_padded_and_cut(height, width, factor):
    student = small_student()
    x = torch.rand(1, 9, 3, factor * height, factor * width)
    for operator in (Downsample(factor), Identity()):
        x_hat = student.restore_block(conditioned(x, operator), student.new_state()).x_hat
        assert x_hat.shape == x.shape
        assert torch.isfinite(x_hat).all()


def test_consistency_gives_back_what_the_measurement_knows():
    """Of the estimate's error only the part no measurement sees is left: (I - A^+ A) e.

    A decoder that drifts in colour and brightness, as compressed latents make it do, loses 8 dB
    here; the step gives all but 1 dB back. Errors in fine texture stay: x4 keeps 1 of 16 dimensions.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 2, 3, 64, 96, generator=generator) * 2 - 1
    texture = 0.025 * torch.randn(x.shape, generator=generator)
    drift = torch.nn.functional.interpolate(
        0.08 * torch.randn(2, 3, 4, 6, generator=generator), size=(64, 96), mode="bicubic"
    )[None]
    measurement = degrade(x, Degradation(operator=Downsample(4), noise_std=0.0))

    def psnr_after(error, *, corrected):
        x_hat = x + error
        if corrected:
            x_hat = data_consistency(x_hat, measurement, estimate_std=0.1)
        return float(-10 * ((x_hat - x) / 2).square().mean().log10())

    lost = psnr_after(texture, corrected=False) - psnr_after(texture + drift, corrected=False)
    left = psnr_after(texture, corrected=True) - psnr_after(texture + drift, corrected=True)
    assert lost > 7.9
    assert left < 1
    error = texture + drift
    operator = measurement.operator
    corrected = data_consistency(x + error, measurement, estimate_std=0.1)
    unseen = error - operator.A_dagger(operator.A(error))
    torch.testing.assert_close(corrected - x, unseen, rtol=0, atol=2e-3)


@torch.inference_mode()
def test_a_prompt_changes_the_restoration_and_the_student_stays_as_it_was():
    student = small_student()
    block = conditioned(torch.rand(1, 9, 3, 16, 16), Identity())
    before = student.restore_block(block, student.new_state()).x_hat
    other = student.with_text(small_text(seed=9))
    assert other.transformer is student.transformer
    assert not torch.allclose(other.restore_block(block, other.new_state()).x_hat, before)
    again = student.restore_block(block, student.new_state()).x_hat
    torch.testing.assert_close(again, before, rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_tiles_change_memory_and_nothing_else(kind):
    """They cut the autoencoder, with a halo; the transformer attends to whole frames as before."""
    student = small_student(kind)
    tiled = student.in_tiles(64)
    assert (tiled.first_block_frames, tiled.frames_per_block) == (9, 12)
    assert tiled.in_tiles(128).autoencoder is student.autoencoder
    state, expected_state = tiled.new_state(), student.new_state()
    for frames in (9, 4):
        block = conditioned(torch.rand(1, frames, 3, 32, 208), Identity())
        actual = tiled.restore_block(block, state).x_hat
        expected = student.restore_block(block, expected_state).x_hat
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)
    assert state.autoencoder.num_bytes() > expected_state.autoencoder.num_bytes()


@torch.inference_mode()
@pytest.mark.parametrize("sr_input", SrInput)
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_tiles_that_three_does_not_divide_change_nothing(kind, sr_input):
    """Tiles are cut in the large latent, of 6x12 pixels here, not in the video that came."""
    student = small_student(kind, sr_input=sr_input)
    block = conditioned(torch.rand(1, 5, 3, 24, 75), Downsample(3))
    assert block.y_small.shape[-2:] == (8, 25)
    expected = student.restore_block(block, student.new_state()).x_hat
    tiled = student.in_tiles(64)
    actual = tiled.restore_block(block, tiled.new_state()).x_hat
    assert actual.shape == (1, 5, 3, 24, 75)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)


class Crowded:
    """An autoencoder that runs out of memory when told to."""

    def __init__(self, inner, failing_calls):
        self.inner, self.failing_calls, self.calls = inner, failing_calls, 0

    def encode(self, x, memory):
        return self.inner.encode(x, memory)

    def decode(self, z, memory):
        self.calls += 1
        x = self.inner.decode(z, memory)
        if self.calls in self.failing_calls:
            raise torch.OutOfMemoryError("no memory left")
        return x


def with_autoencoder(student, autoencoder):
    return WanStudent(student.transformer, autoencoder, student.settings, student.text)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("failing_calls", "left"),
    [({3}, Footprint(9, 1)), ({3, 4}, Footprint(3, 1)), ({4}, Footprint(9, 1))],
)
def test_out_of_memory_takes_smaller_steps_and_loses_nothing(failing_calls, left):
    """The block is given again; it and all later ones are those of a history cut at that moment."""
    student = small_student("lean", window_latents=9)
    blocks = [conditioned(torch.rand(1, n, 3, 16, 16), Identity()) for n in (9, 12, 12, 12, 12)]
    crowded = with_autoencoder(student, Crowded(student.autoencoder, failing_calls))
    state, expected_state = crowded.new_state(), student.new_state()
    for index, block in enumerate(blocks):
        if index == min(failing_calls) - 1:
            expected_state.transformer.shrink(left.window_latents)
            expected_state.footprint = left
        actual = crowded.restore_block(block, state).x_hat
        expected = student.restore_block(block, expected_state).x_hat
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    assert state.footprint == left


@torch.inference_mode()
def test_out_of_memory_at_the_first_block_is_survived_and_at_the_smallest_step_raised(student):
    block = conditioned(torch.rand(1, 9, 3, 16, 16), Identity())
    expected = student.restore_block(block, student.new_state()).x_hat
    once = with_autoencoder(student, Crowded(student.autoencoder, {1, 2}))
    actual = once.restore_block(block, once.new_state()).x_hat
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    always = with_autoencoder(student, Crowded(student.autoencoder, set(range(99))))
    with pytest.raises(torch.OutOfMemoryError):
        always.restore_block(block, always.new_state())


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_smaller_chunks_in_the_autoencoder_change_nothing(kind):
    student = small_student(kind)
    chunked = replace(student, memory_limit=Footprint(21, 1))
    state, expected_state = chunked.new_state(), student.new_state()
    for frames in (9, 12, 5):
        block = conditioned(torch.rand(1, frames, 3, 16, 16), Identity())
        actual = chunked.restore_block(block, state).x_hat
        expected = student.restore_block(block, expected_state).x_hat
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_a_window_smaller_than_a_block_is_refused():
    with pytest.raises(ValueError, match="a window of 2 latents does not hold a block of 3"):
        WanSettings(window_latents=2)
