"""Speech made by espeak-ng, of the extra `espeak`."""

import numpy as np
import pytest
import soxr

from sidecar.audio import Block
from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions

RATE = 16_000
GERMAN = (
    "Guten Morgen, meine Damen und Herren. Wir sprechen heute über das Wetter in Norddeutschland. "
    "Gestern hat es den ganzen Tag geregnet, und morgen soll wieder die Sonne scheinen."
)


def spoken(text: str, voice: str) -> Block:
    """A text at 16 kHz."""
    pytest.importorskip("espeakng_loader", reason="the extra 'espeak'")
    from sidecar.plugins.conversation.tts.espeak_tts import EspeakTts

    speaker = EspeakTts()
    for _ in speaker.load(LoadOptions()):
        pass
    said = list(speaker.say(text, SynthesisOptions(voice=voice), bool))
    samples = np.frombuffer(b"".join(one.pcm for one in said), np.int16) / np.float32(32768)
    return np.asarray(soxr.resample(samples, said[0].rate, RATE), np.float32)
