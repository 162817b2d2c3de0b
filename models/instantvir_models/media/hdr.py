"""What an HDR video says of the screen it was made on and of its brightest pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av

from instantvir_models.media.side_data import picture_side_data

PQ, HLG = 16, 18
"""Transfer functions of H.273."""

_CHROMATICITY, _LUMINANCE = 50_000, 10_000
"""Units of the SEI messages of H.264 and HEVC."""


@dataclass(frozen=True)
class HdrMetadata:
    """Static metadata of HDR10 (SMPTE ST 2086, CTA-861.3); None where nothing is said."""

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    """x and y of red, green, blue and white."""
    nits: tuple[Fraction, Fraction] | None = None
    """The screen's darkest and brightest, in cd/m2."""
    light_level: tuple[int, int] | None = None
    """MaxCLL and MaxFALL in cd/m2."""

    @property
    def has_mastering(self) -> bool:
        """Whether the screen is described in full."""
        return self.primaries is not None and self.nits is not None

    def encoder_options(self, codec: str) -> tuple[tuple[str, str], ...]:
        """Options with which this encoder says the same; none where it cannot."""
        if codec == "libsvtav1":
            parts = self._parts("mastering-display", "content-light", 1, 1)
            return (("svtav1-params", parts),) if parts else ()
        names = {"libx265": ("master-display", "max-cll"), "libx264": ("mastering-display", "cll")}
        if codec not in names:
            return ()
        parts = self._parts(*names[codec], _CHROMATICITY, _LUMINANCE)
        return ((f"{codec[3:]}-params", parts),) if parts else ()

    def _parts(self, display: str, level: str, chromaticity: int, luminance: int) -> str:
        parts = []
        if self.primaries is not None and self.nits is not None:
            points = [f"({_n(x * chromaticity)},{_n(y * chromaticity)})" for x, y in self.primaries]
            low, high = (_n(nits * luminance) for nits in self.nits)
            red, green, blue, white = points
            parts.append(f"{display}=G{green}B{blue}R{red}WP{white}L({high},{low})")
        if self.light_level is not None:
            parts.append(f"{level}={self.light_level[0]},{self.light_level[1]}")
        return ":".join(parts)


def hdr_metadata_of(frame: av.VideoFrame) -> HdrMetadata | None:
    """What the decoder says with this picture; None if that is nothing."""
    display = picture_side_data(frame, "MASTERING_DISPLAY_METADATA")
    level = picture_side_data(frame, "CONTENT_LIGHT_LEVEL")
    primaries, nits = _mastering(display) if display is not None else (None, None)
    light = struct.unpack("<2I", level[:8]) if level is not None else None
    if primaries is None and nits is None and light is None:
        return None
    return HdrMetadata(primaries, nits, light)


def _mastering(
    data: bytes,
) -> tuple[
    tuple[tuple[Fraction, Fraction], ...] | None, tuple[Fraction, Fraction] | None
]:  # FFmpeg's AVMasteringDisplayMetadata: ten fractions and two flags
    numbers = struct.unpack("<22i", data[:88])
    values = [
        Fraction(n, d) if d else Fraction(0)
        for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)
    ]
    pairs = tuple(zip(values[0:8:2], values[1:8:2], strict=True))
    return pairs if numbers[20] else None, (values[8], values[9]) if numbers[21] else None


def _n(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"
