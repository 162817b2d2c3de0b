"""`--jobs N`: several videos side by side, each in a process that can die alone."""

import multiprocessing
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from instantvir_cli import console
from instantvir_cli.batch import attempt
from instantvir_cli.progress import Shown
from instantvir_cli.restore import RestoreRequest
from instantvir_cli.signals import ended_by_signals
from instantvir_cli.threads import use_threads
from instantvir_models.cpu import cores
from instantvir_models.errors import InstantVIRError
from instantvir_models.run.batch import BatchRow, Outcome
from instantvir_models.run.jobs import Job
from instantvir_models.run.restore_report import OnProgress, Progress

TICK_SECONDS = 0.5
"""Between what a worker tells of its progress."""

PATIENCE_SECONDS = 20
"""How long a worker that was told to end may take to leave nothing behind."""


def rows_side_by_side(
    jobs: Sequence[Job], request: RestoreRequest, shown: Shown
) -> Generator[BatchRow, None, None]:
    """The rows of all jobs as they come; a worker that dies costs its job, and another one goes on."""
    waiting = list(reversed(jobs))
    threads = max(1, (request.model.threads or cores()) // request.jobs)
    workers = [_Worker(request, threads) for _ in range(min(request.jobs, len(jobs)))]
    try:
        for worker in workers:
            worker.take(waiting.pop(), shown)
        while busy := [worker for worker in workers if worker.job is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in (worker for worker in busy if worker.connection in ready):
                row = worker.heard()
                if row is None:
                    continue
                yield row
                if waiting:
                    worker.take(waiting.pop(), shown)
    except KeyboardInterrupt as error:
        error.add_note("what was begun is kept as far as it can be: the same command goes on")
        raise
    finally:
        for worker in workers:
            worker.end()


@dataclass
class _Worker:
    """A process that restores one video after the other, seen from the process that asks."""

    request: RestoreRequest
    threads: int
    job: Job | None = None
    """What it is at."""
    _line: ExitStack = field(default_factory=ExitStack)
    _advance: OnProgress | None = None

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far = context.Pipe()
        self.process = context.Process(
            target=_work, args=(far, self.request, self.threads), daemon=True
        )
        self.process.start()
        far.close()

    def take(self, job: Job, shown: Shown) -> None:
        """Begin with `job`."""
        if not self.process.is_alive():
            self.connection.close()
            self._begin()
        self.job = job
        self._advance = self._line.enter_context(shown.file(job.source))
        with suppress(OSError):  # it has died: `heard` says so
            self.connection.send(job)

    def heard(self) -> BatchRow | None:
        """What it says: its row, which ends the job, or nothing but how far it is."""
        assert self.job is not None
        try:
            said: Any = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            said = BatchRow(
                input=self.job.source,
                output=self.job.destination,
                outcome=Outcome.FAILED,
                error=_death(self.process.exitcode),
                sentence=str(_death(self.process.exitcode)),
            )
        if isinstance(said, _Line):
            console.show(said.text)
            return None
        if isinstance(said, Progress):
            assert self._advance is not None
            self._advance(said)
            return None
        if isinstance(said, InstantVIRError):  # before any job: nothing can be restored
            raise said
        self.job = None
        self._line.close()
        assert isinstance(said, BatchRow)
        return said

    def end(self) -> None:
        """Let it leave nothing behind."""
        self._line.close()
        if self.job is not None and self.process.is_alive():
            self.process.terminate()
        self.connection.close()
        self.process.join(PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.kill()


def _death(exitcode: int | None) -> InstantVIRError:
    how = f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"status {exitcode}"
    return InstantVIRError(
        f"the process that restored it died ({how})",
        hint="if memory ran out, give fewer `--jobs`; the same command goes on",
    )


def _work(
    connection: "Connection[Any, Any]",
    request: RestoreRequest,
    threads: int,
) -> None:
    """In the process: restore what comes through `connection` until that closes."""
    console.set_up(quiet=request.is_quiet)
    voice = _Voice(connection)
    console.show_elsewhere(voice.line)
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt), ended_by_signals():
        use_threads(threads)
        plan = request.plan()  # whose tasks are no data that crosses processes
        try:
            solver = request.model.open()
        except InstantVIRError as error:
            connection.recv()
            voice.say(error)
            return
        while True:
            job: Job = connection.recv()
            voice.say(attempt(job, plan, solver, request, _Telling(voice)))


@dataclass(frozen=True)
class _Line:
    """One for the terminal, which two processes would write over each other's, and over what moves there."""

    text: str


class _Voice:
    """Says things to the process that asked, from whatever thread."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection, self._alone = connection, threading.Lock()

    def say(self, what: Any) -> None:
        """Send it."""
        with self._alone:
            self._connection.send(what)

    def line(self, text: str) -> None:
        """A line for the terminal; lost where nobody listens any more."""
        with suppress(OSError):
            self.say(_Line(text))


class _Telling:
    """Tells the process that asked how far it is, now and then."""

    def __init__(self, voice: _Voice) -> None:
        self._voice, self._next_seconds = voice, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next_seconds:
            self._next_seconds = now + TICK_SECONDS
            self._voice.say(progress)
