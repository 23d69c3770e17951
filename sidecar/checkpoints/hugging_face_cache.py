"""Hugging Face cache: its folder (environment variables), its snapshots, checkpoints in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints.checkpoint import ModelCheckpoint, is_commit, read_checkpoint

MAIN_REVISION = "main"
"""The branch that is meant where nobody names a revision."""


def hugging_face_cache(env: Mapping[str, str] = os.environ) -> Path:
    """The Hugging Face cache, by the variables that huggingface_hub obeys."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := env.get(variable):
            return Path(os.path.expandvars(named)).expanduser()
    home = env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def cache_folder(repo: str, root: Path) -> Path:
    """The folder of a repository in a Hugging Face cache."""
    return root / f"models--{repo.replace('/', '--')}"


def cached_commit(repo: Path, revision: str = MAIN_REVISION) -> str | None:
    """The commit that a branch or a tag is in a repository's cache; None where it is not noted."""
    try:
        commit = (repo / "refs" / revision).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def cached_snapshots(repo: Path) -> list[Path]:
    """The revisions of a repository in a cache: ``main`` first, then the newest."""
    main = cached_commit(repo)
    folders = [folder for folder in (repo / "snapshots").glob("*") if folder.is_dir()]
    return sorted(folders, key=lambda each: (each.name != main, -each.stat().st_mtime))


def searched_folder_text(named: Path | None) -> Path:
    """Return the folder that is searched for a checkpoint: the one that was ``named``, or the
    cache."""
    return Path(os.path.abspath(hugging_face_cache() if named is None else named.expanduser()))


def candidate_folders(
    path: Path, repositories: Iterable[str], marks: Iterable[str] = ("config.json",)
) -> Iterator[Path]:
    """The folders that may be checkpoints: ``path`` itself where it has one of ``marks``, the
    revisions in a repository's cache, or those of ``repositories`` in a whole cache."""
    if any((path / mark).is_file() for mark in marks):
        yield path
    elif (path / "snapshots").is_dir():
        yield from cached_snapshots(path)
    else:
        wanted = list(repositories)
        for root in (path, path / "hub"):
            for repository in wanted:
                yield from cached_snapshots(cache_folder(repository, root))


def first_complete_checkpoint(
    folders: Iterable[Path], read: Callable[[Path], ModelCheckpoint] = read_checkpoint
) -> ModelCheckpoint | None:
    """The first that is whole; None where there is none at all.

    Raises:
        errors.BadCheckpoint: what is wrong with the first, where none is whole.
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
    repositories: Iterable[str],
    read: Callable[[Path], ModelCheckpoint],
    what: str,
    remedy: str,
    marks: Iterable[str] = ("config.json",),
) -> ModelCheckpoint:
    """Return the one in the folder that was ``named`` (its own, or a cache that has it), or in the
    cache; ``what`` is looked for, and ``remedy`` is what helps where it is not.

    Raises:
        errors.BadCheckpoint: there is none, or what is wrong with the first.
    """
    path = searched_folder_text(named)
    try:
        found = first_complete_checkpoint(candidate_folders(path, repositories, marks), read)
    except OSError as error:
        raise no_access(error) from None
    if found is None:
        raise errors.CheckpointNotFound(f"There is no {what} in {path}.", hint=remedy)
    return found


def no_access(error: OSError) -> errors.CheckpointNotFound:
    """The error of a folder that cannot be looked into."""
    return errors.CheckpointNotFound(
        f"{error.filename} cannot be read: {error.strerror}.", hint="Check its permissions."
    )
