"""Registry of ASR engines."""

from importlib.util import find_spec

from sidecar import upstream
from sidecar.engines import (
    moonshine,
    scripted_engine,
    vibevoice,
    vibevoice_streaming,
    voxtral,
    whisper,
)
from sidecar.interfaces.engine_interface import EngineSpec, ModelSpec, TranscriptionEngine

_CLASSES: tuple[tuple[EngineSpec, type[TranscriptionEngine]], ...] = (
    (vibevoice.SPEC, vibevoice.VibeVoiceEngine),
    (vibevoice_streaming.SPEC, vibevoice_streaming.VibeVoiceStreamingEngine),
    (whisper.SPEC, whisper.WhisperEngine),
    (voxtral.SPEC, voxtral.VoxtralEngine),
    (moonshine.SPEC, moonshine.MoonshineEngine),
    (upstream.SPEC, upstream.UpstreamEngine),
    (scripted_engine.SPEC, scripted_engine.ScriptedEngine),
)
"""Literal imports: a packager does not see names that are built from strings."""
ENGINES = tuple(spec for spec, _ in _CLASSES)


def create_engine(name: str) -> TranscriptionEngine:
    """Create an engine; nothing is loaded yet."""
    return next(engine for spec, engine in _CLASSES if spec.name == name)()


def engine_spec(name: str) -> EngineSpec:
    """Return the spec of the engine called ``name``."""
    return next(spec for spec in ENGINES if spec.name == name)


def missing_packages(spec: ModelSpec) -> list[str]:
    """Return the packages that an engine needs and this installation lacks."""
    return [package for package in spec.requires if find_spec(package) is None]
