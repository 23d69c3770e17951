"""Registry of TTS engines."""

from sidecar.interfaces.engine_interface import TtsSpec
from sidecar.plugins.conversation.tts import (
    espeak_tts,
    moonshine_tts,
    openai_tts,
    scripted_tts,
    system_tts,
)

SPECS = (
    moonshine_tts.SPEC,
    system_tts.SPEC,
    espeak_tts.SPEC,
    openai_tts.SPEC,
    scripted_tts.SPEC,
)


def tts_spec(name: str) -> TtsSpec:
    """Return the spec of the engine ``name``."""
    return next(spec for spec in SPECS if spec.name == name)
