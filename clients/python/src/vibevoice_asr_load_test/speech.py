"""Speech of load tests: utterances cut from recordings, scripts of simulated users, start times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LIVE_RATE = 16_000
"""Samples a second that all live protocols take."""
SAMPLE_BYTES = 2
BREATH_S = 1.0
"""Pause between two utterances in mode `TALK`: longer than a pause that ends an utterance."""


class LoadTestMode(StrEnum):
    """Mode of load test sessions."""

    TALK = "talk"
    """Utterance after utterance, with a short pause between them."""
    CONVERSATION = "conversation"
    """In turns: with long pauses, and every second session starts with one."""
    IDLE = "idle"
    """Connected without sending audio."""


@dataclass(frozen=True, slots=True)
class LoadTestAudio:
    """Audio of an utterance or a pause: pcm16 at `LIVE_RATE`."""

    sound: bytes
    speech: bool

    @property
    def seconds(self) -> float:
        """Return its length."""
        return len(self.sound) / SAMPLE_BYTES / LIVE_RATE


@dataclass(frozen=True, slots=True)
class LoadTestScript:
    """Script of one session; ``idle_s``: how long it stays connected, if it sends nothing."""

    parts: tuple[LoadTestAudio, ...] = ()
    idle_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Return the length of the whole script."""
        return self.idle_s or sum(part.seconds for part in self.parts)


def silence(seconds: float) -> bytes:
    """Return silence of that length as pcm16."""
    return bytes(round(seconds * LIVE_RATE) * SAMPLE_BYTES)


def script_of(
    mode: LoadTestMode, clips: Sequence[bytes], seconds: float, pause_s: float, number: int
) -> LoadTestScript:
    """Return the script of session ``number`` for at least ``seconds``: whole utterances and
    pauses.

    ``clips``: one utterance each; every session starts with another one. ``pause_s``: pause in a
    conversation, in which every second session starts with a pause.
    """
    if mode is LoadTestMode.IDLE:
        return LoadTestScript(idle_s=seconds)
    pause = LoadTestAudio(
        silence(pause_s if mode is LoadTestMode.CONVERSATION else BREATH_S), speech=False
    )
    listens_first = mode is LoadTestMode.CONVERSATION and number % 2
    parts = [pause] if listens_first else []
    turn, lasts = number, sum(part.seconds for part in parts)
    while lasts < seconds or not any(part.speech for part in parts):
        said = LoadTestAudio(clips[turn % len(clips)], speech=True)
        parts += [said, pause]
        lasts += said.seconds + pause.seconds
        turn += 1
    return LoadTestScript(tuple(parts))


def starts(count: int, steps: int, interval_s: float, spread_s: float) -> list[float]:
    """Return the start times of ``count`` sessions in seconds: in ``steps`` groups that are
    ``interval_s`` apart.

    Those of a group begin within ``spread_s``, so that not all of them send in the same instant.
    """
    size = -(-count // max(1, min(steps, count)))
    return [
        number // size * interval_s + number % size / size * spread_s for number in range(count)
    ]


FRAME = LIVE_RATE // 50
"""Samples of a frame, 20 ms."""
QUIET = 0.05
"""Share of the loudest frame above which a frame is speech."""


@dataclass(frozen=True, slots=True)
class LoadTestRecording:
    """Recording and its length."""

    path: Path
    seconds: float


def utterances(samples: npt.NDArray[np.float32], talk_s: float) -> list[bytes]:
    """Return utterances in ``samples`` (mono, `LIVE_RATE`) as pcm16 that begin and end with speech.

    One that is at most half as long as ``talk_s`` is left out.
    """
    import numpy as np

    count = len(samples) // FRAME
    frames = samples[: count * FRAME].reshape(count, FRAME)
    loudness = np.sqrt((frames**2).mean(axis=1)) if count else np.zeros(0)
    loud = np.flatnonzero(loudness > QUIET * loudness.max(initial=0.0))
    size, found, at = max(1, round(talk_s * LIVE_RATE / FRAME)), [], 0
    while len(later := loud[loud >= at]):
        begin = int(later[0])
        end = int(later[later < begin + size][-1]) + 1
        if 2 * (end - begin) > size:
            block = samples[begin * FRAME : end * FRAME]
            found.append((block.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
        at = begin + size
    return found
