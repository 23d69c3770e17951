"""An engine in this process, and sound for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import soundfile
import soxr

from sidecar.audio import Block
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    TranscribeOptions,
    TranscriptionRequest,
    UpstreamOptions,
)
from sidecar.transcripts.transcript import Finished, Transcript, TranscriptionEvent
from sidecar.upstream.upstream_engine import UpstreamEngine

RATE = 16_000


class Sound:
    """Samples as an engine gets them."""

    def __init__(self, samples: Block, rate: int = RATE) -> None:
        self.samples = samples
        self.rate = rate
        self.total_s: float | None = len(samples) / rate

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self.samples), RATE):
            yield self.samples[at : at + RATE]

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

    def __init__(self, *urls: str, **options: Any) -> None:
        self.engine = UpstreamEngine()
        list(self.engine.load(LoadOptions(upstream=UpstreamOptions(urls, **options))))

    def events(
        self,
        sound: Sound,
        cancelled: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> list[TranscriptionEvent]:
        heard = sound.at(self.engine.sample_rate)
        return list(
            self.engine.transcribe(
                TranscriptionRequest(heard, TranscribeOptions(**options), cancelled)
            )
        )

    def transcript(self, sound: Sound, **options: Any) -> Transcript:
        *_, last = self.events(sound, **options)
        assert isinstance(last, Finished)
        return last.transcript
