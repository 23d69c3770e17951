"""How values of the other live server's files are read: numbers, times, sizes, names. Pure.

Each reader takes a value of YAML and gives what is meant by it here, or raises a ValueError that
says what it should have been.
"""

from __future__ import annotations

import math
from typing import Any

FOREVER_S = 86_400.0
"""Where there is no limit there: a day."""
MB = 1 << 20
DAY_S = 86_400


def whole(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def number(value: Any) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return value


def text(value: Any) -> str:
    """Text."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def truth(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def patience(value: Any) -> float:
    """Seconds, for ever where that is zero or less."""
    seconds = number(value)
    return seconds if seconds > 0 else FOREVER_S


def from_ms(value: Any) -> float:
    """Seconds of milliseconds."""
    return number(value) / 1000


def in_mb(value: Any) -> int:
    """Whole MB of bytes, at least one."""
    return max(1, math.ceil(whole(value) / MB))


def in_mb_or_any(value: Any) -> int:
    """The same; zero and less are no limit."""
    return in_mb(value) if whole(value) > 0 else 0


def count_or_any(value: Any) -> int:
    """How many; zero and less are no limit."""
    return max(0, whole(value))


def from_days(value: Any) -> float:
    """Seconds; zero and less are no limit."""
    return max(0.0, number(value)) * DAY_S


def severity(value: Any) -> str:
    """Levels of Python's logging."""
    known = {"critical": "error", "fatal": "error", "warn": "warning"}
    return known.get(text(value).lower(), text(value).lower())


def device(value: Any) -> str:
    """Which GPU it is, is said by CUDA_VISIBLE_DEVICES here."""
    return "cuda" if text(value).startswith("cuda") else text(value)


def precision(value: Any) -> str:
    """CTranslate2's names of types."""
    known = {
        "default": "auto",
        "auto": "auto",
        "int8": "int8",
        "int8_float32": "int8",
        "int8_float16": "int8",
        "int8_bfloat16": "int8",
        "float16": "fp16",
        "bfloat16": "bf16",
        "float32": "fp32",
    }
    if text(value) not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return known[value]


def task(value: Any) -> str:
    """What becomes of speech."""
    if text(value).lower() not in ("transcribe", "translate"):
        raise ValueError("transcribe or translate")
    return text(value).lower()
