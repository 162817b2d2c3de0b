"""Pictures that no camera takes: test bars, pure colours, cartoons, text, windows and gradients.

Drawn from a seed, by other means than what students are trained on, to see what is done to them.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""[T, SIDE, SIDE, 3] RGB."""

SIDE = 96
FRAMES = 3
PER_KIND = 25

PURE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
BARS_75 = (
    (191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191),
)  # fmt: skip

Draw = Callable[[np.random.Generator, Frames], None]


def pictures(per_kind: int = PER_KIND) -> dict[str, list[Frames]]:
    """`per_kind` short clips of each kind, the same ones every time."""
    return {
        kind: [_clip(draw, np.random.default_rng((number, index))) for index in range(per_kind)]
        for number, (kind, draw) in enumerate(KINDS.items())
    }


def _clip(draw: Draw, rng: np.random.Generator) -> Frames:
    """Half of them stand still, the others move a whole pixel per frame."""
    wide: Frames = np.zeros((SIDE, SIDE + FRAMES, 3), np.uint8)
    draw(rng, wide)
    step = int(rng.integers(2))
    return np.stack([wide[:, t * step : t * step + SIDE] for t in range(FRAMES)])


def _any_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _pure_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return PURE[rng.integers(len(PURE))]


def _bars(rng: np.random.Generator, canvas: Frames) -> None:
    """Colour bars after SMPTE EG 1 at 75 or 100 %, with a row of reversed ones and a grey ramp."""
    gain = rng.choice([1.0, 255 / 191])
    colours = np.round(np.array(BARS_75) * gain)
    height, width = canvas.shape[:2]
    middle, low = int(height * rng.uniform(0.4, 0.7)), int(height * rng.uniform(0.72, 0.9))
    which = np.arange(width) * len(colours) // width
    canvas[:middle] = colours[which]
    canvas[middle:low] = np.where(which[:, None] % 2, 16, colours[::-1][which])
    canvas[low:] = np.linspace(0, 255, width).round()[:, None]


def _boxes(rng: np.random.Generator, canvas: Frames) -> None:
    """Boxes of pure colours on black, grey, white or another pure colour."""
    grey = int(rng.choice([0, 16, 128, 235, 255]))
    canvas[:] = _pure_colour(rng) if rng.random() < 0.3 else grey
    for _ in range(rng.integers(1, 6)):
        top, left = rng.integers(0, SIDE - 12, 2)
        height, width = rng.integers(6, 60, 2)
        canvas[top : top + height, left : left + width] = _pure_colour(rng)


def _test_card(rng: np.random.Generator, canvas: Frames) -> None:
    """Colour columns in every mix of full channels, a diagonal hue ramp, a frequency sweep, a circle."""
    height, width = canvas.shape[:2]
    x, y = np.arange(width), np.arange(height)
    eighth = x * 8 // width
    canvas[:] = 255 * np.stack([eighth >> 2 & 1, eighth >> 1 & 1, eighth & 1], -1)
    band = slice(height // 2, height * 3 // 4)
    turn = (x[None] + y[band, None]) * rng.uniform(0.02, 0.15)
    canvas[band] = 127.5 * (1 + np.cos(turn[..., None] + np.array([0, 2, 4]))).round()
    sweep = np.cos(math.pi * rng.uniform(0.2, 0.9) * x.astype(float) ** 2 / (2 * width))
    canvas[height * 3 // 4 :] = (127.5 * (1 + sweep)).round()[:, None]
    cv2.circle(canvas, (width // 2, height // 2), int(rng.integers(15, 45)), (255, 255, 255), 2)


def _cartoon(rng: np.random.Generator, canvas: Frames) -> None:
    """Flat shapes with black outlines."""
    canvas[:] = _any_colour(rng)
    for _ in range(rng.integers(3, 8)):
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 12)))
        radii = rng.uniform(8, 40, len(angles))
        corners = np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]
        points = (corners + rng.uniform(0, SIDE, 2)).round().astype(np.int32)
        cv2.fillPoly(canvas, [points], _any_colour(rng), cv2.LINE_AA)
        cv2.polylines(canvas, [points], True, (0, 0, 0), int(rng.integers(1, 4)), cv2.LINE_AA)


def _terminal(rng: np.random.Generator, canvas: Frames) -> None:
    """Lines of small type, light on dark or dark on light."""
    is_dark = rng.random() < 0.5
    canvas[:] = rng.choice([0, 24]) if is_dark else rng.choice([235, 255])
    scale = rng.uniform(0.25, 0.6)
    pitch = max(7, round(30 * scale))
    for baseline in range(pitch, SIDE + pitch, pitch):
        text = "".join(map(chr, rng.integers(33, 127, 40)))
        ink = _pure_colour(rng) if rng.random() < 0.3 else ((230,) * 3 if is_dark else (0,) * 3)
        line = cv2.LINE_AA if rng.random() < 0.8 else cv2.LINE_8
        cv2.putText(canvas, text, (3, baseline), cv2.FONT_HERSHEY_PLAIN, 2 * scale, ink, 1, line)


def _letters(rng: np.random.Generator, canvas: Frames) -> None:
    """A few large letters of one colour on another."""
    canvas[:] = _any_colour(rng)
    text = "".join(map(chr, rng.integers(65, 91, 3)))
    for baseline in (44, 90):
        size, weight = rng.uniform(1, 2), int(rng.integers(1, 5))
        cv2.putText(
            canvas, text, (2, baseline), cv2.FONT_HERSHEY_DUPLEX, size, _any_colour(rng), weight,
            cv2.LINE_AA,
        )  # fmt: skip


def _windows(rng: np.random.Generator, canvas: Frames) -> None:
    """Windows of a desktop: frames of one pixel, title bars, buttons, lines of type."""
    canvas[:] = _any_colour(rng)
    for _ in range(rng.integers(2, 4)):
        left, top = rng.integers(0, 50, 2).tolist()
        right, bottom = left + int(rng.integers(35, 60)), top + int(rng.integers(30, 55))
        cv2.rectangle(canvas, (left, top), (right, bottom), (240, 240, 240), -1)
        cv2.rectangle(canvas, (left, top), (right, top + 8), _any_colour(rng), -1)
        cv2.rectangle(canvas, (left, top), (right, bottom), (60, 60, 60), 1)
        cv2.rectangle(canvas, (right - 6, top + 2), (right - 2, top + 6), (255, 0, 0), -1)
        for line in range(top + 15, bottom - 2, 7):
            text = "".join(map(chr, rng.integers(97, 123, (right - left) // 7)))
            cv2.putText(canvas, text, (left + 3, line), cv2.FONT_HERSHEY_PLAIN, 0.5, (0, 0, 0), 1)


def _gradients(rng: np.random.Generator, canvas: Frames) -> None:
    """Two colours that run into one another, straight or around a point."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[:height, :width]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        run = x * math.cos(angle) + y * math.sin(angle)
    else:
        run = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
    part = ((run - run.min()) / np.ptp(run))[..., None]
    first, last = (_pure_colour(rng) if rng.random() < 0.5 else _any_colour(rng) for _ in range(2))
    canvas[:] = ((1 - part) * np.array(first) + part * np.array(last)).round()


KINDS: dict[str, Draw] = {
    "bars": _bars,
    "boxes": _boxes,
    "test card": _test_card,
    "cartoon": _cartoon,
    "terminal": _terminal,
    "letters": _letters,
    "windows": _windows,
    "gradients": _gradients,
}
