"""Text subtitles from one container's form to another's: the same words and lines, without style."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

_FORM_OF_CODEC = {
    "subrip": "text",
    "text": "text",
    "webvtt": "text",
    "ass": "ass",
    "ssa": "ass",
    "mov_text": "mov",
}


def text_rewriter(source_codec: str, target_codec: str) -> Callable[[bytes], bytes] | None:
    """How one packet becomes one of `target_codec`; None if the source is not plain text."""
    form = _FORM_OF_CODEC.get(source_codec)
    if form is None:
        return None
    is_mov = target_codec == "mov_text"
    return lambda data: _write_text(_read_text(data, form), is_mov)


def _read_text(data: bytes, form: str) -> str:
    if form == "mov":
        length = int.from_bytes(data[:2], "big")
        return data[2 : 2 + length].decode("utf-8", "replace")
    text = data.decode("utf-8", "replace")
    if form == "ass":  # ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text
        text = re.sub(r"\{[^}]*\}", "", text.split(",", 8)[-1])
        text = text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    return re.sub(r"</?[a-zA-Z][^>]*>", "", text)


def _write_text(text: str, is_mov: bool) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", min(len(encoded), 65535)) + encoded[:65535] if is_mov else encoded
