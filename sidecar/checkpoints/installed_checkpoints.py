"""Checkpoints and TTS voices on this machine by name and kind: VibeVoice, VibeVoice TTS, Voxtral.

The list is a file beside them, so that a folder can be copied to a machine without a network, and
damage is noticed later.

Looks at `config.json` and the headers of the weights, and imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar import files as sidecar_files
from sidecar.checkpoints import checkpoint, whisper_checkpoints

VIBEVOICE_REPOSITORY = "microsoft/VibeVoice-ASR-HF"
"""VibeVoice-ASR in the layout of transformers."""
VIBEVOICE_REPOSITORY_GB = 16.7
"""Size of its weights: 8.33 billion parameters of two bytes."""

_VIBEVOICE_NAMES = frozenset({"vibevoice", "vibevoice-asr", "vibevoice-asr-7b", "vibevoice-asr-hf"})


def vibevoice_repository(name: str) -> str:
    """The repository that people mean by ``name``; OWNER/NAME of another one stays as it is.

    Raises:
        errors.RepositoryNotFound: it is no name.
    """
    word = name.strip()
    owner, _, model = word.rpartition("/")
    if owner.lower() in ("", "microsoft") and model.lower() in _VIBEVOICE_NAMES:
        return VIBEVOICE_REPOSITORY
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", word, re.ASCII):
        raise errors.RepositoryNotFound(f"'{name}' is not the name of a model.")
    return word


def find_checkpoint(model_path: Path | None) -> checkpoint.ModelCheckpoint:
    """The checkpoint in ``model_path`` (its folder, or a cache that has it), or in the cache.

    Of several, the canonical repository's comes first, and of that the revision ``main``; one that
    is not whole gives way to the next.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    path = checkpoint.searched_folder_text(model_path)
    try:
        if model_path is not None and not path.is_dir():
            raise errors.CheckpointNotFound(f"{path} is not a folder.")
        folders = list(_candidates(path))
    except OSError as error:
        raise checkpoint.no_access(error) from None
    found = checkpoint.first_complete_checkpoint(folders)
    if found is None and model_path is not None:
        return checkpoint.read_checkpoint(path)  # says what it lacks
    if found is None:
        raise errors.CheckpointNotFound()
    return found


def _candidates(path: Path) -> Iterator[Path]:
    """The folders that may be checkpoints, in a folder, a repository's cache or a whole cache."""
    if (path / "config.json").is_file():
        yield path
    elif (path / "snapshots").is_dir():
        yield from checkpoint.cached_snapshots(path)
    elif path.name == "snapshots":
        yield from checkpoint.cached_snapshots(path.parent)
    else:
        canonical = checkpoint.cache_folder(VIBEVOICE_REPOSITORY, path).name
        for root in (path, path / "hub"):
            cached = [
                folder for folder in root.glob("models--*") if _is_vibevoice_cache(folder.name)
            ]
            for folder in sorted(cached, key=lambda each: (each.name != canonical, each.name)):
                yield from checkpoint.cached_snapshots(folder)


def _is_vibevoice_cache(name: str) -> bool:
    return "vibevoice" in name.lower() and "asr" in name.lower()


VIBEVOICE_TTS_REPOSITORY = "vibevoice/VibeVoice-1.5B-hf"
"""As the configuration of transformers names it."""
VIBEVOICE_TTS_NAMES = frozenset(
    {"vibevoice-1.5b", "vibevoice-1.5b-hf", "vibevoice/vibevoice-1.5b-hf"}
)
VIBEVOICE_TTS_COMMAND = "vibevoice-asr pull vibevoice-1.5b"
VIBEVOICE_TTS_MODEL_TYPE = "vibevoice"
"""`model_type` in `config.json` in both layouts; they differ in the names of the parts."""
_MODEL_PARTS = frozenset({"audio_config", "text_config", "semantic_model_config"})
_ORIGINAL_MODEL_PARTS = frozenset({"acoustic_tokenizer_config", "decoder_config"})


