"""What flows in memory, as tensors and plain values on a disk and back, without pickles.

A value is what its type says: a dataclass of values, a list or tuple of them, a tensor or an array, a
number, a text, None. What comes back is equal to the bit, and laid out in memory as it was, since sums
are taken in the order of memory.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

PLAIN = (bool, int, float, str)


ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class KeptMemory:
    """A value taken apart: what the disk holds of it."""

    tree: Any
    """What JSON holds."""
    tensors: dict[str, Tensor]
    """What safetensors hold."""

    @classmethod
    def of(cls, value: Any) -> "KeptMemory":
        """Copies of all that is in `value`; TypeError if something in it cannot be kept."""
        return cls(*taken_apart(value))

    def as_of(self, kind: type[ValueT], **types: Any) -> ValueT:
        """The value again, a dataclass.

        Args:
            types: of fields of which the class does not tell.

        Raises:
            ValueError: if it is no such value.
        """
        hints = {**_hints(kind), **types}
        try:
            return kind(**{n: put_together(hints[n], self.tree[n], self.tensors) for n in hints})
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"what was kept is no {kind.__name__}: {error}") from error


def can_be_kept(kind: Any) -> bool:
    """Whether values of this type can be kept, as far as the type tells."""
    try:
        _check(kind, frozenset())
    except TypeError:
        return False
    return True


def taken_apart(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """The value as JSON holds it, and copies of the tensors in it, each called by its number.

    Raises:
        TypeError: if something in it is of no such type.
    """
    tensors: dict[str, Tensor] = {}
    return _taken_apart(value, tensors), tensors


def put_together(kind: Any, tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The value of type `kind` that `taken_apart` made this of.

    Raises:
        TypeError, ValueError, KeyError: if it is none.
    """
    if kind is Any or isinstance(kind, TypeVar):
        raise TypeError("nothing says of which type a value is")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if tree is None:
            return None
        (kind,) = (one for one in arguments if one is not NoneType)
        return put_together(kind, tree, tensors)
    if kind is None or kind is NoneType:
        return None
    if kind in PLAIN:
        return kind(tree)
    shape = origin or kind
    if isinstance(shape, type) and issubclass(shape, Tensor):
        return _laid_out(tree, tensors)
    if isinstance(shape, type) and issubclass(shape, np.ndarray):
        return _laid_out(tree, tensors).numpy()
    if shape in (list, deque):
        return shape(put_together(arguments[0], one, tensors) for one in tree)
    if shape is tuple:
        return tuple(put_together(arguments[0], one, tensors) for one in tree)
    if is_dataclass(shape):
        hints, made = _hints(kind), cast(Any, shape)
        return made(**{name: put_together(hints[name], tree[name], tensors) for name in hints})
    raise TypeError(f"a {kind} cannot be kept")


def _taken_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda axis: (-strides[axis], axis))
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().permute(order).clone(
            memory_format=torch.contiguous_format
        )  # fmt: skip
        return {"tensor": name, "order": order}
    if isinstance(value, (list, tuple, deque)):
        return [_taken_apart(one, tensors) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _taken_apart(getattr(value, field.name), tensors)
                for field in fields(value)}  # fmt: skip
    raise TypeError(f"a {type(value).__name__} cannot be kept")


def _laid_out(tree: Any, tensors: dict[str, Tensor]) -> Tensor:
    order = tree["order"]
    return tensors[tree["tensor"]].permute([order.index(axis) for axis in range(len(order))])


def _hints(kind: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass, those that it is given put in."""
    origin = get_origin(kind) or kind
    parameters = getattr(origin, "__parameters__", ())
    given = dict(zip(parameters, get_args(kind), strict=False))
    hints = get_type_hints(origin)
    return {field.name: _filled(hints[field.name], given) for field in fields(origin)}


def _filled(hint: Any, given: dict[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    arguments = get_args(hint)
    if not arguments or not any(isinstance(one, TypeVar) for one in arguments):
        return hint
    return get_origin(hint)[tuple(_filled(one, given) for one in arguments)]


def _check(kind: Any, seen: frozenset[Any]) -> None:
    for part in _parts(kind):
        if part not in seen:
            _check(part, seen | {part})


def _parts(kind: Any) -> Iterator[Any]:
    """The types that a value of type `kind` is made of; TypeError for one that cannot be kept."""
    shape = get_origin(kind) or kind
    if kind in (None, NoneType, *PLAIN):
        return
    if isinstance(shape, type) and issubclass(shape, (Tensor, np.ndarray)):
        return
    if shape in (Union, UnionType, list, deque, tuple):
        yield from (one for one in get_args(kind) if one is not Ellipsis)
    elif is_dataclass(shape):
        yield from _hints(kind).values()
    else:
        raise TypeError(f"a {kind} cannot be kept")
