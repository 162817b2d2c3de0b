"""Writes the page of commands from the Typer app, whenever the site is built."""

from collections.abc import Iterator
from typing import Any

import typer

from instantvir_cli.app import app

PLACE = "<!-- every verb, from the program itself -->"
"""Where the page is to have them."""


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page with all verbs in it; the site builder calls this for every page."""
    return markdown.replace(PLACE, "\n".join(lines_of_verbs())) if PLACE in markdown else markdown


def lines_of_verbs() -> Iterator[str]:
    """A section for each verb: what it does, examples, arguments and options by group."""
    for name, verb in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        context = typer.Context(verb, info_name=f"instantvir {name}")
        yield from (f"## {name}", "", verb.help, "")
        yield from ("```", verb.get_usage(context).removeprefix("Usage: "), "```", "")
        yield from ("For example:", "", "```", *verb.epilog.splitlines(), "```", "")
        for title, parameters in sections_of(verb).items():
            yield from (f"**{title}**", "", "| | what it is | if not given |", "|---|---|---|")
            yield from (row_of(parameter) for parameter in parameters)
            yield ""


def sections_of(verb: Any) -> dict[str, list[Any]]:
    """Parameters by the section of the help that they are in."""
    sections: dict[str, list[Any]] = {}
    for parameter in verb.params:
        is_argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None)
        sections.setdefault("Arguments" if is_argument else panel or "Options", []).append(
            parameter
        )
    return sections


def row_of(parameter: Any) -> str:
    """A line of the table: spelling, help, default."""
    is_argument = parameter.param_type_name == "argument"
    name = parameter.metavar or parameter.name.upper()
    spelling = name if is_argument else ", ".join(parameter.opts)
    return f"| `{spelling}` | {escaped(parameter.help or '')} | {default_of(parameter)} |"


def default_of(parameter: Any) -> str:
    """What holds where the parameter is not given, in words or as code."""
    if parameter.required:
        return "required"
    default = parameter.default
    return "" if default is None or default is False else f"`{default}`"


def escaped(text: str) -> str:
    """Text as a cell of a table takes it."""
    return text.replace("|", "\\|").replace("<", "&lt;")
