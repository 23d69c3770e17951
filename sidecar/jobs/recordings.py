"""Recordings to be listened to: those that are kept, by whoever may ask for their jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.jobs.owned import OwnedJobs
from sidecar.jobs.record import JobRecord
from sidecar.jobs.recovery import KeptRecordings
from sidecar.storage.reading import SealedFile
from sidecar.storage.sealing import SealBroken
from sidecar.threads import Threads

AT_ONCE = 2
"""Pieces that are read from the disk and opened side by side."""


class Recordings:
    """What an owner may listen to; without a ``keeping`` there is nothing."""

    def __init__(self, owned: OwnedJobs, keeping: KeptRecordings | None) -> None:
        self._owned, self._keeping = owned, keeping
        self._threads = Threads("listen", AT_ONCE)

    def has(self, job: JobRecord) -> bool:
        """Whether a job's recording is there, as far as is known without looking."""
        return self._keeping is not None and self._keeping.shelf.has(job)

    async def open(self, caller: Identity, job_id: str) -> SealedFile:
        """The recording of the caller's job.

        Raises:
            errors.JobNotFound: there is no such job, or it is another's.
            errors.RecordingNotKept: its recording is not kept.
            errors.AudioLost: it is not what it was.
        """
        job = await self._owned.job(caller, job_id)
        if self._keeping is None:
            raise errors.RecordingNotKept()
        return await self._threads.run(self._keeping.recording, job)

    async def read(self, file: SealedFile, at: int, most: int) -> bytes:
        """Some of its bytes from there on.

        Raises:
            errors.AudioLost: it is not what it was.
        """
        try:
            return await self._threads.run(file.read, at, most)
        except SealBroken:
            raise errors.AudioLost("The recording that was kept is not what it was.") from None

    async def pieces(self, file: SealedFile, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from ``begin`` to before ``end``.

        Raises:
            errors.AudioLost: it is not what it was.
        """
        while begin < end:
            piece = await self.read(file, begin, end - begin)
            begin += len(piece)
            yield piece
