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
    HUNG_UP = 129  # 128 + SIGHUP
    INTERRUPTED = 130  # 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM


STATUS_OF: dict[type[InstantVIRError], ExitStatus] = {
    UsageError: ExitStatus.USAGE,
    VideoOpenError: ExitStatus.BAD_INPUT,
    CheckpointError: ExitStatus.NO_CHECKPOINT,
    VideoWriteError: ExitStatus.BAD_OUTPUT,
}

STATUS_OF_SIGNAL = {"SIGHUP": ExitStatus.HUNG_UP, "SIGTERM": ExitStatus.TERMINATED}
"""By the names of the signals that end it; others count as SIGINT."""
