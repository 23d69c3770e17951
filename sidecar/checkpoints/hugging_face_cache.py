"""Hugging Face cache: location by environment variables, snapshots, checkpoints in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints.checkpoint import ModelCheckpoint, is_commit, read_checkpoint

MAIN_REVISION = "main"
"""Default revision: a branch."""


def hugging_face_cache(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the Hugging Face cache, by the variables of huggingface_hub."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := env.get(variable):
            return Path(os.path.expandvars(named)).expanduser()
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


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
    repo: Path, read: Callable[[Path], ModelCheckpoint] = read_checkpoint
) -> str | None:
    """Return the commit of a repository's first complete snapshot in a cache; `None` if there is
    none."""
    try:
        found = first_complete_checkpoint(cached_snapshots(repo), read)
    except errors.BadCheckpoint:
        return None
    return found.folder.name if found is not None and is_commit(found.folder.name) else None


CachedRepositories = Callable[[Path], Iterable[Path]]
"""Function that returns the folders of a model's repositories in a Hugging Face cache."""


def _candidate_folders(
    path: Path, cached: CachedRepositories, marks: Iterable[str]
) -> Iterator[Path]:
    """Yield the folders that may be checkpoints.

    They are ``path`` itself if it has one of ``marks``, the snapshots in a repository's cache, or
    those of the ``cached`` repositories in a whole cache.
    """
    if any((path / mark).is_file() for mark in marks):
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
    folders: Iterable[Path], read: Callable[[Path], ModelCheckpoint] = read_checkpoint
) -> ModelCheckpoint | None:
    """Return the first complete checkpoint; `None` if there are no folders.

    Raises:
        errors.BadCheckpoint: none is complete; the error of the first.
    """
    wrong: errors.BadCheckpoint | None = None
    for folder in folders:
        try:
            return read(folder)
        except errors.BadCheckpoint as error:
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    return None


def find_model(
    named: Path | None,
    cached: CachedRepositories,
    read: Callable[[Path], ModelCheckpoint],
    what: str,
    remedy: str | None = None,
    marks: Iterable[str] = ("config.json",),
) -> ModelCheckpoint:
    """Return the checkpoint in ``named`` (folder of the checkpoint or a cache), or in the cache.

    ``what``: name of the model for the error. ``remedy``: hint of the error.

    Raises:
        errors.BadCheckpoint: there is none, or the error of the first.
    """
    path = Path(os.path.abspath(hugging_face_cache() if named is None else named.expanduser()))
    try:
        if named is not None and not path.is_dir():
            raise errors.CheckpointNotFound(f"{path} is not a folder.")
        found = first_complete_checkpoint(_candidate_folders(path, cached, marks), read)
    except OSError as error:
        raise errors.CheckpointNotFound(
            f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None
    if found is None:
        why = "" if named is None else ", which has no config.json"
        raise errors.CheckpointNotFound(f"There is no {what} in {path}{why}.", hint=remedy)
    return found
