"""The control socket: its owner's wishes, a line each; and what hostile bytes may not do to it."""

import json
import os
import random
import socket
import stat
import threading
import time
import tracemalloc
from contextlib import contextmanager, suppress

import pytest

from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.live.controls import Controls, ControlSettings
from instantvir_models.live.serve import bounded, control_socket
from instantvir_models.live.serve.control_socket import ControlSocket
from instantvir_models.live.serve.preview import LatestPair, PreviewServer
from tests.live_tools import STATUS, ask, frame
from tests.wan_small import small_text

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


@contextmanager
def listening(path, **options):
    controls = Controls(**options)
    server = ControlSocket(path, controls=controls, status=lambda: STATUS)
    server.start()
    try:
        yield controls
    finally:
        server.stop()


@contextmanager
def connected(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        yield connection


def told(path, data):
    """The answers to `data` until the socket closes the connection, each a JSON object."""
    with connected(path) as connection:
        with suppress(BrokenPipeError):  # it has heard enough
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        lines = []
        with connection.makefile("rb") as answers, suppress(ConnectionResetError):
            for line in answers:
                lines.append(line)  # noqa: PERF402 - what came before a reset is kept
    return [json.loads(line) for line in lines]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def test_a_wish_a_line_and_an_answer_a_line(path):
    with listening(path, read_prompt=lambda prompt: small_text()) as controls:
        answers = told(
            path,
            b'{"is_on": false}\n{"strength": 0.5}\n\n{"prompt": "a red square"}\n'
            b'{"snapshot": true}\n{"status": true}',  # the last one without its line's end
        )
        assert [answer["controls"]["strength"] for answer in answers] == [1, 0.5, 0.5, 0.5, 0.5]
        assert answers[-1]["controls"] == {
            "is_on": False, "strength": 0.5, "sharpness": 0.0, "can_sharpen": False,
            "prompt": "a red square", "reads_text": True,
        }  # fmt: skip
        assert answers[-1]["frames_in"] == STATUS.frames_in
        assert controls.take_snapshot_wish()


def test_a_refusal_is_a_sentence_with_a_hint_and_the_next_line_is_read(path):
    def read(prompt):
        raise CheckpointError(f"`{prompt}` holds no prompt", hint="make one")

    with listening(path, read_prompt=read) as controls:
        first, second = told(
            path, b'{"prompt": "x.safetensors", "is_on": false}\n{"strength": 0}\n'
        )
        assert first == {"error": "`x.safetensors` holds no prompt", "hint": "make one"}
        assert second["controls"]["strength"] == 0
        assert controls.settings == ControlSettings(strength=0)


def test_only_its_owner_may_open_it_and_it_is_gone_at_the_end(path):
    with listening(path):
        mode = path.lstat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_nobody_can_connect_before_it_is_closed_to_others(path, monkeypatch):
    """Between its making and its mode a socket of a lax umask is open to all."""
    real, seen = os.chmod, []

    def chmod(name, mode):
        with socket.socket(socket.AF_UNIX) as early:
            seen.append(early.connect_ex(str(path)))
        real(name, mode)

    monkeypatch.setattr(control_socket.os, "chmod", chmod)
    with listening(path):
        pass
    assert len(seen) == 1
    assert seen[0] != 0


def test_what_a_killed_stream_left_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening(path):
        assert told(path, b"{}\n")[0]["controls"]["is_on"]


def test_what_a_stream_of_another_user_left_stays(path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    monkeypatch.setattr(control_socket.os, "getuid", lambda: path.lstat().st_uid + 1)
    with pytest.raises(UsageError, match="exists already"):
        ControlSocket(path, controls=Controls(), status=lambda: STATUS)
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "link", "dangling link"])
def test_what_is_no_socket_stays(path, kind):
    other = path.with_name("other")
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        if kind == "link":
            other.write_text("precious")
        path.symlink_to(other)
    before = path.lstat()
    with pytest.raises(UsageError, match="exists already"):
        ControlSocket(path, controls=Controls(), status=lambda: STATUS)
    assert path.lstat() == before


def test_a_stream_that_is_alive_keeps_its_socket(path):
    with listening(path) as first:
        with pytest.raises(UsageError, match="another stream listens"):
            ControlSocket(path, controls=Controls(), status=lambda: STATUS)
        told(path, b'{"is_on": false}\n')
        assert not first.settings.is_on


