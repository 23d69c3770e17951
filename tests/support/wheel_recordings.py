"""The recordings inside the moonshine-voice wheel."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file

RATE = 16_000


def clip(name: str) -> Block:
    """A recording of the wheel's at 16 kHz."""
    from moonshine_voice import get_assets_path

    return np.ascontiguousarray(decode_audio_file(Path(get_assets_path()) / f"{name}.wav", RATE))


def write_scene(path: Path, pieces: Sequence[np.ndarray], gaps_s: Sequence[float]) -> Path:
    """A recording in which they are said one after the other, with such silences behind them."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        for piece, gap_s in zip(pieces, cycle(gaps_s), strict=False):
            file.writeframes(piece.astype("<i2").tobytes() + bytes(2 * round(gap_s * RATE)))
    return path
