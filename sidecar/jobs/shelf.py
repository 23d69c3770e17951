"""Recordings of jobs that are done, to be listened to: as many as there is room for.

The oldest of an owner go when all that he has here need more room than one may have. What is
deleted waits for a disk; whoever writes down that a job has ended calls it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Container

from sidecar.audio.ref import Kept
from sidecar.errors import SidecarError
from sidecar.jobs.record import JobRecord, JobState
from sidecar.storage.protocol import Storage

log = logging.getLogger(__name__)


class Shelf:
    """``limit_bytes`` for each owner; with 0 nothing stays here."""

    def __init__(self, storage: Storage, limit_bytes: int = 0) -> None:
        self._storage, self._limit = storage, limit_bytes
        self._sizes: defaultdict[str, dict[Kept, int]] = defaultdict(dict)
        """Of each owner, the oldest first; bytes in the storage."""
        self._gone: set[Kept] = set()

    def has(self, record: JobRecord) -> bool:
        """Whether a job's recording is there, as far as is known without looking."""
        audio = record.audio
        if not isinstance(audio, Kept) or audio in self._gone:
            return False
        return not record.over or (self._limit > 0 and record.state is JobState.DONE)

    def put(self, record: JobRecord, there: Container[str] | None = None) -> None:
        """A job has ended: its recording stays from here on as long as there is room. ``there``:
        those that there are, where that is known."""
        audio = record.audio
        if not isinstance(audio, Kept):
            return
        try:
            if there is not None and audio.name not in there:
                raise FileNotFoundError
            size = audio.size if audio.size is not None else self._storage.size(audio.name)
        except (OSError, SidecarError):
            self._gone.add(audio)
            return
        sizes = self._sizes[record.owner]
        sizes[audio] = size if record.state is JobState.DONE else self._limit + 1
        if sizes[audio] > self._limit:  # it alone: that costs no other its place
            self._take(record.owner, audio)
        while sum(sizes.values()) > self._limit:
            self._take(record.owner, next(iter(sizes)))

    def drop(self, record: JobRecord) -> None:
        """A job is forgotten: its recording goes with it."""
        if isinstance(record.audio, Kept):
            self._take(record.owner, record.audio)
            self._gone.discard(record.audio)

    def _take(self, owner: str, audio: Kept) -> None:
        self._sizes[owner].pop(audio, None)
        if not self._sizes[owner]:
            del self._sizes[owner]
        self._gone.add(audio)
        try:
            self._storage.delete(audio.name)
        except (OSError, SidecarError) as error:  # one that is listened to, on Windows
            log.warning("a recording goes with the next start (%s)", error)