def test_the_end_of_one_stream_does_not_remove_the_socket_of_another(path):
    with listening(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            kept = path.lstat().st_ino
    assert path.lstat().st_ino == kept


@pytest.mark.parametrize("name", ["missing/s", "x" * 200])
def test_a_path_that_cannot_be_is_told(tmp_path, name):
    with pytest.raises(UsageError, match=r"cannot make the control socket|cannot look at"):
        ControlSocket(tmp_path / name, controls=Controls(), status=lambda: STATUS)
    assert list(tmp_path.iterdir()) == []


def test_a_system_without_such_sockets_is_told(path, monkeypatch):
    monkeypatch.delattr(control_socket.socket, "AF_UNIX")
    with pytest.raises(UsageError, match="no sockets in the file system") as caught:
        ControlSocket(path, controls=Controls(), status=lambda: STATUS)
    assert "--preview" in caught.value.hint


def hostile_lines():
    """Bytes nobody means well with, each without its line's end."""
    rng = random.Random(0)
    yield from (
        b"\0", b"\xff\xfe", b'{"prompt": "\xc3\x28"}', b"{", b'"', b"{}}", b"NaN", b"[" * 9000,
        b'{"a":' * 1500, b'{"strength": NaN}', b'{"strength": -Infinity}', b'{"strength": 1e999}',
        b'{"strength": 1' + b"0" * 400 + b"}", b'{"strength": 1' + b"0" * 9000 + b"}",
        b'{"is_on": "\\ud800"}', b'{"prompt": "\\ud800"}', b'{"prompt": "\\u0000"}',
        b'{"prompt": "../../../etc/passwd\\u0000.safetensors"}', b'{"__class__": 1}',
        b'{"\\ud800": 1}', b'{"prompt": {"prompt": 1}}',
        b"GET / HTTP/1.1\r", b"\xef\xbb\xbf{}",
    )  # fmt: skip
    for _ in range(300):
        yield (
            bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))).replace(b"\n", b"")
            or b"x"
        )
    good = b'{"is_on": true, "strength": 0.75, "snapshot": false, "prompt": "words"}'
    for _ in range(300):
        line = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            line[rng.randrange(len(line))] = rng.choice(b'{}[]":,.\\u0 tfn1e9-+\xff')
        yield bytes(line)


def test_every_hostile_line_gets_an_answer_and_the_last_wish_is_heard(path, caplog):
    lines = list(hostile_lines())
    with listening(path, read_prompt=lambda prompt: small_text()) as controls:
        for start in range(0, len(lines), 25):
            some = [line for line in lines[start : start + 25] if line.strip()]
            answers = told(path, b"\n".join([*some, b'{"is_on": true, "strength": 0.25}']))
            assert len(answers) == len(some) + 1
            assert all(("error" in answer) != ("controls" in answer) for answer in answers)
            assert answers[-1]["controls"]["strength"] == 0.25
        assert controls.settings.strength == 0.25
    assert caplog.records == [], "a request ended in a traceback"


