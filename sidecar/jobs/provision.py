"""One engine in its slot, and what each job of it gets: a precision, a memory plan, company.

`memory.admission` decides on snapshots; here they are taken, and what follows is done.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence

from sidecar.diagnostics.crash import CrashNotes, data_folder
from sidecar.engines.choice import WHISPER, Choice
from sidecar.jobs.job import Job
from sidecar.jobs.pace import LEAST_S
from sidecar.memory import devices
from sidecar.memory.admission import Admission, Memory
from sidecar.memory.devices import GpuMemory, GpuWatch, Holding, host_free_bytes
from sidecar.memory.forecast import Forecast
from sidecar.memory.placement import LoadPlan
from sidecar.memory.shape import ModelShape
from sidecar.settings import Settings
from sidecar.speech.engine import EngineSpec, LoadOptions, Precision, TranscribeOptions
from sidecar.workers.slot import EngineSlot, SlotState
from sidecar.workers.worker import Worker

log = logging.getLogger(__name__)

IN_STEP_S = 120.0
"""Longer recordings take their turns: who waits behind one learns when it begins."""
SENT_TOGETHER_S = 900.0
"""The same where others hear: a few of them keep several servers at work, and memory small."""


class Provision:
    """Owns the slot and the look at the device's memory."""

    def __init__(self, settings: Settings, choice: Choice) -> None:
        self._settings = settings
        self._gpu = GpuWatch(self._holding, _what_the_driver_says)
        if choice.checkpoint is not None and choice.spec.planned:
            self._gpu.begin()
        gpu = self._gpu.seen
        if choice.checkpoint is not None and not choice.spec.planned and settings.device != "cpu":
            gpu = _what_the_driver_says()
        self.spec = _on_this_machine(choice.spec, gpu)
        self._admission = _admission(settings, choice)
        precision = settings.precision
        if precision is Precision.AUTO and self._admission is not None:
            precision = self._admission.first_precision(self._memory(None))
        checkpoint = str(choice.checkpoint.folder) if choice.checkpoint else None
        self.slot = EngineSlot(
            self.spec,
            LoadOptions(precision, checkpoint, settings.device, upstream=choice.upstream),
            settings.keep_alive,
            self._place,
            self._look,
            self._note_crash,
        )
        self._crash_notes = CrashNotes(data_folder(settings.data_dir))

    @property
    def lead_s(self) -> float:
        """So long before a job is likely to end the next may be handed to the engine (`JobQueue`);
        nobody can tell that more exactly. Never where a plan is made of the memory that is free
        when a job begins."""
        return LEAST_S if self._admission is None else 0.0

    @property
    def gpu(self) -> GpuMemory | None:
        """The GPU as it was last seen, None where there is none."""
        return self._gpu.seen

    async def watch(self) -> None:
        """Go on looking at the GPU, until cancelled."""
        await self._gpu.go_on()

    def admitted(self, options: TranscribeOptions, audio_s: float | None) -> TranscribeOptions:
        """The options with a precision that fits; refuses what does not, before any work."""
        if self._admission is None:
            return options
        now = self._memory_now()
        precision = self._suited(options, audio_s, now)
        self._admission.planned(precision, audio_s, options, now)
        if options.precision is Precision.AUTO and precision is not self.slot.precision:
            return dataclasses.replace(options, precision=precision)
        return options

    def plan(self, job: Job, precision: Precision) -> TranscribeOptions:
        """The job's options with the plan for the memory that is there when it begins."""
        if self._admission is None:
            return job.options
        now = self._memory_now()
        return self._admission.planned(precision, job.facts.total_s, job.options, now)

    def guess(self, job: Job, precision: Precision) -> float | None:
        """Seconds of work of a job, as the plan for it says; None where nobody can tell."""
        if self._admission is None:
            return None
        now = self._memory_now()
        return self._admission.estimate(precision, job.facts.total_s, job.options, now)[0].seconds

    def company(self, waiting: Sequence[Job], precision: Precision) -> Sequence[Job]:
        """The first of the jobs, and those that can be heard in step with it: short ones, as many
        as there is memory for; none that leaves its words to chance.

        The rows of others change the last digits of its own, and a draw hangs on them.
        """
        pays = self._on_gpu or self.spec.remote
        most = self._settings.batch or (self.spec.together if pays else 1)
        if precision is Precision.FP16:  # may have to be widened in the middle of it
            most = 1
        short = [job for job in waiting if self._is_sociable(job)]
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

    def _is_sociable(self, job: Job) -> bool:
        length_s = job.facts.total_s or math.inf
        if self.spec.remote:
            return length_s <= SENT_TOGETHER_S
        return length_s <= IN_STEP_S and not job.options.temperature

    def forecast(self, audio_s: float | None, options: TranscribeOptions) -> Forecast:
        """Whether a recording of ``audio_s`` seconds fits, and how long it takes, from memory.

        Where nobody knows how long it is, it is taken for one of usual length.
        """
        if self._admission is None:
            precision = self.spec.resolve_precision(options.precision)
            return Forecast.small(
                self.spec, precision, audio_s, self._settings.max_audio_hours * 3600
            )
        now = self._memory_now()
        precision = self._suited(options, audio_s, now)
        return Forecast.planned(
            audio_s, *self._admission.estimate(precision, audio_s, options, now)
        )

    def _suited(self, options: TranscribeOptions, audio_s: float | None, now: Memory) -> Precision:
        """The precision for a job that came now: what it asks for, or what fits."""
        assert self._admission is not None
        precision = self.slot.resolve(options.precision, math.inf)
        if options.precision is Precision.AUTO:
            return self._admission.fitting_precision(precision, audio_s, options, now)
        return precision

    def _place(self, precision: Precision) -> LoadPlan:
        if self._admission is None:
            return LoadPlan()
        return self._admission.place(precision, self._memory_now())

    async def _look(self) -> None:
        """See what is free, for who plans by it."""
        if self._admission is not None:
            await self._gpu.look()

    def _holding(self) -> Holding | None:
        """What the engine's process holds; None while nobody knows how much of it is there."""
        if self._admission is None or self.slot.state is SlotState.LOADING:
            return None
        if self.slot.worker_pid is None:
            return Holding()
        taken = self._admission.loaded_bytes(self.slot.precision, self.slot.memory)
        return Holding(self.slot.worker_pid, taken)

    @property
    def _on_gpu(self) -> bool:
        return self._gpu.seen is not None and self._settings.device != "cpu"

    def _memory_now(self) -> Memory:
        return self._memory(self.slot.precision if self.slot.loaded else None)

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

    def _note_crash(self, worker: Worker) -> None:
        """What a bug report needs, without audio and text."""
        gpu = self._gpu.seen
        about = {
            "engine": self.spec.name,
            "precision": self.slot.precision.value,
            "memory_plan": dataclasses.asdict(self.slot.memory),
            "gpu": gpu and dataclasses.asdict(gpu),
        }
        self._crash_notes.write(worker.name, worker.exit_code, worker.last_lines, about)


