"""The logic of recording a block; the launches are played by a recorder that has no card."""

from contextlib import contextmanager

import pytest
import torch

from instantvir_kernels.graphs import BlockGraphs


class Player:
    """A recording as CUDA makes it: launches go in without running, and run on the same addresses."""

    def __init__(self):
        self.replays = 0
        self.launches = []

    def replay(self):
        self.replays += 1
        for launch in self.launches:
            launch()


class FakeRecorder:
    def __init__(self):
        self.players = []
        self.current = None

    def warm_up(self, run):
        run()

    def record(self):
        player = Player()
        self.players.append(player)

        @contextmanager
        def recording():
            self.current = player
            yield
            self.current = None

        return player, recording()


@pytest.fixture
def recorder():
    return FakeRecorder()


@pytest.fixture
def graphs(recorder):
    """out = 2 x, launched as a kernel would be: at once, or into the recording."""

    def step(x):
        out = torch.empty_like(x)

        def launch():
            torch.mul(x, 2, out=out)

        if recorder.current is None:
            launch()
        else:
            recorder.current.launches.append(launch)
        return (out,)

    return BlockGraphs(step, recorder)


def test_every_call_returns_what_the_step_computes(graphs, recorder):
    for value in (1.0, 2.0, 3.0):
        (out,) = graphs(torch.full((3,), value), slot=0, is_steady=True)
        assert out.tolist() == [2 * value] * 3
    assert len(recorder.players) == 1
    assert recorder.players[0].replays == 2


def test_one_recording_per_slot_of_the_ring_and_no_more(graphs, recorder):
    for block in range(9):
        (out,) = graphs(torch.full((2,), float(block)), slot=block % 3, is_steady=True)
        assert out.tolist() == [2.0 * block] * 2
    assert [player.replays for player in recorder.players] == [2, 2, 2]


def test_nothing_is_recorded_while_the_window_fills(graphs, recorder):
    (out,) = graphs(torch.ones(2), slot=0, is_steady=False)
    assert out.tolist() == [2.0, 2.0]
    assert recorder.players == []


def test_other_shapes_types_and_strides_get_recordings_of_their_own(graphs, recorder):
    for x in (torch.ones(4, 2), torch.ones(2, 4), torch.ones(2, 4).t(), torch.ones(4, 2).double()):
        graphs(x, slot=0, is_steady=True)
    assert len(recorder.players) == 4


def test_without_a_recorder_everything_runs_eagerly():
    graphs = BlockGraphs(lambda x: (x + 1,), None)
    for _ in range(2):
        assert graphs(torch.ones(1), slot=0, is_steady=True)[0].item() == 2
