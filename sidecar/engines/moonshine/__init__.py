"""The embedded engine: moonshine-voice, recognition and speaker identification, weights inside.

Runs on any CPU, English only. A recording goes through in windows, so that memory is flat at any
length; a stretch of speech is recognized as soon as it ends, so that segments come while it works.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar.engine import (
    AudioStream,
    Cancelled,
    EngineSpec,
    LoadOptions,
    Precision,
    TranscribeOptions,
)
from sidecar.engines.moonshine import recognizer as recognition
from sidecar.engines.moonshine.library import SAMPLE_RATE, load_library
from sidecar.engines.moonshine.listener import WINDOW_S, Listener, cadence, library_options
from sidecar.engines.moonshine.recent import RecentAudio
from sidecar.engines.moonshine.recognizer import Recognizer
from sidecar.engines.moonshine.transcription import Transcription
from sidecar.transcript import Event, Finished, Transcript

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber

SPEC = EngineSpec(
    name="moonshine",
    title="Embedded CPU engine (moonshine tiny-en)",
    sample_rate=SAMPLE_RATE,
    precisions=(Precision.INT8,),  # the wheel's weights are quantized to 8 bits
    languages=("en",),
    diarizes=True,
    requires=("moonshine_voice",),
)


class MoonshineEngine:
    """Text from the recognizer, voices from the listener, joined into segments."""

    def __init__(self) -> None:
        self._recognizer: Recognizer | None = None
        self._listening: dict[float | None, Transcriber] = {}

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Bring the recognition model into memory (about 0.2 s)."""
        self._recognizer = Recognizer(load_library(recognition.OPTIONS))
        yield 1.0

    def transcribe(
        self, audio: AudioStream, options: TranscribeOptions, cancelled: Cancelled
    ) -> Iterator[Event]:
        """Segments as speech ends; their speakers are settled window by window."""
        assert self._recognizer is not None
        step_s = None
        if options.diarize:
            step_s = cadence(options.diarization, min(audio.total_s or WINDOW_S, WINDOW_S))
        recent = RecentAudio(SAMPLE_RATE)
        listener = Listener(self._listening_library(step_s), recent, step_s)
        work = Transcription(self._recognizer, listener, recent, audio, diarize=options.diarize)
        try:
            for event in work.events():
                if cancelled():
                    return
                yield event
        finally:
            listener.close()
        yield Finished(
            Transcript(
                segments=work.segments,
                language="en",
                duration=recent.end_s,
                engine=SPEC.name,
                precision=Precision.INT8.value,
                diarized=options.diarize,
            )
        )

    def unload(self) -> None:
        """Free the models."""
        if self._recognizer is not None:
            self._recognizer.close()
            self._recognizer = None
        while self._listening:
            self._listening.popitem()[1].close()

    def _listening_library(self, step_s: float | None) -> Transcriber:
        """The library for a listener, kept for the next recording of a like length."""
        if step_s not in self._listening:
            if step_s is not None:  # one that identifies speakers at a time: it is the large one
                for other in [kept for kept in self._listening if kept is not None]:
                    self._listening.pop(other).close()
            self._listening[step_s] = load_library(library_options(step_s))
        return self._listening[step_s]
