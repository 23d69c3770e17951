"""Engine of jobs: what fits into its memory, how many run at once, how long they take.

`gpu_memory.memory_admission` decides by snapshots of the memory, which
`workers.engine_memory` takes.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial

from sidecar.concurrency import BackgroundTaskGroup
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import MOONSHINE, language_hint
from sidecar.errors import LanguageUnsupported, ModelUnsuited, SidecarError
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_plan import UNKNOWN_LENGTH_NOTE, UNMEASURED_NOTE, JobForecast
from sidecar.interfaces.engine_interface import (
    AUTO,
    EngineSpec,
    Precision,
    TranscribeOptions,
    abbreviate_names,
)
from sidecar.jobs import duration_prediction
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import JobQueue
from sidecar.jobs.job_runner import Job, OptionsPlanner
from sidecar.jobs.wait_queue import QueueOptions
from sidecar.observability.logs import default_data_folder
from sidecar.transcripts.transcript import Progress
from sidecar.workers.role_engine import RoleEngine

ENGINE, LANGUAGE, TRANSLATE = "engine:", "language:", "translate"
ANY_LANGUAGE = f"{LANGUAGE}*"
"""Words of what engines can do, and of what jobs need; the last stands for all languages."""


class JobEngine:
    """An ``engine`` as the queue sees it."""

    def __init__(self, settings: Settings, engine: RoleEngine[EngineSpec]) -> None:
        self._settings, self.engine = settings, engine
        self._duration_file = duration_prediction.DurationFile(
            default_data_folder(settings.data_dir)
        )
        self.predictor = duration_prediction.DurationPredictor(
            lambda precision: replace(engine.coming.duration_key, precision=precision),
            self._duration_file.read(),
        )

    @property
    def spec(self) -> EngineSpec:
        """Return the spec of the model's engine."""
        return self.engine.model.spec

    @property
    def capabilities(self) -> Sequence[str]:
        """Return the words of what the model can do."""
        spec = self.spec
        languages = [f"{LANGUAGE}{one}" for one in spec.languages] or [ANY_LANGUAGE]
        return [f"{ENGINE}{spec.name}", *languages, *([TRANSLATE] if spec.translates else [])]

    def queue(self, event_log: JobEventLog, plan: OptionsPlanner) -> JobQueue:
        """Return a queue that runs jobs here and writes to a log. ``plan``: planner of the options
        of a job at its begin."""
        options = QueueOptions(
            plan=plan,
            max_s=self._settings.max_audio_hours * 3600,
            limit=self._settings.queue_limit,
            concurrency=self.engine.concurrency,
            long_concurrency=self.engine.long_concurrency,
            guess=self._guess,
            predictor=self.predictor,
            refusal=self.refusal,
        )
        return JobQueue(self.engine, event_log, options)

    def refusal(self, options: TranscribeOptions) -> SidecarError | None:
        """Return why the model cannot do what is asked for; None if it can."""
        needs = needs_of(options)
        return self.refusal_of(needs, self.capabilities) if needs else None

    def refusal_of(self, needs: Iterable[str], can: Collection[str]) -> SidecarError | None:
        """As `engine_refusal`, with this service's hints."""
        return engine_refusal(needs, can, partial(language_hint, settings=self._settings))

    def admit(self, options: TranscribeOptions, audio_s: float | None) -> Precision:
        """Return the precision to request for a job, so that it fits.

        Raises:
            errors.WontFit: it does not fit.
        """
        if (admission := self.engine.coming.admission) is None:
            return options.precision
        memory = self.engine.memory.now(self.engine.coming)
        precision = self._choose_precision(admission, options, audio_s, memory)
        admission.planned(precision, audio_s, options, memory)
        if options.precision is Precision.AUTO and precision is not self.engine.coming.precision:
            return precision
        return options.precision

    def plan(
        self, options: TranscribeOptions, audio_s: float | None, precision: Precision
    ) -> TranscribeOptions:
        """Return a job's options with the plan for the memory that is free when it begins."""
        if (admission := self.engine.model.admission) is None:
            return options
        memory, beside = self.engine.memory.now(self.engine.model), self.engine.memory_plan
        shared = beside if beside.places else None
        options = admission.planned(precision, audio_s, options, memory, shared)
        self.engine.memory.expect_peak(admission.peak_bytes(precision, audio_s, options))
        return options

    def _guess(self, job: Job, precision: Precision) -> float | None:
        """Return a job's seconds of work by its memory plan; None if unknown."""
        if (admission := self.engine.coming.admission) is None:
            return None
        info, memory = job.record.audio_info, self.engine.memory.now(self.engine.coming)
        estimate = admission.estimate(precision, info.total_s, job.record.options, memory)[0]
        return estimate.seconds and estimate.seconds * info.channels

    def work_s(self, audio_s: float | None) -> float:
        """Predict the seconds of work of a recording with the model that is loaded."""
        return self.predictor.seconds(self.engine.coming.precision, audio_s)

    def forecast(
        self, audio_s: float | None, options: TranscribeOptions, channels: int = 1
    ) -> JobForecast:
        """Return whether a recording of ``audio_s`` seconds fits, and how long it takes, by the
        memory that is free now. ``channels``: those that are transcribed one by one.

        If its length is unknown, assume the usual length and return no time. Durations with and
        without speakers are not kept apart.
        """
        forecast = self._timed_forecast(audio_s, options, channels)
        forecast = forecast.with_note(self.engine.coming.spec.replacement(options.precision))
        quicker = self.engine.coming.spec.by_voices and not options.diarize
        return forecast.with_note("times are those with speakers" if quicker else "")

    def _timed_forecast(
        self, audio_s: float | None, options: TranscribeOptions, channels: int
    ) -> JobForecast:
        if (admission := self.engine.coming.admission) is None:
            precision = self.engine.resolve(options.precision, math.inf)
            longest_s = self._settings.max_audio_hours * 3600
            model = self.engine.coming.at(precision)
            forecast = self.engine.memory.footprint_forecast(model, audio_s, longest_s)
            forecast = forecast or JobForecast.small(
                self.engine.coming.spec, precision, audio_s, longest_s
            )
        else:
            memory = self.engine.memory.now(self.engine.coming)
            precision = self._choose_precision(admission, options, audio_s, memory)
            estimate, others = admission.estimate(precision, audio_s, options, memory)
            if estimate.seconds is not None:
                estimate = replace(estimate, seconds=channels * estimate.seconds)
            forecast = JobForecast.planned(audio_s, estimate, others)
        if forecast.seconds is not None or not forecast.fits:
            return forecast
        if audio_s is None:
            return forecast.with_note(UNKNOWN_LENGTH_NOTE)
        work_s = channels * audio_s
        if self.predictor.knows(forecast.precision):
            return forecast.with_seconds(self.predictor.seconds(forecast.precision, work_s))
        if self.engine.coming.spec.name == MOONSHINE:
            paces = (
                duration_prediction.USUAL_WORK_PER_AUDIO_S,
                duration_prediction.DEFAULT_WORK_PER_AUDIO_S,
            )
            return forecast.with_usual_seconds(
                *(max(duration_prediction.MIN_JOB_S, work_s * pace) for pace in paces)
            )
        return forecast.with_note(UNMEASURED_NOTE)

    def _choose_precision(
        self,
        admission: MemoryAdmission,
        options: TranscribeOptions,
        audio_s: float | None,
        memory: MemoryState,
    ) -> Precision:
        """Return the precision of a job that arrives now: the requested one, or one that fits."""
        precision = self.engine.resolve(options.precision, math.inf)
        if options.precision is Precision.AUTO:
            return admission.fitting_precision(precision, audio_s, options, memory)
        return precision

    def remaining_s(
        self, progress: Progress, elapsed_s: float, resumed_s: float, channels: int = 1
    ) -> float | None:
        """Predict the seconds until a job ends that has this progress, and whose attempt has run
        for ``elapsed_s`` since ``resumed_s`` of the audio, of which it transcribes so many
        ``channels``."""
        precision, total_s = self.engine.model.precision, progress.audio_s_total
        known = self.predictor.knows(precision)
        audio_s = total_s and total_s * channels
        work_s = self.predictor.seconds(precision, audio_s) if known else None
        resumed = progress.fraction_at(resumed_s) or 0.0
        return duration_prediction.estimate_remaining_s(
            work_s, elapsed_s, progress.fraction, resumed
        )

    def open(self, background: BackgroundTaskGroup) -> None:
        """Persist the durations at intervals."""
        background.spawn("remember the durations", self._duration_file.run(self.predictor))

    async def close(self) -> None:
        """Persist the durations."""
        await self._duration_file.persist(self.predictor.fits)


