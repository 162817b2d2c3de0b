"""Frozen dataclasses as plain JSON and back, for one process to tell another what it does not trust."""

from __future__ import annotations

import math
import re
import types
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """The value as JSON has it: fractions as `1/25`, bytes in hexadecimal."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(hint: type[T], value: Any) -> T:
    """A value of this type; ValueError if it is something else."""
    made: T = _made(hint, value)
    return made


def _made(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        if value is None and type(None) in inner:
            return None
        (hint,) = (one for one in inner if one is not type(None))
        return _made(hint, value)
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is none of {inner}")
        return value
    if origin is tuple and isinstance(value, list):
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_made(inner[0], item) for item in value)
        return tuple(_made(one, item) for one, item in zip(inner, value, strict=True))
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        hints = get_type_hints(hint)
        names = {f.name for f in fields(hint)}
        if names != value.keys():
            raise ValueError(f"{hint.__name__} has other fields than {sorted(value)[:50]}")
        return hint(**{name: _made(hints[name], value[name]) for name in names})
    return _atom(hint, value)


def _atom(hint: Any, value: Any) -> Any:
    if hint is Fraction and isinstance(value, str):
        return fraction_in(value)
    if hint is bytes and isinstance(value, str):
        return bytes.fromhex(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise ValueError(f"{str(value)[:50]!r} is not of {hint}")
    return integer_in(value) if hint is int else value


def fraction_in(text: str) -> Fraction:
    """The number of something like `1/25`; ValueError for anything else."""
    match = _FRACTION.fullmatch(text)  # `Fraction` takes `1e999999999`, too, and never ends
    if match is None or int(match[2]) == 0:
        raise ValueError(f"{text[:50]!r} is no fraction")
    return Fraction(int(match[1]), int(match[2]))


def integer_in(value: object) -> int:
    """A whole number that FFmpeg can hold; ValueError for anything else."""
    if type(value) is not int or not -(2**63) < value < 2**63:
        raise ValueError(f"{str(value)[:50]!r} is no whole number of 64 bits")
    return value


_FRACTION = re.compile(r"(-?[0-9]{1,40})/([0-9]{1,40})")
