"""Installed checkpoints: search, checks and layouts of VibeVoice, Voxtral, Whisper.

This module reads `config.json`, the headers of the weights and Whisper's vocabulary. It imports
nothing heavy, because the process that answers requests uses it.
"""

import json
import os
import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from sidecar import errors
from sidecar.checkpoints import checkpoint
from sidecar.checkpoints.checkpoint_variants import cached_repository, read_vibevoice
from sidecar.checkpoints.model_repositories import (
    DEFAULT_WHISPER_MODEL,
    STREAMING_REPOSITORIES,
    VIBEVOICE_REPOSITORY,
    VOXTRAL_NAMES,
    VOXTRAL_REPOSITORY,
    WHISPER_ALIASES,
    WHISPER_MODELS,
    WHISPER_PREFIX,
    streaming_repository,
    vibevoice_repository,
    whisper_model_named,
    whisper_pull_command,
)

WEIGHTS_FILE = "model.bin"
"""Weights in CTranslate2's own format (names, shapes, numbers), which is no pickle."""
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
WHISPER_FILES = frozenset(
    {"config.json", "preprocessor_config.json", WEIGHTS_FILE, "tokenizer.json", *VOCABULARIES}
)
ENGLISH_VOCABULARY_SIZE = 51_864
"""Vocabulary size of an English-only model; multilingual models have more."""
WHISPER_BEST_FIRST = (
    *("large-v3-turbo", "large-v3", "large-v2", "large-v1", "medium", "small", "base", "tiny"),
    *("distil-large-v3.5", "distil-large-v3", "distil-large-v2", "distil-medium.en"),
    *("medium.en", "small.en", "distil-small.en", "base.en", "tiny.en"),
)
"""Order of preference of the models in a cache: multilingual models before the others."""
MISTRAL_FILES = frozenset({"consolidated.safetensors", "params.json"})
"""Files of the same model in Mistral's own layout, which the repository may also have."""
FETCHED_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt"})
"""Suffixes of the files of a checkpoint of transformers that are downloaded: no pickles."""
TEKKEN_FILE = "tekken.json"


def find_checkpoint(model_path: Path | None) -> checkpoint.ModelCheckpoint:
    """Return the checkpoint in ``model_path`` (of the checkpoint, an adapter or a cache, or the
    name of a repository in the cache), or in the cache.

    The canonical repository has priority, and in it the revision ``main``. An incomplete one is
    skipped.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
    """
    if model_path is not None and not os.path.isdir(model_path):
        model_path = cached_repository(model_path.as_posix()) or model_path
    return checkpoint.find_model(
        model_path,
        _cached_vibevoice,
        read_vibevoice,
        "checkpoint of VibeVoice-ASR",
        marks=("config.json", checkpoint.ADAPTER_FILE),
    )


def _cached_vibevoice(root: Path) -> list[Path]:
    canonical = checkpoint.cache_folder(VIBEVOICE_REPOSITORY, root)
    cached = [folder for folder in root.glob("models--*") if is_vibevoice_cache(folder.name)]
    return sorted(cached, key=lambda each: (each != canonical, each.name))


def is_vibevoice_cache(name: str) -> bool:
    """Return whether the ``name`` of a cache folder is that of a VibeVoice-ASR."""
    return "vibevoice" in name.lower() and "asr" in name.lower()


