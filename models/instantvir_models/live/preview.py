"""A page in the browser: original and restored side by side under a wipe, numbers and controls.

Viewers ask for the latest pair and get it: there is no queue, so one that is slow or stops reading
costs the stream nothing.
"""

import hmac
import ipaddress
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import cv2
import numpy as np

from instantvir_models.errors import UsageError
from instantvir_models.live.controls import Controls
from instantvir_models.live.fit import fitted
from instantvir_models.live.status import LiveStatus
from instantvir_models.media import Frame
from instantvir_models.media.frame import Pixels

JPEG_QUALITY = 85
LONGEST_POLL_SECONDS = 5.0
LARGEST_REQUEST_BYTES = 10_000
VIEWER_TIMEOUT_SECONDS = 30.0

_PAGE = Path(__file__).with_name("preview.html")


class LatestPair:
    """The newest measured and restored frame, and their JPEG once somebody asks for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pair: tuple[Frame, Frame] | None = None
        self._number = 0
        self._jpeg: tuple[int, bytes] = (0, b"")
        self._encoding = threading.Lock()

    def put(self, measured: Frame, restored: Frame) -> None:
        """Replace the pair."""
        with self._changed:
            self._pair = (measured, restored)
            self._number += 1
            self._changed.notify_all()

    def jpeg_after(self, number: int) -> tuple[int, bytes] | None:
        """Number and JPEG of a pair newer than `number`; None if none comes for a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, LONGEST_POLL_SECONDS)
            if self._pair is None or self._number <= number:
                return None
            newest, pair = self._number, self._pair
        with self._encoding:  # viewers share one encoding
            if self._jpeg[0] < newest:
                self._jpeg = (newest, pair_jpeg(*pair))
            return self._jpeg


def pair_jpeg(measured: Frame, restored: Frame) -> bytes:
    """Both frames side by side at the restored size, measured on the left."""
    shown = as_uint8(restored.pixels)
    left = fitted(as_uint8(measured.pixels), (shown.shape[0], shown.shape[1]))
    both = cv2.cvtColor(np.hstack([left, shown]), cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", both, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok
    return data.tobytes()


def as_uint8(pixels: Pixels) -> Pixels:
    """The upper eight bits."""
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


class PreviewServer:
    """Serves the page, the latest pair, the status and the controls.

    Args:
        host: only a loopback address may do without a token.
        port: 0 takes a free one.
        token: that requests must carry; one is made where the host needs it.

    Raises:
        UsageError: if the address cannot be used.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        pairs: LatestPair,
        controls: Controls,
        status: Callable[[], LiveStatus],
        token: str | None = None,
    ) -> None:
        self.pairs, self.controls, self.status = pairs, controls, status
        self.is_loopback = is_loopback(host)
        self.token = token if token or self.is_loopback else secrets.token_urlsafe(16)
        server = self

        class Handler(_Handler):
            preview = server

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise UsageError(
                f"cannot serve the preview on {host}:{port}: {error.strerror or error}",
                hint="choose another port",
            ) from error
        self.port = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/" + (
            f"?token={quote(self.token)}" if self.token else ""
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="instantvir-preview", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; viewers that hang are left behind."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a viewer that stopped reading must not hold up the end

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    preview: PreviewServer
    protocol_version = "HTTP/1.1"
    timeout = VIEWER_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # a body that nobody reads is no second request
        if not self._may(query):
            return
        if parts.path == "/":
            self._answer(200, "text/html; charset=utf-8", _PAGE.read_bytes())
        elif parts.path == "/pair.jpg":
            self._answer_pair(query)
        elif parts.path == "/status.json":
            self._answer_json(200, self._status())
        else:
            self._answer_json(404, {"error": "there is no such page"})

    def do_POST(self) -> None:
        # Whatever of the body is not read must never count as a second request.
        self.close_connection = True
        parts = urlsplit(self.path)
        length = self.headers.get("Content-Length") or ""
        origin = self.headers.get("Origin")
        if not self._may(parse_qs(parts.query)):
            return
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self._refuse("this is not the page of another site")
        elif "Transfer-Encoding" in self.headers or not length.isdecimal():
            self._answer_json(411, {"error": "say how long the request is"})
        elif int(length) > LARGEST_REQUEST_BYTES:
            self._answer_json(413, {"error": "the request is too large"})
        # A form of another site cannot send JSON without asking first.
        elif self.headers.get_content_type() != "application/json":
            self._answer_json(415, {"error": "send application/json"})
        elif parts.path == "/controls":
            self._change_controls(self.rfile.read(int(length)))
        else:
            self._answer_json(404, {"error": "there is no such control"})

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""

    def _may(self, query: dict[str, list[str]]) -> bool:
        preview = self.preview
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].strip("[]")
        if preview.is_loopback and not is_loopback(host):
            # A name that somebody made point here, so that his page may read this one.
            self._refuse("this page is for this machine only")
            return False
        given = query.get("token", [""])[0] or self.headers.get("X-Token", "")
        if preview.token and not hmac.compare_digest(given.encode(), preview.token.encode()):
            self._refuse("the address needs `?token=...`")
            return False
        return True

    def _refuse(self, reason: str) -> None:
        self.close_connection = True  # the body of a refused request is not read
        self._answer_json(403, {"error": reason})

    def _change_controls(self, body: bytes) -> None:
        try:
            apply_wishes(self.preview.controls, json.loads(body))
        except (ValueError, UsageError) as error:
            self._answer_json(400, {"error": str(error)})
        else:
            self._answer_json(200, self._status())

    def _status(self) -> dict[str, Any]:
        return {
            **asdict(self.preview.status()),
            "controls": asdict(self.preview.controls.settings),
            "now": time.time(),
        }

    def _answer_pair(self, query: dict[str, list[str]]) -> None:
        after = query.get("after", ["0"])[0]
        found = self.preview.pairs.jpeg_after(int(after) if after.isdecimal() else 0)
        if found is None:
            self._answer(204, "image/jpeg", b"")
        else:
            self._answer(200, "image/jpeg", found[1], number=found[0])

    def _answer_json(self, code: int, content: dict[str, Any]) -> None:
        self._answer(code, "application/json", json.dumps(content).encode())

    def _answer(self, code: int, kind: str, body: bytes, *, number: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if self.close_connection:
            self.send_header("Connection", "close")
        if number is not None:
            self.send_header("X-Number", str(number))
        self.end_headers()
        self.wfile.write(body)


def apply_wishes(controls: Controls, wishes: object) -> None:
    """Change what a viewer asked for: `{"is_on": true, "strength": 0.5, "snapshot": true}`.

    Raises:
        UsageError: if a wish is unknown or out of range; nothing is changed then.
    """
    if not isinstance(wishes, dict) or not wishes.keys() <= {"is_on", "strength", "snapshot"}:
        raise UsageError("the wishes are `is_on`, `strength` and `snapshot`")
    is_on, strength = wishes.get("is_on"), wishes.get("strength")
    if is_on is not None and not isinstance(is_on, bool):
        raise UsageError("`is_on` is true or false")
    if strength is not None and (
        isinstance(strength, bool) or not isinstance(strength, (int, float))
    ):
        raise UsageError("`strength` is a number from 0 to 1")
    controls.change(is_on=is_on, strength=strength)
    if wishes.get("snapshot"):
        controls.ask_for_snapshot()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
