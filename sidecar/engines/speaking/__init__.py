"""The engines that speak. A new one is a file here and a line in `VOICES`."""

from __future__ import annotations

from sidecar.engines.speaking import endpoint, espeak, moonshine, scripted, system, vibevoice
from sidecar.speech.voice import VoiceEngine, VoiceSpec

VOICES: tuple[VoiceSpec, ...] = (
    vibevoice.SPEC,
    moonshine.SPEC,
    system.SPEC,
    espeak.SPEC,
    endpoint.SPEC,
    scripted.SPEC,
)
"""Literal imports: a packager cannot see names that are put together from strings."""


def create_voice(name: str) -> VoiceEngine:
    """A new engine, nothing loaded yet."""
    factories: dict[str, type[VoiceEngine]] = {
        vibevoice.SPEC.name: vibevoice.VibeVoiceVoice,
        moonshine.SPEC.name: moonshine.MoonshineVoice,
        system.SPEC.name: system.SystemVoice,
        espeak.SPEC.name: espeak.EspeakVoice,
        endpoint.SPEC.name: endpoint.EndpointVoice,
        scripted.SPEC.name: scripted.ScriptedVoice,
    }
    return factories[name]()


def spec_of(name: str) -> VoiceSpec:
    """The spec of the engine called ``name``."""
    return next(spec for spec in VOICES if spec.name == name)