VOICES_FOLDER = "voices"
"""Beside the weights of a TTS model: recordings of the voices that it speaks with."""


def voice_samples(folder: Path) -> list[Path]:
    """Return the recordings of voices beside a checkpoint, sorted by name."""
    return sorted((folder / VOICES_FOLDER).glob("*.wav"))


def find_vibevoice_tts(voice_path: Path | None) -> checkpoint.ModelCheckpoint:
    """The one in ``voice_path`` (its folder, or a cache that has it), or in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    return checkpoint.find_model(
        voice_path,
        [VIBEVOICE_TTS_REPOSITORY],
        read_vibevoice_tts,
        "VibeVoice that speaks",
        f"Get it: {VIBEVOICE_TTS_COMMAND}, or set VIBEVOICE_VOICE_PATH to its folder.",
    )


def read_vibevoice_tts(folder: Path) -> checkpoint.ModelCheckpoint:
    """Look at everything that can be seen without loading it.

    Raises:
        errors.BadCheckpoint: there is none, it is not whole, or of another kind.
    """
    try:
        return checkpoint.read_checkpoint(folder, check_vibevoice_tts_config)
    except (errors.CheckpointIncomplete, errors.CheckpointDamaged, errors.CheckpointUnsafe) as bad:
        raise type(bad)(
            bad.detail, hint=f"Copy the folder anew, or get the whole: {VIBEVOICE_TTS_COMMAND}"
        ) from None


def check_vibevoice_tts_config(folder: Path) -> dict[str, Any]:
    """`config.json`, which must be that of VibeVoice as transformers has it."""
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
VOXTRAL_NAMES = frozenset(
    {"voxtral", "voxtral-realtime", "mistralai/voxtral-mini-4b-realtime-2602"}
)
VOXTRAL_COMMAND = "vibevoice-asr pull voxtral"
VOXTRAL_MODEL_TYPE = "voxtral_realtime"
TEKKEN_FILE = "tekken.json"
VOXTRAL_FILES = frozenset(
    {
        *("config.json", "generation_config.json", "processor_config.json"),
        *(
            "preprocessor_config.json",
            TEKKEN_FILE,
            checkpoint.WEIGHTS_FILE,
            checkpoint.WEIGHTS_INDEX_FILE,
        ),
    }
)


def is_voxtral_fetched(name: str) -> bool:
    """Return whether a file of the repository is needed: it may have the weights in Mistral's own
    layout besides."""
    return name in VOXTRAL_FILES or (name.startswith("model-") and name.endswith(".safetensors"))


def find_voxtral(model_path: Path | None) -> checkpoint.ModelCheckpoint:
    """The one in ``model_path`` (its folder, or a cache that has it), or in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    remedy = f"Get it: {VOXTRAL_COMMAND}."
    return checkpoint.find_model(
        model_path, [VOXTRAL_REPOSITORY], read_voxtral, "Voxtral Realtime", remedy
    )


def read_voxtral(folder: Path) -> checkpoint.ModelCheckpoint:
    """Look at everything that can be seen without loading it.

    Raises:
        errors.BadCheckpoint: there is none, it is not whole, or of another kind.
    """
    with checkpoint.disk_errors_as_ours():
        config = check_voxtral_config(folder)
        files = checkpoint.weight_files(folder)
        checkpoint.require_files(
            folder, [] if (folder / TEKKEN_FILE).is_file() else [TEKKEN_FILE], 1
        )
        return checkpoint.ModelCheckpoint.of(folder, config, files)


