"""Transcription of a recording by VibeVoice-ASR-Streaming: first words after some seconds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.vibevoice.streaming_checkpoint import StreamingFormat
from sidecar.engines.vibevoice.streaming_model import StreamingModel
from sidecar.interfaces.engine_interface import AUTO, AudioStream, TranscriptionRequest
from sidecar.transcripts.language_detection import detect_language
from sidecar.transcripts.loop_guard import loop_notices
from sidecar.transcripts.speaker_turns import number_speakers_by_appearance
from sidecar.transcripts.streamed_turns import LONGEST_S, StreamedTurn, StreamedTurns
from sidecar.transcripts.transcript import (
    Finished,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    mean_confidence,
)
from sidecar.transcripts.word_alignment import align_words
from sidecar.transcripts.word_timing import estimate_word_times

NAME = "vibevoice-streaming"


@dataclass(frozen=True, slots=True)
class StreamingWindow:
    """Window of a recording: ``samples`` begin at ``start``; the chunk ends at ``end``, in
    samples of the recording."""

    samples: Block
    start: int
    end: int


def streaming_windows(audio: AudioStream, form: StreamingFormat) -> Iterator[StreamingWindow]:
    """Cut a recording as the released code does; the last windows are shorter."""
    held, start = np.zeros(0, np.float32), 0
    for block in audio:
        held = np.concatenate([held, block])
        while len(held) >= form.window_samples:
            yield StreamingWindow(held[: form.window_samples], start, start + form.chunk_samples)
            held, start = held[form.chunk_samples :], start + form.chunk_samples
    while len(held):
        end = start + min(len(held), form.chunk_samples)
        yield StreamingWindow(held[: form.window_samples], start, end)
        held, start = held[form.chunk_samples :], end


class StreamingTranscription:
    """Transcription of one request. It ends early, without `Finished`, once it is cancelled."""

    def __init__(self, model: StreamingModel, request: TranscriptionRequest) -> None:
        self._model, self._request = model, request
        self._segments: list[Segment] = []
        self._recent = np.zeros(0, np.float32)
        self._recent_at = 0
        self._loops = 0

    def events(self) -> Iterator[TranscriptionEvent]:
        """Run the transcription.

        Raises:
            errors.GpuOutOfMemory: the cache did not fit.
        """
        try:
            with torch.inference_mode():
                yield from self._events()
        except torch.OutOfMemoryError:
            raise errors.GpuOutOfMemory() from None

    def _events(self) -> Iterator[TranscriptionEvent]:
        options, form = self._request.options, self._model.format
        session, turns, end = self._model.open(options.prompt), StreamedTurns(), 0
        for window in streaming_windows(self._request.audio, form):
            if self._request.cancelled():
                return
            (chunk,) = self._model.transcribe([session], [window.samples])
            self._loops += chunk.looped
            self._keep(window)
            start_s, end = window.start / form.rate, window.end
            for turn in turns.feed(chunk.text, start_s, end / form.rate, chunk.likelihoods):
                yield self._ready(turn)
            yield Progress.of(end / form.rate, self._request.audio.total_s)
        for turn in turns.finish():
            yield self._ready(turn)
        yield Progress(end / form.rate, end / form.rate)
        yield Finished(self._transcript(end / form.rate))

    def _keep(self, window: StreamingWindow) -> None:
        """Keep the audio that a turn may still cover."""
        fresh = window.samples[: window.end - window.start]
        kept = round((LONGEST_S + 1) * self._model.format.rate)
        self._recent = np.concatenate([self._recent, fresh])[-kept - len(fresh) :]
        self._recent_at = window.end - len(self._recent)

    def _ready(self, turn: StreamedTurn) -> SegmentReady:
        """Return the event of a turn that has ended."""
        options = self._request.options
        speaker = turn.speaker if options.diarize else None
        segment = Segment(turn.start, turn.end, turn.text, speaker)
        if options.words:
            rate = self._model.format.rate
            first = max(0, round(turn.start * rate) - self._recent_at)
            at_s = (self._recent_at + first) / rate
            segment = estimate_word_times(align_words(segment, self._recent[first:], rate, at_s))
        language = options.language
        if language == AUTO:
            language = detect_language([segment]) or ""
        confidence = mean_confidence(turn.likelihoods) if turn.likelihoods else None
        segment = replace(segment, language=language, confidence=confidence)
        self._segments.append(segment)
        return SegmentReady(len(self._segments) - 1, segment)

    def _transcript(self, duration_s: float) -> Transcript:
        options, loaded = self._request.options, self._model.loaded
        segments = number_speakers_by_appearance(self._segments)
        language = options.language
        if language == AUTO:
            language = detect_language(segments) or AUTO
        return Transcript(
            segments=tuple(segments),
            language=language,
            duration=duration_s,
            engine=NAME,
            precision=loaded.precision.value,
            device=loaded.device.type,
            diarized=options.diarize,
            notices=tuple(loop_notices(segments, self._loops, truncated=False)),
        )
