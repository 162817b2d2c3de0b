"""What a person sees: everything here goes to standard error; standard output is for data."""

import logging

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

console = Console(stderr=True, soft_wrap=True, highlight=False)


def set_up(*, quiet: bool) -> None:
    """Route messages and warnings to the console; with `quiet` only errors are left."""
    console.quiet = quiet
    handler = RichHandler(console=console, show_time=False, show_path=False, markup=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("libav").setLevel(logging.CRITICAL)


def say(message: str) -> None:
    """One line for a person."""
    console.print(escape(message))


def warn(message: str) -> None:
    """One line that deserves attention."""
    console.print(f"[yellow]warning:[/yellow] {escape(message)}")


def fail(message: str, hint: str | None) -> None:
    """The error, a blank line and what to do; shown even when quiet."""
    quiet, console.quiet = console.quiet, False
    console.print(f"[red]error:[/red] {escape(message)}")
    if hint:
        console.print(f"\n[cyan]hint:[/cyan] {escape(hint)}")
    console.quiet = quiet
