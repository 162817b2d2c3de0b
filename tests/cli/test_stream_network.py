"""Stories of `instantvir stream` and networks with real processes: servers that say nothing."""

import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from instantvir_cli.exit_status import ExitStatus
from tests.cli.test_stream import (
    CAMERA,
    PATIENCE_SECONDS,
    TCP_SERVER,
    ended,
    free_port,
    numbers_in,
    process,
    recorded,
    stream,
    summary_of,
    wait_for,
)
from tests.cli.test_stream import log as log  # the fixture


@contextmanager
def mute_server():
    """A port where connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_mute_rtmp_server_costs_its_own_output_only(tmp_path, log):
    path = recorded(tmp_path / "in.nut", "--frames", 30)
    target = tmp_path / "out.mkv"
    with mute_server() as port, path.open("rb") as source:
        address = f"rtmp://127.0.0.1:{port}/live/x"
        args = ("-o", target, "-o", address, "--silence", 1, "--json-lines", log)
        with stream(*args, stdin=source) as restorer:
            status, errors = ended(restorer)
    assert status == ExitStatus.BAD_OUTPUT, errors
    assert f"cannot open `{address}`: no answer for 1 s" in " ".join(errors.split())
    assert numbers_in(target) == list(range(30))
    file, network = summary_of(log)["outputs"]
    assert (file["frames_written"], network["frames_dropped"]) == (30, 30)


def test_a_mute_rtmp_server_keeps_neither_the_input_from_coming_back_nor_the_end(tmp_path, log):
    """The output was opened with the lock that a reconnection of the input needs, and PyAV opens
    it with the lock of the interpreter: everything stood still."""
    port, target = free_port(), tmp_path / "out.mkv"
    live = [*CAMERA, "--fps", "10", "--format", "mpegts", "--codec", "libx264", "--pix-fmt",
            "yuv420p", "--frames", "15"]  # fmt: skip
    server = [sys.executable, "-c", TCP_SERVER, port, *live]
    with mute_server() as mute:
        args = (
            f"tcp://127.0.0.1:{port}", "-o", f"rtmp://127.0.0.1:{mute}/live/x", "-o", target,
            "--reconnect", "--silence", 600, "--json-lines", log,
        )  # fmt: skip
        with stream(*args) as restorer:
            for _ in range(2):
                with process(*server) as one:
                    one.wait(PATIENCE_SECONDS)
            wait_for(lambda: '"reconnects": 1' in log.read_text(), "the reconnection")
            restorer.send_signal(signal.SIGTERM)
            errors = restorer.communicate(timeout=PATIENCE_SECONDS)[1].decode()
    assert restorer.returncode in (0, ExitStatus.PARTIAL), errors
    summary = summary_of(log)
    network, file = summary["outputs"]
    assert (network["state"], network["frames_written"]) == ("failed", 0)
    assert file["frames_written"] == summary["frames_out"] == len(numbers_in(target)) > 15


@pytest.mark.parametrize("scheme", ["tcp", "udp", "http", "rtsp"])
def test_other_servers_that_take_nothing_do_not_stop_a_file(tmp_path, log, scheme):
    path = recorded(tmp_path / "in.nut", "--frames", 12)
    target = tmp_path / "out.mkv"
    with mute_server() as port, path.open("rb") as source:
        args = ("-o", target, "-o", f"{scheme}://127.0.0.1:{port}", "--silence", 1)
        with stream(*args, "--json-lines", log, stdin=source) as restorer:
            status, errors = ended(restorer)
    assert status in (0, ExitStatus.BAD_OUTPUT), errors
    assert numbers_in(target) == list(range(12))
    assert summary_of(log)["outputs"][0]["state"] == "closed"


@contextmanager
def sent_in_halves(data, *, pause):
    """The address of a server that sends one half of `data`, calls `pause`, and sends the other."""

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.sendall(data[: len(data) // 2])
            pause()
            with suppress(OSError):  # a stream that did not wait is gone
                connection.sendall(data[len(data) // 2 :])

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(PATIENCE_SECONDS)


def transport_stream(tmp_path, num_frames):
    args = ("--format", "mpegts", "--codec", "libx264", "--pix-fmt", "yuv420p", "--noise", 5)
    return recorded(tmp_path / "in.ts", "--frames", num_frames, *args).read_bytes()


def test_a_network_that_is_silent_for_longer_than_silence_is_lost(tmp_path, log):
    target, has_ended = tmp_path / "out.mkv", threading.Event()
    with sent_in_halves(transport_stream(tmp_path, 40), pause=has_ended.wait) as address:
        try:
            args = (address, "-o", target, "--on-overload", "block", "--silence", 1)
            with stream(*args, "--json-lines", log) as restorer:
                status, errors = ended(restorer)
        finally:
            has_ended.set()
    assert status == ExitStatus.PARTIAL, errors
    assert "the input did not end well" in " ".join(errors.split())
    numbers = numbers_in(target)
    assert 0 < len(numbers) < 40
    assert numbers == list(range(len(numbers)))
    assert summary_of(log)["frames_in"] == len(numbers)


@pytest.mark.slow
def test_a_network_may_be_silent_for_ten_seconds(tmp_path, log):
    target = tmp_path / "out.mkv"
    data = transport_stream(tmp_path, 40)
    with sent_in_halves(data, pause=lambda: time.sleep(12)) as address:
        args = (address, "-o", target, "--on-overload", "block", "--json-lines", log)
        with stream(*args) as restorer:
            status, errors = ended(restorer)
    assert status == 0, errors
    assert "input is stuck: waiting for a frame for 1" in " ".join(errors.split())
    assert numbers_in(target) == list(range(40))
    assert summary_of(log)["reconnects"] == 0


def is_listening(port):
    """Whether somebody on this machine waits for connections; to try it would use it up."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines
    )


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux to see who listens")
@pytest.mark.parametrize(
    ("scheme", "container", "options"),
    [("rtsp", "rtsp", ["rtsp_flags=listen", "listen_timeout=60"]), ("rtmp", "flv", ["listen=1"])],
)
def test_a_camera_may_push_to_us(tmp_path, log, scheme, container, options):
    """FFmpeg as the server, so that the protocols are run without one."""
    address, target = f"{scheme}://127.0.0.1:{free_port()}/live/x", tmp_path / "out.mkv"
    wishes = [arg for option in options for arg in ("--input-option", option)]
    args = (address, *wishes, "-o", target, "--on-overload", "block", "--json-lines", log)
    with stream(*args) as restorer:
        port = int(address.split(":")[2].split("/")[0])
        wait_for(lambda: is_listening(port), "listening")
        push = [*CAMERA, "--fps", "12", "--frames", "30", "--codec", "libx264", "--pix-fmt",
                "yuv420p", "--format", container, "--output", address]  # fmt: skip
        with process(*push) as source:
            source.wait(PATIENCE_SECONDS)
            status, errors = ended(restorer)
    assert status in (0, ExitStatus.PARTIAL), (
        errors
    )  # a publisher who hangs up may read as an error
    numbers = numbers_in(target)
    assert numbers == list(range(numbers[0], 30))
    assert len(numbers) == summary_of(log)["frames_out"] >= 20


def test_a_playlist_over_http_is_a_source(tmp_path, log):
    recorded(
        tmp_path / "in.m3u8", "--frames", 30, "--format", "hls", "--codec", "libx264",
        "--pix-fmt", "yuv420p",
    )  # fmt: skip
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_address[1]}/in.m3u8"
            args = (address, "-o", tmp_path / "out.mkv", "--on-overload", "block")
            with stream(*args, "--json-lines", log) as restorer:
                status, errors = ended(restorer)
        finally:
            server.shutdown()
    assert status == 0, errors
    assert numbers_in(tmp_path / "out.mkv") == list(range(30))
    assert summary_of(log)["frames_in"] == 30


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing on standard error."""

    def log_message(self, *args) -> None:
        return
