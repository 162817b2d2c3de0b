"""What a stream did, as a page: its delays, its queue and its outputs over time."""

from collections.abc import Callable, Sequence

from instantvir_models.live.status import LiveStatus, OutputStatus
from instantvir_models.report.page import Column, Line, Lines, Page, Section, Table

MOST_STATUSES = 600
"""Kept at once; when there are as many, every other goes, so memory stays constant."""

MOST_EVENTS = 100


class History:
    """Statuses and events of a stream of any length."""

    def __init__(self) -> None:
        self.statuses: list[LiveStatus] = []
        self.events: list[str] = []
        """The first ones."""
        self._stride, self._count = 1, 0

    def add(self, status: LiveStatus) -> None:
        """Take what a stream says of itself, asked in even intervals."""
        if self._count % self._stride == 0:
            self.statuses.append(status)
            if len(self.statuses) >= MOST_STATUSES:
                self.statuses, self._stride = self.statuses[::2], 2 * self._stride
        self._count += 1

    def happened(self, sentence: str) -> None:
        """Take an event."""
        if len(self.events) < MOST_EVENTS:
            self.events.append(sentence)


def stream_page(status: LiveStatus, history: History, *, version: str, command: str) -> Page:
    """The page of a stream that has ended with `status`."""
    return Page(
        title="instantvir stream",
        lead=f"{status.seconds:.0f} seconds, {status.frames_in} frames in, {status.frames_out} out.",
        facts=_facts(status),
        warnings=tuple(history.events),
        sections=(
            Section(title="Over time", items=_curves(history.statuses)),
            Section(title="Outputs", items=(_outputs(status.outputs),)),
        ),
        receipt={"command": command, "instantvir": version},
    )


def _facts(status: LiveStatus) -> dict[str, str]:
    first = status.first_frame_seconds
    return {
        "delay p50": _ms(status.delay.p50),
        "delay p95": _ms(status.delay.p95),
        "delay p99": _ms(status.delay.p99),
        "block p50": _ms(status.block_seconds.p50),
        "block p99": _ms(status.block_seconds.p99),
        "first frame": "none" if first is None else f"{first:.2f} s",
        "dropped": str(status.frames_dropped),
        "abandoned": str(status.frames_abandoned),
        "unrestored": str(status.frames_passed),
        "the cheap way": str(status.frames_degraded),
        "replaced in some places": str(status.frames_guarded),
        "reconnects": str(status.reconnects),
    }


def _curves(statuses: Sequence[LiveStatus]) -> tuple[Lines, ...]:
    def lines(title: str, label: str, of: dict[str, Callable[[LiveStatus], float]]) -> Lines:
        return Lines(
            title=title,
            x_label="seconds",
            y_label=label,
            x=tuple(f"{status.seconds:.0f}" for status in statuses),
            lines=tuple(
                Line(label=name, values=tuple(float(value(s)) for s in statuses))
                for name, value in of.items()
            ),
        )

    return (
        lines(
            "Delay from capture until a frame is restored",
            "ms",
            {
                "p50": lambda s: 1000 * s.delay.p50,
                "p95": lambda s: 1000 * s.delay.p95,
                "p99": lambda s: 1000 * s.delay.p99,
            },
        ),
        lines(
            "Frames per second", "a second", {"in": lambda s: s.fps_in, "out": lambda s: s.fps_out}
        ),
        lines(
            "Frames that wait, and that were lost",
            "frames",
            {
                "waiting": lambda s: s.queue_depth,
                "dropped so far": lambda s: s.frames_dropped,
                "lost by outputs so far": lambda s: sum(o.frames_dropped for o in s.outputs),
            },
        ),
        lines("Memory", "MiB", {"resident": lambda s: s.resident_bytes / 2**20}),
    )


def _outputs(outputs: Sequence[OutputStatus]) -> Table:
    return Table(
        title="",
        columns=(
            Column(label="output"),
            Column(label="state"),
            Column(label="written", digits=0),
            Column(label="lost", digits=0, best="low"),
            Column(label="reconnects", digits=0, best="low"),
            Column(label="delay p50, ms", digits=0, best="low"),
            Column(label="p99", digits=0, best="low"),
        ),
        rows=tuple(
            (
                o.name,
                o.state,
                o.frames_written,
                o.frames_dropped,
                o.reconnects,
                1000 * o.delay.p50,
                1000 * o.delay.p99,
            )
            for o in outputs
        ),
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
