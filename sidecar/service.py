"""What transports call: submit, cancel, reload, health. No wire is known here."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar import __version__
from sidecar.audio.source import AudioSource
from sidecar.engines.choice import Choice, way_to
from sidecar.errors import LanguageUnsupported, SidecarError
from sidecar.jobs.job import Job
from sidecar.jobs.provision import Provision
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.room import Body, Place, Room
from sidecar.jobs.store import JobStore
from sidecar.memory.devices import GpuMemory
from sidecar.memory.forecast import Forecast
from sidecar.settings import Settings
from sidecar.speech.engine import (
    Precision,
    TranscribeOptions,
    few,
    parse_precision,
)
from sidecar.speech.options import ignored, parse_options
from sidecar.speech.transcript import Notice, Transcript
from sidecar.threads import Threads
from sidecar.workers.intake import Intake
from sidecar.workers.slot import SlotState

log = logging.getLogger(__name__)

SPOOLING = 4
"""Uploads that are written to the disk side by side."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the service is. Never waits for anything."""

    version: str
    instance: str
    engine: str
    precision: str
    state: SlotState
    model_loaded: bool
    worker_pid: int | None
    loading: float | None
    gpu: GpuMemory | None
    jobs_waiting: int
    stopping: bool


class Service:
    """The parts behind every wire, opened and closed together."""

    def __init__(self, settings: Settings, choice: Choice) -> None:
        max_audio_s = settings.max_audio_hours * 3600
        self.settings = settings
        self.instance = uuid.uuid4().hex
        self._provision = Provision(settings, choice)
        self.spec, self._slot = self._provision.spec, self._provision.slot
        self._intake = Intake(max_audio_s)
        self._store = JobStore(settings.job_retention, settings.job_retention_mb << 20)
        self._queue = JobQueue(
            self._slot,
            self._store,
            limit=settings.queue_limit,
            max_s=max_audio_s,
            plan=self._provision.plan,
            company=self._provision.company,
        )
        self._room = Room(settings.queue_limit + 1, settings.upload_room_mb << 20)
        self.spooling = Threads("spool", SPOOLING)
        """Writes uploads to the disk."""
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start working; returns at once."""
        self._queue.open()
        self._spawn("look at the GPU", self._provision.watch())
        if self.settings.preload:
            self._spawn("preload", self._preload())

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs and tell those that wait; the running ones have ``grace_s`` to end, and
        their results a moment to be fetched."""
        await self._queue.drain(grace_s)

    async def broken(self) -> None:
        """Wait for a fault that only a new start of the service mends."""
        await self._queue.broken()

    async def close(self) -> None:
        """Stop working and leave nothing behind."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._queue.close()
        await self._intake.close()
        await self._slot.close()

    def options(self, given: Mapping[str, object]) -> TranscribeOptions:
        """The options that a client's fields mean, checked against the engine.

        Raises:
            errors.BadRequest: one of them means nothing, or nothing to this engine.
        """
        options = parse_options(given, self.settings.diarization, self.settings.language)
        if not self.spec.speaks(options.language):
            raise LanguageUnsupported(
                f"The engine '{self.spec.name}' does not know the language '{options.language}'.",
                hint=self._language_hint(options.language),
            )
        return options

    def place(self) -> Place:
        """Keep a place in the queue for a recording, before anybody sends a gigabyte for nothing.

        Raises:
            errors.QueueFull: there is none.
        """
        self._queue.check_room(self._room.promised)
        return self._room.place()

    def body(self) -> Body:
        """Begin to read an upload.

        Raises:
            errors.UploadsFull: too many are read already.
        """
        return self._room.body()

    async def open_path(self, path: str) -> AudioSource:
        """Open a recording that a client on this machine named.

        Raises:
            errors.BadRequest: there is none that may be read, or its disk does not answer.
        """
        return await self._intake.open(path, self.settings.audio_roots)

    async def submit(
        self,
        source: AudioSource,
        options: TranscribeOptions,
        place: Place | None = None,
        *,
        kept: bool = True,
    ) -> Job:
        """Look at the recording and give it its ``place`` in the queue, which then owns ``source``.

        ``kept``: whether the job can be asked for by its id, and its result fetched later.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.WontFit: there is not enough memory for it.
            errors.QueueFull: there is no place.
        """
        try:
            with place or self.place():
                facts = await self._intake.probe(source)
                options = self._provision.admitted(options, facts.total_s)
                job = Job(source, facts, options, kept=kept)
                self._queue.submit(job, promised=True)
        except BaseException:
            source.close()
            raise
        return job

    def job(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            errors.JobNotFound: there is none.
        """
        return self._store.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs that can be asked for, oldest first."""
        return self._store.all()

    async def answer(self, job: Job, render: Callable[[], bytes]) -> bytes:
        """What ``render`` makes of a job, without keeping anybody waiting; of one that has ended it
        is made once."""
        return await self._store.answer(job, render)

    def position(self, job: Job) -> int | None:
        """How many jobs go before this one; None when it does not wait."""
        return self._queue.position(job)

    def cancel(self, job: Job) -> None:
        """End a job."""
        self._queue.cancel(job)

    def noted(self, transcript: Transcript, options: TranscribeOptions) -> Transcript:
        """A transcript with what its client should know of how the wishes were met."""
        notices = []
        asked, name = options.precision, self.spec.name
        if asked not in (Precision.AUTO, transcript.precision):
            message = f"The engine '{name}' has no {asked} here; {transcript.precision} was used."
            if self.spec.resolve_precision(asked) is asked:  # somebody had it loaded anew
                message = f"Instead of {asked}, {transcript.precision} was used."
            notices.append(Notice("precision_substituted", message))
        if left_out := ignored(self.spec, options):
            fields = ", ".join(left_out)
            message = f"The engine '{name}' cannot follow these options: {fields}."
            notices.append(Notice("option_ignored", message))
        return transcript.noting(*notices)

    async def measure(self, source: AudioSource) -> float | None:
        """Seconds of a recording, None where only decoding it would tell.

        Raises:
            errors.BadAudio: it cannot be transcribed.
        """
        return (await self._intake.probe(source)).total_s

    def forecast(self, audio_s: float | None, options: TranscribeOptions) -> Forecast:
        """Whether a recording of ``audio_s`` seconds fits, and how long it takes, from memory.

        Where nobody knows how long it is, it is taken for one of usual length.
        """
        return self._provision.forecast(audio_s, options)

    async def reload(self, precision: str, *, now: bool = False) -> Precision:
        """Load the engine anew at ``precision``; jobs that wait run at it.

        The job that runs ends first, or with ``now`` goes back to the head of the queue; not for
        a reload that is refused.

        Raises:
            errors.PrecisionUnknown, errors.PrecisionUnavailable: there is no such precision.
            errors.ReloadSuperseded: somebody wanted another one before this one's turn came.
            errors.WontFit: there is no room for it; the old one serves on.
            errors.ModelLoadFailed: it does not load; the old one serves on.
        """
        wanted = parse_precision(precision)
        if now:
            await self._slot.check_room(wanted)
        reloading = asyncio.ensure_future(self._slot.reload(wanted))
        if now:
            await asyncio.sleep(0)  # it takes its place before the job gives up its own
            if not reloading.done():
                self._queue.interrupt()
        return await reloading

    def health(self) -> Health:
        """How things are, from memory."""
        return Health(
            version=__version__,
            instance=self.instance,
            engine=self.spec.name,
            precision=self._slot.precision.value,
            state=self._slot.state,
            model_loaded=self._slot.loaded,
            worker_pid=self._slot.worker_pid,
            loading=self._slot.loading,
            gpu=self._provision.gpu,
            jobs_waiting=self._queue.depth,
            stopping=self._queue.draining,
        )

    def _language_hint(self, tag: str) -> str:
        return f"It knows: {few(self.spec.languages)}. {way_to(tag, self.settings)}"

    async def _preload(self) -> None:
        try:
            await self._slot.preload()
        except SidecarError as error:
            log.error("preloading failed: %s; the first request will try again", error.detail)

    def _spawn(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Work in the background, until it ends or the service does; its failure is in the log."""

        def ended(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error("background work ended (%s)", what, exc_info=fault)

        task = asyncio.get_running_loop().create_task(work, name=what)
        self._background.add(task)
        task.add_done_callback(ended)
