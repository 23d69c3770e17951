"""Registry of ASR engines."""

from __future__ import annotations

from importlib.util import find_spec

from sidecar.engines import moonshine, scripted_engine, vibevoice, voxtral, whisper
from sidecar.interfaces.engine_interface import EngineSpec, ModelSpec, TranscriptionEngine
from sidecar.upstream import upstream_engine

ENGINES: tuple[EngineSpec, ...] = (
    vibevoice.SPEC,
    whisper.SPEC,
    voxtral.SPEC,
    moonshine.SPEC,
    upstream_engine.SPEC,
    scripted_engine.SPEC,
)
"""Literal imports: a packager cannot see names that are put together from strings."""


def create_engine(name: str) -> TranscriptionEngine:
    """A new engine, nothing loaded yet."""
    factories: dict[str, type[TranscriptionEngine]] = {
        vibevoice.SPEC.name: vibevoice.VibeVoiceEngine,
        whisper.SPEC.name: whisper.WhisperEngine,
        voxtral.SPEC.name: voxtral.VoxtralEngine,
        moonshine.SPEC.name: moonshine.MoonshineEngine,
        upstream_engine.SPEC.name: upstream_engine.UpstreamEngine,
        scripted_engine.SPEC.name: scripted_engine.ScriptedEngine,
    }
    return factories[name]()


def engine_spec(name: str) -> EngineSpec:
    """The spec of the engine called ``name``."""
    return next(spec for spec in ENGINES if spec.name == name)


def missing_packages(spec: ModelSpec) -> list[str]:
    """The packages that an engine needs and this installation lacks."""
    return [package for package in spec.requires if find_spec(package) is None]