def needs_of(options: TranscribeOptions) -> Sequence[str]:
    """Return the words of what a job needs of an engine."""
    tag = options.language
    language = [] if tag == AUTO else [f"{LANGUAGE}{tag.split('-')[0].lower()}"]
    return [*language, *([TRANSLATE] if options.translate else [])]


def unmet_needs(needs: Iterable[str], can: Collection[str]) -> Sequence[str]:
    """Return the needs that are not met."""
    any_language = ANY_LANGUAGE in can
    return [
        need
        for need in needs
        if need not in can and not (any_language and need.startswith(LANGUAGE))
    ]


def engine_refusal(
    needs: Iterable[str], can: Collection[str], hint: Callable[[str], str]
) -> SidecarError | None:
    """Return why an engine cannot do a job; None if it can. ``hint``: what to do for a language
    that it does not know."""
    unmet, engine = unmet_needs(needs, can), "".join(_words(can, ENGINE))
    for need in unmet:
        if need.startswith(LANGUAGE):
            tag = need.removeprefix(LANGUAGE)
            return LanguageUnsupported(
                f"The engine '{engine}' does not support the language '{tag}'.",
                hint=f"It knows: {abbreviate_names(_words(can, LANGUAGE))}. {hint(tag)}",
            )
    if TRANSLATE in unmet:
        return ModelUnsuited(f"The engine '{engine}' does not translate.")
    return None


def _words(can: Iterable[str], kind: str) -> tuple[str, ...]:
    return tuple(one.removeprefix(kind) for one in can if one.startswith(kind))
