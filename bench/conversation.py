"""A spoken conversation, over the page's wire: how soon one is answered, and how soon it is quiet.

Somebody says pieces of a clip of the wheel, in real time, and each is answered: by the embedded
recognizer, the responder that repeats or a scripted model of 30 tokens a second, and a voice that
needs nothing. Then somebody speaks over an answer. In the end all stages are scripted, so that what
each takes is known: what is left is our own. Where a piece's sound ends is looked up in its
samples, so what is told is what a person would find with a watch.

    python -m bench.conversation [--turns 12] [--voice espeak] [--own]
"""

import asyncio
import json
import statistics
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect

from bench.serving import argument_parser, clip, machine, ours, workshop
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.tts_text import SentenceSplitter
from sidecar.plugins.conversation.chat_completions import REPEAT_PREFIX
from sidecar.plugins.conversation.speech_input import CONVERSATION_ENDPOINTING

TOKENS_A_SECOND, FIRST_TOKEN_S = 30, 0.15
ANSWER = "That is a good question, and the answer to it is longer than you may think it is. " * 3
IN_RATE, OUT_RATE = 16_000, 24_000
STEP_S = 0.1
"""Of sound in a message. The page itself sends 0.256 s, which comes late by half of that."""
QUIET = 0.01
"""Root mean square of 20 ms below which nobody speaks."""
PAUSE_S = 0.35
BREATH_S = 1.0
ORDER_S = 1.2
"""What is shorter may be a "yes", over which an answer goes on."""
LOADING_S = 8.0
PATIENCE_S = 15.0
SHORTEST_S, LONGEST_S = 0.6, 4.0
VOICE_S = 0.05
"""What the scripted voice takes for a word."""
HEARS_S = 0.05
"""What the scripted recognizer takes for each look."""

Samples = npt.NDArray[np.int16]


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


def words_of_first(answer: str) -> int:
    """How many words of an answer there have to be before a voice has something to say."""
    sentences = SentenceSplitter()
    for count, word in enumerate(answer.split(), 1):
        if sentences.feed(f"{word} "):
            return count
    return len(answer.split())


def sayings() -> list[Samples]:
    """Sentences between two pauses; each ends with its last loud samples."""
    samples = decode_audio_file(clip("endgame_nagg_nell.wav"), IN_RATE)
    frame = IN_RATE // 50
    loud = [
        float(np.sqrt(np.mean(samples[at : at + frame] ** 2))) > QUIET
        for at in range(0, len(samples) - frame, frame)
    ]
    found, begin, last = [], None, 0
    for at, is_loud in enumerate(loud):
        if is_loud:
            begin, last = at if begin is None else begin, at
        elif begin is not None and (at - last) / 50 >= PAUSE_S:
            if SHORTEST_S <= (last - begin) / 50 <= LONGEST_S:
                piece = samples[begin * frame : (last + 1) * frame]
                found.append((piece * 32767).astype("<i2"))
            begin = None
    return found


