"""Speaker identification: enrolment, and search of enrolled speakers in a transcript.

Both work on embeddings. The search is used for the finished transcript of every engine that
diarizes. Two speakers of a recording are never the same enrolled speaker: only the more similar one
is.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sidecar import errors
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn, match_speakers, speaker_turns_of
from sidecar.transcripts.transcript import (
    Notice,
    SpeakerCandidate,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
)

SAME_SPEAKER_SIMILARITY = 0.55
"""Minimum cosine to an enrolled speaker (docs/decisions/diarization-parameters.md;
`bench.speaker_identification` at 9d96464c)."""
SIMILARITY_MARGIN = 0.08
"""Minimum lead, in cosine, over the second enrolled speaker; else neither is chosen."""
MIN_SPEECH_S = 2.0
"""Minimum solo speech for identification; with less, enrolled speakers are missed too often."""
OTHER_SPEAKER_S = 1.0
"""Speech of a second speaker that rejects a clip; a local speaker with less is not compared."""
MIN_CLIP_SIMILARITY = 0.3
"""Minimum cosine between one or two seconds of a speaker and the whole clip. In the recordings of
docs/decisions/diarization-parameters.md one second in a hundred is below it."""
MAX_WEIGHT_S = 30.0
"""Maximum weight of one enrolment recording: several microphones are better than an hour."""
MIN_SHARED_S = 0.5
"""Minimum overlap between a transcript's speaker and a diarized one for them to be the same."""

Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""

SPEAKERS_NOT_COMPARED = Notice(
    "voices_not_compared",
    "Speaker embeddings could not be computed on this machine: no enrolled speaker was identified.",
)


@dataclass(frozen=True, slots=True)
class SpeakerVector:
    """Embedding of a speaker, from ``seconds`` of speech."""

    vector: Vector
    seconds: float


SpanEmbeddings = Callable[[Sequence[tuple[float, float]]], Sequence[SpeakerVector | None]]
"""Function from spans of (start, end) seconds to their embeddings; `None` for too little speech."""


@dataclass(frozen=True, slots=True)
class DiarizedSpeakers:
    """Turns and embeddings of speakers, by the label of their turns.

    A speaker who never talks alone has no embedding. ``passages``: embeddings of any spans, if the
    diarizer has them.
    """

    turns: Sequence[SpeakerTurn]
    voices: Mapping[int, SpeakerVector] = field(default_factory=dict)
    passages: SpanEmbeddings | None = None


def identify_speakers(
    transcript: Transcript, speakers: DiarizedSpeakers | None, options: TranscribeOptions
) -> Transcript:
    """Return the transcript with the profiles of its speakers, if the options request that.

    ``speakers``: the result of a diarizer, or `None`.
    """
    if not options.identifies_speakers or not transcript.diarized:
        return transcript
    if speakers is None:
        notices = (SPEAKERS_NOT_COMPARED,) if transcript.has_speech else ()
        return transcript.with_notice(*notices)
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
    vectors: Sequence[SpeakerVector | None] = ()
    if options.voiceprints and speakers.passages is not None:
        vectors = speakers.passages([(one.start, one.end) for one in transcript.segments])
    prints = tuple(None if one is None else embedding_of(one) for one in vectors)
    return replace(transcript, voices=tuple(found), prints=prints)


def embedding_of_only_speaker(
    speakers: DiarizedSpeakers, local_voices: Iterable[tuple[float, Vector]]
) -> SpeakerEmbedding:
    """Return the embedding of the only speaker in an enrolment clip.

    ``local_voices``: seconds and embedding of each speaker of each window of the diarizer.

    Raises:
        errors.VoiceAbsent: there is no speech.
        errors.VoiceTooShort: there are less than two seconds of speech.
        errors.SeveralVoices: there is more than one speaker.
    """
    if not speakers.voices:
        raise errors.VoiceAbsent()
    person = max(speakers.voices, key=lambda one: speakers.voices[one].seconds)
    voice = speakers.voices[person]
    others = sum(turn.end - turn.start for turn in speakers.turns if turn.label != person)
    strange = any(
        seconds >= OTHER_SPEAKER_S and float(vector @ voice.vector) < MIN_CLIP_SIMILARITY
        for seconds, vector in local_voices
    )
    if strange or others >= OTHER_SPEAKER_S:
        raise errors.SeveralVoices()
    if voice.seconds < MIN_SPEECH_S:
        raise errors.VoiceTooShort(
            f"The clip has {voice.seconds:.1f} s of speech; the minimum is {MIN_SPEECH_S:g} s."
        )
    return embedding_of(voice)


