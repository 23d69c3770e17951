"""Installed checkpoints and TTS voices: VibeVoice, VibeVoice TTS, Voxtral, Whisper, voices.

The manifest of voices is a file in their folder. So the folder can be copied to a machine without a
network, and damage is detected later.

This module reads `config.json`, the headers of the weights and Whisper's vocabulary. It imports
nothing heavy, because the process that answers requests uses it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from sidecar import errors
from sidecar import files as sidecar_files
from sidecar.checkpoints import checkpoint, hugging_face_cache

VIBEVOICE_REPOSITORY = "microsoft/VibeVoice-ASR-HF"
"""VibeVoice-ASR in the layout of transformers."""


def find_checkpoint(model_path: Path | None) -> checkpoint.ModelCheckpoint:
    """Return the checkpoint in ``model_path`` (of the checkpoint or a cache), or in the cache.

    The canonical repository has priority, and in it the revision ``main``. An incomplete one is
    skipped.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
    """
    return hugging_face_cache.find_model(
        model_path,
        _cached_vibevoice,
        checkpoint.read_checkpoint,
        "checkpoint of VibeVoice-ASR",
        marks=("config.json", checkpoint.ADAPTER_FILE),
    )


def _cached_vibevoice(root: Path) -> list[Path]:
    canonical = hugging_face_cache.cache_folder(VIBEVOICE_REPOSITORY, root)
    cached = [folder for folder in root.glob("models--*") if is_vibevoice_cache(folder.name)]
    return sorted(cached, key=lambda each: (each != canonical, each.name))


def is_vibevoice_cache(name: str) -> bool:
    """Return whether the ``name`` of a cache folder is that of a VibeVoice-ASR."""
    return "vibevoice" in name.lower() and "asr" in name.lower()


VIBEVOICE_TTS_REPOSITORY = "vibevoice/VibeVoice-1.5B-hf"
"""VibeVoice TTS, as the configuration class of transformers names it."""
VIBEVOICE_TTS_COMMAND = "vibevoice-asr pull vibevoice-1.5b"
VIBEVOICE_TTS_MODEL_TYPE = "vibevoice"
"""`model_type` in `config.json` of both layouts, which differ in the names of the parts."""
_MODEL_PARTS = frozenset({"audio_config", "text_config", "semantic_model_config"})
_ORIGINAL_MODEL_PARTS = frozenset({"acoustic_tokenizer_config", "decoder_config"})


VOICES_FOLDER = "voices"
"""Folder beside the weights of a TTS model, with recordings of its voices."""


def voice_samples(folder: Path) -> list[Path]:
    """Return the recordings of voices beside a checkpoint, sorted by name."""
    return sorted((folder / VOICES_FOLDER).glob("*.wav"))


def find_vibevoice_tts(voice_path: Path | None) -> checkpoint.ModelCheckpoint:
    """Return the checkpoint in ``voice_path`` (of the checkpoint or a cache), or in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
    """
    return hugging_face_cache.find_model(
        voice_path,
        lambda root: [hugging_face_cache.cache_folder(VIBEVOICE_TTS_REPOSITORY, root)],
        read_vibevoice_tts,
        "VibeVoice that speaks",
        f"Get it: {VIBEVOICE_TTS_COMMAND}, or set VIBEVOICE_VOICE_PATH to its folder.",
    )


def read_vibevoice_tts(folder: Path) -> checkpoint.ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint.

    Raises:
        errors.BadCheckpoint: there is none, it is incomplete, or of another model.
    """
    with checkpoint.repaired_by(VIBEVOICE_TTS_COMMAND):
        return checkpoint.read_checkpoint(folder, check_vibevoice_tts_config)


def check_vibevoice_tts_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`, which must be that of VibeVoice TTS in the layout of transformers."""
    config = checkpoint.read_config(folder, f"Get VibeVoice: {VIBEVOICE_TTS_COMMAND}")
    checkpoint.refuse_code(folder, config)
    kind = config.get("model_type")
    if kind == VIBEVOICE_TTS_MODEL_TYPE and config.keys() >= _MODEL_PARTS:
        _check_parts(folder, config)
        return config
    if kind == checkpoint.ORIGINAL_MODEL_TYPE and config.keys() & _ORIGINAL_MODEL_PARTS:
        raise errors.CheckpointNotConverted(
            f"{folder} has the original layout of VibeVoice, not the one of transformers.",
            hint=f"Get the converted one: {VIBEVOICE_TTS_COMMAND}",
        )
    raise errors.CheckpointUnsupported(
        f"{folder} is not a checkpoint of VibeVoice TTS: its model_type is {str(kind)[:60]!r}.",
        hint=f"Get a checkpoint: {VIBEVOICE_TTS_COMMAND}",
    )


def _check_parts(folder: Path, config: dict[str, Any]) -> None:
    whole = all(isinstance(config[part], dict) for part in _MODEL_PARTS)
    if not whole or "hidden_size" not in config["text_config"]:
        raise checkpoint.damaged_error(
            folder / "config.json", "does not have the dimensions of the model"
        )


VOXTRAL_REPOSITORY = "mistralai/Voxtral-Mini-4B-Realtime-2602"
VOXTRAL_COMMAND = "vibevoice-asr pull voxtral"
VOXTRAL_MODEL_TYPE = "voxtral_realtime"
TEKKEN_FILE = "tekken.json"


def find_voxtral(model_path: Path | None) -> checkpoint.ModelCheckpoint:
    """Return the checkpoint in ``model_path`` (of the checkpoint or a cache), or in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
    """
    return hugging_face_cache.find_model(
        model_path,
        lambda root: [hugging_face_cache.cache_folder(VOXTRAL_REPOSITORY, root)],
        read_voxtral,
        "Voxtral Realtime",
        f"Get it: {VOXTRAL_COMMAND}.",
    )


def read_voxtral(folder: Path) -> checkpoint.ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint.

    Raises:
        errors.BadCheckpoint: there is none, it is incomplete, or of another model.
    """
    with checkpoint.disk_errors_as_ours(), checkpoint.repaired_by(VOXTRAL_COMMAND):
        config = check_voxtral_config(folder)
        files = checkpoint.weight_files(folder)
        checkpoint.require_files(folder, [TEKKEN_FILE])
        return checkpoint.ModelCheckpoint.of(folder, config, files)


def check_voxtral_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`, which must be that of Voxtral Realtime in transformers' layout."""
    config = checkpoint.read_config(folder, f"Get Voxtral Realtime: {VOXTRAL_COMMAND}.")
    checkpoint.refuse_code(folder, config)
    if config.get("model_type") != VOXTRAL_MODEL_TYPE:
        raise errors.CheckpointUnsupported(
            f"{folder} is not Voxtral Realtime: its model_type is "
            f"{str(config.get('model_type'))[:60]!r}.",
            hint=f"Get it: {VOXTRAL_COMMAND}.",
        )
    return config


MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class PulledFile:
    """Downloaded file of a voice.

    ``sha256``: of the received bytes. ``checked``: what was compared with the server: 'sha256',
    'md5', or 'size' if the server has no checksum.
    """

    size: int
    sha256: str
    checked: str


@dataclass(frozen=True, slots=True)
class PulledVoice:
    """TTS voice for a language, and its files: paths in the folder, with '/'."""

    name: str
    language: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PulledVoices:
    """Downloaded voices in ``folder``, by its manifest."""

    folder: Path
    files: Mapping[str, PulledFile] = field(default_factory=dict)
    voices: tuple[PulledVoice, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> PulledVoices:
        """Return the voices of a folder; none if the manifest is missing or invalid."""
        try:
            with (folder / MANIFEST_FILE).open("rb") as file:
                values: Any = json.loads(file.read(MAX_MANIFEST_BYTES))
            files = {str(key): PulledFile(**one) for key, one in values["files"].items()}
            voices = tuple(
                PulledVoice(one["name"], one["language"], tuple(map(str, one["files"])))
                for one in values["voices"]
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls(folder)
        return cls(folder, files, voices)

    def write(self) -> None:
        """Write the manifest atomically.

        Raises:
            errors.SettingsInvalid: it cannot be written.
        """
        values = {
            "files": {key: asdict(file) for key, file in sorted(self.files.items())},
            "voices": [asdict(voice) for voice in self.voices],
        }
        text = json.dumps(values, indent=1, ensure_ascii=False)
        sidecar_files.write(self.folder / MANIFEST_FILE, text.encode(), sidecar_files.PUBLIC)

    def with_file(self, key: str, file: PulledFile) -> PulledVoices:
        """Return the voices with a file added."""
        return replace(self, files={**self.files, key: file})

    def with_voice(self, voice: PulledVoice) -> PulledVoices:
        """Return the voices with a voice added at the end, or moved there."""
        others = (one for one in self.voices if not _is_same_voice(one, voice))
        return replace(self, voices=(*others, voice))

    def lacking(self, voice: PulledVoice) -> list[str]:
        """Return the files of a voice that are missing or have another size."""
        return [key for key in voice.files if not self._is_here(key)]

    def whole(self) -> tuple[PulledVoice, ...]:
        """Return the voices with no missing files; the contents are not checked."""
        return tuple(voice for voice in self.voices if not self.lacking(voice))

    def largest_bytes(self, count: int) -> int:
        """Return the total size of the files of the ``count`` largest voices; shared files count
        once."""

        def size(keys: Iterable[str]) -> int:
            return sum(self.files[key].size for key in keys)

        voices = sorted((set(voice.files) for voice in self.whole()), key=size, reverse=True)
        return size(set[str]().union(*voices[:count]))

    def sound(self, key: str) -> bool:
        """Return whether a file exists and has its checksum; this reads the file."""
        if not self._is_here(key):
            return False
        with self.path(key).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == self.files[key].sha256

    def path(self, key: str) -> Path:
        """Return the path of a file."""
        return self.folder.joinpath(*key.split("/"))

    def _is_here(self, key: str) -> bool:
        known, path = self.files.get(key), self.path(key)
        return known is not None and path.is_file() and path.stat().st_size == known.size


def _is_same_voice(one: PulledVoice, other: PulledVoice) -> bool:
    return (one.name, one.language) == (other.name, other.language)


def voice_for_language(voices: Sequence[PulledVoice], language: str) -> PulledVoice | None:
    """Return the first of ``voices`` for a language tag, else the first of its language."""
    wanted = language.lower().replace("_", "-")
    general = wanted.split("-")[0]
    exact = (voice for voice in voices if voice.language == wanted)
    near = (voice for voice in voices if voice.language.split("-")[0] == general)
    return next(exact, None) or next(near, None)


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
    models = [whisper_model_named(name)] if name else [WHISPER_MODELS[one] for one in BEST_FIRST]
    return hugging_face_cache.find_model(
        model_path,
        lambda root: [hugging_face_cache.cache_folder(one.repository, root) for one in models],
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
            checkpoint.require_files(folder, [name])
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
