"""`restore --shard`, `--split` and `--cluster` as a person types them; the cluster is played by a pool."""

import json
import threading

import pytest
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.standard_streams import data_of_this_thread_alone, put
from instantvir_models.media import open_video
from tests.media_clips import make_clip

RUNNER = CliRunner()
DENOISE = [
    "--task",
    "denoise",
    "--noise",
    "5",
    "--solver",
    "map",
    "--codec",
    "ffv1",
    "--threads",
    "1",
]


@pytest.fixture
def tapes(tmp_path):
    folder = tmp_path / "tapes"
    folder.mkdir()
    for index in range(4):
        make_clip(folder / f"{index}.mkv", num_frames=2)
    return folder


def restore(*arguments):
    return RUNNER.invoke(app, ["restore", *map(str, arguments), *DENOISE])


def test_shares_make_together_what_one_command_makes(tapes, tmp_path):
    for share in ("0/2", "1/2"):
        result = restore(tapes, "-o", f"{tmp_path}/out/", "--shard", share)
        assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "out").glob("*.mkv"))) == 4


def test_a_share_without_a_video_is_no_failure(tapes, tmp_path):
    shares = [
        restore(tapes, "-o", f"{tmp_path}/out/", "--shard", f"{i}/40", "--json") for i in range(2)
    ]
    assert all(share.exit_code == 0 for share in shares)
    assert all(json.loads(share.stdout) is not None for share in shares)


def test_no_share_is_a_usage_error(tapes, tmp_path):
    result = restore(tapes, "-o", f"{tmp_path}/out/", "--shard", "2/2")
    assert result.exit_code == 2
    assert "`--shard` is 2/2" in result.stderr


def test_a_film_in_pieces_has_its_frames(tmp_path):
    film = make_clip(tmp_path / "film.mkv", num_frames=12, audio=True)
    result = restore(film, "-o", tmp_path / "out.mkv", "--split", 4 / 25 / 60, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["frames"] == 12
    assert len(said["pieces"]) > 1
    with open_video(tmp_path / "out.mkv") as reader:
        assert sum(1 for _ in reader) == 12
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_several_films_are_not_split(tapes, tmp_path):
    result = restore(tapes, "-o", f"{tmp_path}/out/", "--split", 5)
    assert result.exit_code == 2
    assert "one long video" in result.stderr


def test_a_cluster_needs_a_folder_and_is_no_other_kind_of_side_by_side(tapes, tmp_path):
    film = tapes / "0.mkv"
    alone = restore(film, "-o", tmp_path / "out.mkv", "--cluster", "auto")
    assert alone.exit_code == 2
    assert "a folder for the results" in alone.stderr
    both = restore(tapes, "-o", f"{tmp_path}/out/", "--cluster", "auto", "--jobs", 2)
    assert both.exit_code == 2
    assert "`--jobs` is for one machine" in both.stderr


def test_what_a_library_prints_from_a_thread_is_not_among_the_rows(capsys):
    """Ray printed a page for each worker that died, and `--json` was no JSON."""
    with data_of_this_thread_alone():
        put("[")
        library = threading.Thread(target=print, args=("(raylet) A worker died",))
        library.start()
        library.join()
        put("]")
    put("after")
    assert capsys.readouterr().out == "[\n]\nafter\n"
