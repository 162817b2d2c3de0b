"""Weights at rest in CPU memory: the same restoration to the bit, with less on the device."""

import gc
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

import instantvir_models.operators.base as operators
import instantvir_models.solvers.guard as guard_module
import instantvir_models.students.wan.transformer as transformer_module
from instantvir_models.errors import DeviceMemoryError
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import Degradation, degrade
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.students.base import Conditioning, condition
from instantvir_models.students.kv_cache import KVCache
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.cost import autoencoder_memory
from instantvir_models.students.wan.offload import SLOTS
from instantvir_models.students.wan.student import (
    TILE_LATENTS,
    Footprint,
    Resting,
    WanSettings,
    WanStudent,
)
from instantvir_models.students.wan.transformer import WanTransformer
from tests.meta_card import CARD, MetaCard
from tests.wan_small import TRANSFORMER, drawn, small_autoencoder, small_text

CPU = torch.device("cpu")
DEEP = replace(TRANSFORMER, num_layers=5)
WHOLE = Footprint(6, 3)
RESTING = [Resting.WEIGHTS, Resting.PAST_FRAMES]


def deep_student(kind="lean", **settings):
    return WanStudent(
        drawn(WanTransformer(DEEP)), small_autoencoder(kind), WanSettings(**settings), small_text()
    )


def blocks(*frames, height=16, width=32):
    generator = torch.Generator().manual_seed(5)
    videos = [torch.rand(1, n, 3, height, width, generator=generator) * 2 - 1 for n in frames]
    return [condition(degrade(x, Degradation(operator=Identity(), noise_std=0.0))) for x in videos]


def restored(student, given, state=None):
    state = student.new_state() if state is None else state
    with torch.inference_mode():
        return [student.restore_block(block, state).x_hat for block in given]


def weight_bytes(module):
    return sum(p.numel() * p.element_size() for p in module.parameters())


