"""Pairs of pictures kept while a stream runs: exact, whole, and at nobody else's cost."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from instantvir_models.live import snapshot
from instantvir_models.live.controls import Controls
from instantvir_models.live.snapshot import Snapshots
from tests.live_tools import frame
from tests.media_clips import picture
from tests.small_disk import small_disk


@pytest.fixture
def controls():
    return Controls()


def keep(snapshots, controls, *numbers):
    """Let the pair of these two frames be wanted and pass by."""
    controls.ask_for_snapshot()
    snapshots.consider(*(frame(number) for number in numbers))


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


def shown(path):
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB)


def test_a_snapshot_is_a_pair_of_exact_pictures(tmp_path, controls):
    said = []
    with Snapshots(tmp_path, controls, on_event=said.append) as snapshots:
        snapshots.consider(frame(), frame(1))
        keep(snapshots, controls, 5, 6)
        snapshots.consider(frame(7), frame(8))
    assert kept(tmp_path) == ["snapshot_0.200_original.png", "snapshot_0.200_restored.png"]
    for name, number in (("original", 5), ("restored", 6)):
        np.testing.assert_array_equal(
            shown(tmp_path / f"snapshot_0.200_{name}.png"), picture(number, 32, 24)
        )
    assert len(said) == 1
    assert "kept `snapshot_0.200_original.png`" in said[0]


def test_sixteen_bits_are_kept(tmp_path, controls):
    deep = replace(frame(), pixels=picture(0, 32, 24).astype(np.uint16) * 257 + 3)
    with Snapshots(tmp_path, controls, on_event=print) as snapshots:
        controls.ask_for_snapshot()
        snapshots.consider(deep, deep)
    np.testing.assert_array_equal(shown(tmp_path / "snapshot_0.000_restored.png"), deep.pixels)


def test_a_picture_that_is_there_stays(tmp_path, controls):
    """The time of a source that came back begins again; its pictures replaced the first ones."""
    precious = tmp_path / "snapshot_0.200_restored.png"
    precious.write_text("precious")
    with Snapshots(tmp_path, controls, on_event=print) as snapshots:
        keep(snapshots, controls, 5, 6)
        keep(snapshots, controls, 5, 7)
    assert precious.read_text() == "precious"
    assert kept(tmp_path) == [
        "snapshot_0.200-2_original.png", "snapshot_0.200-2_restored.png",
        "snapshot_0.200-3_original.png", "snapshot_0.200-3_restored.png",
        "snapshot_0.200_restored.png",
    ]  # fmt: skip


@pytest.mark.parametrize("room", [0, 20_000, 120_000])
def test_a_full_disk_leaves_no_half_picture_and_no_half_pair(tmp_path, controls, room):
    said = []
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    with small_disk(room), Snapshots(tmp_path, controls, on_event=said.append) as snapshots:
        controls.ask_for_snapshot()
        snapshots.consider(frame(5), replace(frame(6), pixels=noise))
    name = tmp_path / f"snapshot_0.200_{'restored' if room else 'original'}.png"
    assert said == [f"cannot keep a pair in `{tmp_path}`: cannot write `{name}`: File too large"]
    assert kept(tmp_path) == []


def test_a_folder_that_is_missing_is_told_and_the_next_pair_is_tried(tmp_path, controls):
    said, folder = [], tmp_path / "later"
    is_told = threading.Event()

    def on_event(sentence):
        said.append(sentence)
        is_told.set()

    with Snapshots(folder, controls, on_event=on_event) as snapshots:
        keep(snapshots, controls, 5, 6)
        assert is_told.wait(20)
        folder.mkdir()
        keep(snapshots, controls, 5, 6)
    assert "cannot keep a pair" in said[0]
    assert len(kept(folder)) == 2


def test_a_disk_that_hangs_costs_pairs_and_not_the_stream(tmp_path, monkeypatch, controls):
    said, may_write, real = [], threading.Event(), snapshot.write_whole

    def slow(path, data):
        assert may_write.wait(20)
        real(path, data)

    monkeypatch.setattr(snapshot, "write_whole", slow)
    with Snapshots(tmp_path, controls, on_event=said.append) as snapshots:
        for number in range(20):
            keep(snapshots, controls, number, number)  # waits for nothing
        told = len([sentence for sentence in said if "too slowly" in sentence])
        assert told >= 20 - snapshot.MOST_WAITING - 1
        may_write.set()
    assert len(kept(tmp_path)) == 2 * (20 - told), "what was taken is kept at the end"


def test_a_disk_that_never_answers_does_not_hold_up_the_end(tmp_path, monkeypatch, controls):
    said, is_over = [], threading.Event()
    monkeypatch.setattr(snapshot, "GRACE_SECONDS", 0.01)
    monkeypatch.setattr(snapshot, "write_whole", lambda path, data: is_over.wait(20))
    with Snapshots(tmp_path, controls, on_event=said.append) as snapshots:
        keep(snapshots, controls, 1, 2)
    assert "the last ones were not kept" in said[0]
    is_over.set()
