"""The engines there are. A new one is a file here and a line in `ENGINES`."""

from __future__ import annotations

from importlib.util import find_spec

from sidecar import errors
from sidecar.engine import Engine, EngineSpec
from sidecar.engines import moonshine, scripted

ENGINES: tuple[EngineSpec, ...] = (moonshine.SPEC, scripted.SPEC)
"""Literal imports: a packager cannot see names that are put together from strings."""


def create_engine(name: str) -> Engine:
    """A new engine, nothing loaded yet."""
    factories: dict[str, type[Engine]] = {
        moonshine.SPEC.name: moonshine.MoonshineEngine,
        scripted.SPEC.name: scripted.ScriptedEngine,
    }
    return factories[name]()


def spec_of(name: str) -> EngineSpec:
    """The spec of the engine called ``name``."""
    return next(spec for spec in ENGINES if spec.name == name)


def missing(spec: EngineSpec) -> list[str]:
    """The packages that an engine needs and this installation lacks."""
    return [package for package in spec.requires if find_spec(package) is None]


def choose(name: str) -> EngineSpec:
    """The engine that serves when ``name`` is asked for; 'auto' takes the first that can run.

    Raises:
        errors.EngineUnavailable: it, or all of them, cannot run here.
    """
    candidates = ENGINES if name == "auto" else (spec_of(name),)
    for spec in candidates:
        if not missing(spec):
            return spec
    lacking = ", ".join(missing(candidates[0]))
    raise errors.EngineUnavailable(
        f"The engine '{candidates[0].name}' needs packages that are not installed: {lacking}.",
        hint="pip install vibevoice-asr",
    )
