"""Serialization of dataclasses as plain values for JSON between processes and versions. Pure."""

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
    """Base class of dataclasses that are sent to other processes as the values of their fields."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the values of the fields, recursively as plain values."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return values

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """Return the dataclass of a `to_wire` result; a missing field gets its default.

        Raises:
            KeyError, TypeError, ValueError: the values do not fit the dataclass.
        """
        return from_plain(cls, values)


def from_plain(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass ``kind`` from the values of `dataclasses.asdict` in the form of JSON:
    lists for tuples, text for numeric keys, enumeration members by their values.

    Raises:
        KeyError, TypeError, ValueError: the values do not fit the fields of ``kind``.
    """
    fields = dict(values)
    for name, read in _readers(kind).items():  # type: ignore[arg-type]
        if name in fields:
            fields[name] = read(fields[name])
    return kind(**fields)


@cache
def _readers(kind: type[Any]) -> Mapping[str, Reader]:
    """Return readers for the fields whose JSON values need conversion."""
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
    if arguments and arguments[0] is int:  # a mapping: JSON turns its keys into text
        value_of = inner[1] or _same
        return lambda values: {int(key): value_of(value) for key, value in values.items()}
    return None


def _same(value: Any) -> Any:
    return value
