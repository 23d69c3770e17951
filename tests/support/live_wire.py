"""A client of our own wire of live audio (docs/live-wire.md), word by word."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from scripted_speech import pieces
from service_process import PATIENCE_S, Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


@asynccontextmanager
async def wire(
    server: Server, path: str = "/v1/live", **more: Any
) -> AsyncIterator[ClientConnection]:
    """A connection; `begin` is the first thing to say."""
    address = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(address, max_size=None, proxy=None, ping_interval=None, **more) as socket:
        yield socket


async def say(socket: ClientConnection, kind: str, **body: Any) -> None:
    await socket.send(json.dumps({"type": kind, **body}))


async def next_of(
    socket: ClientConnection, kind: str, skipped: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The next message of this kind; those before it go to ``skipped``."""
    async with asyncio.timeout(PATIENCE_S):
        while (body := json.loads(await socket.recv()))["type"] != kind:
            assert body["type"] != "error", body
            if skipped is not None:
                skipped.append(body)
    return dict(body)


async def rest(
    socket: ClientConnection, *, leave: bool = True
) -> tuple[list[dict[str, Any]], int | None]:
    """All messages of text to the end, and the code that closed it. ``leave``: at a summary."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_S):
        try:
            while True:
                if isinstance(message := await socket.recv(), str):
                    found.append(json.loads(message))
                if leave and found and found[-1]["type"] == "summary":
                    await socket.close()
        except ConnectionClosed as closed:
            return found, closed.rcvd.code if closed.rcvd else None


async def heard(
    server: Server, sound: bytes, headers: dict[str, str] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """All messages of a session that begins with these options, hears the sound, and is finished;
    the summary is the last."""
    async with wire(server, additional_headers=headers) as socket:
        await say(socket, "begin", **options)
        for piece in pieces(sound):
            await socket.send(piece)
        await say(socket, "finish")
        found, _ = await rest(socket)
    assert found[-1]["type"] == "summary", found[-1]
    return found
