"""What a client may say on `/v1/live` besides sound: orders, each a JSON object in a text frame.

Pydantic reads them: strictly, and no name that is not known is taken for a wish fulfilled.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from sidecar import errors
from sidecar.audio import opus
from sidecar.interfaces.live import (
    LIVE_RATE,
    Encoding,
    Endpointing,
    LiveOptions,
    Number,
    Seconds,
    Turns,
)
from sidecar.interfaces.options import LONGEST_PROMPT
from sidecar.live.sessions.session import RATES

OPUS = "opus"
"""The encoding that is no samples."""

_STRICT = ConfigDict(extra="forbid", strict=True)


_HINTS: dict[str, Any] = get_type_hints(Endpointing, include_extras=True)
_ENDS: dict[str, Any] = {name: (_HINTS[name] | None, None) for name in _HINTS}
Ends: type[BaseModel] = create_model(
    "Ends",
    __config__=_STRICT,
    __doc__="What counts as speech, and where an utterance ends: `Endpointing`, in part.",
    **_ENDS,
)


class Wishes(BaseModel):
    """Options of a session; what is left out is as it was, at first as the service has it."""

    model_config = _STRICT

    language: str | None = None
    turns: Turns | None = None
    endpointing: Ends | None = None  # type: ignore[valid-type]
    partials: bool | None = None
    diarize: bool | None = None
    words: bool | None = None
    translate: bool | None = None
    accurate: bool | None = None
    prompt: str | None = Field(None, max_length=LONGEST_PROMPT)
    delay_s: Seconds | None = None
    recognise: bool | None = None
    keep: bool | None = None

    def upon(self, options: LiveOptions) -> LiveOptions:
        """The options with these wishes.

        Raises:
            errors.FieldInvalid: no such utterances can be.
        """
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in Wishes.model_fields
            if name != "endpointing" and getattr(self, name) is not None
        }
        if self.endpointing is not None:
            ends = self.endpointing.model_dump(exclude_none=True)
            try:
                given["endpointing"] = dataclasses.replace(options.endpointing, **ends)
            except ValueError as error:
                raise errors.FieldInvalid(f"'endpointing' is not possible: {error}.") from None
        return dataclasses.replace(options, **given)


class Begin(Wishes):
    """The first message: a session, or with ``after`` one that goes on.

    ``session``: how the client calls it; ``after``: the last event that came, 0 if none did.
    ``encoding``: of samples, or ``opus``: a packet in each message. ``moves``: the client comes
    again when another service goes on with the session. ``lease``: this is another service, which
    has the session itself (`upstream.remote_live_messages`); then nothing else counts.
    """

    type: Literal["begin"]
    session: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    after: Number | None = None
    moves: bool = False
    lease: dict[str, Any] | None = None
    encoding: Encoding | Literal["opus"] = Encoding.PCM16
    rate: int | None = Field(None, ge=RATES.start, lt=RATES.stop)

    @property
    def counted_rate(self) -> int:
        """Samples a second of what the two sides count.

        Raises:
            errors.FieldInvalid: that is another one.
        """
        if self.encoding != OPUS:
            return self.rate or LIVE_RATE
        if self.rate not in (None, opus.RATE):
            raise errors.FieldInvalid(f"'rate': Opus is counted by {opus.RATE} samples a second.")
        return opus.RATE


class Change(Wishes):
    """Hear on with other options."""

    type: Literal["change"]


class Plain(BaseModel):
    """An order that needs no more words."""

    model_config = _STRICT

    type: Literal["commit", "cancel", "finish"]


Order = Begin | Change | Plain


@cache
def _orders() -> TypeAdapter[Order]:
    return TypeAdapter(Annotated[Order, Field(discriminator="type")])


def order_of(text: str) -> Order:
    """The order in a text frame.

    Raises:
        errors.MessageInvalid: it is none.
        errors.FieldInvalid: a field holds what it cannot, or there is no such field.
    """
    try:
        return _orders().validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        if len(first["loc"]) < 2:  # of the object itself, or which order it is
            raise errors.MessageInvalid(f"The message is no order: {first['msg']}.") from None
        name = ".".join(map(str, first["loc"][1:]))
        raise errors.FieldInvalid(f"'{name}': {first['msg']}.") from None
    except RecursionError:
        raise errors.MessageInvalid() from None
