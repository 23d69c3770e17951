"""Checkpoint folder and its integrity check; checkpoints in the Hugging Face cache.

This module reads `config.json` and the headers of the safetensors files. It imports nothing heavy,
because the process that answers requests uses it.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sidecar import errors, files
from sidecar.checkpoints.original_layout import transformers_config

MODEL_TYPE = "vibevoice_asr"
"""`model_type` in `config.json` in the layout of transformers (`VibeVoiceAsrConfig`)."""
ORIGINAL_MODEL_TYPE = "vibevoice"
"""`model_type` in the original layout, which the TTS model shares."""
TOKENIZER_REPOSITORIES = ("Qwen/Qwen2.5-7B", "microsoft/VibeVoice-ASR-HF")
"""Repositories with the tokenizer of VibeVoice-ASR; `pull` gets it from the first."""
TOKENIZER_FOLDER = "tokenizer"
"""Folder in a checkpoint where `pull --to` puts it."""
STREAMING_NAME = "VibeVoice-ASR-Streaming"
ADAPTER_FILE = "adapter_config.json"
"""File that peft writes in place of `config.json`."""
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PULL_NOTE_FILE = "pulled.json"
"""Note in a folder that `pull --to` filled: repository, revision and commit."""
UPDATE_MARK_FILE = "pull-unfinished"
"""Mark in such a folder while its files are replaced by those of another commit."""
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_PROCESSOR_FILES = (("processor_config.json",), ("preprocessor_config.json",))
_CHAT_TEMPLATE_FILES = (("chat_template.jinja",), ("chat_template.json",))
_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MAX_NOTE_BYTES = 4096
_MAX_JSON_BYTES = 25_000_000
"""Maximum size of JSON; huggingface_hub has the same limit for safetensors headers."""

MAIN_REVISION = "main"
"""Default revision: a branch."""
CachedRepositories = Callable[[Path], Iterable[Path]]
"""Function that returns the folders of a model's repositories in a Hugging Face cache."""


@dataclass(frozen=True, slots=True)
class ModelCheckpoint:
    """Checkpoint in a folder that passed the checks which need no load.

    ``bytes``: total size of ``weight_files``. ``revision``: the commit, if the folder belongs to a
    Hugging Face cache or `pull` wrote a note; else `None`.
    """

    folder: Path
    config: dict[str, Any]
    weight_files: tuple[Path, ...]
    bytes: int
    revision: str | None

    @classmethod
    def of(cls, folder: Path, config: dict[str, Any], weights: tuple[Path, ...]) -> Self:
        """Return the checkpoint of a folder after the check of its files.

        Raises:
            errors.CheckpointIncomplete: they are of two commits.
        """
        if (folder / UPDATE_MARK_FILE).exists():
            raise errors.CheckpointIncomplete(
                f"{folder} has files of two commits, as a download was interrupted.",
                hint="Repeat that download: vibevoice-asr pull NAME --to FOLDER.",
            )
        size = sum(file.stat().st_size for file in weights)
        cached = folder.parent.name == "snapshots"
        revision = folder.name if cached else pulled_commit(folder)
        return cls(folder, config, weights, size, revision)


def is_revision(text: str) -> bool:
    """Return whether a text may name a commit, branch or tag: a path below `refs`."""
    return re.fullmatch(r"\w[\w.+/-]*", text, re.ASCII) is not None and ".." not in text


def checkpoint_name(folder: Path) -> str:
    """Return a checkpoint's name without a path of the machine: the folder's, or
    ``owner/repository@commit`` in a Hugging Face cache."""
    if folder.parent.name != "snapshots":
        return folder.name
    repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return f"{repository}@{folder.name}"


def is_commit(text: str) -> bool:
    """Return whether a revision is a commit; branches and tags can move."""
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None


def pulled_commit(folder: Path, repository: str | None = None) -> str | None:
    """Return the commit in the note of `pull` (for ``repository``, if given), or `None`."""
    note = _pull_note(folder)
    return note.get("commit") if repository in (None, note.get("repository")) else None


def _pull_note(folder: Path) -> dict[str, str]:
    """Return the note of `pull` in a folder, empty if there is none or it cannot be read."""
    try:
        with (folder / PULL_NOTE_FILE).open("rb") as file:
            note = json.loads(file.read(_MAX_NOTE_BYTES))
        if is_commit(note["commit"]):
            return {name: str(note[name]) for name in ("repository", "revision", "commit")}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return {}


def matches_pull_note(folder: Path, repository: str, revision: str | None) -> bool:
    """Return whether a folder may have this repository at this revision (None: at any): if `pull`
    filled it with something else, its note says so."""
    note = _pull_note(folder)
    known = {note.get("revision"), note.get("commit")}
    return not note or (
        note.get("repository") == repository and (revision is None or revision in known)
    )


