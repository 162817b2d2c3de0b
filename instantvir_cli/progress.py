"""How far it is, on a terminal; and what a long restoration will take, wherever it is read."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from instantvir_cli import console
from instantvir_models.run import restore_report as library

LONG_SECONDS = 600
"""What takes longer is announced."""


class Shown:
    """A line for each video at work, and one for all of them where there are several.

    Args:
        num_files: how many there are.
    """

    def __init__(self, bar: Progress, num_files: int) -> None:
        self._bar = bar
        self._all = bar.add_task("files", total=num_files, note="") if num_files > 1 else None

    def file_done(self) -> None:
        """One more of the files has had its turn."""
        if self._all is not None:
            self._bar.advance(self._all)

    @contextmanager
    def file(self, name: str | None = None) -> Iterator[library.OnProgress]:
        """A line for one video as long as this lasts, and what moves it."""
        line = self._bar.add_task(console.printable(name or "restoring"), total=None, note="")
        was_announced = False

        def advance(progress: library.Progress) -> None:
            nonlocal was_announced
            self._bar.update(
                line,
                completed=progress.frames,
                total=progress.total_frames,
                note=note_of(progress),
            )
            if not was_announced and progress.seconds_left is not None:
                was_announced = True
                announce(name, progress)

        try:
            yield advance
        finally:
            self._bar.remove_task(line)


@contextmanager
def shown_progress(num_files: int = 1) -> Iterator[Shown]:
    """Live lines on a terminal, nothing elsewhere."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console.console,
        disable=console.console.quiet or not console.console.file.isatty(),
        transient=True,
    )
    with bar:
        yield Shown(bar, num_files)


def note_of(progress: library.Progress) -> str:
    """The pace, and what is left; nothing before it was measured."""
    if progress.fps is None:
        return ""
    left = "" if progress.seconds_left is None else f", {in_words(progress.seconds_left)} left"
    return f"{progress.fps:.3g} FPS{left}"


def announce(name: str | None, progress: library.Progress) -> None:
    """Say what a long restoration will take, and what may be done about it."""
    if progress.seconds_left is None or progress.seconds_left < LONG_SECONDS:
        return
    of = "" if name is None else f"`{name}`: "
    stop = "it may be stopped, the same command goes on where it was; " if progress.is_kept else ""
    console.say(
        f"{of}about {in_words(progress.seconds_left)} to go at {progress.fps:.2g} FPS; {stop}"
        "`--start 60 --duration 5` tries a part"
    )


def in_words(seconds: float) -> str:
    """A time as people say it: `40 s`, `70 min`, `5 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
