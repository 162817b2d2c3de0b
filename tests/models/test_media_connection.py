"""Network outputs: no server may hold up the program, whatever it leaves unsaid."""

import socket
import threading
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest

from instantvir_models.errors import VideoWriteError
from instantvir_models.media import EncoderSettings, Frame, create_video
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


@pytest.mark.parametrize(
    ("scheme", "options", "format_name", "begins_with"),
    [("udp", "?pkt_size=1316", "mpegts", 0x47), ("rtp", "", "rtp_mpegts", 0x80), ("rtp", "", "rtp", 0x80)],
)  # fmt: skip
def test_every_datagram_begins_with_a_packet(scheme, options, format_name, begins_with):
    """A receiver joins at any datagram; cut anywhere else, half of them make no sense to it."""
    rng = np.random.default_rng(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{receiver.getsockname()[1]}{options}"
        connection = Connection(address, timeout_seconds=20, given_up=threading.Event())
        writer = create_video(
            connection, width=96, height=64, output_format=format_name, is_live=True,
            settings=EncoderSettings(codec="mpeg2video", low_latency=True),
        )  # fmt: skip
        received = []
        for number in range(10):
            pixels = rng.integers(0, 255, (64, 96, 3)).astype(np.uint8)
            writer.write(Frame(pixels, number, Fraction(1, 25), 1))
            received += datagrams_in(receiver)
        writer.close()
        connection.close()
    assert len(received) > 10
    assert {data[0] for data in received} == {begins_with}


def datagrams_in(receiver):
    """What has arrived by now."""
    receiver.settimeout(0.05)
    found = []
    with suppress(TimeoutError):
        while True:
            found.append(receiver.recv(65536))
    return found
