"""How an address is told from a path."""

from __future__ import annotations

import re


def scheme_of(text: str) -> str | None:
    """The lower-case scheme of something like `rtsp://camera/1` or `file:x.mp4`; None for a path.

    One letter is a drive of Windows, not a scheme.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", text)
    return match[1].lower() if match else None


def is_network_address(text: str) -> bool:
    """Whether `text` is something like `rtsp://camera/1`; files as `file:...` are not."""
    return scheme_of(text) not in {None, "file", "pipe", "fd"}
