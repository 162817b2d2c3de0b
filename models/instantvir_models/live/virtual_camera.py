"""Restored frames as a camera other programs can choose; needs the extra `instantvir[live]`."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from instantvir_models.errors import VideoWriteError
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.media.color import as_uint8

LARGEST_DRIFT_SECONDS = 1.0
"""Between time stamps and clock; beyond it the source or the stream has paused."""

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
        self._zero_seconds = float("-inf")
        """Monotonic seconds at which time stamp 0 is shown."""

    def write(self, frame: Frame) -> None:
        """Show one frame when it is due."""
        time.sleep(self._seconds_until(frame.pts_seconds))
        with _told():
            self._camera.send(np.ascontiguousarray(as_uint8(frame.pixels)))

    def _seconds_until(self, pts_seconds: float) -> float:
        """How long to wait for a time stamp; one far from the clock is due now, and time goes on
        from there: after a pause the camera neither rushes nor waits."""
        now = time.monotonic()
        wait_seconds = self._zero_seconds + pts_seconds - now
        if abs(wait_seconds) > LARGEST_DRIFT_SECONDS:
            self._zero_seconds = now - pts_seconds
            return 0.0
        return max(0.0, wait_seconds)

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
