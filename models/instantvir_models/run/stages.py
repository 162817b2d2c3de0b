"""Threads joined by bounded queues: how a file and a live source are worked on side by side."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

PATIENCE_SECONDS = 0.1
"""How often a waiting stage looks whether the others still run."""

QUEUED_BLOCKS = 3
"""Blocks that wait in front of a stage at most; live, more would only be older when they come out."""

ItemT = TypeVar("ItemT")


class Stopped(Exception):
    """Another stage failed or the run was interrupted."""


class Link(Generic[ItemT]):
    """A bounded queue between two threads that gives up when the run stops.

    Args:
        stop: set by whoever ends the run; every waiting call then raises `Stopped`.
        size: items that wait at most.
    """

    def __init__(self, stop: threading.Event, size: int) -> None:
        self._queue: queue.Queue[ItemT | None] = queue.Queue(size)
        self._stop = stop
        self.size = size

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, item: ItemT | None) -> None:
        """Hand over an item, or None for the end; waits for room."""
        while not self.put_within(item, PATIENCE_SECONDS):
            continue

    def put_within(self, item: ItemT | None, seconds: float) -> bool:
        """Hand over an item if there is room within `seconds`; whether it was taken."""
        if self._stop.is_set():
            raise Stopped
        try:
            self._queue.put(item, timeout=seconds)
        except queue.Full:
            return False
        return True

    def offer(self, item: ItemT) -> list[ItemT]:
        """Hand over an item at once; the oldest waiting ones that had to give way."""
        displaced: list[ItemT] = []
        while True:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                try:
                    oldest = self._queue.get_nowait()
                except queue.Empty:  # the other side was faster
                    continue
                assert oldest is not None, "an item was offered after the end"
                displaced.append(oldest)
                continue
            return displaced

    def drain(self) -> list[ItemT]:
        """What still waits, taken out; for counting what a run that has stopped leaves behind."""
        left: list[ItemT] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return left
            if item is not None:
                left.append(item)

    def get(self) -> ItemT | None:
        """The next item, or None at the end; waits for it. Raises `Stopped` only if none waits."""
        while True:
            try:
                return self._queue.get_nowait()
            except queue.Empty:
                if self._stop.is_set():
                    raise Stopped from None
            try:
                return self._queue.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                continue

    def poll(self, seconds: float) -> ItemT | None:
        """The next item, or None if none comes within `seconds`."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return None


class Stage(threading.Thread):
    """A thread that does one job, keeps its busy time and its failure, and stops the run on it."""

    def __init__(self, name: str, job: Callable[["Stage"], None], stop: threading.Event) -> None:
        super().__init__(name=f"instantvir-{name}", daemon=True)
        self._job, self._stop_all = job, stop
        self.busy_seconds = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._job(self)
        except Stopped:
            pass
        except BaseException as error:  # raised again in the caller's thread
            self.failure = error
            self._stop_all.set()
