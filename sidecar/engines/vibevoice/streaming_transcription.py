"""Transcription of a recording by VibeVoice-ASR-Streaming: first words after some seconds."""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np

from sidecar.audio import Block
from sidecar.diarization.speaker_identification import SpeakerVector
from sidecar.engines.torch_inference import inference
from sidecar.engines.vibevoice.streamed_segment import StreamedSegment
from sidecar.engines.vibevoice.streaming_model import StreamingModel
from sidecar.engines.vibevoice.vibevoice_transcription import described, finished
from sidecar.engines.vibevoice.vibevoice_windows import (
    SAME_SPEAKER_SIMILARITY,
    SHARED_BESIDE,
    WindowSpeakerMatcher,
)
from sidecar.interfaces.engine_interface import TranscriptionRequest
from sidecar.transcripts.loop_guard import loop_notices
from sidecar.transcripts.speaker_turns import SpeakerTurn, match_speakers
from sidecar.transcripts.streamed_turns import LONGEST_S, StreamedTurn
from sidecar.transcripts.transcript import (
    Progress,
    Segment,
    SegmentReady,
    TranscriptionEvent,
    mean_confidence,
)

NAME = "vibevoice-streaming"


class StreamingTranscription:
    """Transcription of one request. It ends early, without `Finished`, once it is cancelled."""

    def __init__(self, model: StreamingModel, request: TranscriptionRequest) -> None:
        self._model, self._request = model, request
        self._rate = model.format.rate
        self._segments: list[Segment] = []
        self._recent = np.zeros(0, np.float32)
        matcher = WindowSpeakerMatcher(self._rate)
        self._speakers = CacheSpeakers(matcher) if request.options.diarize else None
        self._loops = 0

    def events(self) -> Iterator[TranscriptionEvent]:
        """Run the transcription.

        Raises:
            errors.GpuOutOfMemory: the cache did not fit.
            errors.DeviceLost: nothing in this process can use the device again.
        """
        with inference():
            yield from self._events()

    def _events(self) -> Iterator[TranscriptionEvent]:
        model, audio = self._model, self._request.audio
        options, loaded = self._request.options, model.loaded
        session, segment = (
            model.open(options.prompt_with_hotwords),
            StreamedSegment(model.format, self._rate),
        )
        end = np.zeros(0, np.float32)
        for block in chain(audio, [end]):
            last = block is end
            segment.feed(block, last=last)
            while (window := segment.window(last=last)) is not None:
                if self._request.cancelled():
                    return
                (chunk,) = model.transcribe([session], [window])
                self._loops += chunk.looped
                if chunk.renewed and self._speakers is not None:
                    self._speakers.renew()
                longest = round((LONGEST_S + 1) * self._rate) + model.format.chunk_samples
                self._recent = np.concatenate([self._recent, segment.say(chunk)])[-longest:]
                yield from (self._ready(turn, segment.end_s) for turn in segment.take())
                yield Progress.of(segment.end_s, audio.total_s)
        end_s = segment.end_s
        yield from (self._ready(turn, end_s) for turn in segment.take(last=True))
        yield Progress(end_s, end_s)
        notices = loop_notices(self._segments, self._loops, truncated=False)
        voices = self._speakers.matcher if self._speakers is not None else None
        yield finished(NAME, loaded, self._segments, end_s, options, notices, voices)

    def _ready(self, turn: StreamedTurn, end_s: float) -> SegmentReady:
        """Return the event of a turn that has ended; there is text up to ``end_s``."""
        first_s = end_s - len(self._recent) / self._rate
        first, last = (round(max(0.0, at - first_s) * self._rate) for at in (turn.start, turn.end))
        speaker = None
        if self._speakers is not None and turn.speaker is not None:
            speaker = self._speakers.speaker(turn.speaker, self._recent[first:last], self._rate)
        confidence = mean_confidence(turn.likelihoods)
        segment = Segment(turn.start, turn.end, turn.text, speaker, confidence=confidence)
        at_s = first_s + first / self._rate
        segment = described(segment, self._recent[first:], at_s, self._request.options)
        self._segments.append(segment)
        return SegmentReady(len(self._segments) - 1, segment)


class CacheSpeakers:
    """Speakers of a recording by the model's labels, which a cache that begins again gives anew to
    those whom the last minute does not have."""

    def __init__(self, matcher: WindowSpeakerMatcher) -> None:
        self.matcher = matcher
        self._before: dict[int, int] = {}
        self._speakers: dict[int, int] = {}

    def renew(self) -> None:
        """Begin another cache."""
        self._before |= self._speakers
        self._speakers = {}

    def speaker(self, label: int, samples: Block, rate: int) -> int:
        """Return the speaker of a turn; ``samples``: its audio, shape (samples,)."""
        vectors = self.matcher.hear(samples, [SpeakerTurn(0.0, len(samples) / rate, label)])
        if label not in self._speakers:
            usual = self._before.get(label)
            if not vectors and usual is not None:
                return usual  # a longer turn decides
            self._speakers[label] = self._matched(label, vectors, usual)
        self.matcher.remember(vectors, self._speakers)
        return self._speakers[label]

    def _matched(self, label: int, vectors: Mapping[int, SpeakerVector], usual: int | None) -> int:
        taken = self._speakers.values()
        signs = {
            pair: likeness + SHARED_BESIDE * (pair[0] == usual)
            for pair, likeness in self.matcher.likenesses(vectors).items()
            if pair[0] in self._before.values() and pair[0] not in taken
        }
        new = 1 + max([*self._before.values(), *taken], default=-1)
        return match_speakers(signs, SAME_SPEAKER_SIMILARITY).get(label, new)
