"""What transports call: submit, cancel, reload, health. No wire is known here."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from sidecar import __version__
from sidecar import engines as registry
from sidecar.audio.source import AudioSource
from sidecar.engine import (
    AUTO,
    Diarization,
    EngineSpec,
    Precision,
    TranscribeOptions,
    parse_language,
    parse_precision,
)
from sidecar.errors import FieldInvalid, LanguageUnsupported, ModelLoadFailed
from sidecar.jobs import Job, JobQueue
from sidecar.runtime.devices import GpuMemory, gpu_memory
from sidecar.runtime.intake import Intake
from sidecar.runtime.slot import EngineSlot, SlotState
from sidecar.settings import Settings
from sidecar.transcript import Notice

log = logging.getLogger(__name__)

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


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
    gpu: GpuMemory | None
    jobs_waiting: int


class Service:
    """The parts behind every wire, opened and closed together."""

    def __init__(self, settings: Settings, spec: EngineSpec) -> None:
        max_audio_s = settings.max_audio_hours * 3600
        self.settings = settings
        self.spec = spec
        self.instance = uuid.uuid4().hex
        self._slot = EngineSlot(spec, settings.precision, settings.keep_alive)
        self._intake = Intake(max_audio_s)
        self._queue = JobQueue(
            self._slot,
            limit=settings.queue_limit,
            retention_s=settings.job_retention,
            max_s=max_audio_s,
        )
        self._gpu: GpuMemory | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start working; returns at once."""
        self._queue.open()
        self._spawn(self._watch_gpu())
        if self.settings.preload:
            self._spawn(self._preload())

    async def close(self) -> None:
        """Stop working and leave nothing behind."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._queue.close()
        await self._intake.close()
        await self._slot.close()

    def options(
        self,
        *,
        precision: str | None = None,
        language: str | None = None,
        diarize: str | bool | None = None,
        diarization: str | None = None,
    ) -> TranscribeOptions:
        """The options that a client's words mean, checked against the engine.

        Raises:
            errors.BadRequest: one of them means nothing, or nothing to this engine.
        """
        tag = parse_language(language or AUTO)
        if not self.spec.speaks(tag):
            raise LanguageUnsupported(
                f"The engine '{self.spec.name}' does not know the language '{tag}'.",
                hint=self._language_hint(tag),
            )
        return TranscribeOptions(
            precision=parse_precision(precision or AUTO),
            language=tag,
            diarize=parse_flag("diarize", diarize, default=True),
            diarization=parse_diarization(diarization, self.settings.diarization),
        )

    def check_room(self) -> None:
        """Raise `errors.QueueFull` before anybody sends a gigabyte for nothing."""
        self._queue.check_room()

    async def submit(self, source: AudioSource, options: TranscribeOptions) -> Job:
        """Look at the recording and give it a place in the queue, which then owns ``source``.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.QueueFull: there is no place.
        """
        try:
            self.check_room()
            facts = await self._intake.probe(source)
            job = Job(source, facts, options)
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

    def precision_notice(self, options: TranscribeOptions) -> Notice | None:
        """What to tell a client who asked for a precision that this engine lacks."""
        if options.precision is Precision.AUTO or options.precision in self.spec.precisions:
            return None
        used = self.spec.resolve_precision(options.precision)
        return Notice(
            "precision_substituted",
            f"The engine '{self.spec.name}' has no {options.precision}; {used} was used.",
        )

    async def reload(self, precision: str) -> Precision:
        """Load the engine anew at ``precision``; what runs now ends first.

        Raises:
            errors.PrecisionUnknown, errors.PrecisionUnavailable: there is no such precision.
            errors.ModelLoadFailed: it does not load; the old one serves on.
        """
        await self._slot.reload(parse_precision(precision))
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
            gpu=self._gpu,
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

    async def _watch_gpu(self) -> None:
        """Look at the GPU every few seconds, off the loop: drivers may take their time."""
        while True:
            self._gpu = await asyncio.to_thread(gpu_memory)
            if self._gpu is None:
                return
            await asyncio.sleep(2.0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def parse_flag(name: str, value: str | bool | None, *, default: bool) -> bool:
    """Yes or no, as clients write it.

    Raises:
        errors.FieldInvalid: it is neither.
    """
    if value is None or value == "":
        return default
    if isinstance(value, bool):
        return value
    word = value.strip().lower()
    if word not in _TRUE | _FALSE:
        raise FieldInvalid(f"'{name}' is neither true nor false.", hint="Send 'true' or 'false'.")
    return word in _TRUE


def parse_diarization(value: str | None, default: Diarization) -> Diarization:
    """The effort that a client asks for.

    Raises:
        errors.FieldInvalid: it is none.
    """
    if not value:
        return default
    try:
        return Diarization(value.strip().lower())
    except ValueError:
        raise FieldInvalid(
            "'diarization' has a value that is not possible.",
            hint=f"Use one of: {', '.join(Diarization)}.",
        ) from None
