"""Checkpoint download: parallel files, resume, checksums.

This module fetches the bytes itself. The download of huggingface_hub (2.4) restarts a file after
every interruption, and by plain HTTP checks only its size; one of these files has gigabytes. The
result has the layout of the Hugging Face cache, so that every tool finds it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints import checkpoint, hugging_face_cache, hugging_face_hub, resumable_download
from sidecar.checkpoints.model_repositories import TRANSFORMERS_LAYOUT, CheckpointLayout

_NO_ROOM = "Free some space, or name a folder on another disk: vibevoice-asr pull NAME --to DIR"


def pull_checkpoint(
    repo: str,
    revision: str | None = None,
    to: Path | None = None,
    meter: resumable_download.DownloadProgress | None = None,
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
    meter = meter or resumable_download.DownloadProgress()
    cache = hugging_face_cache.cache_folder(
        repo, hugging_face_cache.hugging_face_cache()
    ).absolute()
    if hugging_face_hub.is_offline():
        return _pull_offline(repo, to or _cached_folder(cache, revision, layout), meter, layout)
    with hugging_face_hub.hub_errors_as_ours(repo, revision or hugging_face_cache.MAIN_REVISION):
        pinned = (
            checkpoint.pulled_commit(to.expanduser(), repo) if to else _pinned_commit(cache, layout)
        )
        snapshot = _look_up(repo, revision, pinned, meter, layout)
        place: resumable_download.DownloadDestination = resumable_download.HubCacheDestination(
            cache, snapshot.commit
        )
        if to is not None:
            place = resumable_download.FolderDestination(
                to.expanduser().absolute(), repo, snapshot.commit
            )
        missing = [file for file in snapshot.files if place.found(file) is None]
        resumable_download.check_room(place, missing, "download", "GB", _NO_ROOM)
        with resumable_download.locked(place):
            place.begin()
            download = resumable_download.RunningDownload(place, meter)
            _fetch_all(snapshot, download, layout)
            pulled = layout.read(place.folder)
            place.finish(revision or hugging_face_cache.MAIN_REVISION)
    meter.notice(f"{repo} at commit {snapshot.commit}")
    return pulled


def _look_up(
    repo: str,
    revision: str | None,
    pinned: str | None,
    meter: resumable_download.DownloadProgress,
    layout: CheckpointLayout,
) -> hugging_face_hub.HubSnapshot:
    """List the files of the requested revision at the hub.

    If no revision is requested, use the ``pinned`` commit, or else `MAIN_REVISION`.
    """
    snapshot = hugging_face_hub.list_snapshot(
        repo, revision or hugging_face_cache.MAIN_REVISION, layout
    )
    if revision is not None or pinned is None or pinned == snapshot.commit:
        return snapshot
    meter.notice(
        f"{hugging_face_cache.MAIN_REVISION} of {repo} is now at {snapshot.commit}; the checkpoint "
        f"here stays at {pinned}. For the newer one: --revision {hugging_face_cache.MAIN_REVISION}."
    )
    with hugging_face_hub.hub_errors_as_ours(repo, pinned):
        return hugging_face_hub.list_snapshot(repo, pinned, layout)


def _fetch_all(
    snapshot: hugging_face_hub.HubSnapshot,
    download: resumable_download.RunningDownload,
    layout: CheckpointLayout,
) -> None:
    """Download the small files first: `config.json` shows whether the weights can be used."""
    download.meter.begin(snapshot.repository, sum(file.size for file in snapshot.files))
    large = [file for file in snapshot.files if layout.is_large(file.name)]
    for file in snapshot.files:
        if file not in large:
            _fetch(snapshot, file, download)
    layout.check_config(download.place.folder)
    fetches = [partial(_fetch, snapshot, file, download) for file in large]
    for _ in resumable_download.run_in_parallel(fetches, download.stop):
        pass


def _fetch(
    snapshot: hugging_face_hub.HubSnapshot,
    file: resumable_download.HubFile,
    download: resumable_download.RunningDownload,
) -> None:
    """Download one file and check it.

    Raises:
        DownloadStopped: the download was stopped.
    """
    place, meter = download.place, download.meter
    if (found := place.found(file)) is not None:
        with found.open("rb") as content:
            growing = resumable_download.PartialFile(file, content, download)
        if growing.whole:
            place.keep(file)
            return
        meter.advance(-growing.done)
        meter.notice(f"{file.name} is damaged and is downloaded again.")
        place.drop(file)
    read = partial(hugging_face_hub.read_hub_file, snapshot)
    resumable_download.fetch(file, read, download)


def _pinned_commit(cache: Path, layout: CheckpointLayout) -> str | None:
    """Return the commit in a repository's cache that a service loads, or `None`.

    It is that of `MAIN_REVISION`; if that is not recorded, the newest complete one.
    """
    return hugging_face_cache.cached_commit(cache) or hugging_face_cache.complete_commit(
        cache, layout.read
    )


def _cached_folder(cache: Path, revision: str | None, layout: CheckpointLayout) -> Path:
    """Return the folder of a revision in the cache, which may not exist."""
    commit = (
        hugging_face_cache.cached_commit(cache, revision)
        if revision
        else _pinned_commit(cache, layout)
    )
    return cache / "snapshots" / (commit or revision or hugging_face_cache.MAIN_REVISION)


def _pull_offline(
    repo: str, folder: Path, meter: resumable_download.DownloadProgress, layout: CheckpointLayout
) -> checkpoint.ModelCheckpoint:
    try:
        found = layout.find(folder)
    except errors.BadCheckpoint:
        raise errors.HubUnreachable(
            f"HF_HUB_OFFLINE is set, and {repo} is not complete on this machine.",
            hint="Unset it for the download; or run 'vibevoice-asr pull' with '--to FOLDER' on "
            "another computer, copy the folder, and set VIBEVOICE_MODEL_PATH to it "
            "(docs/models.md).",
        ) from None
    meter.notice(
        "HF_HUB_OFFLINE is set: the checkpoint is complete; its checksums were not checked."
    )
    return found
