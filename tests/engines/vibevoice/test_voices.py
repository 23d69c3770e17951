"""The library that listens to long recordings: pauses, and one voice found again among two."""

from __future__ import annotations

import sys

import checkpoints
import numpy as np
import pytest

from sidecar.audio import Block
from sidecar.engines.vibevoice.voices import Voices, speech
from sidecar.speakers import Turn

RATE = 24_000
NAGG_FIRST = [Turn(0.5, 3.9, 0), Turn(5.2, 9.9, 1)]
"""Who speaks when in the clip: before 14 s, and after."""


@pytest.fixture(scope="module")
def clip() -> Block:
    return checkpoints.clip_24k("endgame_nagg_nell")


def test_speech_is_found_and_silence_is_not() -> None:
    silence = np.zeros(2 * RATE, np.float32)
    beckett = checkpoints.clip_24k("beckett")[: 5 * RATE]
    stretches = speech(np.concatenate([silence, beckett, silence]), RATE)
    assert stretches
    assert stretches[0][0] > 1.0
    assert stretches[-1][1] < 8.5


def test_a_voice_is_known_again(clip: Block) -> None:
    half = 14 * RATE
    voices = Voices(RATE)
    voices.remember(clip[:half], NAGG_FIRST, {0: 0, 1: 1})
    swapped = [Turn(turn.start, turn.end, 1 - turn.label) for turn in NAGG_FIRST]
    alike = voices.likenesses(clip[:half], swapped)
    assert alike[0, 1] > 0.8
    assert alike[1, 0] > 0.8


def test_a_voice_of_which_there_is_too_little_is_not_compared(clip: Block) -> None:
    voices = Voices(RATE)
    voices.remember(clip, [Turn(0.5, 1.5, 0)], {0: 0})
    assert voices.likenesses(clip, NAGG_FIRST) == {}


def test_where_the_library_does_not_load_there_is_no_sign_and_no_error(
    clip: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    voices = Voices(RATE)
    voices.remember(clip, NAGG_FIRST, {0: 0, 1: 1})
    assert set(voices.likenesses(clip, NAGG_FIRST).values()) == {0.0}
    assert speech(clip, RATE) == []