def _what_the_driver_says() -> GpuMemory | None:
    """The GPU; whatever goes wrong with asking is a driver that does not answer."""
    try:
        return devices.gpu_memory()
    except Exception as error:
        log.warning("the GPU's driver cannot be asked: %r", error)
        return None


def _on_this_machine(spec: EngineSpec, gpu: GpuMemory | None) -> EngineSpec:
    """Where bf16 is at hand it takes the place of fp16: as wide, and it does not overflow.

    Without a GPU CTranslate2 has no fp16, and fp32 takes its place.
    """
    if spec.name == WHISPER and gpu is None:
        return dataclasses.replace(spec, stands_for={Precision.FP16: Precision.FP32})
    if Precision.BF16 not in spec.precisions or (gpu is not None and not gpu.bf16):
        return spec
    return dataclasses.replace(spec, stands_for={Precision.FP16: Precision.BF16})


def _admission(settings: Settings, choice: Choice) -> Admission | None:
    """Who decides about memory, for an engine whose checkpoint is known."""
    if choice.checkpoint is None or not choice.spec.planned:
        return None
    limit = settings.memory_limit_mb and settings.memory_limit_mb << 20
    shape = ModelShape.from_config(choice.checkpoint.config)
    return Admission(shape, choice.spec.precisions, limit)
