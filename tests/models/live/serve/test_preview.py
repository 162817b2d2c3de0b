"""The preview page as a program sees it."""

import contextlib
import json
import socket
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from instantvir_models.live.controls import Controls
from instantvir_models.live.serve.preview import LatestPair, PreviewServer
from tests.live_tools import STATUS, ask, frame
from tests.media_clips import picture


@pytest.fixture
def page():
    pairs, controls = LatestPair(), Controls()
    server = PreviewServer(
        host="127.0.0.1", port=0, pairs=pairs, controls=controls, status=lambda: STATUS
    )
    server.start()
    yield server
    server.stop()


def test_a_viewer_gets_the_latest_pair_side_by_side(page):
    page.pairs.put(frame(0), frame(1, 64, 48))
    page.pairs.put(frame(2), frame(3, 64, 48))
    code, headers, body = ask(page, "/pair.jpg")
    assert (code, headers["X-Number"]) == (200, "2")
    shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(body, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert shown.shape == (48, 128, 3)
    assert np.abs(shown[:, 64:].astype(int) - picture(3, 64, 48)).mean() < 6
    assert np.abs(shown[:, :64].astype(int) - cv2.resize(picture(2, 32, 24), (64, 48))).mean() < 8


def test_two_viewers_share_one_encoding(page):
    page.pairs.put(frame(), frame())
    bodies = []
    threads = [
        threading.Thread(target=lambda: bodies.append(ask(page, "/pair.jpg")[2])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies[0] == bodies[1]
    first = page.pairs.jpeg_after(0)
    assert page.pairs.jpeg_after(0)[1] is first[1]


def test_a_viewer_that_does_not_read_costs_the_stream_nothing(page):
    """Thousands of pairs pass while a viewer holds its connection without reading."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    large = replace(frame(), pixels=noise)
    with socket.create_connection(("127.0.0.1", page.port)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        page.pairs.put(large, large)
        for _ in range(20):
            silent.sendall(b"GET /pair.jpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for number in range(5000):
            page.pairs.put(frame(number), frame(number))
        code, headers, _ = ask(page, "/pair.jpg")
        assert (code, headers["X-Number"]) == (200, "5001")


def test_controls_are_changed_and_told(page):
    code, _, body = ask(page, "/controls", body={"strength": 0.25, "is_on": False})
    assert code == 200
    assert json.loads(body)["controls"] == {
        "is_on": False, "strength": 0.25, "sharpness": 0.0, "can_sharpen": False, "prompt": None,
        "reads_text": False,
    }  # fmt: skip
    assert page.controls.settings.strength == 0.25
    ask(page, "/controls", body={"snapshot": True})
    assert page.controls.take_snapshot_wish()


@pytest.mark.parametrize(
    "body", [{"strength": 2}, {"strength": "much"}, {"is_on": 1}, {"colour": "red"}, [1], {"strength": True}]
)  # fmt: skip
def test_wishes_that_make_no_sense_are_refused(page, body):
    code, _, answer = ask(page, "/controls", body=body)
    assert code == 400
    assert "error" in json.loads(answer)
    assert page.controls.settings == Controls().settings


def test_a_form_of_another_site_changes_nothing(page):
    code, _, _ = ask(
        page, "/controls", body={"is_on": False}, headers={"Content-Type": "text/plain"}
    )
    assert code == 415
    assert page.controls.settings.is_on


def test_a_second_request_cannot_hide_in_a_refused_body(page):
    """A text/plain form of any site may carry one; read as a request it would change controls."""
    wishes = b'{"is_on": false}'
    hidden = (
        b"POST /controls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(wishes), wishes)
    )
    for path, kind in ((b"/controls", b"text/plain"), (b"/nowhere", b"application/json")):
        with socket.create_connection(("127.0.0.1", page.port)) as client:
            client.sendall(
                b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (path, kind, len(hidden), hidden)
            )
            client.shutdown(socket.SHUT_WR)
            answers = b""
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(4096):
                    answers += data
        assert answers.count(b"HTTP/1.1") <= 1
        assert page.controls.settings.is_on


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"Origin": "http://evil.example"}, 403), ({"Content-Length": "-1"}, 411)],
)
def test_requests_of_other_sites_and_without_end_are_refused(page, headers, code):
    assert ask(page, "/controls", body={"is_on": False}, headers=headers)[0] == code
    assert page.controls.settings.is_on


def test_the_page_itself_may_change_controls(page):
    origin = {"Origin": f"http://127.0.0.1:{page.port}"}
    assert ask(page, "/controls", body={"is_on": False}, headers=origin)[0] == 200


def test_a_name_that_points_here_is_not_this_machine(page):
    assert ask(page, "/status.json", headers={"Host": f"evil.example:{page.port}"})[0] == 403


def test_others_need_the_token():
    server = PreviewServer(
        host="0.0.0.0", port=0, pairs=LatestPair(), controls=Controls(), status=lambda: STATUS
    )
    server.start()
    try:
        assert len(server.token) >= 16
        assert server.token in server.url
        for path in ("/", "/status.json", "/pair.jpg", "/status.json?token=wrong"):
            assert ask(server, path)[0] == 403
        assert ask(server, "/controls", body={"is_on": False})[0] == 403
        assert ask(server, f"/status.json?token={server.token}")[0] == 200
    finally:
        server.stop()


def test_the_page_needs_nothing_from_elsewhere(page):
    code, headers, body = ask(page, "/")
    assert code == 200
    assert headers["Content-Type"].startswith("text/html")
    text = body.decode()
    assert "http://" not in text
    assert "https://" not in text
    assert ask(page, "/etc/passwd")[0] == 404
