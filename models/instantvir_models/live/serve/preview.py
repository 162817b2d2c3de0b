"""A page in the browser: original and restored side by side under a wipe, numbers and controls.

Viewers ask for the latest pair and get it: there is no queue, so one that is slow or stops reading
costs the stream nothing.
"""

import base64
import hashlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instantvir_models.errors import InstantVIRError
from instantvir_models.live.controls import Controls
from instantvir_models.live.fit import fitted
from instantvir_models.live.serve.guarded_http import GuardedHandler, GuardedServer
from instantvir_models.live.serve.wishes import apply_wishes, refused, told
from instantvir_models.live.status import LiveStatus
from instantvir_models.media import Frame
from instantvir_models.media.color import as_uint8

JPEG_QUALITY = 85
LONGEST_POLL_SECONDS = 5.0

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


def page_policy(page: bytes) -> str:
    """What the page may do: run the script and the style that are in it, and ask this server."""
    parts = {"default-src": "'none'", "connect-src": "'self'", "frame-ancestors": "'none'"}
    for kind in ("script", "style"):
        inside = re.search(rb"<%b>(.*?)</%b>" % (kind.encode(), kind.encode()), page, re.DOTALL)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1]).digest()).decode()
        parts[f"{kind}-src"] = f"'sha256-{digest}'"
    parts |= {"base-uri": "'none'", "form-action": "'none'"}
    return "; ".join(f"{name} {value}" for name, value in parts.items())


class PreviewServer(GuardedServer):
    """Serves the page, the latest pair, the status and the controls; arguments as `GuardedServer`."""

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
        super().__init__(_Handler, purpose="preview", host=host, port=port, path="/", token=token)


class _Handler(GuardedHandler):
    guard: PreviewServer

    def answer_get(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/":
            page = _PAGE.read_bytes()
            self.policy = page_policy(page)
            self.answer(200, "text/html; charset=utf-8", page)
        elif path == "/pair.jpg":
            self._answer_pair(query)
        elif path == "/status.json":
            self.answer_json(200, self._status())
        else:
            super().answer_get(path, query)

    def answer_post(self, path: str, wishes: object) -> None:
        if path != "/controls":
            super().answer_post(path, wishes)
            return
        try:
            apply_wishes(self.guard.controls, wishes, may_name_files=False)
        except InstantVIRError as error:
            self.answer_json(400, refused(error))
        else:
            self.answer_json(200, self._status())

    def _status(self) -> dict[str, Any]:
        return told(self.guard.controls, self.guard.status())

    def _answer_pair(self, query: dict[str, list[str]]) -> None:
        after = query.get("after", ["0"])[0]
        is_number = after.isdecimal() and len(after) < 20
        self.server.places.wait(self.connection)
        found = self.guard.pairs.jpeg_after(int(after) if is_number else 0)
        self.server.places.work(self.connection)
        if found is None:
            self.answer(204, "image/jpeg", b"")
        else:
            self.answer(200, "image/jpeg", found[1], number=found[0])
