"""What a person sees: everything here goes to standard error; standard output is for data."""

import logging
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console
from rich.markup import escape

from instantvir_cli.standard_streams import StandardError

if TYPE_CHECKING:
    from instantvir_models.students.fitting import Notice

console = Console(file=cast("IO[str]", StandardError()), soft_wrap=True, highlight=False)


_elsewhere: Callable[[str], None] | None = None


def show_elsewhere(hand_on: Callable[[str], None]) -> None:
    """From now on lines are given to `hand_on`, which may be called from several threads: those of a
    process beside others go to the one that owns the terminal, and it may `show` them."""
    global _elsewhere
    _elsewhere = hand_on


def show(line: str) -> None:
    """A line that `hand_on` was given."""
    console.print(line)


def _put(line: str) -> None:
    if _elsewhere is None:
        show(line)
    elif not console.quiet:
        _elsewhere(line)


class _Spoken(logging.Handler):
    """Says what the library logs, in the words and colours of everything else."""

    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else say)(self.format(record))


def printable(text: str) -> str:
    """`text` with a question mark for what could steer a terminal: it may name other people's files."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def set_up(*, quiet: bool) -> None:
    """Route messages and warnings to the console; with `quiet` only errors are left."""
    console.quiet = quiet
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_Spoken()], force=True)
    logging.getLogger("libav").setLevel(logging.CRITICAL)


def _shown(text: str) -> str:
    return escape(printable(text))


def say(message: str) -> None:
    """One line for a person."""
    _put(_shown(message))


def warn(message: str) -> None:
    """One line that deserves attention."""
    _put(f"[yellow]warning:[/yellow] {_shown(message)}")


def warn_all(messages: Iterable[str]) -> None:
    """Each of these on a line that deserves attention."""
    for message in messages:
        warn(message)


def tell(notices: "Iterable[Notice]") -> None:
    """Each of these on a line of its kind."""
    for notice in notices:
        (warn if notice.is_warning else say)(notice.text)


def fail(message: str, hint: str | None) -> None:
    """The error, a blank line and what to do; shown even when quiet."""
    quiet, console.quiet = console.quiet, False
    _put(f"[red]error:[/red] {_shown(message)}")
    if hint:
        _put(f"\n[cyan]hint:[/cyan] {_shown(hint)}")
    console.quiet = quiet
