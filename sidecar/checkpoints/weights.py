"""Checkpoints on this machine: which name means which, and where they are.

`checkpoints.checkpoint` says whether one is whole, `checkpoints.download` fetches them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints.checkpoint import Checkpoint, read_checkpoint

REPOSITORY = "microsoft/VibeVoice-ASR-HF"
"""VibeVoice-ASR in the layout of transformers."""
REPOSITORY_GB = 16.7
"""Size of its weights: 8.33 billion parameters of two bytes."""

_NAMES = frozenset({"vibevoice", "vibevoice-asr", "vibevoice-asr-7b", "vibevoice-asr-hf"})


def repository(name: str) -> str:
    """The repository that people mean by ``name``; OWNER/NAME of another one stays as it is.

    Raises:
        errors.RepositoryNotFound: it is no name.
    """
    word = name.strip()
    owner, _, model = word.rpartition("/")
    if owner.lower() in ("", "microsoft") and model.lower() in _NAMES:
        return REPOSITORY
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", word, re.ASCII):
        raise errors.RepositoryNotFound(f"'{name}' is not the name of a model.")
    return word


def cache_root(env: Mapping[str, str] = os.environ) -> Path:
    """The Hugging Face cache, by the variables that huggingface_hub obeys."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := env.get(variable):
            return Path(os.path.expandvars(named)).expanduser()
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def cache_folder(repo: str, root: Path) -> Path:
    """The folder of a repository in a Hugging Face cache."""
    return root / f"models--{repo.replace('/', '--')}"


def find_checkpoint(model_path: Path | None) -> Checkpoint:
    """The checkpoint in ``model_path`` (its folder, or a cache that has it), or in the cache.

    Of several, the canonical repository's comes first, and of that the revision ``main``; one that
    is not whole gives way to the next.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    path = Path(os.path.abspath(cache_root() if model_path is None else model_path.expanduser()))
    try:
        if model_path is not None and not path.is_dir():
            raise errors.CheckpointNotFound(f"{path} is no folder.")
        folders = list(_candidates(path))
    except OSError as error:
        raise errors.CheckpointNotFound(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None
    wrong: errors.BadCheckpoint | None = None
    for folder in folders:
        try:
            return read_checkpoint(folder)
        except errors.BadCheckpoint as error:
            wrong = wrong or error
    if wrong is None and model_path is not None:
        return read_checkpoint(path)  # says what it lacks
    raise wrong or errors.CheckpointNotFound()


def _candidates(path: Path) -> Iterator[Path]:
    """The folders that may be checkpoints, in a folder, a repository's cache or a whole cache."""
    if (path / "config.json").is_file():
        yield path
    elif (path / "snapshots").is_dir():
        yield from snapshots(path)
    elif path.name == "snapshots":
        yield from snapshots(path.parent)
    else:
        canonical = cache_folder(REPOSITORY, path).name
        for root in (path, path / "hub"):
            cached = [folder for folder in root.glob("models--*") if _sounds_right(folder.name)]
            for folder in sorted(cached, key=lambda each: (each.name != canonical, each.name)):
                yield from snapshots(folder)


def _sounds_right(name: str) -> bool:
    return "vibevoice" in name.lower() and "asr" in name.lower()


def snapshots(repo: Path) -> list[Path]:
    """The revisions of a repository in a cache: ``main`` first, then the newest."""
    try:
        main = (repo / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        main = ""
    folders = [folder for folder in (repo / "snapshots").glob("*") if folder.is_dir()]
    return sorted(folders, key=lambda each: (each.name != main, -each.stat().st_mtime))
