"""Dialect of Microsoft's streaming server for VibeVoice-ASR-Streaming over vLLM. Pure.

Its model answers each chunk of two or three seconds with a text of its own, without times. The
server says in `/v1/config` how it cuts audio.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from sidecar.openai_http import loads
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.errors import UpstreamFailed
from sidecar.plugins.upstream.upstream_dialect import (
    TEXT,
    AudioWindows,
    ChunkRequest,
    UpstreamAnswer,
    UpstreamDialect,
    UpstreamRequest,
)
from sidecar.transcripts.loop_guard import loop_notices
from sidecar.transcripts.streamed_turns import LoopOverChunks, StreamedTurn, StreamedTurns
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Segment

STREAMING = "vllm-streaming"
CONFIG_PATH, TRANSCRIBE_PATH, STREAM_PATH = "/v1/config", "/v1/transcribe", "/v1/stream"
STREAM_END = "end"
"""Message behind the last audio of a stream."""
LONGEST_S = 600.0
"""The server's context of 16,384 tokens holds some 13 minutes of fast speech; it answers 500 to
what does not fit, after it has transcribed as much as does."""
TOP_P = 0.95
"""As in the local engine, if the temperature is not 0."""


def streaming_dialect(config: bytes) -> UpstreamDialect | None:
    """Return the dialect of the server with this `/v1/config`; None if it is not such a server."""
    match loads(config):
        case {
            "sample_rate": int(rate),
            "chunk_seconds": float() | int() as chunk_s,
            "window_samples": int(window_samples),
            "max_audio_windows": int(most),
        } if (
            8000 <= rate <= 48_000
            and 0.1 <= chunk_s <= window_samples / rate + 1e-9 <= 60
            and most > 0
        ):
            windows = AudioWindows(rate, round(chunk_s * rate), window_samples)
            return UpstreamDialect(
                *(STREAMING, "/health", rate, min(LONGEST_S, most * chunk_s)),
                StreamingChunkRequest,
                form=TEXT,
                diarizes=False,
                windows=windows,
            )
    return None


def stream_begin(context: str) -> str:
    """Return the first message of a stream; ``context``: one term a line."""
    return json.dumps({"context_info": context} if context else {})


def stream_text(message: str | bytes) -> str:
    """Return the text of the next chunk of a stream.

    Raises:
        UpstreamFailed, UpstreamGarbled: the message has none.
    """
    match loads(message):
        case {"chunk": int(), "text": str(text)}:
            return text
        case {"error": error}:
            raise UpstreamFailed(f"The upstream reports: {str(error)[:200]}")
    raise upstream_dialect.garbled("has no text of a chunk")


class StreamingChunkRequest(ChunkRequest):
    """Request of one chunk of a recording; the answer has a text for each chunk of the model."""

    def __post_init__(self) -> None:
        self._context = self.options.prompt_lines
        self._body = bytearray()

    def next_request(self) -> UpstreamRequest:
        """Return the request with the context, one term a line."""
        self._body.clear()
        body: dict[str, Any] = {"audio_base64": base64.b64encode(self.flac).decode()}
        if self._context:
            body["context_info"] = self._context
        if self.options.temperature:
            body |= {"temperature": self.options.temperature, "top_p": TOP_P}
        return UpstreamRequest(TRANSCRIBE_PATH, {"content": json.dumps(body).encode()})

    def feed(self, data: bytes) -> list[Segment]:
        """Add to the body; its segments are known only at the end."""
        self._body += data
        return []

    def finish(self) -> UpstreamAnswer:
        """Return the turns of all texts; times inside a chunk lie in proportion to its letters."""
        windows = self.dialect.windows
        assert windows is not None
        try:
            texts = [str(one) for one in json.loads(self._body)["chunk_texts"]]
        except upstream_dialect.PARSE_ERRORS:
            raise upstream_dialect.garbled("is no transcription") from None
        if (len(texts) + 1) * windows.chunk_s < self.duration_s:
            raise upstream_dialect.garbled("has not the text of all audio")
        turns, loop, loops = StreamedTurns(), LoopOverChunks(), 0
        found = list[StreamedTurn]()
        for number, text in enumerate(texts):
            kept = loop.words_before(text)
            loops += kept != text
            start = min(number * windows.chunk_s, self.duration_s)
            end = min(start + windows.chunk_s, self.duration_s)
            found += turns.feed(kept, start, end)
        found += turns.finish()
        segments = [
            Segment(one.start, one.end, one.text, flags=(NON_SPEECH_FLAG,) if one.is_sound else ())
            for one in found
        ]
        left_out = {
            "prompt": self._context != self.options.prompt_lines,
            "max_tokens": self.options.max_tokens is not None,
        }
        return UpstreamAnswer(
            tuple(segments),
            form=TEXT,
            notices=loop_notices(segments, loops, truncated=False),
            ignored=tuple(name for name, left in left_out.items() if left),
        )

    def simplify(self, said: str, *, too_large: bool) -> bool:
        """Leave out the context, if the server may not take it."""
        had, self._context = self._context, ""
        return bool(had)
