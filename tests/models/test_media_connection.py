"""Network outputs: no server may hold up the program, whatever it leaves unsaid."""

import socket
import threading

import pytest

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.connection import Connection, can_connect


@pytest.fixture
def mute():
    """The address of a server that accepts and never says or reads anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_is_given_up_after_a_while(mute):
    with pytest.raises(VideoWriteError, match=r"cannot open `rtmp://.*`: no answer for 0.2 s"):
        Connection(f"rtmp://{mute}/live/x", timeout_seconds=0.2, given_up=threading.Event())


def test_while_a_server_lets_us_wait_other_threads_run_and_may_end_it(mute):
    """PyAV's own opening holds the interpreter's lock: this thread would not come to set it."""
    given_up, said = threading.Event(), []

    def connect():
        try:
            Connection(f"rtmp://{mute}/live/x", timeout_seconds=600, given_up=given_up)
        except VideoWriteError as error:
            said.append(str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    given_up.set()
    thread.join(60)
    assert said == [f"cannot open `rtmp://{mute}/live/x`: it was given up"]


def test_a_server_that_takes_nothing_more_is_lost(mute):
    connection = Connection(f"tcp://{mute}", timeout_seconds=0.3, given_up=threading.Event())
    with pytest.raises(TimeoutError, match=r"no answer for 0\.3 s"):
        connection.write(bytes(50_000_000))  # more than any system keeps for a reader
    with pytest.raises(TimeoutError):
        connection.write(b"x")  # at once, not after another wait
    connection.close()
    connection.close()


def test_what_is_written_arrives():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        connection = Connection(address, timeout_seconds=20, given_up=threading.Event())
        other, _ = server.accept()
        with other:
            assert connection.write(b"first ") == 6
            assert other.recv(100) == b"first "
            connection.write(b"last")
            connection.close()
            assert other.recv(100) == b"last"
            assert other.recv(100) == b""


def test_an_address_where_nobody_is_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VideoWriteError, match=f"cannot open `tcp://127.0.0.1:{port}`: Connection"):
        Connection(f"tcp://127.0.0.1:{port}", timeout_seconds=20, given_up=threading.Event())


@pytest.mark.parametrize(
    ("format_name", "expected"),
    [("flv", True), ("mpegts", True), ("rtsp", False), ("hls", False), ("no such", False),
     (None, False)],
)  # fmt: skip
def test_formats_that_connect_by_themselves_are_known(format_name, expected):
    assert can_connect(format_name) is expected