@pytest.mark.parametrize("resting", RESTING)
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_an_offloaded_student_restores_the_same_bits(kind, resting):
    """Long enough for the ring of keys to go around."""
    given = blocks(9, 12, 12, 12)
    expected = restored(deep_student(kind, window_latents=6), given)
    student = (
        deep_student(kind, window_latents=6).for_device(CPU).placed(replace(WHOLE, resting=resting))
    )
    for actual, wanted in zip(restored(student, given), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


def test_layers_take_turns_in_two_slots():
    student = deep_student().for_device(CPU).placed(replace(WHOLE, resting=Resting.WEIGHTS))
    turns = student.offload.new_turns()
    layers = list(student.transformer.blocks)
    assert turns.device_bytes == SLOTS * weight_bytes(layers[0])
    for _ in range(2):
        seen = []
        for layer, original in zip(turns, layers, strict=True):
            assert layer is not original
            for name, weight in layer.state_dict().items():
                torch.testing.assert_close(weight, original.state_dict()[name], rtol=0, atol=0)
            seen.append(id(layer))
        assert len(set(seen)) == SLOTS


def on_card(kind):
    """A student for the stand-in, whose prompt is numbers of no importance."""
    text = TextRows(torch.zeros(1, 3, DEEP.text_dim), DEEP.text_len)
    return replace(deep_student(kind, window_latents=6), text=text).for_device(CARD)


def restored_on_card(student, state, frames):
    y = torch.empty(1, frames, 3, 16, 32, device=CARD)
    block = Conditioning(y, y, y[:, :, :1], torch.empty(1, 14, device=CARD))
    restored(student, [block], state)


def staying_bytes(student):
    """Weights that never leave the device."""
    layers = student.transformer.blocks
    modulation = sum(layer.modulation.nbytes for layer in layers)
    return weight_bytes(student.transformer) - weight_bytes(layers) + modulation


def cache_bytes(memory):
    kept = [tensor for cache in memory.caches for tensor in (cache._k, cache._v)]
    return sum(t.nbytes for t in (*kept, *memory.text.keys, *memory.text.values, memory.text.bias))


@pytest.mark.parametrize("resting", [Resting.NOTHING, *RESTING])
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_nothing_on_the_device_meets_what_rests(kind, resting, monkeypatch):
    """On a card it would be an error; and what is said to rest takes no memory there."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    student = on_card(kind)
    with MetaCard() as card:
        student = student.placed(replace(WHOLE, resting=resting))
        weights = card.live_bytes
        everything = weight_bytes(student.transformer) + weight_bytes(student.autoencoder)
        assert weights == (staying_bytes(student) if resting else everything)
        state = student.new_state()
        for frames in (9, 12):
            restored_on_card(student, state, frames)
        slots = SLOTS * weight_bytes(student.transformer.blocks[0]) if resting else 0
        past = 0 if resting is Resting.PAST_FRAMES else state.autoencoder.num_bytes()
        assert card.live_bytes == weights + cache_bytes(state.transformer) + slots + past
        del state
        gc.collect()
        assert card.live_bytes == weights


@pytest.mark.parametrize(
    "spec",
    [
        "identity+noise:std=25",
        "blur:sigma=3+noise:std=2.55",
        "down:factor=4",
        "down:factor=4,kernel=area",
        "mask:keep=0.5,seed=0+noise:std=5",
        "blur:sigma=2+down:factor=2+noise:std=2",
        "blur:sigma=2+mask:keep=0.5,seed=0",
        "temporal:kernel=gaussian,size=3,sigma=1",
    ],
)
def test_a_whole_session_keeps_to_the_card_and_leaves_it_as_it_was(spec, monkeypatch):
    """Operators, masks and the correction too: on a card nothing meets a tensor of the CPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(operators, "CG_MAX_STEPS", 2)  # without numbers it never converges
    shape = ClipShape(num_frames=1, height=16, width=32)
    degradation = parse_degradation(spec, shape=shape)
    student = on_card("lean")
    with MetaCard() as card:
        student = student.placed(replace(WHOLE, resting=Resting.PAST_FRAMES))
        weights = card.live_bytes
        session = Session(Amortised(student), degradation, height=16, width=32, device=CARD)
        out = session.push(np.zeros((22, 16, 32, 3), np.uint8))
        assert out.shape == (21, *session.output_size, 3)
        assert card.peak_bytes > weights
        del session
        gc.collect()
        assert card.live_bytes < weights + 1024  # operators keep their gains


@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_a_step_down_frees_the_device_of_what_it_gives_up(kind, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    student = on_card(kind)
    with MetaCard() as card:
        student = student.placed(WHOLE)
        state = student.new_state()
        restored_on_card(student, state, 9)
        OutOfMemory(monkeypatch, student.autoencoder, "decode", at={1, 2, 3})
        restored_on_card(student, state, 12)
        assert state.footprint == Footprint(6, 1, 0, Resting.PAST_FRAMES)
        gc.collect()
        slots = SLOTS * weight_bytes(student.transformer.blocks[0])
        assert card.live_bytes == staying_bytes(student) + cache_bytes(state.transformer) + slots


def test_a_session_that_ended_leaves_nothing_behind():
    student = deep_student().for_device(CPU).placed(replace(WHOLE, resting=Resting.PAST_FRAMES))
    homes = [p.data_ptr() for p in student.autoencoder.parameters()]
    session = Session(Amortised(student), parse_degradation("identity"), height=16, width=16)
    session.push(np.zeros((21, 16, 16, 3), np.uint8))
    turns = weakref.ref(session._state.transformer.layers)
    slots = [weakref.ref(slot) for slot in turns()._slots]
    del session
    gc.collect()
    assert turns() is None
    assert [slot() for slot in slots] == [None] * SLOTS
    assert [p.data_ptr() for p in student.autoencoder.parameters()] == homes


def test_a_student_is_brought_back_and_sent_away_again():
    given = blocks(9, 12)
    student = deep_student().for_device(CPU)
    expected = restored(student, given)
    for resting in (Resting.WEIGHTS, Resting.NOTHING, Resting.PAST_FRAMES):
        student = student.placed(Footprint(21, 3, resting=resting))
        assert student.offload.is_resting == bool(resting)
        state = student.new_state()
        for actual, wanted in zip(restored(student, given, state), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=0, atol=0)
        assert (state.transformer.layers is not None) == bool(resting)


def test_another_prompt_is_read_by_layers_that_rest():
    given, other = blocks(9, 12, 12), small_text(seed=9)
    student = deep_student().for_device(CPU)
    both = []
    for resting in (Resting.NOTHING, Resting.WEIGHTS):
        student = student.placed(Footprint(21, 3, resting=resting))
        state = student.new_state()
        both.append(
            restored(student, given[:1], state)
            + restored(student.with_text(other), given[1:], state)
        )
    for actual, wanted in zip(*both, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)
    assert not torch.equal(both[0][1], restored(student, given)[1])


class OutOfMemory:
    """Raises as a card does, at the given calls of one of the student's parts."""

    def __init__(self, monkeypatch, owner, name, *, at):
        original, self.calls, self.at = getattr(owner, name), 0, at

        def crowded(*args, **kwargs):
            self.calls += 1
            out = original(*args, **kwargs)  # it was under way when memory ran out
            if self.calls in self.at:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return out

        monkeypatch.setattr(owner, name, crowded)


STEPS = [
    Footprint(6, 1),
    Footprint(6, 1, resting=Resting.WEIGHTS),
    Footprint(6, 1, resting=Resting.PAST_FRAMES),
    Footprint(6, 1, TILE_LATENTS[-1], Resting.PAST_FRAMES),
    Footprint(3, 1, TILE_LATENTS[-1], Resting.PAST_FRAMES),
]
"""What is given up one after the other, in frames larger than a tile."""


@pytest.mark.parametrize(
    ("kind", "where", "step"),
    [
        *(("lean", "decoder", step) for step in range(1, len(STEPS) + 1)),
        ("lean", "encoder", 2),
        ("lean", "encoder", 4),
        ("lean", "layer", 1),
        ("lean", "layer", 3),
        ("lean", "layer", 5),
        ("wan", "encoder", 5),
    ],
)
def test_out_of_memory_in_a_block_goes_on_with_the_next_smaller_plan(
    kind, where, step, monkeypatch, caplog
):
    """Earlier blocks are kept, this one is given again, and it and all later ones are those of a
    student that had the smaller plan from there on."""
    size = {"height": 16, "width": 8 * (TILE_LATENTS[-1] + 10)}
    given = blocks(9, 12, 12, **size)
    student = deep_student(kind, window_latents=6).for_device(CPU).placed(WHOLE)
    expected_student = deep_student(kind, window_latents=6)
    expected_state, window = expected_student.new_state(), STEPS[step - 1].window_latents
    expected = restored(expected_student, given[:1], expected_state)
    expected_state.transformer.shrink(window)
    expected_state.footprint = Footprint(window, 3)
    expected += restored(expected_student, given[1:], expected_state)

    state = student.new_state()
    actual = restored(student, given[:1], state)
    owner, name = {
        "encoder": (student.autoencoder, "encode_locally"),
        "layer": (transformer_module, "gated_residual_norm"),
        "decoder": (student.autoencoder, "decode_locally"),
    }[where]
    OutOfMemory(monkeypatch, owner, name, at=range(1, step + 1))
    actual += restored(student, given[1:], state)

    assert state.footprint == STEPS[step - 1]
    assert caplog.text.count("out of memory: going on with") == step
    assert student.offload.is_resting == bool(state.footprint.resting)
    if tile := state.footprint.tile_latents:  # nothing of whole frames is kept beside the tiles
        latent_size = size["height"] // 8, size["width"] // 8
        memory = autoencoder_memory(
            student.autoencoder.config, latent_size=latent_size, chunk_latents=1,
            tile_latents=tile, dtype=torch.float32,
        )  # fmt: skip
        assert state.autoencoder.num_bytes() == memory.encode.past + memory.decode.past
    for block, (got, wanted) in enumerate(zip(actual, expected, strict=True)):
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted, rtol=0, atol=0 if block == 0 else 2e-4)


@pytest.mark.parametrize("call", [1, DEEP.num_layers - 1])
def test_out_of_memory_on_the_way_down_goes_one_step_further(call, monkeypatch):
    """A shorter history is a copy first, and that takes memory, too."""
    given = blocks(9, 12, 12)
    student = replace(deep_student(), memory_limit=Footprint(12, 1))
    expected_state = student.new_state()
    expected = restored(student, given[:2], expected_state)
    expected_state.transformer.shrink(3)
    expected_state.footprint = Footprint(3, 1)
    expected += restored(student, given[2:], expected_state)

    state = student.new_state()
    actual = restored(student, given[:2], state)
    OutOfMemory(monkeypatch, student.autoencoder, "decode", at={1})
    OutOfMemory(monkeypatch, KVCache, "shrink", at={call})
    actual += restored(student, given[2:], state)
    assert state.footprint == Footprint(3, 1)
    assert len({cache.window for cache in state.transformer.caches}) == 1
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_out_of_memory_among_tiles_goes_on_from_what_they_remember(kind, monkeypatch):
    """Blocks were done in tiles; in the third one memory runs out when its first tile is done."""
    given = blocks(9, 12, 12, 12, height=16, width=8 * (TILE_LATENTS[-1] + 10))
    expected = restored(deep_student(kind), given)
    student = replace(deep_student(kind), memory_limit=Footprint(21, 3, TILE_LATENTS[-1]))
    state = student.new_state()
    actual = restored(student, given[:2], state)
    OutOfMemory(monkeypatch, student.autoencoder, "decode_locally", at={2})
    actual += restored(student, given[2:], state)
    assert state.footprint == Footprint(21, 1, TILE_LATENTS[-1])
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-4)