def embedding_if_long_enough(vector: SpeakerVector) -> SpeakerEmbedding | None:
    """Return a speaker's embedding for storage; `None` if there is too little speech."""
    return embedding_of(vector) if vector.seconds >= MIN_SPEECH_S else None


def match_profiles(
    vectors: Mapping[int, SpeakerVector],
    likely: Mapping[tuple[int, str], float],
    candidates: Mapping[str, SpeakerCandidate],
) -> dict[int, SpeakerProfile]:
    """Return the profile of each speaker: the enrolled speaker, or the highest similarity to one.

    ``likely``: cosine of each speaker to each enrolled speaker (`similarities`). ``candidates``:
    the enrolled speakers by id.
    """
    persons = assign_speakers(likely)
    found = {}
    for speaker, voice in sorted(vectors.items()):
        person = persons.get(speaker)
        nearest = [value for (one, _), value in likely.items() if one == speaker]
        likeness = max(nearest, default=None) if person is None else likely[speaker, person]
        found[speaker] = SpeakerProfile(
            speaker,
            round(voice.seconds, 2),
            person,
            None if person is None else candidates[person].name,
            None if likeness is None else round(likeness, 3),
        )
    return found


def mean_vectors(candidates: Sequence[SpeakerCandidate]) -> dict[str, Vector]:
    """Return the mean embedding of each enrolled speaker, by id."""
    return {one.person: mean_vector(one.prints) for one in candidates if one.prints}


def similarities(
    vectors: Mapping[int, SpeakerVector], means: Mapping[str, Vector]
) -> dict[tuple[int, str], float]:
    """Return the cosine of each speaker with enough speech to each enrolled speaker."""
    enough = {speaker: voice for speaker, voice in vectors.items() if voice.seconds >= MIN_SPEECH_S}
    return {
        (speaker, person): float(voice.vector @ mean)
        for speaker, voice in enough.items()
        for person, mean in means.items()
    }


def assign_speakers(alike: Mapping[tuple[int, str], float]) -> dict[int, str]:
    """Return the enrolled speaker of each identified speaker, by the similarity of all pairs. Pure.

    The similarity has to be at least `SAME_SPEAKER_SIMILARITY`, and higher than that to every other
    enrolled speaker by `SIMILARITY_MARGIN`.
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
    earlier_turns: Sequence[SpeakerTurn], later_turns: Sequence[SpeakerTurn]
) -> dict[tuple[int, int], float]:
    """Return the seconds of overlap of each label of ``earlier_turns`` with each of
    ``later_turns``."""
    found: dict[tuple[int, int], float] = {}
    first, ones = 0, sorted(earlier_turns, key=lambda turn: turn.start)
    longest = max((turn.end - turn.start for turn in ones), default=0.0)
    for other in sorted(later_turns, key=lambda turn: turn.start):
        while first < len(ones) and ones[first].start < other.start - longest:
            first += 1
        for one in ones[first:]:
            if one.start >= other.end:
                break
            if shared := one.overlap(other.start, other.end):
                pair = one.label, other.label
                found[pair] = found.get(pair, 0.0) + shared
    return found


def mean_vector(embeddings: Sequence[SpeakerEmbedding]) -> Vector:
    """Return the mean embedding of a person, of length 1.

    Each second has the same weight, at most `MAX_WEIGHT_S` per recording.
    """
    weights = np.array([min(one.seconds, MAX_WEIGHT_S) for one in embeddings], np.float32)
    mean = weights @ np.stack([vector_of(one) for one in embeddings])
    return mean / np.linalg.norm(mean)


def embedding_of(vector: SpeakerVector) -> SpeakerEmbedding:
    """Return an embedding as plain values."""
    data = np.ascontiguousarray(vector.vector, "<f2").tobytes()
    return SpeakerEmbedding(b64encode(data).decode(), round(vector.seconds, 2))


def vector_of(embedding: SpeakerEmbedding) -> Vector:
    """Parse the vector of `embedding_of`; its length is 1."""
    vector = np.frombuffer(b64decode(embedding.vector), "<f2").astype(np.float32)
    return vector / np.linalg.norm(vector)
