"""What fields and dust cost and what is made of them: weaving, bwdif, the student.

    python benchmarks/fields.py --clips DIR [--names sam2_dog_01 ...] [--frames 12] [--size 320x192]

Clips are taken for progressive at the rate of the fields: rows of two frames in a row are woven into
one picture (4:2:0, each field with its own chroma), and what comes back is compared with the clip.
`still` repeats its first frame. The two frames at both ends do not count.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from receipts import machine, write_result

from instantvir_models.diagnosis.dust import find_dust
from instantvir_models.media import Frame, open_video
from instantvir_models.media.fields import Order, deinterlaced, find_fields, without_telecine
from instantvir_models.metrics.fidelity import psnr, ssim
from instantvir_models.operators.base import Operator
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.mask import Dust
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spots import dusty
from instantvir_models.run.dust import without_dust
from instantvir_models.run.opening import OpenedSolver, open_student
from instantvir_models.run.pipeline import restore_video

Frames = NDArray[np.uint8]
TIME_BASE = Fraction(1, 25)
EDGE = 2


def yuv(frame: Frames) -> list[Frames]:
    """The three planes of one field, 4:2:0."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    planes = picture.reformat(format="yuv420p", dst_colorspace=5).to_ndarray()
    height, width = frame.shape[:2]
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    return [planes[:height], chroma[0], chroma[1]]


