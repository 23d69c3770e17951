"""What transports call: submit, cancel, reload, health. No wire is known here.

Who asks comes first; the jobs of an owner are `owned`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar import __version__, clock
from sidecar.access.identity import Identity, Scope
from sidecar.audio.ref import AudioRef, Kept, ref_to
from sidecar.audio.source import AudioSource, Spool
from sidecar.captures.capture import Captures
from sidecar.diagnostics.crash import data_folder
from sidecar.diagnostics.tracing import traces_of
from sidecar.engines.choice import Choice, way_to
from sidecar.errors import EngineUnavailable, JournalUnreachable, LanguageUnsupported, SidecarError
from sidecar.jobs.allowance import Uploads, check_audio, check_jobs
from sidecar.jobs.counted import Counted
from sidecar.jobs.job import Job
from sidecar.jobs.keeping import Keeping, go_on
from sidecar.jobs.lane import Terms
from sidecar.jobs.once import Once
from sidecar.jobs.order import Priority
from sidecar.jobs.owned import OwnedJobs
from sidecar.jobs.pace import Pace
from sidecar.jobs.pace_file import PaceFile
from sidecar.jobs.parting import Edits
from sidecar.jobs.provision import Provision
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.record import JobRecord, RequestKey
from sidecar.jobs.recordings import Recordings
from sidecar.jobs.retention import Retention
from sidecar.jobs.room import Body, Place, Room
from sidecar.jobs.sharing import shared_queue
from sidecar.jobs.store import JobStore, KeyTaken, MemoryStore
from sidecar.jobs.talks import Talks
from sidecar.jobs.traced import JobTraces
from sidecar.memory.devices import GpuMemory
from sidecar.memory.forecast import Forecast
from sidecar.metering.outcomes import Thresholds, trouble
from sidecar.metering.tally import Tally
from sidecar.people.known import KnownVoices
from sidecar.sessions.registry import Sessions
from sidecar.sessions.session import Session
from sidecar.sessions.tape import Tape
from sidecar.sessions.traced import SessionTraces
from sidecar.sessions.witness import Observer
from sidecar.settings import FRONT, NODE, Settings
from sidecar.speech.engine import (
    EngineSpec,
    Precision,
    TranscribeOptions,
    few,
    parse_precision,
)
from sidecar.speech.options import ignored, parse_options
from sidecar.speech.transcript import Notice, Transcript
from sidecar.speech.voice import VoiceSpec
from sidecar.talk.registry import Conversations
from sidecar.threads import Threads
from sidecar.workers.fleet import Fleet, Role, Standing
from sidecar.workers.intake import Intake
from sidecar.workers.lifecycle import SlotState
from sidecar.workers.models import Models
from sidecar.workers.place import Place as EnginePlace

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
    live: Standing | None
    engines: dict[Role, Standing]
    jobs_waiting: int
    jobs_running: int
    live_sessions: int
    starting: bool
    """What was to be there before anybody comes is not yet there."""
    stopping: bool
    trouble: str | None
    """Why it is not healthy, by what came of its work lately."""
    also: dict[str, Any]
    """As `Service.also`."""


class Service:
    """The parts behind every wire, opened and closed together."""

    def __init__(
        self,
        settings: Settings,
        choice: Choice[EngineSpec],
        now: clock.Clock = clock.wall,
        live: Choice[EngineSpec] | None = None,
        voice: Choice[VoiceSpec] | None = None,
        places: Sequence[EnginePlace] = (),
    ) -> None:
        """``choice``: the engine for files; ``live``: the one for live audio, None without;
        ``voice``: the one that speaks; ``places``: where files are heard instead of here, with the
        same engine."""
        max_audio_s = settings.max_audio_hours * 3600
        self.settings = settings
        self._now = now
        self.instance = uuid.uuid4().hex
        self.fleet = Fleet(settings, choice, live, voice)
        """The engines, each for what it is there for."""
        choices = {Role.FILES.value: choice} | ({Role.LIVE.value: live} if live else {})
        self.models = Models(settings, self.fleet.lodgings, choices)
        """Which model each of them works with."""
        self.tally = Tally(
            Thresholds(
                settings.health_window,
                settings.health_min_events,
                settings.health_max_timeout_ratio,
                settings.health_min_success_ratio,
            )
        )
        """What happened since the start."""
        self._provision = Provision(settings, self.fleet.files)
        self.spec, self._slot = self._provision.spec, self._provision.slot
        self._intake = Intake(max_audio_s)
        self._keeping = Keeping(settings, now) if settings.keeps_jobs else None
        self._store: JobStore = self._keeping.store if self._keeping else MemoryStore(now)
        self._store.listen(Counted(self.tally.jobs), here=True)
        self._once = Once(self._store)
        self._pace_file = PaceFile(data_folder(settings.data_dir))
        model = choice.checkpoint.folder.name if choice.checkpoint else ""
        self._pace = Pace(self.spec.name, model, self._pace_file.read())
        queue = JobQueue(
            places or self.fleet.places,
            self._store,
            Terms(self._planned, max_audio_s, self._provision.company, self._provision.lead_s),
            limit=settings.queue_limit,
            guess=self._provision.guess,
            pace=self._pace,
        )
        shared = shared_queue(settings, self._keeping, self._provision, self._pace, queue, now)
        self.shares = shared is not None
        """Whether other services have the same jobs."""
        self.offers_voices = shared is None and not self.spec.remote
        """Whether a piece of a recording may be asked what its voices are like: not where others
        hear, nor where answers pass through a database."""
        self._queue = shared or queue
        """Who takes in: for this service, or for all that share its jobs."""
        self._results = Retention(
            self._store,
            settings.job_retention,
            settings.job_retention_mb << 20,
            settings.job_retention_count,
            own=shared.awaits if shared is not None else lambda record: True,
        )
        self.voices = KnownVoices(settings, self._intake, now)
        """What is known of who may speak."""
        self.owned = OwnedJobs(self._store, self._queue, self._results)
        """The jobs of whoever asks."""
        self.traces = traces_of(settings.traces, __version__)
        """Where is told what took how long: nowhere, mostly."""
        self._job_traces = None
        observers: list[Observer] = []
        if self.traces.on:
            files, hears = self.spec.name, live.spec.name if live is not None else ""
            self._job_traces = JobTraces(
                self.traces, self._store, files, lambda: self._slot.last_load(now()), now
            )
            observers.append(
                SessionTraces(self.traces, hears, lambda: self.fleet.live.last_load(now()), now)
            )
        self._captures = None
        if settings.capture and live is not None:
            self._captures = Captures(settings, live.spec.name, now)
            observers.append(self._captures)
        self.edits = Edits(self.owned, self._intake)
        """What is done to their transcripts."""
        self.live = Sessions.of(
            settings,
            self.fleet.live_spec,
            lambda: self.fleet.live.share(),
            self.tally.live,
            observers,
            self.voices.with_people_live,
            self._talk_kept,
            self._tape,
        )
        """The live sessions of everybody."""
        speaks = self.fleet.voice if self.fleet.voice_spec is not None else None
        self.conversations = Conversations(settings, self.live, speaks)
        """The conversations of everybody."""
        self.recordings = Recordings(self.owned, self._keeping)
        """What of them can be listened to."""
        self._room = Room(settings.queue_limit + 1, settings.upload_room_mb << 20)
        self._uploads = Uploads()
        self.also: dict[str, Any] = {}
        """Where else it is served, as the ready line says it: empty where by HTTP alone."""
        self.spooling = Threads("spool", SPOOLING)
        """Writes uploads to the disk."""
        self._starting = True
        self._talks = Talks(self._store, self._keeping, self.spooling, now)
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start working; returns at once."""
        if self._keeping is not None:
            await self._keeping.open_store()
        self._queue.open()
        if self._keeping is not None:
            ended = [record for record in self._store.all() if record.over]
            for record in sorted(ended, key=lambda one: one.touched):
                self._results.remember(record, self._now() - record.touched)
            if isinstance(self._queue, JobQueue):
                self._spawn("go on", go_on(self._keeping, self._queue, self.spooling))
        self._spawn("look at the GPU", self.fleet.watch())
        self._spawn("remember the pace", self._pace_file.run(self._pace))
        if self.settings.preload and self.settings.role != FRONT:
            self._spawn("preload", self._preload())
        else:
            self._starting = False

    async def drain(self, grace_s: float) -> None:
        """Take no more jobs and tell those that wait; the running ones have ``grace_s`` to end, and
        their results a moment to be fetched."""
        await asyncio.gather(self._queue.drain(grace_s), self.live.drain(grace_s))
        if grace_s > 0 and self.settings.role != NODE:
            await self._results.all_fetched()

    async def broken(self) -> None:
        """Wait for a fault that only a new start of the service mends."""
        await self._queue.broken()

    async def close(self) -> None:
        """Stop working and leave nothing behind."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.live.close()
        await self.conversations.close()
        if self._captures is not None:
            await asyncio.to_thread(self._captures.close)
        if self.traces.on:
            await asyncio.to_thread(self.traces.close)
        await self._queue.close()
        await asyncio.to_thread(self._pace_file.write, self._pace.known)
        self._results.close()
        self._store.close()
        self.voices.close()
        await self._intake.close()
        await self.models.close()
        await self.fleet.close()

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

    def place(self, caller: Identity, key: str | None = None) -> Place:
        """Keep a place in the queue for a recording, before anybody sends a gigabyte for nothing.

        ``key``: what the client calls its request; if its job is there already it needs none.

        Raises:
            errors.QueueFull: there is none.
            errors.JobsLimited: the caller has as many jobs as it may.
        """
        if key is None or not self._once.knows(caller.owner, key):
            self._queue.check_room(self._room.promised)
            check_jobs(caller, len(self._queue.of(caller.owner)) + self._room.owners[caller.owner])
        return self._room.place(caller.owner)

    def body(self, caller: Identity) -> Body:
        """Begin to read an upload.

        Raises:
            errors.UploadsFull: too many are read already.
            errors.UploadsLimited: the caller has uploaded as much as it may.
        """
        return self._room.body(self._uploads.begin(caller))

    async def seek(self, job_id: str) -> None:
        """Know of a job that another service may have taken in a moment ago, if there is one."""
        if self._keeping is not None:
            await self._keeping.seek(job_id)

    async def open_path(self, caller: Identity, path: str) -> AudioSource:
        """Open a recording that a client on this machine named.

        Raises:
            errors.AudioPathForbidden: the caller may not name files.
            errors.BadRequest: there is none that may be read, or its disk does not answer.
        """
        caller.demand(Scope.AUDIO_PATH)
        return await self._intake.open(path, self.settings.audio_roots)

    async def submit(
        self,
        caller: Identity,
        source: AudioSource,
        options: TranscribeOptions,
        place: Place | None = None,
        *,
        kept: bool = True,
        priority: Priority = Priority.INTERACTIVE,
        key: RequestKey | None = None,
    ) -> Job:
        """Look at the recording and give it its ``place`` in the queue, which then owns ``source``.

        ``kept``: whether the job can be asked for by its id, and its result fetched later.
        ``priority``: of the caller's jobs, whether somebody waits for this one. ``key``: what its
        client calls the request.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.WontFit: there is not enough memory for it.
            errors.QueueFull: there is no place.
            errors.JobsLimited, errors.AudioLimited: the caller may have no more.
        """
        record = None
        way = self._job_traces.begun() if self._job_traces is not None else None
        try:
            with place or self.place(caller):
                facts = await self._intake.probe(source)
                if self.settings.role != FRONT:  # who works says what fits
                    options = self._provision.admitted(options, facts.total_s)
                waiting = self._queue.of(caller.owner, running=False)
                check_audio(caller, facts.total_s, (each.facts.total_s for each in waiting))
                durable = self._keeping is not None and (kept or self.shares)
                record = JobRecord.submitted(
                    self._now(),
                    await self._kept(source) if durable else ref_to(source),
                    facts,
                    options,
                    owner=caller.owner,
                    kept=kept,
                    priority=priority,
                    key=key,
                    durable=durable,
                )
                job = Job(source, record)
                if self._job_traces is not None and way is not None:
                    self._job_traces.entered(way, record)
                self._queue.submit(job, promised=True)
        except BaseException as error:
            if self._job_traces is not None and way is not None:
                self._job_traces.refused(way, record, error)
            source.close()
            if record is not None and isinstance(record.audio, Kept):
                record.audio.forget()
            raise
        self.tally.jobs.submitted.add()
        try:
            await job.written()  # only then it is accepted
        except BaseException:
            self._queue.cancel(job)
            self._store.forget(job.id)  # whoever sends it again is not told of this one
            raise
        return job

    async def submit_once(
        self,
        caller: Identity,
        source: AudioSource,
        options: TranscribeOptions,
        place: Place,
        key: RequestKey,
        *,
        priority: Priority = Priority.INTERACTIVE,
    ) -> tuple[JobRecord, bool]:
        """The job of a request that may have come before, and whether it had: `submit` otherwise.

        Raises:
            errors.IdempotencyKeyReused: the key is that of another request.
            errors.SidecarError: as `submit`; the key is then free again.
        """
        try:
            async with self._once.turn(caller.owner, key) as known:
                if known is None:
                    job = await self.submit(
                        caller, source, options, place, priority=priority, key=key
                    )
                    return job.record, False
        except KeyTaken:  # by another service, a moment ago
            known = self._once.known(caller.owner, key)
            if known is None:  # and it is forgotten already
                raise JournalUnreachable() from None
        except BaseException:
            source.close()  # once more does nothing
            raise
        source.close()
        return known, True

    def _planned(self, job: Job, precision: Precision) -> TranscribeOptions:
        """A job's options when it begins: the plan for its memory, and who is known by then."""
        options = self._provision.plan(job, precision)
        return self.voices.with_people(options, job.record.owner, kept=job.record.kept)

    async def _talk_kept(self, session: Session, transcript: Transcript) -> str:
        """The id of the job that a live session becomes."""
        asked, tape = session.options, session.tape
        options = TranscribeOptions(
            language=asked.language,
            diarize=asked.diarize,
            prompt=asked.prompt,
            translate=asked.translate,
            words=asked.words,
            recognise=asked.recognise,
        )
        peaks = b"" if tape is None else tape.peaks
        sound = None if tape is None else await tape.recording()
        job = await self._talks.keep(session.owner, options, transcript, sound, peaks)
        return job.id

    async def keep_conversation(self, caller: Identity, transcript: Transcript) -> str:
        """The id of the job that a conversation becomes.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be kept; there is no job.
        """
        options = TranscribeOptions(language=transcript.language, diarize=True)
        return (await self._talks.keep(caller.owner, options, transcript)).id

    def _tape(self) -> Tape | None:
        """What takes the sound of a live session, where recordings are kept."""
        if self._keeping is None or not self.settings.keep_recordings_mb:
            return None
        most = self.settings.keep_recordings_mb << 20
        return Tape(Spool(self.settings.spool_dir), self.spooling, most)

    async def _kept(self, source: AudioSource) -> AudioRef:
        assert self._keeping is not None
        return await self.spooling.run(self._keeping.keep, source, uuid.uuid4().hex)

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

    async def reload(self, caller: Identity, precision: str, *, now: bool = False) -> Precision:
        """Load the engine anew at ``precision``; jobs that wait run at it.

        The job that runs ends first, or with ``now`` goes back to the head of the queue; not for
        a reload that is refused.

        Raises:
            errors.ScopeMissing: the caller may not do that, or not ``now``.
            errors.EngineUnavailable: others have the engine for which this service takes jobs in.
            errors.PrecisionUnknown, errors.PrecisionUnavailable: there is no such precision.
            errors.ReloadSuperseded: somebody wanted another one before this one's turn came.
            errors.WontFit: there is no room for it; the old one serves on.
            errors.ModelLoadFailed: it does not load; the old one serves on.
        """
        caller.demand(Scope.RELOAD)
        if self.settings.role == FRONT:
            raise EngineUnavailable(
                "This service takes jobs in for others, and has no engine for them.",
                hint="Start the nodes anew, one after the other, with another precision.",
            )
        if now:
            caller.demand(Scope.NOW)
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
        engines = self.fleet.standing()
        return Health(
            version=__version__,
            instance=self.instance,
            engine=self.spec.name,
            precision=self._slot.precision.value,
            state=self._slot.state,
            model_loaded=self._slot.loaded,
            worker_pid=self._slot.worker_pid,
            loading=self._slot.loading,
            gpu=self.fleet.gpu,
            live=engines.get(Role.LIVE),
            engines=engines,
            jobs_waiting=self._queue.depth,
            jobs_running=self._queue.running,
            live_sessions=len(self.live),
            starting=self._starting,
            stopping=self._queue.draining,
            trouble=trouble(self.tally.outcomes.lately(), self.tally.thresholds),
            also=dict(self.also),
        )

    def _language_hint(self, tag: str) -> str:
        return f"It knows: {few(self.spec.languages)}. {way_to(tag, self.settings)}"

    async def _preload(self) -> None:
        try:
            await self._slot.preload()
        except SidecarError as error:
            log.error("preloading failed: %s; the first request will try again", error.detail)
        finally:
            self._starting = False

    def _spawn(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Work in the background, until it ends or the service does; its failure is in the log."""

        def ended(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (fault := task.exception()) is not None:
                log.error("background work ended (%s)", what, exc_info=fault)

        task = asyncio.get_running_loop().create_task(work, name=what)
        self._background.add(task)
        task.add_done_callback(ended)
