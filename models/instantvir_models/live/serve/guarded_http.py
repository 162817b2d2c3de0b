"""A small HTTP server for this machine, or for whoever has the token; what other sites make a
browser send is refused."""

import hmac
import ipaddress
import json
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from instantvir_models.errors import UsageError
from instantvir_models.live.serve.bounded import LARGEST_REQUEST_BYTES, BoundedThreads, parsed

VIEWER_TIMEOUT_SECONDS = 30.0
"""That a viewer has for a request and its answer, and may say nothing before the next."""

_GUARDING_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""So that nobody guesses what an answer is, keeps it, shows it in a page of his, or learns of it."""


class GuardedHandler(BaseHTTPRequestHandler):
    """Answers with `answer_get` and `answer_post` once a request may be answered."""

    guard: "GuardedServer"
    protocol_version = "HTTP/1.1"
    timeout = VIEWER_TIMEOUT_SECONDS
    server: "_Server"
    server_version, sys_version = "instantvir", ""
    policy = "default-src 'none'; frame-ancestors 'none'"
    """Of what a page may load and who may show it (Content-Security-Policy)."""

    def handle_one_request(self) -> None:
        """One request, for which the connection has its time in all."""
        self.policy = type(self).policy
        self.server.places.wait(self.connection, VIEWER_TIMEOUT_SECONDS)
        super().handle_one_request()

    def end_headers(self) -> None:
        """What every answer says, those to what is no request too."""
        for name, value in _GUARDING_HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def answer_get(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer a request for `path`."""
        self.answer_json(404, {"error": "there is no such page"})

    def answer_post(self, path: str, wishes: object) -> None:
        """Answer JSON sent to `path`."""
        self.answer_json(404, {"error": "there is no such control"})

    def do_GET(self) -> None:
        """A request without a body; one that announces a body is the last on its connection."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        parts = self._parts()
        if parts is not None and self._may(query := parse_qs(parts.query)):
            self.server.places.work(self.connection, VIEWER_TIMEOUT_SECONDS)
            self.answer_get(parts.path, query)

    def do_POST(self) -> None:
        """JSON from a page of this server, the last request on its connection."""
        # What is left unread of a body must never be taken for the next request.
        self.close_connection = True
        parts = self._parts()
        if parts is None or not (self._may(parse_qs(parts.query)) and self._is_from_here()):
            return
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.answer_json(411, {"error": "say how long the request is"})
            return
        if len(length) > len(str(LARGEST_REQUEST_BYTES)) or int(length) > LARGEST_REQUEST_BYTES:
            self.answer_json(413, {"error": "the request is too large"})
            return
        body = self.rfile.read(int(length))
        # A form of another site cannot send JSON without asking first.
        if self.headers.get_content_type() != "application/json":
            self.answer_json(415, {"error": "send application/json"})
            return
        try:
            wishes = parsed(body)
        except UsageError as error:
            self.answer_json(400, {"error": str(error)})
            return
        self.server.places.work(self.connection, VIEWER_TIMEOUT_SECONDS)
        self.answer_post(parts.path, wishes)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""

    def refuse(self, reason: str) -> None:
        """403 and why; nothing more is read from this connection."""
        self.close_connection = True
        self.answer_json(403, {"error": reason})

    def answer_json(self, code: int, content: dict[str, Any]) -> None:
        """A JSON object."""
        self.answer(code, "application/json", json.dumps(content).encode())

    def answer(self, code: int, kind: str, body: bytes, *, number: int | None = None) -> None:
        """A body of a content type; `number` goes into the header X-Number."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if number is not None:
            self.send_header("X-Number", str(number))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _parts(self) -> SplitResult | None:
        """The parts of the address asked for; answers if there are none."""
        try:
            return urlsplit(self.path)
        except ValueError:  # such as `//[`
            self.close_connection = True
            self.answer_json(400, {"error": "this is no address"})
            return None

    def _may(self, query: dict[str, list[str]]) -> bool:
        guard = self.guard
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].strip("[]")
        if guard.is_loopback and not is_loopback(host):
            # A name that somebody made point here, so that his page may read this one.
            self.refuse("this page is for this machine only")
            return False
        given = query.get("token", [""])[0] or self.headers.get("X-Token", "")
        if guard.token and not hmac.compare_digest(given.encode(), guard.token.encode()):
            self.refuse("the address needs `?token=...`")
            return False
        return True

    def _is_from_here(self) -> bool:
        """Whether no page of another site had this sent; answers if one had."""
        origin = self.headers.get("Origin")
        if origin is None or origin.partition("://")[2] == self.headers.get("Host"):
            return True
        self.refuse("another site may not change anything here")
        return False


class GuardedServer:
    """Serves one kind of handler in its own threads.

    Args:
        purpose: what is served, for messages.
        host: only a loopback address may do without a token.
        port: 0 takes a free one.
        path: the page that `url` names.
        token: that requests must carry, as `?token=` or in the header X-Token; one is made where
            the host needs it.

    Raises:
        UsageError: if the address cannot be used.
    """

    def __init__(
        self,
        handler: type[GuardedHandler],
        *,
        purpose: str,
        host: str,
        port: int,
        path: str,
        token: str | None,
    ) -> None:
        self.is_loopback = is_loopback(host)
        self.has_made_token = not (token or self.is_loopback)
        self.token = secrets.token_urlsafe(16) if self.has_made_token else token

        class Handler(handler):  # type: ignore[misc, valid-type]
            guard = self

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise UsageError(
                f"cannot serve the {purpose} on {host}:{port}: {error.strerror or error}",
                hint="choose another port",
            ) from error
        self.port = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        secret = f"?token={quote(self.token, safe='')}" if self.token else ""
        self.url = f"http://{shown}:{self.port}{path}{secret}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name=f"instantvir-{purpose}", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; viewers that hang are left behind."""
        self._server.shutdown()
        self._server.server_close()


class _Server(BoundedThreads, HTTPServer):
    request_seconds = VIEWER_TIMEOUT_SECONDS
    answer_when_full = (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
