"""What the page and the control socket have in common: bounded connections, bounded JSON."""

import json
import logging
import sys
import threading
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any

from instantvir_models.errors import UsageError

LARGEST_REQUEST_BYTES = 10_000

logger = logging.getLogger(__name__)


class BoundedThreads(ThreadingMixIn):
    """A thread per connection, up to a number; mix into a server of `socketserver`."""

    daemon_threads = True
    block_on_close = False  # a client that stopped reading must not hold up the end
    request_queue_size = 64  # where fewer wait, a burst is refused
    most_connections = 64
    answer_when_full = b""
    """What one connection more is told before it is closed."""

    def __init__(self, *args: Any) -> None:
        self._free = threading.BoundedSemaphore(self.most_connections)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(self.answer_when_full)
            self.shutdown_request(request)  # type: ignore[attr-defined]
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

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
