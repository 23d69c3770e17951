"""One conversation with a service, in our own words (docs/talk.md), as a client has it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from sidecar import errors

if TYPE_CHECKING:
    from vibevoice_asr_client import Trust
    from websockets.asyncio.client import ClientConnection

PATH = "/stream"
LONGEST_MESSAGE = 64 << 20
"""Bytes: the end of a long conversation is one message."""
CONNECT_S = 10.0
PING_S = 10.0
FAREWELL_S = 2.0
Message = bytes | dict[str, Any]
"""Sound of the reply that was started last, or what is told."""


class Wire:
    """What goes out, and what comes of it. Who sends to a service that has gone is not told so:
    who reads is."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._over = False

    async def say(self, type: str, **fields: Any) -> None:
        """A message."""
        await self._send(json.dumps({"type": type, **fields}))

    async def sound(self, pcm: bytes) -> None:
        """What the person says: 16-bit mono at the rate of `begin`."""
        await self._send(pcm)

    async def end(self) -> None:
        """No more; `ended` is the last that comes, or nothing is where the service ends, too."""
        self._over = True
        await self.say("end")

    async def messages(self) -> AsyncIterator[Message]:
        """All that is told, to the end that was asked for.

        Raises:
            errors.SidecarError: it ended otherwise, and why.
        """
        from websockets.exceptions import ConnectionClosed

        last: Message = {}
        with suppress(ConnectionClosed):
            async for raw in self._socket:
                last = raw if isinstance(raw, bytes) else json.loads(raw)
                yield last
                if isinstance(last, dict) and last.get("type") == "ended":
                    return
        if self._over:
            return
        if isinstance(last, dict) and last.get("type") == "error":
            raise error_of(last)
        raise errors.ServiceUnreachable("The service broke off the conversation.")

    async def _send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):
            await self._socket.send(message)


@asynccontextmanager
async def connected(url: str, token: str | None, trust: Trust | None) -> AsyncGenerator[Wire, None]:
    """A conversation with the service at ``url``, which answers.

    Raises:
        errors.ServiceUnreachable: it does not any more.
    """
    from vibevoice_asr_client import Trust, calls
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake

    from sidecar.cli.remote import in_our_words

    with in_our_words():
        context = (trust or Trust()).context(url)
    tls: dict[str, Any] = {} if context is None else {"ssl": context}
    try:
        socket = await connect(
            f"ws{url.removeprefix('http')}{PATH}",
            additional_headers=calls.authorization(token),
            proxy=None,
            compression=None,
            max_size=LONGEST_MESSAGE,
            open_timeout=CONNECT_S,
            ping_interval=PING_S,
            ping_timeout=2 * PING_S,
            close_timeout=FAREWELL_S,
            **tls,
        )
    except InvalidHandshake as error:
        raise errors.ServiceUnreachable(f"{url} has no conversations: {error}.") from None
    except (OSError, TimeoutError):
        raise errors.ServiceUnreachable(f"No service answers at {url}.") from None
    async with socket:
        yield Wire(socket)


def error_of(message: dict[str, Any]) -> errors.SidecarError:
    """The error that a message tells of; before `begin` was heard the code stands behind the
    words."""
    text = str(message.get("message", ""))
    if "hint" not in message and (found := re.fullmatch(r"(.*) \((\w+)\)", text, re.DOTALL)):
        return errors.from_wire({"detail": found[1], "code": found[2]})
    return errors.from_wire({**message, "detail": text})
