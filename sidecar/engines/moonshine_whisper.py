"""Engine for recordings in any language without a GPU: Moonshine for English, Whisper for others.

The language is found before a word is reported, at no cost for English: a recognizer that knows
only English is unsure of its first words in another language
(`transcripts.language_detection.EnglishCheck`). Whisper is loaded by the first recording that needs
it, and tells the other languages apart itself.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.engines import moonshine, whisper
from sidecar.interfaces import engine_interface
from sidecar.interfaces.engine_interface import AudioStream
from sidecar.transcripts.language_detection import EnglishCheck
from sidecar.transcripts.transcript import ResumePoint, TranscriptionEvent

log = logging.getLogger(__name__)

SPEC = engine_interface.EngineSpec(
    name="moonshine-whisper",
    factory="sidecar.engines.moonshine_whisper:MoonshineWhisperEngine",
    title="Moonshine for English, Whisper for other languages",
    sample_rate=SAMPLE_RATE,
    precisions=moonshine.SPEC.precisions,
    languages=whisper.SPEC.languages,
    diarizes=True,
    by_voices=True,
    counted=True,
    steerable=True,  # Whisper is
    words=True,
    translates=True,
    requires=(*moonshine.SPEC.requires, *whisper.SPEC.requires),
    resumes=f"{moonshine.SPEC.resumes} {whisper.SPEC.resumes}",
)
MAX_HELD_S = 300.0
"""Seconds of audio that are held for Whisper while the language is not known, as in a recording
that begins with music; after them it is taken for English."""


class HeldAudio:
    """Audio that can be read a second time from its beginning, until it is released."""

    def __init__(self, audio: AudioStream) -> None:
        self._audio = audio
        self._blocks = iter(audio)
        self._held: deque[Block] | None = deque()
        self.held_s = 0.0
        """Seconds of audio that are held."""

    @property
    def total_s(self) -> float | None:
        """Return the total seconds of the audio; None if not known yet."""
        return self._audio.total_s

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            if self._held is not None:
                self._held.append(block)
                self.held_s += len(block) / SAMPLE_RATE
            yield block

    def release(self) -> None:
        """Hold nothing any more."""
        self._held = None

    def again(self) -> RestartedAudio:
        """Return the audio from its beginning."""
        assert self._held is not None
        held, self._held = self._held, None
        return RestartedAudio(self._audio, held, self._blocks)


class RestartedAudio:
    """Audio of which the beginning was read before."""

    def __init__(self, audio: AudioStream, held: deque[Block], rest: Iterator[Block]) -> None:
        self._audio, self._held, self._rest = audio, held, rest

    @property
    def total_s(self) -> float | None:
        """Return the total seconds of the audio; None if not known yet."""
        return self._audio.total_s

    def __iter__(self) -> Iterator[Block]:
        while self._held:
            yield self._held.popleft()
        yield from self._rest


class MoonshineWhisperEngine:
    """Moonshine and Whisper in one process; each recording is transcribed by one of them."""

    sample_rate = SPEC.sample_rate

    def __init__(self) -> None:
        self._moonshine = moonshine.MoonshineEngine(others=True)
        self._whisper: whisper.WhisperEngine | None = None
        self._options = engine_interface.LoadOptions()

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load Moonshine. The options are for Whisper, which is loaded later.

        Raises:
            errors.ModelLoadFailed: a model is missing, or onnxruntime does not run it.
        """
        self._options = options
        yield from self._moonshine.load(options)

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe in the language of the options, or of the recording."""
        return self._events(None, request)

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe as `transcribe`, from the last resume point on."""
        return self._events(resume_points, request)

    def _events(
        self,
        resume_points: Sequence[ResumePoint] | None,
        request: engine_interface.TranscriptionRequest,
    ) -> Iterator[TranscriptionEvent]:
        options = request.options
        made_by = resume_points[0].state.get("by") if resume_points else None
        by_whisper = made_by == whisper.SPEC.resumes
        if by_whisper or options.translate or not moonshine.SPEC.speaks(options.language):
            return self._by_whisper(resume_points, request)
        if options.language != engine_interface.AUTO or resume_points:
            return self._moonshine.events(resume_points, request)
        return self._by_either(resume_points, request)

    def _by_either(
        self,
        resume_points: Sequence[ResumePoint] | None,
        request: engine_interface.TranscriptionRequest,
    ) -> Iterator[TranscriptionEvent]:
        """Hold the events of Moonshine until it is known whether the recording is English."""
        audio, check = HeldAudio(request.audio), EnglishCheck()
        held: list[TranscriptionEvent] = []
        english = replace(request, audio=audio)
        for event in self._moonshine.events(resume_points, english, check):
            held.append(event)
            if check.english is None and audio.held_s > MAX_HELD_S:
                check.english = True
            if check.english:
                audio.release()
                for one in held:
                    if request.cancelled():
                        return
                    yield one
                held.clear()
        if check.english is False and not request.cancelled():
            log.info("the recording is not English: Whisper transcribes it")
            yield from self._by_whisper(resume_points, replace(request, audio=audio.again()))

    def _by_whisper(
        self,
        resume_points: Sequence[ResumePoint] | None,
        request: engine_interface.TranscriptionRequest,
    ) -> Iterator[TranscriptionEvent]:
        if self._whisper is None:
            engine = whisper.WhisperEngine(self._moonshine.speaker_models)
            for _ in engine.load(self._options):
                if request.cancelled():
                    return
            self._whisper = engine
        yield from self._whisper.events(resume_points, request)
