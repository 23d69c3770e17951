"""Small honest servers that speak two dialects whose real servers cannot be had here.

They hear nothing: a word is the fingerprint of half a second of what they were sent, so that a
transcript shows which audio came, in which order, and whether all of it did.
"""

import base64
import io
import json
import socket
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Self

import soundfile
import uvicorn
from fastapi import FastAPI, Request, Response
from service_process import PATIENCE_S, wait_until
from starlette.responses import JSONResponse, StreamingResponse

WORD_S = 0.5


def words_of(sound: bytes) -> tuple[list[str], float]:
    """A word for each half second, and the length in seconds."""
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="int16")
    step = int(WORD_S * rate)
    words = [
        f"w{zlib.crc32(samples[at : at + step].tobytes()) % 10**6:06}"
        for at in range(0, len(samples), step)
    ]
    return words, len(samples) / rate


class StandIn:
    """Runs an application on a port of its own, in a thread. ``settings``: uvicorn's."""

    def __init__(self, port: int = 0, **settings: Any) -> None:
        self.app = FastAPI()
        self.plan: deque[str] = deque()
        """What becomes of the next requests, in order."""
        self.asked: list[dict[str, Any]] = []
        """What was asked for, without the audio."""
        self.keys: list[str] = []
        config = uvicorn.Config(
            self.app, port=port, log_config=None, access_log=False, lifespan="off", **settings
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._server.config.port))
        self.port = listener.getsockname()[1]
        run = self._server.run
        self._thread = threading.Thread(target=run, args=([listener],), daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), "it serves")
        assert self._server.started, "it ended at its start"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class OpenAiStandIn(StandIn):
    """`/v1/audio/transcriptions`; ``knows`` are the formats that it takes."""

    def __init__(
        self, *knows: str, models: tuple[str, ...] = ("whisper-1",), **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.knows = knows or ("verbose_json", "json")

        @self.app.get("/v1/models")
        async def listed() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": name} for name in models]}

        @self.app.post("/v1/audio/transcriptions")
        async def transcribe(request: Request) -> Response:
            form = await request.form()
            file: Any = form["file"]
            said = {key: form.getlist(key) for key in form if key != "file"}
            self.asked.append(said)
            self.keys.append(request.headers.get("authorization", ""))
            wanted = str(form["response_format"])
            if wanted not in self.knows:
                wrong = {"message": f"response_format {wanted} is not known", "type": "x"}
                return JSONResponse({"error": wrong}, 400)
            return JSONResponse(self.answer(await file.read(), wanted, said))

    def answer(self, sound: bytes, wanted: str, said: dict[str, list[Any]]) -> dict[str, Any]:
        words, length = words_of(sound)
        if wanted == "json":
            return {"text": " ".join(words)}
        timed = [
            {"word": word, "start": at * WORD_S, "end": min((at + 1) * WORD_S, length)}
            for at, word in enumerate(words)
        ]
        segments = [
            {
                "id": at // 10,
                "start": timed[at]["start"],
                "end": timed[at : at + 10][-1]["end"],
                "text": " " + " ".join(words[at : at + 10]),
            }
            for at in range(0, len(words), 10)
        ]
        if self.plan and self.plan[0] == "loop":
            self.plan.popleft()
            again = {**segments[0], "text": "Thank you."}
            segments += [{**again, "id": 100 + at} for at in range(8)]
        body = {"task": "transcribe", "language": "english", "duration": length}
        body |= {"text": " ".join(words), "segments": segments}
        if said.get("timestamp_granularities[]"):
            body["words"] = timed
        return body


class VllmStandIn(StandIn):
    """VibeVoice-ASR in vLLM: a chat that streams the model's list; ``most_s`` seconds at once."""

    def __init__(self, most_s: float = 1e9) -> None:
        super().__init__()

        @self.app.get("/health")
        async def health() -> Response:
            return Response()

        @self.app.get("/v1/models")
        async def listed() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "vibevoice", "root": "/models/v"}]}

        @self.app.post("/v1/chat/completions")
        async def chat(body: dict[str, Any]) -> Response:
            parts = body["messages"][1]["content"]
            sound = base64.b64decode(parts[0]["audio_url"]["url"].partition(",")[2])
            words, length = words_of(sound)
            before = body["messages"][2]["content"] if len(body["messages"]) > 2 else ""
            temperature, text = body["temperature"], parts[1]["text"]
            self.asked.append({"text": text, "before": before, "temperature": temperature})
            fault = self.plan.popleft() if self.plan else ""
            if fault == "unavailable":
                return JSONResponse({"error": {"message": "starting"}}, 500)
            if length > most_s or fault == "length":
                wrong = {"message": "This model's maximum context length is 9 tokens", "code": 400}
                return JSONResponse({"error": wrong}, 400)
            if before and fault == "no prefix":
                return JSONResponse({"error": {"message": "unexpected assistant"}}, 400)
            whole = self.text(words, length)
            whole = self.rest(whole, before) if before else f"assistant\n{whole}"
            return StreamingResponse(
                self.stream(whole, fault, length), media_type="text/event-stream"
            )

    @staticmethod
    def text(words: list[str], length: float) -> str:
        """Two speakers in turn, five seconds each."""
        items = [
            {
                "Start": at * WORD_S,
                "End": round(min((at + 10) * WORD_S, length), 2),
                "Speaker": at // 10 % 2,
                "Content": " ".join(words[at : at + 10]),
            }
            for at in range(0, len(words), 10)
        ]
        return json.dumps(items, separators=(",", ":"))

    @staticmethod
    def rest(whole: str, before: str) -> str:
        """What follows ``before``, in which a stretch may have been given up."""
        if whole.startswith(before):
            return whole[len(before) :]
        over = json.loads(before + "]")[-1]["End"]
        left = [one for one in json.loads(whole) if one["Start"] >= over]
        return "," + json.dumps(left, separators=(",", ":"))[1:] if left else "]"

    def stream(self, whole: str, fault: str, length: float) -> Iterator[bytes]:
        def event(**values: Any) -> bytes:
            return b"data: " + json.dumps(values).encode() + b"\n\n"

        end = 2 * len(whole) // 3 if fault in ("cut", "error", "loop") else len(whole)
        if fault == "loop" and not whole.startswith("assistant"):
            end = 20  # no further than before
        sofar = ""
        for at in range(0, end, 7):
            sofar += whole[at : min(at + 7, end)]
            piece = sofar if fault == "repeats all" else whole[at : min(at + 7, end)]
            yield event(choices=[{"index": 0, "delta": {"content": piece}}])
        if fault == "cut":
            return
        if fault == "error":
            yield event(error={"message": "EngineCore encountered an issue", "code": 500})
            yield b"data: [DONE]\n\n"
            return
        if fault == "loop":
            for _ in range(400):
                yield event(choices=[{"index": 0, "delta": {"content": " la"}}])
            yield b"data: [DONE]\n\n"
            return
        tokens = 30_000 if fault == "inflated" else int(length * 7.5) + 83
        why = "length" if fault == "tokens" else "stop"
        yield event(choices=[{"index": 0, "delta": {}, "finish_reason": why}])
        yield event(choices=[], usage={"prompt_tokens": tokens})
        yield b"data: [DONE]\n\n"
