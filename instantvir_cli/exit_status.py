"""Exit statuses: the part of the interface that scripts depend on."""

from enum import IntEnum, unique

from instantvir_models.errors import (
    CheckpointError,
    InstantVIRError,
    UsageError,
    VideoOpenError,
    VideoWriteError,
)


@unique
class ExitStatus(IntEnum):
    """What `$?` holds after the command."""

    SUCCESS = 0
    FAILURE = 1
    USAGE = 2
    BAD_INPUT = 3
    NO_CHECKPOINT = 4
    PARTIAL = 5
    """The input was damaged, and the output holds what could be decoded; or its sound was lost."""
    BAD_OUTPUT = 6
    INTERRUPTED = 130  # 128 + SIGINT


STATUS_OF: dict[type[InstantVIRError], ExitStatus] = {
    UsageError: ExitStatus.USAGE,
    VideoOpenError: ExitStatus.BAD_INPUT,
    CheckpointError: ExitStatus.NO_CHECKPOINT,
    VideoWriteError: ExitStatus.BAD_OUTPUT,
}
