"""Words, segments, speakers, transcripts and the events of a running transcription.

In this project speakers are small integers from 0 in order of appearance, and times are seconds
from the start of the recording. Each protocol has its own names for both.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.errors import EngineFailed
from sidecar.serialization import OMITTED_IF_NONE, from_plain, to_plain
from sidecar.transcripts.scripts import are_joined

NON_SPEECH_FLAG, LOOP_FLAG, OVERLAP_FLAG = "non_speech", "loop", "overlap"
UNHEARD_FLAG, SPEAKER_UNKNOWN_FLAG = "unheard", "speaker_unknown"
SEGMENT_FLAGS = {
    NON_SPEECH_FLAG: "music, noise or silence: nobody speaks",
    LOOP_FLAG: "audio that the model could not transcribe: it repeats itself",
    OVERLAP_FLAG: "another person speaks at the same time in the same channel, by the diarizer",
    UNHEARD_FLAG: "live speech that was not recognized to its end: the words that were shown last",
    SPEAKER_UNKNOWN_FLAG: "speech of somebody who was not told apart",
}
"""Flags of a segment with their meaning. `SPEAKER_UNKNOWN_FLAG` is on the wire only: a `Segment`
has the speaker None instead."""
UNINTELLIGIBLE = "[Unintelligible Speech]"
"""Text of a segment with `LOOP_FLAG`."""
AUDIO_TRUNCATED = "audio_truncated"
"""Code of the notice that a part of the recording is missing or destroyed."""
TRUNCATED = "output_truncated"
"""Code of the notice that the output of a model ended early."""
SPEECH_MISSED = "speech_missed"
"""Code of the notice that a model found no words for detected speech."""
LOOP_SKIPPED = "loop_skipped"
"""Code of the notice that audio in which a model repeated itself was skipped."""
KEPT_DIARIZATION = "diarization-1"
"""Form of the resume point from which the diarization of a finished job is done again
(`diarization.kept_diarization`): an engine's last report before its end. Its name changes whenever
the meaning of its state changes."""
WORDS_BY = "spread", "aligned", "server", "attention"
"""Sources of word times, the least sure first. spread: characters spread evenly over the segment
(an estimate, exact at its ends only). aligned: at pauses and changes of the sound
(`transcripts.word_alignment`; half of them within a tenth of a second). server: another server,
whose method is unknown. attention: a model's attention (exact to some hundredths of a second)."""
WORDS_BY_RULE, WORDS_BY_ALIGNMENT, WORDS_BY_SERVER, WORDS_BY_ATTENTION = WORDS_BY
MAX_NAME_CHARACTERS = 200
PART_CHARACTERS = 12_000
"""Text of a part of a transcript: with words and embeddings some 300 KB in a message."""


_MARKS = ",;:.!?…"
_DOUBLE_COMMA = re.compile(r"(?<!\s)\s*+,(?:\s*+,)+")

MIN_CONFIDENCE = 0.001
"""The lowest value of three digits that has a logarithm."""
DOUBTFUL_CONFIDENCE = 0.7
"""Of the words below it more than one in four is wrong, of the others one in forty
(`python -m bench.accuracy --no-library --confidence`)."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word, start and end in seconds.

    ``confidence``: `mean_confidence` of its tokens, which is not compared: its last digits depend
    on what was computed at the same time. None if the engine gives none.
    """

    start: float
    end: float
    text: str
    confidence: float | None = field(default=None, compare=False)

    @property
    def doubtful(self) -> bool:
        """Return whether it is marked as perhaps wrong."""
        return self.confidence is not None and self.confidence < DOUBTFUL_CONFIDENCE


