"""Serialization of dataclasses as plain values for JSON between processes and versions. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Reader = Callable[[Any], Any]
_ATOMIC = frozenset({str, int, float, bool, NoneType})
OMITTED_IF_NONE: Mapping[str, bool] = {"omitted_if_none": True}
"""Metadata of a field that `to_plain` leaves out if it is None: most values have none."""


class WireValues:
    """Base class of dataclasses that are sent to other processes as the values of their fields."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the values of the fields, recursively as plain values."""
        values: dict[str, Any] = to_plain(self)
        return values

    @classmethod
    def from_wire(cls, values: Mapping[str, Any]) -> Self:
        """Return the dataclass of a `to_wire` result; a missing field gets its default.

        Raises:
            KeyError, TypeError, ValueError: the values do not fit the dataclass.
        """
        return from_plain(cls, values)


def to_plain(value: Any) -> Any:
    """Return what `dataclasses.asdict` returns, for values that JSON can have: a third of the time,
    because only what contains dataclasses is copied. `OMITTED_IF_NONE` leaves fields out."""
    kind = type(value)
    if kind in _ATOMIC:
        return value
    if (names := _field_names(kind)) is not None:  # type: ignore[arg-type]
        return {
            name: to_plain(one)
            for name, omitted in names.items()
            if (one := getattr(value, name)) is not None or not omitted
        }
    if isinstance(value, tuple | list):
        return kind([to_plain(one) for one in value])
    if isinstance(value, dict):
        return {key: to_plain(one) for key, one in value.items()}
    return value


@cache
def _field_names(kind: type[Any]) -> Mapping[str, bool] | None:
    """Return the names of the fields, and whether each is omitted if it is None; None if it is no
    dataclass."""
    if not is_dataclass(kind):
        return None
    return {one.name: one.metadata == OMITTED_IF_NONE for one in fields(kind)}


def from_plain(kind: type[T], values: Mapping[str, Any], *, lenient: bool = False) -> T:
    """Return the dataclass ``kind`` from the values of `dataclasses.asdict` in the form of JSON:
    lists for tuples, text for numeric keys, enumeration members by their values.

    ``lenient``: ignore fields that it does not have, at any depth: a later release wrote them.

    Raises:
        KeyError, TypeError, ValueError: the values do not fit the fields of ``kind``.
    """
    given = dict(values)
    if lenient and (names := _field_names(kind)) is not None:  # type: ignore[arg-type]
        given = {name: given[name] for name in names if name in given}
    for name, read in _readers(kind, lenient).items():  # type: ignore[arg-type]
        if name in given:
            given[name] = read(given[name])
    return kind(**given)


@cache
def _readers(kind: type[Any], lenient: bool) -> Mapping[str, Reader]:
    """Return readers for the fields whose JSON values need conversion."""
    found = {name: _reader(hint, lenient) for name, hint in get_type_hints(kind).items()}
    return {name: read for name, read in found.items() if read is not None}


@cache
def _reader(hint: Any, lenient: bool) -> Reader | None:
    arguments = get_args(hint)
    inner = [_reader(one, lenient) for one in arguments if one not in (..., NoneType)]
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(from_plain, hint, lenient=lenient)
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
