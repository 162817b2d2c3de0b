"""The controls for programs and scripts of the stream's owner: a socket in the file system."""

import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.live.controls import Controls
from instantvir_models.live.serve.bounded import LARGEST_REQUEST_BYTES, BoundedThreads, parsed
from instantvir_models.live.serve.wishes import apply_wishes, refused, told
from instantvir_models.live.status import LiveStatus

SILENT_CLIENT_SECONDS = 60.0
"""A connection that sends nothing, or takes nothing, for so long is closed."""


class ControlSocket:
    """Answers wishes at a path that its owner alone may open, until `stop` removes it.

    A wish is a line with one JSON object as `apply_wishes` reads it; its answer is a line with one
    JSON object: the status and the controls, or `{"error": sentence, "hint": ...}`. Whoever may
    open the socket may read the owner's files, so a prompt may name one.

    Args:
        path: must not exist, unless as a socket of this user that nobody answers any more.

    Raises:
        UsageError: if there can be no socket.
    """

    def __init__(self, path: Path, *, controls: Controls, status: Callable[[], LiveStatus]) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise UsageError(
                "this system has no sockets in the file system",
                hint="use the page instead: `--preview 8080`",
            )
        self.path = path
        _make_room(path)

        class Handler(_Handler):
            def answer(self, line: bytes) -> dict[str, Any]:
                try:
                    apply_wishes(controls, parsed(line), may_name_files=True)
                except InstantVIRError as error:
                    return refused(error)
                return told(controls, status())

        try:
            self._server = _Server(str(path), Handler)
        except OSError as error:
            raise UsageError(
                f"cannot make the control socket `{path}`: {error.strerror or error}",
                hint="choose a short path in a folder of yours",
            ) from error
        self._made = _identity(path)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="instantvir-control", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more and remove the socket, unless another one took its place."""
        self._server.shutdown()
        self._server.server_close()
        if _identity(self.path) == self._made:
            with suppress(OSError):  # of a folder that went away or changed hands
                self.path.unlink()


class _Handler(StreamRequestHandler):
    timeout = SILENT_CLIENT_SECONDS

    def answer(self, line: bytes) -> dict[str, Any]:
        raise NotImplementedError

    server: "_Server"

    def handle(self) -> None:
        while line := self._line():
            if len(line) > LARGEST_REQUEST_BYTES:  # where the next one begins is not known
                self._send({"error": "the line is too long", "hint": None})
                return
            if line.strip():
                self._send(self.answer(line))

    def _line(self) -> bytes:
        """The next one, which has its time in all; none where the connection has ended."""
        self.server.places.wait(self.connection, SILENT_CLIENT_SECONDS)
        line = self.rfile.readline(LARGEST_REQUEST_BYTES + 1)
        self.server.places.work(self.connection, SILENT_CLIENT_SECONDS)
        return line

    def _send(self, content: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(content).encode() + b"\n")


class _Server(BoundedThreads, TCPServer):
    request_seconds = SILENT_CLIENT_SECONDS
    most_connections = 16
    answer_when_full = b'{"error": "too many programs are connected", "hint": null}\n'

    def __init__(self, path: str, handler: type[_Handler]) -> None:
        self.address_family = socket.AF_UNIX
        super().__init__(path, handler)

    def server_bind(self) -> None:
        super().server_bind()
        os.chmod(self.server_address, 0o600)  # type: ignore[arg-type]  # before anybody can connect


def _make_room(path: Path) -> None:
    """Remove what a stream that was killed left at `path`; UsageError for anything else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot look at `{path}`: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(f"`{path}` exists already", hint="choose another path for `--control`")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:  # somebody is there, and busy
            pass
    raise UsageError(
        f"another stream listens at `{path}`", hint="choose another path for `--control`"
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
