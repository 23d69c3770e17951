"""Assembler of partials, finals and utterance events in order. Pure.

Segments come in order, the end of a turn after its segments, and the summary after everything.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sidecar.diarization.speaker_identification import embedding_if_long_enough
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.live.runtime.live_speaker_labels import LiveSpeakerIdentification
from sidecar.live.runtime.recognition_plan import SpeechSegment
from sidecar.live.runtime.segment_embeddings import SegmentEmbeddings
from sidecar.transcripts.transcript import SPEAKERS_UNAVAILABLE, Segment, Transcript, join_texts


@dataclass(frozen=True, slots=True)
class _TurnMark:
    """End of a turn, behind all of its segments."""

    turn: int
    end: int
    committed: bool


class ResultAssembler:
    """Queue of ended segments that wait for their text and for the segments before them.

    ``segment_embeddings``: source of the speaker labels; None: there is none.
    """

    def __init__(
        self, start: live_events.LiveSessionStart, segment_embeddings: SegmentEmbeddings | None
    ) -> None:
        self._segment_embeddings = segment_embeddings or SegmentEmbeddings(start, encodes=False)
        self._rows: deque[SpeechSegment | _TurnMark | live_events.TurnDropped | None] = deque()
        """Waiting rows; None marks the end of all."""
        self._segments = list(zip(start.segment_numbers, start.said, strict=True))
        self._of_turn = list(start.said[len(start.said) - start.open :])
        self._language = ""
        self.commits = 0
        """Number of the client's commits that were answered."""
        self.sure_language = ""
        """Last language that was recognized with certainty in a final."""

    @property
    def speech_segments(self) -> Iterator[SpeechSegment]:
        """Return the waiting segments, in order."""
        return (row for row in self._rows if isinstance(row, SpeechSegment))

    @property
    def only_summary_left(self) -> bool:
        """Return whether only the summary is left to send."""
        return bool(self._rows) and self._rows[0] is None

    def add(self, speech: SpeechSegment, previous_speech: SpeechSegment | None = None) -> None:
        """Add a segment that has ended, behind ``previous_speech`` or all others."""
        if previous_speech is None:
            self._rows.append(speech)
        else:
            self._rows.insert(self._rows.index(previous_speech) + 1, speech)

    def end_turn(self, turn: int, at: int, *, committed: bool) -> None:
        """End a turn: it has no more segments."""
        self._rows.append(_TurnMark(turn, at, committed))

    def end(self) -> None:
        """End the results."""
        self._rows.append(None)

    def drop(self, turn: int, at: int) -> None:
        """Drop the results of a turn that has not ended. Its `TurnDropped` comes behind the turns
        before it."""
        for speech in self.speech_segments:
            if speech.turn == turn:
                speech.cancelled = True
                self._segment_embeddings.forget(speech.number)
        dropped = [speech for speech in self.speech_segments if speech.turn == turn]
        self._rows = deque(row for row in self._rows if row not in dropped)
        self._rows.append(live_events.TurnDropped(turn, at / LIVE_RATE))

    def leave(self) -> None:
        """Drop all results: the session is closed."""
        for speech in self.speech_segments:
            speech.cancelled = True

    def set_final(
        self,
        speech: SpeechSegment,
        hypothesis: RecognitionHypothesis,
        flags: tuple[str, ...],
        wait_s: float,
        work_s: float,
    ) -> None:
        """Set the final of a segment."""
        assert speech.end is not None
        at = speech.start / LIVE_RATE
        words = tuple(
            replace(one, start=at + one.start, end=at + one.end) for one in hypothesis.words
        )
        segment = Segment(
            at,
            speech.end / LIVE_RATE,
            hypothesis.text.strip(),
            words=words,
            flags=flags,
            words_by=hypothesis.words_by if words else "",
            confidence=hypothesis.likelihood,
            language=hypothesis.language,
            no_speech_probability=hypothesis.no_speech,
        )
        if hypothesis.sure and hypothesis.text:
            self.sure_language = hypothesis.language
        speech.final = live_events.Final(
            speech.turn,
            speech.number,
            segment,
            hypothesis.language,
            wait_s,
            work_s,
            confidence=hypothesis.confidence,
        )

    def due_events(self) -> Iterator[live_events.LiveEvent]:
        """Yield the events that may be sent now, without the summary."""
        while self._rows:
            row = self._rows[0]
            if row is None or (isinstance(row, SpeechSegment) and row.final is None):
                return
            self._rows.popleft()
            if isinstance(row, _TurnMark):
                yield self._turn_ended(row)
            elif isinstance(row, live_events.TurnDropped):
                self._of_turn.clear()
                yield row
            elif row.final is not None and row.final.segment.text:
                yield self._final_with_speaker(row, row.final)
            else:
                self._segment_embeddings.forget(row.number)

    def summary(self, options: LiveOptions, end: int, engine: str, precision: str) -> Transcript:
        """Return the transcript of the session, up to the sample ``end``."""
        embeddings = self._segment_embeddings
        of = embeddings.speakers.of
        segments = [replace(one, speaker=of(number)) for number, one in self._segments]
        transcript = Transcript(
            segments=tuple(segments),
            language=self._language or options.language,
            duration=end / LIVE_RATE,
            engine=engine,
            precision=precision,
            diarized=options.diarize and embeddings.encodes,
        )
        # Speakers may be told apart only for a part of the time.
        if embeddings.people is not None and any(one.speaker is not None for one in segments):
            transcript = self._with_voices(transcript, embeddings.people, options)
        if options.diarize and not embeddings.encodes:
            transcript = transcript.with_notice(SPEAKERS_UNAVAILABLE)
        return transcript

    def _with_voices(
        self, transcript: Transcript, people: LiveSpeakerIdentification, options: LiveOptions
    ) -> Transcript:
        """Return the transcript with the identified speakers; with embeddings, if requested."""
        there = {one.speaker for one in transcript.segments}
        voices = [one for one in people.voices.values() if one.speaker in there]
        if not options.voiceprints:
            return replace(transcript, voices=tuple(voices))
        speakers = self._segment_embeddings.speakers
        sounds = speakers.sounds
        embeddings = [embedding_if_long_enough(sounds[one.speaker]) for one in voices]
        pairs = zip(voices, embeddings, strict=True)
        kept = [replace(one, print=found) for one, found in pairs]
        prints = tuple(speakers.sound_of(number) for number, _ in self._segments)
        return replace(transcript, voices=tuple(kept), prints=prints)

    def _turn_ended(self, mark: _TurnMark) -> live_events.TurnEnded:
        end = mark.end / LIVE_RATE
        start = self._of_turn[0].start if self._of_turn else end
        text = join_texts(one.text for one in self._of_turn)
        self._of_turn.clear()
        self.commits += mark.committed
        return live_events.TurnEnded(mark.turn, start, end, text, mark.committed)

    def _final_with_speaker(
        self, speech: SpeechSegment, final: live_events.Final
    ) -> live_events.Final:
        """Return the final of a segment, with its speaker as far as that is known."""
        if speech.diarize:
            who = self._segment_embeddings.speakers.tell(speech.number)
            segment = replace(final.segment, speaker=who)
            people = self._segment_embeddings.people
            name = None if people is None else people.name_of(who)
            final = replace(final, segment=segment, name=name)
        self._language = final.language
        self._segments.append((speech.number, final.segment))
        self._of_turn.append(final.segment)
        return final
