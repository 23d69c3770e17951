"""Recordings whose seconds each are words, and servers of every dialect that find them.

A second is quiet noise of even samples, with one odd sample in its middle: its number. So a
transcript shows which audio was sent and answered, and whether all of it was, once.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
from fastapi import Request, Response
from starlette.responses import JSONResponse
from upstream_engine_samples import RATE, Sound
from upstream_stand_ins import StandIn

from sidecar.audio import Block

Spoken = list[tuple[float, str]]
"""Words, and the second of each in what was sent."""
AnswerOf = Callable[[dict[str, str], Spoken, float], Response]
"""Answers to fields, what was heard, and the seconds of that."""
SEGMENTS, WORDS, TEXT = "segments", "words", "text"
CHUNK_S = 22 * 3200 / 24_000
"""Seconds of audio that have a text of their own at a streaming server."""


def words_at(second: int) -> str:
    """One to three words, and the number."""
    dice = hashlib.sha256(str(second).encode()).digest()
    words = [
        "".join(chr(97 + byte % 26) for byte in dice[at * 7 : at * 7 + 2 + dice[at] % 6])
        for at in range(1 + dice[31] % 3)
    ]
    return " ".join([*words, f"n{second}"])


def words_until(seconds: int) -> list[str]:
    """All words of a recording."""
    return " ".join(map(words_at, range(seconds))).split()


def marked(seconds: int, rate: int = RATE, voice: Block | None = None) -> Sound:
    """A recording of that many seconds; of this ``voice``, again and again, instead of noise."""
    samples = 2 * np.random.default_rng(seconds).integers(-40, 40, seconds * rate)
    if voice is not None:
        samples = 2 * np.resize((voice * 16_384).astype(np.int64), seconds * rate)
    for second in range(seconds):
        samples[second * rate + rate // 2] = 2 * second + 1
    return Sound((samples / 32768).astype(np.float32), rate)


def spoken(flac: bytes) -> tuple[Spoken, float]:
    """The words of what was sent, and its length in seconds; of real speech one word."""
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    marks = np.nonzero(samples & 1)[0]
    if len(marks) > 1 + len(samples) / rate:
        return [(0.5, "speech")], len(samples) / rate
    found = [(at / rate, words_at((int(samples[at]) - 1) // 2)) for at in marks]
    return found, len(samples) / rate


class MarkedUpstream(StandIn):
    """A server of a dialect that answers in a form, for its model alone, and 404 at the addresses
    of others; ``refuses``: why it refuses a request, by its fields and its seconds, or an empty
    text."""

    def __init__(
        self,
        dialect: str,
        form: str = SEGMENTS,
        refuses: Callable[[dict[str, str], float], tuple[int, str]] = lambda *_: (0, ""),
        odd: tuple[float | None, float | None] | None = None,
    ) -> None:
        super().__init__()
        self.refuses, self.odd = refuses, odd
        self.become(dialect, form)
        self.unknown_model = 404
        """Status for another model than its own."""
        self.hears: Callable[[float], bool] = lambda _: True
        """Whether it has words for a time of what it was sent."""
        self.joined = deque[int]()
        """Seconds in a segment of its next answers in NDJSON, in order; one without."""

        @self.app.get("/health")
        async def health() -> Response:
            if self.dialect != "sidecar":
                return Response(status_code=200 if "vllm" in self.dialect else 404)
            ours = {"contract": 1, "engine": "whisper", "engine_state": "ready", "jobs_waiting": 0}
            return JSONResponse(ours)

        @self.app.get("/v1/models")
        async def listed() -> dict[str, Any]:
            return {"data": [{"id": self.model}]}

        @self.app.get("/v1/config")
        async def config() -> Response:
            if self.dialect != "vllm-streaming":
                return Response(status_code=404)
            sizes = {"sample_rate": 24_000, "window_samples": 83_200, "max_audio_windows": 512}
            return JSONResponse({"model": "vibevoice", "chunk_seconds": CHUNK_S, **sizes})

        @self.app.post("/v1/transcribe")
        async def transcribe(asked: dict[str, Any]) -> Response:
            flac, fields = base64.b64decode(asked.pop("audio_base64")), {}
            if "context_info" in asked:
                fields["prompt"] = str(asked["context_info"])
            return self._answer("vllm-streaming", fields, flac, self._streaming)

        async def form_answer(
            request: Request, dialect: str, file_name: str, answer: AnswerOf
        ) -> Response:
            posted = await request.form()
            file: Any = posted[file_name]
            fields = {name: str(posted[name]) for name in posted if name != file_name}
            return self._answer(dialect, fields, await file.read(), answer)

        @self.app.post("/v1/audio/transcriptions")
        async def openai(request: Request) -> Response:
            return await form_answer(request, "openai", "file", self._openai)

        @self.app.post("/transcribe")
        async def sidecar(request: Request) -> Response:
            return await form_answer(request, "sidecar", "audio", self._sidecar)

        @self.app.post("/v1/chat/completions")
        async def chat(asked: dict[str, Any]) -> Response:
            messages = asked["messages"]
            audio, text = messages[1]["content"]
            begun = messages[2]["content"] if len(messages) > 2 else ""
            flac = base64.b64decode(audio["audio_url"]["url"].partition(",")[2])
            fields = {"prompt": text["text"], "begun": begun, "model": asked["model"]}
            answer = lambda *heard: self._vllm(begun, *heard)  # noqa: E731
            return self._answer("vllm", fields, flac, answer)

    def become(self, dialect: str, form: str = SEGMENTS, version: int = 1) -> None:
        """Serve another dialect, form and model from now on."""
        self.dialect, self.form = dialect, form
        self.model = f"{'vibevoice' if 'vllm' in dialect else 'whisper'}-{version}"

    def _answer(
        self, dialect: str, fields: dict[str, str], flac: bytes, answer: AnswerOf
    ) -> Response:
        heard, seconds = spoken(flac)
        status, why = self.refuses(fields, seconds)
        if dialect != self.dialect:
            status, why = 404, "Not Found"
        elif fields.get("model", self.model) != self.model:
            status, why = self.unknown_model, f"The model `{fields['model']}` does not exist."
        self.asked.append({**fields, "seconds": round(seconds, 1), "refused": status})
        if status:
            return JSONResponse({"error": {"message": why}}, status)
        return answer(fields, [one for one in heard if self.hears(one[0])], seconds)

    def _span(self, at: float, before_s: float, after_s: float) -> tuple[Any, Any]:
        """Times of a word; of some, if they are to be odd, these."""
        if self.odd is not None and round(at) % 5 == 3:
            return self.odd
        return max(0.0, at - before_s), at + after_s

    def _openai(self, fields: dict[str, str], heard: Spoken, seconds: float) -> Response:
        body: dict[str, Any] = {"text": " ".join(text for _, text in heard)}
        if fields["response_format"] == "verbose_json" and self.form != TEXT:
            spans = [(*self._span(at, 0.4, 0.4), text) for at, text in heard]
            body["segments"] = [{"start": a, "end": b, "text": text} for a, b, text in spans]
            if self.form == WORDS:
                inner = [(*self._span(at, 0.2, 0.2), text) for at, text in heard]
                body["words"] = [{"start": a, "end": b, "word": text} for a, b, text in inner]
        return Response(json.dumps(body), media_type="application/json")

    def _sidecar(self, fields: dict[str, str], heard: Spoken, seconds: float) -> Response:
        spans = [(*self._span(at, 0.4, 0.4), text) for at, text in heard]
        segments = []
        for some in _in_groups(spans, self.joined.popleft() if self.joined else 1):
            words = [{"start_time": a, "end_time": b, "text": text} for a, b, text in some]
            one = {
                "speaker": "Speaker_0",
                "start_time": some[0][0],
                "end_time": some[-1][1],
                "text": " ".join(text for *_, text in some),
            }
            segments.append({**one, "words": words} if self.form == WORDS else one)
        whole = {"status": "success", "segments": segments, "metadata": {"diarized": False}}
        lines = [*({"segment": one} for one in segments), {"result": whole}]
        told = "\n".join(json.dumps(one) for one in lines) + "\n"
        return Response(told, media_type="application/x-ndjson")

    def _streaming(self, fields: dict[str, str], heard: Spoken, seconds: float) -> Response:
        texts = ["" for _ in range(math.ceil(round(seconds / CHUNK_S, 6)))]
        for at, text in heard:
            texts[int(at / CHUNK_S)] += f" {text}"
        texts[0] = f"Speaker 0:{texts[0]}"
        return JSONResponse({"text": "".join(texts), "chunk_texts": texts})

    def _vllm(self, begun: str, fields: dict[str, str], heard: Spoken, seconds: float) -> Response:
        items = []
        for at, text in heard:
            start, end = self._span(round(at, 2), 0.4, 0.4)
            items.append({"Start": start, "End": end, "Speaker": 0, "Content": text})
        whole = "assistant\n[" + ",".join(map(json.dumps, items)) + "]\n"
        rest = whole[whole.find(begun) + len(begun) :] if begun in whole else whole
        pieces = [rest[at : at + 37] for at in range(0, len(rest), 37)]
        events = [json.dumps({"choices": [{"delta": {"content": one}}]}) for one in pieces]
        told = "".join(f"data: {one}\n\n" for one in [*events, "[DONE]"])
        return Response(told, media_type="text/event-stream")


def _in_groups(items: list[Any], most: int) -> Iterator[list[Any]]:
    return (items[at : at + most] for at in range(0, len(items), most))