@dataclass
class Turn:
    """What was seen of one, in seconds of one clock. ``ended``: when the person's sound did."""

    ended: float = 0.0
    first: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Caller:
    """A page that notes when things come."""

    socket: ClientConnection
    plays_until: float = 0.0
    """When the sound that came will have been heard."""

    async def say(self, piece: Samples, then_s: float) -> None:
        """In real time, with silence behind it."""
        sound = np.concatenate([piece, np.zeros(round(then_s * IN_RATE), "<i2")])
        begun, step = time.monotonic(), round(STEP_S * IN_RATE)
        for at in range(0, len(sound), step):
            chunk = sound[at : at + step]
            due = begun + (at + len(chunk)) / IN_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.socket.send(chunk.astype("<i2").tobytes())

    async def next(self) -> Any:
        """The next message; of sound is noted until when it plays."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.socket.recv()
        if isinstance(raw, bytes):
            start = max(time.monotonic(), self.plays_until)
            self.plays_until = start + len(raw) / 2 / OUT_RATE
            return raw
        return json.loads(raw)

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message like that."""
        while True:
            message = await self.next()
            if isinstance(message, dict) and {"type": kind, **fields}.items() <= message.items():
                return message

    async def turn(self, piece: Samples) -> Turn:
        """Say it, and listen to the answer. Who says the same as an answer right behind it is its
        echo, so there is a pause before."""
        await asyncio.sleep(BREATH_S)
        seen = Turn(time.monotonic() + len(piece) / IN_RATE)
        saying = asyncio.create_task(self.say(piece, 2.5))
        while True:
            message = await self.next()
            if isinstance(message, bytes):
                seen.first = seen.first or time.monotonic()
            elif message["type"] == "metrics":
                seen.metrics = message
            elif message == {"type": "status", "state": "ready"}:
                break
        await saying
        return seen

    async def interrupt(self, piece: Samples) -> float:
        """Speak over an answer: seconds from the first loud sample until the ear is quiet."""
        await asyncio.sleep(BREATH_S)
        await self.socket.send(json.dumps({"type": "text", "text": ANSWER}))
        while not isinstance(await self.next(), bytes):
            pass
        began = time.monotonic()
        saying = asyncio.create_task(self.say(piece, 2.5))
        await self.until("transcript", interrupted=True)
        quiet = self.plays_until - began
        await self.until("transcript", interrupted=False)
        await self.until("status", state="ready")
        await saying
        return quiet


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Caller]:
    """A page whose service is ready."""
    async with connect(f"ws://127.0.0.1:{port}/stream", max_size=None) as socket:
        caller = Caller(socket)
        await caller.until("status", state="ready")
        await asyncio.sleep(LOADING_S)
        yield caller


def row(name: str, values: Sequence[float]) -> str:
    """p50 and p95 in milliseconds."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return f"| {name} | {1000 * statistics.median(ordered):.0f} | {1000 * p95:.0f} |"


def report(title: str, turns: Sequence[Turn]) -> None:
    """The stages, and the whole."""
    print(f"\n{title}\n\n| | p50 ms | p95 ms |\n|---|---|---|")
    stages = {
        "last sound → turn over": "vad_latency_ms",
        "words, from when they were wanted": "asr_latency_ms",
        "model's first words": "llm_latency_ms",
        "voice's first sound": "tts_first_chunk_ms",
    }
    for name, key in stages.items():
        print(row(name, [turn.metrics[key] / 1000 for turn in turns]))
    total = [turn.metrics["total_latency_ms"] / 1000 for turn in turns]
    over = [turn.metrics["vad_latency_ms"] / 1000 for turn in turns]
    whole = [turn.first - turn.ended for turn in turns]
    pairs = list(zip(whole, total, over, strict=True))
    print(row("turn over → first frame at the client", [all - vad for all, _, vad in pairs]))
    print(row("last sound → first frame at the client", whole))
    print(row("watch and detector differ over the last sound by", [a - b for a, b, _ in pairs]))


async def conversation(port: int, turns: int) -> list[Turn]:
    """Some turns, after one that does not count."""
    pieces = sayings()
    async with calling(port) as caller:
        await caller.turn(pieces[0])
        found = []
        for at in range(turns):
            try:
                found.append(await caller.turn(pieces[at % len(pieces)]))
            except TimeoutError:
                print(f"a piece of {len(pieces[at % len(pieces)]) / IN_RATE:.1f} s got no answer")
        return found


async def interruptions(port: int, turns: int) -> list[float]:
    """Some answers that are spoken over."""
    pieces = sayings()
    async with calling(port) as caller:
        long = [piece for piece in pieces if len(piece) > ORDER_S * IN_RATE]
        return [await caller.interrupt(long[at % len(long)]) for at in range(turns)]


async def typed(port: int, thoughts: Sequence[Thought], turns: int) -> list[tuple[float, float]]:
    """Turns that are typed, on scripted stages: what a turn took to the first frame at the client
    beyond model and voice, and what of that lies behind the model's word that was enough."""
    found, enough = [], words_of_first(ANSWER)
    async with calling(port) as caller:
        for turn in range(turns + 1):
            await asyncio.sleep(BREATH_S)
            began = time.monotonic()
            await caller.socket.send(json.dumps({"type": "text", "text": "How are you?"}))
            while not isinstance(await caller.next(), bytes):
                pass
            first, thought = time.monotonic(), thoughts[-1]
            thinking = thought.said[enough - 1] - thought.asked
            behind = first - thought.said[enough - 1] - VOICE_S
            if turn:  # the first has connections to make
                found.append((first - began - thinking - VOICE_S, behind))
            await caller.socket.send(json.dumps({"type": "reset"}))
            await caller.until("status", state="reset")
    return found


