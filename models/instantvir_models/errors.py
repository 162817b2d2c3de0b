"""Failures a user can act on. Anything else is a bug and should show its traceback."""


class InstantVIRError(Exception):
    """Base of every expected failure; `hint` says what to do next."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(InstantVIRError):
    """What was asked for does not make sense: an unknown task, a bad specification, a wrong size."""


class VideoOpenError(InstantVIRError):
    """The input is missing, unreadable or has no video stream."""


class VideoWriteError(InstantVIRError):
    """The output cannot be written."""


class CheckpointError(InstantVIRError):
    """A checkpoint is missing, damaged or not one of ours."""


class DeviceMemoryError(InstantVIRError):
    """The device has too little memory, even for the smallest step."""
