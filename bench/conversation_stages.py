"""Stages of a conversation whose times and words are known, for the benchmarks of it.

A language model that answers at a known speed, and what the scripted voice makes of an answer: each
sample of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sidecar.conversation.chat_completions import REPEAT_PREFIX
from sidecar.conversation.tts_text import SentenceSplitter, TtsPhrase
from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions
from sidecar.tts.scripted_tts import ScriptedTts
from sidecar.workers.worker_operations import resample_speech

TOKENS_A_SECOND, FIRST_TOKEN_S = 30, 0.15
ANSWER = "That is a good question, and the answer to it is longer than you may think it is. " * 3


@dataclass
class Thought:
    """One answer of a model, on its own clock: when it was asked, and when each word went out."""

    asked: float
    said: list[float] = field(default_factory=list)


class Model(BaseHTTPRequestHandler):
    """A language model that answers the same at a known speed; called 'repeats', what was said."""

    thoughts: list[Thought]

    def do_POST(self) -> None:
        """An answer as a stream."""
        thought = Thought(time.monotonic())
        self.thoughts.append(thought)
        wanted = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        due = thought.asked + FIRST_TOKEN_S
        with suppress(BrokenPipeError, ConnectionResetError):  # who was interrupted has left
            for word in _words(wanted)[: wanted["max_tokens"]]:
                time.sleep(max(0.0, due - time.monotonic()))
                thought.said.append(time.monotonic())
                chunk = {"choices": [{"delta": {"content": f"{word} "}}]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                due += 1 / TOKENS_A_SECOND
            self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _words(wanted: dict[str, Any]) -> list[str]:
    if wanted["model"] == "repeats":
        return f"{REPEAT_PREFIX} {wanted['messages'][-1]['content']}".split()
    return ANSWER.split()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def model() -> Iterator[tuple[str, list[Thought]]]:
    """Its address while it is there, and what it was asked for."""
    thoughts: list[Thought] = []
    kind = type("Model", (Model,), {"thoughts": thoughts})
    with _Server(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", thoughts
        server.shutdown()


def pieces(answer: str) -> list[TtsPhrase]:
    """What a voice is given of an answer, one after the other."""
    sentences = SentenceSplitter()
    found = [piece for word in answer.split() for piece in sentences.feed(f"{word} ")]
    return found + sentences.flush()


def words_of_first(answer: str) -> int:
    """How many words of an answer there have to be before a voice has something to say."""
    sentences = SentenceSplitter()
    for count, word in enumerate(answer.split(), 1):
        if sentences.feed(f"{word} "):
            return count
    return len(answer.split())


class Voice:
    """What the scripted voice says."""

    def __init__(self, rate: int) -> None:
        self._voice, self._rate = ScriptedTts(), rate
        list(self._voice.load(LoadOptions(speaks=True)))

    def sound(self, answer: str) -> bytes:
        """All samples of an answer that is heard to its end."""
        return b"".join(self._said(piece.text) for piece in pieces(answer) if piece.text)

    def _said(self, text: str) -> bytes:
        sounds = resample_speech(
            self._voice.say(text, SynthesisOptions(), lambda: False), self._rate
        )
        return b"".join(sound.pcm for sound in sounds)
