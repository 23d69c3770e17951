"""Who is told of all that passes in a live session, beside its client: nobody unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sidecar import errors
from sidecar.interfaces.live import Encoding
from sidecar.live.sessions.told import Numbered

if TYPE_CHECKING:
    from sidecar.live.sessions.session import Session


class Witness(Protocol):
    """Of one session. It is told in the event loop, so it never waits."""

    def sound(self, raw: bytes, encoding: Encoding, rate: int) -> None:
        """The client sent it, and it was taken."""

    def ordered(self, order: Mapping[str, Any]) -> None:
        """The client wants something, as plain values: `commit`, `forget`, `change`, `finish`."""

    def told(self, numbered: Numbered) -> None:
        """This was said, to whoever listens."""

    def over(self, wrong: errors.SidecarError | None) -> None:
        """Nothing more is; told once."""


class Observer(Protocol):
    """Has a witness in every session."""

    @property
    def greeting(self) -> Mapping[str, Any]:
        """What each client is told of it when its session begins; by each wire in its own way."""

    def begin(self, session: Session) -> Witness:
        """A session begins."""
