"""What a training run logs, for TensorBoard."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from instantvir_cli.training_view import NOT_LOSS_ENDS, NOT_LOSSES, rows_of
from instantvir_models.errors import UsageError
from instantvir_models.outputs.claim import told

LOOK_EVERY_SECONDS = 5.0
FOLDER = "tensorboard"
"""Inside that of the run."""


class Board(Protocol):
    """What TensorBoard's writer is asked for."""

    def add_scalar(
        self, tag: str, scalar_value: float, global_step: int, *, walltime: float
    ) -> Any:
        """Keep a number."""

    def close(self) -> None:
        """Write what is kept."""


OpenBoard = Callable[[Path, int], Board]
"""From a folder and the first step whose numbers take the place of those that are there."""


def summary_writer(folder: Path, first_step: int) -> Board:
    """TensorBoard's own.

    Raises:
        UsageError: if it is not installed.
        VideoWriteError: if `folder` cannot be written.
    """
    check_installed()
    from torch.utils.tensorboard import SummaryWriter

    with told(folder):
        return SummaryWriter(str(folder), purge_step=first_step)


def check_installed() -> None:
    """UsageError if TensorBoard is not there."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "`--tensorboard` needs a package that is not installed",
            hint="pip install 'instantvir[tensorboard]'",
        ) from error


@contextmanager
def boarded(
    folder: Path, *, last_step: int, open_board: OpenBoard = summary_writer
) -> Iterator[None]:
    """While inside, rows of the log of the run in `folder` go to its folder `tensorboard`, too.

    Args:
        last_step: of the checkpoint that the run goes on from; later rows will be written anew.
    """
    if os.environ.get("RANK", "0") != "0":  # of the workers that `torchrun` started, one writes
        yield
        return
    is_new = not (folder / FOLDER).exists()
    board = open_board(folder / FOLDER, last_step + 1)
    follower = _Follower(folder / "log.jsonl", board, after=0 if is_new else last_step)
    is_over = threading.Event()

    def follow() -> None:
        while not is_over.wait(LOOK_EVERY_SECONDS):
            follower.look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        follower.look()
        board.close()


class _Follower:
    """Hands on each row of a log once, also where a run went back to its checkpoint."""

    def __init__(self, log: Path, board: Board, *, after: int) -> None:
        self.log, self.board, self.after = log, board, after

    def look(self) -> None:
        for row in rows_of(self.log):
            if row["step"] > self.after:
                self.after = row["step"]
                for tag, value in scalars(row).items():
                    self.board.add_scalar(tag, value, row["step"], walltime=row["time"])


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row by what TensorBoard calls them: losses, and how the run is."""
    found = {}
    for name, value in row.items():
        if name not in ("step", "time"):
            is_loss = name not in NOT_LOSSES and not name.endswith(NOT_LOSS_ENDS)
            found[f"{'loss' if is_loss else 'run'}/{name}"] = float(value)
    return found
