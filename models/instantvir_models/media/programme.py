"""What a broadcast calls itself: the name of the service in an MPEG transport stream.

FFmpeg reads it (EN 300 468, service description table) and PyAV does not show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LOOKED_AT_BYTES = 2**20
_SDT_PID, _SDT_TABLE, _SERVICE_DESCRIPTOR = 0x11, 0x42, 0x48
_PACKET_BYTES = 188
_STRIDES = (188, 192, 204)
"""Of packets alone, with a time in front (M2TS), and with check bytes behind."""
_OF_NOBODY = frozenset({"", "Service01", "FFmpeg"})
"""What muxers write where nobody said a name."""


def service_tags(path: Path) -> dict[str, str]:
    """`service_name` and `service_provider` of a transport stream with one service, as far as it says
    them; of several nobody knows which is meant here."""
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return {}
    section = next(_sections(head), b"")
    services = list(_services(section))
    if len(services) != 1:
        return {}
    provider, name = services[0]
    tags = {"service_name": name, "service_provider": provider}
    return {key: value for key, value in tags.items() if value not in _OF_NOBODY}


def _sections(data: bytes) -> Iterator[bytes]:
    """Service description tables that lie in one packet or in packets one after the other."""
    section = b""
    for packet in _packets(data):
        if int.from_bytes(packet[1:3], "big") & 0x1FFF != _SDT_PID or not packet[3] & 0x10:
            continue
        payload = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
        if packet[1] & 0x40 and payload:  # a section begins here
            section = payload[1 + payload[0] :]
        elif section:
            section += payload
        length = 3 + (int.from_bytes(section[1:3], "big") & 0x0FFF) if len(section) > 3 else 0
        if length and len(section) >= length:
            if section[0] == _SDT_TABLE:
                yield section[: length - 4]
            section = b""


def _packets(data: bytes) -> Iterator[bytes]:
    for stride in _STRIDES:
        offset = stride - _PACKET_BYTES if stride == 192 else 0
        if all(data[offset + n * stride : offset + n * stride + 1] == b"G" for n in range(3)):
            for at in range(offset, len(data) - _PACKET_BYTES + 1, stride):
                yield data[at : at + _PACKET_BYTES]
            return


def _services(section: bytes) -> Iterator[tuple[str, str]]:
    """Provider and name of each service of a table."""
    at = 11
    while at + 5 <= len(section):
        end = at + 5 + (int.from_bytes(section[at + 3 : at + 5], "big") & 0x0FFF)
        at += 5
        provider = name = ""
        while at + 2 <= min(end, len(section)):
            kind, body = section[at], section[at + 2 : at + 2 + section[at + 1]]
            if kind == _SERVICE_DESCRIPTOR and len(body) > 1:
                behind = 2 + body[1]
                provider = _text(body[2:behind])
                name = _text(body[behind + 1 : behind + 1 + body[behind]]) if behind < len(body) else ""  # fmt: skip
            at += 2 + section[at + 1]
        yield provider, name
        at = end


def _text(data: bytes) -> str:
    """A string as broadcasts write it: the first byte may say which letters these are."""
    first = data[0] if data else 0x20
    if first == 0x10 and len(data) > 2:
        return _decoded(data[3:], f"iso8859-{data[2]}")
    if first == 0x11:
        return _decoded(data[1:], "utf-16-be")
    if first < 0x10 and first:
        return _decoded(data[1:], f"iso8859-{first + 4}")
    try:
        return data[1:].decode() if first == 0x15 else data.decode()
    except UnicodeDecodeError:
        return _decoded(data, "cp1252")


def _decoded(data: bytes, letters: str) -> str:
    try:
        return data.decode(letters, "replace")
    except LookupError:
        return data.decode("latin-1")