def check_voxtral_config(folder: Path) -> dict[str, Any]:
    """`config.json`, which must be that of Voxtral Realtime as transformers has it."""
    config = checkpoint.read_config(folder, f"Get Voxtral Realtime: {VOXTRAL_COMMAND}.")
    checkpoint.refuse_code(folder, config)
    if config.get("model_type") != VOXTRAL_MODEL_TYPE:
        raise errors.CheckpointUnsupported(
            f"{folder} is not Voxtral Realtime: its model_type is "
            f"{str(config.get('model_type'))[:60]!r}.",
            hint=f"Get it: {VOXTRAL_COMMAND}.",
        )
    return config


FETCHED_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".txt"})
"""Suffixes of the files of a checkpoint of transformers; nothing else is downloaded, pickles
least of all."""


@dataclass(frozen=True, slots=True)
class CheckpointLayout:
    """``fetched``: whether a file of the repository is; ``is_large``: whether it is of the weights,
    which come last; ``check_config``: raises where they are not worth it."""

    weights: str
    fetched: Callable[[str], bool]
    is_large: Callable[[str], bool]
    check_config: Callable[[Path], dict[str, Any]]
    read: Callable[[Path], checkpoint.ModelCheckpoint]
    find: Callable[[Path], checkpoint.ModelCheckpoint]


TRANSFORMERS_LAYOUT = CheckpointLayout(
    "*.safetensors",
    lambda name: Path(name).suffix in FETCHED_SUFFIXES,
    lambda name: name.endswith(".safetensors"),
    checkpoint.check_vibevoice_config,
    checkpoint.read_checkpoint,
    find_checkpoint,
)
CTRANSLATE2_LAYOUT = CheckpointLayout(
    whisper_checkpoints.WEIGHTS_FILE,
    lambda name: name in whisper_checkpoints.WHISPER_FILES,
    lambda name: name == whisper_checkpoints.WEIGHTS_FILE,
    whisper_checkpoints.check_whisper_config,
    whisper_checkpoints.read_whisper,
    whisper_checkpoints.find_whisper,
)
VOXTRAL_LAYOUT = CheckpointLayout(
    "model*.safetensors",
    is_voxtral_fetched,
    lambda name: name.endswith(".safetensors"),
    check_voxtral_config,
    read_voxtral,
    find_voxtral,
)
VIBEVOICE_TTS_LAYOUT = CheckpointLayout(
    TRANSFORMERS_LAYOUT.weights,
    TRANSFORMERS_LAYOUT.fetched,
    TRANSFORMERS_LAYOUT.is_large,
    check_vibevoice_tts_config,
    read_vibevoice_tts,
    find_vibevoice_tts,
)