@dataclass(frozen=True, slots=True)
class LiveModel:
    """Model for live audio in a layout of transformers.

    ``pulled``: its name for `pull`. ``repositories``: in order of preference. ``files``: those
    that it needs beside its weights. ``is_one``: whether a `config.json` is of it.
    """

    title: str
    pulled: str
    repositories: tuple[str, ...]
    files: tuple[str, ...]
    is_one: Callable[[Path, dict[str, Any]], bool]

    @property
    def command(self) -> str:
        """Return the command that downloads it."""
        return f"vibevoice-asr pull {self.pulled}"

    def find(self, model_path: Path | None) -> checkpoint.ModelCheckpoint:
        """Return the checkpoint in ``model_path`` (of the checkpoint or a cache), or in the cache.

        Raises:
            errors.BadCheckpoint: there is none, or the error of the first.
        """
        return checkpoint.find_model(
            model_path,
            lambda root: [checkpoint.cache_folder(name, root) for name in self.repositories],
            self.read,
            self.title,
            f"Get it: {self.command}.",
        )

    def read(self, folder: Path) -> checkpoint.ModelCheckpoint:
        """Check a folder without loading it, and return its checkpoint.

        Raises:
            errors.BadCheckpoint: there is none, it is incomplete, or of another model.
        """
        cached = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        command = f"vibevoice-asr pull {cached}" if cached in self.repositories else self.command
        with checkpoint.disk_errors_as_ours(), checkpoint.repaired_by(command):
            config = self.check_config(folder)
            weights = checkpoint.weight_files(folder)
            for name in self.files:
                checkpoint.require_files(folder, [name])
            return checkpoint.ModelCheckpoint.of(folder, config, weights)

    def check_config(self, folder: Path) -> dict[str, Any]:
        """Return `config.json`, which must be of this model."""
        config = checkpoint.read_config(folder, f"Get {self.title}: {self.command}.")
        checkpoint.refuse_code(folder, config)
        if not self.is_one(folder, config):
            raise errors.CheckpointUnsupported(
                f"{folder} is not {self.title}: its model_type is "
                f"{str(config.get('model_type'))[:60]!r}.",
                hint=f"Get it: {self.command}.",
            )
        return config


VOXTRAL = LiveModel(
    "Voxtral Realtime",
    "voxtral",
    (VOXTRAL_REPOSITORY,),
    (TEKKEN_FILE,),
    lambda _, config: config.get("model_type") == "voxtral_realtime",
)
STREAMING = LiveModel(
    checkpoint.STREAMING_NAME,
    "vibevoice-streaming",
    tuple(STREAMING_REPOSITORIES.values()),
    ("preprocessor_config.json", "tokenizer_config.json"),
    lambda folder, config: checkpoint.relative_of(folder, config) == checkpoint.STREAMING_NAME,
)


def whisper_model_name(folder: Path) -> str:
    """Return the name of the model in a folder.

    It is the well-known one for a downloaded model, such as ``whisper-small``; else the folder's.
    """
    cache = folder.parent.parent if folder.parent.name == "snapshots" else folder
    for name, one in WHISPER_MODELS.items():
        if cache.name == checkpoint.cache_folder(one.repository, cache.parent).name:
            return f"whisper-{name}"
    return cache.name


def find_whisper(model_path: Path | None, name: str = "") -> checkpoint.ModelCheckpoint:
    """Return the model in ``model_path`` (of the checkpoint or a cache), or in the cache.

    ``name``: the model to choose in a cache. Default: the best.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
        errors.RepositoryNotFound: no model has the name ``name``.
    """
    models = [whisper_model_named(one) for one in ([name] if name else WHISPER_BEST_FIRST)]
    pulled = WHISPER_ALIASES.get(name, name) or DEFAULT_WHISPER_MODEL
    return checkpoint.find_model(
        model_path,
        lambda root: [checkpoint.cache_folder(one.repository, root) for one in models],
        read_whisper,
        f"Whisper model{f' {name!r}' if name else ''}",
        f"Get one: {whisper_pull_command(pulled)}.",
        (WEIGHTS_FILE, "config.json"),
    )


def find_multilingual_whisper(model_path: Path | None, name: str) -> checkpoint.ModelCheckpoint:
    """Return a model as `find_whisper` that supports other languages than English.

    Raises:
        errors.BadCheckpoint, errors.RepositoryNotFound: as `find_whisper`, or it does not.
    """
    found = find_whisper(model_path, name)
    if not found.config["multilingual"]:
        raise errors.CheckpointUnsupported(
            f"{found.folder} has a Whisper model for English only.",
            hint=f"Get another one: {whisper_pull_command()}.",
        )
    return found


