"""What `instantvir stream` says about where it writes and serves."""

import os
from contextlib import ExitStack

import pytest

from instantvir_cli import console
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.stream import _begin
from instantvir_models.live.controls import Controls
from instantvir_models.live.serve.preview import LatestPair, PreviewServer
from tests.cli.test_stream import ended, in_this_process, numbers_in, recorded, stream
from tests.live_tools import STATUS


@pytest.mark.parametrize(
    ("host", "token", "is_shown"), [("0.0.0.0", None, True), ("0.0.0.0", "known", False)]
)
def test_a_token_nobody_else_knows_is_shown_even_when_quiet(capsys, host, token, is_shown):
    server = PreviewServer(
        host=host, port=0, pairs=LatestPair(), controls=Controls(), status=lambda: STATUS,
        token=token,
    )  # fmt: skip
    was_quiet, console.console.quiet = console.console.quiet, True
    try:
        with ExitStack() as stack:
            _begin(server, "preview", stack)
    finally:
        console.console.quiet = was_quiet
    assert (server.url in capsys.readouterr().err) is is_shown


@pytest.fixture(scope="module")
def three_frames(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("recorded") / "three.nut", "--frames", 3).read_bytes()


@pytest.fixture
def path(tmp_path, three_frames):
    """A recorded file that a test may lose."""
    path = tmp_path / "in.nut"
    path.write_bytes(three_frames)
    return path


@pytest.mark.parametrize("kind", ["link", "hard link", "file: source", "file: output"])
def test_no_other_name_of_the_input_is_overwritten(tmp_path, path, three_frames, kind):
    source, target = path, tmp_path / "other.nut"
    if kind == "link":
        target.symlink_to(path)
    elif kind == "hard link":
        os.link(path, target)
    elif kind == "file: source":
        source, target = f"file:{path}", path
    else:
        target = f"file:{path}"
    result = in_this_process(source, "-o", target, "--overwrite")
    assert result.exit_code == ExitStatus.USAGE, result.stderr
    assert "is the input itself" in result.stderr
    assert path.read_bytes() == three_frames


def test_a_file_redirected_into_standard_input_is_not_overwritten(path, three_frames):
    with path.open("rb") as source, stream("-o", path, "--overwrite", stdin=source) as restorer:
        status, errors = ended(restorer)
    assert status == ExitStatus.USAGE
    assert "is the input itself" in errors
    assert path.read_bytes() == three_frames


@pytest.mark.parametrize("kind", ["link", "hard link", "file:"])
def test_two_names_of_one_file_are_one_output(tmp_path, path, kind):
    first, second = tmp_path / "first.mkv", tmp_path / "second.mkv"
    first.write_text("precious")
    if kind == "link":
        second.symlink_to(first)
    elif kind == "hard link":
        os.link(first, second)
    else:
        second = f"file:{first}"
    result = in_this_process(path, "-o", first, "-o", second, "--overwrite")
    assert result.exit_code == ExitStatus.USAGE, result.stderr
    assert "is given twice" in result.stderr
    assert first.read_text() == "precious"


def test_an_output_may_be_named_as_ffmpeg_names_files(tmp_path, path):
    result = in_this_process(path, "-o", f"file:{tmp_path / 'out.mkv'}")
    assert result.exit_code == 0, result.stderr
    assert numbers_in(tmp_path / "out.mkv") == [0, 1, 2]


def test_a_format_is_for_outputs_whose_names_tell_none(tmp_path, path):
    """`live.mkv` was a NUT file."""
    result = in_this_process(
        path, "-o", tmp_path / "a.mkv", "-o", tmp_path / "b", "--format", "nut"
    )
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "a.mkv").read_bytes().startswith(b"\x1a\x45\xdf\xa3")
    assert (tmp_path / "b").read_bytes().startswith(b"nut/multimedia")
