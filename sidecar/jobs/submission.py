"""Submission of a recording as a job, idempotent by key.

A key belongs to its owner and is valid as long as its job is stored.
"""

import asyncio
from dataclasses import replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from sidecar import clock, errors
from sidecar.audio.audio_decoder import AudioInfo
from sidecar.audio.audio_source import AudioSource, RecordingRef, recording_ref
from sidecar.auth.identity import Identity, Scope
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import reservations
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import DuplicateRequestKey
from sidecar.jobs.job_record import IdempotencyKey, JobRecord, Priority
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobBackend
from sidecar.observability.metrics import JobMetrics
from sidecar.workers.audio_probe import AudioProbe


class SubmissionObserver(Protocol):
    """Observer of the intake of recordings."""

    def begun(self) -> Any:
        """Return what identifies this intake, which begins now."""

    def entered(self, intake: Any, record: JobRecord) -> None:
        """Take notice that the recording becomes a job; the job is added next."""

    def refused(self, intake: Any, record: JobRecord | None, error: BaseException) -> None:
        """Take notice that there is no job because of an error."""


class JobSubmissions:
    """Intake of recordings, for all protocols. ``disk``: threads that may wait for a disk."""

    def __init__(
        self,
        settings: Settings,
        backend: JobBackend,
        engine: JobEngine,
        intake: AudioProbe,
        disk: ThreadLimiter,
        tally: JobMetrics,
        now: clock.Clock,
    ) -> None:
        self._backend, self._queue, self._store = backend, backend.queue, backend.store
        self._keeping = backend.persistent_recordings
        self._engine, self._intake, self._disk = engine, intake, disk
        self._tally, self._now = tally, now
        self.observer: SubmissionObserver | None = None
        """Told of each intake."""
        self._fits_elsewhere = settings.is_front  # a front leaves it to the nodes
        self._people = settings.people
        self._audio_roots = settings.audio_roots
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Locks of idempotency keys with a submission in progress."""
        self._queue_limit = settings.queue_limit
        self._room = reservations.Reservations(
            settings.queue_limit + 1, settings.upload_room_mb << 20
        )
        self._discards = BackgroundTaskGroup()

    async def place(self, caller: Identity, key: str | None = None) -> reservations.Reservation:
        """Reserve a queue position for a recording, before the client sends its body.

        ``key``: idempotency key of the request; if its job already exists, no free position is
        needed.

        Raises:
            errors.QueueFull: the queue has no free position.
            errors.JobsLimited: the caller has as many jobs as it may.
        """
        if key is None or await self._store.by_key(caller.owner, key) is None:
            await self._check(caller)
        return self._room.place(caller.owner)

    @property
    def full(self) -> bool:
        """Return whether the queue, with its reservations, accepts no more jobs. A queue that shuts
        down is not full: its waiting clients have to get that error instead."""
        try:
            self._queue.check_room(self._room.promised)
        except errors.ShuttingDown:
            return False
        except errors.QueueFull:
            return True
        return False

    def body(self, caller: Identity, declared: int = 0) -> reservations.UploadReservation:
        """Reserve the upload of a body of ``declared`` bytes; 0: unknown.

        Raises:
            errors.UploadsFull: too many uploads are in progress, of this caller or of all.
            errors.UploadsLimited: the caller has uploaded as much as it may.
        """
        return self._room.body(caller, declared)

    async def open_path(self, caller: Identity, path: str) -> AudioSource:
        """Open a recording on this machine by the path that a client sent.

        Raises:
            errors.AudioPathForbidden: the caller may not send paths.
            errors.BadRequest: the path has no readable file, or its disk does not answer.
            errors.MachineBusy: the disks of files that the caller named before do not answer.
        """
        caller.demand(Scope.AUDIO_PATH)
        return await self._intake.open(caller, path, self._audio_roots)

    async def measure(self, caller: Identity, source: AudioSource) -> float | None:
        """Return the seconds of a recording; None if only decoding would show them.

        Raises:
            errors.BadAudio: it cannot be transcribed.
        """
        return (await self._intake.probe(caller, source)).total_s

    async def submit(
        self,
        caller: Identity,
        source: AudioSource,
        options: TranscribeOptions,
        place: reservations.Reservation | None = None,
        *,
        kept: bool = True,
        priority: Priority = Priority.INTERACTIVE,
        key: IdempotencyKey | None = None,
    ) -> Job:
        """Probe the recording and queue it as a job at its ``place``; the job then owns ``source``.

        ``kept``: whether the job can be read by its id, and its result fetched later. ``priority``:
        whether a person waits for this job, compared to others of the caller. ``key``: idempotency
        key.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.WontFit: there is not enough memory for it.
            errors.QueueFull: the queue has no free position.
            errors.JobsLimited, errors.AudioLimited: the caller may have no more.
            errors.DiskFull, errors.SpoolUnwritable, errors.JournalUnreachable: it cannot be
                persisted; there is no job.
        """
        record = None
        intake = self.observer.begun() if self.observer is not None else None
        try:
            with place or await self.place(caller) as promised:
                facts = await self._intake.probe(caller, source, options.track)
                admitted = await self._admit(caller, facts, options)
                durable = self._keeping is not None and (kept or self._backend.shares)
                record = JobRecord.submitted(
                    self._now(),
                    await self._kept(source, kept) if durable else recording_ref(source),
                    facts,
                    admitted,
                    owner=caller.owner,
                    kept=kept,
                    priority=priority,
                    key=key,
                    durable=durable,
                )
                job = Job(source, record)
                if self.observer is not None:
                    self.observer.entered(intake, record)
                await self._queue.submit(job, promised=promised)
        except BaseException as error:
            self._refused(source, record, intake, error)
            raise
        self._tally.submitted.add()
        return job

    async def submit_once(
        self,
        caller: Identity,
        source: AudioSource,
        options: TranscribeOptions,
        place: reservations.Reservation | None,
        key: IdempotencyKey,
        *,
        priority: Priority = Priority.INTERACTIVE,
    ) -> tuple[JobRecord, bool]:
        """Submit as `submit`, at most once for a key. Return the job, and whether an earlier
        request had created it.

        Raises:
            errors.IdempotencyKeyReused: the key belongs to another request.
            errors.SidecarError: as `submit`; the key is then free again.
        """
        try:
            async with self._turns.setdefault((caller.owner, key.name), asyncio.Lock()):
                known = await self._known(caller.owner, key)
                if known is None:
                    job = await self.submit(
                        caller, source, options, place, kept=True, priority=priority, key=key
                    )
                    return job.record, False
        except DuplicateRequestKey:  # another service submitted the key a moment ago
            known = await self._known(caller.owner, key)
            if known is None:  # the job is deleted already
                raise errors.JournalUnreachable() from None
        except BaseException:
            source.close()  # a second close does nothing
            raise
        source.close()
        return known, True

    async def _known(self, owner: str, key: IdempotencyKey) -> JobRecord | None:
        """Return the job of an earlier request with this key.

        Raises:
            errors.IdempotencyKeyReused: the key belongs to another request.
        """
        known = await self._store.by_key(owner, key.name)
        if known is not None and known.key != key:
            raise errors.IdempotencyKeyReused()
        return known

    async def _check(self, caller: Identity) -> None:
        """Raise as `place` does, if the caller may not queue one more job."""
        self._queue.check_room(self._room.promised, caller.owner)
        if caller.limits.jobs is None and not caller.limits.shares:
            return
        load = await self._store.load(caller.owner)
        coming, free = self._room.owners[caller.owner], self._queue_limit - self._queue.depth
        reservations.check_jobs(caller, load.jobs + coming)
        reservations.check_queue(caller, load.waiting + coming, free - self._room.promised)

    async def _admit(
        self, caller: Identity, facts: AudioInfo, options: TranscribeOptions
    ) -> TranscribeOptions:
        """Check the caller's limit of waiting audio. Return the options with a precision that fits
        and with this service's setting for voiceprints, since another service may run the job."""
        precision = options.precision
        if not self._fits_elsewhere:
            precision = self._engine.admit(options, facts.total_s)
        if caller.limits.queued_audio_s is not None:
            load = await self._store.load(caller.owner)
            reservations.check_audio(caller, facts.total_s, load.waiting_audio_s, load.least_s)
        return replace(options, precision=precision, voiceprints=self._people)

    async def _kept(self, source: AudioSource, kept: bool) -> RecordingRef:
        assert self._keeping is not None
        # If the power fails, a waiting client loses its connection: a sync would only delay it.
        return await self._keeping.kept(self._disk, source, synced=kept)

    def _refused(
        self,
        source: AudioSource,
        record: JobRecord | None,
        intake: Any,
        error: BaseException,
    ) -> None:
        if self.observer is not None:
            self.observer.refused(intake, record, error)
        source.close()
        unsure = self._backend.shares and not isinstance(
            error, DuplicateRequestKey | errors.QueueFull | errors.ShuttingDown
        )
        if record is not None and self._keeping is not None and not unsure:
            discard = self._keeping.discard
            self._discards.spawn("discard", self._disk.run(discard, record.audio))