def read_whisper(folder: Path) -> checkpoint.ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint.

    ``config`` has CTranslate2's `config.json`, ``multilingual``: whether the model supports
    languages other than English, and ``translates``: a decoder that was made smaller than the
    encoder, as that of large-v3-turbo, has not learned it.

    Raises:
        errors.BadCheckpoint: there is none, it is incomplete, or of another model.
    """
    with checkpoint.disk_errors_as_ours(), checkpoint.repaired_by(whisper_pull_command()):
        config = check_whisper_config(folder)
        vocabularies = [folder / name for name in VOCABULARIES]
        vocabulary = next(filter(Path.is_file, vocabularies), vocabularies[0])
        for name in (WEIGHTS_FILE, vocabulary.name, "tokenizer.json"):
            checkpoint.require_files(folder, [name])
        layers = read_whisper_layers(folder / WEIGHTS_FILE)
        distilled = "distil" in folder.parent.parent.name  # English only, whatever its vocabulary
        multilingual = _vocabulary_size(vocabulary) > ENGLISH_VOCABULARY_SIZE and not distilled
        translates = multilingual and layers["decoder"] >= layers["encoder"]
        config = {**config, "multilingual": multilingual, "translates": translates}
        return checkpoint.ModelCheckpoint.of(folder, config, (folder / WEIGHTS_FILE,))


def check_whisper_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`, which must be that of a Whisper model in CTranslate2's layout."""
    config = checkpoint.read_config(folder, f"Get a Whisper model: {whisper_pull_command()}.")
    if "architectures" in config or "model_type" in config:
        raise errors.CheckpointUnsupported(
            f"{folder} has a model of transformers ({str(config.get('model_type'))[:40]!r}), not "
            "one of CTranslate2.",
            hint=f"Get a Whisper model: {whisper_pull_command()}.",
        )
    return config


def read_whisper_layers(path: Path) -> Counter[str]:
    """Return the number of layers of encoder and decoder. The file must be a Whisper model of
    CTranslate2 and have the length of its tensors.

    The format: a version, the model's name, a revision, then each tensor: name, shape, type, bytes
    (little-endian); aliases follow.
    """
    size, layers = path.stat().st_size, set[str]()
    with path.open("rb") as file:
        try:
            (version,) = _read(file, "<I")
            name = _read_text(file)
            if not 2 <= version <= 100 or name != "WhisperSpec":
                raise errors.CheckpointUnsupported(
                    f"{path} is not a Whisper model of CTranslate2.",
                    hint=f"Get one: {whisper_pull_command()}.",
                )
            _, count = _read(file, "<II")
            for _ in range(count):
                layers.add("/".join(_read_text(file).split("/")[:2]))
                (rank,) = _read(file, "<B")
                file.seek(4 * rank + 1, os.SEEK_CUR)
                (length,) = _read(file, "<I")
                file.seek(length, os.SEEK_CUR)
                if file.tell() > size:
                    raise checkpoint.damaged_error(path, "is truncated")
        except (struct.error, UnicodeDecodeError):
            raise checkpoint.damaged_error(path, "is truncated or damaged") from None
    return Counter(name.partition("/")[0] for name in layers if "/layer_" in name)


