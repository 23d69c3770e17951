"""Many conversations at once on scripted stages: nothing mixed, nothing lost, nothing left.

Each has words and a loudness of its own. Its turns are spoken, typed, ended by a key and spoken
over, in turn; of every answer each word and each sample is compared with what its own turn asked
for. The model is a server with 30 tokens a second. Memory, open files and threads of the service
are looked at all the time.

    python -m bench.many_conversations [--conversations 10] [--minutes 10]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect

from bench.conversation_stages import Voice, model
from bench.serving import machine, ours, table, workshop
from sidecar.conversation.chat_completions import REPEAT_PREFIX

IN_RATE, OUT_RATE = 16_000, 24_000
STEP_S = 0.1
"""Of sound in a message."""
SPOKEN_S, QUIET_S = 1.2, 0.9
"""Of a turn that is spoken, and of the silence behind it."""
HEARD_S = 0.8
"""So much of an answer is heard before it is ended."""
BREATH_S = 1.0
"""Before a turn: who says the same as an answer right behind it is its echo."""
PATIENCE_S = 60.0
LOOK_S = 1.0
EDGES = 2
"""Words of a turn that may sound otherwise: at its edges is silence."""
NUMBERS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
MARKS = ".!?… "


class Mixed(Exception):
    """What came is not what was to come."""


@dataclass
class Counts:
    """What all of them had, in sum."""

    turns: Counter[str] = field(default_factory=Counter)
    words: int = 0
    samples: int = 0
    wrong: list[str] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)


class Conversation:
    """One of them: its own words, its own loudness."""

    def __init__(self, number: int, socket: ClientConnection, counts: Counts, voice: Voice) -> None:
        self.number, self._socket, self._counts, self._voice = number, socket, counts, voice
        self._turn = 0
        self._pcm = bytearray()
        self.level = 3000 + 1700 * number
        self.word = f"w{int(self.level / 32767 * 1000)}"

    async def go_on(self, until: float) -> None:
        """Turn after turn, and one at least; what is wrong is noted, and the next is tried."""
        await self._until("status", state="ready")
        kinds = (self.spoken, self.typed, self.ended_by_key, self.spoken_over)
        for turn in itertools.islice(itertools.cycle(kinds), self.number, None):
            await asyncio.sleep(BREATH_S)
            kind = turn.__name__
            try:
                await turn()
                self._counts.turns[kind] += 1
            except (Mixed, TimeoutError) as error:
                self._counts.wrong.append(f"conversation {self.number}, {kind}: {error!r}")
            if time.monotonic() >= until:
                return

    async def spoken(self) -> None:
        """Somebody speaks, and is answered."""
        self._pcm.clear()
        await self._say()
        await self._answered(self._is_mine, whole=True)

    async def typed(self) -> None:
        """Somebody types, and is answered."""
        said = await self._type()
        await self._answered(lambda user: user == said, whole=True)

    async def ended_by_key(self) -> None:
        """Somebody has heard enough of an answer."""
        said = await self._type()
        await self._heard()
        await self._socket.send(json.dumps({"type": "interrupt"}))
        await self._answered(lambda user: user == said, whole=False)

    async def spoken_over(self) -> None:
        """Somebody speaks over an answer, and is answered."""
        said = await self._type()
        await self._heard()
        saying = asyncio.create_task(self._say())
        await self._answered(lambda user: user == said, whole=False)
        self._pcm.clear()
        await self._answered(self._is_mine, whole=True)
        await saying

    def _is_mine(self, user: str) -> bool:
        words = user.split()
        return len(words) >= 3 and len(words) - words.count(self.word) <= EDGES

    async def _type(self) -> str:
        self._turn += 1
        self._pcm.clear()
        mine = f"conversation{self.number} turn{self._turn}"
        said = f"{mine} " + " ".join(f"{word}{self.number}x{self._turn}" for word in NUMBERS)
        await self._socket.send(json.dumps({"type": "text", "text": said}))
        return said

    async def _say(self) -> None:
        """As a microphone: as fast as time goes."""
        loud = np.full(round(SPOKEN_S * IN_RATE), self.level, "<i2")
        sound = np.concatenate([loud, np.zeros(round(QUIET_S * IN_RATE), "<i2")])
        begun, step = time.monotonic(), round(STEP_S * IN_RATE)
        for at in range(0, len(sound), step):
            due = begun + (at + step) / IN_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._socket.send(sound[at : at + step].tobytes())

    async def _heard(self) -> None:
        while len(self._pcm) < HEARD_S * 2 * OUT_RATE:
            await self._next()

    async def _answered(self, is_mine: Any, *, whole: bool) -> None:
        """The answer, compared to its last sample."""
        metrics = await self._until("metrics")
        got = await self._until("transcript")
        if not is_mine(got["user"]):
            raise Mixed(f"said: {got['user']!r}")
        meant = f"{REPEAT_PREFIX} {got['user']}"
        heard, sound = got["assistant"].rstrip(MARKS), bytes(self._pcm)
        made = await asyncio.to_thread(self._voice.sound, meant)
        if not meant.startswith(heard) or (whole and heard != meant):
            raise Mixed(f"heard: {got['assistant']!r}, not {meant!r}")
        if not made.startswith(sound) or (whole and sound != made):
            raise Mixed(f"{len(sound) // 2} samples of {len(made) // 2}, or others")
        self._counts.words += len(heard.split())
        self._counts.samples += len(sound) // 2
        self._counts.totals.append(metrics["total_latency_ms"])
        await self._until("status", state="ready")

    async def _next(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self._socket.recv()
        if isinstance(raw, bytes):
            self._pcm += raw
            return raw
        message = json.loads(raw)
        if message["type"] in ("error", "notice"):
            raise Mixed(message["message"])
        return message

    async def _until(self, kind: str, **fields: Any) -> dict[str, Any]:
        while True:
            message = await self._next()
            if isinstance(message, dict) and {"type": kind, **fields}.items() <= message.items():
                return message


@dataclass(frozen=True, slots=True)
class Look:
    """What the service holds at a moment: MB (``own``: without its engines), open files, threads,
    processes."""

    at: float
    rss: float
    own: float
    files: int
    threads: int
    processes: int

    @classmethod
    def of(cls, tree: Sequence[psutil.Process], at: float) -> Look:
        """Of all its processes."""
        rss, own, files, threads = 0.0, 0.0, 0, 0
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                rss += process.memory_info().rss / 1e6
                own = own or rss
                files += process.num_fds() if sys.platform != "win32" else process.num_handles()
                threads += process.num_threads()
        return cls(at, rss, own, files, threads, len(tree))


async def watched(server: Any, looks: list[Look]) -> None:
    """Look all the time."""
    begun = time.monotonic()
    while True:
        looks.append(Look.of(await asyncio.to_thread(server.tree), time.monotonic() - begun))
        await asyncio.sleep(LOOK_S)


async def converse(port: int, count: int, seconds: float, counts: Counts) -> None:
    """All of them at once."""
    voice, until = Voice(OUT_RATE), time.monotonic() + seconds

    async def one(number: int) -> None:
        address = f"ws://127.0.0.1:{port}/stream"
        async with connect(address, max_size=None, ping_interval=None) as socket:
            await Conversation(number, socket, counts, voice).go_on(until)

    await asyncio.gather(*(one(number) for number in range(count)))


async def measured(server: Any, count: int, seconds: float) -> tuple[Counts, list[Look], Look]:
    """What came of it, what the service held meanwhile, and what it holds when all have left."""
    counts, looks = Counts(), list[Look]()
    await converse(server.port, 1, 1.0, Counts())  # all is loaded
    watching = asyncio.create_task(watched(server, looks))
    await converse(server.port, count, seconds, counts)
    watching.cancel()
    await asyncio.sleep(2.0)
    return counts, looks, Look.of(server.tree(), 0.0)


def parts(looks: Sequence[Look], count: int = 10) -> Iterator[list[Look]]:
    """The time in parts that are as long as each other."""
    whole = looks[-1].at + 1e-6
    for part in range(count):
        found = [one for one in looks if part <= count * one.at / whole < part + 1]
        if found:
            yield found


def report(counts: Counts, looks: Sequence[Look], after: Look) -> None:
    """Print it."""
    turns = ", ".join(f"{many} {kind.replace('_', ' ')}" for kind, many in counts.turns.items())
    print(f"\nturns: {sum(counts.turns.values())} ({turns})")
    print(f"compared: {counts.words} words, {counts.samples} samples ({OUT_RATE} a second)")
    print(f"wrong: {len(counts.wrong)}")
    for line in counts.wrong[:20]:
        print(f"  {line}")
    if counts.totals:
        ordered = sorted(counts.totals)
        p95 = ordered[round(0.95 * (len(ordered) - 1))]
        p50 = statistics.median(ordered)
        print(f"last sound → first of the answer: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
    table(
        "What the service holds",
        ("minute", "MB", "its own", "open files", "threads", "processes"),
        [
            *(_row(f"{part[-1].at / 60:.1f}", part) for part in parts(looks)),
            _row("after", [after]),
        ],
    )


def _row(name: str, part: Sequence[Look]) -> list[str]:
    """What is in the middle of a part of the time."""
    middle = [
        statistics.median(getattr(one, what) for one in part)
        for what in ("rss", "own", "files", "threads", "processes")
    ]
    return [name, *(f"{value:.1f}" for value in middle[:2]), *(f"{one:.0f}" for one in middle[2:])]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversations", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10.0)
    wanted = parser.parse_args()
    print(machine())
    with workshop() as folder, model() as (url, _):
        settings = {"engine": "scripted", "voice_engine": "scripted", "llm": url}
        many = str(wanted.conversations)
        with ours(folder, **settings, llm_model="repeats", conversations=many) as server:
            found = asyncio.run(measured(server, wanted.conversations, 60 * wanted.minutes))
    report(*found)
    print(f"\n{machine().replace('start', 'end')}")
    sys.exit(bool(found[0].wrong))


if __name__ == "__main__":
    main()