async def spoken(port: int, thoughts: Sequence[Thought], turns: int) -> list[tuple[float, float]]:
    """Turns that are spoken, on scripted stages: from the last loud sample to the model being
    asked, beyond the pause that is waited for and the recognizer; and, as `typed`, what lies behind
    the model's word."""
    found, enough = [], words_of_first(ANSWER)
    piece = np.full(round(1.25 * IN_RATE), 9000, "<i2")
    async with calling(port) as caller:
        for turn in range(turns + 1):
            seen = await caller.turn(piece)
            thought = thoughts[-1]
            before = thought.asked - seen.ended - CONVERSATION_ENDPOINTING.pause_s - HEARS_S
            behind = seen.first - thought.said[enough - 1] - VOICE_S
            if turn:
                found.append((before, behind))
    return found


def own(port: int, thoughts: Sequence[Thought], turns: int) -> None:
    """What is our own."""
    print("\nOur own\n\n| | p50 ms | p95 ms |\n|---|---|---|")
    by_hand = asyncio.run(typed(port, thoughts, turns))
    aloud = asyncio.run(spoken(port, thoughts, turns))
    print(row("typed → first frame, without model and voice", [one for one, _ in by_hand]))
    print(row("of that, behind the model's word", [one for _, one in by_hand]))
    print(row("spoken: behind the model's word", [one for _, one in aloud]))
    name = "spoken: last sound → model asked, without pause and recognizer"
    print(row(f"{name} (a message is {1000 * STEP_S:.0f} ms)", [one for one, _ in aloud]))


def measure(folder: Path, voice: str, turns: int) -> None:
    """A real recognizer and a real voice: how soon one is answered, and how soon it is quiet."""
    stages = {"engine": "moonshine", "voice_engine": voice}
    with ours(folder, **stages) as server:
        report("Repeated", asyncio.run(conversation(server.port, turns)))
        over = asyncio.run(interruptions(server.port, turns))
        print("\nSpoken over\n\n| | p50 ms | p95 ms |\n|---|---|---|")
        print(row("first loud sample → the ear is quiet", over))
    with model() as (url, _), ours(folder, **stages, llm=url, llm_model="scripted") as server:
        title = f"A model of {TOKENS_A_SECOND} tokens/s, the first after {FIRST_TOKEN_S} s"
        report(title, asyncio.run(conversation(server.port, turns)))


def main() -> None:
    """Run it."""
    parser = argument_parser(__doc__)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--voice", default="espeak")
    parser.add_argument("--own", action="store_true", help="only what is our own")
    wanted = parser.parse_args()
    print(machine())
    with workshop() as folder:
        if not wanted.own:
            measure(folder, wanted.voice, wanted.turns)
        stages = {"engine": "scripted", "voice_engine": "scripted", "llm_model": "scripted"}
        takes = {"scripted_say": str(VOICE_S), "scripted_hear": str(HEARS_S)}
        with model() as (url, thoughts), ours(folder, **stages, **takes, llm=url) as server:
            own(server.port, thoughts, wanted.turns)


if __name__ == "__main__":
    main()
