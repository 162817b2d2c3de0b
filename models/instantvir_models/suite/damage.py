"""What cameras, tapes and films do to frames. Frames are uint8 [T, H, W, 3] RGB."""

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.media.round_trip import Frames

Levels = NDArray[np.float32]
"""Frames in float 8-bit levels."""


def white(clean: Frames, levels: float, rng: np.random.Generator) -> Levels:
    """Independent noise on every channel."""
    return clean + levels * _gaussian(clean.shape, rng)


def grain(clean: Frames, levels: float, rng: np.random.Generator, *, size: float = 0.9) -> Levels:
    """Grey grain of film: soft, weaker in shadows and highlights; rms `levels`."""
    noise = _gaussian((*clean.shape[:3], 1), rng)
    noise = np.stack([cv2.GaussianBlur(one, (0, 0), size)[..., None] for one in noise])
    tone = clean.mean(-1, keepdims=True) / 255
    noise *= 0.5 + np.sqrt(np.clip(4 * tone * (1 - tone), 0, 1))
    return clean + _with_rms(np.repeat(noise, 3, -1), levels)


def sensor(clean: Frames, levels: float, rng: np.random.Generator) -> Levels:
    """Noise of a Bayer sensor that was demosaiced, stronger in light; rms `levels`."""
    strength = np.sqrt(0.3 + clean / 255)
    raw = strength * _gaussian(clean.shape, rng)
    rows, columns = np.indices(clean.shape[1:3])
    mask = np.zeros((*clean.shape[1:3], 3), np.float32)
    mask[..., 0] = (rows % 2 == 0) & (columns % 2 == 0)
    mask[..., 1] = (rows + columns) % 2 == 1
    mask[..., 2] = (rows % 2 == 1) & (columns % 2 == 1)
    kernel = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]], np.float32)
    weight = cv2.filter2D(mask, -1, kernel)
    noise = np.stack([cv2.filter2D(one * mask, -1, kernel) / weight for one in raw])
    return clean + _with_rms(noise, levels)


def tape(clean: Frames, levels: float, rng: np.random.Generator) -> Levels:
    """Noise of analogue tape: smeared along rows, colour far more than light; rms `levels`."""
    light = np.stack(
        [cv2.GaussianBlur(n, (0, 0), 1.2, sigmaY=0.3) for n in _gaussian(clean.shape[:3], rng)]
    )
    color = np.stack(
        [cv2.GaussianBlur(n, (0, 0), 5, sigmaY=0.8) for n in _gaussian((*clean.shape[:3], 2), rng)]
    )
    light, color = light / light.std(), color / color.std()
    red, blue = light + 1.2 * color[..., 0], light + 1.2 * color[..., 1]
    green = light - 0.6 * color.sum(-1)
    return clean + _with_rms(np.stack([red, green, blue], -1), levels)


def stored(levels: Levels) -> Frames:
    """As 8 bits hold it."""
    return np.asarray(levels).round().clip(0, 255).astype(np.uint8)


def kept(clean: Frames, rng: np.random.Generator) -> Frames:
    """Nothing but the encoder."""
    return clean


def webcam(clean: Frames, rng: np.random.Generator) -> Frames:
    """White noise of 6 levels."""
    return stored(white(clean, 6, rng))


def phone(clean: Frames, rng: np.random.Generator) -> Frames:
    """Sensor noise, sharpened."""
    return sharpened(stored(sensor(clean, 9, rng)), rng, amount=0.5)


def vhs(clean: Frames, rng: np.random.Generator) -> Frames:
    """Soft along rows, softer in colour, tape noise."""
    levels = np.stack([_tape_soft(frame) for frame in clean])
    return stored(tape(levels, 8, rng))


def film(clean: Frames, rng: np.random.Generator) -> Frames:
    """Soft, grain and dust."""
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.8) for frame in clean])
    return _dusty(stored(grain(soft, 12, rng)), rng)


def sharpened(clean: Frames, rng: np.random.Generator, *, amount: float = 1.2) -> Frames:
    """Unsharp mask, as cameras and editors do it."""
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in clean]).astype(np.float32)
    return stored(clean + amount * (clean - soft))


