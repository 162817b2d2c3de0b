"""Restored frames as a camera other programs can choose; needs the extra `instantvir[live]`."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from instantvir_models.errors import VideoWriteError
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.media.color import as_uint8

_CAMERA_ERRORS = (RuntimeError, ValueError, OSError)
"""What pyvirtualcam raises, whose backends differ."""


class VirtualCamera:
    """A sink that shows frames on a virtual camera at the rate of their time stamps.

    Args:
        device: such as `/dev/video9`; None takes the first free one.
        fps: that the camera claims.

    Raises:
        VideoWriteError: if pyvirtualcam or a virtual camera device is missing, or the device fails.
    """

    def __init__(self, device: str | None, *, height: int, width: int, fps: float) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise VideoWriteError(
                "a virtual camera needs the package pyvirtualcam",
                hint="pip install 'instantvir[live]'",
            ) from error
        try:
            self._camera = pyvirtualcam.Camera(width, height, fps, device=device)
        except _CAMERA_ERRORS as error:
            raise VideoWriteError(
                f"no virtual camera can be opened: {error}",
                hint="on Linux: `modprobe v4l2loopback`; elsewhere install OBS Studio",
            ) from error
        self._starts: tuple[float, float] | None = None

    def write(self, frame: Frame) -> None:
        """Show one frame when it is due."""
        if self._starts is None:
            self._starts = (time.monotonic(), frame.pts_seconds)
        due = self._starts[0] + frame.pts_seconds - self._starts[1]
        time.sleep(min(1.0, max(0.0, due - time.monotonic())))
        with _told():
            self._camera.send(np.ascontiguousarray(as_uint8(frame.pixels)))

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """A camera has no sound."""

    def close(self) -> None:
        """Release the device."""
        with _told():
            self._camera.close()

    def abort(self) -> None:
        """Release the device."""
        self.close()


@contextmanager
def _told() -> Iterator[None]:
    """What pyvirtualcam raises becomes a VideoWriteError."""
    try:
        yield
    except _CAMERA_ERRORS as error:
        raise VideoWriteError(
            f"the virtual camera has failed: {error}", hint="check that its device is still there"
        ) from error
