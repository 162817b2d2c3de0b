"""Work in forked children of a warm parent, killed at any moment: a second of CPU a case, not ten."""

import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from instantvir_models.run import restoration
from tests.media_clips import make_clip

IN_FLIGHT = 12
"""Frames that are restored, and wait for the encoder when a kill comes: a block, and three queued."""

TICK = os.sysconf("SC_CLK_TCK")


class Counter:
    """A number that children count up and their parent reads."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    def up(self, *ignored: object) -> None:
        self._shared[:8] = struct.pack("q", self.value + 1)

    @property
    def value(self) -> int:
        return int(struct.unpack("q", self._shared[:8])[0])


def cpu_seconds(pid: int) -> float:
    """What a child has taken of the processors so far; a busy machine changes nothing about it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def forked(work: Callable[[], object]) -> int:
    """The number of a child that does `work`, and ends with 0, or with 1 and a traceback."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(
    work: Callable[[], object],
    *,
    when: Callable[[int], bool] = lambda pid: False,
    by: int = signal.SIGKILL,
    patience_seconds: float = 600,
) -> int:
    """The status of a child that did `work`, negative where a signal ended it; `by` is sent when
    `when` says so of its number."""
    pid = forked(work)
    has_been_sent = False
    patience = time.monotonic() + patience_seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if not has_been_sent and when(pid):
            os.kill(pid, by)
            has_been_sent = True
        if time.monotonic() > patience:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError("the child did not end")
        time.sleep(0.001)


class KilledRuns:
    """Runs of one restoration, killed at random moments until it has ended well.

    Args:
        folder: an empty one.
        suffix: of the clip, of `frames` frames with sound, and of the output.
        segment: frames of a piece, as they are now.
    """

    def __init__(self, folder: Path, suffix: str, *, frames: int, segment: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.frames, self.segment = frames, segment
        self.clip = make_clip(
            folder / f"in{suffix}", width=64, height=48, num_frames=frames, audio=True
        )
        self.target, self.folder = folder / f"out{suffix}", folder
        self.counter = Counter()
        self.rows: list[tuple[float, int]] = []
        """CPU second of each kill, and frames that were kept then."""
        spent: list[float] = []
        assert ended(self._restore, when=lambda pid: bool(spent.append(cpu_seconds(pid)))) == 0  # type: ignore[func-returns-value]
        self.seconds = spent[-1]
        """CPU seconds of a run that nobody kills."""
        self.expected = self.target.read_bytes()
        self.target.unlink()

    def _restore(self) -> None:
        restoration.restore(
            self.clip, self.target, operator="noise:std=3", on_progress=self.counter.up
        )

    def kill(self, times: int) -> None:
        """Kill it so often, and see that each time it then ends as if nobody had."""
        while len(self.rows) < times:
            self._until_it_ends_well(times)

    def _until_it_ends_well(self, times: int) -> None:
        computed, kills = self.counter.value, 0
        while self._was_killed(may=len(self.rows) < times):
            kills += 1
        computed = self.counter.value - computed
        assert self.target.read_bytes() == self.expected
        assert sorted(os.listdir(self.folder)) == sorted([self.clip.name, self.target.name])
        assert computed <= self.frames + kills * (self.segment + IN_FLIGHT)
        self.target.unlink()

    def _was_killed(self, *, may: bool) -> bool:
        at = self.random.uniform(0, 0.7 * self.seconds)
        status = ended(self._restore, when=lambda pid: may and cpu_seconds(pid) >= at)
        if status == 0:
            return False
        assert status == -signal.SIGKILL, "a child failed"
        assert not self.target.exists()
        hidden = self.folder / f".{self.target.name}.instantvir"
        kept = len(list(hidden.glob("0*.json")))
        self.rows.append((round(at, 2), kept * self.segment))
        return True
