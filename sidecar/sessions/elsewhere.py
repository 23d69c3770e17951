"""Where live sessions are left for another service: whoever takes one has it alone."""

from __future__ import annotations

from typing import Protocol


class Elsewhere(Protocol):
    """Sessions that no service has at the moment, by owner and id."""

    async def leave(self, owner: str, number: str, session: bytes, for_s: float) -> None:
        """Leave one there for so many seconds; then it is gone.

        Raises:
            errors.JournalUnreachable: it may be there or not.
        """
        ...

    async def take(self, owner: str, number: str) -> bytes | None:
        """The one that was left, which is there for nobody else then; None where there is none.

        Raises:
            errors.JournalUnreachable: nobody can be asked.
        """
        ...
