"""Checkpoint download from the Hugging Face hub: parallel files, resume, checksums.

This module fetches the bytes itself. The download of huggingface_hub (2.4) restarts a file after
every interruption, and by plain HTTP checks only its size; one of these files has gigabytes. The
result has the layout of the Hugging Face cache, so that every tool finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazily there

from sidecar import errors
from sidecar.checkpoints import checkpoint, resumable_download
from sidecar.checkpoints.checkpoint import PICKLE_SUFFIXES, is_commit
from sidecar.checkpoints.installed_checkpoints import (
    TOKENIZER_LAYOUT,
    TRANSFORMERS_LAYOUT,
    CheckpointLayout,
)
from sidecar.limit_overrides import limit
from sidecar.version import __version__

HUB_TIMEOUT_S = limit("hub_timeout_s", 10.0)
"""Timeout of connecting and of each read; the default of huggingface_hub."""
_NO_ROOM = "Free some space, or name a folder on another disk: vibevoice-asr pull NAME --to DIR"


def pull_checkpoint(
    repo: str,
    revision: str | None = None,
    to: Path | None = None,
    progress: resumable_download.DownloadProgress | None = None,
    layout: CheckpointLayout = TRANSFORMERS_LAYOUT,
) -> checkpoint.ModelCheckpoint:
    """Download a checkpoint to the Hugging Face cache or to the folder ``to``, and check it.

    Existing files are checked and not fetched again. An interrupted download is resumed by the next
    call. Without a ``revision`` the installed commit is used; if there is none, the newest
    (`MAIN_REVISION`).

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound, errors.RepositoryForbidden: no answer.
        errors.BadCheckpoint: the checkpoint cannot be used, or was damaged on the way.
        errors.DiskFull, errors.CheckpointUnwritable: too little disk space, or no permission.
        errors.PullRunning: another process downloads it.
    """
    progress = progress or resumable_download.DownloadProgress()
    cache = checkpoint.cache_folder(repo, checkpoint.hugging_face_cache()).absolute()
    to = to and to.absolute()
    if huggingface_hub.is_offline_mode():
        folder = to or _cached_folder(cache, revision, layout)
        return _pull_offline(repo, revision, folder, progress, layout)
    with hub_errors_as_ours(repo, revision or checkpoint.MAIN_REVISION):
        pinned = checkpoint.pulled_commit(to, repo) if to else _pinned_commit(cache, layout)
        snapshot = _look_up(repo, revision, pinned, progress, layout)
        if layout is TRANSFORMERS_LAYOUT:
            layout = replace(layout, check_config=partial(_check_with_tokenizer, to, progress))
        read = partial(read_hub_file, snapshot)
        return fetch_snapshot(
            snapshot, read, revision or checkpoint.MAIN_REVISION, to, progress, layout
        )


def _check_with_tokenizer(
    to: Path | None, progress: resumable_download.DownloadProgress, folder: Path
) -> dict[str, Any]:
    """Check a configuration; first download the tokenizer that its layout comes without, into the
    cache or beside the checkpoint."""
    check = TRANSFORMERS_LAYOUT.check_config
    try:
        return check(folder)
    except errors.CheckpointIncomplete:
        repo, *_ = checkpoint.TOKENIZER_REPOSITORIES
        place = to and to / checkpoint.TOKENIZER_FOLDER
        pull_checkpoint(repo, None, place, _OnlyNotices(progress), TOKENIZER_LAYOUT)
        progress.notice(f"The tokenizer is that of {repo} (Apache License 2.0).")
    return check(folder)


class _OnlyNotices(resumable_download.DownloadProgress):
    """Progress of a small download during another one."""

    def __init__(self, other: resumable_download.DownloadProgress) -> None:
        self.notice = other.notice  # type: ignore[method-assign]


def fetch_snapshot(
    snapshot: HubSnapshot,
    read: resumable_download.ChunkReader,
    revision: str,
    to: Path | None,
    progress: resumable_download.DownloadProgress,
    layout: CheckpointLayout,
) -> checkpoint.ModelCheckpoint:
    """Write the files of a snapshot to the Hugging Face cache or to the folder ``to`` (absolute),
    and check them. ``read`` reads those that are missing. ``revision``: the branch or tag that the
    snapshot is recorded for.

    Raises:
        errors.SidecarError, OSError: as `pull_checkpoint`.
    """
    repo = snapshot.repository
    destination: resumable_download.DownloadDestination
    if to is not None:
        destination = resumable_download.FolderDestination(to, repo, snapshot.commit)
    else:
        cache = checkpoint.cache_folder(repo, checkpoint.hugging_face_cache()).absolute()
        destination = resumable_download.HubCacheDestination(cache, snapshot.commit)
    missing = [file for file in snapshot.files if destination.found(file) is None]
    resumable_download.check_room(destination, missing, "download", "GB", _NO_ROOM)
    with resumable_download.locked(destination):
        names = {file.name for file in snapshot.files}
        destination.begin(lambda name: name not in names and layout.is_chosen_by_name(name))
        download = resumable_download.RunningDownload(destination, progress)
        _fetch_all(snapshot, read, download, layout)
        destination.end_update()
        pulled = layout.read(destination.folder)
        destination.finish(revision)
    progress.notice(f"{repo} at commit {snapshot.commit}")
    return pulled


def _look_up(
    repo: str,
    revision: str | None,
    pinned: str | None,
    progress: resumable_download.DownloadProgress,
    layout: CheckpointLayout,
) -> HubSnapshot:
    """List the files of the requested revision at the hub.

    If no revision is requested, use the ``pinned`` commit, or else `MAIN_REVISION`.
    """
    snapshot = list_snapshot(repo, revision or checkpoint.MAIN_REVISION, layout)
    if revision is not None or pinned is None or pinned == snapshot.commit:
        return snapshot
    progress.notice(
        f"{checkpoint.MAIN_REVISION} of {repo} is now at {snapshot.commit}; the checkpoint "
        f"here stays at {pinned}. For the newer one: --revision {checkpoint.MAIN_REVISION}."
    )
    with hub_errors_as_ours(repo, pinned):
        return list_snapshot(repo, pinned, layout)


def _fetch_all(
    snapshot: HubSnapshot,
    read: resumable_download.ChunkReader,
    download: resumable_download.RunningDownload,
    layout: CheckpointLayout,
) -> None:
    """Fetch the small files first: `config.json` shows whether the weights can be used."""
    destination, meter = download.destination, download.progress

    def fetch(file: resumable_download.HubFile) -> None:
        if (found := destination.found(file)) is not None:
            with found.open("rb") as content:
                growing = resumable_download.PartialFile(file, content, download)
            if growing.whole:
                destination.keep(file)
                return
            meter.advance(-growing.done)
            destination.drop(file)
            meter.notice(f"{file.name} is damaged and is downloaded again.")
        resumable_download.fetch(file, read, download)

    meter.begin(snapshot.repository, sum(file.size for file in snapshot.files))
    large = [file for file in snapshot.files if layout.is_large(file.name)]
    for file in snapshot.files:
        if file not in large:
            fetch(file)
    layout.check_config(destination.folder)
    fetches = [partial(fetch, file) for file in large]
    for _ in resumable_download.run_in_parallel(fetches, download.stop):
        pass


def _pinned_commit(cache: Path, layout: CheckpointLayout) -> str | None:
    """Return the commit in a repository's cache that a service loads, or `None`.

    It is that of `MAIN_REVISION`; if that is not recorded, the newest complete one.
    """
    return checkpoint.cached_commit(cache) or checkpoint.complete_commit(cache, layout.read)


def _cached_folder(cache: Path, revision: str | None, layout: CheckpointLayout) -> Path:
    """Return the folder of a revision in the cache, which may not exist."""
    if not revision:
        return cache / "snapshots" / (_pinned_commit(cache, layout) or checkpoint.MAIN_REVISION)
    return cache / "snapshots" / (checkpoint.cached_commit(cache, revision) or revision)


def _pull_offline(
    repo: str,
    revision: str | None,
    folder: Path,
    progress: resumable_download.DownloadProgress,
    layout: CheckpointLayout,
) -> checkpoint.ModelCheckpoint:
    try:
        found = layout.find(folder)
        if not checkpoint.matches_pull_note(folder, repo, revision):
            raise errors.CheckpointNotFound
    except errors.BadCheckpoint as bad:
        lacking = f" {bad.detail}" if isinstance(bad, errors.CheckpointIncomplete) else ""
        raise errors.HubUnreachable(
            f"HF_HUB_OFFLINE is set, and {repo} is not complete on this machine.{lacking}",
            hint="Unset it for the download; or run 'vibevoice-asr pull' with '--to FOLDER' on "
            "another computer, copy the folder, and set VIBEVOICE_MODEL_PATH to it "
            "(docs/models.md).",
        ) from None
    progress.notice(
        "HF_HUB_OFFLINE is set: the checkpoint is complete; its checksums were not checked."
    )
    return found


@dataclass(frozen=True, slots=True)
class HubSnapshot:
    """Files of a repository at a commit."""

    repository: str
    commit: str
    files: tuple[resumable_download.HubFile, ...]


def list_snapshot(repo: str, revision: str, layout: CheckpointLayout) -> HubSnapshot:
    """List the files to download, with their checksums.

    Raises:
        errors.CheckpointUnsafe: the repository has only pickled weights.
        errors.CheckpointUnsupported: the repository has no weights.
        errors.RepositoryNotFound: ``repo`` is not a valid name.
        errors.HubUnreachable: the response is not that of a hub.
    """
    try:
        info = huggingface_hub.HfApi().model_info(
            repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_S
        )
        siblings = info.siblings or []
        suffixes = {Path(sibling.rfilename).suffix for sibling in siblings}
        files = tuple(
            resumable_download.HubFile(
                sibling.rfilename,
                int(sibling.size or 0),
                resumable_download.SHA256 if sibling.lfs else resumable_download.GIT,
                str(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id),
            )
            for sibling in siblings
            if "/" not in sibling.rfilename
            and layout.fetched(sibling.rfilename)
            # names of no model are passed over, those that lead out of a folder refused
            and (resumable_download.is_plain_name(sibling.rfilename) or "\\" in sibling.rfilename)
        )
        if not is_commit(info.sha or ""):
            raise ValueError(f"no commit: {info.sha!r}")
        if is_commit(revision) and info.sha != revision:
            raise ValueError(f"another commit: {info.sha}")
    except hub_errors.HFValidationError:
        raise errors.RepositoryNotFound(f"'{repo}' is not the name of a model.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.HubUnreachable(
            f"The server at {constants.ENDPOINT} is not a model hub.",
            hint="Check HF_ENDPOINT, the proxy, and whether the network requires a login.",
        ) from None
    if not any(layout.is_large(file.name) for file in files):
        if suffixes & PICKLE_SUFFIXES:
            raise errors.CheckpointUnsafe(
                f"{repo} has pickled weights only, which are not downloaded."
            )
        raise errors.CheckpointUnsupported(f"{repo} has no weights ({layout.weights}).")
    return HubSnapshot(repo, str(info.sha), files)


def read_hub_file(
    snapshot: HubSnapshot, file: resumable_download.HubFile, start: int
) -> Iterator[tuple[int, bytes]]:
    """Read a file from the hub, as `resumable_download.ChunkReader`.

    Raises:
        DownloadInterrupted: the connection failed, or the server is busy.
    """
    url = huggingface_hub.hf_hub_url(snapshot.repository, file.name, revision=snapshot.commit)
    headers = build_hf_headers(library_name="vibevoice-asr", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # ranges count the bytes of the file itself
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with huggingface_hub.get_session().stream(
            "GET", url, headers=headers, timeout=HUB_TIMEOUT_S, follow_redirects=True
        ) as response:
            if response.is_error:
                response.read()
            huggingface_hub.hf_raise_for_status(response)
            yield from resumable_download.chunks(response, start, file.size)
    except httpx2.TransportError as error:
        raise resumable_download.DownloadInterrupted from error
    except hub_errors.HfHubHTTPError as error:
        if error.response.status_code in resumable_download.PASSING:
            raise resumable_download.DownloadInterrupted from error
        raise


@contextmanager
def hub_errors_as_ours(repo: str, revision: str) -> Iterator[None]:
    """Translate errors of the hub, the network and the disk."""
    with resumable_download.explained_by(
        constants.ENDPOINT, (resumable_download.DownloadInterrupted, httpx2.HTTPError)
    ):
        try:
            yield
        except hub_errors.GatedRepoError:
            raise errors.RepositoryForbidden(
                f"{repo} requires that you accept its terms."
            ) from None
        except hub_errors.RepositoryNotFoundError:
            raise errors.RepositoryNotFound(
                f"The model hub has no {repo}, or it is private.",
                hint="Check the name; for a private one, set HF_TOKEN to a token that may read it.",
            ) from None
        except hub_errors.RevisionNotFoundError:
            raise errors.RepositoryNotFound(
                f"{repo} has no revision '{revision}'.", hint="Use the newest: --revision main"
            ) from None
        except hub_errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise errors.RepositoryForbidden(
                    f"The model hub denies access to {repo} ({status})."
                ) from None
            raise errors.HubUnreachable(
                f"{constants.ENDPOINT} answered {status} for {repo}.",
                hint="Try again later; the same command resumes the download.",
            ) from None
