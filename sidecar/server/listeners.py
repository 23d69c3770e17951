"""Ways in beside HTTP, each at a port of its own, in one event loop: begun and ended together."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Listener(Protocol):
    """A way in. `close` comes last, and alone where it did not start."""

    async def start(self) -> dict[str, Any]:
        """Serve from now on; what the ready line and `/health` say of it.

        Raises:
            errors.SidecarError: it cannot, such as `errors.PortInUse`.
        """
        ...

    def stop_accepting(self) -> None:
        """The service ends: who comes now is told so, who is being served goes on."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Let who is being served hear its last words, for ``grace_s`` seconds at most."""
        ...

    async def close(self) -> None:
        """Serve nobody any more, and leave nothing behind."""
        ...


class Listeners:
    """All of them, begun in their order and ended in reverse. A fault of one at the end is in the
    log and keeps no other from ending."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._waiting = list(listeners)
        self._started: list[Listener] = []

    async def start(self) -> dict[str, Any]:
        """Have all of them serve, or none; what is to be told of them.

        Raises:
            errors.SidecarError: one of them cannot serve.
        """
        told: dict[str, Any] = {}
        try:
            for listener in self._waiting:
                self._started.append(listener)
                told |= await listener.start()
        except BaseException:
            await self.close(0)
            raise
        return told

    def stop_accepting(self) -> None:
        """The service ends."""
        for listener in self._started:
            try:
                listener.stop_accepting()
            except Exception:  # the others are to hear of it too
                log.exception("a fault of ours while a listener was told of the end")

    async def close(self, grace_s: float) -> None:
        """End all of them; who is being served has ``grace_s`` seconds for its last words."""
        while self._started:
            listener = self._started.pop()
            if grace_s > 0:
                await _ended(listener.drain(grace_s))
            await _ended(listener.close())


async def _ended(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        log.exception("a fault of ours while a listener ended")
