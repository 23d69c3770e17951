"""What a client may say on `/stream` that knows more than the first page did. Pure.

Such a client says `begin` first, and has everything told in our words (`ours`) from there on. What
is unknown is passed over, as all of this wire is; what is known and wrong is said.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sidecar import errors
from sidecar.conversation.options import LONGEST_REPORT_S
from sidecar.interfaces.limits import Interval

LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
LONGEST_NAME = 200
LONGEST_TEXT = 65_536
"""Characters of a turn that is typed."""
_STRICT = ConfigDict(strict=True)
Turn: TypeAlias = Annotated[int, Interval(1, 2**53 - 1)]
Heard: TypeAlias = Annotated[float, Interval(0, LONGEST_REPORT_S)]
"""Seconds of a reply that were played."""


class Change(BaseModel):
    """Who speaks and who thinks from the next reply on; what is left out stays."""

    model_config = _STRICT

    type: Literal["change"]
    voice: str | None = Field(None, max_length=LONGEST_NAME)
    model: str | None = Field(None, max_length=LONGEST_NAME)


class Begin(BaseModel):
    """The first: samples a second of sound both ways, and what its player can be told."""

    model_config = _STRICT

    type: Literal["begin"]
    rate: int = Field(24_000, ge=LOWEST_RATE, le=HIGHEST_RATE)
    clears: bool = True
    holds: bool = True
    voice: str | None = Field(None, max_length=LONGEST_NAME)
    model: str | None = Field(None, max_length=LONGEST_NAME)


class Played(BaseModel):
    """So much of a turn's sound was heard by now; ``cleared``: and no more will be."""

    model_config = _STRICT

    type: Literal["played"]
    turn: Turn
    seconds: Heard
    cleared: bool = False


class Interrupt(BaseModel):
    """Be quiet. Who has dropped the sound already says how much of which turn was heard."""

    model_config = _STRICT

    type: Literal["interrupt"]
    turn: Turn | None = None
    seconds: Heard = 0.0


class Text(BaseModel):
    """A turn that is typed."""

    model_config = _STRICT

    type: Literal["text"]
    text: str = Field(max_length=LONGEST_TEXT)


class Reset(BaseModel):
    """From the beginning."""

    model_config = _STRICT

    type: Literal["reset"]


class End(BaseModel):
    """No more: the conversation as a transcript, and as a job where it is to be one."""

    model_config = _STRICT

    type: Literal["end"]
    keep: bool = False


Order = Begin | Change | Played | Interrupt | Text | Reset | End
_OLD = ("text", "reset")
"""Of the first page, and passed over where they are wrong, as it expects."""


@cache
def _orders() -> TypeAdapter[Order]:
    return TypeAdapter(Annotated[Order, Field(discriminator="type")])


def order_of(values: Any) -> Order | None:
    """The order in a message; None where it is none that is known.

    Raises:
        errors.FieldInvalid: a field of it holds what it cannot.
    """
    try:
        return _orders().validate_python(values)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        too_long = first["type"] == "string_too_long"
        if len(first["loc"]) < 2 or (first["loc"][0] in _OLD and not too_long):
            return None
        name = ".".join(map(str, first["loc"][1:]))
        raise errors.FieldInvalid(f"'{name}': {first['msg']}.") from None
