"""Smallest and largest values of the options that clients send: annotations of their types.

They are declared with the option. Every wire, the settings, the schema and the tables of the
documentation read them from there. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class Interval:
    """A number from ``least`` to ``most``; NaN and infinities never are."""

    least: float
    most: float

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        return f"{_short(self.least)} to {_short(self.most)}"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return {**handler(source), "ge": self.least, "le": self.most}


@cache
def limits_of(options: Hashable) -> Mapping[str, Interval]:
    """Return the limits of each field of a class whose annotation has some, by the field's name."""
    hints = get_type_hints(options, include_extras=True)
    found = {name: _limits(hint) for name, hint in hints.items()}
    return MappingProxyType({name: one for name, one in found.items() if one is not None})


def check(options: Any) -> None:
    """Compare the fields of ``options`` with their limits.

    Raises:
        ValueError: one is beyond them; the message names the field.
    """
    for name, limits in limits_of(options.__class__).items():
        value = getattr(options, name)
        if value is not None and value not in limits:
            raise ValueError(f"{name} is not from {limits}")


def _limits(hint: Any) -> Interval | None:
    """Those of an annotation, which may be optional."""
    for one in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        if isinstance(one, Interval):
            return one
        if (inner := _limits(one)) is not None:
            return inner
    return None


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
