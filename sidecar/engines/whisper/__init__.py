"""Whisper engine (faster-whisper) and its languages.

The model recognizes words, but not speakers. A diarizer follows the recording on another core. It
also detects speech, so that silence is not transcribed at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces import engine_interface
from sidecar.interfaces.live_events import LiveEventCallback, LiveSession, LiveSessionStart
from sidecar.interfaces.live_options import LiveOptions
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.diarization.speaker_models import SpeakerModels
    from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer
    from sidecar.engines.whisper.whisper_live import WhisperLiveRecognizer


LANGUAGES = (
    "af", "am", "ar", "as", "az", "ba", "be", "bg", "bn", "bo", "br", "bs", "ca", "cs", "cy",
    "da", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fo", "fr", "gl", "gu", "ha", "haw",
    "he", "hi", "hr", "ht", "hu", "hy", "id", "is", "it", "ja", "jw", "ka", "kk", "km", "kn",
    "ko", "la", "lb", "ln", "lo", "lt", "lv", "mg", "mi", "mk", "ml", "mn", "mr", "ms", "mt",
    "my", "ne", "nl", "nn", "no", "oc", "pa", "pl", "ps", "pt", "ro", "ru", "sa", "sd", "si",
    "sk", "sl", "sn", "so", "sq", "sr", "su", "sv", "sw", "ta", "te", "tg", "th", "tk", "tl",
    "tr", "tt", "uk", "ur", "uz", "vi", "yi", "yo", "zh", "yue",
)  # fmt: skip


SPEC = engine_interface.EngineSpec(
    name="whisper",
    title="Whisper (faster-whisper)",
    sample_rate=SAMPLE_RATE,
    precisions=(
        engine_interface.Precision.INT8,
        engine_interface.Precision.FP16,
        engine_interface.Precision.FP32,
    ),
    languages=LANGUAGES,
    diarizes=True,
    by_voices=True,
    requires=("faster_whisper", "ctranslate2"),
    steerable=True,
    translates=True,
    sessions=4,  # users who talk, with `tiny` on two cores; with `base` one (docs/models.md)
)


class WhisperEngine:
    """Whisper engine: recognized words and speaker turns, joined into segments."""

    def __init__(self) -> None:
        self.model: WhisperRecognizer | None = None
        self._voices: SpeakerModels | None = None
        self._thread = ThreadPoolExecutor(1, "whisper")
        self.live: WhisperLiveRecognizer | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the model onto its device.

        Raises:
            errors.ModelLoadFailed: it is missing or invalid, or does not fit.
        """
        if options.checkpoint is None:
            raise errors.ModelLoadFailed(
                "No Whisper model is set.", hint="Run 'vibevoice-asr pull whisper:small'."
            )
        yield 0.0
        from sidecar.engines.whisper import whisper_decoder

        self.model = whisper_decoder.load_whisper(options)
        yield 0.8
        from sidecar.diarization.speaker_models import load_models

        self._voices = load_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as windows are recognized; their speakers are final at the end."""
        from sidecar.diarization.diarizer import Diarizer
        from sidecar.engines.whisper.whisper_transcription import WhisperTranscription

        assert self.model is not None
        assert self._voices is not None
        follower = Diarizer.wished(self._voices, request.options)
        work = WhisperTranscription(self.model, self._thread, follower, request)
        for event in work.events():
            if request.cancelled():
                return
            yield event

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: LiveEventCallback
    ) -> LiveSession:
        """Open a live session.

        Raises:
            errors.LanguageUnsupported: this model does not support the language.
            errors.LiveUnavailable: voice activity detection is not available.
        """
        from sidecar.engines.whisper.whisper_live import WhisperLiveRecognizer

        assert self.model is not None
        assert self._voices is not None
        if self.live is None:
            self.live = WhisperLiveRecognizer(self.model, SPEC.name, self._voices)
        return self.live.open(options, begin, tell)
