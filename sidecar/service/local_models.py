"""Models of this machine for clients: list, download, deletion.

A download is the command `pull NAME --json` in a process of its own: one downloader for people and
programs, checksums beside the event loop, and a stop that always works. Its events are passed on as
they come, and it belongs to its request: a client that hangs up ends it, and so does the end of the
service, which closes its standard input. What came stays on the
disk, and the next request for the same model resumes it. One model is downloaded once at a time
(by the lock of its folder), and at most `MAX_DOWNLOADS` are at once. Nothing is downloaded or
deleted unless a client with the scope `admin` asks for it, and never a model that is in use.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sidecar import errors
from sidecar.auth.identity import Identity, Scope
from sidecar.checkpoints import model_removal, pull_events
from sidecar.checkpoints.installed_checkpoints import resolve_repository
from sidecar.concurrency import ThreadLimiter, cancel_after
from sidecar.engines.engine_selection import EngineChoice
from sidecar.installation import own_command
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.service.model_catalogue import CatalogueModel, list_models
from sidecar.storage.recording_storage import answering
from sidecar.workers.worker_environment import worker_environment_of

T = TypeVar("T")
MAX_DOWNLOADS = 2
"""More share the line, and each takes longer."""
PATIENCE_S = 5.0
"""Time for the disk: a list reads some files of each model. A longer deletion goes on."""
STOP_S = 5.0
"""Time for a download that is stopped to end by itself, and then killed: its disk may hang."""
_MAX_DISK_CALLS = 2
_OF_HUB = re.compile(r"^(HF|HUGGING_?FACE|PIP)_|_PROXY$", re.IGNORECASE)
"""Variables of the hub, of pip and of the way to them, which may have secrets."""


class ModelDownload:
    """Download of a model in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._reading = asyncio.Lock()
        self._stopped = False

    async def events(self, silence_s: float) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the events of `pull_events` to the end of the process; `None` after each
        ``silence_s`` seconds without one. The last says how the download ended."""
        assert self._process.stdout is not None
        kind = ""
        while True:
            try:
                async with asyncio.timeout(silence_s), self._reading:
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
        """Have the process end, and what it has started (`pull --exit-with-stdin`); what came stays
        on the disk."""
        assert self._process.stdin is not None
        self._stopped = True
        self._process.stdin.close()

    def kill(self) -> None:
        """Kill the process, if it has not ended."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> None:
        """Wait for the end of the process, and close its pipes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.wait()
        self._process.stdin.close()
        async with self._reading:
            if self._stopped:  # nobody reads the events, and a pipe closes only at its end
                await self._process.stdout.read()


class LocalModels:
    """Models of this machine, and the downloads that run.

    ``folders`` returns the folders from which engines of this service load, ``in_use`` what each
    engine works with now, by role. ``patience_s``: time for the disk.
    """

    def __init__(
        self,
        folders: Callable[[], Iterable[Path]],
        in_use: Callable[[], Mapping[str, EngineChoice[EngineSpec]]] = dict,
        patience_s: float = PATIENCE_S,
        stop_s: float = STOP_S,
    ) -> None:
        """``stop_s``: as `STOP_S`."""
        self._folders, self._in_use, self._patience_s = folders, in_use, patience_s
        self._stop_s = stop_s
        self._downloads: set[ModelDownload] = set()
        self._starting = asyncio.Lock()
        self._disk = ThreadLimiter("models", _MAX_DISK_CALLS)

    async def all(self) -> list[CatalogueModel]:
        """Return the models that there are.

        Raises:
            errors.MachineBusy: their folder cannot be read.
            errors.StorageUnreachable: the disk does not answer in time.
        """
        in_use = self._in_use()
        return await self._on_disk(lambda: list(list_models(in_use)))

    async def pull(self, identity: Identity, name: str, revision: str = "") -> ModelDownload:
        """Start the download of a model; what is installed is checked.

        Raises:
            errors.ScopeMissing: the client lacks the scope `admin`.
            errors.RepositoryNotFound: ``name`` is not a valid name.
            errors.PullRunning: too many downloads run.
        """
        identity.demand(Scope.ADMIN)
        resolve_repository(name)
        words = ["pull", name, "--json", "--exit-with-stdin"]
        words += [f"--revision={revision}"] if revision else []
        command = own_command("sidecar.main", "-P")  # not the current folder's
        kept = {name: value for name, value in os.environ.items() if _OF_HUB.search(name)}
        env = worker_environment_of(os.environ) | kept  # no token of this service
        async with self._starting:
            if (count := len(self._downloads)) >= MAX_DOWNLOADS:
                raise errors.PullRunning(
                    f"{count} downloads are running.", hint="Wait until one has ended."
                )
            process = await asyncio.create_subprocess_exec(
                *command, *words, stdin=PIPE, stdout=PIPE, env=env
            )
            download = ModelDownload(process)
            self._downloads.add(download)
        ending = asyncio.ensure_future(download.ended())
        ending.add_done_callback(lambda _: self._downloads.discard(download))
        return download

    async def delete(self, identity: Identity, name: str) -> None:
        """Delete an installed model, or the part of one.

        Raises:
            errors.ScopeMissing: the client lacks the scope `admin`.
            errors.ModelNotFound: it is not installed.
            errors.ModelInUse: an engine of this service loads it.
            errors.PullRunning: it is being downloaded.
            errors.CheckpointUnwritable: it cannot be deleted.
            errors.MachineBusy: its folder cannot be read.
            errors.StorageUnreachable: the disk does not answer in time; the deletion goes on.
        """
        identity.demand(Scope.ADMIN)
        folders = list(self._folders())

        def delete() -> None:
            try:
                model = model_removal.installed_model(name)
            except errors.CheckpointNotFound as error:
                raise errors.ModelNotFound(error.detail) from None
            whole = model.folder.resolve()
            if any(folder.resolve().is_relative_to(whole) for folder in folders):
                raise errors.ModelInUse()
            model_removal.delete_model(model)

        await self._on_disk(delete)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        try:
            async with answering(self._patience_s, "The disk of the Hugging Face cache is silent."):
                return await self._disk.run(work)
        except OSError as error:
            raise errors.MachineBusy(
                f"The folder of the models cannot be read: {error}.",
                hint="Check the disk of the Hugging Face cache (HF_HOME).",
            ) from None

    async def close(self) -> None:
        """End all downloads."""
        downloads = [*self._downloads]
        for end in (ModelDownload.stop, ModelDownload.kill):
            for download in downloads:
                end(download)
            await cancel_after(self._stop_s, asyncio.gather(*(one.ended() for one in downloads)))
