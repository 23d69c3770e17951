"""A client of the speech-to-speech page's wire, written anew from what is known of it."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Self

from service_process import PATIENCE_S, Server
from websockets.asyncio.client import ClientConnection, connect

IN_RATE, OUT_RATE = 16_000, 24_000
FRAME = 4096
"""Samples that the page sends at once."""


@dataclass
class Page:
    """One connection. ``messages`` is all that came: texts as objects, sound as bytes."""

    server: Server
    port: int | None = None
    """The service's own unless it is said."""
    messages: list[Any] = field(default_factory=list)
    heard_s: float = 0.0

    async def __aenter__(self) -> Self:
        url = f"ws://127.0.0.1:{self.port or self.server.port}/stream"
        self.live: ClientConnection = await connect(url, ping_interval=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.live.close()

    async def speak(self, pcm: bytes) -> None:
        """As a microphone: as fast as time goes, or later."""
        # real time: the service waits for what is late (limit live_late)
        begun = time.monotonic()
        for at in range(0, len(pcm), 2 * FRAME):
            piece = pcm[at : at + 2 * FRAME]
            due = begun + (at + len(piece)) / 2 / IN_RATE
            # real time: as above
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.live.send(piece)

    async def send(self, **message: Any) -> None:
        await self.live.send(json.dumps(message))

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.live.recv()
        message = raw if isinstance(raw, bytes) else json.loads(raw)
        self.messages.append(message)
        if isinstance(message, bytes):
            self.heard_s += len(message) / 2 / OUT_RATE
        return message

    async def until(self, type: str, **fields: Any) -> dict[str, Any]:
        """The next text message like that."""
        while True:
            message = await self.next()
            if isinstance(message, dict) and {"type": type, **fields}.items() <= message.items():
                return message

    async def sound(self) -> bytes:
        """The next of it."""
        while not isinstance(message := await self.next(), bytes):
            pass
        return message

    def kinds(self) -> list[str]:
        """What came, in order; sound once where there is much."""
        found: list[str] = []
        for one in self.messages:
            kind = "sound" if isinstance(one, bytes) else one["type"]
            kind += f" {one['state']}" if kind == "status" else ""
            if kind != "sound" or found[-1:] != ["sound"]:
                found.append(kind)
        return found

    async def turn(self, text: str) -> tuple[list[str], dict[str, Any]]:
        """Type it, and hear the answer to its end: the codes of what went wrong meanwhile, and the
        transcript."""
        before = len(self.messages)
        await self.send(type="text", text=text)
        transcript = await self.until("transcript")
        await self.until("status", state="ready")
        return self.codes(before), transcript

    def codes(self, since: int = 0, type: str = "error") -> list[str]:
        """Of what went wrong, by now."""
        texts = [one for one in self.messages[since:] if isinstance(one, dict)]
        return [one["code"] for one in texts if one["type"] == type]

    @property
    def notices(self) -> list[str]:
        """The codes of what else is to be known."""
        return self.codes(type="notice")
