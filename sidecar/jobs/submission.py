"""Submission of a recording as a job, idempotent by key.

A key belongs to its owner and is valid as long as its job is stored.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

from sidecar import clock, errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource, recording_ref
from sidecar.auth.identity import Identity, Scope
from sidecar.concurrency import BackgroundTaskGroup, OwnerThreads, ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import ChannelMode, TranscribeOptions
from sidecar.interfaces.request_options import check_channels
from sidecar.jobs import reservations
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_event_log import DuplicateRequestKey
from sidecar.jobs.job_record import IdempotencyKey, JobRecord, Priority
from sidecar.jobs.job_runner import Job
from sidecar.jobs.job_store import JobBackend
from sidecar.jobs.persistent_recordings import open_unstored, opener_in_threads
from sidecar.observability.metrics import JobMetrics
from sidecar.workers.audio_probe import AudioProbe

MAX_COPIES = 4
"""Client's files of one owner that are copied in parallel: a share that hangs blocks a thread each,
and no other owner's."""


class SubmissionObserver(Protocol):
    """Observer of the submissions of recordings."""

    def begun(self) -> Any:
        """Return what identifies this submission, which begins now."""

    def entered(self, submission: Any, record: JobRecord) -> None:
        """Take notice that the recording becomes a job; the job is added next."""

    def refused(self, submission: Any, record: JobRecord | None, error: BaseException) -> None:
        """Take notice that there is no job because of an error."""


