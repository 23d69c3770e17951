"""Transcription of a recording by VibeVoice-ASR-Streaming: first words after some seconds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.signal_conditioning import Resampler
from sidecar.diarization.diarizer import DiarizationUpdate, Diarizer, diarize_in_background
from sidecar.diarization.kept_diarization import KeptDiarization, word_ranges_of
from sidecar.diarization.speaker_models import shared_speaker_models
from sidecar.diarization.turn_times import moved_to_turns
from sidecar.diarization.word_attribution import by_turns
from sidecar.engines.torch_inference import inference
from sidecar.engines.vibevoice.streamed_segment import StreamedSegment
from sidecar.engines.vibevoice.streaming_model import StreamingModel
from sidecar.engines.vibevoice.vibevoice_transcription import described, finished
from sidecar.interfaces.engine_interface import TranscriptionRequest
from sidecar.transcripts.loop_guard import loop_notices
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.streamed_turns import LONGEST_S, StreamedTurn
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    Progress,
    Segment,
    SegmentReady,
    TranscriptionEvent,
    mean_confidence,
)

NAME = "vibevoice-streaming"


class StreamingTranscription:
    """Transcription of one request. It ends early, without `Finished`, once it is cancelled.

    Voices decide who speaks, as in live audio: the model may call everybody Speaker 0. Its marks
    say which word is the first of a turn. Without the models of diarization its labels decide.
    """

    def __init__(self, model: StreamingModel, request: TranscriptionRequest) -> None:
        self._model, self._options = model, request.options
        self._audio, self._cancelled = request.audio, request.cancelled
        self._rate = model.format.rate
        self._chunk_s = model.format.chunk_samples / self._rate
        self._stream = StreamedSegment(model.format)
        self._segments: list[Segment] = []
        self._ready = 0
        self._recent = np.zeros(0, np.float32)
        models = shared_speaker_models() if self._options.diarize else None
        self._diarizer = None if models is None else Diarizer.wished(models, self._options)

    def events(self) -> Iterator[TranscriptionEvent]:
        """Run the transcription.

        Raises:
            errors.GpuOutOfMemory: the cache did not fit.
            errors.DeviceLost: nothing in this process can use the device again.
        """
        with inference():
            for event in self._events():
                if self._cancelled():
                    return
                yield event

    def _events(self) -> Iterator[TranscriptionEvent]:
        model, stream = self._model, self._stream
        session = model.open(self._options.prompt_lines)
        longest = round((LONGEST_S + 1 + self._chunk_s) * self._rate)
        turns: Sequence[SpeakerTurn] = ()
        for update in self._updates():
            last, turns = update.final_s == inf, update.turns
            while stream.end_s + self._chunk_s <= update.final_s:
                if self._cancelled():
                    return
                if (window := stream.window(last=last)) is None:
                    break
                (chunk,) = model.transcribe([session], [window])
                self._recent = np.concatenate([self._recent, stream.say(chunk)])[-longest:]
                yield from self._take(turns)
                yield Progress.of(stream.end_s, self._audio.total_s)
        yield from self._take(turns, last=True)
        yield Progress(stream.end_s, stream.end_s)
        yield from self._finished(turns)

    def _updates(self) -> Iterator[DiarizationUpdate]:
        """Yield what is known of the voices as audio comes, and all of it at the end."""
        if self._diarizer is not None:
            yield from diarize_in_background(self._diarizer, self._blocks(), self._cancelled)
            return
        for end_s, _ in self._blocks():
            yield DiarizationUpdate(end_s, end_s, ())
        yield DiarizationUpdate(self._stream.fed / self._rate, inf, ())

    def _blocks(self) -> Iterator[tuple[float, Block]]:
        """Feed the stream; yield the audio for the diarization, in blocks of a second or less."""
        resampler = Resampler(self._rate, SAMPLE_RATE)
        for block in self._audio:
            for at in range(0, len(block), self._rate):
                if self._cancelled():
                    return
                piece = block[at : at + self._rate]
                self._stream.feed(piece)
                yield self._stream.fed / self._rate, resampler.take(piece)
        yield self._stream.fed / self._rate, resampler.rest()

    def _take(
        self, turns: Sequence[SpeakerTurn], *, last: bool = False
    ) -> Iterator[TranscriptionEvent]:
        """Yield the segments that have ended, with the speakers known so far."""
        for turn in self._stream.take(last=last):
            segment = self._segment(turn)
            self._segments.append(segment)
            for one in self._reported(by_turns([segment], turns) if turns else [segment]):
                yield SegmentReady(self._ready, one)
                self._ready += 1

    def _segment(self, turn: StreamedTurn) -> Segment:
        if turn.is_sound:
            return Segment(turn.start, turn.end, turn.text, flags=(NON_SPEECH_FLAG,))
        start_s = self._stream.end_s - len(self._recent) / self._rate
        first = round(max(0.0, turn.start - start_s) * self._rate)
        speaker = turn.speaker if self._options.diarize else None
        confidence = mean_confidence(turn.likelihoods)
        segment = Segment(turn.start, turn.end, turn.text, speaker, confidence=confidence)
        samples, at_s = self._recent[first:], start_s + first / self._rate
        wanted = replace(self._options, words=self._options.words or self._diarizer is not None)
        return described(segment, samples, at_s, wanted)

    def _reported(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        if self._options.words:
            return segments
        return [replace(one, words=(), words_by="") for one in segments]

    def _finished(self, turns: Sequence[SpeakerTurn]) -> Iterator[TranscriptionEvent]:
        """Yield the end, and what another diarization needs."""
        options, found, speakers = self._options, self._segments, None
        if self._diarizer is not None and turns:
            uncut = moved_to_turns(found, turns, self._chunk_s / 2)
            uncut = [replace(one, speaker=None) for one in uncut]
            found = by_turns(uncut, turns)
            places = word_ranges_of(uncut, found)
            end_s, voices = self._stream.end_s, self._diarizer.found
            kept = KeptDiarization(voices, end_s, uncut, places, fitted=True).resume_point()
            if options.keeps_diarization and kept is not None:
                yield kept
            speakers = self._diarizer.speakers() if options.identifies_speakers else None
        segments, loaded = self._reported(found), self._model.loaded
        notices = loop_notices(segments, self._stream.loops, truncated=False)
        yield finished(NAME, loaded, segments, self._stream.end_s, options, notices, speakers)
