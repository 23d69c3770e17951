"""Models of this machine for clients: list, download, deletion.

A download is the command `pull NAME --json` in a process of its own: one downloader for people and
programs, checksums beside the event loop, and a stop that always works. Its events are passed on as
they come, and it belongs to its request: a client that hangs up ends it. What came stays on the
disk, and the next request for the same model resumes it. One model is downloaded once at a time
(by the lock of its folder), and at most `MAX_DOWNLOADS` are at once. Nothing is downloaded or
deleted unless a client with the scope `admin` asks for it, and never a model that is in use.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.auth.identity import Identity, Scope
from sidecar.checkpoints import model_removal, pull_events
from sidecar.checkpoints.installed_checkpoints import resolve_repository
from sidecar.concurrency import ThreadLimiter
from sidecar.installation import own_command
from sidecar.service.model_catalogue import CatalogueModel, list_models

MAX_DOWNLOADS = 2
"""More share the line, and each takes longer."""
_MAX_DISK_CALLS = 2


class ModelDownload:
    """Download of a model in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def events(self, silence_s: float) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the events of `pull_events` to the end of the process; `None` after each
        ``silence_s`` seconds without one. The last says how the download ended."""
        assert self._process.stdout is not None
        kind = ""
        while True:
            try:
                async with asyncio.timeout(silence_s):
                    line = await self._process.stdout.readline()
            except TimeoutError:
                yield None
                continue
            if not line:
                break
            event: dict[str, Any] = json.loads(line)
            kind = event["event"]
            yield event
        if kind not in (pull_events.DONE, pull_events.FAILED):
            code = await self._process.wait()
            yield pull_events.failed_event(
                errors.SidecarError(f"The process of the download ended with code {code}.")
            )

    def stop(self) -> None:
        """End the process, if it runs; what came stays on the disk."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> None:
        """Wait for the end of the process."""
        await self._process.wait()


class LocalModels:
    """Models of this machine, and the downloads that run.

    ``in_use`` returns the folders from which engines of this service load.
    """

    def __init__(self, in_use: Callable[[], Iterable[Path]]) -> None:
        self._in_use = in_use
        self._downloads: set[ModelDownload] = set()
        self._disk = ThreadLimiter("models", _MAX_DISK_CALLS)

    async def all(self) -> list[CatalogueModel]:
        """Return the models that there are."""
        return await self._disk.run(lambda: list(list_models()))

    async def pull(self, caller: Identity, name: str, revision: str = "") -> ModelDownload:
        """Start the download of a model; what is installed is checked.

        Raises:
            errors.ScopeMissing: the caller lacks the scope `admin`.
            errors.RepositoryNotFound: ``name`` is not a valid name.
            errors.PullRunning: too many downloads run.
        """
        caller.demand(Scope.ADMIN)
        resolve_repository(name)
        if len(self._downloads) >= MAX_DOWNLOADS:
            raise errors.PullRunning(
                f"{len(self._downloads)} downloads are running.", hint="Wait until one has ended."
            )
        words = ["pull", name, "--json", *([f"--revision={revision}"] if revision else ())]
        command = own_command("sidecar.main", "-P")  # not the current folder's
        download = ModelDownload(
            await asyncio.create_subprocess_exec(*command, *words, stdin=DEVNULL, stdout=PIPE)
        )
        self._downloads.add(download)
        ending = asyncio.ensure_future(download.ended())
        ending.add_done_callback(lambda _: self._downloads.discard(download))
        return download

    async def delete(self, caller: Identity, name: str) -> None:
        """Delete an installed model, or the part of one.

        Raises:
            errors.ScopeMissing: the caller lacks the scope `admin`.
            errors.ModelNotFound: it is not installed.
            errors.ModelInUse: an engine of this service loads it.
            errors.PullRunning: it is being downloaded.
        """
        caller.demand(Scope.ADMIN)
        folders = [folder.resolve() for folder in self._in_use()]

        def delete() -> None:
            try:
                model = model_removal.installed_model(name)
            except errors.CheckpointNotFound as error:
                raise errors.ModelNotFound(error.detail) from None
            if any(folder.is_relative_to(model.folder.resolve()) for folder in folders):
                raise errors.ModelInUse()
            model_removal.delete_model(model)

        await self._disk.run(delete)

    async def close(self) -> None:
        """End all downloads."""
        for download in self._downloads:
            download.stop()
        await asyncio.gather(*(download.ended() for download in self._downloads))
