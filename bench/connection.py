"""A client's connection for benchmarks: HTTP/1.1 on asyncio's streams, as little as will do.

Many fit into one process, and it takes little of the processor that the server needs beside it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Self


class Refused(Exception):
    """The answer is no success."""


class Event(NamedTuple):
    """One server-sent event; without an id it is 0."""

    name: str
    data: dict[str, Any]
    id: int


class Connection:
    """One request after the other; opened again where the server closed it."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self._fixed = f"Host: 127.0.0.1:{port}\r\n"
        if token is not None:
            self._fixed += f"Authorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._head: dict[str, str] = {}

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a request, and read the head of its answer.

        Raises:
            Refused: it is no success; what it says.
        """
        over = self._streams is not None and self._streams[0].at_eof()
        if self._streams is None or over or self._head.get("connection") == "close":
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"{method} {path} HTTP/1.1\r\n{self._fixed}{lines}Content-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        await writer.drain()
        status, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = (line.partition(":") for line in rest if line)
        self._head = {name.lower(): value.strip().lower() for name, _, value in fields}
        if not 200 <= (code := int(status.split()[1])) < 300:
            raise Refused(f"{method} {path}: {code} {(await self.body())[:300]!r}")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of the answer, as it comes."""
        assert self._streams is not None
        reader, _ = self._streams
        if "chunked" not in self._head.get("transfer-encoding", ""):
            yield await reader.readexactly(int(self._head.get("content-length", "0")))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([piece async for piece in self.pieces()])

    async def json(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Any:
        """Ask, and read a JSON document."""
        await self.ask(method, path, body, headers)
        return json.loads(await self.body())

    async def events(self) -> AsyncIterator[Event]:
        """The body as server-sent events."""
        rest = b""
        async for piece in self.pieces():
            *frames, rest = (rest + piece).split(b"\n\n")
            for frame in frames:
                fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
                if b"data" in fields:
                    name = fields.get(b"event", b"data").decode()
                    yield Event(name, json.loads(fields[b"data"]), int(fields.get(b"id", b"0")))

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *of: object) -> None:
        self.close()
