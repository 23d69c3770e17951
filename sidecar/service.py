"""What transports call: submit, cancel, reload, health. No wire is known here."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar import __version__
from sidecar import engines as registry
from sidecar.audio.source import AudioSource
from sidecar.crash import CrashNotes, data_folder
from sidecar.engine import (
    EngineSpec,
    LoadOptions,
    Precision,
    TranscribeOptions,
    parse_precision,
)
from sidecar.errors import LanguageUnsupported, ModelLoadFailed
from sidecar.job import Job
from sidecar.jobs import JobQueue
from sidecar.options import ignored, parse_options
from sidecar.runtime.admission import Admission, Memory
from sidecar.runtime.choice import Choice
from sidecar.runtime.devices import GpuMemory, GpuWatch, Holding, host_free_bytes
from sidecar.runtime.forecast import Forecast
from sidecar.runtime.intake import Intake
from sidecar.runtime.placement import LoadPlan
from sidecar.runtime.shape import ModelShape
from sidecar.runtime.slot import EngineSlot, SlotState
from sidecar.runtime.worker import Worker
from sidecar.settings import Settings
from sidecar.transcript import Notice, Transcript

log = logging.getLogger(__name__)

IN_STEP_S = 120.0
"""Longer recordings take their turns: who waits behind one learns when it begins."""


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
        self._gpu = GpuWatch(self._holding)
        if choice.checkpoint is not None:
            self._gpu.begin()
        self.spec = _on_this_machine(choice.spec, self._gpu.seen)
        self._admission = _admission(settings, choice)
        precision = settings.precision
        if precision is Precision.AUTO and self._admission is not None:
            precision = self._admission.first_precision(self._memory(None))
        checkpoint = str(choice.checkpoint.folder) if choice.checkpoint else None
        self._slot = EngineSlot(
            self.spec,
            LoadOptions(precision, checkpoint, settings.device),
            settings.keep_alive,
            self._place,
            self._look,
            self._note_crash,
        )
        self._intake = Intake(max_audio_s)
        self._queue = JobQueue(
            self._slot,
            limit=settings.queue_limit,
            retention_s=settings.job_retention,
            max_s=max_audio_s,
            plan=self._plan,
            company=self._company,
        )
        self._crash_notes = CrashNotes(data_folder(settings.data_dir))
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start working; returns at once."""
        self._queue.open()
        self._spawn(self._gpu.go_on())
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
            job = Job(source, facts, self._admitted(options, facts.total_s))
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
        if self._admission is None:
            precision = self.spec.resolve_precision(options.precision)
            return Forecast.small(
                self.spec, precision, audio_s, self.settings.max_audio_hours * 3600
            )
        now = self._memory_now()
        precision = self._suited(options, audio_s, now)
        return Forecast.planned(
            audio_s, *self._admission.estimate(precision, audio_s, options, now)
        )

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
            gpu=self._gpu.seen,
            jobs_waiting=self._queue.depth,
        )

    def _admitted(self, options: TranscribeOptions, audio_s: float | None) -> TranscribeOptions:
        """The options with a precision that fits; refuses what does not, before any work."""
        if self._admission is None:
            return options
        now = self._memory_now()
        precision = self._suited(options, audio_s, now)
        self._admission.planned(precision, audio_s, options, now)
        if options.precision is Precision.AUTO and precision is not self._slot.precision:
            return dataclasses.replace(options, precision=precision)
        return options

    def _suited(self, options: TranscribeOptions, audio_s: float | None, now: Memory) -> Precision:
        """The precision for a job that came now: what it asks for, or what fits."""
        assert self._admission is not None
        precision = self._slot.resolve(options.precision, math.inf)
        if options.precision is Precision.AUTO:
            return self._admission.fitting_precision(precision, audio_s, options, now)
        return precision

    def _plan(self, job: Job, precision: Precision) -> TranscribeOptions:
        """The job's options with the plan for the memory that is there when it begins."""
        if self._admission is None:
            return job.options
        now = self._memory_now()
        return self._admission.planned(precision, job.facts.total_s, job.options, now)

    def _company(self, waiting: Sequence[Job], precision: Precision) -> Sequence[Job]:
        """The first of the jobs, and those that can be heard in step with it: short ones, as many
        as there is memory for."""
        most = self.settings.batch or (self.spec.together if self._on_gpu else 1)
        if precision is Precision.FP16:  # may have to be widened in the middle of it
            most = 1
        short = [job for job in waiting if (job.facts.total_s or math.inf) <= IN_STEP_S]
        if min(most, len(short)) < 2 or waiting[0] not in short:
            return waiting[:1]
        jobs = short[: min(most, self.spec.together)]
        if self._admission is not None:
            now = self._memory_now()
            recordings = [(job.facts.total_s or 0.0, job.options) for job in jobs]
            while len(jobs) > 1 and not self._admission.fits_together(
                precision, recordings[: len(jobs)], now
            ):
                jobs.pop()
        return jobs

    def _place(self, precision: Precision) -> LoadPlan:
        if self._admission is None:
            return LoadPlan()
        return self._admission.place(precision, self._memory_now())

    @property
    def _on_gpu(self) -> bool:
        return self._gpu.seen is not None and self.settings.device != "cpu"

    def _memory_now(self) -> Memory:
        return self._memory(self._slot.precision if self._slot.loaded else None)

    def _memory(self, held: Precision | None) -> Memory:
        """The device's memory as it was last looked at."""
        gpu = self._gpu.seen
        if gpu is None or not self._on_gpu:
            return Memory(host_free_bytes(), held, on_gpu=False)
        return Memory(
            gpu.free_bytes,
            held,
            on_gpu=True,
            bandwidth=gpu.bandwidth,
            own_bytes=self._gpu.own_bytes,
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

    def _note_crash(self, worker: Worker) -> None:
        """What a bug report needs, without audio and text."""
        gpu = self._gpu.seen
        about = {
            "engine": self.spec.name,
            "precision": self._slot.precision.value,
            "memory_plan": dataclasses.asdict(self._slot.memory),
            "gpu": gpu and dataclasses.asdict(gpu),
        }
        self._crash_notes.write(worker.name, worker.exit_code, worker.last_lines, about)

    async def _look(self) -> None:
        """See what is free, for who plans by it."""
        if self._admission is not None:
            await self._gpu.look()

    def _holding(self) -> Holding | None:
        """What the engine's process holds; None while nobody knows how much of it is there."""
        if self._admission is None or self._slot.state is SlotState.LOADING:
            return None
        if self._slot.worker_pid is None:
            return Holding()
        taken = self._admission.loaded_bytes(self._slot.precision, self._slot.memory)
        return Holding(self._slot.worker_pid, taken)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _on_this_machine(spec: EngineSpec, gpu: GpuMemory | None) -> EngineSpec:
    """Where bf16 is at hand it takes the place of fp16: as wide, and it does not overflow."""
    if Precision.BF16 not in spec.precisions or (gpu is not None and not gpu.bf16):
        return spec
    return dataclasses.replace(spec, stands_for={Precision.FP16: Precision.BF16})


def _admission(settings: Settings, choice: Choice) -> Admission | None:
    """Who decides about memory, for an engine whose checkpoint is known."""
    if choice.checkpoint is None:
        return None
    limit = settings.memory_limit_mb and settings.memory_limit_mb << 20
    shape = ModelShape.from_config(choice.checkpoint.config)
    return Admission(shape, choice.spec.precisions, limit)
