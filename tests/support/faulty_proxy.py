"""A proxy that misbehaves to order between the engine and a real server."""

import asyncio
import contextlib
import json
import threading
from collections import deque
from concurrent.futures import Future
from typing import Self

from service_process import PATIENCE_S

from sidecar import errors
from sidecar.api.http.error_responses import problem_body

RETRY_AFTER_S = "0.3"

OF_VIBEVOICE_ASR = {
    "507": errors.WontFit(),
    "415": errors.AudioFormatUnsupported(),
    "422": errors.LanguageUnsupported(),
}
"""Errors of ours that a status comes with."""


class FaultyProxy:
    """HTTP in front of a port on the loopback. ``plan`` has what becomes of the next POSTs, in
    order; without a plan, and for every GET, what comes goes through."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.plan: deque[str] = deque()
        self.posts: list[bytes] = []
        """The bodies that came."""
        self.hung_up = threading.Event()
        """A client left before its answer was there."""
        self.retry_after = RETRY_AFTER_S
        """What it says with 429 and 503."""
        self.port = 0
        self._over = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        begun: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(begun,), daemon=True)
        self._thread.start()
        self.port = begun.result(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        """When this returns nobody listens any more, and who was served is left."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self, begun: Future[int]) -> None:
        try:
            asyncio.run(self._listen(begun))
        except OSError as error:
            begun.set_exception(error)

    async def _listen(self, begun: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        begun.set_result(server.sockets[0].getsockname()[1])
        await self._over.wait()
        server.close()  # its connections end with the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while await self._one(reader, writer):
                    pass
            finally:
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        fault = ""
        if head.startswith(b"POST"):
            self.posts.append(body)
            fault = self.plan.popleft() if self.plan else ""
        if fault.isdigit():
            extra = f"Retry-After: {self.retry_after}\r\n" if fault in ("429", "503") else ""
            said = b'{"error": {"message": "told to"}}'
            if (ours := OF_VIBEVOICE_ASR.get(fault)) is not None:
                said = json.dumps(problem_body(ours)).encode()
            line = f"HTTP/1.1 {fault} No\r\n{extra}Content-Length: {len(said)}\r\n\r\n"
            writer.write(line.encode() + said)
            return True
        if fault == "gone":
            return False
        if fault == "garbage":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html>\x00\xff\xfe...")
            return True
        if fault == "page to sign in":
            fields = b"Content-Type: text/html\r\nContent-Length: 6\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n<html>")
            return True
        if fault == "no http":
            writer.write(b"220 smtp.example.org ESMTP\r\n")
            return False
        if fault == "slow":
            await reader.read(1)  # until the client hangs up
            self.hung_up.set()
            return False
        answer = await self._answer(head, body)
        kept = {"half": len(answer) // 2, "third": len(answer) // 3}.get(fault, len(answer))
        writer.write(answer[:kept])
        await writer.drain()
        return not fault

    async def _answer(self, head: bytes, body: bytes) -> bytes:
        """What the real server says to that, all of it."""
        there, out = await asyncio.open_connection("127.0.0.1", self.target)
        out.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
        answer = await there.read()
        out.close()
        return answer.replace(b"connection: close\r\n", b"")