def test_where_nothing_is_left_to_give_up_a_person_is_told(monkeypatch):
    student = deep_student(window_latents=6).for_device(CPU).placed(WHOLE)
    OutOfMemory(monkeypatch, student.autoencoder, "decode", at=range(1, 99))
    session = Session(Amortised(student), parse_degradation("identity"), height=16, width=32)
    with pytest.raises(DeviceMemoryError, match="ran out of memory at 32x16") as caught:
        session.push(np.zeros((9, 16, 32, 3), np.uint8))
    assert "restore smaller frames" in caught.value.hint


def test_memory_that_runs_out_beside_the_student_is_told_too(monkeypatch):
    session = Session(Amortised(deep_student()), parse_degradation("identity"), height=16, width=32)
    OutOfMemory(monkeypatch, guard_module, "consistent_and_measured", at={1})
    with pytest.raises(DeviceMemoryError, match=r"ran out of memory at 32x16$"):
        session.push(np.zeros((9, 16, 32, 3), np.uint8))


def test_a_session_that_begins_anew_does_not_ask_for_more_again(monkeypatch):
    """With half size or without the student under overload it does so again and again."""
    student = deep_student().for_device(CPU).placed(Footprint(21, 3))
    session = Session(Amortised(student), parse_degradation("identity"), height=16, width=32)
    OutOfMemory(monkeypatch, student.autoencoder, "decode", at={1})
    frames = np.zeros((12, 16, 32, 3), np.uint8)
    session.push(frames[:9])
    session.is_student_skipped = True
    session.push(frames)
    assert session._state.footprint == Footprint(21, 1)
    assert session.restarted()._state.footprint == Footprint(21, 1)
    assert student.footprint == Footprint(21, 3)


