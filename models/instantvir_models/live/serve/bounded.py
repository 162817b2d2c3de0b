"""What the page and the control socket have in common: bounded connections, bounded JSON."""

import json
import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any

from instantvir_models.errors import UsageError

LARGEST_REQUEST_BYTES = 10_000

logger = logging.getLogger(__name__)


@dataclass
class _Place:
    """What is known of one connection."""

    until_seconds: float
    """On the monotonic clock: then it has had its time."""
    is_waiting: bool = True
    """For a request or for a picture, so that somebody new may have its place."""


class Places:
    """Who is connected, until when, and who makes room for somebody new.

    A number of connections that wait cannot keep anybody out: the one that has waited longest is sent
    away. One that is slow has its time in all, however often it sends a byte.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._places: dict[socket.socket, _Place] = {}  # the first came first

    def take(self, connection: socket.socket, seconds: float) -> bool:
        """Whether there is a place for it, if need be that of one that waits."""
        with self._lock:
            if len(self._places) >= self._most and not self._send_one_away():
                return False
            self._places[connection] = _Place(time.monotonic() + seconds)
            return True

    def wait(self, connection: socket.socket, seconds: float | None = None) -> None:
        """It waits now, for so long at most; without a number its time goes on."""
        self._become(connection, is_waiting=True, seconds=seconds)

    def work(self, connection: socket.socket, seconds: float | None = None) -> None:
        """It is being answered, likewise."""
        self._become(connection, is_waiting=False, seconds=seconds)

    def free(self, connection: socket.socket) -> None:
        """It has ended."""
        with self._lock:
            self._places.pop(connection, None)

    def end_those_who_are_late(self) -> None:
        """Close connections that have had their time."""
        now = time.monotonic()
        with self._lock:
            for connection in [c for c, place in self._places.items() if place.until_seconds < now]:
                self._end(connection)

    def _become(
        self, connection: socket.socket, *, is_waiting: bool, seconds: float | None
    ) -> None:
        with self._lock:
            place = self._places.pop(connection, None)
            if place is None:  # it was sent away
                return
            place.is_waiting = is_waiting
            if seconds is not None:
                place.until_seconds = time.monotonic() + seconds
            self._places[connection] = place

    def _send_one_away(self) -> bool:
        waiting = next((c for c, place in self._places.items() if place.is_waiting), None)
        if waiting is not None:
            self._end(waiting)
        return waiting is not None

    def _end(self, connection: socket.socket) -> None:
        self._places.pop(connection, None)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # its thread wakes up and ends


class BoundedThreads(ThreadingMixIn):
    """A thread per connection, up to a number; mix into a server of `socketserver`."""

    daemon_threads = True
    block_on_close = False  # a client that stopped reading must not hold up the end
    request_queue_size = 64  # where fewer wait, a burst is refused
    most_connections = 64
    answer_when_full = b""
    """What one connection more is told before it is closed."""
    request_seconds = 30.0
    """That a connection has to send its first request, however often it sends a byte."""

    def __init__(self, *args: Any) -> None:
        self.places = Places(self.most_connections)
        super().__init__(*args)

    def service_actions(self) -> None:
        """Twice a second, in the thread that serves."""
        self.places.end_those_who_are_late()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.take(request, self.request_seconds):
            with suppress(OSError):
                request.sendall(self.answer_when_full)
            self.shutdown_request(request)  # type: ignore[attr-defined]
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.places.free(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.free(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; a bug is, and ends its connection only."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("a request could not be answered")


def parsed(text: bytes) -> object:
    """The value of a JSON text; UsageError if it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"this is no JSON: {error}") from error
    except RecursionError as error:
        raise UsageError("this JSON is nested too deeply") from error
