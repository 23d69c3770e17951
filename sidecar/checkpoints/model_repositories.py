"""Model repositories: names for `pull`, files to download, models in the Hugging Face cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.checkpoints import (
    checkpoint,
    hugging_face_cache,
    installed_checkpoints,
)

VIBEVOICE_REPOSITORY_GB = 16.7
"""Size of the weights of VibeVoice-ASR: 8.33 billion parameters of two bytes."""
_VIBEVOICE_NAMES = frozenset({"vibevoice", "vibevoice-asr", "vibevoice-asr-7b", "vibevoice-asr-hf"})


def vibevoice_repository(name: str) -> str:
    """Return the repository for ``name``; OWNER/NAME of another repository is returned as it is.

    Raises:
        errors.RepositoryNotFound: ``name`` is not a valid name.
    """
    word = name.strip()
    owner, _, model = word.rpartition("/")
    if owner.lower() in ("", "microsoft") and model.lower() in _VIBEVOICE_NAMES:
        return installed_checkpoints.VIBEVOICE_REPOSITORY
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", word, re.ASCII):
        raise errors.RepositoryNotFound(f"'{name}' is not the name of a model.")
    return word


VIBEVOICE_TTS_NAMES = frozenset(
    {"vibevoice-1.5b", "vibevoice-1.5b-hf", "vibevoice/vibevoice-1.5b-hf"}
)
VOXTRAL_NAMES = frozenset(
    {"voxtral", "voxtral-realtime", "mistralai/voxtral-mini-4b-realtime-2602"}
)
MISTRAL_FILES = frozenset({"consolidated.safetensors", "params.json"})
"""Files of the same model in Mistral's own layout, which the repository may also have."""
FETCHED_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt"})
"""Suffixes of the files of a checkpoint of transformers; no others are downloaded, and no
pickles."""


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """Layout of a checkpoint: its files, checks and search.

    ``fetched``: whether a file is downloaded. ``is_large``: whether it has weights, which are
    downloaded last. ``check_config``: raises if the weights cannot be used. ``engine``: the ASR
    engine that loads it, '' for a TTS model.
    """

    engine: str
    weights: str
    fetched: Callable[[str], bool]
    is_large: Callable[[str], bool]
    check_config: Callable[[Path], dict[str, Any]]
    read: Callable[[Path], checkpoint.ModelCheckpoint]
    find: Callable[[Path], checkpoint.ModelCheckpoint]


TRANSFORMERS_LAYOUT = CheckpointLayout(
    "vibevoice",
    "*.safetensors",
    lambda name: Path(name).suffix in FETCHED_SUFFIXES,
    lambda name: name.endswith(".safetensors"),
    checkpoint.check_vibevoice_config,
    checkpoint.read_checkpoint,
    installed_checkpoints.find_checkpoint,
)
CTRANSLATE2_LAYOUT = CheckpointLayout(
    "whisper",
    installed_checkpoints.WEIGHTS_FILE,
    lambda name: name in installed_checkpoints.WHISPER_FILES,
    lambda name: name == installed_checkpoints.WEIGHTS_FILE,
    installed_checkpoints.check_whisper_config,
    installed_checkpoints.read_whisper,
    installed_checkpoints.find_whisper,
)
VOXTRAL_LAYOUT = CheckpointLayout(
    "voxtral",
    "model*.safetensors",
    lambda name: TRANSFORMERS_LAYOUT.fetched(name) and name not in MISTRAL_FILES,
    TRANSFORMERS_LAYOUT.is_large,
    installed_checkpoints.check_voxtral_config,
    installed_checkpoints.read_voxtral,
    installed_checkpoints.find_voxtral,
)
VIBEVOICE_TTS_LAYOUT = CheckpointLayout(
    "",
    TRANSFORMERS_LAYOUT.weights,
    TRANSFORMERS_LAYOUT.fetched,
    TRANSFORMERS_LAYOUT.is_large,
    installed_checkpoints.check_vibevoice_tts_config,
    installed_checkpoints.read_vibevoice_tts,
    installed_checkpoints.find_vibevoice_tts,
)


def resolve_repository(name: str) -> tuple[str, CheckpointLayout]:
    """Return the repository for ``name``, and its layout.

    Raises:
        errors.RepositoryNotFound: ``name`` is not a valid name.
    """
    if name.startswith(installed_checkpoints.WHISPER_PREFIX):
        return installed_checkpoints.whisper_model_named(
            name.removeprefix(installed_checkpoints.WHISPER_PREFIX)
        ).repository, CTRANSLATE2_LAYOUT
    if name.strip().lower() in VOXTRAL_NAMES:
        return installed_checkpoints.VOXTRAL_REPOSITORY, VOXTRAL_LAYOUT
    if name.strip().lower() in VIBEVOICE_TTS_NAMES:
        return installed_checkpoints.VIBEVOICE_TTS_REPOSITORY, VIBEVOICE_TTS_LAYOUT
    known = {one.repository for one in installed_checkpoints.WHISPER_MODELS.values()}
    repository = vibevoice_repository(name)
    return repository, CTRANSLATE2_LAYOUT if repository in known else TRANSFORMERS_LAYOUT


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """Repository in the Hugging Face cache, in ``folder``, for an engine of this service.

    ``name``: its name for `pull`. ``engine``: the ASR engine that loads it, '' for a TTS model.
    ``bytes``: size on disk. ``commit``: of the snapshot that can be loaded, '' if none is complete.
    """

    name: str
    repository: str
    folder: Path
    engine: str
    bytes: int
    commit: str


def installed_models(cache: Path | None = None) -> Iterator[InstalledModel]:
    """Yield the models in a Hugging Face cache that an engine of this service can load.

    They are sorted by folder name.
    """
    whisper = installed_checkpoints.WHISPER_MODELS.items()
    names = {
        one.repository: f"{installed_checkpoints.WHISPER_PREFIX}{name}" for name, one in whisper
    }
    names |= {
        installed_checkpoints.VIBEVOICE_REPOSITORY: "vibevoice",
        installed_checkpoints.VIBEVOICE_TTS_REPOSITORY: "vibevoice-1.5b",
        installed_checkpoints.VOXTRAL_REPOSITORY: "voxtral",
    }
    for folder in sorted((cache or hugging_face_cache.hugging_face_cache()).glob("models--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        if repository not in names and not installed_checkpoints.is_vibevoice_cache(folder.name):
            continue
        name = names.get(repository, repository)
        _, layout = resolve_repository(name)
        content = [path for path in folder.rglob("*") if not path.is_symlink() and path.is_file()]
        yield InstalledModel(
            name,
            repository,
            folder,
            layout.engine,
            sum(path.stat().st_size for path in content),
            hugging_face_cache.complete_commit(folder, layout.read) or "",
        )
