"""Speaker embeddings of live segments. Pure.

An embedding costs as much as a partial, so each segment has few, of its first seconds of speech.
Which audio they are made of depends on the audio alone: what there is after those seconds, else at
a pause or the end. One is made again if the segment has grown much since, or has turned out to be
of two speakers. When it is made depends on the threads: while the segment is open, so that the
final has a label, or later, from a copy of the audio. Few copies wait: if no thread is free for
long, the oldest is dropped, and its segment gets the speaker of its neighbour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sidecar.audio import Block
from sidecar.audio.sample_buffers import SampleRingBuffer
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.live.runtime import live_speaker_labels
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.live_speaker_labels import LiveSpeakerIdentification
from sidecar.live.runtime.recognition_plan import RecognitionUrgency
from sidecar.transcripts.transcript import SpeakerCandidate

MAX_EMBEDDING_S = 3.0
"""Maximum seconds of an embedding (docs/decisions/diarization-parameters.md)."""
MIN_EMBEDDING_S = 0.25
"""Minimum seconds; less is useless (docs/decisions/diarization-parameters.md)."""
REEMBED_FACTOR = 1.5
"""Growth of a continued segment after which it gets another embedding."""
MAX_WAITING_SEGMENTS = 8
"""Segments of a session that may wait for their embeddings: 1.5 MB of audio."""
URGENT_WAITING_SEGMENTS = 3
"""Waiting segments from which on embeddings and partials take turns; below, partials go first."""
VAD_HISTORY_FRAMES = 1024
"""Frames of speech that are remembered for a segment that turns out to have begun earlier."""


@dataclass(eq=False, slots=True)
class EmbeddingTask:
    """Work item: the embedding of a segment, or the clustering of all of them."""

    segment_number: int | None
    urgency: RecognitionUrgency
    since: float


@dataclass(eq=False, slots=True)
class _EmbeddingSample:
    """First seconds of speech in a segment: positions of its frames, audio once it has ended.

    ``asked``: frames of the embedding that it shall have, which depends on nothing but its audio;
    ``begun``: those of the one that is made or being computed.
    """

    segment_number: int
    since: float = 0.0
    frames: list[int] = field(default_factory=list)
    asked: int = 0
    begun: int = 0
    end: int = 0
    sound: Block | None = None

    def add(self, at: int) -> None:
        """Add a frame, unless there is enough; ask for an embedding once there is."""
        if _seconds(len(self.frames)) < MAX_EMBEDDING_S:
            self.frames.append(at)
            if _seconds(len(self.frames)) >= MAX_EMBEDDING_S:
                self.ask()

    def ask(self) -> None:
        """Ask for an embedding of the frames so far, if they are worth it."""
        count, made_s = len(self.frames), _seconds(self.asked)
        again = made_s < MAX_EMBEDDING_S and _seconds(count) >= REEMBED_FACTOR * made_s
        if _seconds(count) >= MIN_EMBEDDING_S and again:
            self.asked = count

    def cut(self, ring: SampleRingBuffer) -> Block:
        """Return the audio that is asked for: a copy, of shape (samples,)."""
        parts = SampleRingBuffer()
        begin = end = None
        for at in [*self.frames[: self.asked], None]:
            if at is None or at != end:
                if begin is not None and end is not None:
                    parts.append(ring.cut(begin, end))
                begin = at
            end = None if at is None else at + FRAME_SAMPLES
        return parts.cut(0, parts.end)


def _seconds(frames: int) -> float:
    return frames * FRAME_SAMPLES / LIVE_RATE


class SegmentEmbeddings:
    """Speaker embeddings of one session; times as in `live.runtime.stream_recognizer`.

    ``candidates``: those of speaker identification; None if it is not requested. ``encodes``:
    whether there is a speaker encoder; without one no segment gets a label.
    """

    def __init__(
        self,
        start: live_events.LiveSessionStart,
        candidates: Sequence[SpeakerCandidate] | None = None,
        *,
        encodes: bool = True,
    ) -> None:
        speakers = dict(
            zip(start.segment_numbers, (one.speaker for one in start.said), strict=True)
        )
        self.speakers = live_speaker_labels.LiveSpeakerLabels(speakers, start.voices)
        identifies = encodes and candidates is not None
        self.people = LiveSpeakerIdentification(candidates or ()) if identifies else None
        if self.people is not None:  # the previous engine has sent these names
            self.people.meet(self.speakers.sounds)
            self.people.news()
        self.encodes, self.settled = encodes, not encodes
        """Whether labels are possible, and whether the last decision was taken."""
        self._speech: deque[int] = deque(maxlen=VAD_HISTORY_FRAMES)
        self._open: _EmbeddingSample | None = None
        self._ended = deque[_EmbeddingSample](maxlen=2 * MAX_WAITING_SEGMENTS)
        """The last segments that have ended, which their finals may divide."""
        self.waiting: deque[_EmbeddingSample] = deque()
        self._going: dict[EmbeddingTask, float] = {}
        self._deciding = False
        self._segment_count = len(speakers)
        self._their_turn = False

    def opened(self, segment_number: int, at: int) -> None:
        """Begin a segment."""
        self._open = _EmbeddingSample(segment_number)
        self._segment_count += 1
        self._add_from(at)

    def spoken(self, at: int) -> None:
        """Mark the frame that begins at ``at`` as speech."""
        self._speech.append(at)
        if self._open is not None:
            self._open.add(at)

    def paused(self) -> None:
        """Note that the open segment pauses."""
        if self._open is not None:
            self._open.ask()

    def ended(self, segment_number: int, end: int, now: float, ring: SampleRingBuffer) -> None:
        """End a segment and copy the audio that its embedding needs."""
        sample, self._open = self._open, None
        if sample is None or sample.segment_number != segment_number:
            return
        self._finish(sample, end, now, ring)

    def divided(
        self, segment_number: int, at: int, after: int, now: float, ring: SampleRingBuffer
    ) -> None:
        """Divide the open segment or one of the last: from the sample ``at`` on it is the segment
        ``after``."""
        self._segment_count += 1
        rest = _EmbeddingSample(after)
        if self._open is not None and self._open.segment_number == segment_number:
            sample, self._open = self._open, rest
            self._add_from(at)
            self._finish(sample, at, now, ring)
            return
        for sample in [one for one in self._ended if one.segment_number == segment_number]:
            end = sample.end
            self._ended.remove(sample)
            for frame in self._speech:
                if at <= frame <= end - FRAME_SAMPLES:
                    rest.add(frame)
            self._finish(sample, at, now, ring)
            self._finish(rest, end, now, ring)

    def _finish(
        self, sample: _EmbeddingSample, end: int, now: float, ring: SampleRingBuffer
    ) -> None:
        """Queue a segment that has ended for its embedding, if that is worthwhile and not made."""
        sample.end = end
        self._ended.append(sample)
        sample.frames = [at for at in sample.frames if at + FRAME_SAMPLES <= end]
        if sample.asked > len(sample.frames):  # it would have what belongs to the next segment
            self._discard(sample.segment_number)
            sample.asked = sample.begun = 0
        sample.ask()
        if not sample.asked:
            self.speakers.mark_without_embedding(sample.segment_number)
        elif sample.asked > sample.begun and sample not in self.waiting:
            sample.sound, sample.since = sample.cut(ring), now
            self.waiting.append(sample)
            if len(self.waiting) > MAX_WAITING_SEGMENTS:
                self.speakers.mark_without_embedding(self.waiting.popleft().segment_number)

    def _discard(self, segment_number: int) -> None:
        """Drop the embedding of a segment, made or not."""
        self.waiting = deque(one for one in self.waiting if one.segment_number != segment_number)
        self._going = {
            task: one for task, one in self._going.items() if task.segment_number != segment_number
        }
        self.speakers.forget(segment_number)

    def forget(self, segment_number: int) -> None:
        """Drop a segment without text."""
        if self._open is not None and self._open.segment_number == segment_number:
            self._open = None
        self._discard(segment_number)

    def next_task(self, finished: bool) -> EmbeddingTask | None:
        """Return the next task. ``finished``: everything is sent but the summary, which waits for
        this."""
        if self.settled or self._alone:
            return None
        urgency = RecognitionUrgency.VOICE
        if finished:
            urgency = RecognitionUrgency.SPECULATIVE
        elif len(self.waiting) >= URGENT_WAITING_SEGMENTS:
            urgency = RecognitionUrgency.PARTIAL
        # a later one of the same segment comes after it
        going = {task.segment_number for task in self._going}
        for sample in (*self.waiting, self._open):
            if sample and sample.asked > sample.begun and sample.segment_number not in going:
                return EmbeddingTask(sample.segment_number, urgency, sample.since)
        if finished and not self._going and not self._deciding:
            return EmbeddingTask(None, urgency, 0.0)
        return None

    @property
    def before_partial(self) -> bool:
        """Return whether the next embedding comes before a partial of the same session."""
        return len(self.waiting) >= URGENT_WAITING_SEGMENTS and self._their_turn

    def partial_began(self) -> None:
        """Note that a partial has begun: it is an embedding's turn next."""
        self._their_turn = True

    def began(self, task: EmbeddingTask, ring: SampleRingBuffer) -> Block | None:
        """Begin a task; return its audio, shape (samples,), or None for the last decision."""
        self._their_turn = False
        if task.segment_number is None:
            self._deciding = True
            return None
        sample = self._open
        if sample is None or sample.segment_number != task.segment_number:
            sample = next(one for one in self.waiting if one.segment_number == task.segment_number)
            self.waiting.remove(sample)
        sample.begun = sample.asked
        self._going[task] = _seconds(sample.asked)
        samples, sample.sound = sample.sound, None
        return sample.cut(ring) if samples is None else samples

    def add_embedding(
        self, task: EmbeddingTask, vector: live_speaker_labels.Vector | None
    ) -> live_speaker_labels.RelabelRequest | None:
        """Note the embedding of a segment, None if that failed; return the request for a decision
        that is due now."""
        if task.segment_number is None:
            return self.speakers.question(last=True)
        seconds = self._going.pop(task, None)
        if seconds is None:
            return None
        if vector is None:
            self.speakers.mark_without_embedding(task.segment_number)
            return None
        self.speakers.add_embedding(task.segment_number, vector, seconds)
        return self.speakers.question()

    def decided(
        self, task: EmbeddingTask, result: live_speaker_labels.RelabelResult | None
    ) -> Iterator[live_events.LiveEvent]:
        """Take over a decision, if there was one; yield the changes."""
        if result is not None:
            self.speakers.take(result)
        if task.segment_number is None:
            yield from self.settle()
            return
        yield from self._revised()
        if result is not None:
            yield live_events.SpeakerEmbeddingsKnown(self.speakers.voices)

    @property
    def has_no_work(self) -> bool:
        """Return whether nothing is left to compute before the last decision."""
        busy = self.waiting or self._going or self._deciding
        return self._alone or not (busy or self.speakers.embedding_count)

    def settle(self) -> Iterator[live_events.LiveEvent]:
        """Fix the labels at the end; yield the last changes."""
        self.settled = True
        self.speakers.settle()
        yield from self._revised()

    def _revised(self) -> Iterator[live_events.LiveEvent]:
        changes = self.speakers.revised()
        names = {}
        if self.people is not None:
            self.people.meet(self.speakers.sounds)
            names = self.people.news()
        if changes or names:
            yield live_events.SpeakersRevised(changes, names)

    @property
    def _alone(self) -> bool:
        """Return whether there is only one segment, which needs no comparison, and no enrolled
        speaker to identify."""
        return self._segment_count < 2 and self.people is None

    def _add_from(self, at: int) -> None:
        """Add the speech since ``at`` to the open segment."""
        assert self._open is not None
        for frame in self._speech:
            if frame >= at:
                self._open.add(frame)
