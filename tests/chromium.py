"""A page in headless Chromium, driven through its debugging pipe; no driver, no socket."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

ARGUMENTS = [
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_SECONDS = 90


class Page:
    """One page; every call waits for its answer."""

    def __init__(self, send, receive) -> None:
        self._send, self._receive, self._numbers = send, receive, count(1)
        self._session: str | None = None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def open(self, address: str) -> None:
        self._ask("Page.navigate", url=address)

    def value(self, expression: str):
        """What JavaScript makes of `expression`."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str):
        """The value of `expression` once it is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"`{expression}` did not become true"
            time.sleep(0.1)
        return value

    def type(self, text: str) -> None:
        """Write into what has the focus, as a keyboard does."""
        self._ask("Input.insertText", text=text)

    def press_enter(self) -> None:
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                windowsVirtualKeyCode=13,
            )  # fmt: skip

    def screenshot(self, path: Path, width: int = 900, height: int = 900) -> None:
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, **parameters):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = json.loads(_until_zero(self._receive))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]


def _until_zero(pipe) -> bytes:
    read = bytearray()
    while (byte := pipe.read(1)) != b"\0":
        assert byte, "chromium has ended"
        read += byte
    return bytes(read)


@contextmanager
def chromium(profile: Path):
    """A `Page` of a browser that is gone afterwards."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # Chromium takes commands from descriptor 3 and answers on 4.
    shell = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    browser = subprocess.Popen(
        ["bash", "-c", shell, "-", *ARGUMENTS, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
        pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_read)
    os.close(from_write)
    try:
        with os.fdopen(to_write, "wb") as send, os.fdopen(from_read, "rb") as receive:
            yield Page(send, receive)
    finally:
        browser.terminate()
        browser.wait(PATIENCE_SECONDS)
