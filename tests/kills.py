"""Work in children that can be killed at any moment, each of which costs no start."""

import atexit
import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.media_clips import make_clip

IN_FLIGHT = 12
"""Frames that are restored, and wait for the encoder when a kill comes: a block, and three queued."""

TICK = os.sysconf("SC_CLK_TCK")

_CONTEXT = multiprocessing.get_context("forkserver")
# Not forked from here: a child of a process whose libraries have threads may wait for them for ever.
_CONTEXT.set_forkserver_preload(["tests.loaded"])


def cpu_seconds(pid: int) -> float:
    """What a child has taken of the processors so far; a busy machine changes nothing about it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def ended(
    work: Callable[[], object],
    *,
    when: Callable[[int], bool] = lambda pid: False,
    by: int = signal.SIGKILL,
    patience_seconds: float = 600,
) -> int:
    """The status of a child that did `work`, negative where a signal ended it; `by` is sent when
    `when` says so of its number."""
    child = _CONTEXT.Process(target=work, daemon=True)
    child.start()
    assert child.pid is not None
    has_been_sent = False
    patience = time.monotonic() + patience_seconds
    while child.is_alive():
        if not has_been_sent and when(child.pid):
            os.kill(child.pid, by)
            has_been_sent = True
        if time.monotonic() > patience:
            child.kill()
            raise TimeoutError("the child did not end")
        time.sleep(0.001)
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def restore_counted(
    clip: Path, target: Path, counts: Path, segment: int, keep_seconds: float
) -> None:
    """In a child: a restoration in pieces of `segment` frames; `counts` grows by a byte a frame."""
    from tests import loaded

    loaded.segments_of(segment, keep_seconds=keep_seconds)
    with counts.open("ab", buffering=0) as file:
        loaded.restore(
            clip, target, operator="noise:std=3", on_progress=lambda progress: file.write(b".")
        )


def run_command(
    words: tuple[str, ...],
    segment: int,
    said: Path | None = None,
    keep_seconds: float = math.inf,
) -> None:
    """In a child: the command, with what it says in the file `said`, and ended as a program is.

    A child of `multiprocessing` leaves without what was registered for the end of a program.
    """
    import sys

    from tests import loaded

    loaded.segments_of(segment, keep_seconds=keep_seconds)
    if said is not None:
        sys.stderr = said.open("w")
    try:
        loaded.app(list(words))
    finally:
        atexit._run_exitfuncs()


class KilledRuns:
    """Runs of one restoration, killed at random moments until it has ended well.

    Args:
        folder: an empty one.
        suffix: of the clip, of `frames` frames with sound, and of the output.
        segment: frames of a piece.
        keep_seconds: how often a piece is kept before it ends.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str,
        *,
        frames: int,
        segment: int,
        seed: int,
        keep_seconds: float = math.inf,
    ) -> None:
        self.random = random.Random(seed)
        self.frames, self.segment = frames, segment
        self.folder = folder / "films"
        self.folder.mkdir()
        self.clip = make_clip(
            self.folder / f"in{suffix}", width=64, height=48, num_frames=frames, audio=True
        )
        self.target = self.folder / f"out{suffix}"
        self.counts = folder / "counts"
        self.work = partial(
            restore_counted, self.clip, self.target, self.counts, segment, keep_seconds
        )
        self.rows: list[tuple[float, int]] = []
        """CPU second of each kill, and frames that were kept then."""
        spent = [0.0]

        def watch(pid: int) -> bool:
            spent.append(max(spent[-1], cpu_seconds(pid)))
            return False

        assert ended(self.work, when=watch) == 0
        self.seconds = spent[-1]
        """CPU seconds of a run that nobody kills."""
        self.expected = self.target.read_bytes()
        self.target.unlink()

    @property
    def computed(self) -> int:
        """Frames restored by all children so far."""
        return self.counts.stat().st_size

    def kill(self, times: int) -> None:
        """Kill it so often, and see that each time it then ends as if nobody had."""
        while len(self.rows) < times:
            self._until_it_ends_well(times)

    def _until_it_ends_well(self, times: int) -> None:
        before, kills = self.computed, 0
        while self._was_killed(may=len(self.rows) < times):
            kills += 1
        assert self.target.read_bytes() == self.expected
        assert sorted(os.listdir(self.folder)) == sorted([self.clip.name, self.target.name])
        most = self.frames + kills * (self.segment + IN_FLIGHT)
        assert self.frames <= self.computed - before <= most
        self.target.unlink()

    def _was_killed(self, *, may: bool) -> bool:
        at = self.random.uniform(0, 0.7 * self.seconds)
        status = ended(self.work, when=lambda pid: may and cpu_seconds(pid) >= at)
        if status == 0:
            return False
        assert status == -signal.SIGKILL, "a child failed"
        assert not self.target.exists()
        hidden = self.folder / f".{self.target.name}.instantvir"
        self.rows.append((round(at, 2), len(list(hidden.glob("0*.json"))) * self.segment))
        return True
