"""Many conversations at once on scripted stages.

Each has words and a loudness of its own. Its turns are spoken, typed and spoken over, in
turn; of every answer each word and each sample is compared with what its own turn asked
for."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from s2s_client import IN_RATE, OUT_RATE, Page
from service_process import Server

from sidecar.conversation.chat_completions import REPEAT_PREFIX
from sidecar.conversation.tts_text import SentenceSplitter, TtsPhrase
from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions
from sidecar.tts.scripted_tts import ScriptedTts
from sidecar.workers.worker_operations import resample_speech

SPOKEN_S, QUIET_S = 1.2, 0.9
"""Of a turn that is spoken, and of the silence behind it."""
HEARD_S = 0.8
"""So much of an answer is heard before somebody speaks over it."""
BREATH_S = 1.0
"""Before a turn: who says the same as an answer right behind it is its echo."""
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
    wrong: list[str] = field(default_factory=list)


class Conversation(Page):
    """One of them: its own words, its own loudness."""

    def __init__(self, number: int, server: Server, counts: Counts, voice: Voice) -> None:
        super().__init__(server)
        self.number, self._counts, self._voice = number, counts, voice
        self._turn = 0
        self._pcm = bytearray()
        self.level = 3000 + 1700 * number
        self.word = f"w{int(self.level / 32767 * 1000)}"

    async def go_on(self, until: float) -> None:
        """Turn after turn, and one at least; what is wrong is noted, and the next is tried."""
        await self.until("status", state="ready")
        kinds = (self.spoken, self.typed, self.spoken_over)
        for turn in itertools.islice(itertools.cycle(kinds), self.number, None):
            await asyncio.sleep(BREATH_S)  # real time: a longer breath makes no echo either
            kind = turn.__name__
            try:
                await turn()
                self._counts.turns[kind] += 1
            except (Mixed, TimeoutError) as error:
                self._counts.wrong.append(f"conversation {self.number}, {kind}: {error!r}")
            # real time: each has a turn at least, however late it is
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
        await self.send(type="text", text=said)
        return said

    async def _say(self) -> None:
        loud = np.full(round(SPOKEN_S * IN_RATE), self.level, "<i2")
        await self.speak(loud.tobytes() + bytes(2 * round(QUIET_S * IN_RATE)))

    async def _heard(self) -> None:
        while len(self._pcm) < HEARD_S * 2 * OUT_RATE:
            await self.next()

    async def _answered(self, is_mine: Any, *, whole: bool) -> None:
        """The answer, compared to its last sample."""
        await self.until("metrics")
        got = await self.until("transcript")
        if not is_mine(got["user"]):
            raise Mixed(f"said: {got['user']!r}")
        meant = f"{REPEAT_PREFIX} {got['user']}"
        heard, sound = got["assistant"].rstrip(MARKS), bytes(self._pcm)
        made = await asyncio.to_thread(self._voice.sound, meant)
        if not meant.startswith(heard) or (whole and heard != meant):
            raise Mixed(f"heard: {got['assistant']!r}, not {meant!r}")
        if not made.startswith(sound) or (whole and sound != made):
            raise Mixed(f"{len(sound) // 2} samples of {len(made) // 2}, or others")
        await self.until("status", state="ready")

    async def next(self) -> Any:
        message = await super().next()
        if isinstance(message, bytes):
            self._pcm += message
        elif message["type"] in ("error", "notice"):
            raise Mixed(message["message"])
        return message


def pieces(answer: str) -> list[TtsPhrase]:
    """What a voice is given of an answer, one after the other."""
    sentences = SentenceSplitter()
    found = [piece for word in answer.split() for piece in sentences.feed(f"{word} ")]
    return found + sentences.flush()


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


async def converse(server: Server, count: int, seconds: float, counts: Counts) -> None:
    """All of them at once."""
    # real time: each has a turn at least, however late it is
    voice, until = Voice(OUT_RATE), time.monotonic() + seconds

    async def one(number: int) -> None:
        async with Conversation(number, server, counts, voice) as conversation:
            await conversation.go_on(until)

    await asyncio.gather(*(one(number) for number in range(count)))
