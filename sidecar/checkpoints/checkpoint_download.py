"""Checkpoint download: files in parallel, resumed, checked.

The bytes are fetched here and not by huggingface_hub, because its download (2.4) begins a file
anew after every interruption and by plain HTTP checks its size only, and one file of these is
gigabytes. What is written has the layout of its cache, so that every tool finds it.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints import checkpoint, download_files, hugging_face_cache, hugging_face_hub
from sidecar.checkpoints.model_repositories import TRANSFORMERS_LAYOUT, CheckpointLayout

_NO_ROOM = "Free some space, or name a folder on another disk: vibevoice-asr pull NAME --to DIR"


def pull_checkpoint(
    repo: str,
    revision: str | None = None,
    to: Path | None = None,
    meter: download_files.DownloadProgress | None = None,
    layout: CheckpointLayout = TRANSFORMERS_LAYOUT,
) -> checkpoint.ModelCheckpoint:
    """Bring a checkpoint here, to the Hugging Face cache or to the folder ``to``, and check it all.

    What is here already is checked and not fetched again. What an interruption leaves is used by
    the next call. Without a ``revision`` it is the commit that is here, and the newest
    (`MAIN_REVISION`) only where there is none.

    Raises:
        errors.HubUnreachable, errors.RepositoryNotFound, errors.RepositoryForbidden: no answer.
        errors.BadCheckpoint: it is of no use here, or came damaged.
        errors.DiskFull, errors.CheckpointUnwritable: there is no room, or no right to it.
        errors.PullRunning: another process is at it.
    """
    meter = meter or download_files.DownloadProgress()
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
        place: download_files.DownloadDestination = download_files.HubCacheDestination(
            cache, snapshot.commit
        )
        if to is not None:
            place = download_files.FolderDestination(
                to.expanduser().absolute(), repo, snapshot.commit
            )
        missing = [file for file in snapshot.files if place.found(file) is None]
        download_files.check_room(place, missing, "download", "GB", _NO_ROOM)
        with download_files.locked(place):
            place.begin()
            _fetch_all(snapshot, place, meter, layout)
            pulled = layout.read(place.folder)
            place.finish(revision or hugging_face_cache.MAIN_REVISION)
    meter.notice(f"{repo} at commit {snapshot.commit}")
    return pulled


def _look_up(
    repo: str,
    revision: str | None,
    pinned: str | None,
    meter: download_files.DownloadProgress,
    layout: CheckpointLayout,
) -> hugging_face_hub.HubSnapshot:
    """Look up the requested revision at the hub; if none is requested, the ``pinned`` commit, or
    else `MAIN_REVISION`."""
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
    place: download_files.DownloadDestination,
    meter: download_files.DownloadProgress,
    layout: CheckpointLayout,
) -> None:
    """The small files first: `config.json` says whether the large ones are worth it."""
    meter.begin(snapshot.repository, sum(file.size for file in snapshot.files))
    stop = threading.Event()
    large = [file for file in snapshot.files if layout.is_large(file.name)]
    for file in snapshot.files:
        if file not in large:
            _fetch(snapshot, file, place, meter, stop)
    layout.check_config(place.folder)
    fetches = [partial(_fetch, snapshot, file, place, meter, stop) for file in large]
    for _ in download_files.run_in_parallel(fetches, stop):
        pass


def _fetch(
    snapshot: hugging_face_hub.HubSnapshot,
    file: download_files.HubFile,
    place: download_files.DownloadDestination,
    meter: download_files.DownloadProgress,
    stop: threading.Event,
) -> None:
    """Bring one file here and check it; `growing.Stopped` once ``stop`` is set."""
    if (found := place.found(file)) is not None:
        with found.open("rb") as content:
            growing = download_files.PartialFile(file, content, meter, stop)
        if growing.whole:
            place.keep(file)
            return
        meter.advance(-growing.done)
        meter.notice(f"{file.name} is damaged and is downloaded again.")
        place.drop(file)
    download_files.fetch(
        file, place, partial(hugging_face_hub.read_hub_file, snapshot), meter, stop
    )


def _pinned_commit(cache: Path, layout: CheckpointLayout) -> str | None:
    """The commit in a repository's cache that a service loads: that of `MAIN_REVISION`, or the
    newest whole one. None where there is none."""
    if (commit := hugging_face_cache.cached_commit(cache)) is not None:
        return commit
    try:
        found = hugging_face_cache.first_complete_checkpoint(
            hugging_face_cache.cached_snapshots(cache), layout.read
        )
    except errors.BadCheckpoint:
        return None
    return (
        found.folder.name if found is not None and checkpoint.is_commit(found.folder.name) else None
    )


def _cached_folder(cache: Path, revision: str | None, layout: CheckpointLayout) -> Path:
    """The folder of a revision in the cache, which need not be there."""
    commit = (
        hugging_face_cache.cached_commit(cache, revision)
        if revision
        else _pinned_commit(cache, layout)
    )
    return cache / "snapshots" / (commit or revision or hugging_face_cache.MAIN_REVISION)


def _pull_offline(
    repo: str, folder: Path, meter: download_files.DownloadProgress, layout: CheckpointLayout
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
