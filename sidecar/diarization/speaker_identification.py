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
from sidecar.transcripts.speaker_embeddings import KnownVoice, SpeakerVoice, VoicePrint
from sidecar.transcripts.speaker_turns import Turn, matched
from sidecar.transcripts.transcript import Notice, Transcript

SAME_PERSON = 0.55
"""The cosine from which on a voice is a known person's (docs/performance.md, "People": the curve;
`python -m bench.speaker_identification`)."""
MARGIN = 0.08
"""So much likelier than anybody else a person has to be; of two who are as like it is neither."""
LEAST_S = 2.0
"""A voice of which less is heard alone is nobody's: with less, it is too often taken for nobody."""
COUNTED_S = 30.0
"""A longer recording of a person counts no more than so much: one of each microphone is better
than an hour of one."""
LEAST_SHARED_S = 0.5
"""What a transcript's speaker and a voice must have in common to be the same."""

Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What a voice sounds like; ``seconds`` of it were heard."""

    vector: Vector
    seconds: float


VoicesIn = Callable[[Sequence[tuple[float, float]]], Sequence[Voice | None]]
"""The voice in each stretch of (start, end) seconds, None where there is too little."""


@dataclass(frozen=True, slots=True)
class Speakers:
    """Who spoke when, and what each sounds like, by the label of their turns; a voice that was
    never heard alone is missing. ``passages``: what any stretch sounds like, where that is known.
    """

    turns: Sequence[Turn]
    voices: Mapping[int, Voice] = field(default_factory=dict)
    passages: VoicesIn | None = None


@runtime_checkable
class HearsVoices(Protocol):
    """A follower that knows at the end what everybody sounds like."""

    def speakers(self) -> Speakers:
        """All of them, once it is finished."""


UNHEARD = Notice("voices_not_compared", "Voices could not be compared here: nobody was recognised.")


def recognised_by(
    follower: object, transcript: Transcript, options: TranscribeOptions
) -> Transcript:
    """`recognised`, by the voices that a follower heard, if it hears any."""
    if not options.hears_voices:
        return transcript
    heard = follower.speakers() if isinstance(follower, HearsVoices) else None
    return recognised(transcript, heard, options)


def recognised(
    transcript: Transcript, speakers: Speakers | None, options: TranscribeOptions
) -> Transcript:
    """The transcript with what is known of its speakers, if the options ask for that.

    ``speakers``: as a diarizer heard them; None where none did.
    """
    if not options.hears_voices or not transcript.diarized:
        return transcript
    if speakers is None:
        return transcript.noting(UNHEARD) if transcript.has_speech else transcript
    own = [Turn(one.start, one.end, one.speaker) for one in transcript.segments
           if one.speaker is not None]  # fmt: skip
    labels = matched(shared_s(speakers.turns, own), LEAST_SHARED_S)
    voices = {
        speaker: speakers.voices[label]
        for speaker, label in labels.items()
        if label in speakers.voices
    }
    known = {one.person: one for one in options.known_voices}
    likely = alike(voices, means_of(options.known_voices))
    found = [
        replace(one, print=worth_keeping(voices[speaker])) if options.voiceprints else one
        for speaker, one in named(voices, likely, known).items()
    ]
    prints = _prints(transcript, speakers) if options.voiceprints else ()
    return replace(transcript, voices=tuple(found), prints=prints)


def _prints(transcript: Transcript, speakers: Speakers) -> tuple[VoicePrint | None, ...]:
    """What each segment sounds like."""
    if speakers.passages is None:
        return ()
    heard = speakers.passages([(one.start, one.end) for one in transcript.segments])
    return tuple(None if one is None else print_of(one) for one in heard)


def worth_keeping(voice: Voice) -> VoicePrint | None:
    """A speaker's voice, for who wants to know it again; None where there is too little of it."""
    return print_of(voice) if voice.seconds >= LEAST_S else None


def named(
    voices: Mapping[int, Voice],
    likely: Mapping[tuple[int, str], float],
    known: Mapping[str, KnownVoice],
) -> dict[int, SpeakerVoice]:
    """What is known of each speaker: who it is, or how like it is to the likeliest.

    ``likely``: the cosine of each to each person (`alike`); ``known``: people by their ids.
    """
    persons = who_is_who(likely)
    found = {}
    for speaker, voice in sorted(voices.items()):
        person = persons.get(speaker)
        nearest = [value for (one, _), value in likely.items() if one == speaker]
        likeness = max(nearest, default=None) if person is None else likely[speaker, person]
        found[speaker] = SpeakerVoice(
            speaker,
            round(voice.seconds, 2),
            person,
            None if person is None else known[person].name,
            None if likeness is None else round(likeness, 3),
        )
    return found


def means_of(known: Sequence[KnownVoice]) -> dict[str, Vector]:
    """The direction of each person, by id."""
    return {one.person: mean_of(one.prints) for one in known if one.prints}


def alike(voices: Mapping[int, Voice], means: Mapping[str, Vector]) -> dict[tuple[int, str], float]:
    """The cosine of each speaker's voice to each person's, for voices of which there is enough."""
    enough = {speaker: voice for speaker, voice in voices.items() if voice.seconds >= LEAST_S}
    return {
        (speaker, person): float(voice.vector @ mean)
        for speaker, voice in enough.items()
        for person, mean in means.items()
    }


def who_is_who(alike: Mapping[tuple[int, str], float]) -> dict[int, str]:
    """Which person each speaker is, by the likeness of every pair; who is nobody is left out. Pure.

    A person has to be like enough (`SAME_PERSON`), and likelier than all others by `MARGIN`.
    """
    found: dict[int, str] = {}
    for speaker in {speaker for speaker, _ in alike}:
        ranked = sorted(
            ((value, person) for (one, person), value in alike.items() if one == speaker),
            reverse=True,
        )
        (best, person), second = ranked[0], ranked[1][0] if len(ranked) > 1 else -1.0
        if best >= SAME_PERSON and best - second >= MARGIN:
            found[speaker] = person
    for speaker, person in list(found.items()):
        rivals = [one for one, other in found.items() if other == person]
        if speaker != max(rivals, key=lambda one: (alike[one, person], -one)):
            del found[speaker]
    return found


def shared_s(before: Sequence[Turn], after: Sequence[Turn]) -> dict[tuple[int, int], float]:
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


def mean_of(prints: Sequence[VoicePrint]) -> Vector:
    """The direction of a person: each second weighing the same, up to `COUNTED_S` a recording."""
    weights = np.array([min(one.seconds, COUNTED_S) for one in prints], np.float32)
    mean = weights @ np.stack([vector_of(one) for one in prints])
    found: Vector = mean / np.linalg.norm(mean)
    return found


def print_of(voice: Voice) -> VoicePrint:
    """A voice as plain values."""
    data = np.ascontiguousarray(voice.vector, "<f2").tobytes()
    return VoicePrint(b64encode(data).decode(), round(voice.seconds, 2))


def vector_of(given: VoicePrint) -> Vector:
    """The vector that `print_of` wrote, of length 1."""
    vector = np.frombuffer(b64decode(given.vector), "<f2").astype(np.float32)
    found: Vector = vector / np.linalg.norm(vector)
    return found
