"""Registry of TTS engines."""

from sidecar.interfaces.engine_interface import TtsEngine, TtsSpec
from sidecar.tts import espeak_tts, moonshine_tts, openai_tts, scripted_tts, system_tts

_ENGINES: tuple[tuple[TtsSpec, type[TtsEngine]], ...] = (
    (moonshine_tts.SPEC, moonshine_tts.MoonshineTts),
    (system_tts.SPEC, system_tts.SystemTts),
    (espeak_tts.SPEC, espeak_tts.EspeakTts),
    (openai_tts.SPEC, openai_tts.OpenAiTts),
    (scripted_tts.SPEC, scripted_tts.ScriptedTts),
)
"""All TTS engines; imported literally, because a packager cannot see names built from strings."""


def create_tts_engine(name: str) -> TtsEngine:
    """Return a new engine, not yet loaded."""
    return next(engine for spec, engine in _ENGINES if spec.name == name)()


def tts_spec(name: str) -> TtsSpec:
    """Return the spec of the engine ``name``."""
    return next(spec for spec, _ in _ENGINES if spec.name == name)
