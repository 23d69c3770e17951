"""Registry of ASR engines: those of the core, and those of the plugins that are on."""

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from sidecar.config.settings import Settings
from sidecar.engines import (
    moonshine,
    moonshine_whisper,
    scripted_engine,
    vibevoice,
    vibevoice_streaming,
    voxtral,
    whisper,
)
from sidecar.interfaces.engine_interface import EngineSpec, ModelSpec

ENGINES: tuple[EngineSpec, ...] = (
    vibevoice.SPEC,
    vibevoice_streaming.SPEC,
    whisper.SPEC,
    voxtral.SPEC,
    moonshine.SPEC,
    moonshine_whisper.SPEC,
    scripted_engine.SPEC,
)
"""Literal imports: a packager does not see names that are built from strings."""


def create_engine(factory: str) -> Any:
    """Create an ASR or TTS engine by the factory of its spec; nothing is loaded yet."""
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
