"""An engine in this process, and sound for it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import soundfile
import soxr
from engine_requests import SampleStream, request_of, transcript_of
from service_process import PATIENCE_S

from sidecar.audio import Block
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions, UpstreamOptions
from sidecar.plugins.upstream.engine import UpstreamEngine
from sidecar.plugins.upstream.load_balancer import FailoverLimits
from sidecar.transcripts.transcript import Transcript, TranscriptionEvent

RATE = 16_000
PATIENT_LIMITS = FailoverLimits(
    min_backoff_s=0.05,
    unreachable_wait_s=0.5,
    probe_timeout_s=PATIENCE_S,
    stream_silence_timeout_s=2 * PATIENCE_S,
    extra_timeout_s=2 * PATIENCE_S,
)
"""A server that is gone is waited for only a moment; one that is there and has no processor for a
while is not taken for gone, nor for too slow."""


class Sound(SampleStream):
    """Samples as an engine gets them, a second at a time."""

    def __init__(self, samples: Block, rate: int = RATE) -> None:
        super().__init__(samples, rate, block=RATE)

    def at(self, rate: int) -> Sound:
        """The same, as an engine that hears at ``rate`` gets it."""
        return (
            self if rate == self.rate else Sound(soxr.resample(self.samples, self.rate, rate), rate)
        )

    def wav(self) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, self.samples, RATE, format="WAV", subtype="PCM_16")
        return file.getvalue()


class Engine:
    """The engine with its upstreams, and what it makes of sound."""

    def __init__(self, *urls: str, limits: FailoverLimits = PATIENT_LIMITS, **options: Any) -> None:
        self.engine = UpstreamEngine(limits)
        list(self.engine.load(LoadOptions(upstream=UpstreamOptions(urls, **options))))

    def events(
        self, sound: Sound, cancelled: Callable[[], bool] = lambda: False, **options: Any
    ) -> list[TranscriptionEvent]:
        heard = sound.at(self.engine.sample_rate)
        request = request_of(heard, TranscribeOptions(**options), cancelled)
        return list(self.engine.transcribe(request))

    def transcript(self, sound: Sound, **options: Any) -> Transcript:
        return transcript_of(self.events(sound, **options))
