"""Registry of TTS engines."""

from __future__ import annotations

from sidecar.interfaces.engine_interface import TtsEngine, TtsSpec
from sidecar.tts import (
    espeak_tts,
    moonshine_tts,
    openai_tts,
    scripted_tts,
    system_tts,
    vibevoice_tts,
)

TTS_SPECS: tuple[TtsSpec, ...] = (
    vibevoice_tts.SPEC,
    moonshine_tts.SPEC,
    system_tts.SPEC,
    espeak_tts.SPEC,
    openai_tts.SPEC,
    scripted_tts.SPEC,
)
"""Literal imports: a packager cannot see names that are put together from strings."""


def create_tts_engine(name: str) -> TtsEngine:
    """A new engine, nothing loaded yet."""
    factories: dict[str, type[TtsEngine]] = {
        vibevoice_tts.SPEC.name: vibevoice_tts.VibeVoiceTts,
        moonshine_tts.SPEC.name: moonshine_tts.MoonshineTts,
        system_tts.SPEC.name: system_tts.SystemTts,
        espeak_tts.SPEC.name: espeak_tts.EspeakTts,
        openai_tts.SPEC.name: openai_tts.OpenAiTts,
        scripted_tts.SPEC.name: scripted_tts.ScriptedTts,
    }
    return factories[name]()


def tts_spec(name: str) -> TtsSpec:
    """The spec of the engine called ``name``."""
    return next(spec for spec in TTS_SPECS if spec.name == name)
