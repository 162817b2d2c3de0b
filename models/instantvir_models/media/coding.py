"""How a codec stored each frame: what kind of picture it made, in how many bytes, how coarsely."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.encparams import VideoEncParams
from numpy.typing import NDArray

from instantvir_models.media.hevc_headers import HEVCHeaders
from instantvir_models.media.limits import LOSSLESS_CODECS

EXPORT_OPTIONS = {"export_side_data": "venc_params"}
"""What asks FFmpeg's decoder for the quantisers it met."""

JPEG_LOW_FREQUENCIES = slice(1, 16)
"""Coefficients in zigzag order, without the mean, whose steps stand for a JPEG table."""

MOST_WAITING = 512
"""Packets whose frames have not come; more are a broken file."""

_HEADER = np.dtype(
    [
        ("num_blocks", "<u4"),
        ("", "V4"),
        ("blocks_offset", "<u8"),
        ("block_size", "<u8"),
        ("codec", "<i4"),
        ("qp", "<i4"),
    ]
)
"""The head of FFmpeg's AVVideoEncParams."""

_BLOCK = np.dtype([("x", "<i4"), ("y", "<i4"), ("w", "<i4"), ("h", "<i4"), ("delta_qp", "<i4")])
"""FFmpeg's AVVideoBlockParams."""

_VP9, _H264, _MPEG2 = 0, 1, 2


@dataclass(frozen=True, eq=False)
class FrameCoding:
    """How one frame was stored, as far as the file says."""

    codec_name: str
    """FFmpeg's name of the format, such as `h264`."""
    picture_type: str = "?"
    """`I`, `P`, `B`, or `?` where nothing says."""
    num_bytes: int | None = None
    """Of its packet."""
    steps: NDArray[np.float32] | None = None
    """Quantiser steps in 8-bit levels of an orthonormal transform, one per block; None where the
    codec does not tell, or cannot be asked because several threads decode at once (a file is opened
    with `threads=1` for that). Of one size for the whole frame it is one number."""

    @property
    def is_lossless(self) -> bool:
        """Whether the codec never loses anything (H.264 with crf 0 cannot be told: False)."""
        return self.codec_name in LOSSLESS_CODECS

    @property
    def step(self) -> float | None:
        """Root mean square of the steps."""
        return None if self.steps is None else float(np.sqrt(np.mean(np.square(self.steps))))


@dataclass
class CodingNotes:
    """Holds what packets say until the frames they become are delivered."""

    codec_name: str
    extradata: bytes = b""
    """What the container says of the codec."""
    _waiting: dict[int, FrameCoding] = field(default_factory=dict)

    def note_packet(self, packet: av.Packet[Any]) -> None:
        """A packet of the video was read."""
        if packet.pts is not None:
            self._note(packet.pts, packet.size, lambda: bytes(packet))

    def note_file(self, pts: int, path: Path) -> None:
        """The image that is shown at `pts` was read."""
        self._note(pts, path.stat().st_size, path.read_bytes)

    def _note(self, pts: int, num_bytes: int, read: Callable[[], bytes]) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
        self._waiting[pts] = FrameCoding(
            self.codec_name, num_bytes=num_bytes, steps=self._steps_in(read)
        )

    def _steps_in(self, read: Callable[[], bytes]) -> NDArray[np.float32] | None:
        """Of codecs whose decoder hands nothing on."""
        if self.codec_name == "mjpeg":
            return jpeg_steps(read())
        if self.codec_name != "hevc":
            return None
        qp = self._hevc.qp_of(read())
        return None if qp is None else h264_steps(np.array([qp], np.float32))

    @cached_property
    def _hevc(self) -> HEVCHeaders:
        return HEVCHeaders(self.extradata)

    def coding_of(self, picture: av.VideoFrame) -> FrameCoding:
        """What is known of a decoded picture; to be asked once."""
        noted = None if picture.pts is None else self._waiting.pop(picture.pts, None)
        return _with_picture(noted or FrameCoding(self.codec_name), picture)


def _with_picture(noted: FrameCoding, picture: av.VideoFrame) -> FrameCoding:
    letter = {1: "I", 2: "P", 3: "B"}.get(int(picture.pict_type), "?")
    attached: Iterable[Any] = picture.side_data
    exported = next((s for s in attached if isinstance(s, VideoEncParams)), None)
    steps = noted.steps if exported is None else exported_steps(_bytes_of(exported))
    return replace(noted, picture_type=letter, steps=steps)


def _bytes_of(side_data: Any) -> bytes:
    return bytes(side_data)


def exported_steps(data: bytes) -> NDArray[np.float32] | None:
    """Quantiser steps of the blocks of a frame, from FFmpeg's side data; None if it is of no use."""
    head = np.frombuffer(data, _HEADER, 1)[0]
    blocks = np.frombuffer(data, np.uint8, offset=int(head["blocks_offset"]))
    stride, count = int(head["block_size"]), int(head["num_blocks"])
    deltas = np.zeros(1, np.int32)
    if count and stride >= _BLOCK.itemsize:
        rows = np.ascontiguousarray(blocks[: count * stride].reshape(count, stride))
        deltas = rows[:, : _BLOCK.itemsize].copy().view(_BLOCK)["delta_qp"].ravel()
    qp = (int(head["qp"]) + deltas).astype(np.float32)
    codec = int(head["codec"])
    if codec == _H264:
        return h264_steps(qp)
    if codec == _VP9:
        return vp9_steps(qp)
    return qp if codec == _MPEG2 and qp.any() else None


def h264_steps(qp: NDArray[np.float32]) -> NDArray[np.float32]:
    """Steps of H.264 (and HEVC): double every 6, 1 at QP 4."""
    return np.exp2((qp - 4) / 6).astype(np.float32)


def vp9_steps(index: NDArray[np.float32]) -> NDArray[np.float32]:
    """Steps of VP9, near its table: linear up to 95, then growing by 1.8 % each; 8 to a level."""
    fine, coarse = index + 7, 102 * np.exp(0.01804 * (index - 95))
    return (np.where(index < 95, fine, coarse) / 8).astype(np.float32)


def jpeg_steps(data: bytes) -> NDArray[np.float32] | None:
    """The luma step [1] of a JPEG: geometric mean over its low frequencies; None without a table."""
    table = _jpeg_luma_table(data)
    if table is None:
        return None
    log_steps = np.log(np.maximum(table[JPEG_LOW_FREQUENCIES], 1))
    return np.array([math.exp(log_steps.mean())], np.float32)


def _jpeg_luma_table(data: bytes) -> NDArray[np.float32] | None:
    """Table 0 of a JPEG's DQT segments (64 in zigzag order); None if there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xDA:  # the picture itself begins
            return None
        if marker == 0xDB:
            table = _table_0(data[at + 4 : at + 2 + size])
            if table is not None:
                return table
        at += 2 + size
    return None


def _table_0(segment: bytes) -> NDArray[np.float32] | None:
    at = 0
    while at < len(segment):
        wide, which = segment[at] >> 4, segment[at] & 15
        length = 128 if wide else 64
        values = segment[at + 1 : at + 1 + length]
        if which == 0 and len(values) == length:
            return np.frombuffer(values, ">u2" if wide else np.uint8).astype(np.float32)
        at += 1 + length
    return None
