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
NAGG, NELL = 0, 1
BEFORE = [Turn(4.9, 8.0, NAGG), Turn(8.8, 11.3, NELL)]
AFTER = [Turn(12.0, 14.0, 7), Turn(14.7, 16.9, 8), Turn(23.8, 27.4, 7)]
"""Who speaks when in the clip; later Nagg is 7, and Nell 8."""


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


def test_a_voice_is_known_again_and_another_is_not(clip: Block) -> None:
    voices = Voices(RATE)
    voices.remember(clip, BEFORE, {NAGG: NAGG, NELL: NELL})
    alike = voices.likenesses(clip, AFTER)
    assert alike[NAGG, 7] > 0.9
    assert alike[NELL, 8] > 0.9
    assert alike[NAGG, 8] < 0.5
    assert alike[NELL, 7] < 0.5


def test_a_voice_of_which_there_is_too_little_is_not_compared(clip: Block) -> None:
    voices = Voices(RATE)
    voices.remember(clip, [Turn(0.5, 1.5, 0)], {0: 0})
    assert voices.likenesses(clip, AFTER) == {}


def test_where_the_library_does_not_load_there_is_no_sign_and_no_error(
    clip: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    voices = Voices(RATE)
    voices.remember(clip, BEFORE, {0: 0, 1: 1})
    assert set(voices.likenesses(clip, AFTER).values()) == {0.0}
    assert speech(clip, RATE) == []