def _read(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _read_text(file: BinaryIO) -> str:
    (length,) = _read(file, "<H")
    return file.read(length)[:-1].decode()


def _vocabulary_size(path: Path) -> int:
    """Return the number of entries in a vocabulary."""
    if path.suffix == ".txt":
        return path.read_bytes().count(b"\n")
    try:
        return len(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        raise checkpoint.damaged_error(path, "is not a vocabulary") from None


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """Layout of a checkpoint: its files, checks and search.

    ``fetched``: whether a file is downloaded. ``is_large``: whether it has weights, which are
    downloaded last. ``check_config``: raises if the weights cannot be used. ``engine``: the
    one that loads it.
    """

    engine: str
    weights: str
    fetched: Callable[[str], bool]
    is_large: Callable[[str], bool]
    check_config: Callable[[Path], dict[str, Any]]
    read: Callable[[Path], checkpoint.ModelCheckpoint]
    find: Callable[[Path], checkpoint.ModelCheckpoint]

    def is_chosen_by_name(self, name: str) -> bool:
        """Return whether a file is loaded because it is there, in place of others."""
        return self.is_large(name) or name in (checkpoint.WEIGHTS_INDEX_FILE, *VOCABULARIES)


def read_tokenizer(folder: Path) -> checkpoint.ModelCheckpoint:
    """Return a folder of which only the tokenizer is needed, as a checkpoint."""
    return checkpoint.ModelCheckpoint.of(folder, {}, (folder / "tokenizer.json",))


TRANSFORMERS_LAYOUT = CheckpointLayout(
    "vibevoice",
    "*.safetensors",
    lambda name: Path(name).suffix in FETCHED_SUFFIXES,
    lambda name: name.endswith(".safetensors"),
    checkpoint.check_vibevoice_config,
    read_vibevoice,
    find_checkpoint,
)
TOKENIZER_LAYOUT = CheckpointLayout(
    "vibevoice",
    "tokenizer.json",
    lambda name: name in ("tokenizer.json", "tokenizer_config.json"),
    lambda name: name == "tokenizer.json",
    lambda folder: {},
    read_tokenizer,
    read_tokenizer,
)
"""Of a repository of which only the tokenizer is needed."""
CTRANSLATE2_LAYOUT = CheckpointLayout(
    "whisper",
    WEIGHTS_FILE,
    lambda name: name in WHISPER_FILES,
    lambda name: name == WEIGHTS_FILE,
    check_whisper_config,
    read_whisper,
    find_whisper,
)
VOXTRAL_LAYOUT = CheckpointLayout(
    "voxtral",
    "model*.safetensors",
    lambda name: TRANSFORMERS_LAYOUT.fetched(name) and name not in MISTRAL_FILES,
    TRANSFORMERS_LAYOUT.is_large,
    VOXTRAL.check_config,
    VOXTRAL.read,
    VOXTRAL.find,
)
STREAMING_LAYOUT = replace(
    TRANSFORMERS_LAYOUT,
    engine="vibevoice-streaming",
    check_config=STREAMING.check_config,
    read=STREAMING.read,
    find=STREAMING.find,
)


def resolve_repository(name: str) -> tuple[str, CheckpointLayout]:
    """Return the repository for ``name``, and its layout.

    Raises:
        errors.RepositoryNotFound: ``name`` is not a valid name.
    """
    if name.startswith(WHISPER_PREFIX):
        return whisper_model_named(name.removeprefix(WHISPER_PREFIX)).repository, CTRANSLATE2_LAYOUT
    if name.strip().lower() in VOXTRAL_NAMES:
        return VOXTRAL_REPOSITORY, VOXTRAL_LAYOUT
    if (streaming := streaming_repository(name)) is not None:
        return streaming, STREAMING_LAYOUT
    known = {one.repository for one in WHISPER_MODELS.values()}
    repository = vibevoice_repository(name)
    return repository, CTRANSLATE2_LAYOUT if repository in known else TRANSFORMERS_LAYOUT


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """Repository in the Hugging Face cache, in ``folder``, for an engine of this service.

    ``name``: its name for `pull`. ``engine``: the one that loads it. ``bytes``: size on disk.
    ``commit``: of the snapshot that can be loaded, '' if none is complete.
    """

    name: str
    repository: str
    folder: Path
    engine: str
    bytes: int
    commit: str


def installed_models(cache: Path | None = None) -> Iterator[InstalledModel]:
    """Yield the models in a Hugging Face cache that an engine of this service can load.

    They are sorted by folder name. A folder whose name is that of no repository is none of them.
    Downloads and deletions may run meanwhile.
    """
    whisper = WHISPER_MODELS.items()
    names = {one.repository: f"{WHISPER_PREFIX}{name}" for name, one in whisper}
    names |= {VIBEVOICE_REPOSITORY: "vibevoice", VOXTRAL_REPOSITORY: "voxtral"}
    names |= {repository: name for name, repository in STREAMING_REPOSITORIES.items()}
    for folder in sorted((cache or checkpoint.hugging_face_cache()).glob("models--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        if repository not in names and not is_vibevoice_cache(folder.name):
            continue
        name = names.get(repository, repository)
        try:
            _, layout = resolve_repository(name)
        except errors.RepositoryNotFound:  # such as a copy made by hand
            continue
        files = (os.path.join(root, file) for root, _, there in os.walk(folder) for file in there)
        size = sum(map(_file_bytes, files))
        commit = checkpoint.complete_commit(folder, layout.read) or ""
        yield InstalledModel(name, repository, folder, layout.engine, size, commit)


def _file_bytes(path: str) -> int:
    """Return the size of a file; 0 of a link, and of a file that is gone meanwhile."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