def test_a_step_down_in_one_session_leaves_the_other_as_it_was(monkeypatch):
    """They share the weights, which one of them sends away."""
    given = blocks(9, 12, 12)
    student = deep_student().for_device(CPU).placed(Footprint(21, 3))
    expected = restored(deep_student(), given)
    ours, theirs = student.new_state(), student.new_state()
    both = [restored(student, given[:1], state) for state in (ours, theirs)]
    with monkeypatch.context() as context:
        OutOfMemory(context, student.autoencoder, "decode", at={1, 2})
        both[0] += restored(student, given[1:2], ours)
    both[1] += restored(student, given[1:], theirs)
    both[0] += restored(student, given[2:], ours)
    assert ours.footprint.resting is Resting.WEIGHTS
    assert theirs.footprint == Footprint(21, 3)
    for actual in both:
        for got, wanted in zip(actual, expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


def test_tiles_that_were_refused_are_not_taken():
    with_tiles, without = (WHOLE.smaller(3, may_tile=may, may_rest=True) for may in (True, False))
    while (step := without.smaller(3, may_tile=False, may_rest=True)) is not None:
        without = step
    while (step := with_tiles.smaller(3, may_tile=True, may_rest=True)) is not None:
        with_tiles = step
    assert (without.tile_latents, with_tiles.tile_latents) == (0, TILE_LATENTS[-1])
    assert without.window_latents == with_tiles.window_latents == 3


class Stream:
    """A stream of a card that keeps what is known to be done before what is asked of it next."""

    def __init__(self):
        self.done, self.known_at_copy = set(), []

    def wait_stream(self, other):
        self.done |= other.done

    @contextmanager
    def copying(self):
        yield
        self.known_at_copy.append(set(self.done))
        self.done.add(("copied", len(self.known_at_copy) - 1))


def test_on_a_card_the_next_layer_comes_while_one_computes_and_not_too_early(monkeypatch):
    """A layer computes when its weights are there; no slot is written while it may be read."""
    turns = deep_student().for_device(CPU).offload.new_turns()
    main, side = Stream(), Stream()
    turns._stream = side
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream.copying())
    starts = (0, DEEP.num_layers)  # two blocks: the second begins while the first computes
    for start in starts:
        for index, _ in enumerate(turns, start):
            assert ("copied", index) in main.done
            assert ("copied", index + 1) not in main.done  # it does not wait for the next
            main.done.add(("computed", index))
    assert len(side.known_at_copy) == 2 * DEEP.num_layers
    for index, known in enumerate(side.known_at_copy):
        if index >= SLOTS:
            assert ("computed", index - SLOTS) in known
        if index not in starts:
            assert ("computed", index - 1) not in known
    assert ("computed", DEEP.num_layers - 1) in side.known_at_copy[DEEP.num_layers]


def test_who_leaves_the_layers_early_waits_for_the_weights_on_their_way(monkeypatch):
    """The slots may be freed then, and a copy into them must not be under way."""
    turns = deep_student().for_device(CPU).offload.new_turns()
    main, side = Stream(), Stream()
    turns._stream = side
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream.copying())
    layers = iter(turns)
    next(layers)
    assert ("copied", 1) not in main.done
    layers.close()
    assert ("copied", 1) in main.done


@pytest.mark.cuda
@pytest.mark.parametrize("resting", RESTING)
@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_on_a_real_card_an_offloaded_student_restores_the_same_bits(kind, resting):
    card = torch.device("cuda")
    generator = torch.Generator().manual_seed(5)
    given = []
    for frames in (9, 12, 12, 12):
        x = (torch.rand(1, frames, 3, 16, 32, generator=generator) * 2 - 1).to(card)
        given.append(Conditioning(x, x, x[:, :, :1], torch.zeros(1, 14, device=card)))
    student = deep_student(kind, window_latents=6).for_device(card)
    expected = restored(student.placed(WHOLE), given)
    offloaded = student.placed(replace(WHOLE, resting=resting))
    for actual, wanted in zip(restored(offloaded, given), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)
