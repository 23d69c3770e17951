"""What stands between clients and several services."""

import asyncio
import contextlib
import re
import ssl
import threading
from itertools import cycle

_CONNECTION = re.compile(rb"\r\nconnection:[^\r\n]*", re.IGNORECASE)


class RoundRobin:
    """A TCP proxy: each connection goes to the next of the ports behind it; with ``each_request``
    none has a second request, so that each of these does, too; with ``tls`` it is what ends it."""

    def __init__(
        self, *ports: int, each_request: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._ports = cycle(ports)
        self._each_request = each_request
        self.given: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _closing(reader) if self._each_request else b""
        if self._each_request and not head:  # somebody only looked whether anybody is here
            writer.close()
            return
        port = next(self._ports)
        self.given.append(port)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        back.write(head)
        await asyncio.gather(_pass(reader, back), _pass(there, writer))

    def close(self) -> None:
        """Pass nothing on any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if left := asyncio.all_tasks(self._loop):  # else they are said to be lost in a later test
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left))
        self._server.close()
        self._loop.close()


async def _closing(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, after whose answer the connection ends."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    if b"\r\nupgrade:" in head.lower():
        return head
    return _CONNECTION.sub(b"", head)[:-2] + b"Connection: close\r\n\r\n"


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