def woven(top: Frames, bottom: Frames, index: int) -> av.VideoFrame:
    """The picture of the top field of one frame and the bottom field of another."""
    out = []
    for upper, lower in zip(yuv(top[0::2]), yuv(bottom[1::2]), strict=True):
        plane = np.empty((2 * upper.shape[0], upper.shape[1]), np.uint8)
        plane[0::2], plane[1::2] = upper, lower
        out.append(plane.reshape(-1))
    height, width = top.shape[:2]
    picture = av.VideoFrame.from_ndarray(
        np.concatenate(out).reshape(height * 3 // 2, width), format="yuv420p"
    )
    picture.pts, picture.time_base = index, TIME_BASE
    return picture


def interlaced(clip: Frames, first: Order) -> list[av.VideoFrame]:
    """Half as many pictures."""
    pairs = zip(clip[0::2], clip[1::2], strict=True)
    return [woven(a, b, i) if first == "top" else woven(b, a, i) for i, (a, b) in enumerate(pairs)]


def telecined(film: Frames) -> list[av.VideoFrame]:
    """Five pictures of four."""
    fields = [
        pair
        for a, b, c, d in film.reshape(-1, 4, *film.shape[1:])
        for pair in ((a, a), (b, b), (b, c), (c, d), (d, d))
    ]
    return [woven(top, bottom, index) for index, (top, bottom) in enumerate(fields)]


def rgb(pictures: Iterator[av.VideoFrame] | list[av.VideoFrame]) -> Frames:
    """[T, H, W, 3]."""
    arrays = [
        p.reformat(format="rgb24", src_colorspace=5, dst_color_range=2).to_ndarray()
        for p in pictures
    ]
    return np.stack(arrays).astype(np.uint8, copy=False)


def luma(pictures: list[av.VideoFrame]) -> list[Frames]:
    """What the order is found in."""
    return [picture.reformat(format="gray").to_ndarray().astype(np.uint8) for picture in pictures]


def from_rows(frames: Frames, first: Order, opened: OpenedSolver, noise_std: float = 0.0) -> Frames:
    """The student, told which rows of what bwdif made were measured: as `restore` does it."""
    shown = []
    for index, pixels in enumerate(frames):
        guessed = np.ones(pixels.shape[:2], np.bool_)
        guessed[(index % 2) ^ (first == "bottom") :: 2] = False
        shown.append(Frame(pixels, index, TIME_BASE / 2, guessed=guessed))
    return restored(shown, Identity(), noise_std, opened)


def restored(
    shown: list[Frame], operator: Operator, noise_std: float, opened: OpenedSolver
) -> Frames:
    """What a session makes of frames with their masks."""
    height, width = shown[0].pixels.shape[:2]
    degradation = Degradation(operator=operator, noise_std=noise_std)
    out: list[Frames] = []

    class Sink:
        def write(self, frame: Frame) -> None:
            out.append(frame.pixels.astype(np.uint8, copy=False))

    session = opened.new_session(degradation, height=height, width=width).session
    restore_video(shown, session, Sink())
    return np.stack(out)


def frames_of(pixels: Frames) -> list[Frame]:
    """At one a time unit."""
    return [Frame(picture, t, TIME_BASE) for t, picture in enumerate(pixels)]


def quality(frames: Frames, clean: Frames) -> dict[str, float]:
    """Means over the frames that count."""
    inside = slice(EDGE, min(len(frames), len(clean)) - EDGE)
    return {
        "psnr": round(float(psnr(frames[inside], clean[inside]).mean()), 2),
        "ssim": round(float(ssim(frames[inside], clean[inside]).mean()), 4),
    }


def fields_of(clip: Frames, opened: OpenedSolver) -> dict[str, object]:
    """Every way from fields to frames, on one clip."""
    pictures = interlaced(clip, "top")
    noise = 8 * np.random.default_rng(0).standard_normal(clip.shape)
    noisy = np.rint(clip + noise).clip(0, 255).astype(np.uint8)
    noisy_full = rgb(
        deinterlaced(iter(interlaced(noisy, "top")), "top", time_base=TIME_BASE, each_field=True)
    )
    wrong = deinterlaced(iter(pictures), "bottom", time_base=TIME_BASE, each_field=True)
    full = rgb(deinterlaced(iter(pictures), "top", time_base=TIME_BASE, each_field=True))
    same = rgb(deinterlaced(iter(pictures), "top", time_base=TIME_BASE, each_field=False))
    stored = rgb(pictures)
    bottom = find_fields(luma(interlaced(clip, "bottom")))
    return {
        "found": find_fields(luma(pictures)).sentence,
        "found_bottom_first": bottom.sentence,
        "found_progressive": find_fields(
            luma([woven(f, f, i) for i, f in enumerate(clip)])
        ).sentence,
        "weave": quality(np.repeat(stored, 2, 0), clip),
        "bwdif": quality(full, clip),
        "bwdif_wrong_order": quality(rgb(wrong), clip),
        "student_from_rows": quality(from_rows(full, "top", opened), clip),
        "noise_8_bwdif_denoised": quality(
            restored(frames_of(noisy_full), Identity(), 8 / 127.5, opened), clip
        ),
        "noise_8_student_from_rows": quality(from_rows(noisy_full, "top", opened, 8 / 127.5), clip),
        "same_rate_weave": quality(stored, clip[::2]),
        "same_rate_bwdif": quality(same, clip[::2]),
    }


def film_of(clip: Frames) -> dict[str, object]:
    """Telecined, found, and undone."""
    film = clip[: len(clip) // 4 * 4]
    pictures = telecined(film)
    back = rgb(without_telecine(iter(pictures), "top", time_base=TIME_BASE))
    return {
        "found": find_fields(luma(pictures)).sentence,
        "frames": [len(pictures), len(back), len(film)],
        "as_stored": quality(rgb(pictures)[: len(film)], film),
        "without_telecine": quality(back, film),
    }


def dust_of(clip: Frames, grain_levels: float, opened: OpenedSolver) -> dict[str, object]:
    """Film with grain and dust: what was found of it, and what filling gives."""
    rng = np.random.default_rng(0)
    grain = grain_levels * rng.standard_normal(clip.shape)
    grainy = np.rint(clip + grain).clip(0, 255).astype(np.uint8)
    dirty = dusty(grainy, rng)
    noise_std = grain_levels / 127.5
    found = ~np.stack([find_dust(*dirty.frames[t - 1 : t + 2]) for t in range(1, len(clip) - 1)])
    false = ~np.stack([find_dust(*grainy[t - 1 : t + 2]) for t in range(1, len(clip) - 1)])
    truth = dirty.is_spot[1:-1]
    shown = frames_of(dirty.frames)
    return {
        "recall": round(float(found[truth].mean()), 3),
        "precision": round(float(truth[found].mean()), 3),
        "false_pixels_per_frame_without_dust": round(float(false.sum() / len(false)), 1),
        "input": quality(dirty.frames, clip),
        "denoised": quality(restored(shown, Identity(), noise_std, opened), clip),
        "denoised_and_dust": quality(
            restored(list(without_dust(shown)), Dust(), noise_std, opened), clip
        ),
    }


def cropped(path: Path, frames: int, size: tuple[int, int]) -> Frames:
    """The middle of the first frames of a clip."""
    width, height = size
    with open_video(path, other_streams=False) as reader:
        pixels = np.stack([f.pixels for f, _ in zip(reader, range(frames), strict=False)])
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return np.ascontiguousarray(pixels[:, top : top + height, left : left + width])


def main() -> None:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", default="320x192")
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    opened = open_student(arguments.model, device="cpu")
    rows: dict[str, object] = {}
    for name in arguments.names:
        clip = cropped(arguments.clips / f"{name}.mp4", 2 * arguments.frames, (width, height))
        some = clip[: arguments.frames]
        rows[name] = {
            "moving": fields_of(some, opened),
            "still": fields_of(np.repeat(clip[:1], arguments.frames, 0), opened),
            "film": film_of(clip),
            "dust": {f"grain {g}": dust_of(some[:8], g, opened) for g in (0, 8)},
        }
    write_result("fields", {"machine": machine(), "clips": rows})


if __name__ == "__main__":
    main()