@dataclass(frozen=True, slots=True)
class Segment:
    """Speech of one speaker, or an event such as music.

    ``start`` and ``end`` in seconds. ``speaker``: None without diarization. ``words_by``: source of
    the times of ``words`` (`WORDS_BY_ATTENTION` and the like); '' if there are no words.
    ``confidence``: as of a `Word`. ``language``: a language tag; '' if unknown.
    ``no_speech_probability``: that it holds no speech, not compared either; None if the engine
    gives none.
    """

    start: float
    end: float
    text: str
    speaker: int | None = None
    words: tuple[Word, ...] = ()
    flags: tuple[str, ...] = ()
    words_by: str = ""
    confidence: float | None = field(default=None, compare=False)
    language: str = ""
    no_speech_probability: float | None = field(
        default=None, compare=False, metadata=OMITTED_IF_NONE
    )

    @property
    def is_speech(self) -> bool:
        """Return whether it is speech; `[Music]` and the like are not."""
        return NON_SPEECH_FLAG not in self.flags


def mean_confidence(logarithms: Iterable[float]) -> float | None:
    """Return the geometric mean of probabilities from their natural logarithms, between 0.001 and
    1; None if there are none."""
    known = [*logarithms]
    if not known:
        return None
    return max(MIN_CONFIDENCE, round(math.exp(sum(known) / len(known)), 3))


def words_confidence(words: Iterable[Word]) -> float | None:
    """Return the geometric mean of the words' confidences; None if a word has none."""
    known = [word.confidence for word in words]
    return mean_confidence(math.log(one) for one in known if one) if all(known) else None


@dataclass(frozen=True, slots=True)
class Notice:
    """Notice for the reader of a transcript: a stable code and a sentence."""

    code: str
    message: str


def speech_missed_notice(missed: Sequence[tuple[float, float]]) -> Notice:
    """Return the notice that speech has no words; ``missed``: its starts, and the seconds of speech
    from each."""
    minutes, seconds = divmod(round(min(missed)[0]), 60)
    total = sum(speech_s for _, speech_s in missed)
    return Notice(
        SPEECH_MISSED,
        f"No words were found for {total:.0f} s of speech, the first at {minutes}:{seconds:02}.",
    )


WINDOWS_NOT_PARALLEL = Notice(
    "windows_not_parallel", "The recording was transcribed window by window, not in batches."
)
SPEAKERS_UNAVAILABLE = Notice(
    "speakers_unavailable",
    "Diarization is not available on this machine: there are no speaker labels.",
)


@dataclass(frozen=True, slots=True)
class SpeakerEmbedding:
    """Embedding of a speaker in one recording.

    ``vector``: base64 of 256 little-endian float16, of length 1
    (`diarization.speaker_identification`). ``seconds``: of this speaker alone, that it was computed
    from. The vector travels as text: the service stores and forwards it, and only a worker decodes
    it.
    """

    vector: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class SpeakerCandidate:
    """Enrolled speaker to identify in a recording; ``person`` is the caller's id for the
    speaker."""

    person: str
    name: str
    prints: tuple[SpeakerEmbedding, ...]


