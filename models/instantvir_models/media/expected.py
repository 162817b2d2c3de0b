"""Pictures that are to come of packets, and those that do not."""

from __future__ import annotations

_ONE_EACH = frozenset({"hevc", "av1"})
"""Codecs with a picture for each packet; others have hidden ones, or two packets for a picture."""

_MOST_WAITING = 512
"""Pictures that a decoder may hold back; of a file with more the first ones do not come."""


class ExpectedPictures:
    """Finds packets of which no picture came, though nothing was said: the decoders of HEVC and AV1 leave
    out what they make no sense of, and tell FFmpeg's log alone.

    Times are those of showing, in the units of the stream.
    """

    def __init__(self, codec_name: str) -> None:
        self._is_asked = codec_name in _ONE_EACH
        self._waiting: dict[int, int] = {}
        """Which packet it was, by time."""
        self._sent = self._refused = 0
        self._has_shown = False

    def sent(self, pts: int | None) -> list[int]:
        """A packet with a picture to be shown then is decoded; times of those waited for in vain."""
        if not self._is_asked or pts is None:
            return []
        self._sent += 1
        self._waiting[pts] = self._sent
        return self._missing([next(iter(self._waiting))]) if self._is_full else []

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) > _MOST_WAITING

    def refused(self) -> None:
        """The decoder said that it could not make a picture: one that does not come is told."""
        self._refused += 1

    def shown(self, pts: int | None) -> list[int]:
        """Times of pictures that should have come before this one, which came.

        Pictures that lead up to the first key frame refer to others before it, and never come.
        """
        if pts is None or not self._waiting:
            return []
        number = self._waiting.pop(pts, 0)
        if not self._has_shown:
            self._has_shown = True
            lead = [time for time, sent in self._waiting.items() if time < pts and sent > number]
            self._forget(lead)
        return self._missing([time for time in self._waiting if time < pts])

    def ended(self) -> list[int]:
        """Times of pictures that should have come, when all have."""
        return self._missing(list(self._waiting))

    def _missing(self, times: list[int]) -> list[int]:
        self._forget(times)
        told = min(len(times), self._refused)
        self._refused -= told
        return sorted(times)[told:]

    def _forget(self, times: list[int]) -> None:
        for time in times:
            del self._waiting[time]