class JobSubmissions:
    """Submissions of recordings, for all protocols. ``storage_threads``: may wait for the storage
    of recordings."""

    def __init__(
        self,
        settings: Settings,
        backend: JobBackend,
        engine: JobEngine,
        probe: AudioProbe,
        storage_threads: ThreadLimiter,
        metrics: JobMetrics,
        now: clock.Clock,
        *,
        voiceprints_on_request: bool,
    ) -> None:
        """``voiceprints_on_request``: a client may have the embeddings of speakers kept."""
        self._backend, self._queue, self._store = backend, backend.queue, backend.store
        self._recordings = backend.persistent_recordings
        self._open_recording = opener_in_threads(
            partial(open_unstored, roots=settings.audio_roots)
            if self._recordings is None
            else self._recordings.open
        )
        self._engine, self._probe, self._storage_threads = engine, probe, storage_threads
        self._copy_threads = OwnerThreads("copy", MAX_COPIES)
        self._metrics, self._now = metrics, now
        self.observer: SubmissionObserver | None = None
        """Told of each submission."""
        self._fits_elsewhere = settings.is_front  # a front leaves it to the nodes
        self._voiceprints, self._on_request = bool(settings.people), voiceprints_on_request
        self._audio_roots = settings.audio_roots
        self._max_audio_s = settings.max_audio_hours * 3600
        self._key_locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Locks of idempotency keys with a submission in progress."""
        self._queue_limit = settings.queue_limit
        self.reservations = reservations.Reservations(
            settings.queue_limit + 1, settings.upload_room_mb << 20
        )
        self._deletions = BackgroundTaskGroup()

    async def reserve_position(self, identity: Identity) -> reservations.Reservation:
        """Reserve a queue position for a recording, before the client sends its body.

        Raises:
            errors.QueueFull: the queue has no free position.
            errors.JobsLimited: the owner has as many jobs as it may.
        """
        await self._check_limits(identity)
        return self.reservations.reserve_position(identity.owner)

    async def reserve_unless_known(
        self, identity: Identity, key: str | None
    ) -> reservations.Reservation | None:
        """Reserve as `reserve_position`, but for a request whose idempotency key has its job: that
        needs no position, and takes none from others."""
        if key is not None and await self._store.by_key(identity.owner, key) is not None:
            return None
        return await self.reserve_position(identity)

    @property
    def full(self) -> bool:
        """Return whether the queue, with its reservations, accepts no more jobs. A queue that shuts
        down is not full: its waiting clients have to get that error instead."""
        try:
            self._queue.check_capacity(self.reservations.reserved)
        except errors.ShuttingDown:
            return False
        except errors.QueueFull:
            return True
        return False

    async def open_path(self, identity: Identity, path: str) -> AudioSource:
        """Open a recording on this machine by the path that a client sent.

        Raises:
            errors.AudioPathForbidden: the owner may not send paths.
            errors.BadRequest: the path has no readable file, or its disk does not answer.
            errors.MachineBusy: the disks of files that the owner named before do not answer.
        """
        identity.demand(Scope.AUDIO_PATH)
        return await self._probe.open(identity, path, self._audio_roots)

    async def measure(self, identity: Identity, source: AudioSource) -> float | None:
        """Return the seconds of a recording; None if only decoding would show them.

        Raises:
            errors.BadAudio: it cannot be transcribed.
        """
        return (await self.probe(identity, source, TranscribeOptions())).total_s

    async def probe(
        self, identity: Identity, source: AudioSource, options: TranscribeOptions
    ) -> AudioInfo:
        """Return the facts of a recording, with its audio tracks, and with its channels if the
        options separate these.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.FieldInvalid: it has no such track, or the channels are too many.
        """
        found = await self._probe.probe(identity, source, options.track)
        return found if found.channels == 1 else self._with_separate_channels(found, options)

    async def submit(
        self,
        identity: Identity,
        source: AudioSource,
        options: TranscribeOptions,
        reservation: reservations.Reservation | None = None,
        *,
        kept: bool = True,
        priority: Priority = Priority.INTERACTIVE,
        key: IdempotencyKey | None = None,
    ) -> Job:
        """Probe the recording and queue it as a job at its ``reservation``; the job then owns
        ``source``.

        ``kept``: whether the job can be read by its id, and its result fetched later. ``priority``:
        whether a person waits for this job, compared to others of the owner. ``key``: idempotency
        key.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.WontFit: there is not enough memory for it.
            errors.QueueFull: the queue has no free position.
            errors.JobsLimited, errors.AudioLimited: the owner may have no more.
            errors.DiskFull, errors.SpoolUnwritable, errors.JournalUnreachable: it cannot be
                persisted; there is no job.
        """
        record = None
        submission = self.observer.begun() if self.observer is not None else None
        try:
            with reservation or await self.reserve_position(identity) as reserved:
                audio_info = await self._probe.probe(identity, source, options.track)
                if audio_info.channels > 1:
                    audio_info = self._with_separate_channels(audio_info, options)
                if audio_info.tracks:
                    audio_info = replace(audio_info, tracks=())
                admitted = await self._admit(identity, audio_info, options)
                own = source.spooled
                threads = self._storage_threads if own else self._copy_threads.of(identity.owner)
                recordings = self._recordings if kept or self._backend.shares else None
                record = JobRecord.submitted(
                    self._now(),
                    # A waiting client loses its connection with the power: no sync delays it.
                    recording_ref(source)
                    if recordings is None
                    else await recordings.store_in_thread(threads, source, synced=kept),
                    audio_info,
                    admitted,
                    owner=identity.owner,
                    kept=kept,
                    priority=priority,
                    key=key,
                    durable=recordings is not None,
                    name=source.name,
                )
                job = Job(source, record, self._open_recording)
                if self.observer is not None:
                    self.observer.entered(submission, record)
                await self._queue.submit(job, reservation=reserved)
        except BaseException as error:
            self._refuse(source, record, submission, error)
            raise
        self._metrics.submitted.add()
        return job

    async def submit_once(
        self,
        identity: Identity,
        source: AudioSource,
        options: TranscribeOptions,
        reservation: reservations.Reservation | None,
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
            async with self._key_locks.setdefault((identity.owner, key.name), asyncio.Lock()):
                known = await self._known(identity.owner, key)
                if known is None:
                    job = await self.submit(
                        identity,
                        source,
                        options,
                        reservation,
                        kept=True,
                        priority=priority,
                        key=key,
                    )
                    return job.record, False
        except DuplicateRequestKey:  # another service submitted the key a moment ago
            known = await self._known(identity.owner, key)
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

    async def _check_limits(self, identity: Identity) -> None:
        """Raise as `reserve_position` does, if the owner may not queue one more job."""
        self._queue.check_capacity(self.reservations.reserved, identity.owner)
        if identity.limits.jobs is None and not identity.limits.shares:
            return
        load = await self._store.load(identity.owner)
        reserved = self.reservations.owners[identity.owner]
        free = self._queue_limit - self._queue.depth
        reservations.check_jobs(identity, load.jobs + reserved)
        reservations.check_queue(
            identity, load.waiting + reserved, free - self.reservations.reserved
        )

    def _with_separate_channels(
        self, audio_info: AudioInfo, options: TranscribeOptions
    ) -> AudioInfo:
        """Return the facts with the channels that are transcribed one by one.

        Raises:
            errors.FieldInvalid: there are too many, or fewer than names.
            errors.AudioTooLong: they are too long together.
        """
        if options.channels is ChannelMode.MIX:
            return replace(audio_info, channels=1)
        check_channels(audio_info.channels, options)
        if (audio_info.work_s or 0.0) > self._max_audio_s:
            raise errors.AudioTooLong(
                f"Each of the {audio_info.channels} channels counts as a recording, and together "
                "they are longer than the limit.",
                hint="Send 'channels' with the value 'mix', or split the recording.",
            )
        return audio_info

    async def _admit(
        self, identity: Identity, audio_info: AudioInfo, options: TranscribeOptions
    ) -> TranscribeOptions:
        """Check the owner's limit of waiting audio. Return the options with a precision that
        fits, and with this service's setting for voiceprints and the hotwords of the client's
        token, since another service may run the job."""
        precision = options.precision
        if not self._fits_elsewhere:
            precision = self._engine.admit(options, audio_info.total_s)
        if identity.limits.queued_audio_s is not None:
            load = await self._store.load(identity.owner)
            reservations.check_audio(
                identity,
                audio_info.work_s,
                load.waiting_audio_s,
                load.least_s,
                audio_info.channels,
            )
        voiceprints = self._voiceprints or (self._on_request and options.voiceprints)
        own = precision, voiceprints, identity.hotwords
        if own == (options.precision, options.voiceprints, ()):
            return options
        return replace(
            options, precision=precision, voiceprints=voiceprints, token_hotwords=identity.hotwords
        )

    def _refuse(
        self,
        source: AudioSource,
        record: JobRecord | None,
        submission: Any,
        error: BaseException,
    ) -> None:
        if self.observer is not None:
            self.observer.refused(submission, record, error)
        source.close()
        unsure = self._backend.shares and not isinstance(
            error, DuplicateRequestKey | errors.QueueFull | errors.ShuttingDown
        )
        if record is not None and self._recordings is not None and not unsure:
            delete = self._recordings.delete
            self._deletions.spawn("discard", self._storage_threads.run(delete, record.audio))
