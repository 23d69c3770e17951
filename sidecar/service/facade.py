"""Service facade: what protocols call; health, erasure, traces.

It knows no protocol. The client's identity is the first argument of every call. Parts that only
some settings need are imported where they are created: every service waits for its imports.

A recording goes through ``submissions``, ``queue`` and an engine of ``fleet`` to a worker
process, live audio through a session of ``live``; docs/architecture.md has both paths.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sidecar import clock
from sidecar.auth.identity import Identity, Scope
from sidecar.concurrency import BackgroundTaskGroup, ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import (
    MOONSHINE,
    MOONSHINE_WHISPER,
    WHISPER,
    EngineChoice,
)
from sidecar.errors import (
    EngineStuck,
    EngineUnavailable,
    SidecarError,
    StorageUnreachable,
)
from sidecar.interfaces.engine_interface import (
    EngineSpec,
    Precision,
    TranscribeOptions,
    TtsSpec,
)
from sidecar.interfaces.request_options import parse_options, parse_precision, with_ignored_notices
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_runner import Job, JobUnsuited
from sidecar.jobs.job_store import BackendParts, JobBackend
from sidecar.jobs.local_jobs import LocalJobBackend
from sidecar.jobs.owned_jobs import OwnedJobs, OwnedRecordings, TranscriptEditor
from sidecar.jobs.submission import JobSubmissions
from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.observability import health, metrics
from sidecar.service.default_hotwords import DefaultHotwords
from sidecar.service.enrolled_speakers import EnrolledSpeakers, local_store
from sidecar.service.live_session_archive import LiveSessionArchive
from sidecar.service.local_models import LocalModels
from sidecar.storage.speaker_store import SpeakerStore
from sidecar.transcripts.transcript import Transcript
from sidecar.workers.audio_probe import AudioProbe
from sidecar.workers.engine_fleet import EngineFleet
from sidecar.workers.engine_lease import EngineState
from sidecar.workers.model_registry import ModelRegistry

RECORDING_HANGS = "recording_hangs"
"""Reason of a pause: the engine waits for the disk of a recording."""
SLOW_READ_S = 10.0
"""Seconds of one read from which on this is reported."""


log = logging.getLogger(__name__)

MAX_CONCURRENT_SPOOLS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedJobs:
    """Jobs and enrolled speakers that several services share. Both functions raise
    `errors.SettingsInvalid`."""

    create_backend: Callable[[BackendParts], JobBackend]
    create_speaker_store: Callable[[], SpeakerStore]


class ServicePart(Protocol):
    """What a plugin has once in each service, such as its registry of clients."""

    def health(self) -> dict[str, Any]:
        """Return its fields of `/health`, beside those of the core."""

    async def close(self) -> None:
        """Release everything; live sessions are closed before."""


class Service:
    """Components behind all protocols, opened and closed together."""

    def __init__(
        self,
        settings: Settings,
        choice: EngineChoice[EngineSpec],
        now: clock.Clock = clock.wall_time,
        live: EngineChoice[EngineSpec] | None = None,
        voice: EngineChoice[TtsSpec] | None = None,
        shared: SharedJobs | None = None,
    ) -> None:
        """``choice``: the engine for files. ``live``: the engine for live audio, or None.
        ``voice``: the TTS engine, or None. ``shared``: the jobs that this service shares, or None.

        Raises:
            errors.SettingsInvalid: a folder, a key, a database or a storage cannot be used.
        """
        self.settings = settings
        self.instance = uuid.uuid4().hex
        self.also: dict[str, Any] = {}
        """Other ports of the service, in the form of the ready line."""
        self.starting = True
        """True until the engines to preload are loaded."""
        self._background = BackgroundTaskGroup()
        self.spool_threads = ThreadLimiter("spool", MAX_CONCURRENT_SPOOLS)
        """Threads that write uploads to the local disk."""
        storage_threads = ThreadLimiter("storage", MAX_CONCURRENT_SPOOLS)
        self.fleet = EngineFleet(settings, choice, live, voice)
        self.models = ModelRegistry(settings, self.fleet.recognizers)
        self.local_models = LocalModels(self.models.folders, self.models.in_use)
        self.metrics = metrics.ServiceMetrics()
        self.audio_probe = AudioProbe(settings.max_audio_hours * 3600)
        """What it needs of audio outside of the engines."""
        speakers = shared.create_speaker_store() if shared is not None else local_store(settings)
        self.enrolled_speakers = EnrolledSpeakers(settings, self.audio_probe, speakers, now)
        self.job_engine = JobEngine(settings, self.fleet.files)
        parts = BackendParts(
            settings=settings,
            engine=self.job_engine,
            plan=self._planned,
            metrics=self.metrics.jobs,
            now=now,
            service_id=self.instance,
        )
        create_backend = shared.create_backend if shared is not None else LocalJobBackend
        self.backend: JobBackend = create_backend(parts)
        own_store = None if self.backend.shares else self.backend.store
        self._default_hotwords = DefaultHotwords(settings.hotwords, own_store)
        self.queue = self.backend.queue
        self.now = now
        self.submissions = JobSubmissions(
            settings,
            self.backend,
            self.job_engine,
            self.audio_probe,
            storage_threads,
            self.metrics.jobs,
            now,
            voiceprints_on_request=self.enrolled_speakers.by_consent,
        )
        self.owned = OwnedJobs(self.backend.store)
        self.edits = TranscriptEditor(self.owned, self.backend.store, self.audio_probe)
        recordings = self.backend.persistent_recordings
        self.recordings = OwnedRecordings(recordings)
        self.live_archive = LiveSessionArchive(
            settings, self.backend.store, recordings, self.spool_threads, storage_threads, now
        )
        self.live = SessionRegistry(
            live.spec if live is not None else None,
            lambda: self.fleet.live.lease(),
            settings,
            live_metrics=self.metrics.live,
            add_known_speakers=self.enrolled_speakers.with_enrolled_speakers_live,
            save=self.live_archive.save_session,
            new_recording=self.live_archive.new_recording,
            is_loaded=lambda: self.fleet.live.loaded,
        )
        self.tts = self.fleet.voice
        """TTS client; None without a TTS engine."""
        self.parts: list[ServicePart] = []
        """What plugins have of this service; the service closes them."""

    @property
    def spec(self) -> EngineSpec:
        """Return the spec of the engine for files, which `use_model` changes."""
        return self.fleet.files.model.spec

    async def open(self) -> None:
        """Start the background work; return at once."""
        await self.backend.open(self._background)
        self._background.spawn("query of the GPU", self.fleet.watch())
        if self.settings.preload and not self.settings.is_front:
            self._background.spawn("preload", self._preload())
        else:
            self.starting = False

    async def drain(self, grace_s: float) -> None:
        """Accept no more jobs and end those that wait. Running jobs have ``grace_s`` to end, and
        clients then have a moment to fetch their results."""
        await asyncio.gather(self.queue.drain(grace_s), self.live.drain(grace_s))
        if grace_s > 0:
            await self.backend.fetched()

    async def close(self) -> None:
        """Stop all work and release everything; an error of one does not keep the others open."""
        order = (
            self._background.close,
            self.live.close,
            *(part.close for part in self.parts),
            self.backend.close,
            self.enrolled_speakers.close,
            self.audio_probe.close,
            self.local_models.close,
            self.models.close,
            self.fleet.close,
        )
        async with AsyncExitStack() as stack:
            for close in reversed(order):
                stack.push_async_callback(close)

    def options(
        self, given: Mapping[str, object], known: Collection[str] | None = None
    ) -> TranscribeOptions:
        """Parse a client's options and check them against the engine. ``known``: as of
        `parse_options`.

        Raises:
            errors.BadRequest: an option is invalid, or not supported by this engine.
        """
        settings = self.settings
        options = parse_options(given, settings.diarization, settings.language, known)
        if (error := self.job_engine.refusal(options)) is not None:
            raise error
        return options

    async def erase(self, identity: Identity) -> dict[str, int]:
        """Delete the client's enrolled speakers, then its jobs (waiting and running ones end), then
        its finished live sessions. A repeated call is harmless, and completes an erasure that
        failed. Return the numbers of deleted jobs and enrolled speakers, and of the owner's live
        sessions still running.

        Raises:
            errors.JournalUnreachable: the erasure may be done or not.
            errors.DiskFull, errors.SidecarError: it cannot be written; deletions so far stay.
        """
        people = await self.enrolled_speakers.delete_all(identity)
        jobs = await self.owned.delete_all(identity)
        self.live.forget_over(identity.owner)
        going = sum(one.owner == identity.owner for one in self.live.going_on())
        return {"jobs": jobs, "people": people, "live_sessions": going}

    def noted(
        self, transcript: Transcript, options: TranscribeOptions, *, edited: bool = False
    ) -> Transcript:
        """Add notices to a transcript, perhaps an ``edited`` one, about options that the engine
        ignored."""
        spec = self.fleet.files.model.spec
        both = spec.name == MOONSHINE_WHISPER  # each of the two follows other options
        if both and transcript.engine in (MOONSHINE, WHISPER):  # a kept one may be of another
            spec = engine_spec(transcript.engine)
        return with_ignored_notices(spec, transcript, options, edited=edited)

    async def reload(self, identity: Identity, precision: str, *, now: bool = False) -> Precision:
        """Reload the engine at ``precision``; waiting jobs use it.

        The running job ends first, or with ``now`` goes back to the head of the queue, unless the
        reload is refused.

        Raises:
            errors.ScopeMissing: the client lacks the scope for it, or for ``now``.
            errors.EngineUnavailable: this service is a front; its nodes have the engines.
            errors.PrecisionUnknown, errors.PrecisionUnavailable: there is no such precision.
            errors.ReloadSuperseded: another reload was requested before this one had its turn.
            errors.WontFit: its memory does not fit; the old engine goes on serving.
            errors.ModelLoadFailed: it does not load; the old engine goes on serving.
        """
        identity.demand(Scope.RELOAD)
        if self.settings.is_front:
            raise EngineUnavailable(
                "This service is a front: it queues jobs for nodes and has no engine for them.",
                hint="Change 'precision' in the settings of the nodes and restart them one by one.",
            )
        if now:
            identity.demand(Scope.NOW)
        wanted = parse_precision(precision)
        if now:
            await self.fleet.files.check_room(wanted)
        reloading = asyncio.ensure_future(self.fleet.files.reload(wanted))
        if now:
            await asyncio.sleep(0)  # it takes its turn before the job gives up its own
            if not reloading.done():
                self.queue.interrupt()
        return await reloading

    async def use_model(
        self, identity: Identity, name: str, precision: str = Precision.AUTO
    ) -> Precision:
        """Load an installed model for recordings, after the running job; return its precision.

        Raises:
            errors.ScopeMissing: the client lacks the scope for it.
            errors.EngineUnavailable: this service shares its jobs with others, or the model's
                engine cannot run here.
            errors.PrecisionUnknown: there is no such precision.
            errors.SidecarError: as `ModelRegistry.use`; the old engine goes on serving.
        """
        identity.demand(Scope.RELOAD)
        if self.backend.shares:
            raise EngineUnavailable(
                "The services that share these jobs have one model.",
                hint="Change it in the settings of the nodes and restart them one by one.",
            )
        return await self.models.use(name, parse_precision(precision))

    @property
    def jobs_paused(self) -> str | None:
        """Return the code of the error because of which no job starts now, or no recording can be
        stored; or `RECORDING_HANGS`."""
        recordings = self.backend.persistent_recordings
        if (error := self.queue.paused) is not None:
            return error.code
        if recordings is not None and recordings.unanswered:
            return StorageUnreachable.code
        worker, in_use = self.fleet.files.worker, self.fleet.files.in_use
        reading = in_use and worker is not None and worker.reading_s > SLOW_READ_S
        return RECORDING_HANGS if reading else None

    @property
    def faults(self) -> Mapping[str, str]:
        """Return what jobs need and does not work now, and the code of the last error of each."""
        codes = {fault.value: error.code for fault, error in self.queue.faults.items()}
        recordings = self.backend.persistent_recordings
        if recordings is not None and recordings.unanswered:
            codes[StorageUnreachable.fault] = StorageUnreachable.code
        return codes

    @property
    def trouble(self) -> str | None:
        """Return why the service is not healthy: an engine that hangs and cannot be killed, or
        recent failures."""
        if any(one.state is EngineState.STUCK for one in self.fleet.engines.values()):
            return EngineStuck.code
        return health.health_problem(self.metrics.outcomes.lately(health.HEALTH_WINDOW_S))

    async def _planned(self, job: Job, precision: Precision) -> TranscribeOptions:
        """Return a starting job's options: with enrolled speakers, hotwords and memory plan."""
        record = job.record
        if (
            self.job_engine.refusal(record.options) is not None
        ):  # another model was loaded meanwhile
            raise JobUnsuited
        options = await self.enrolled_speakers.with_enrolled_speakers(
            record.options, record.owner, kept=record.kept
        )
        spec = self.fleet.files.model.spec
        if spec.hotwords or spec.steerable:  # `takes_hotwords`, without a call for each job
            options = await self._default_hotwords.added(options, record.owner, spec)
        mixed = record.audio_info.channels == 1  # separate ones are diarized one by one
        if record.kept and options.diarize and record.options.recognise and mixed:
            options = replace(options, keeps_diarization=True)
        return self.job_engine.plan(options, record.audio_info.total_s, precision)

    async def _preload(self) -> None:
        try:
            await self.fleet.files.preload()
        except SidecarError as error:
            log.error(
                "the engine could not be preloaded; the first request tries again: %s", error.detail
            )
        finally:
            self.starting = False
