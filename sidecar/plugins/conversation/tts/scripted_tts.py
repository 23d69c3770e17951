"""Scripted TTS engine for tests: a tone for each word.

A tone's duration and pitch grow with the number of letters, so that a recording shows which words
were played. ``VIBEVOICE_SCRIPTED_SAY`` is the synthesis time of a word in seconds, and
``VIBEVOICE_SCRIPTED_LETTER`` the playback time of a letter (default: 0.05). The engine hangs at the
word ``VIBEVOICE_SCRIPTED_HANGS``.
"""

import array
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence

from sidecar import errors
from sidecar.interfaces import engine_interface

SPEC = engine_interface.TtsSpec(
    name="scripted",
    factory="sidecar.plugins.conversation.tts.scripted_tts:ScriptedTts",
    title="Tones for words, for tests",
    marks=True,
)

RATE = 16_000
VOICES = ("low", "high")
SECONDS_PER_LETTER = 0.05
"""Of the tone; the pause after each word is as long as a letter."""
AMPLITUDE = 8_000
ENDLESS_S = 3600.0
WORD = re.compile(r"\S+")


class ScriptedTts:
    """TTS engine that plays tones."""

    def __init__(self) -> None:
        self._word_s, self._letter_s = 0.0, SECONDS_PER_LETTER
        self._hangs = ""

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Read the environment variables."""
        self._word_s = float(os.environ.get("VIBEVOICE_SCRIPTED_SAY", "0"))
        self._letter_s = float(os.environ.get("VIBEVOICE_SCRIPTED_LETTER", SECONDS_PER_LETTER))
        self._hangs = os.environ.get("VIBEVOICE_SCRIPTED_HANGS", "")
        yield 1.0

    def voices(self) -> Sequence[str]:
        """Return a low voice and a high one."""
        return VOICES

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """Yield a tone for each word of ``text``."""
        if options.voice not in ("", *VOICES):
            raise errors.VoiceUnknown(hint=f"Use one of: {', '.join(VOICES)}.")
        octave = 2 if options.voice == VOICES[1] else 1
        at_s = 0.0
        for word in WORD.finditer(text):
            if cancelled():
                return
            time.sleep(ENDLESS_S if word.group() == self._hangs else self._word_s)
            letters = len(word.group())
            seconds = self._letter_s * letters / options.speed
            sound = _tone(octave * (200 + 20 * letters), seconds, self._letter_s)
            yield engine_interface.SynthesizedAudio(
                sound, RATE, (engine_interface.WordMark(word.start(), at_s),)
            )
            at_s += len(sound) / 2 / RATE


def _tone(pitch: int, seconds: float, pause_s: float) -> bytes:
    """Return a tone of ``pitch`` Hz and the pause after it, as 16-bit samples."""
    sounding, silent = round(seconds * RATE), round(pause_s * RATE)
    turn, period = 2 * math.pi * pitch / RATE, min(sounding, RATE // math.gcd(pitch, RATE))
    waves = array.array("h", (round(AMPLITUDE * math.sin(turn * at)) for at in range(period)))
    samples = (waves * (sounding // max(1, period) + 1))[:sounding]
    samples.extend([0] * silent)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()