def read_checkpoint(folder: Path) -> ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint.

    Raises:
        errors.CheckpointNotFound: there is no `config.json`.
        errors.CheckpointIncomplete: weights, tokenizer or processor are missing.
        errors.CheckpointDamaged: a file is truncated or damaged, or cannot be read.
        errors.CheckpointUnsupported: see `check_vibevoice_config`.
        errors.CheckpointUnsafe: it has its own code, or only pickled weights.
    """
    with disk_errors_as_ours():
        config = check_vibevoice_config(folder)
        files = weight_files(folder)
        if not has_original_layout(config):
            require_processor(folder, _CHAT_TEMPLATE_FILES)
        return ModelCheckpoint.of(folder, config, files)


def has_original_layout(config: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint with this config, of `check_vibevoice_config`, is in the original
    layout."""
    return bool(config["model_type"] == ORIGINAL_MODEL_TYPE)


def find_tokenizer(folder: Path) -> Path:
    """Return the folder with the tokenizer of a checkpoint in the original layout, which comes
    without one: itself, or that of a model with the same one in the Hugging Face cache.

    Raises:
        errors.CheckpointIncomplete: there is none.
    """
    cached = (cache_folder(name, hugging_face_cache()) for name in TOKENIZER_REPOSITORIES)
    snapshots = (snapshot for one in cached for snapshot in cached_snapshots(one))
    for place in (folder, folder / TOKENIZER_FOLDER, *snapshots):
        if any(all((place / name).is_file() for name in names) for names in _TOKENIZER_FILES):
            return place
    raise errors.CheckpointIncomplete(
        f"{folder} has the original layout, which comes without a tokenizer.",
        hint=f"Copy tokenizer.json of {TOKENIZER_REPOSITORIES[0]} into it, or get the whole: "
        "vibevoice-asr pull microsoft/VibeVoice-ASR",
    )


@contextmanager
def repaired_by(command: str) -> Iterator[None]:
    """Set the hint of errors of a broken folder: ``command`` downloads the model again."""
    try:
        yield
    except (errors.CheckpointIncomplete, errors.CheckpointDamaged, errors.CheckpointUnsafe) as bad:
        hint = f"Copy the folder anew, or get the whole: {command}"
        raise type(bad)(bad.detail, hint=hint) from None


@contextmanager
def disk_errors_as_ours() -> Iterator[None]:
    """Translate errors of the disk.

    Raises:
        errors.CheckpointDamaged: a file exists but cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise errors.CheckpointDamaged(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None


def check_vibevoice_config(folder: Path) -> dict[str, Any]:
    """Return `config.json`, which must be that of VibeVoice-ASR, in the layout of transformers;
    one in the original layout is translated, but for its ``model_type``, and needs a tokenizer from
    elsewhere.

    A config that names its own code (``auto_map``) is rejected, not ignored: its author meant
    another model than the one that would be loaded.
    """
    config = read_config(
        folder,
        "Set VIBEVOICE_MODEL_PATH to the folder of a checkpoint, or unset it; "
        "'vibevoice-asr pull vibevoice' downloads one.",
    )
    kind = config.get("model_type")
    if kind == MODEL_TYPE:
        refuse_code(folder, config)
        return config
    if kind == ORIGINAL_MODEL_TYPE and (name := relative_of(folder, config)):
        if name == STREAMING_NAME:
            raise errors.CheckpointUnsupported(
                f"{folder} is {name}, which another engine runs.",
                hint="Start with --engine vibevoice-streaming.",
            )
        raise errors.CheckpointUnsupported(
            f"{folder} is {name}, another model, which this service does not run.",
            hint="Get VibeVoice-ASR: vibevoice-asr pull vibevoice",
        )
    if kind == ORIGINAL_MODEL_TYPE and _is_asr_config(config):
        refuse_code(folder, config)
        try:
            translated = {"model_type": ORIGINAL_MODEL_TYPE, **transformers_config(config)}
        except (KeyError, ValueError, TypeError, AttributeError):
            raise damaged_error(folder / "config.json", "lacks a part of VibeVoice-ASR") from None
        find_tokenizer(folder)
        return translated
    raise errors.CheckpointUnsupported(
        f"{folder} is not a checkpoint of VibeVoice-ASR: its model_type is {str(kind)[:60]!r}."
    )


def read_config(folder: Path, remedy: str) -> dict[str, Any]:
    """Return `config.json`; ``remedy``: hint of the error if it is missing.

    Raises:
        errors.CheckpointNotFound: there is no `config.json`.
        errors.CheckpointDamaged: it is not a JSON object.
    """
    if not files.exists(folder / "config.json"):
        raise errors.CheckpointNotFound(f"{folder} has no config.json.", hint=remedy)
    return read_json(folder / "config.json")


def refuse_code(folder: Path, config: dict[str, Any]) -> None:
    """Raise `errors.CheckpointUnsafe` if a configuration names its own code."""
    if "auto_map" in config:
        raise errors.CheckpointUnsafe(
            f"{folder} has its own code (auto_map), which this service never runs."
        )


def check_safetensors(path: Path) -> frozenset[str]:
    """Check that a file's size matches its header, and return the names of its tensors.

    The header is 8 bytes of length (little-endian), then JSON; tensors follow without gaps.
    """
    size = path.stat().st_size
    header, length = _safetensors_header(path)
    try:
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
    except (TypeError, LookupError, ValueError, ArithmeticError):
        raise damaged_error(path, "has a damaged header") from None
    if size != 8 + length + end:
        state = "is truncated" if size < 8 + length + end else "is too long"
        raise damaged_error(path, f"{state}: {size:,} bytes of {8 + length + end:,}")
    return frozenset(header)


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the tensors of a file by name, and the length of its header in bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_JSON_BYTES):
            raise damaged_error(path, "is truncated, or not a safetensors file")
        header = _parse_json(path, file.read(length))
    header.pop("__metadata__", None)
    return header, length


def bytes_as_floats(path: Path, width: int) -> int:
    """Return the bytes of a file's tensors once its floats have ``width`` bytes each."""
    header, _ = _safetensors_header(path)
    try:
        spans = [(*one["data_offsets"], one["dtype"]) for one in header.values()]
        return sum(
            (end - begin) * width // _FLOAT_BYTES.get(dtype, width) for begin, end, dtype in spans
        )
    except (TypeError, LookupError, ValueError):
        raise damaged_error(path, "has a damaged header") from None


