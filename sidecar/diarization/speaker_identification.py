"""Identification of enrolled speakers by embeddings.

All engines that hear voices come here with their finished transcript. Two speakers of a recording
are never the same person: the likelier one is.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts import speaker_embeddings
from sidecar.transcripts.speaker_turns import SpeakerTurn, match_speakers, speaker_turns_of
from sidecar.transcripts.transcript import Notice, Transcript

SAME_SPEAKER_SIMILARITY = 0.55
"""The cosine from which on a voice is a known person's (docs/decisions/diarization-parameters.md;
`python -m bench.speaker_identification`)."""
SIMILARITY_MARGIN = 0.08
"""So much likelier than anybody else a person has to be; of two who are as like it is neither."""
MIN_SPEECH_S = 2.0
"""A voice of which less is heard alone is nobody's: with less, it is too often taken for nobody."""
MAX_WEIGHT_S = 30.0
"""A longer recording of a person counts no more than so much: one of each microphone is better
than an hour of one."""
MIN_SHARED_S = 0.5
"""Overlap that a transcript's speaker and a cluster need to be the same."""

Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""


@dataclass(frozen=True, slots=True)
class SpeakerVector:
    """Embedding of a speaker, from ``seconds`` of speech."""

    vector: Vector
    seconds: float


SpanEmbeddings = Callable[[Sequence[tuple[float, float]]], Sequence[SpeakerVector | None]]
"""The voice in each stretch of (start, end) seconds, None where there is too little."""


@dataclass(frozen=True, slots=True)
class DiarizedSpeakers:
    """Turns and embeddings of speakers, by the label of their turns; a speaker who never speaks
    alone is missing. ``passages``: embedding of any stretch, if that is known."""

    turns: Sequence[SpeakerTurn]
    voices: Mapping[int, SpeakerVector] = field(default_factory=dict)
    passages: SpanEmbeddings | None = None


@runtime_checkable
class HasDiarizedSpeakers(Protocol):
    """A follower that knows at the end what everybody sounds like."""

    def speakers(self) -> DiarizedSpeakers:
        """All of them, once it is finished."""


SPEAKERS_NOT_COMPARED = Notice(
    "voices_not_compared",
    "Speaker embeddings could not be computed on this machine: no enrolled speaker was identified.",
)


def identify_with_diarizer(
    follower: object, transcript: Transcript, options: TranscribeOptions
) -> Transcript:
    """`identify_speakers`, by the voices that a follower heard, if it hears any."""
    if not options.identifies_speakers:
        return transcript
    heard = follower.speakers() if isinstance(follower, HasDiarizedSpeakers) else None
    return identify_speakers(transcript, heard, options)


def identify_speakers(
    transcript: Transcript, speakers: DiarizedSpeakers | None, options: TranscribeOptions
) -> Transcript:
    """The transcript with what is known of its speakers, if the options ask for that.

    ``speakers``: as a diarizer heard them; None where none did.
    """
    if not options.identifies_speakers or not transcript.diarized:
        return transcript
    if speakers is None:
        return (
            transcript.with_notice(SPEAKERS_NOT_COMPARED) if transcript.has_speech else transcript
        )
    own = speaker_turns_of(transcript.segments)
    labels = match_speakers(overlap_seconds(speakers.turns, own), MIN_SHARED_S)
    voices = {
        speaker: speakers.voices[label]
        for speaker, label in labels.items()
        if label in speakers.voices
    }
    known = {one.person: one for one in options.known_voices}
    likely = similarities(voices, mean_vectors(options.known_voices))
    found = [
        replace(one, print=embedding_if_long_enough(voices[speaker]))
        if options.voiceprints
        else one
        for speaker, one in match_profiles(voices, likely, known).items()
    ]
    prints = _segment_embeddings(transcript, speakers) if options.voiceprints else ()
    return replace(transcript, voices=tuple(found), prints=prints)


def _segment_embeddings(
    transcript: Transcript, speakers: DiarizedSpeakers
) -> tuple[speaker_embeddings.SpeakerEmbedding | None, ...]:
    """Return the embedding of each segment."""
    if speakers.passages is None:
        return ()
    heard = speakers.passages([(one.start, one.end) for one in transcript.segments])
    return tuple(None if one is None else embedding_of(one) for one in heard)


def embedding_if_long_enough(voice: SpeakerVector) -> speaker_embeddings.SpeakerEmbedding | None:
    """A speaker's voice, for who wants to know it again; None where there is too little of it."""
    return embedding_of(voice) if voice.seconds >= MIN_SPEECH_S else None


