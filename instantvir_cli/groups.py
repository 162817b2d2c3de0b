"""Options that belong together are declared once, as a dataclass, and serve every verb that takes it."""

import functools
import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.core import TyperCommand


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as Typer is to see it: with the options of a group in place of the group.

    A group is a dataclass. Its fields are annotated as parameters of a command are, and its `PANEL`
    names their section of the help. The command is called with each group built.

    Raises:
        ValueError: if two options, or an option and a parameter, have one name.
    """
    seen = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in seen.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    parameters = [
        shown
        for name, parameter in seen.parameters.items()
        for shown in (_options_of(groups[name]) if name in groups else [parameter])
    ]
    names = [parameter.name for parameter in parameters]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"`{command.__name__}` would have two options called {sorted(twice)}")

    @functools.wraps(command)
    def verb(**values: Any) -> None:
        built = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **built)

    shown = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    verb.__signature__ = seen.replace(parameters=shown)  # type: ignore[attr-defined]
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return verb


def _options_of(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_in_panel(hints[field.name], group.PANEL),
        )


def _in_panel(annotation: Any, panel: str) -> Any:
    """The annotation with a copy of its Typer option that belongs to `panel`."""
    assert get_origin(annotation) is Annotated, "a group says how each of its options is typed"
    kind, option = get_args(annotation)
    option = copy(option)
    option.rich_help_panel = panel
    return Annotated[kind, option]


class Verb(TyperCommand):
    """A command whose help lists its options by group, and its examples as they are to be typed."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            is_argument = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None)
            title = "Arguments" if is_argument else panel or "Options"
            if record is not None:
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
