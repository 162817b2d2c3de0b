"""Clean training frames: crops of real clips, photos under a moving camera, and drawn scenes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_distill.clips import Clip
from instantvir_models.errors import VideoOpenError

Frames = NDArray[np.uint8]

PHOTO_SHARE, DRAWN_SHARE = 0.3, 0.18
"""Parts of the samples that are photos and drawings, where there are photos."""

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg"})

FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)  # fmt: skip
LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;!?-+%&"))


@dataclass(frozen=True, eq=False)
class Photo:
    """A sharp photo at several sizes, each half of the one before."""

    name: str
    levels: tuple[Frames, ...]
    """[H, W, 3] RGB."""


def load_photos(folder: Path) -> list[Photo]:
    """Every .jpg of `folder`.

    Raises:
        VideoOpenError: if there is none, or one that cannot be read.
    """
    return [Photo(path.stem, _pyramid(path)) for path in photo_paths(folder)]


def photo_paths(folder: Path) -> list[Path]:
    """Every .jpg, .JPG and .jpeg of `folder`.

    Raises:
        VideoOpenError: if there is none.
    """
    paths = sorted(each for each in folder.glob("*") if each.suffix.lower() in PHOTO_SUFFIXES)
    if not paths:
        raise VideoOpenError(f"no .jpg in `{folder}`", hint="pass a folder of photos")
    return paths


def _pyramid(path: Path) -> tuple[Frames, ...]:
    stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if stored is None:
        raise VideoOpenError(f"`{path}` is no picture that can be read")
    image = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return image, half  # type: ignore[return-value]


class SceneSource:
    """Random clean sequences; everything random comes from the generator that is handed in."""

    def __init__(self, clips: Sequence[Clip], photos: Sequence[Photo] = ()) -> None:
        groups: dict[str, list[Clip]] = {}
        for clip in clips:
            groups.setdefault(clip.name.rstrip("0123456789").rstrip("_"), []).append(clip)
        self.groups = list(groups.values())
        self.photos = list(photos)
        self.weights = np.sqrt([len(group) for group in self.groups])
        self.weights /= self.weights.sum()

    def sample(self, rng: np.random.Generator, *, crop: int, frames: int) -> Frames:
        """[T, crop, crop, 3] RGB."""
        kind = rng.random()
        if self.photos and kind < PHOTO_SHARE:
            patch = self._photo(rng, crop, frames)
        elif self.photos and kind < PHOTO_SHARE + DRAWN_SHARE:
            patch = drawn(rng, crop, frames)
        else:
            patch = self._clip(rng, crop, frames)
        if rng.random() < 0.08:
            patch = np.repeat(patch[:1], frames, 0)  # a still scene: only the noise moves
        return _turned(patch, rng)

    def _clip(self, rng: np.random.Generator, crop: int, frames: int) -> Frames:
        group = self.groups[rng.choice(len(self.groups), p=self.weights)]
        clip = group[rng.integers(len(group))].frames
        total, height, width = clip.shape[:3]
        shrink = 1.0 if rng.random() < 0.4 else rng.uniform(1, min(2, min(height, width) / crop))
        side = round(crop * shrink)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        stride = 2 if rng.random() < 0.1 and total >= 2 * frames else 1
        first = rng.integers(total - (frames - 1) * stride)
        index = first + stride * np.arange(frames)
        if rng.random() < 0.3:
            index = index[::-1]
        patch = np.stack([clip[i, top : top + side, left : left + side] for i in index])
        return patch if side == crop else _resized(patch, crop)

    def _photo(self, rng: np.random.Generator, crop: int, frames: int) -> Frames:
        """A photo seen by a camera that pans, turns and zooms; now and then two, one before the other."""
        back = self._seen(rng, crop, frames)
        if rng.random() > 0.3:
            return back
        front = self._seen(rng, crop, frames)
        shape = _moving_shape(rng, crop, frames)[..., None]
        return (back + (front.astype(np.float32) - back) * shape).round().astype(np.uint8)

    def _seen(self, rng: np.random.Generator, crop: int, frames: int) -> Frames:
        photo = self.photos[rng.integers(len(self.photos))]
        level = photo.levels[int(rng.random() < 0.5)]
        height, width = level.shape[:2]
        scale = rng.uniform(0.8, 1.4)  # photo pixels per pixel of the crop
        angle = rng.normal(0, 0.15)
        speed = math.exp(rng.uniform(math.log(0.05), math.log(8)))
        heading = rng.uniform(0, 2 * math.pi)
        step = speed * np.array([math.cos(heading), math.sin(heading)])
        turn, zoom = rng.normal(0, 0.004), rng.normal(0, 0.003)
        reach = 0.8 * crop * scale
        centre = np.array(
            [rng.uniform(min(reach, width / 2), max(width - reach, width / 2)),
             rng.uniform(min(reach, height / 2), max(height - reach, height / 2))]
        )  # fmt: skip
        out = []
        for t in range(frames):
            a, s = angle + turn * t, scale * (1 + zoom * t)
            matrix = s * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
            shift = centre + step * t - matrix @ np.array([crop / 2, crop / 2])
            out.append(
                cv2.warpAffine(
                    level, np.hstack([matrix, shift[:, None]]), (crop, crop),
                    flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT,
                )
            )  # fmt: skip
        return np.stack(out)


def drawn(rng: np.random.Generator, crop: int, frames: int) -> Frames:
    """Flat colours, shapes, lines and letters that move by parts of a pixel."""
    things = [_thing(rng, crop) for _ in range(rng.integers(1, 8))]
    step = rng.integers(-5, 6, 2)
    margin = 5 * frames
    ground = _ground(rng, 2 * (crop + margin))
    out = []
    for t in range(frames):
        top, left = margin + step * t
        canvas = ground[top : top + 2 * crop, left : left + 2 * crop].copy()
        for draw in things:
            draw(canvas, t)
        out.append(canvas)
    return _resized(np.stack(out), crop)


def _ground(rng: np.random.Generator, side: int) -> Frames:
    if rng.random() < 0.6:
        return _hatched(rng, side)
    if rng.random() < 0.5:
        return np.full((side, side, 3), _colour(rng), np.uint8)
    corners = np.array([[_colour(rng), _colour(rng)], [_colour(rng), _colour(rng)]], np.uint8)
    return cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _hatched(rng: np.random.Generator, side: int) -> Frames:
    """Parallel lines, grids and stripes of any pitch on one colour."""
    canvas = np.full((side, side, 3), _colour(rng), np.uint8)
    colour, first = _colour(rng), rng.uniform(0, math.pi) if rng.random() < 0.5 else 0.0
    pitch = math.exp(rng.uniform(math.log(6), math.log(120)))
    thickness = max(1, round(pitch * rng.uniform(0.05, 0.5)))
    for angle in (first, first + math.pi / 2)[: rng.integers(1, 3)]:
        across = np.array([math.cos(angle), math.sin(angle)])
        along = 2 * side * np.array([-across[1], across[0]])
        for distance in np.arange(-side, side, pitch):
            middle = side / 2 + distance * across
            start, end = (((middle + sign * along) * 16).astype(int).tolist() for sign in (-1, 1))
            cv2.line(canvas, start, end, colour, thickness, cv2.LINE_AA, 4)
    return canvas


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    """Any colour; half of them at the corners of the cube."""
    if rng.random() < 0.5:
        return tuple(int(v) for v in rng.choice([0, 16, 128, 235, 255], 3))
    return tuple(int(v) for v in rng.integers(0, 256, 3))


def _thing(rng: np.random.Generator, crop: int):  # type: ignore[no-untyped-def]
    """A function that draws itself on a canvas of twice the size at frame t."""
    start, velocity = rng.uniform(0, 2 * crop, 2), rng.normal(0, 2, 2)
    colour, kind = _colour(rng), rng.integers(4)
    size = rng.uniform(0.05, 0.6, 2) * 2 * crop
    text = "".join(rng.choice(LETTERS, rng.integers(2, 12)))
    font, height = int(rng.choice(FONTS)), rng.uniform(0.5, 2)
    thickness = int(rng.integers(1, 5))

    def draw(canvas: Frames, t: int) -> None:
        a = start + velocity * t
        first, last = ((p * 16).astype(int).tolist() for p in (a, a + size))
        if kind == 0:
            cv2.rectangle(canvas, first, last, colour, -1, cv2.LINE_AA, 4)
        elif kind == 1:
            cv2.circle(canvas, first, int(size[0] * 8), colour, -1, cv2.LINE_AA, 4)
        elif kind == 2:
            cv2.line(canvas, first, last, colour, thickness, cv2.LINE_AA, 4)
        else:
            place = (int(a[0]) - crop // 2, int(a[1]))
            cv2.putText(canvas, text, place, font, height, colour, thickness, cv2.LINE_AA)

    return draw


def _moving_shape(rng: np.random.Generator, crop: int, frames: int) -> NDArray[np.float32]:
    """An ellipse with a sharp edge that moves, [T, crop, crop] in [0, 1]."""
    start, velocity = rng.uniform(0.2, 0.8, 2) * crop, rng.normal(0, 2, 2)
    axes = (rng.uniform(0.15, 0.5, 2) * crop * 16).astype(int).tolist()
    angle = rng.uniform(0, 180)
    out = np.zeros((frames, crop, crop), np.uint8)
    for t in range(frames):
        centre = ((start + velocity * t) * 16).astype(int).tolist()
        cv2.ellipse(out[t], centre, axes, angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
    return out.astype(np.float32) / np.float32(255)


def _resized(patch: Frames, crop: int) -> Frames:
    return np.stack([cv2.resize(p, (crop, crop), interpolation=cv2.INTER_AREA) for p in patch])


def _turned(patch: Frames, rng: np.random.Generator) -> Frames:
    """Mirrored and transposed at random, its colours exchanged now and then."""
    if rng.random() < 0.5:
        patch = patch[:, :, ::-1]
    if rng.random() < 0.2:
        patch = patch[:, ::-1]
    if rng.random() < 0.2:
        patch = patch.transpose(0, 2, 1, 3)
    if rng.random() < 0.1:
        patch = patch[..., rng.permutation(3)]
    return patch
