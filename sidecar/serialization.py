"""Dataclasses as plain values, for JSON between processes and versions, and back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Reader = Callable[[Any], Any]


class WireValues:
    """Base of dataclasses that go to other processes as the values of their fields."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the values of the fields, plain ones all the way down."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return values

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_wire` described; a field that is left out has its default.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return from_plain(cls, values)


def from_plain(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass ``kind`` with the values of `dataclasses.asdict`, as JSON has them:
    lists for tuples, text for numbers that are keys, members of an enumeration by their values.

    Raises:
        KeyError, TypeError, ValueError: these are not its fields.
    """
    fields = dict(values)
    for name, read in _readers(kind).items():  # type: ignore[arg-type]
        if name in fields:
            fields[name] = read(fields[name])
    return kind(**fields)


@cache
def _readers(kind: type[Any]) -> Mapping[str, Reader]:
    """The readers of the fields that JSON does not have as they are."""
    found = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}
    return {name: read for name, read in found.items() if read is not None}


@cache
def _reader(hint: Any) -> Reader | None:
    arguments = get_args(hint)
    inner = [_reader(one) for one in arguments if one not in (..., NoneType)]
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(from_plain, hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if NoneType in arguments:
        read = inner[0]
        return read and (lambda value: None if value is None else read(value))
    if get_origin(hint) is tuple:
        each = inner[0] or _same
        return lambda values: tuple(map(each, values))
    if arguments and arguments[0] is int:  # a mapping, whose keys JSON makes text of
        value_of = inner[1] or _same
        return lambda values: {int(key): value_of(value) for key, value in values.items()}
    return None


def _same(value: Any) -> Any:
    return value
