"""Engine of jobs: what fits into its memory, how many run at once, how long they take.

`gpu_memory.memory_admission` decides by snapshots of the memory, which the engine host takes.
"""

import math
from dataclasses import replace

from sidecar.concurrency import BackgroundTaskGroup
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import MOONSHINE
from sidecar.gpu_memory.memory_admission import MemoryState
from sidecar.gpu_memory.memory_plan import UNKNOWN_LENGTH_NOTE, UNMEASURED_NOTE, JobForecast
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs import duration_prediction
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_queue import DispatchOptions, JobQueue
from sidecar.jobs.job_runner import Job, OptionsPlanner
from sidecar.observability.logs import default_data_folder
from sidecar.transcripts.transcript import Progress
from sidecar.workers.engine_host import EngineHost


class JobEngine:
    """Engine of a ``host`` as the queue sees it."""

    def __init__(self, settings: Settings, host: EngineHost[EngineSpec]) -> None:
        self._settings, self._host = settings, host
        self.concurrency, self.long_concurrency = host.concurrency, host.long_concurrency
        """As of `JobQueue`."""
        self._admission = host.admission
        self.spec, self.slot = host.spec, host.slot
        self._duration_file = duration_prediction.DurationFile(
            default_data_folder(settings.data_dir)
        )
        self.predictor = duration_prediction.DurationPredictor(
            self.spec.name, host.model_name, self._duration_file.read()
        )
        host.on_switch = self._switched

    def _switched(self) -> None:
        """Take over the engine that was loaded instead of the earlier one."""
        self._admission, self.spec = self._host.admission, self._host.spec
        self.predictor.begin(self.spec.name, self._host.model_name)

    def queue(self, event_log: JobEventLog, plan: OptionsPlanner) -> JobQueue:
        """Return a queue that runs jobs here and writes to a log. ``plan``: planner of the options
        of a job at its begin."""
        return JobQueue(
            self.slot,
            event_log,
            DispatchOptions(plan, self._settings.max_audio_hours * 3600),
            limit=self._settings.queue_limit,
            concurrency=self.concurrency,
            long_concurrency=self.long_concurrency,
            guess=self._guess,
            predictor=self.predictor,
        )

    def admit(self, options: TranscribeOptions, audio_s: float | None) -> Precision:
        """Return the precision to request for a job, so that it fits.

        Raises:
            errors.WontFit: it does not fit.
        """
        if self._admission is None:
            return options.precision
        memory = self._host.memory_now()
        precision = self._choose_precision(options, audio_s, memory)
        self._admission.planned(precision, audio_s, options, memory)
        if options.precision is Precision.AUTO and precision is not self.slot.precision:
            return precision
        return options.precision

    def plan(
        self, options: TranscribeOptions, audio_s: float | None, precision: Precision
    ) -> TranscribeOptions:
        """Return a job's options with the plan for the memory that is free when it begins."""
        if self._admission is None:
            return options
        memory, beside = self._host.memory_now(), self.slot.shared_memory
        options = self._admission.planned(precision, audio_s, options, memory, beside)
        self._host.expect_peak(self._admission.peak_bytes(precision, audio_s, options))
        return options

    def _guess(self, job: Job, precision: Precision) -> float | None:
        """Return a job's seconds of work by its memory plan; None if unknown."""
        if self._admission is None:
            return None
        info, memory = job.audio_info, self._host.memory_now()
        estimate = self._admission.estimate(precision, info.total_s, job.options, memory)[0]
        return estimate.seconds and estimate.seconds * info.channels

    def forecast(
        self, audio_s: float | None, options: TranscribeOptions, channels: int = 1
    ) -> JobForecast:
        """Return whether a recording of ``audio_s`` seconds fits, and how long it takes, by the
        memory that is free now. ``channels``: those that are transcribed one by one.

        If its length is unknown, assume the usual length and return no time. Durations with and
        without speakers are not kept apart.
        """
        forecast = self._timed_forecast(audio_s, options, channels)
        forecast = forecast.with_note(self.spec.replacement(options.precision))
        quicker = self.spec.by_voices and not options.diarize
        return forecast.with_note("times are those with speakers" if quicker else "")

    def _timed_forecast(
        self, audio_s: float | None, options: TranscribeOptions, channels: int
    ) -> JobForecast:
        if self._admission is None:
            precision = self.slot.resolve(options.precision, math.inf)
            longest_s = self._settings.max_audio_hours * 3600
            forecast = self._host.footprint_forecast(precision, audio_s, longest_s)
            forecast = forecast or JobForecast.small(self.spec, precision, audio_s, longest_s)
        else:
            memory = self._host.memory_now()
            precision = self._choose_precision(options, audio_s, memory)
            estimate, others = self._admission.estimate(precision, audio_s, options, memory)
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
        if self.spec.name == MOONSHINE:
            paces = (
                duration_prediction.USUAL_WORK_PER_AUDIO_S,
                duration_prediction.DEFAULT_WORK_PER_AUDIO_S,
            )
            return forecast.with_usual_seconds(
                *(max(duration_prediction.MIN_JOB_S, work_s * pace) for pace in paces)
            )
        return forecast.with_note(UNMEASURED_NOTE)

    def _choose_precision(
        self, options: TranscribeOptions, audio_s: float | None, memory: MemoryState
    ) -> Precision:
        """Return the precision of a job that arrives now: the requested one, or one that fits."""
        assert self._admission is not None
        precision = self.slot.resolve(options.precision, math.inf)
        if options.precision is Precision.AUTO:
            return self._admission.fitting_precision(precision, audio_s, options, memory)
        return precision

    def remaining_s(
        self, progress: Progress, elapsed_s: float, resumed_s: float, channels: int = 1
    ) -> float | None:
        """Predict the seconds until a job ends that has this progress, and whose attempt has run
        for ``elapsed_s`` since ``resumed_s`` of the audio, of which it transcribes so many
        ``channels``."""
        precision, total_s = self.slot.precision, progress.audio_s_total
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