def test_the_page_survives_the_same(caplog):
    controls, pairs = Controls(read_prompt=lambda prompt: small_text()), LatestPair()
    pairs.put(frame(), frame())
    server = PreviewServer(
        host="127.0.0.1", port=0, pairs=pairs, controls=controls, status=lambda: STATUS
    )
    server.start()
    try:
        for line in hostile_lines():
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(
                    b"POST /controls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
                    b"\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line)
                )
                status = connection.makefile("rb").readline()
            assert status.split()[1] in (b"200", b"400"), line
        for address in (
            "http://[",
            "/pair.jpg?after=" + "9" * 5000,
            "/status.json?a[=%00%ff&&&=",
            "/%",
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 ")
        assert ask(server, "/controls", body={"strength": 0.125})[0] == 200
        assert controls.settings.strength == 0.125
    finally:
        server.stop()
    assert caplog.records == [], "a request ended in a traceback"


def test_a_line_of_ten_megabytes_is_not_kept_in_memory(path):
    with listening(path):
        for line in (b" " * 10_000_000 + b'{"is_on": false}\n', b"x" * 10_000_000):
            tracemalloc.start()
            try:
                answers = told(path, line)
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert answers in ([], [{"error": "the line is too long", "hint": None}])
            assert peak_bytes < 2_000_000
        assert told(path, b"{}\n")[0]["controls"]["is_on"]


def test_a_line_that_is_just_too_long_is_refused_and_nothing_after_it_is_read(path):
    with listening(path) as controls:
        answers = told(path, b" " * bounded.LARGEST_REQUEST_BYTES + b'\n{"is_on": false}\n')
        assert answers == [{"error": "the line is too long", "hint": None}]
        assert controls.settings.is_on


def eventually(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def many(connect, number):
    connections = [connect() for _ in range(number)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def to_path(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    return connection


def test_programs_that_say_nothing_do_not_keep_the_owner_out(path):
    most = control_socket._Server.most_connections
    with listening(path), many(lambda: to_path(path), most) as held:
        for connection in held:  # each is served, and then says half a line
            connection.sendall(b'{"status": true}\n{"is')
            assert connection.makefile("rb").readline().startswith(b"{")
        before = threading.active_count()
        for _ in range(3):
            assert "controls" in told(path, b"{}\n")[0]
        eventually(lambda: threading.active_count() <= before)


def test_viewers_that_say_nothing_do_not_keep_the_owner_out():
    server = PreviewServer(
        host="127.0.0.1", port=0, pairs=LatestPair(), controls=Controls(), status=lambda: STATUS
    )
    server.start()

    def hold():
        return socket.create_connection(("127.0.0.1", server.port), timeout=20)

    try:
        with many(hold, bounded.BoundedThreads.most_connections) as held:
            for connection in held[::2]:
                connection.sendall(b"GET /pair.jpg?after=9 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            for connection in held[1::2]:
                connection.sendall(b"GET /sta")
            for _ in range(3):
                assert ask(server, "/status.json")[0] == 200
    finally:
        server.stop()


@contextmanager
def places(most):
    """Places, and ends of connections to take them with."""
    pairs = [socket.socketpair() for _ in range(most + 2)]
    try:
        yield bounded.Places(most), [one for one, _ in pairs], [other for _, other in pairs]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_who_is_being_answered_keeps_the_place():
    with places(2) as (found, ours, theirs):
        for connection in ours[:2]:
            assert found.take(connection, 60)
            found.work(connection)
        assert not found.take(ours[2], 60), "nobody waits, so nobody is sent away"
        found.wait(ours[0])
        assert found.take(ours[2], 60)
        assert theirs[0].recv(1) == b"", "that one was sent away"
        found.wait(ours[0])  # its thread has not noticed yet
        found.free(ours[1])
        assert found.take(ours[3], 60)


def test_who_has_waited_longest_goes_first():
    with places(2) as (found, ours, theirs):
        assert found.take(ours[0], 60)
        assert found.take(ours[1], 60)
        found.wait(ours[0])  # it has just sent something, and waits again
        assert found.take(ours[2], 60)
        assert theirs[1].recv(1) == b""
        theirs[0].settimeout(0.01)
        with pytest.raises(TimeoutError):
            theirs[0].recv(1)


def test_a_byte_now_and_then_does_not_make_the_time_longer():
    with places(2) as (found, ours, theirs):
        assert found.take(ours[0], -1)
        assert found.take(ours[1], 60)
        found.wait(ours[0])  # without a number its time goes on
        found.end_those_who_are_late()
        assert theirs[0].recv(1) == b""
        found.wait(ours[1], -1)
        found.end_those_who_are_late()
        assert theirs[1].recv(1) == b""


def test_a_client_that_never_reads_costs_the_others_nothing(path):
    with listening(path), connected(path) as silent:
        silent.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # until answers and lines have filled every buffer
                silent.send(b'{"status": true}\n' * 100)
        assert told(path, b"{}\n")[0]["controls"]["is_on"]
    assert not path.exists(), "and the end does not wait for it"


def test_a_silent_client_is_let_go(path, monkeypatch):
    assert control_socket._Handler.timeout == control_socket.SILENT_CLIENT_SECONDS
    monkeypatch.setattr(control_socket._Handler, "timeout", 0.05)
    with listening(path), connected(path) as connection:
        connection.sendall(b'{"is_on": fal')
        assert connection.recv(1) == b""


def test_a_bug_ends_its_connection_and_is_told(path, caplog):
    def broken():
        raise ZeroDivisionError

    server = ControlSocket(path, controls=Controls(), status=broken)
    server.start()
    try:
        assert told(path, b"{}\n") == []
        assert told(path, b'{"strength": 3}\n')[0]["error"]
    finally:
        server.stop()
    assert "a request could not be answered" in caplog.text
    assert "ZeroDivisionError" in caplog.text
