"""Speaker labels of a live session (provisional, then final) and enrolled speakers in it. Pure.

Speakers are told apart by all of their audio, so labels that are assigned once and kept would stay
wrong for minutes. Every embedding counts until the end. All are clustered again as new ones come,
less often the more there are. A speaker keeps its number as far as two decisions agree. The label
that was sent with a segment is stored, so that changes can be sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.diarization import clustering, speaker_identification, window_speakers
from sidecar.diarization.speaker_identification import SpeakerVector, embedding_of, vector_of
from sidecar.transcripts.transcript import SpeakerCandidate, SpeakerEmbedding, SpeakerProfile

Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""

MIN_FOUNDING_S = 1.5
"""Seconds of speech: a segment with less is not clustered, unless none has more. It is assigned to
a speaker, or founds one if it is unlike all (`diarization.window_speakers`). Embeddings of less
speech scatter: one speaker in segments of a second would become many
(docs/decisions/diarization-parameters.md)."""
FEW_SEGMENTS = 6
"""Clustered segments up to which each cluster is a speaker, and nobody is by less speech. Values
from 0 to 12 give the same results."""
RELABEL_TIME_SHARE = 0.05
"""Growth of the number of embeddings until the next decision, as a share: the decisions over an
hour cost as much as a few of the last one."""


@dataclass(slots=True)
class _LabelledEmbedding:
    vector: npt.NDArray[np.float16]
    seconds: float
    label: int = clustering.NO_SPEAKER


@dataclass(frozen=True, slots=True)
class RelabelRequest:
    """Request for labels. ``vectors``: shape (count, 256); ``seconds``: of each, shape (count,);
    ``segment_numbers``: the numbers of their segments."""

    segment_numbers: tuple[int, ...]
    vectors: clustering.Matrix
    seconds: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RelabelResult:
    """Speaker of each segment, from 0, and the embeddings of the speakers: shape (speakers,
    256)."""

    segment_numbers: tuple[int, ...]
    labels: clustering.Labels
    voices: clustering.Matrix


def relabel(request: RelabelRequest) -> RelabelResult:
    """Return the labels, as a file's diarization has them of its windows; this takes time (0.1 s
    for a thousand embeddings)."""
    clustered = request.seconds >= min(MIN_FOUNDING_S, float(request.seconds.max()))
    used = clustered | (request.seconds >= window_speakers.MIN_FOUNDING_S)
    earlier = np.array(request.segment_numbers) < 0
    voices = window_speakers.founded_centroids(
        request.vectors[used],
        request.seconds[used],
        clustered[used],
        few=int(clustered.sum()) <= FEW_SEGMENTS,
        weights=np.where(earlier, 2, 1)[used],
    )
    labels: clustering.Labels = (request.vectors @ voices.T).argmax(axis=1)
    return RelabelResult(request.segment_numbers, labels, voices)


class LiveSpeakerLabels:
    """Speakers of one session, by numbers from 0.

    A session may continue another: ``earlier_speakers`` are the speakers that the other sent for
    its segments, ``voices`` their embeddings. Each of these counts as one embedding from then on,
    so that the numbers stay. Memory: half a kilobyte for each segment with an embedding.
    """

    def __init__(
        self,
        earlier_speakers: Mapping[int, int | None] | None = None,
        embeddings: Mapping[int, SpeakerEmbedding] | None = None,
    ) -> None:
        self._before = dict(earlier_speakers or {})
        self._told = dict(self._before)
        self._silent = set(self._before)
        self._embeddings: dict[int, _LabelledEmbedding] = {}
        self._directions: dict[int, Vector] = {}
        self._decided = 0
        self._asked: set[int] = set()
        """Segments of the last request whose embeddings have not changed since."""
        for number, one in (embeddings or {}).items():
            vector = vector_of(one)
            self._embeddings[_speaker_anchor(number)] = _LabelledEmbedding(
                vector.astype(np.float16), one.seconds, number
            )
            self._directions[number] = vector
        numbers = {who for who in self._before.values() if who is not None}
        self._voiceless = {who: who for who in numbers - set(self._directions)}
        self._highest = max(numbers | set(self._directions), default=clustering.NO_SPEAKER)

    def add_embedding(self, segment_number: int, vector: Vector, seconds: float) -> None:
        """Note the embedding of a segment, computed from ``seconds`` of speech."""
        embedding = _LabelledEmbedding(vector.astype(np.float16), seconds)
        embedding.label = self._nearest(vector, seconds)
        self._embeddings[segment_number] = embedding

    def mark_without_embedding(self, segment_number: int) -> None:
        """Note that a segment gets no embedding."""
        self._silent.add(segment_number)

    def forget(self, segment_number: int) -> None:
        """Drop the embedding of a segment: it has no text, or will have another embedding."""
        self._silent.discard(segment_number)
        self._asked.discard(segment_number)
        embedding = self._embeddings.pop(segment_number, None)
        if embedding is None:
            return
        self._decided -= 1  # another one is news
        if all(one.label != embedding.label for one in self._embeddings.values()):
            self._directions.pop(embedding.label, None)

    def tell(self, segment_number: int) -> int | None:
        """Return the current speaker of a segment that is sent, in order. None if it is not known
        yet; the first segment always gets a label."""
        self._told[segment_number] = None
        who = self._now()[segment_number]
        if who is None and len(self._told) == 1:
            who = 0
        self._told[segment_number] = who
        return who

    def question(self, last: bool = False) -> RelabelRequest | None:
        """Return the request for a new decision; None if none is due. ``last``: request one over
        all embeddings."""
        count = len(self._embeddings)
        if not count or (not last and count - self._decided < max(1, RELABEL_TIME_SHARE * count)):
            return None
        self._decided = count
        segment_numbers = sorted(self._embeddings)  # in whatever order they came
        self._asked = set(segment_numbers)
        found = [self._embeddings[one] for one in segment_numbers]
        vectors = np.stack([one.vector for one in found]).astype(np.float32)
        seconds = np.array([one.seconds for one in found], np.float32)
        return RelabelRequest(tuple(segment_numbers), vectors, seconds)

    def take(self, result: RelabelResult) -> None:
        """Take over a decision; segments that came meanwhile go to the nearest speaker."""
        found = dict(zip(result.segment_numbers, result.labels.tolist(), strict=True))
        found = {one: label for one, label in found.items() if one in self._asked}
        before = [one.label for one in self._embeddings.values()]
        after = [found.get(one, clustering.NO_SPEAKER) for one in self._embeddings]
        numbers = clustering.renumber_speakers(
            np.array([*before, self._highest]),
            np.array([*after, clustering.NO_SPEAKER]),
            len(result.voices),
        )
        known = zip(numbers.tolist(), result.voices, strict=True)
        used = set(found.values())  # not of a voice whose only embeddings were dropped meanwhile
        self._directions = dict(one for label, one in enumerate(known) if label in used)
        for segment_number, one in self._embeddings.items():
            if segment_number in found:
                one.label = int(numbers[found[segment_number]])
            else:
                one.label = self._nearest(one.vector.astype(np.float32), one.seconds)

    def settle(self) -> None:
        """Number the speakers in order of appearance, at the end."""
        self._silent |= self._told.keys()
        order: dict[int, int] = {}
        for who in self._now().values():
            if who is not None:
                order.setdefault(who, len(order))
        for one in self._embeddings.values():
            one.label = order.setdefault(one.label, len(order))
        for number, who in self._voiceless.items():
            self._voiceless[number] = order.setdefault(who, len(order))
        known = self._directions.items()
        self._directions = {order[number]: one for number, one in known if number in order}

    def revised(self) -> dict[int, int]:
        """Return the speakers of segments that were sent with another label; each change once."""
        now = ((one, who) for one, who in self._now().items() if who is not None)
        changes = {one: who for one, who in now if who != self._told[one]}
        self._told.update(changes)
        return changes

    def of(self, segment_number: int) -> int | None:
        """Return the speaker that a segment was sent with, after all revisions."""
        return self._told.get(segment_number)

    @property
    def embedding_count(self) -> int:
        """Return the number of embeddings."""
        return len(self._embeddings)

    @property
    def voices(self) -> dict[int, SpeakerEmbedding]:
        """Return the embeddings of speakers by number, as plain values."""
        return {number: embedding_of(voice) for number, voice in self.sounds.items()}

    def sound_of(self, segment_number: int) -> SpeakerEmbedding | None:
        """Return the embedding of a segment; None if it has none."""
        embedding = self._embeddings.get(segment_number)
        if embedding is None:
            return None
        return embedding_of(SpeakerVector(embedding.vector.astype(np.float32), embedding.seconds))

    @property
    def sounds(self) -> dict[int, SpeakerVector]:
        """Return the embeddings of speakers by number."""
        seconds: dict[int, float] = {}
        for one in self._embeddings.values():
            seconds[one.label] = seconds.get(one.label, 0.0) + one.seconds
        return {
            number: SpeakerVector(direction, seconds.get(number, 0.0))
            for number, direction in self._directions.items()
        }

    def _nearest(self, vector: Vector, seconds: float) -> int:
        """Return the nearest known speaker, or a new one."""
        alike = {number: float(vector @ one) for number, one in self._directions.items()}
        best = max(alike, key=lambda number: alike[number], default=None)
        least = 1 - clustering.SAME_SPEAKER_DISTANCE
        if best is not None and (alike[best] > least or seconds < MIN_FOUNDING_S):
            return best
        labels = [one.label for one in self._embeddings.values()]
        number = max([*labels, *self._voiceless.values(), self._highest]) + 1
        self._directions[number] = vector
        return number

    def _now(self) -> dict[int, int | None]:
        """Return the speakers of all sent segments, as they look now. A segment that never gets an
        embedding has the speaker before it, or else after it; one that has none yet has no
        speaker."""
        found: dict[int, int | None] = {}
        last: int | None = None
        for segment_number in self._told:
            known = self._by_voice(segment_number)
            if known is not None:
                if last is None:
                    found.update(dict.fromkeys(found.keys() & self._silent, known))
                last = known
            found[segment_number] = (
                last if known is not None or segment_number in self._silent else None
            )
        if last is None:
            found.update(dict.fromkeys(found.keys() & self._silent, 0))
        return found

    def _by_voice(self, segment_number: int) -> int | None:
        """Return the speaker of a segment by its embedding, here or in the engine before."""
        if segment_number in self._embeddings:
            return self._embeddings[segment_number].label
        number = self._before.get(segment_number)
        if number is None:
            return None
        anchor = self._embeddings.get(_speaker_anchor(number))
        return self._voiceless[number] if anchor is None else anchor.label


def _speaker_anchor(number: int) -> int:
    """Return the position of a previous speaker among the segments."""
    return -1 - number


class LiveSpeakerIdentification:
    """Identified speakers of one session, and the names that its client got."""

    def __init__(self, candidates: Sequence[SpeakerCandidate]) -> None:
        self._candidates = {one.person: one for one in candidates}
        self._means = speaker_identification.mean_vectors(candidates)
        self._told: dict[int, str] = {}
        self.voices: dict[int, SpeakerProfile] = {}
        """Profile of each speaker, by number."""

    def meet(self, vectors: Mapping[int, speaker_identification.SpeakerVector]) -> None:
        """Take over the current embeddings of the speakers."""
        self.voices = speaker_identification.match_profiles(
            vectors, speaker_identification.similarities(vectors, self._means), self._candidates
        )

    def name_of(self, speaker: int | None) -> str | None:
        """Return the name of an enrolled speaker; None for all others."""
        one = None if speaker is None else self.voices.get(speaker)
        return None if one is None else one.name

    def news(self) -> dict[int, str | None]:
        """Return the changed names of speakers, None for no longer identified; each change once."""
        now = {number: one.name for number, one in self.voices.items() if one.name is not None}
        numbers = sorted({*now, *self._told})
        changes = {one: now.get(one) for one in numbers if now.get(one) != self._told.get(one)}
        self._told = now
        return changes
