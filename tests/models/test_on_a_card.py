"""What only a card can show: the same video comes out of it, recorded or not, as from the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instantvir_kernels.graphs import CudaRecorder
from instantvir_models.checkpoints.load import load_student
from instantvir_models.media.convert import levels, stored_levels, to_uint8, to_uint16, to_unit
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.students.wan.settings import Footprint
from tests.wan_small import small_student

pytestmark = pytest.mark.cuda

CARD = torch.device("cuda")
WHOLE = Footprint(6, 3)


def moving(frames, height=48, width=64):
    rng = np.random.default_rng(0)
    wide = (
        rng.integers(0, 256, (height // 8, width // 8 + 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    return np.stack([np.roll(wide, -t, 1)[:, :width] for t in range(frames)])


def restored(solver, spec, pixels, device):
    height, width = pixels.shape[1:3]
    degradation = parse_degradation(
        spec, shape=ClipShape(num_frames=len(pixels), height=height, width=width)
    )
    session = Session(solver, degradation, height=height, width=width, device=device, tile_pixels=0)
    return np.concatenate([session.push(pixels), session.flush()])


@pytest.mark.parametrize("kind", ["lean", "wan"])
def test_a_recorded_stream_gives_the_same_pixels(kind):
    # ten blocks: two places in the ring, each filled, launched, recorded and replayed twice
    pixels, given = moving(9 + 9 * 12), {}
    for recorder in (None, CudaRecorder):
        student = small_student(kind, window_latents=6).for_device(CARD)
        student = replace(student.placed(WHOLE), new_recorder=recorder)
        given[recorder] = restored(Amortised(student), "blur:sigma=2+noise:std=5", pixels, CARD)
    np.testing.assert_array_equal(given[None], given[CudaRecorder])


@pytest.mark.parametrize(
    "spec", ["identity+noise:std=10", "blur:sigma=2+noise:std=2", "mask:keep=0.5,seed=0"]
)
def test_the_embedded_student_gives_the_cpu_s_pixels(spec):
    """Within a level where sums round differently."""
    pixels, given = moving(7), {}
    for device in ("cpu", "cuda"):
        student = load_student().student.for_device(torch.device(device))
        given[device] = restored(Amortised(student), spec, pixels, torch.device(device))
    apart = np.abs(given["cpu"].astype(int) - given["cuda"])
    assert apart.mean() < 0.3, apart.mean()
    assert np.quantile(apart, 0.999) <= 4, np.quantile(apart, 0.999)


@pytest.mark.parametrize(("kind", "back"), [(np.uint8, to_uint8), (np.uint16, to_uint16)])
def test_numbers_go_to_the_card_and_come_back(kind, back):
    values = np.arange(np.iinfo(kind).max + 1, dtype=kind)
    pixels = np.resize(values, (1, 256 if kind == np.uint16 else 16, len(values) // 16, 3))
    np.testing.assert_array_equal(back(to_unit(pixels, CARD)), pixels)


def test_what_is_no_number_is_not_black():
    with pytest.raises(ValueError, match="NaN"):
        stored_levels(levels(torch.full((1, 1, 3, 4, 4), float("nan"), device=CARD), 255))


def test_flex_attention_is_compiled_for_more_shapes_than_torch_allows(monkeypatch):
    """Past its limit it built every score: 48 GB at the size of a training sequence."""
    from instantvir_kernels import dispatch

    monkeypatch.setenv("INSTANTVIR_KERNELS", "flex")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for blocks in range(2, 12):  # torch's limit is eight
        q, k, v = (
            torch.randn(1, 512 * blocks, 16, 64, device=CARD, dtype=torch.bfloat16)
            for _ in range(3)
        )
        dispatch.block_causal_attention(q, k, v, tokens_per_block=512)
    every_score = 16 * (512 * 11) ** 2 * 4
    assert torch.cuda.max_memory_allocated() - before < every_score / 3