@dataclass(frozen=True, slots=True)
class SpeakerProfile:
    """Voice profile of a transcript's speaker.

    ``seconds``: of voice that could be compared. ``person`` and ``name``: the enrolled speaker,
    None if none is similar enough; a ``name`` without a ``person`` was set in an edit.
    ``likeness``: the cosine to that person, or else to the most similar other one; None if none was
    compared. ``print``: the embedding, only if the client asked for it.
    """

    speaker: int
    seconds: float
    person: str | None = None
    name: str | None = None
    likeness: float | None = None
    print: SpeakerEmbedding | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Transcript of a whole recording; ``duration`` in seconds, ``diarized`` if it was diarized.

    ``voices``: profiles of its speakers, if speaker identification was requested. ``prints``:
    embeddings of the segments, by index; None for a segment with too little speech. It is empty if
    they were not requested. ``model``: the model, if the engine may have one of several.
    ``device``: `cuda` or `cpu`, if the engine may use either. ``language_probability``: of a
    language that the model detected; None if it did not. ``recognized_s``: of live audio, the
    seconds from the start in which no word is missing; None if that is all of it, else ``notices``
    say what failed behind it. ``hotwords``: those that the engine of a job got, whoever named them;
    None: it got none.
    """

    segments: tuple[Segment, ...]
    language: str
    duration: float
    engine: str
    precision: str
    diarized: bool = False
    notices: tuple[Notice, ...] = ()
    voices: tuple[SpeakerProfile, ...] = ()
    prints: tuple[SpeakerEmbedding | None, ...] = field(default=(), repr=False)
    model: str = ""
    device: str = ""
    language_probability: float | None = field(
        default=None, compare=False, metadata=OMITTED_IF_NONE
    )
    recognized_s: float | None = field(default=None, metadata=OMITTED_IF_NONE)
    hotwords: tuple[str, ...] | None = field(default=None, metadata=OMITTED_IF_NONE)

    def name_of(self, speaker: int | None) -> str | None:
        """Return the name of a speaker; None if it has none."""
        return next((one.name for one in self.voices if one.speaker == speaker), None)

    @property
    def text(self) -> str:
        """Return the text of all segments with speech (`join_texts`)."""
        return join_texts(segment.text for segment in self.segments if segment.is_speech)

    @property
    def has_speech(self) -> bool:
        """Return whether any segment has words."""
        return any(segment.is_speech for segment in self.segments)

    @property
    def no_speech(self) -> bool:
        """Return whether nobody speaks. An output without words that was truncated, or missed
        speech, does not tell."""
        codes = {notice.code for notice in self.notices}
        unsure = self.recognized_s is not None or codes & {TRUNCATED, SPEECH_MISSED}
        return not (self.has_speech or unsure)

    @property
    def lacks_words(self) -> bool:
        """Return whether some of what was said is known to be missing."""
        codes = {notice.code for notice in self.notices}
        return self.recognized_s is not None or bool(
            codes & {TRUNCATED, SPEECH_MISSED, LOOP_SKIPPED}
        )

    @property
    def words_by(self) -> str:
        """Return the least sure source of word times among the segments; '' if there is none."""
        ways = {segment.words_by for segment in self.segments}
        return next((way for way in WORDS_BY if way in ways), "")

    def parts(self) -> Iterator[Transcript]:
        """Yield it in parts, each with the next segments and their embeddings, of about
        `PART_CHARACTERS`; `join_parts` makes it whole."""
        begin = characters = 0
        for end, segment in enumerate(self.segments):
            if characters > PART_CHARACTERS:
                part = slice(begin, end)
                yield replace(self, segments=self.segments[part], prints=self.prints[part])
                begin, characters = end, 0
            characters += 1 + len(segment.text)
        yield replace(self, segments=self.segments[begin:], prints=self.prints[begin:])

    def with_notice(self, *notices: Notice) -> Transcript:
        """Return the transcript with more notices."""
        return replace(self, notices=(*self.notices, *notices))

    @property
    def num_speakers(self) -> int:
        """Return the number of speakers; 1 if there is speech without diarization."""
        named = {segment.speaker for segment in self.segments if segment.speaker is not None}
        return len(named) or int(self.has_speech)


def join_parts(parts: Sequence[Transcript]) -> Transcript:
    """Return the transcript of `Transcript.parts`; of all else the last part decides."""
    *_, last = parts
    segments = tuple(segment for part in parts for segment in part.segments)
    return replace(
        last, segments=segments, prints=tuple(one for part in parts for one in part.prints)
    )


def join_texts(pieces: Iterable[str]) -> str:
    """Join texts with one space between them, none in Chinese and Japanese, and one mark where two
    meet.

    A text that was cut inside a sentence may begin with the comma that the one before ends with.
    """
    text = ""
    for piece in pieces:
        piece = piece.strip()
        if text and piece[:1] in (",", ";"):
            rest = piece[1:].lstrip()
            if text[-1] in _MARKS:
                piece = rest
            else:
                text, piece = text + piece[0], rest
        spaced = text and piece and not are_joined(text[-1], piece[0])
        text = f"{text} {piece}" if spaced else text + piece
    return text


def collapse_commas(text: str) -> str:
    """Replace consecutive commas of a model by one, and remove leading ones."""
    return _DOUBLE_COMMA.sub(",", text).lstrip(", ")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress: seconds of audio done, and in all (None if unknown)."""

    audio_s_done: float
    audio_s_total: float | None

    @classmethod
    def of(cls, done_s: float, total_s: float | None) -> Progress:
        """Return the progress in a recording that may be longer than its header says."""
        return cls(done_s, None if total_s is None else max(total_s, done_s))

    @property
    def fraction(self) -> float | None:
        """Return the fraction from 0 to 1; None if the total is unknown."""
        return self.fraction_at(self.audio_s_done)

    def fraction_at(self, audio_s: float) -> float | None:
        """Return the fraction that so many seconds of audio are; None if the total is unknown."""
        if not self.audio_s_total:
            return None
        return round(min(1.0, audio_s / self.audio_s_total), 4)


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """Event with a segment whose text and times are final. `Finished` may revise its speaker.

    Every word of the transcript is reported before `Finished`. A segment that is recognized anew is
    reported with its ``index`` again.
    """

    index: int
    segment: Segment


