"""What a person and a log see of a running stream."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from rich.live import Live
from rich.text import Text

from instantvir_cli import __version__, console
from instantvir_models.errors import VideoWriteError
from instantvir_models.live.page import History, stream_page
from instantvir_models.live.status import LiveStatus
from instantvir_models.outputs.rule import refuse
from instantvir_models.report.page import check_page_name, save_page

TICK_SECONDS = 1.0


class Report:
    """Says events, keeps a live line on a terminal, and logs JSON lines.

    Args:
        json_lines: gets one object a line: `status` once a second, `event`s, and the `summary`.
        page: where a page of all that goes in the end; None makes none.
        reads: what the stream reads, which neither of them may be.
        may_replace: whether a page that is there is replaced; lines are added to those that are there.

    Raises:
        UsageError: if the page is called as no page is, is there and may not be replaced, or one of
            them is what is read.
        VideoWriteError: if a file cannot be written.
    """

    def __init__(
        self,
        *,
        json_lines: Path | None,
        page: Path | None = None,
        reads: Sequence[str] = (),
        may_replace: bool = False,
    ) -> None:
        if page is not None:
            check_page_name(page)
            refuse(page, reads=reads, may_replace=may_replace)
        self._page, self._may_replace, self._history = page, may_replace, History()
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        self._loss: VideoWriteError | None = None
        if json_lines is not None:
            refuse(json_lines, reads=reads, may_replace=True)
            try:
                self._file = json_lines.open("a", encoding="utf-8")
            except OSError as error:
                raise VideoWriteError(
                    f"cannot write `{json_lines}`: {error.strerror}",
                    hint="choose another file for `--json-lines`",
                ) from error

    def event(self, sentence: str) -> None:
        """Something happened; may be called from any thread."""
        console.warn(sentence)
        self._history.happened(sentence)
        self._log("event", sentence)

    @contextmanager
    def live(self, status: Callable[[], LiveStatus]) -> Iterator[None]:
        """While this lasts the status is shown and logged once a second."""
        done = threading.Event()
        is_shown = console.console.is_terminal and not console.console.quiet

        def tick(line: Live | None) -> None:
            while not done.wait(TICK_SECONDS):
                now = status()
                self._history.add(now)
                if line is not None:
                    line.update(Text(status_line(now)), refresh=True)
                self._log("status", asdict(now))

        with (
            Live(console=console.console, auto_refresh=False, transient=True)
            if is_shown
            else (_nothing()) as line
        ):
            thread = threading.Thread(target=tick, args=(line,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()

    def summary(self, status: LiveStatus) -> None:
        """The last word."""
        console.say(
            f"{status.frames_in} frames in, {status.frames_out} out, "
            f"{status.frames_dropped} dropped, {status.frames_abandoned} abandoned "
            f"in {status.seconds:.1f} s "
            f"({status.frames_passed} passed unrestored, {status.frames_degraded} restored the cheap way)"
        )
        if status.frames_guarded:
            console.warn(
                f"{status.frames_guarded} frames are the initial estimate in some places: what the "
                "student made of them contradicted the measurement, or had no reason in it"
            )
        first = status.first_frame_seconds
        console.say(
            f"delay p50 {_ms(status.delay.p50)}, p95 {_ms(status.delay.p95)}, "
            f"p99 {_ms(status.delay.p99)}; per block p50 {_ms(status.block_seconds.p50)}, "
            f"p99 {_ms(status.block_seconds.p99)}; first frame after "
            f"{'-' if first is None else f'{first:.2f} s'}; "
            f"{status.reconnects} reconnects, {status.size_changes} changes of size"
        )
        for output in status.outputs:
            console.say(
                f"{output.name}: {output.frames_written} written, {output.frames_dropped} lost, "
                f"{output.reconnects} reconnects, {output.state}"
            )
        if self._page is not None:
            command = " ".join(["instantvir", *sys.argv[1:]])
            page = stream_page(status, self._history, version=__version__, command=command)
            save_page(page, self._page, may_replace=self._may_replace)
            console.say(f"the page: {self._page}")
        self._log("summary", asdict(status))
        if self._file is not None:
            self._file.close()

    def raise_loss(self) -> None:
        """VideoWriteError if the JSON lines are not complete; what was restored is."""
        if self._loss is not None:
            raise self._loss

    def _log(self, kind: str, content: object) -> None:
        with self._lock:
            if self._file is None or self._file.closed:
                return
            line = {"time": time.time(), kind: content}
            try:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
            except OSError as error:  # a full disk must not end the stream
                with suppress(OSError):  # what is in its buffer
                    self._file.close()
                self._file = None
                self._loss = VideoWriteError(
                    f"the JSON lines are not complete: {error.strerror}",
                    hint="what was restored is",
                )
                console.warn(f"the JSON lines have ended: {error.strerror}")


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def status_line(status: LiveStatus) -> str:
    """One line for a terminal."""
    lost = sum(output.frames_dropped for output in status.outputs)
    return (
        f"in {status.fps_in:.1f} / out {status.fps_out:.1f} FPS | "
        f"block {_three(status.block_seconds.p50, status.block_seconds.p95, status.block_seconds.p99)} | "
        f"delay {_three(status.delay.p50, status.delay.p95, status.delay.p99)} | "
        f"queue {status.queue_depth}/{status.queue_size} | "
        f"dropped {status.frames_dropped}, lost by outputs {lost} | "
        f"{status.resident_bytes / 2**20:.0f} MiB"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _three(*seconds: float) -> str:
    return "/".join(f"{1000 * s:.0f}" for s in seconds) + " ms"
