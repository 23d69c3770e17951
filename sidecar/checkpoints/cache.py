"""Where checkpoints lie: the Hugging Face cache, or a folder that somebody names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints.checkpoint import Checkpoint, is_commit, read_checkpoint

MAIN = "main"
"""The branch that is meant where nobody names a revision."""


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


def cached_commit(repo: Path, revision: str = MAIN) -> str | None:
    """The commit that a branch or a tag is in a repository's cache; None where it is not noted."""
    try:
        commit = (repo / "refs" / revision).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def snapshots(repo: Path) -> list[Path]:
    """The revisions of a repository in a cache: ``main`` first, then the newest."""
    main = cached_commit(repo)
    folders = [folder for folder in (repo / "snapshots").glob("*") if folder.is_dir()]
    return sorted(folders, key=lambda each: (each.name != main, -each.stat().st_mtime))


def looked_in(named: Path | None) -> Path:
    """Where a checkpoint is looked for: the folder that was ``named``, or the cache."""
    return Path(os.path.abspath(cache_root() if named is None else named.expanduser()))


def folders_of(
    path: Path, repositories: Iterable[str], marks: Iterable[str] = ("config.json",)
) -> Iterator[Path]:
    """The folders that may be checkpoints: ``path`` itself where it has one of ``marks``, the
    revisions in a repository's cache, or those of ``repositories`` in a whole cache."""
    if any((path / mark).is_file() for mark in marks):
        yield path
    elif (path / "snapshots").is_dir():
        yield from snapshots(path)
    else:
        wanted = list(repositories)
        for root in (path, path / "hub"):
            for repository in wanted:
                yield from snapshots(cache_folder(repository, root))


def first_whole(
    folders: Iterable[Path], read: Callable[[Path], Checkpoint] = read_checkpoint
) -> Checkpoint | None:
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