def resolve_repository(name: str) -> tuple[str, CheckpointLayout]:
    """The repository that people mean by ``name``, and what is in it.

    Raises:
        errors.RepositoryNotFound: it is no name.
    """
    if name.startswith(whisper_checkpoints.WHISPER_PREFIX):
        return whisper_checkpoints.whisper_model_named(
            name.removeprefix(whisper_checkpoints.WHISPER_PREFIX)
        ).repository, CTRANSLATE2_LAYOUT
    if name.strip().lower() in VOXTRAL_NAMES:
        return VOXTRAL_REPOSITORY, VOXTRAL_LAYOUT
    if name.strip().lower() in VIBEVOICE_TTS_NAMES:
        return VIBEVOICE_TTS_REPOSITORY, VIBEVOICE_TTS_LAYOUT
    known = {one.repository for one in whisper_checkpoints.WHISPER_MODELS.values()}
    repository = vibevoice_repository(name)
    return repository, CTRANSLATE2_LAYOUT if repository in known else TRANSFORMERS_LAYOUT


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A repository in the Hugging Face cache, ``folder``, that is for an engine of ours.

    ``name``: what `pull` calls it. ``engine``: which engine takes it, '' for one that speaks.
    ``bytes``: on the disk. ``commit``: of what can be loaded, '' where nothing is whole.
    """

    name: str
    repository: str
    folder: Path
    engine: str
    bytes: int
    commit: str


_ENGINES = {
    CTRANSLATE2_LAYOUT: "whisper",
    VOXTRAL_LAYOUT: "voxtral",
    VIBEVOICE_TTS_LAYOUT: "",
    TRANSFORMERS_LAYOUT: "vibevoice",
}


def installed_models(cache: Path | None = None) -> Iterator[InstalledModel]:
    """Yield the models in a Hugging Face cache that engines of ours take, by their names."""
    whisper = whisper_checkpoints.WHISPER_MODELS.items()
    names = {one.repository: f"{whisper_checkpoints.WHISPER_PREFIX}{name}" for name, one in whisper}
    names |= {
        VIBEVOICE_REPOSITORY: "vibevoice",
        VIBEVOICE_TTS_REPOSITORY: "vibevoice-1.5b",
        VOXTRAL_REPOSITORY: "voxtral",
    }
    for folder in sorted((cache or checkpoint.hugging_face_cache()).glob("models--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        if repository not in names and not _is_vibevoice_cache(folder.name):
            continue
        name = names.get(repository, repository)
        _, layout = resolve_repository(name)
        content = [path for path in folder.rglob("*") if not path.is_symlink() and path.is_file()]
        yield InstalledModel(
            name,
            repository,
            folder,
            _ENGINES[layout],
            sum(path.stat().st_size for path in content),
            _complete_commit(folder, layout),
        )


def _complete_commit(folder: Path, layout: CheckpointLayout) -> str:
    snapshots = checkpoint.cached_snapshots(folder)
    try:
        found = checkpoint.first_complete_checkpoint(snapshots, layout.read)
    except errors.BadCheckpoint:
        return ""
    return found.folder.name if found is not None else ""


MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class PulledFile:
    """``sha256`` is of what came; ``checked`` is what its server said of it that was compared:
    'sha256', 'md5', or 'size' where it said no more."""

    size: int
    sha256: str
    checked: str


@dataclass(frozen=True, slots=True)
class PulledVoice:
    """A voice that speaks a language, and the files it takes: paths in the folder, with '/'."""

    name: str
    language: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PulledVoices:
    """Pulled voices in ``folder``, by its list."""

    folder: Path
    files: Mapping[str, PulledFile] = field(default_factory=dict)
    voices: tuple[PulledVoice, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> PulledVoices:
        """The list of a folder; nothing where there is none, or none that can be understood."""
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
        """Put the list in its place, whole.

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
        """The same, and a file."""
        return replace(self, files={**self.files, key: file})

    def with_voice(self, voice: PulledVoice) -> PulledVoices:
        """The same, and a voice, behind those that are there."""
        others = (one for one in self.voices if not _is_same_voice(one, voice))
        return replace(self, voices=(*others, voice))

    def lacking(self, voice: PulledVoice) -> list[str]:
        """The files of a voice that are not here, or not as long as they were."""
        return [key for key in voice.files if not self._is_here(key)]

    def whole(self) -> tuple[PulledVoice, ...]:
        """The voices that lack nothing; contents are not looked at."""
        return tuple(voice for voice in self.voices if not self.lacking(voice))

    def largest_bytes(self, count: int) -> int:
        """The files of so many of the voices, those that have the most; what they share is there
        once."""

        def size(keys: Iterable[str]) -> int:
            return sum(self.files[key].size for key in keys)

        voices = sorted((set(voice.files) for voice in self.whole()), key=size, reverse=True)
        return size(set[str]().union(*voices[:count]))

    def sound(self, key: str) -> bool:
        """Return whether a file is here and has not changed since it came; reads it."""
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
    """The first of ``voices`` for a tag: of its own region, else of its language."""
    wanted = language.lower().replace("_", "-")
    general = wanted.split("-")[0]
    exact = (voice for voice in voices if voice.language == wanted)
    near = (voice for voice in voices if voice.language.split("-")[0] == general)
    return next(exact, None) or next(near, None)