def match_profiles(
    voices: Mapping[int, SpeakerVector],
    likely: Mapping[tuple[int, str], float],
    known: Mapping[str, speaker_embeddings.SpeakerCandidate],
) -> dict[int, speaker_embeddings.SpeakerProfile]:
    """Return the profile of each speaker: the enrolled one, or the similarity to the likeliest.

    ``likely``: the cosine of each to each enrolled speaker (`similarities`); ``known``: those by
    their ids.
    """
    persons = assign_speakers(likely)
    found = {}
    for speaker, voice in sorted(voices.items()):
        person = persons.get(speaker)
        nearest = [value for (one, _), value in likely.items() if one == speaker]
        likeness = max(nearest, default=None) if person is None else likely[speaker, person]
        found[speaker] = speaker_embeddings.SpeakerProfile(
            speaker,
            round(voice.seconds, 2),
            person,
            None if person is None else known[person].name,
            None if likeness is None else round(likeness, 3),
        )
    return found


def mean_vectors(known: Sequence[speaker_embeddings.SpeakerCandidate]) -> dict[str, Vector]:
    """The direction of each person, by id."""
    return {one.person: mean_vector(one.prints) for one in known if one.prints}


def similarities(
    voices: Mapping[int, SpeakerVector], means: Mapping[str, Vector]
) -> dict[tuple[int, str], float]:
    """The cosine of each speaker's voice to each person's, for voices of which there is enough."""
    enough = {speaker: voice for speaker, voice in voices.items() if voice.seconds >= MIN_SPEECH_S}
    return {
        (speaker, person): float(voice.vector @ mean)
        for speaker, voice in enough.items()
        for person, mean in means.items()
    }


def assign_speakers(alike: Mapping[tuple[int, str], float]) -> dict[int, str]:
    """Return the enrolled speaker of each speaker, by the similarity of every pair; unknown ones
    are left out. Pure.

    A person has to be like enough (`SAME_SPEAKER_SIMILARITY`), and likelier than all others by
    `SIMILARITY_MARGIN`.
    """
    found: dict[int, str] = {}
    for speaker in {speaker for speaker, _ in alike}:
        ranked = sorted(
            ((value, person) for (one, person), value in alike.items() if one == speaker),
            reverse=True,
        )
        (best, person), second = ranked[0], ranked[1][0] if len(ranked) > 1 else -1.0
        if best >= SAME_SPEAKER_SIMILARITY and best - second >= SIMILARITY_MARGIN:
            found[speaker] = person
    for speaker, person in list(found.items()):
        rivals = [one for one, other in found.items() if other == person]
        if speaker != max(rivals, key=lambda one: (alike[one, person], -one)):
            del found[speaker]
    return found


def overlap_seconds(
    before: Sequence[SpeakerTurn], after: Sequence[SpeakerTurn]
) -> dict[tuple[int, int], float]:
    """Seconds that each label of ``before`` and each of ``after`` speak at once."""
    found: dict[tuple[int, int], float] = {}
    first, ones = 0, sorted(before, key=lambda turn: turn.start)
    longest = max((turn.end - turn.start for turn in ones), default=0.0)
    for other in sorted(after, key=lambda turn: turn.start):
        while first < len(ones) and ones[first].start < other.start - longest:
            first += 1
        for one in ones[first:]:
            if one.start >= other.end:
                break
            if shared := one.overlap(other.start, other.end):
                pair = one.label, other.label
                found[pair] = found.get(pair, 0.0) + shared
    return found


def mean_vector(prints: Sequence[speaker_embeddings.SpeakerEmbedding]) -> Vector:
    """The direction of a person: each second weighing the same, up to `MAX_WEIGHT_S` a
    recording."""
    weights = np.array([min(one.seconds, MAX_WEIGHT_S) for one in prints], np.float32)
    mean = weights @ np.stack([vector_of(one) for one in prints])
    found: Vector = mean / np.linalg.norm(mean)
    return found


def embedding_of(voice: SpeakerVector) -> speaker_embeddings.SpeakerEmbedding:
    """A voice as plain values."""
    data = np.ascontiguousarray(voice.vector, "<f2").tobytes()
    return speaker_embeddings.SpeakerEmbedding(b64encode(data).decode(), round(voice.seconds, 2))


def vector_of(given: speaker_embeddings.SpeakerEmbedding) -> Vector:
    """The vector that `embedding_of` wrote, of length 1."""
    vector = np.frombuffer(b64decode(given.vector), "<f2").astype(np.float32)
    found: Vector = vector / np.linalg.norm(vector)
    return found
