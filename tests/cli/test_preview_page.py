"""The preview page as a person uses it, in a browser: the prompt, and what goes wrong."""

import shutil
import signal
import subprocess
import urllib.request

import cv2
import pytest

from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.checkpoints.prompt import cache_path, save_rows
from tests.chromium import chromium
from tests.cli.test_stream import ENVIRONMENT, PATIENCE_SECONDS, camera, free_port, stream, wait_for
from tests.wan_small import TRANSFORMER, small_student, small_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium"),
]

SHOWN_ERROR = (
    "!document.getElementById('error').hidden && document.getElementById('error').textContent"
)


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=10).status == 200
    except OSError:
        return False


@pytest.fixture
def watched(tmp_path):
    """Starts a stream with a page and gives the page and the process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"

    def begin(stack, *args):
        source = stack.enter_context(camera("--fps", 2, "--seconds", 600, "--size", "96x64"))
        restorer = stack.enter_context(
            stream(
                *args, "--preview", port, "--snapshots", tmp_path, stdin=source.stdout,
                stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        wait_for(lambda: answers(address + "status.json"), "the page")
        page = stack.enter_context(chromium(tmp_path / "profile"))
        page.open(address)
        page.wait("document.title == 'instantvir stream: live'")
        return page, restorer

    return begin


@pytest.fixture
def stack():
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield stack


def test_a_student_that_reads_no_text_gets_no_field_for_it(watched, stack, tmp_path):
    page, restorer = watched(stack)
    page.wait("document.getElementById('state').textContent.startsWith('live for')")
    assert page.value("getComputedStyle(document.getElementById('prompt-form')).display") == "none"
    assert page.value("getComputedStyle(document.getElementById('error')).display") == "none"
    page.value("document.getElementById('snapshot').click()")
    wait_for(lambda: len(list(tmp_path.glob("snapshot_*.png"))) == 2, "the pair")
    page.screenshot(tmp_path / "tiny.png")
    restorer.send_signal(signal.SIGTERM)
    assert restorer.wait(PATIENCE_SECONDS) == 0
    page.value("document.getElementById('on').click()")
    assert page.wait(SHOWN_ERROR) == "the stream did not answer, so nothing was changed"


def test_a_prompt_typed_into_the_page_is_told_or_refused_in_a_sentence(
    watched, stack, tmp_path, monkeypatch
):
    cache = str(tmp_path / "cache")
    encoder = str(tmp_path / "nowhere")
    for name, value in (("XDG_CACHE_HOME", cache), ("INSTANTVIR_TEXT_ENCODER", encoder)):
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)
    folder = tmp_path / "checkpoint"
    save_folder(small_student(window_latents=6), folder, WanCheckpoint(task="denoise"))
    size = {"text_dim": TRANSFORMER.text_dim, "text_len": TRANSFORMER.text_len}
    save_rows(small_text().rows, cache_path("a red square", **size), text="a red square")
    page, restorer = watched(stack, "--model", folder)
    page.wait("!document.getElementById('prompt-form').hidden")

    def say(text):
        page.value("document.getElementById('prompt').select()")
        page.type(text)
        page.press_enter()

    say("words that nobody encoded")
    assert "text encoder" in page.wait(SHOWN_ERROR)
    page.screenshot(tmp_path / "refused.png")
    say("/etc/rows.safetensors")
    page.wait(f"({SHOWN_ERROR} || '').includes('is a text, not a file')")
    assert page.value("getComputedStyle(document.getElementById('error')).display") == "block"
    say("a red square")
    page.wait("document.getElementById('error').hidden")
    page.wait("shownPrompt == 'a red square'")
    assert page.value("document.getElementById('prompt').value") == "a red square"
    page.screenshot(tmp_path / "told.png")
    assert cv2.imread(str(tmp_path / "told.png")).std() > 5
    restorer.send_signal(signal.SIGTERM)
    assert restorer.wait(PATIENCE_SECONDS) == 0