def out_of_focus(clean: Frames, rng: np.random.Generator) -> Frames:
    """A disc of radius 3.5."""
    rows, columns = np.indices((9, 9)) - 4
    disc = np.clip(4.0 - np.hypot(rows, columns), 0, 1).astype(np.float32)
    return _filtered(clean, disc)


def shaken(clean: Frames, rng: np.random.Generator) -> Frames:
    """A line of 11 pixels at 30 degrees."""
    line = np.zeros((13, 13), np.float32)
    dx, dy = 5 * np.cos(np.pi / 6), 5 * np.sin(np.pi / 6)
    scaled = [round(16 * (6 + d)) for d in (-dx, dy, dx, -dy)]
    cv2.line(line, (scaled[0], scaled[1]), (scaled[2], scaled[3]), 1, 1, cv2.LINE_AA, 4)
    return _filtered(clean, line)


def smaller(clean: Frames, factor: int, interpolation: int) -> Frames:
    """By a factor."""
    size = (clean.shape[2] // factor, clean.shape[1] // factor)
    return np.stack([cv2.resize(frame, size, interpolation=interpolation) for frame in clean])


def half(clean: Frames, rng: np.random.Generator) -> Frames:
    """By two, bicubic without a filter before it."""
    return smaller(clean, 2, cv2.INTER_CUBIC)


def quarter(clean: Frames, rng: np.random.Generator) -> Frames:
    """By four, area."""
    return smaller(clean, 4, cv2.INTER_AREA)


def woven(clean: Frames, rng: np.random.Generator) -> Frames:
    """Half as many pictures, each of two moments: odd rows are one frame later."""
    frames = clean[0::2].copy()
    frames[:, 1::2] = clean[1::2, 1::2]
    return frames


def cartoon(clean: Frames) -> Frames:
    """Flat colours and lines: what this makes of the clip is the clean picture."""
    return np.stack([_cartoon(frame) for frame in clean])


def screen(clean: Frames) -> Frames:
    """Text and boxes that scroll."""
    frames = np.full_like(clean, 245)
    for t, frame in enumerate(frames):
        frame[:, :60] = (40, 44, 60)
        for line in range(12):
            y = 14 + 15 * line - t
            text = f"line {line}: value = {line * 7919 % 1000}"
            cv2.putText(
                frame, text, (70, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA
            )
        cv2.rectangle(frame, (230, 60), (300, 110), (200, 30, 60), -1)
    return frames


def _filtered(clean: Frames, kernel: Levels) -> Frames:
    kernel = kernel / kernel.sum()
    return np.stack([cv2.filter2D(f, -1, kernel, borderType=cv2.BORDER_REFLECT) for f in clean])


def _tape_soft(frame: Frames) -> Frames:
    light, red, blue = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
    light = cv2.GaussianBlur(light, (0, 0), 1.2, sigmaY=0.4)
    red, blue = (cv2.GaussianBlur(c, (0, 0), 4, sigmaY=1) for c in (red, blue))
    soft = cv2.cvtColor(cv2.merge([light, red, blue]), cv2.COLOR_YCrCb2RGB)
    return np.asarray(soft, np.uint8)


def _dusty(frames: Frames, rng: np.random.Generator) -> Frames:
    frames = frames.copy()
    for frame in frames:
        for _ in range(6):
            x, y = (int(rng.integers(side)) for side in (frame.shape[1], frame.shape[0]))
            axes = (int(rng.integers(1, 5)), int(rng.integers(1, 4)))
            shade = int(rng.choice([12, 240]))
            cv2.ellipse(frame, (x, y), axes, float(rng.integers(180)), 0, 360, (shade,) * 3, -1)
    return frames


def _cartoon(frame: Frames) -> Frames:
    flat = cv2.bilateralFilter(cv2.bilateralFilter(frame, 9, 60, 9), 9, 60, 9)
    levels = (flat // 24 * 24 + 12).astype(np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 7)
    drawn = np.where(lines[..., None] > 0, levels, 20).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), 0.5), np.uint8)


def _gaussian(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    return rng.standard_normal(shape, dtype=np.float32)


def _with_rms(noise: Levels, levels: float) -> Levels:
    rms = float(np.sqrt(np.mean(np.square(noise))))
    return noise * np.float32(levels / max(rms, 1e-9))
