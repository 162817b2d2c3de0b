"""Settings by name: `method.levels.high=0.3` on a configuration of frozen dataclasses."""

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from instantvir_models.errors import UsageError

ConfigT = TypeVar("ConfigT")

BRACKETS = ("{", "[", "(")

Tree = dict[str, Any]
"""Texts by setting, as deep as the names; what is said of a thing itself is under the empty name."""


def with_settings(config: ConfigT, settings: Sequence[str]) -> ConfigT:
    """`config` with each `name=value` of `settings`.

    Names go into dataclasses, tuples (`phases.0.steps`) and mappings (`method.powers.denoise`). A
    field that is one of several classes takes the name of one (`method=self_supervised`), or
    `default` where there is only one (`critic=default`); lists are written with commas.

    Raises:
        UsageError: for a name that there is not, with the nearest one, or a value that does not fit.
    """
    tree: Tree = {}
    for setting in settings:
        name, is_said, text = setting.partition("=")
        if not is_said or not name:
            raise UsageError(f"`{setting}` sets nothing", hint="write `name=value`")
        inner = tree
        parts = name.strip().split(".")
        if not all(parts):
            raise UsageError(f"`{name}` has a part without a name", hint="write `a.b=value`")
        for part in parts:
            inner = inner.setdefault(part, {})
        if "" in inner:
            raise UsageError(f"`{name}` is set twice")
        inner[""] = text.strip()
    try:
        return _changed(config, tree, "", type(config))
    except ValueError as error:  # a configuration that refuses its own values
        raise UsageError(f"the settings do not fit together: {error}") from error


def _changed(value: Any, tree: Tree, name: str, kind: Any) -> Any:
    if "" in tree:
        value = _read(tree[""], kind, name)
    inner = {key: below for key, below in tree.items() if key}
    if not inner:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _changed_fields(value, inner, name)
    if isinstance(value, tuple):
        return _changed_items(value, inner, name, kind)
    if isinstance(value, Mapping):
        item = get_args(kind)[1]
        return {**value, **{k: _changed(None, t, f"{name}.{k}", item) for k, t in inner.items()}}
    below = next(iter(inner))
    hint = f"say first what it is: `{name}=default`" if value is None else None
    raise UsageError(f"`{name}` is {value!r} and has no `{below}`", hint=hint)


def _changed_fields(value: Any, inner: Tree, name: str) -> Any:
    known = {field.name for field in fields(value)}
    kinds = get_type_hints(type(value))
    for key in inner:
        if key not in known:
            below = [each for each in _names(value, name) if each.endswith(f".{key}")]
            close = below or difflib.get_close_matches(key, known, 1)
            hint = (
                f"did you mean `{close[0]}`?" if close else f"there is {', '.join(sorted(known))}"
            )
            where = f"`{name}`" if name else "this recipe"
            raise UsageError(f"{where} has no setting `{key}`", hint=hint)
    return replace(
        value,
        **{
            key: _changed(getattr(value, key), tree, f"{name}.{key}".lstrip("."), kinds[key])
            for key, tree in inner.items()
        },
    )


def _names(value: Any, name: str) -> Iterator[str]:
    """Of all settings in it, at any depth."""
    if is_dataclass(value):
        parts: Iterable[tuple[Any, Any]] = vars(value).items()
    else:
        parts = enumerate(value) if isinstance(value, tuple) else ()
    for key, part in parts:
        whole = f"{name}.{key}".lstrip(".")
        yield whole
        yield from _names(part, whole)


def _changed_items(value: tuple[Any, ...], inner: Tree, name: str, kind: Any) -> tuple[Any, ...]:
    out = list(value)
    kinds = get_args(kind)
    for key, tree in inner.items():
        if not key.isdecimal() or int(key) >= len(out):
            raise UsageError(f"`{name}` has the entries 0 to {len(out) - 1}, not `{key}`")
        index = int(key)
        item = kinds[0] if len(kinds) == 2 and kinds[1] is Ellipsis else kinds[index]
        out[index] = _changed(out[index], tree, f"{name}.{key}", item)
    return tuple(out)


def _read(text: str, kind: Any, name: str) -> Any:
    """`text` as a value of type `kind`."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_one_of(text, get_args(kind), name)
    if origin is Literal:
        return _chosen(text, [str(choice) for choice in get_args(kind)], name)
    if origin is tuple:
        if text[:1] in BRACKETS:
            raise UsageError(
                f"`{name}` is a list without brackets, got `{text}`",
                hint=f"write its values with commas: `{name}=ONE,TWO`",
            )
        items = [item.strip() for item in text.split(",") if item.strip()]
        kinds = get_args(kind)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return tuple(_read(item, kinds[0], name) for item in items)
        if len(items) != len(kinds):
            raise UsageError(f"`{name}` takes {len(kinds)} values with commas, got `{text}`")
        return tuple(_read(item, k, name) for item, k in zip(items, kinds, strict=True))
    if kind is bool:
        return _chosen(text, ["true", "false"], name) == "true"
    if kind in (int, float):
        return _number(text, kind, name)
    if kind is str:
        return text
    if is_dataclass(kind) and isinstance(kind, type):
        return _made(kind, text, name)
    raise UsageError(f"`{name}` is set by its parts", hint=f"`{name}.PART=value`")


def _read_one_of(text: str, kinds: tuple[Any, ...], name: str) -> Any:
    if type(None) in kinds and text == "none":
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1:
        return _read(text, others[0], name)
    by_name = {kind.name: kind for kind in others if hasattr(kind, "name")}
    if not by_name:
        raise UsageError(f"`{name}` is set by its parts", hint=f"`{name}.PART=value`")
    return _made(by_name[_chosen(text, list(by_name), name)], text, name)


def _made(kind: type[Any], text: str, name: str) -> Any:
    """A dataclass with its usual values."""
    if text not in ("default", getattr(kind, "name", "default")):
        raise UsageError(f"`{name}` is `default` or set by its parts, got `{text}`")
    missing = [field.name for field in fields(kind) if _is_needed(field)]
    if missing:
        raise UsageError(f"`{name}` has no usual {', '.join(missing)}")
    return kind()


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _chosen(text: str, choices: list[str], name: str) -> str:
    if text not in choices:
        raise UsageError(f"`{name}` is one of {', '.join(choices)}, got `{text}`")
    return text


def _number(text: str, kind: type[Any], name: str) -> Any:
    wanted = "a whole number" if kind is int else "a number"
    try:
        number = kind(text)
    except ValueError:
        raise UsageError(f"`{name}` is {wanted}, got `{text}`") from None
    if number != number:  # nan is none
        raise UsageError(f"`{name}` is {wanted}, got `{text}`")
    return number
