"""Stories of `instantvir stream --control` and `instantvir control`, with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.prompt import load_rows, save_rows
from instantvir_models.cpu import fastest_dtype
from instantvir_models.live.controls import Controls
from instantvir_models.live.serve.control_socket import ControlSocket
from instantvir_models.live.streaming import new_controls
from instantvir_models.media import open_video
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from tests.cli.test_stream import (
    ENVIRONMENT,
    PATIENCE_SECONDS,
    ROOT,
    camera,
    ended,
    free_port,
    recorded,
    stream,
    wait_for,
)
from tests.live_tools import STATUS
from tests.wan_small import TRANSFORMER, small_student, small_text

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")

SPEC = "identity+noise:std=3"


def control(path, *wish):
    """(exit status, standard output, standard error in one line) of `instantvir control`."""
    result = CliRunner().invoke(app, ["control", str(path), *wish])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def answer(path, *wish):
    code, out, errors = control(path, *wish)
    assert code == 0, errors
    return json.loads(out)


def test_a_stream_without_a_page_is_controlled_and_cleans_up(tmp_path):
    path, kept = tmp_path / "s", tmp_path / "kept"
    kept.mkdir()
    with (
        camera("--fps", 20, "--seconds", 300) as source,
        stream(
            "-o", tmp_path / "out.mkv", "--control", path, "--snapshots", kept, "--preview",
            free_port(), stdin=source.stdout,
        ) as restorer,
    ):  # fmt: skip
        source.stdout.close()
        wait_for(path.exists, "the socket")
        wait_for(lambda: answer(path, "status")["frames_out"] > 0, "the first frame")
        assert answer(path, "off")["controls"]["is_on"] is False
        assert answer(path, "strength", "0.25")["controls"]["strength"] == 0.25
        assert answer(path, "sharpness", "1.5")["controls"]["sharpness"] == 1.5
        passed = answer(path, "on")
        assert passed["controls"] == {
            "is_on": True, "strength": 0.25, "sharpness": 1.5, "can_sharpen": True, "prompt": None,
            "reads_text": False,
        }  # fmt: skip
        answer(path, "snapshot")
        wait_for(lambda: len(list(kept.glob("snapshot_*.png"))) == 2, "the pair")
        assert control(path, "prompt", "a red square")[2].startswith(
            "error: the student of this stream reads no text"
        )
        with socket.socket(socket.AF_UNIX) as undecided:  # must not hold up the end
            undecided.connect(str(path))
            undecided.sendall(b'{"is_on": fal')
            restorer.send_signal(signal.SIGTERM)
            status = restorer.wait(PATIENCE_SECONDS)
        errors = " ".join(restorer.stderr.read().decode().split())
    assert status == 0, errors
    assert f"controls at {path}: `instantvir control {path} status`" in errors
    assert "kept `snapshot_" in errors
    assert not path.exists()
    for picture in kept.iterdir():
        assert cv2.imread(str(picture)).shape == (64, 96, 3)


def test_a_prompt_given_to_a_running_stream_holds_from_the_next_block(
    tmp_path, monkeypatch, request
):
    """The words change between two blocks of a pipe; the frames are those of the library call."""
    folder, rows, path = tmp_path / "checkpoint", tmp_path / "rows.safetensors", tmp_path / "s"
    save_folder(small_student("lean", window_latents=6), folder, WanCheckpoint(task="denoise"))
    save_rows(small_text(seed=9, rows=5).rows, rows, text="a red square")
    frames = np.random.default_rng(3).integers(0, 256, (9 + 12, 16, 16, 3), dtype=np.uint8)
    target = tmp_path / "out.mkv"
    args = (
        "-", "--size", "16x16", "--pix-fmt", "rgb24", "--fps", 25, "--model", folder, "-o", target,
        "--codec", "ffv1", "--control", path,
    )  # fmt: skip
    with stream(*args, stdin=subprocess.PIPE) as restorer:
        wait_for(path.exists, "the socket")
        restorer.stdin.write(frames[:9].tobytes())
        restorer.stdin.flush()
        wait_for(lambda: answer(path, "status")["frames_out"] == 9, "the first block")
        monkeypatch.chdir(tmp_path)  # the command may run elsewhere than the stream
        told = answer(path, "prompt", rows.name)["controls"]
        assert told == {
            "is_on": True, "strength": 1, "sharpness": 0, "can_sharpen": True, "prompt": str(rows),
            "reads_text": True,
        }  # fmt: skip
        code, _, errors = control(path, "prompt", str(tmp_path / "missing.safetensors"))
        assert (code, "missing.safetensors" in errors) == (ExitStatus.USAGE, True)
        restorer.stdin.write(frames[9:].tobytes())
        restorer.stdin.close()
        restorer.stdin = None
        status, errors = ended(restorer)
    assert status == 0, errors
    student = load_student(str(folder), dtype=fastest_dtype()).student
    text = load_rows(rows, text_dim=TRANSFORMER.text_dim, text_len=TRANSFORMER.text_len)

    def restored(text_of_the_second_block):
        session = Session(Amortised(student), parse_degradation(SPEC), height=16, width=16)
        before = session.push(frames[:9])
        if text_of_the_second_block is not None:
            session.change_text(text_of_the_second_block)
        return np.concatenate([before, session.push(frames[9:])])

    with open_video(target) as reader:
        np.testing.assert_array_equal([frame.pixels for frame in reader], restored(text))
    request.getfixturevalue("unguarded")
    assert not np.array_equal(restored(text)[9:], restored(None)[9:])


def test_what_is_there_is_not_replaced_by_a_socket(tmp_path):
    path = recorded(tmp_path / "in.nut", "--frames", 3)
    before = path.read_bytes()
    result = CliRunner().invoke(
        app,
        ["stream", str(path), "--operator", SPEC, "-o", str(tmp_path / "o.mkv"), "--control", str(path)],
    )  # fmt: skip
    assert result.exit_code == ExitStatus.USAGE
    assert "exists already" in result.stderr
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["in.nut"]


def test_the_page_refuses_a_file_and_tells_why(tmp_path):
    port = free_port()
    with (
        camera("--fps", 20, "--seconds", 300) as source,
        stream("--preview", port, stdin=source.stdout) as restorer,
    ):
        source.stdout.close()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/controls",
            data=b'{"prompt": "/etc/shadow.safetensors"}',
            headers={"Content-Type": "application/json"},
        )

        def refusal():
            try:
                urllib.request.urlopen(request, timeout=20)
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read())["error"]
            except OSError:
                return None

        assert wait_for(refusal, "an answer") == (
            400,
            "a prompt from the page is a text, not a file",
        )
        restorer.send_signal(signal.SIGTERM)
        assert restorer.wait(PATIENCE_SECONDS) in (0, ExitStatus.BAD_INPUT)


def test_a_blank_prompt_takes_the_words_back():
    student = small_student()
    opened = OpenedSolver("small", Amortised(student), torch.device("cpu"))
    controls = new_controls(opened, "a red square", sharpness=0.0)
    assert (controls.settings.prompt, controls.settings.text) == ("a red square", None)
    controls.change(prompt=" \n")
    assert controls.settings.text.rows.shape == (1, 0, TRANSFORMER.text_dim)
    assert controls.settings.text.length == TRANSFORMER.text_len


@pytest.mark.parametrize("prompt", ["\u9752" * 2000, "\U0001f3a5" * 2000, 'a "red"\n\u2028 square'])
def test_a_long_prompt_of_any_letters_arrives_whole(tmp_path, prompt):
    controls = Controls(read_prompt=lambda prompt: small_text())
    server = ControlSocket(tmp_path / "s", controls=controls, status=lambda: STATUS)
    server.start()
    try:
        assert answer(tmp_path / "s", "prompt", prompt)["controls"]["prompt"] == prompt
        assert "characters that no text has" in control(tmp_path / "s", "prompt", "half \udcff")[2]
        assert controls.settings.prompt == prompt
        assert "a number from 0 to 1" in control(tmp_path / "s", "strength", "nan")[2]
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (["dance"], "there is no wish `dance` hint: the wishes are on, off, snapshot, status"),
        (["on", "5"], "`on` takes no value, got `5`"),
        (["strength"], "`strength` needs a value"),
        (["strength", "much"], "the strength is `much`; it is a number from 0 to 1"),
        (["sharpness", "much"], "the sharpness is `much`; it is a number from 0 to 1.5"),
        (["status"], "no stream answers at"),
    ],
)
def test_a_wish_that_cannot_be_sent_is_a_sentence(tmp_path, wish, sentence):
    code, out, errors = control(tmp_path / "s", *wish)
    assert (code, out) == (ExitStatus.USAGE, "")
    assert sentence in errors


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", "ended before it answered"),
        (b"hello\n", "is no stream of instantvir"),
        (b"[1]\n", "is no stream of instantvir"),
        (b"\xff\n", "is no stream of instantvir"),
        (b'{"error": "no", "hint": "ask"}\n', "error: no"),
    ],
)
def test_an_answer_that_does_not_help_is_told(tmp_path, said, expected):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        asking = subprocess.Popen(
            [sys.executable, "-c", "from instantvir_cli.app import app; app()", "control", str(path), "on"],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        connection, _ = server.accept()
        assert json.loads(connection.makefile("rb").readline()) == {"is_on": True}
        connection.sendall(said)
        connection.close()
        out, errors = asking.communicate(timeout=PATIENCE_SECONDS)
    assert (asking.returncode, out) == (ExitStatus.USAGE, b"")
    assert expected in " ".join(errors.decode().split())


def test_a_wish_does_not_import_the_heavy_packages(tmp_path):
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from instantvir_cli.app import app\n"
        f"CliRunner().invoke(app, ['control', {str(tmp_path / 's')!r}, 'on'])\n"
        "print(sorted({'torch', 'av', 'cv2', 'numpy', 'triton'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert os.listdir(tmp_path) == []