def segments_from_plain(values: Iterable[Mapping[str, Any]]) -> list[Segment]:
    """Return the segments of `to_plain`, of this release or another."""
    return [from_plain(Segment, one, lenient=True) for one in values]


def unreported_segments(reported: Iterable[Segment], segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments that were not ``reported``, perhaps with other speakers."""
    known = {replace(one, speaker=None) for one in reported}
    return [one for one in segments if replace(one, speaker=None) not in known]


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of the recording from tenth of a second number ``first`` on, 0 to 255 each."""

    first: int
    levels: bytes


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Resume point at ``audio_s``: with it and earlier ones another attempt resumes from there.

    ``form``: engine and version of the state (`EngineSpec.resumes`); in a job, with all else on
    which it depends (`workers.loaded_model.LoadedModel.resume_form`). ``segments``: those that
    became final since the last resume point; their speakers may still be revised. ``state``: plain
    values for the engine only, in addition to those of earlier resume points.
    """

    audio_s: float
    form: str
    segments: tuple[Segment, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keeps_diarization(self) -> bool:
        """Return whether it is for the diarization of a job that has ended, not for an attempt."""
        return self.form == KEPT_DIARIZATION


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of a successful transcription."""

    transcript: Transcript


TranscriptionEvent = Progress | SegmentReady | Peaks | ResumePoint | Finished
EVENT_NAMES: dict[type[TranscriptionEvent], str] = {
    Progress: "Progress",
    SegmentReady: "SegmentReady",
    Peaks: "Peaks",
    ResumePoint: "Checkpoint",
    Finished: "Finished",
}
"""Names in stored jobs and in messages: they stay, even if the classes are renamed."""
_EVENTS = {name: kind for kind, name in EVENT_NAMES.items()}


def map_segments(
    event: TranscriptionEvent, change: Callable[[Segment], Segment]
) -> TranscriptionEvent:
    """Return an event with ``change`` applied to all of its segments."""
    match event:
        case SegmentReady():
            return replace(event, segment=change(event.segment))
        case ResumePoint():
            return replace(event, segments=tuple(map(change, event.segments)))
        case Finished(transcript):
            segments = tuple(map(change, transcript.segments))
            return Finished(replace(transcript, segments=segments))
    return event


def to_wire(event: TranscriptionEvent) -> dict[str, Any]:
    """Return an event as plain values (for JSON between processes of this project)."""
    values = {"event": EVENT_NAMES[type(event)], **to_plain(event)}
    if isinstance(event, Peaks):
        values["levels"] = base64.b64encode(event.levels).decode()
    return values


def from_wire(values: dict[str, Any], *, lenient: bool = False) -> TranscriptionEvent:
    """Parse an event that `to_wire` wrote; ``lenient``: perhaps in a later release
    (`serialization.from_plain`).

    Raises:
        errors.EngineFailed: it is no event.
    """
    try:
        fields = dict(values)
        kind = _EVENTS[fields.pop("event")]
        if kind is Peaks:
            fields["levels"] = base64.b64decode(fields["levels"], validate=True)
        return from_plain(kind, fields, lenient=lenient)
    except (KeyError, TypeError, ValueError):
        raise EngineFailed("The worker process sent a message that is not an event.") from None