def relative_of(folder: Path, config: dict[str, Any]) -> str:
    """Return the name of the model of VibeVoice-ASR's family that a config is of; '' if of none."""
    quantization = config.get("quantization_config") or {}
    words = [config.get("architectures"), quantization, folder.name, folder.parent.parent.name]
    marks = str(words).lower()
    if "bitnet" in marks:
        return "VibeVoice-ASR-BitNet"
    return STREAMING_NAME if "asrstreaming" in marks.replace("-", "") else ""


def _is_asr_config(config: dict[str, Any]) -> bool:
    """Return whether a config of the original layout is that of the ASR model, not the TTS one."""
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        return any("ASR" in str(name) for name in architectures)
    return "decoder_config" in config and "diffusion_head_config" not in config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Check the weight files and return them, sorted by name.

    As in transformers, a single file has priority over an index of several.
    """
    if (folder / WEIGHTS_FILE).is_file():
        check_safetensors(folder / WEIGHTS_FILE)
        return (folder / WEIGHTS_FILE,)
    if not (folder / WEIGHTS_INDEX_FILE).is_file():
        if any(file.suffix in PICKLE_SUFFIXES for file in folder.iterdir()):
            raise errors.CheckpointUnsafe(
                f"{folder} has pickled weights only, which can execute code when loaded."
            )
        raise errors.CheckpointIncomplete(
            f"{folder} has no weights ({WEIGHTS_FILE}).", hint=_repair_hint(folder)
        )
    tensors: dict[str, set[str]] = {}
    weight_map = read_json(folder / WEIGHTS_INDEX_FILE).get("weight_map")
    for tensor, name in (weight_map if isinstance(weight_map, dict) else {}).items():
        tensors.setdefault(str(name), set()).add(tensor)
    if not tensors or any(re.search(r"[/\\:]|^\.", name) for name in tensors):
        raise damaged_error(folder / WEIGHTS_INDEX_FILE, "is not an index of weights")
    names = sorted(tensors)
    require_files(folder, names)
    for name in names:
        if not tensors[name] <= check_safetensors(folder / name):
            raise damaged_error(folder / name, f"lacks weights that {WEIGHTS_INDEX_FILE} lists")
    return tuple(folder / name for name in names)


def require_processor(folder: Path, *more: Sequence[Sequence[str]]) -> None:
    """Raise `errors.CheckpointIncomplete` if the tokenizer or the processor is absent, or one of
    ``more`` files; each of these has several ways."""
    for ways in (_TOKENIZER_FILES, _PROCESSOR_FILES, *more):
        if not any(all((folder / name).is_file() for name in names) for names in ways):
            require_files(folder, ways[0])


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Raise `errors.CheckpointIncomplete` if files are absent; several are those of the weights."""
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        count = f" ({len(absent)} of {len(names)} files of weights)" if len(names) > 1 else ""
        raise errors.CheckpointIncomplete(
            f"{folder} lacks {absent[0]}{more}{count}.", hint=_repair_hint(folder)
        )


