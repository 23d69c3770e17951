"""Whisper checkpoints in CTranslate2's layout.

This module reads the header of the weights and the vocabulary. It imports nothing heavy, because
the process that answers requests uses it.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sidecar import errors
from sidecar.checkpoints import checkpoint, hugging_face_cache

WHISPER_PREFIX = "whisper:"
"""Prefix of a model's name, as in `vibevoice-asr pull whisper:small`."""
WEIGHTS_FILE = "model.bin"
"""Weights in CTranslate2's own format (names, shapes, numbers), which is no pickle."""
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
WHISPER_FILES = frozenset(
    {"config.json", "preprocessor_config.json", WEIGHTS_FILE, "tokenizer.json", *VOCABULARIES}
)
ENGLISH_VOCABULARY_SIZE = 51_864
"""Vocabulary size of an English-only model; multilingual models have more."""
DEFAULT_MODEL = "small"
"""Default model: of those that run on a laptop, the one with the most languages."""


@dataclass(frozen=True, slots=True)
class WhisperModelName:
    """Whisper model with a well-known name.

    ``gb``: size of the download in GB, in fp16 (fp32: tiny.en, base.en).
    """

    repository: str
    gb: float


WHISPER_MODELS = {
    "tiny": WhisperModelName("Systran/faster-whisper-tiny", 0.08),
    "tiny.en": WhisperModelName("Systran/faster-whisper-tiny.en", 0.08),
    "base": WhisperModelName("Systran/faster-whisper-base", 0.15),
    "base.en": WhisperModelName("Systran/faster-whisper-base.en", 0.15),
    "small": WhisperModelName("Systran/faster-whisper-small", 0.48),
    "small.en": WhisperModelName("Systran/faster-whisper-small.en", 0.48),
    "medium": WhisperModelName("Systran/faster-whisper-medium", 1.53),
    "medium.en": WhisperModelName("Systran/faster-whisper-medium.en", 1.53),
    "large-v1": WhisperModelName("Systran/faster-whisper-large-v1", 3.09),
    "large-v2": WhisperModelName("Systran/faster-whisper-large-v2", 3.09),
    "large-v3": WhisperModelName("Systran/faster-whisper-large-v3", 3.09),
    "large-v3-turbo": WhisperModelName("mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1.62),
    "distil-small.en": WhisperModelName("Systran/faster-distil-whisper-small.en", 0.33),
    "distil-medium.en": WhisperModelName("Systran/faster-distil-whisper-medium.en", 0.79),
    "distil-large-v2": WhisperModelName("Systran/faster-distil-whisper-large-v2", 1.51),
    "distil-large-v3": WhisperModelName("Systran/faster-distil-whisper-large-v3", 1.51),
    "distil-large-v3.5": WhisperModelName("distil-whisper/distil-large-v3.5-ct2", 1.51),
}
"""Models by their names in faster-whisper. Sizes: two bytes a parameter of the published counts."""
WHISPER_ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}
BEST_FIRST = (
    *("large-v3-turbo", "large-v3", "large-v2", "large-v1", "medium", "small", "base", "tiny"),
    *("distil-large-v3.5", "distil-large-v3", "distil-large-v2", "distil-medium.en"),
    *("medium.en", "small.en", "distil-small.en", "base.en", "tiny.en"),
)
"""Order of preference of the models in a cache: multilingual models before the others."""


def whisper_model_named(name: str) -> WhisperModelName:
    """Return the model for ``name``, which has no prefix.

    Raises:
        errors.RepositoryNotFound: there is no such model.
    """
    word = name.strip().lower()
    word = WHISPER_ALIASES.get(word, word)
    if word not in WHISPER_MODELS:
        raise errors.RepositoryNotFound(
            f"'{name}' is not the name of a Whisper model.",
            hint=f"Use one of: {', '.join(WHISPER_MODELS)}.",
        )
    return WHISPER_MODELS[word]


def pull_command(name: str = DEFAULT_MODEL) -> str:
    """Return the command that downloads a model, with its size."""
    return f"vibevoice-asr pull {WHISPER_PREFIX}{name} ({WHISPER_MODELS[name].gb:g} GB)"


def whisper_model_name(folder: Path) -> str:
    """Return the name of the model in a folder.

    It is the well-known one for a downloaded model, such as ``whisper-small``; else the folder's.
    """
    cache = folder.parent.parent if folder.parent.name == "snapshots" else folder
    for name, one in WHISPER_MODELS.items():
        if cache.name == hugging_face_cache.cache_folder(one.repository, cache.parent).name:
            return f"whisper-{name}"
    return cache.name


