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
        self.events: list[dict] = []
        """What the browser has said unasked, since `watch`."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def watch(self) -> None:
        """From now on requests, errors and what a page logs are kept in `events`."""
        for domain in ("Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    @property
    def complaints(self) -> list[dict]:
        """Errors and what was logged."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for, pictures inside of the page left out."""
        asked = (e for e in self.events if e["method"] == "Network.requestWillBeSent")
        addresses = [event["params"]["request"]["url"] for event in asked]
        return [address for address in addresses if not address.startswith(("data:", "blob:"))]

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
        self.press("Enter", text="\r")

    def press(self, key: str, *, text: str = "") -> None:
        """A key, as a keyboard does it."""
        codes = {"Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code
            )

    def drag(self, *points: tuple[float, float]) -> None:
        """Press at the first point, move over the others, let go at the last."""
        steps = [("mousePressed", points[0]), *(("mouseMoved", p) for p in points[1:])]
        for kind, (x, y) in [*steps, ("mouseReleased", points[-1])]:
            self._ask(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left",
                buttons=1,
                clickCount=1,
            )

    def show_in(self, scheme: str, width: int, height: int, *, is_phone: bool = False) -> None:
        """Colours and size of what the page is shown in; `scheme` is `light` or `dark`."""
        self._ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=is_phone,
        )  # fmt: skip

    def picture(self, path: Path) -> None:
        """A screenshot of the whole page, however long, in the size it is shown in."""
        data = self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

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
            if "id" not in answer:
                self.events.append(answer)
            elif answer["id"] == number:
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
