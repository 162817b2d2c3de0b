"""What a stream says of itself besides its packets: cropping, projection, stereo, mastering display.

PyAV shows the side data of packets and pictures and not that of streams, so it is read and written
here where FFmpeg keeps it. Every place is checked before it is used; with an FFmpeg that is laid out
otherwise than those we know, there is no side data.
"""

from __future__ import annotations

import ctypes
from functools import cache

import av
import av.container.core
from av.bitstream import BitStreamFilterContext
from av.buffer import Buffer
from av.packet import packet_sidedata_type_from_literal, packet_sidedata_type_to_literal
from av.sidedata.sidedata import Type
from av.stream import Stream
from av.video.stream import VideoStream

SideData = tuple[tuple[str, bytes], ...]
"""PyAV's names of kinds (`spherical`), and FFmpeg's structures."""

_KNOWN_LIBAVFORMATS = (61, 62, 63)
"""Major versions with the layouts below: FFmpeg 7 to 9."""
_POINTER_OF_STREAM = 24
"""Where PyAV's object of a stream holds the pointer to FFmpeg's."""


class _Entry(ctypes.Structure):
    """FFmpeg's `AVPacketSideData`."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("kind", ctypes.c_int)]


class _Parameters(ctypes.Structure):
    """The beginning of FFmpeg's `AVCodecParameters`."""

    _fields_ = [
        ("codec_type", ctypes.c_int),
        ("codec_id", ctypes.c_int),
        ("codec_tag", ctypes.c_uint32),
        ("extradata", ctypes.c_void_p),
        ("extradata_size", ctypes.c_int),
        ("entries", ctypes.POINTER(_Entry)),
        ("num_entries", ctypes.c_int),
    ]


class _AVStream(ctypes.Structure):
    """The beginning of FFmpeg's `AVStream`."""

    _fields_ = [
        ("av_class", ctypes.c_void_p),
        ("index", ctypes.c_int),
        ("id", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameters)),
    ]


def _of_no_name(kinds: type[Type], value: object) -> Type:
    """The kind of side data for which PyAV has no name, such as 31, EXIF, in PyAV 18."""
    kind = object.__new__(kinds)
    kind._name_ = f"KIND_{value}"
    kind._value_ = value  # type: ignore[assignment]
    return kind


# Else one kind without a name keeps all of a picture's side data from being read: of each photograph.
Type._missing_ = classmethod(_of_no_name)  # type: ignore[assignment, method-assign]


def side_data_of(stream: Stream) -> SideData:
    """All that the stream says; nothing where it cannot be known."""
    parameters = _parameters_of(stream)
    if parameters is None:
        return ()
    entries = [parameters.entries[i] for i in range(parameters.num_entries)]
    return tuple(
        (packet_sidedata_type_to_literal(entry.kind), ctypes.string_at(entry.data, entry.size))
        for entry in entries
        if entry.data
    )


def picture_side_data(picture: av.VideoFrame, kind: str) -> bytes | None:
    """What a decoded picture says; None if it says nothing of this kind."""
    data = picture.side_data.get(kind)
    return bytes(data) if isinstance(data, Buffer) else None


def give_side_data(target: VideoStream, like: VideoStream, data: SideData) -> bool:
    """Let `target`, an encoder's stream whose container was not begun, say `data`; False where that
    cannot be done.

    Args:
        like: a stream made as `target` was, in a container that nobody needs.
    """
    parameters = _parameters_of(like)
    if parameters is None:
        return False
    for kind, value in data:
        entry = _library().av_packet_side_data_new(
            ctypes.byref(parameters, _Parameters.entries.offset),
            ctypes.byref(parameters, _Parameters.num_entries.offset),
            packet_sidedata_type_from_literal(kind),  # type: ignore[arg-type]
            len(value),
            0,
        )
        if not entry:
            return False
        ctypes.memmove(entry.contents.data, value, len(value))
    # Not into `target`'s parameters: those of its encoder replace them when the container begins.
    BitStreamFilterContext("null", like, target)
    return True


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(av.container.core.__file__)
    new = library.av_packet_side_data_new
    new.restype = ctypes.POINTER(_Entry)
    new.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_int,
    ]  # fmt: skip
    return library


@cache
def _is_known() -> bool:
    if av.library_versions["libavformat"][0] not in _KNOWN_LIBAVFORMATS:
        return False
    try:
        _library()
    except (AttributeError, OSError):
        return False
    return ctypes.sizeof(ctypes.c_void_p) == 8


def _parameters_of(stream: Stream) -> _Parameters | None:
    """FFmpeg's parameters of the stream, if everything around them is where it should be."""
    if not _is_known():
        return None
    address = ctypes.c_void_p.from_address(id(stream) + _POINTER_OF_STREAM).value
    if not address or address % 8:
        return None
    found = _AVStream.from_address(address)
    if found.index != stream.index or found.id != stream.id or not found.parameters:
        return None
    parameters: _Parameters = found.parameters.contents
    kinds = {"video": 0, "audio": 1, "data": 2, "subtitle": 3, "attachment": 4}
    is_sound = 0 <= parameters.num_entries <= 64 and bool(parameters.entries) == bool(
        parameters.num_entries
    )
    return parameters if is_sound and kinds.get(stream.type) == parameters.codec_type else None
