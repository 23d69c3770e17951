"""A connection that becomes a WebSocket is no request any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from asgi_server import served
from service_process import PATIENCE_S
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from sidecar.api.http.uvicorn_protocols import http_protocol

DEADLINE_S = 1.0


async def test_request_deadline_ends_at_the_upgrade() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async with served(echo, http=http_protocol(DEADLINE_S), ws="websockets-sansio") as listener:
        port = listener.getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/live") as live:
            silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", port)
            assert await silent_reader.read() == b"", "who came later and asks nothing is closed"
            await live.send("still here")
            assert await live.recv() == "still here"
        silent_writer.close()


async def test_connections_of_one_address_are_limited_but_not_its_websockets() -> None:
    async def takes_it(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    http = http_protocol(PATIENCE_S, most=2)
    async with served(takes_it, http=http, ws="websockets-sansio") as listener:
        port = listener.getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/"), connect(f"ws://127.0.0.1:{port}/"):
            first, second, third = [
                await asyncio.open_connection("127.0.0.1", port) for _ in range(3)
            ]
            with suppress(ConnectionError):
                assert await third[0].read() == b"", "the one too many is closed"
            first[1].close()
            fourth = None
            while fourth is None:  # until the service has seen that the first is gone
                with suppress(OSError, WebSocketException):
                    fourth = await connect(f"ws://127.0.0.1:{port}/")
            await fourth.close()
            for _, writer in (second, third):
                writer.close()
