"""Catalogue of models: what there is for `pull`, what each can do and needs, what is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar import engines
from sidecar.checkpoints.installed_checkpoints import installed_models, resolve_repository
from sidecar.checkpoints.model_repositories import (
    STREAMING_REPOSITORIES,
    VIBEVOICE_REPOSITORY_GB,
    WHISPER_MODELS,
    WHISPER_PREFIX,
)
from sidecar.engines.engine_selection import (
    MOONSHINE,
    MOONSHINE_WHISPER,
    VIBEVOICE,
    VOXTRAL,
    WHISPER,
    EngineChoice,
)
from sidecar.gpu_memory.memory_footprint import VIBEVOICE_7B_SHAPE, ModelFootprint
from sidecar.gpu_memory.streaming_memory import STREAMING_SHAPES
from sidecar.interfaces.engine_interface import EngineSpec, MemoryPlan, Precision
from sidecar.workers.role_engine import EngineRole

GB = 1e9
_DOWNLOADS_GB = {
    VIBEVOICE: VIBEVOICE_REPOSITORY_GB,
    "vibevoice-streaming": 17.3,
    "vibevoice-streaming-1.5b": 11.2,
    VOXTRAL: 8.9,  # by its parameters, two bytes each
}


_USES = {EngineRole.FILES: "recordings", EngineRole.LIVE: "live"}


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """Model by its name for `pull`.

    ``languages`` is empty if it supports any. ``recordings``, ``live``: what its engine transcribes
    with it. ``download_bytes``: size of its download, `None` if that is not known.
    ``memory_bytes``: its weights in the smallest precision of its engine, without what a recording
    takes; `None` if that is not known. ``lacking``: packages that its engine needs and that are
    missing here. ``bytes``: its size on the disk, also of a part; ``commit``: of the version that
    is installed, '' if none is complete. ``used_for``: what this service transcribes with it:
    'recordings', 'live'.
    """

    name: str
    engine: str
    languages: tuple[str, ...] = ()
    recordings: bool = True
    live: bool = False
    speakers: bool = True
    download_bytes: int | None = None
    memory_bytes: int | None = None
    lacking: tuple[str, ...] = ()
    installed: bool = False
    bytes: int = 0
    commit: str = ""
    used_for: tuple[str, ...] = ()


def list_models(in_use: Mapping[str, EngineChoice[EngineSpec]]) -> Iterator[CatalogueModel]:
    """Yield the embedded model, those with a name for `pull`, and others in the Hugging Face
    cache. Reads the disk. ``in_use``: what the engines of the service work with, by role."""
    embedded = replace(_model(MOONSHINE, MOONSHINE), used_for=_uses(in_use, MOONSHINE))
    yield _installed(embedded, 0, "") if not embedded.lacking else embedded
    here = {one.name: one for one in installed_models()}
    whispers = (f"{WHISPER_PREFIX}{name}" for name in WHISPER_MODELS)
    known = [VIBEVOICE, *STREAMING_REPOSITORIES, VOXTRAL, *whispers]
    for name in [*known, *(name for name in here if name not in known)]:
        model = _model(name, resolve_repository(name)[1].engine)
        found = here.get(name)
        if found is not None:
            uses = _uses(in_use, model.engine, found.folder)
            model = replace(_installed(model, found.bytes, found.commit), used_for=uses)
        yield model


def _uses(
    in_use: Mapping[str, EngineChoice[EngineSpec]], engine: str, folder: Path | None = None
) -> tuple[str, ...]:
    """Return what is transcribed with the model in a folder of the cache, or with the embedded
    one."""
    return tuple(
        use
        for role, use in _USES.items()
        if role in in_use and _works_with(in_use[role], engine, folder)
    )


def _works_with(choice: EngineChoice[EngineSpec], engine: str, folder: Path | None) -> bool:
    name = choice.spec.name
    if engine not in ((MOONSHINE, WHISPER) if name == MOONSHINE_WHISPER else (name,)):
        return False
    if folder is None:
        return True
    loaded = choice.checkpoint
    return loaded is not None and loaded.folder.resolve().is_relative_to(folder.resolve())


def _model(name: str, engine: str) -> CatalogueModel:
    spec = engines.engine_spec(engine)
    languages, whisper = spec.languages, name.removeprefix(WHISPER_PREFIX)
    if engine == WHISPER and (whisper.endswith(".en") or whisper.startswith("distil")):
        languages = ("en",)
    download = WHISPER_MODELS[whisper].gb if whisper in WHISPER_MODELS else _DOWNLOADS_GB.get(name)
    return CatalogueModel(
        name,
        engine,
        languages,
        recordings=engine != VOXTRAL,
        live=spec.sessions > 0,
        speakers=spec.diarizes,
        download_bytes=None if download is None else round(download * GB),
        memory_bytes=_memory_bytes(name, engine, download),
        lacking=tuple(engines.missing_packages(spec)),
    )


def _memory_bytes(name: str, engine: str, download_gb: float | None) -> int | None:
    shape = VIBEVOICE_7B_SHAPE if name == VIBEVOICE else STREAMING_SHAPES.get(name)
    if shape is not None:
        return ModelFootprint(shape, Precision.INT4).weights_bytes(MemoryPlan())
    if download_gb is None:
        return None
    return round(download_gb * GB / (2 if engine == WHISPER else 1))  # int8 of two bytes; bf16


def _installed(model: CatalogueModel, size: int, commit: str) -> CatalogueModel:
    whole = bool(commit) or model.engine == MOONSHINE
    return replace(model, installed=whole, bytes=size, commit=commit)
