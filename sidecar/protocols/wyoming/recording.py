"""The sound of one request on its way in: a wav in the spool, with its place in the queue."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from sidecar import errors
from sidecar.api.http.upload import PATIENCE, SLOWEST
from sidecar.audio.source import AudioSource, Spool
from sidecar.auth.identity import Identity
from sidecar.jobs.room import Place
from sidecar.protocols.wyoming.wishes import HEAD, Form
from sidecar.service import Service


class Recording:
    """Takes sound of one form. Its place is kept, and its bytes are counted, until it is left."""

    def __init__(self, service: Service, caller: Identity, form: Form, place: Place) -> None:
        """Begin; the ``place`` in the queue is left with it.

        Raises:
            errors.UploadsFull, errors.UploadsLimited: too much is on its way.
        """
        settings = service.settings
        self.caller, self.form = caller, form
        self._held = ExitStack()
        with ExitStack() as held:
            self.place = held.enter_context(place)
            self._body = held.enter_context(service.submissions.body(caller))
            self._held = held.pop_all()
        self._disk, self._limit_mb = service.spooling, settings.max_upload_mb
        self._spool = Spool(settings.spool_dir)
        self._held.callback(self._spool.close)
        self._spool.add(bytes(HEAD))
        self._stall_s = settings.upload_stall
        self._until = _now() + PATIENCE * self._stall_s

    def patience_s(self) -> float:
        """How long more sound is waited for."""
        return max(0.0, min(self._stall_s, self._until - _now()))

    async def add(self, piece: bytes) -> None:
        """More sound.

        Raises:
            errors.UploadTooLarge, errors.UploadsFull, errors.UploadsLimited: it is too much.
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        """
        if self._spool.size + len(piece) > self._limit_mb << 20:
            raise errors.UploadTooLarge(hint=f"The limit is {self._limit_mb} MB.")
        self._body.grow(len(piece))
        self._spool.add(piece)
        self._until += len(piece) / SLOWEST
        if self._spool.pending >= Spool.MEMORY_BYTES:
            await self._disk.run(self._spool.spill)

    async def finish(self) -> AudioSource:
        """All of it, for whoever closes it.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be written.
        """
        head = self.form.head(self._spool.size - HEAD)
        source = await self._disk.run(self._spool.finish)
        os.lseek(source.fd, 0, os.SEEK_SET)
        os.write(source.fd, head)
        os.lseek(source.fd, 0, os.SEEK_SET)
        return source

    def close(self) -> None:
        """Give back what was kept; what was not finished is gone."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
