"""Restore the frames of a camera as NumPy arrays, as they come, and hand them to another program.

    python examples/camera_loop.py 0 | ffplay -f rawvideo -pixel_format rgb24 -video_size 640x480 -

`instantvir stream` does this too, with a bounded delay and sound; this is the loop to build upon.
"""

import sys
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

import instantvir

Frame = NDArray[np.uint8]
"""[H, W, 3] RGB."""


def frames_of(camera: cv2.VideoCapture) -> Iterator[Frame]:
    """Its frames until it ends; OpenCV's are BGR."""
    while True:
        is_there, frame = camera.read()
        if not is_there:
            return
        yield np.ascontiguousarray(frame[..., ::-1])


def restored(frames: Iterator[Frame], degradation: instantvir.Degradation) -> Iterator[Frame]:
    """Each frame restored, at most two frames late."""
    session = None
    for frame in frames:
        if session is None:
            height, width = frame.shape[:2]
            session = instantvir.Session(
                instantvir.Amortised(instantvir.load_student().student),
                degradation,
                height=height,
                width=width,
            )
        yield from session.push(frame[None])
    if session is not None:
        yield from session.flush()


def main(source: str) -> None:
    """Write what the camera (its number, or a file) sees to standard output, without its noise."""
    camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not camera.isOpened():
        sys.exit(f"the camera or file `{source}` cannot be opened")
    degradation = instantvir.parse_degradation("identity+noise:std=8")
    for frame in restored(frames_of(camera), degradation):
        sys.stdout.buffer.write(frame.tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
