"""A full-size student whose steady block is recorded gives what one gives that is launched step by step."""

from dataclasses import replace

import pytest
import torch

from instantvir_models.students.wan.settings import Footprint
from tests.tape import TapeRecorder
from tests.wan_small import small_student, small_text

LATENTS = torch.randn(12, 1, 2, 16, 4, 4, generator=torch.Generator().manual_seed(3))
"""12 blocks of 2 latents."""


def student():
    return small_student(window_latents=6, latents_per_block=2)


def velocities(student, blocks, state, *, on_block=lambda index: None):
    out = []
    with torch.inference_mode():
        for index, z in enumerate(blocks):
            on_block(index)
            out.append(student._velocity(z, state).clone())
    return out


@pytest.fixture
def recorder():
    return TapeRecorder()


@pytest.fixture
def recorded(recorder):
    return replace(student(), new_recorder=lambda: recorder)


def test_a_recorded_stream_equals_a_launched_one_to_the_bit(recorded, recorder):
    expected = velocities(student(), LATENTS, student().new_state())
    state = recorded.new_state()
    actual = velocities(recorded, LATENTS, state)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    # three slots: filled by blocks 0-2, launched in 3-5, recorded in 6-8, replayed in 9-11
    assert [tape.replays for tape in recorder.tapes] == [1, 1, 1]
    assert state.transformer.next_latent == 24


def test_a_short_block_at_the_end_is_launched(recorded, recorder):
    blocks = [*LATENTS[:9], LATENTS[9][:, :1]]
    expected = velocities(student(), blocks, student().new_state())
    actual = velocities(recorded, blocks, recorded.new_state())
    assert torch.equal(actual[-1], expected[-1])
    assert len(recorder.tapes) == 3


def test_after_another_prompt_all_is_recorded_anew(recorded, recorder):
    other = small_text(seed=9)
    plain, states = student(), [student().new_state(), recorded.new_state()]
    for each, state in zip((plain, recorded), states, strict=True):
        velocities(each, LATENTS[:10], state)
    expected = velocities(plain.with_text(other), LATENTS[10:], states[0])
    actual = velocities(recorded.with_text(other), LATENTS[10:], states[1])
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert len(states[1].transformer.recordings) == 0


def test_after_memory_ran_out_all_is_recorded_anew(recorded, recorder):
    smaller = Footprint(4, 2)
    plain, states = student(), [student().new_state(), recorded.new_state()]
    results = []
    for each, state in zip((plain, recorded), states, strict=True):
        velocities(each, LATENTS[:10], state)
        state.footprint = smaller
        each._shrink(state)
        results.append(velocities(each, LATENTS[10:], state))
    assert all(torch.equal(a, e) for a, e in zip(*results, strict=True))


def test_where_blocks_do_not_come_around_nothing_is_recorded(recorder):
    odd = replace(
        small_student(window_latents=5, latents_per_block=2), new_recorder=lambda: recorder
    )
    velocities(odd, LATENTS, odd.new_state())
    assert recorder.tapes == []
