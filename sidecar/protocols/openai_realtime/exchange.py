"""What a connection of this API does whatever it is for: take orders, say numbered events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from sidecar import errors
from sidecar.api.http.sockets import Socket
from sidecar.protocols.openai_realtime.realtime_orders import Append, Numbered, OrderInvalid
from sidecar.protocols.openai_realtime.realtime_vocabulary import Said, error_event

Asked = TypeVar("Asked")

ID = 16
"""Letters of a session's number in the ids of what is in it."""


class Exchange(Generic[Asked]):
    """One connection's: orders are done one after the other, and what is refused is told.

    ``name`` begins the ids of its events; ``do`` does an order, and ``over`` says whether its
    session is: then what is wrong ends the connection.
    """

    def __init__(
        self,
        socket: Socket,
        name: str,
        read: Callable[[str | bytes], Numbered[Asked]],
        do: Callable[[Asked], Awaitable[None]],
        over: Callable[[], bool],
    ) -> None:
        self._socket, self._name = socket, f"event_{name}"
        self._read, self._do, self._over = read, do, over
        self._count = 0
        self._saying = asyncio.Lock()

    async def hear(self) -> None:
        """Do what the client says, until it goes.

        Raises:
            sockets.Gone: it went.
            errors.SidecarError: what ended the session.
        """
        while True:
            message = await self._socket.receive()
            try:
                asked = self._read(message)
            except OrderInvalid as invalid:
                self._socket.count_malformed()
                await self._refuse(invalid.error, invalid.event_id)
            else:
                await self._take(asked)

    async def say(self, make: Callable[[], Iterable[Said]]) -> None:
        """Say what ``make`` comes to, and nothing else in between."""
        async with self._saying:
            for said in list(make()):
                self._count += 1
                number = f"{self._name}_{self._count}"
                await self._socket.send(json.dumps({"event_id": number, **said}))

    async def _take(self, asked: Numbered[Asked]) -> None:
        order = asked.order
        is_sound = isinstance(order, Append) and bool(order.raw)  # bounded by what a session takes
        try:
            if not is_sound:
                self._socket.count()
            await self._do(asked.order)
        except errors.SessionOver:
            pass  # the service ends: what was said is still told, and then why
        except errors.SidecarError as error:
            if self._over():
                raise
            if is_sound:  # the rest is counted
                self._socket.count_malformed()
            await self._refuse(error, asked.event_id)

    async def _refuse(self, error: errors.SidecarError, event_id: str | None) -> None:
        await self.say(lambda: [error_event(error, event_id)])