def find_whisper(model_path: Path | None, name: str = "") -> checkpoint.ModelCheckpoint:
    """Return the model in ``model_path`` (of the checkpoint or a cache), or in the cache.

    ``name``: the model to choose in a cache. Default: the best.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
        errors.RepositoryNotFound: no model has the name ``name``.
    """
    path = hugging_face_cache.searched_folder_text(model_path)
    if model_path is not None and not path.is_dir():
        raise errors.CheckpointNotFound(f"{path} is not a folder.")
    best_first = [WHISPER_MODELS[one].repository for one in BEST_FIRST]
    return hugging_face_cache.find_model(
        model_path,
        [whisper_model_named(name).repository] if name else best_first,
        read_whisper,
        f"Whisper model{f' {name!r}' if name else ''}",
        f"Get one: {pull_command(WHISPER_ALIASES.get(name, name) or DEFAULT_MODEL)}.",
        (WEIGHTS_FILE, "config.json"),
    )


def read_whisper(folder: Path) -> checkpoint.ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint.

    ``config`` has CTranslate2's `config.json`, and ``multilingual``: whether the model supports
    languages other than English.

    Raises:
        errors.BadCheckpoint: there is none, it is incomplete, or of another model.
    """
    with checkpoint.disk_errors_as_ours(), checkpoint.repaired_by(pull_command()):
        config = check_whisper_config(folder)
        vocabulary = _vocabulary(folder) or folder / VOCABULARIES[0]
        for name in (WEIGHTS_FILE, vocabulary.name, "tokenizer.json"):
            checkpoint.require_files(folder, [] if (folder / name).is_file() else [name], 1)
        check_ctranslate2_weights(folder / WEIGHTS_FILE)
        distilled = "distil" in folder.parent.parent.name  # English only, whatever its vocabulary
        config = {
            **config,
            "multilingual": _vocabulary_size(folder) > ENGLISH_VOCABULARY_SIZE and not distilled,
        }
        return checkpoint.ModelCheckpoint.of(folder, config, (folder / WEIGHTS_FILE,))


def check_whisper_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`, which must be that of a Whisper model in CTranslate2's layout."""
    config = checkpoint.read_config(folder, f"Get a Whisper model: {pull_command()}.")
    if "architectures" in config or "model_type" in config:
        raise errors.CheckpointUnsupported(
            f"{folder} has a model of transformers ({str(config.get('model_type'))[:40]!r}), not "
            "one of CTranslate2.",
            hint=f"Get a Whisper model: {pull_command()}.",
        )
    return config


def check_ctranslate2_weights(path: Path) -> None:
    """Check that a file is a Whisper model of CTranslate2 and has the length of its tensors.

    The format: a version, the model's name, a revision, then each tensor: name, shape, type, bytes
    (little-endian); aliases follow.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            (version,) = _read(file, "<I")
            name = _read_text(file)
            if not 2 <= version <= 100 or name != "WhisperSpec":
                raise errors.CheckpointUnsupported(
                    f"{path} is not a Whisper model of CTranslate2.",
                    hint=f"Get one: {pull_command()}.",
                )
            _, count = _read(file, "<II")
            for _ in range(count):
                _read_text(file)
                (rank,) = _read(file, "<B")
                file.seek(4 * rank + 1, os.SEEK_CUR)
                (length,) = _read(file, "<I")
                file.seek(length, os.SEEK_CUR)
                if file.tell() > size:
                    break
        except (struct.error, UnicodeDecodeError):
            raise checkpoint.damaged_error(path, "is truncated or damaged") from None
        if file.tell() > size:
            raise checkpoint.damaged_error(path, "is truncated")


def _read(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _read_text(file: BinaryIO) -> str:
    (length,) = _read(file, "<H")
    return file.read(length)[:-1].decode()


def _vocabulary(folder: Path) -> Path | None:
    return next((folder / name for name in VOCABULARIES if (folder / name).is_file()), None)


def _vocabulary_size(folder: Path) -> int:
    """Return the number of entries in the vocabulary."""
    path = _vocabulary(folder)
    assert path is not None
    if path.suffix == ".txt":
        return path.read_bytes().count(b"\n")
    try:
        return len(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        raise checkpoint.damaged_error(path, "is not a vocabulary") from None
