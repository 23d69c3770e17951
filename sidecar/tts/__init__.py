"""Registry of TTS engines."""

from __future__ import annotations

from sidecar.interfaces.engine_interface import VoiceEngine, VoiceSpec
from sidecar.tts import (
    espeak_tts,
    moonshine_tts,
    openai_tts,
    scripted_tts,
    system_tts,
    vibevoice_tts,
)

VOICES: tuple[VoiceSpec, ...] = (
    vibevoice_tts.SPEC,
    moonshine_tts.SPEC,
    system_tts.SPEC,
    espeak_tts.SPEC,
    openai_tts.SPEC,
    scripted_tts.SPEC,
)
"""Literal imports: a packager cannot see names that are put together from strings."""


def create_voice(name: str) -> VoiceEngine:
    """A new engine, nothing loaded yet."""
    factories: dict[str, type[VoiceEngine]] = {
        vibevoice_tts.SPEC.name: vibevoice_tts.VibeVoiceVoice,
        moonshine_tts.SPEC.name: moonshine_tts.MoonshineVoice,
        system_tts.SPEC.name: system_tts.SystemVoice,
        espeak_tts.SPEC.name: espeak_tts.EspeakVoice,
        openai_tts.SPEC.name: openai_tts.EndpointVoice,
        scripted_tts.SPEC.name: scripted_tts.ScriptedVoice,
    }
    return factories[name]()


def spec_of(name: str) -> VoiceSpec:
    """The spec of the engine called ``name``."""
    return next(spec for spec in VOICES if spec.name == name)
