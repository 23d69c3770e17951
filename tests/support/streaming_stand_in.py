"""Stand-in for Microsoft's streaming server of VibeVoice-ASR-Streaming over vLLM.

Written from its page and its source (microsoft/VibeVoice, `docs/vibevoice-vllm-asr-streaming.md`
and `vllm_plugin/asr_streaming_server.py` at 16fb2cb1): routes, fields, limits, statuses, and how it
cuts audio. It has no key, and no times.
"""

import base64
import binascii
import contextlib
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
import soxr
from fastapi import HTTPException, Response, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse
from upstream_stand_ins import StandIn

from sidecar.audio import Block

RATE, FRAME_SAMPLES, LOOKAHEAD_FRAMES = 24_000, 3_200, 4
MAX_TOKENS = 256
"""Tokens of a chunk for which there has to be room."""

TextOf = Callable[[int, Block], str]
"""The text of a chunk of a session: of its number, and its audio without what is ahead."""


def fingerprint(number: int, samples: Block) -> str:
    """A word that shows which audio came; two people in turn, four chunks each."""
    word = f" w{zlib.crc32(np.rint(samples * 32768).astype(np.int16).tobytes()) % 10**6:06}"
    return word if number % 4 else f"\nSpeaker {number // 4 % 2}:{word}"


class Asked(BaseModel):
    """Body of a request, and first message of a live session."""

    audio_base64: str | None = None
    context_info: str | None = None
    max_tokens: int = Field(256, ge=1, le=2048)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, ge=0.0, le=1.0)
    repetition_penalty: float = Field(1.0, ge=0.5, le=2.0)


class StreamingStandIn(StandIn):
    """``plan``: statuses of the next requests, or 'reset' for a live session."""

    def __init__(
        self,
        text_of: TextOf = fingerprint,
        *,
        chunk_frames: int = 22,
        most_windows: int = 512,
        most_tokens: int = 16_384,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._text_of, self._most_windows, self._most_tokens = text_of, most_windows, most_tokens
        self.chunk = chunk_frames * FRAME_SAMPLES
        self._frames = chunk_frames + LOOKAHEAD_FRAMES
        self.window = self._frames * FRAME_SAMPLES
        self.sessions: list[int] = []
        """The windows of each live session."""
        self.open = 0
        """Live sessions that go on."""

        @self.app.get("/health")
        async def health() -> dict[str, str]:
            return {"status": "ok"}

        @self.app.get("/v1/models")
        async def models() -> dict[str, Any]:
            served = {"id": "vibevoice", "object": "model", "owned_by": "vibevoice"}
            return {"object": "list", "data": [served]}

        @self.app.get("/v1/config")
        async def config() -> dict[str, Any]:
            return {
                "model": "vibevoice",
                "sample_rate": RATE,
                "chunk_seconds": self.chunk / RATE,
                "chunk_frames": chunk_frames,
                "lookahead_frames": LOOKAHEAD_FRAMES,
                "window_samples": self.window,
                "max_audio_windows": most_windows,
            }

        @self.app.post("/v1/transcribe")
        async def transcribe(asked: Asked) -> Response:
            self._note(asked)
            if self.plan:
                return JSONResponse({"detail": "told to"}, int(self.plan.popleft()))
            samples = decoded(asked.audio_base64)
            texts = list[str]()
            try:
                for window in self._windows(samples):
                    texts.append(self._text(texts, window, asked))
            except ValueError as error:
                raise HTTPException(500, str(error)) from None
            seconds = len(samples) / RATE
            return JSONResponse(
                {
                    "text": "".join(texts),
                    "chunk_texts": texts,
                    "total_chunks": len(texts),
                    "audio_duration": seconds,
                    "generate_time": 0.5 * seconds,
                    "rtf": 0.5,
                }
            )

        @self.app.websocket("/v1/stream")
        async def stream(socket: WebSocket) -> None:
            await socket.accept()
            self.open += 1
            with contextlib.suppress(WebSocketDisconnect):
                await self._stream(socket)
            self.open -= 1

    def _note(self, asked: Asked) -> None:
        sent = asked.model_dump(exclude_unset=True)
        sent.pop("audio_base64", None)
        self.asked.append(sent)

    def _windows(self, samples: Block) -> Iterator[Block]:
        for at in range(0, len(samples), self.chunk):
            window = samples[at : at + self.window]
            yield np.pad(window, (0, self.window - len(window)))

    def _text(self, before: list[str], window: Block, asked: Asked) -> str:
        """The text of the next window, if there is room for it."""
        count = len(before) + 1
        if count > self._most_windows:
            minutes = self._most_windows * self.chunk / RATE / 60
            raise ValueError(
                f"session exceeded {self._most_windows} audio windows (~{minutes:.0f} minutes at "
                "this checkpoint's chunk). Raise --max-audio-windows, or start a new session."
            )
        words = len("".join([*before, asked.context_info or ""])) // 4
        tokens = 40 + words + count * (self._frames + 3)
        if tokens + asked.max_tokens > self._most_tokens:
            raise ValueError(
                f"session outgrew the {self._most_tokens}-token context after {count - 1} windows "
                f"({tokens} tokens once the audio windows are expanded). Raise --max-model-len, or "
                "start a new session."
            )
        return self._text_of(len(before), window[: self.chunk])

    async def _stream(self, socket: WebSocket) -> None:
        asked = Asked(**await socket.receive_json())
        self._note(asked)
        self.sessions.append(0)
        number, texts, held = len(self.sessions) - 1, list[str](), np.zeros(0, np.float32)

        async def emit(window: Block) -> bool:
            if self.plan and self.plan[0] == "reset":
                self.plan.popleft()
                await socket.close(1011)
                return False
            try:
                texts.append(self._text(texts, window, asked))
            except ValueError as error:
                await socket.send_json({"error": str(error)})
                return False
            self.sessions[number] += 1
            await socket.send_json(
                {
                    "chunk": len(texts) - 1,
                    "text": texts[-1],
                    "segments": [{"Content": "".join(texts)}],
                }
            )
            return True

        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                held = np.concatenate([held, np.frombuffer(message["bytes"], "<f4")])
                while len(held) >= self.window:
                    if not await emit(held[: self.window]):
                        return
                    held = held[self.chunk :]
            elif message.get("text") == "end":
                for window in self._windows(held):
                    if not await emit(window):
                        return
                whole = {"text": "".join(texts), "segments": [], "srt": ""}
                await socket.send_json({"done": True, "total_chunks": len(texts), **whole})
                return


def decoded(audio: str | None) -> Block:
    """The samples of a request, at the rate of the model."""
    if not audio:
        raise HTTPException(400, "audio_base64 is required; remote audio URLs are not supported")
    try:
        body = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, "Invalid base64 audio") from None
    if not body:
        raise HTTPException(400, "Audio is empty")
    try:
        samples, rate = soundfile.read(io.BytesIO(body), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise HTTPException(500, f"ffmpeg failed: {error}") from None
    found: Block = samples if rate == RATE else soxr.resample(samples, rate, RATE)
    return found
