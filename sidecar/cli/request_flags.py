"""Options of a request as flags of commands, from their table."""

from dataclasses import make_dataclass
from enum import StrEnum
from typing import Any

from sidecar.cli.common_options import option
from sidecar.interfaces.request_fields import REQUEST_FIELDS, RequestField


def request_option(name: str) -> Any:
    """Return the default of a parameter, or of a dataclass field, that is the option ``name`` of a
    request; `None` if it is not given."""
    row = REQUEST_FIELDS[name]
    flag = row.flag or f"--{name.replace('_', '-')}"
    flags = (f"{flag}/--no-{flag[2:]}",) if row.kind is bool else (flag,)
    choices = row.kind if issubclass(row.kind, StrEnum) else ()
    return option(None, row.help, *flags, choices=choices, **row.shown)


def _type_of(row: RequestField) -> Any:
    return str | None if issubclass(row.kind, StrEnum) else row.kind | None


RequestFlags = make_dataclass(
    "RequestFlags",
    [
        (name, _type_of(row), request_option(name))
        for name, row in REQUEST_FIELDS.items()
        if row.help
    ],
    frozen=True,
    slots=True,
)
"""All of them: a parameter of this class becomes a flag for each."""
