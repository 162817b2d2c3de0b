"""Timecodes, SMPTE ST 12: frames counted as `hours:minutes:seconds:frames`."""

from __future__ import annotations

import re
from fractions import Fraction


def later_timecode(text: str, num_frames: int, frame_rate: Fraction) -> str | None:
    """The timecode `num_frames` after `text`; None if that is none, or no rate counts so.

    With `;` or `.` before the frames it drops numbers, two (of 60 frames a second four) at the
    beginning of each minute that ten does not divide, and so keeps up with 30000/1001 frames.
    """
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d+)", text.strip())
    counted = round(frame_rate)
    if match is None or counted < 1:
        return None
    hours, minutes, seconds, frames = (int(match[i]) for i in (1, 2, 3, 5))
    dropped = counted // 15 if match[4] != ":" and counted % 30 == 0 else 0
    whole_minutes = 60 * hours + minutes
    number = (60 * whole_minutes + seconds) * counted + frames
    number -= dropped * (whole_minutes - whole_minutes // 10)
    return _text_of(number + num_frames, counted, dropped, match[4])


def _text_of(number: int, counted: int, dropped: int, separator: str) -> str:
    in_ten_minutes = 600 * counted - 9 * dropped
    number %= 144 * in_ten_minutes
    tens, rest = divmod(number, in_ten_minutes)
    if dropped and rest >= 60 * counted:
        rest += dropped * (1 + (rest - 60 * counted) // (60 * counted - dropped))
    number = tens * 600 * counted + rest
    seconds, frames = divmod(number, counted)
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours:02}:{minutes:02}:{seconds % 60:02}{separator}{frames:02}"
