"""A connection that becomes a WebSocket is no request any more."""

import asyncio
from typing import Any

from asgi_server import served
from websockets.asyncio.client import connect

from sidecar.api.http.uvicorn_protocols import http_protocol

DEADLINE_S = 1.0


async def test_request_deadline_closes_a_silent_connection_but_no_upgraded_websocket() -> None:
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
