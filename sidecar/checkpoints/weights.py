"""Checkpoints on this machine: which name means which, and where they are.

`checkpoints.checkpoint` says whether one is whole, `checkpoints.download` fetches them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints.cache import cache_folder, first_whole, looked_in, snapshots
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


def find_checkpoint(model_path: Path | None) -> Checkpoint:
    """The checkpoint in ``model_path`` (its folder, or a cache that has it), or in the cache.

    Of several, the canonical repository's comes first, and of that the revision ``main``; one that
    is not whole gives way to the next.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    path = looked_in(model_path)
    try:
        if model_path is not None and not path.is_dir():
            raise errors.CheckpointNotFound(f"{path} is no folder.")
        folders = list(_candidates(path))
    except OSError as error:
        raise errors.CheckpointNotFound(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None
    found = first_whole(folders)
    if found is None and model_path is not None:
        return read_checkpoint(path)  # says what it lacks
    if found is None:
        raise errors.CheckpointNotFound()
    return found


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