def damaged_error(path: Path, what: str) -> errors.CheckpointDamaged:
    """Return the error for a damaged file; ``what``: the end of its message."""
    return errors.CheckpointDamaged(f"{path} {what}.", hint=_repair_hint(path.parent))


def _repair_hint(folder: Path) -> str:
    """Return the hint that repairs a folder; for one in a cache, the command with its name."""
    if folder.parent.name != "snapshots":
        return (
            "Copy the folder anew, or get the whole: vibevoice-asr pull vibevoice. A fine-tune "
            "needs save_pretrained of model and processor into one folder."
        )
    name = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return f"Run this, it goes on where it stopped: vibevoice-asr pull {name}"


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Raises:
        errors.CheckpointDamaged: the file is too large or not a JSON object.
    """
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise damaged_error(path, "is too large to be JSON of a checkpoint")
    return _parse_json(path, path.read_bytes())


def _parse_json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise damaged_error(path, "is not valid JSON") from None
    if not isinstance(value, dict):
        raise damaged_error(path, "is not a JSON object")
    return value


def hugging_face_cache(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the Hugging Face cache, by the variables of huggingface_hub."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := env.get(variable):
            return files.expand_home(Path(os.path.expandvars(named)))
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return files.expand_home(Path(os.path.expandvars(home))) / "hub"


def cache_folder(repo: str, root: Path) -> Path:
    """Return the folder of a repository in the Hugging Face cache ``root``."""
    return root / f"models--{repo.replace('/', '--')}"


def cached_commit(repo: Path, revision: str = MAIN_REVISION) -> str | None:
    """Return the commit of a branch or tag in a repository's cache; `None` if not recorded."""
    try:
        commit = (repo / "refs" / revision).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def cached_snapshots(repo: Path) -> list[Path]:
    """Return the snapshots of a repository in a cache: ``main`` first, then the newest."""
    main = cached_commit(repo)
    folders = [folder for folder in (repo / "snapshots").glob("*") if folder.is_dir()]
    return sorted(folders, key=lambda each: (each.name != main, -each.stat().st_mtime))


def complete_commit(
    repo: Path, checkpoint_reader: Callable[[Path], ModelCheckpoint] = read_checkpoint
) -> str | None:
    """Return the commit of a repository's first complete snapshot in a cache; `None` if there is
    none."""
    try:
        found = first_complete_checkpoint(cached_snapshots(repo), checkpoint_reader)
    except (errors.BadCheckpoint, OSError):  # perhaps deleted meanwhile
        return None
    return found.folder.name if found is not None and is_commit(found.folder.name) else None


def _candidate_folders(
    path: Path, cached: CachedRepositories, marks: Iterable[str]
) -> Iterator[Path]:
    """Yield the folders that may be checkpoints.

    They are ``path`` itself if it has one of ``marks``, the snapshots in a repository's cache, or
    those of the ``cached`` repositories in a whole cache.
    """
    if any(files.exists(path / mark) for mark in marks):
        yield path
    elif (path / "snapshots").is_dir():
        yield from cached_snapshots(path)
    elif path.name == "snapshots":
        yield from cached_snapshots(path.parent)
    else:
        for root in (path, path / "hub"):
            for repository in cached(root):
                yield from cached_snapshots(repository)


def first_complete_checkpoint(
    folders: Iterable[Path], checkpoint_reader: Callable[[Path], ModelCheckpoint] = read_checkpoint
) -> ModelCheckpoint | None:
    """Return the first complete checkpoint; `None` if there are no folders.

    Raises:
        errors.BadCheckpoint: none is complete; the error of the first.
    """
    wrong: errors.BadCheckpoint | None = None
    for folder in folders:
        try:
            return checkpoint_reader(folder)
        except errors.BadCheckpoint as error:
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    return None


def find_model(
    named: Path | None,
    cached: CachedRepositories,
    checkpoint_reader: Callable[[Path], ModelCheckpoint],
    what: str,
    remedy: str | None = None,
    marks: Iterable[str] = ("config.json",),
) -> ModelCheckpoint:
    """Return the checkpoint in ``named`` (folder of the checkpoint or a cache), or in the cache.

    ``what``: name of the model for the error. ``remedy``: hint of the error.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
    """
    path = hugging_face_cache() if named is None else named
    path = Path(os.path.abspath(path))
    try:
        if named is not None and not (files.exists(path) and path.is_dir()):
            raise errors.CheckpointNotFound(f"{path} is not a folder.")
        found = first_complete_checkpoint(
            _candidate_folders(path, cached, marks), checkpoint_reader
        )
    except OSError as error:
        raise errors.CheckpointNotFound(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None
    if found is None:
        why = "" if named is None else ", which has no config.json"
        raise errors.CheckpointNotFound(f"There is no {what} in {path}{why}.", hint=remedy)
    return found
