"""Live sessions of an engine: one scheduler for all, with speaker labels from embeddings."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from sidecar.errors import LiveUnavailable

if TYPE_CHECKING:
    from sidecar.diarization.speaker_models import SpeakerModels
    from sidecar.interfaces.engine_interface import EngineSpec, Precision
    from sidecar.interfaces.live_events import LiveEventCallback, LiveSessionStart
    from sidecar.interfaces.live_options import LiveOptions
    from sidecar.live.runtime.live_scheduler import (
        EngineSession,
        LiveScheduler,
        RecognizeFunction,
    )
    from sidecar.live.runtime.vad import SileroVad


class LiveSessions:
    """Base class of engines that recognize segments of live speech."""

    sample_rate: int
    _speaker_models: SpeakerModels | None = None

    @property
    def speaker_models(self) -> SpeakerModels | None:
        """Return the models of diarization; None before the load."""
        return self._speaker_models

    def open(
        self, options: LiveOptions, start: LiveSessionStart, tell: LiveEventCallback
    ) -> EngineSession:
        """Open a live session.

        Raises:
            errors.LanguageUnsupported: this model does not support the language.
            errors.LiveUnavailable: voice activity detection is not available.
        """
        return self.scheduler.open(options, start, tell)

    @cached_property
    def scheduler(self) -> LiveScheduler:
        """Scheduler of all live sessions, started when it is first needed."""
        return self._start_scheduler()

    def _start_scheduler(self) -> LiveScheduler:
        raise NotImplementedError

    @cached_property
    def _vad(self) -> SileroVad:
        from sidecar.live.runtime.vad import load_vad

        return load_vad()

    @cached_property
    def _gap_vad(self) -> SileroVad | None:
        """Detector of speech between turns; None if this machine has none: turns do without."""
        try:
            return self._vad
        except LiveUnavailable:
            return None

    def _schedule(
        self,
        spec: EngineSpec,
        precision: Precision,
        recognize: RecognizeFunction,
        glimpse: RecognizeFunction | None = None,
        *,
        contexts: bool = False,
        **options: Any,
    ) -> LiveScheduler:
        """Start a scheduler; the arguments are those of `LiveRecognizers` and `LiveScheduler`."""
        from sidecar.diarization.speaker_models import SpeakerEncoder, load_models
        from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler
        from sidecar.live.runtime.speaker_changes import turns_within

        models = self._speaker_models or load_models()
        changes = partial(turns_within, models)
        recognizers = LiveRecognizers(recognize, glimpse, contexts, SpeakerEncoder(models), changes)
        options["rate"] = self.sample_rate
        return LiveScheduler(recognizers, self._vad, spec.name, precision.value, **options)
