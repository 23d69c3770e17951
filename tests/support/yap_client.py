"""A client of the yap server's wire, written anew from what is known of it: what it sends, what it
waits for, and what it makes of the answers. Not a word of theirs is here."""

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

from service_process import PATIENCE_S, Server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

CHUNK = 1280
"""Samples: 80 ms, as the clients send it."""


def base64_of(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


@dataclass
class Streaming:
    """One connection; it reads finals in both vocabularies, and holds them against each other."""

    server: Server
    key: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    session: str = "session-1"
    frames: list[dict[str, Any]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        query = f"?api_key={self.key}" if self.key else ""
        self.live: ClientConnection = await connect(
            f"ws://127.0.0.1:{self.server.port}/api/asr-streaming{query}",
            ping_interval=None,
            max_size=32 << 20,
            **self.options,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.live.close()

    async def send(self, type: str, request: str = "r1", payload: Any = None) -> None:
        envelope = {"type": type, "session_id": self.session, "request_id": request}
        await self.live.send(json.dumps(envelope | {"payload": payload}))

    async def frame(self) -> dict[str, Any]:
        """The next one."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.live.recv()
        assert isinstance(raw, str)
        frame = dict(json.loads(raw))
        assert list(frame) == ["type", "session_id", "request_id", "payload"]
        self.frames.append(frame)
        return frame

    async def until(self, *types: str) -> dict[str, Any]:
        """The next frame of one of these types."""
        while (frame := await self.frame())["type"] not in types:
            pass
        return frame

    async def ready(self) -> dict[str, Any]:
        """What a client waits for before it sends anything."""
        return await self.until("session.created", "session.updated")

    async def refused(self) -> dict[str, Any]:
        """The payload of the next error, which has its reason in both places."""
        payload = dict((await self.until("error"))["payload"])
        assert payload["reason_code"] == payload["details"]["reason_code"]
        assert payload["message"]
        return payload

    async def closed(self) -> tuple[int, str]:
        """How the server closes, whatever it says before."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.frame()
        assert self.live.close_code is not None
        assert self.live.close_code != 1006, "it is closed without a word"
        return self.live.close_code, self.live.close_reason or ""

    async def begin(self, request: str = "r1") -> None:
        await self.send("input_audio_buffer.commit", request, {"final": False})

    async def append(self, pcm: bytes, request: str = "r1") -> None:
        for at in range(0, len(pcm), 2 * CHUNK):
            sound = base64_of(pcm[at : at + 2 * CHUNK])
            await self.send("input_audio_buffer.append", request, {"audio": sound})

    async def end(self, request: str = "r1") -> None:
        await self.send("input_audio_buffer.commit", request, {"final": True})

    async def utterance(self, pcm: bytes, request: str = "r1") -> str:
        """Begin, send, end; the transcript as clients of either generation have it."""
        await self.begin(request)
        await self.append(pcm, request)
        await self.end(request)
        return await self.transcript(request)

    async def transcript(self, request: str = "r1") -> str:
        """What the rest of a request comes to."""
        deltas: dict[str, str] = {"transcription.delta": "", "token": ""}
        final: str | None = None
        while True:
            frame = await self.frame()
            kind, payload = frame["type"], frame["payload"]
            if frame["request_id"] != request or kind == "status":
                continue
            assert kind != "error", payload
            if kind in deltas:
                deltas[kind] += payload["delta" if kind == "transcription.delta" else "text"]
            elif kind == "final":
                final = payload["normalized_text"]
            elif kind == "done":
                assert final is not None
                assert payload["usage"]["seconds"] >= 0
            elif kind == "transcription.done":
                assert payload["text"] == final
                assert deltas["token"] == deltas["transcription.delta"]
                return final or deltas["token"]
