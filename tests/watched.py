"""What a test sees of files and ports that nobody may touch."""

import ctypes
import os
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

_IN_OPEN, _IN_NONBLOCK = 0x20, 0x800
_EVENT = struct.Struct("iIII")


class Watched:
    """Files that are watched for being opened, by any program (Linux)."""

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(_IN_NONBLOCK)
        assert self._descriptor >= 0
        self._paths = {}
        for path in paths:
            watch = libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN)
            assert watch >= 0, path
            self._paths[watch] = path

    def opened(self) -> set[Path]:
        """Which of them were opened since the last call."""
        data, place, found = b"", 0, set()
        with suppress(BlockingIOError):
            data = os.read(self._descriptor, 65536)
        while place < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, place)
            found.add(self._paths[watch])
            place += _EVENT.size + length
        return found

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)


class Doorbell:
    """A port of this machine that says whether anybody connected."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._rung = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._rung.set()
                connection.close()

    @property
    def was_rung(self) -> bool:
        """Whether anybody did."""
        return self._rung.is_set()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
