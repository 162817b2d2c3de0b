"""The logic of recording a block, with tapes in the place of CUDA graphs."""

import pytest
import torch

from instantvir_kernels.graphs import BlockGraphs, recorder_for
from tests.tape import TapeRecorder


@pytest.fixture
def recorder():
    return TapeRecorder()


def double(x):
    return (x * 2,)


def test_every_call_returns_what_the_step_computes(recorder):
    graphs = BlockGraphs()
    for value in (1.0, 2.0, 3.0, 4.0):
        (out,) = graphs(recorder, double, torch.full((3,), value), slot=0)
        assert out.tolist() == [2 * value] * 3
    assert [tape.replays for tape in recorder.tapes] == [2]  # launched, recorded, replayed twice


def test_one_recording_per_slot_of_the_ring_and_no_more(recorder):
    graphs = BlockGraphs()
    for block in range(12):
        (out,) = graphs(recorder, double, torch.full((2,), float(block)), slot=block % 3)
        assert out.tolist() == [2.0 * block] * 2
    assert [tape.replays for tape in recorder.tapes] == [2, 2, 2]


def test_what_comes_once_is_not_recorded(recorder):
    graphs = BlockGraphs()
    for x in (torch.ones(4, 2), torch.ones(2, 4), torch.ones(2, 4).t(), torch.ones(4, 2).double()):
        graphs(recorder, double, x, slot=0)
    assert len(graphs) == 0


def test_other_shapes_types_and_strides_get_recordings_of_their_own(recorder):
    graphs = BlockGraphs()
    for _ in range(2):
        for x in (torch.ones(4, 2), torch.ones(2, 4), torch.ones(2, 4).t()):
            graphs(recorder, double, x, slot=0)
    assert len(graphs) == 3


def test_what_is_forgotten_is_recorded_again(recorder):
    graphs = BlockGraphs()
    for _ in range(2):
        graphs(recorder, double, torch.ones(2), slot=0)
    graphs.forget()
    (out,) = graphs(recorder, lambda x: (x * 3,), torch.ones(2), slot=0)
    assert out.tolist() == [3.0, 3.0]


def test_nothing_is_recorded_unless_it_is_asked_for_on_a_card(monkeypatch):
    assert recorder_for("cuda") is None
    monkeypatch.setenv("INSTANTVIR_CUDA_GRAPHS", "1")
    assert recorder_for("cuda") is not None
    assert recorder_for("cpu") is None
