"""Who says what, and when: what each session of a measurement sends, and when it begins. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidecar.interfaces.live import LIVE_RATE

SAMPLE_BYTES = 2
BREATH_S = 1.0
"""Between two utterances of who talks all the time: longer than a pause that ends one."""


class Mode(StrEnum):
    """How sessions behave."""

    TALK = "talk"
    """Utterance after utterance, with a breath between them."""
    CONVERSATION = "conversation"
    """By turns: each session is silent for as long as the one beside it talks."""
    IDLE = "idle"
    """Connected, and nothing is sent."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of sound: pcm16 at `LIVE_RATE`."""

    sound: bytes
    speech: bool

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.sound) / SAMPLE_BYTES / LIVE_RATE


@dataclass(frozen=True, slots=True)
class Course:
    """What one session sends; ``idle_s``: for how long it only stays, where it sends nothing."""

    parts: tuple[Part, ...] = ()
    idle_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.idle_s or sum(part.seconds for part in self.parts)


def silence(seconds: float) -> bytes:
    """So much of it."""
    return bytes(round(seconds * LIVE_RATE) * SAMPLE_BYTES)


def course_of(
    mode: Mode, clips: Sequence[bytes], seconds: float, pause_s: float, number: int
) -> Course:
    """What session ``number`` sends for some ``seconds``: whole utterances and pauses.

    ``clips``: one utterance each, taken from another place on by every session. ``pause_s``: of a
    conversation, in which every second session begins by listening.
    """
    if mode is Mode.IDLE:
        return Course(idle_s=seconds)
    pause = Part(silence(pause_s if mode is Mode.CONVERSATION else BREATH_S), speech=False)
    listens_first = mode is Mode.CONVERSATION and number % 2
    parts = [pause] if listens_first else []
    turn, lasts = number, sum(part.seconds for part in parts)
    while lasts < seconds or not any(part.speech for part in parts):
        said = Part(clips[turn % len(clips)], speech=True)
        parts += [said, pause]
        lasts += said.seconds + pause.seconds
        turn += 1
    return Course(tuple(parts))


def starts(count: int, steps: int, interval_s: float, spread_s: float) -> list[float]:
    """When each of ``count`` sessions begins: in ``steps`` groups that are ``interval_s`` apart.

    Those of a group begin within ``spread_s``, so that not all of them send in the same instant.
    """
    size = -(-count // max(1, min(steps, count)))
    return [
        number // size * interval_s + number % size / size * spread_s for number in range(count)
    ]
