"""What transports call: submit, cancel, reload, health. No wire is known here."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar import __version__
from sidecar import engines as registry
from sidecar.audio.source import AudioSource
from sidecar.engine import (
    Precision,
    TranscribeOptions,
    parse_precision,
)
from sidecar.errors import LanguageUnsupported, ModelLoadFailed
from sidecar.job import Job
from sidecar.jobs import JobQueue
from sidecar.options import ignored, parse_options
from sidecar.provision import Provision
from sidecar.runtime.choice import Choice
from sidecar.runtime.devices import GpuMemory
from sidecar.runtime.forecast import Forecast
from sidecar.runtime.intake import Intake
from sidecar.runtime.slot import SlotState
from sidecar.settings import Settings
from sidecar.transcript import Notice, Transcript

log = logging.getLogger(__name__)


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


class Service:
    """The parts behind every wire, opened and closed together."""

    def __init__(self, settings: Settings, choice: Choice) -> None:
        max_audio_s = settings.max_audio_hours * 3600
        self.settings = settings
        self.instance = uuid.uuid4().hex
        self._provision = Provision(settings, choice)
        self.spec, self._slot = self._provision.spec, self._provision.slot
        self._intake = Intake(max_audio_s)
        self._queue = JobQueue(
            self._slot,
            limit=settings.queue_limit,
            retention_s=settings.job_retention,
            max_s=max_audio_s,
            plan=self._provision.plan,
            company=self._provision.company,
        )
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start working; returns at once."""
        self._queue.open()
        self._spawn(self._provision.watch())
        if self.settings.preload:
            self._spawn(self._preload())

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs and tell those that wait; the running ones have ``grace_s`` to end."""
        await self._queue.drain(grace_s)

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
        options = parse_options(given, self.settings.diarization)
        if not self.spec.speaks(options.language):
            raise LanguageUnsupported(
                f"The engine '{self.spec.name}' does not know the language '{options.language}'.",
                hint=self._language_hint(options.language),
            )
        return options

    def check_room(self) -> None:
        """Raise `errors.QueueFull` before anybody sends a gigabyte for nothing."""
        self._queue.check_room()

    async def submit(self, source: AudioSource, options: TranscribeOptions) -> Job:
        """Look at the recording and give it a place in the queue, which then owns ``source``.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.WontFit: there is not enough memory for it.
            errors.QueueFull: there is no place.
        """
        try:
            self.check_room()
            facts = await self._intake.probe(source)
            job = Job(source, facts, self._provision.admitted(options, facts.total_s))
            self._queue.submit(job)
        except BaseException:
            source.close()
            raise
        return job

    def job(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            errors.JobNotFound: there is none.
        """
        return self._queue.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs that are remembered."""
        return self._queue.jobs()

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

        The job that runs ends first, or with ``now`` goes back to the head of the queue.

        Raises:
            errors.PrecisionUnknown, errors.PrecisionUnavailable: there is no such precision.
            errors.WontFit: there is no room for it; the old one serves on.
            errors.ModelLoadFailed: it does not load; the old one serves on.
        """
        wanted = parse_precision(precision)
        reloading = asyncio.ensure_future(self._slot.reload(wanted))
        if now:
            await asyncio.sleep(0)  # it takes its place before the job gives up its own
            self._queue.interrupt()
        await reloading
        return self._slot.precision

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
        )

    def _language_hint(self, tag: str) -> str:
        others = [spec.name for spec in registry.ENGINES if spec.languages and spec.speaks(tag)]
        known = ", ".join(self.spec.languages)
        if others:
            return f"It knows: {known}. Engines that know '{tag}': {', '.join(others)}."
        return f"It knows: {known}. No engine of this build is made for '{tag}'."

    async def _preload(self) -> None:
        try:
            await self._slot.preload()
        except ModelLoadFailed as error:
            log.error("preloading failed: %s; the first request will try again", error.detail)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
