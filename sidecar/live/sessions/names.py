"""What captures are called, and which of them are too many. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

SOUND, EVENTS = ".wav.sealed", ".jsonl.sealed"
"""What the two files of a capture end with."""
LONGEST = 80


@dataclass(frozen=True, slots=True)
class Stored:
    """A capture that is there: what its files begin with, when it was last written to (seconds
    since 1970), and the bytes of both."""

    stem: str
    written: float
    size: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be there: bytes, captures, seconds of age; 0 is no limit."""

    size: int = 0
    count: int = 0
    age_s: float = 0.0


def stem_of(session: str, at: float) -> str:
    """Such as `20261121T104641_talk-7`: the local time, and what a file may be called of the name
    that a client gave its session."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", session).strip("_")[:LONGEST]
    return f"{time.strftime('%Y%m%dT%H%M%S', time.localtime(at))}_{plain or 'session'}"


def excess(stored: Sequence[Stored], now: float, limits: Limits) -> list[str]:
    """Those that go: too old, then too many, then too large; the oldest first."""
    left = sorted(stored, key=lambda one: (one.written, one.stem))
    gone = []
    if limits.age_s:
        gone = [one for one in left if now - one.written > limits.age_s]
        left = left[len(gone) :]
    size = sum(one.size for one in left)
    while left and (
        (limits.count and len(left) > limits.count) or (limits.size and size > limits.size)
    ):
        oldest = left.pop(0)
        size -= oldest.size
        gone.append(oldest)
    return [one.stem for one in gone]
