"""Registry of ASR engines: those of the core, and those of the plugins that are on."""

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from sidecar import errors
from sidecar.config.settings import Settings
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
    (scripted_engine.SPEC, scripted_engine.ScriptedEngine),
)
"""Literal imports: a packager does not see names that are built from strings."""
ENGINES = tuple(spec for spec, _ in _CLASSES)


def create_engine(name: str) -> TranscriptionEngine:
    """Create an engine by its name, or by the factory of its spec; nothing is loaded yet.

    Raises:
        errors.ModelLoadFailed: that of a plugin has no `sample_rate`.
    """
    own = next((engine for spec, engine in _CLASSES if spec.name == name), None)
    if own is not None:
        return own()
    engine: TranscriptionEngine = engine_of(name)
    if not hasattr(engine, "sample_rate"):
        raise errors.ModelLoadFailed(f"The engine '{name}' has no 'sample_rate'.")
    return engine


def engine_of(factory: str) -> Any:
    """Create the engine of a plugin by the factory of its spec, as `ModelSpec.factory`."""
    module, _, name = factory.partition(":")
    return getattr(importlib.import_module(module), name)()


def engine_spec(name: str) -> EngineSpec:
    """Return the spec of the core's engine called ``name``."""
    return next(spec for spec in ENGINES if spec.name == name)


def specs(settings: Settings) -> Iterator[EngineSpec]:
    """Yield the specs of the engines that the setting `engine` can name."""
    yield from ENGINES
    yield from (engine.spec for engine in settings.plugin_engines)


def spec_of(name: str, settings: Settings) -> EngineSpec:
    """Return the spec of the engine called ``name``."""
    return next(spec for spec in specs(settings) if spec.name == name)


def missing_packages(spec: ModelSpec) -> list[str]:
    """Return the packages that an engine needs and this installation lacks."""
    return [package for package in spec.requires if find_spec(package) is None]
