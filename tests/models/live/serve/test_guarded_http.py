"""Who may see and change a running stream: this machine, or whoever has the token."""

import base64
import hashlib
import json
import re
import socket
from pathlib import Path

import pytest

from instantvir_models.live.controls import Controls
from instantvir_models.live.serve import metrics, preview
from instantvir_models.live.serve.guarded_http import is_loopback
from instantvir_models.live.serve.preview import LatestPair, PreviewServer, page_policy
from tests.live_tools import STATUS, ask

TURN_OFF = json.dumps({"is_on": False}).encode()


@pytest.fixture
def page():
    server = PreviewServer(
        host="127.0.0.1", port=0, pairs=LatestPair(), controls=Controls(), status=lambda: STATUS
    )
    server.start()
    yield server
    server.stop()


def post(page, path="/controls", *, body=TURN_OFF, length=None, headers=()):
    """The bytes of a POST of JSON."""
    lines = [
        f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{page.port}", *headers,
        *(["Content-Type: application/json"] if not any("Content-Type" in h for h in headers) else []),
        f"Content-Length: {len(body) if length is None else length}",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(page, data):
    """HTTP statuses of everything the server answers to `data` until it closes the connection."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [("/controls", "text/plain", 415), ("/nothing", "application/json", 400)],
)
def test_the_body_of_a_refused_post_is_no_second_request(page, path, kind, code):
    """A page of any site may have text/plain sent here; it must not smuggle a request in it."""
    smuggled = post(page)
    data = post(page, path, body=smuggled, length=len(smuggled), headers=[f"Content-Type: {kind}"])
    assert answers(page, data) == [code]
    assert page.controls.settings.is_on


def test_what_follows_a_post_or_a_get_with_a_body_is_not_read(page):
    once = post(page, body=b'{"strength": 0.5}')
    assert answers(page, once + post(page)) == [200]
    get = f"GET /status.json HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(post(page))}"
    assert answers(page, get.encode() + b"\r\n\r\n" + post(page)) == [200]
    assert page.controls.settings.is_on
    assert page.controls.settings.strength == 0.5


@pytest.mark.parametrize(
    ("length", "code"),
    [("-1", 411), ("+5", 411), ("1e1", 411), ("", 411), ("10001", 413), ("9" * 5000, 413)],
)
def test_a_body_without_a_plain_length_is_refused(page, length, code):
    assert answers(page, post(page, length=length)) == [code]
    assert page.controls.settings.is_on


def test_a_body_in_chunks_is_refused(page):
    data = post(page, headers=["Transfer-Encoding: chunked"])
    assert answers(page, data) == [411]
    assert page.controls.settings.is_on


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["]
)
def test_another_site_changes_nothing(page, origin):
    assert ask(page, "/controls", body={"is_on": False}, headers={"Origin": origin})[0] == 403
    assert page.controls.settings.is_on


def test_the_own_page_may_change_things(page):
    own = {"Origin": f"http://127.0.0.1:{page.port}"}
    assert ask(page, "/controls", body={"is_on": False}, headers=own)[0] == 200
    assert not page.controls.settings.is_on


@pytest.fixture
def metrics_for_all():
    """Metrics on every interface, with a token that a URL has to quote."""
    pytest.importorskip("prometheus_client")
    server = metrics.MetricsServer(lambda: STATUS, host="0.0.0.0", port=0, token="a b&c/#")
    server.start()
    yield server
    server.stop()


def test_metrics_for_other_machines_need_the_token(metrics_for_all):
    server = metrics_for_all
    for path in ("/metrics", "/metrics?token=wrong", "/"):
        assert ask(server, path)[0] == 403
    path = server.url.partition(f":{server.port}")[2]
    code, headers, body = ask(server, path)
    assert code == 200, "the URL that is shown works as it is"
    assert headers["Content-Type"].startswith("text/plain")
    assert b"instantvir_frames_in_total 100.0" in body
    assert ask(server, "/metrics", headers={"X-Token": "a b&c/#"})[0] == 200


def test_metrics_beyond_this_machine_get_a_token_of_their_own():
    pytest.importorskip("prometheus_client")
    server = metrics.MetricsServer(lambda: STATUS, host="0.0.0.0", port=0, token=None)
    server.start()
    try:
        assert server.has_made_token
        assert ask(server, "/metrics")[0] == 403
    finally:
        server.stop()


def test_metrics_of_this_machine_need_none():
    pytest.importorskip("prometheus_client")
    server = metrics.MetricsServer(lambda: STATUS, host="127.0.0.1", port=0, token=None)
    server.start()
    try:
        assert ask(server, "/metrics")[0] == 200
        assert ask(server, "/metrics", headers={"Host": "evil.example"})[0] == 403
        assert ask(server, "/elsewhere")[0] == 404
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("192.168.1.2", False), ("evil.example", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_is_loopback(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1", "GET /status.json HTTP/1.1", "GET /no HTTP/1.1", "BREW / HTTP/1.1",
     "GET //[ HTTP/1.1"],
)  # fmt: skip
def test_every_answer_says_what_may_be_done_with_it(page, request_line):
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall(
            f"{request_line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        connection.shutdown(socket.SHUT_WR)
        head = b"".join(iter(lambda: connection.recv(65536), b"")).split(b"\r\n\r\n")[0].decode()
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"].strip() == "instantvir", "and not of which Python it is"


def test_the_page_may_run_what_is_in_it_and_nothing_else():
    page = b"<style>a</style>x<script>b</script>"
    policy = page_policy(page)
    for inside in (b"a", b"b"):
        digest = base64.b64encode(hashlib.sha256(inside).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    words = Path(preview.__file__).with_name("preview.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", words), "no hash allows these"
