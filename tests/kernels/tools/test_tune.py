import pytest
import torch

from instantvir_kernels import reference, tiles
from instantvir_kernels.tiles import KERNELS, Tile
from instantvir_kernels.tools import tune
from instantvir_kernels.tools.gate import head_by_head

SMALL, LARGE, WRONG, HUGE = (
    Tile(64, 32, 4, 2),
    Tile(128, 64, 8, 2),
    Tile(1, 1, 1, 1),
    Tile(9, 9, 9, 9),
)
ONES = (torch.ones(3),)


def job(tile):
    if tile == HUGE:
        raise RuntimeError("out of resource: shared memory")
    return (torch.full((3,), float("nan")),) if tile == WRONG else ONES


def timed(speeds):
    return lambda run: speeds[run.args[0]]


def test_the_fastest_tile_that_is_right_wins():
    lines = []
    best = tune.best_tile(
        job, [SMALL, WRONG, HUGE, LARGE], expected=ONES,
        seconds=timed({SMALL: 2e-3, LARGE: 1e-3, WRONG: 1e-6}), say=lines.append,
    )  # fmt: skip
    assert best == (LARGE, 1e-3)
    assert "wrong by nan" in lines[1]
    assert "RuntimeError" in lines[2]


def test_every_head_is_compared():
    """The tables were tuned on the first head alone."""
    expected = (torch.ones(1, 5, 3, 4),)

    def wrong_in_the_last_head(tile):
        out = expected[0].clone()
        out[:, :, 2] = 0.9
        return (out,)

    best = tune.best_tile(
        wrong_in_the_last_head, [SMALL], expected=expected, seconds=timed({SMALL: 1.0}),
        say=lambda line: None,
    )  # fmt: skip
    assert best is None


def test_head_by_head_is_all_heads_at_once():
    q, k, v = (torch.randn(2, 6, 3, 8) for _ in range(3))
    (out,) = head_by_head(lambda *qkv: [reference.attention(*qkv)], q, k, v)
    torch.testing.assert_close(out, reference.attention(q, k, v))


def test_no_tile_is_better_than_a_wrong_one():
    best = tune.best_tile(
        job, [WRONG, HUGE], expected=ONES, seconds=timed({}), say=lambda line: None
    )
    assert best is None


def test_there_are_candidates_for_every_kernel():
    assert set(tune.CANDIDATES) == set(KERNELS)


def test_without_a_card_it_says_so(monkeypatch, capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a card")
    monkeypatch.setattr("sys.argv", ["tune", "--output", str(tmp_path / "tiles.json")])
    assert tune.main() == 1
    assert "no NVIDIA card" in capsys.readouterr().err
    assert not (tmp_path / "tiles.json").exists()


def test_a_table_survives_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "tiles.json"
    tune.write_table(tiles.table(), origin="a test", faster_than_sdpa={90: [128]}, path=path)
    monkeypatch.setattr(tiles, "TABLE_PATH", path)
    assert tiles.table.__wrapped__() == tiles.table()
    assert tiles.faster_than_sdpa.__wrapped__() == {90: [128]}
