"""Who says a piece: tables, and what holds whatever comes."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.live.runtime.live_speaker_labels import LiveSpeakerLabels, Vector, relabel


def voice(who: int, chance: random.Random | None = None, spread: float = 0.0) -> Vector:
    """Somebody, with some noise."""
    vector = np.eye(1, 256, who, dtype=np.float32)[0]
    if chance is not None:
        vector += spread * np.random.default_rng(chance.randrange(2**32)).normal(size=256)
    found: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return found


def hear(speakers: LiveSpeakerLabels, piece: int, who: int, seconds: float = 3.0) -> None:
    speakers.add_embedding(piece, voice(who), seconds)
    decide(speakers)


def decide(speakers: LiveSpeakerLabels, last: bool = False) -> None:
    question = speakers.question(last)
    if question is not None:
        speakers.take(relabel(question))


def labels(speakers: LiveSpeakerLabels, pieces: int) -> list[int | None]:
    return [speakers.of(piece) for piece in range(pieces)]


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ({}, [0, 0, 0, 0]),
        ({1: 7}, [0, 0, 0, 0]),
        ({1: 7, 2: 8}, [0, 0, 1, 1]),
        ({0: 7, 3: 8}, [0, 0, 0, 1]),
    ],
)
def test_segment_without_embedding_has_the_label_before_it_or_else_after_it(
    heard: dict[int, int], expected: list[int]
) -> None:
    speakers = LiveSpeakerLabels()
    for piece in range(4):
        if piece in heard:
            hear(speakers, piece, heard[piece])
        else:
            speakers.mark_without_embedding(piece)
        speakers.tell(piece)
    speakers.settle()
    speakers.revised()
    assert labels(speakers, 4) == expected


def test_segments_of_at_most_a_second_each_are_one_speaker() -> None:
    speakers = LiveSpeakerLabels()
    for piece in range(6):
        speakers.add_embedding(piece, voice(piece), 0.5 + piece / 10)
        decide(speakers)
        speakers.tell(piece)
    assert set(labels(speakers, 6)) == {0}


def between(one: int, other: int, likeness: float) -> Vector:
    """Somebody who is as like ``one`` as a cosine says."""
    return likeness * voice(one) + math.sqrt(1 - likeness**2) * voice(other)


def test_short_segments_unlike_all_speakers_are_a_speaker_and_one_alike_is_none() -> None:
    """Of two people who speak eight times, and others who say a word or two."""
    speakers = LiveSpeakerLabels()
    for piece in range(8):
        speakers.add_embedding(piece, voice(piece % 2), 3.0)
    speakers.add_embedding(8, between(0, 5, 0.1), 1.0)
    speakers.add_embedding(9, between(0, 6, 0.4), 1.0)
    speakers.add_embedding(10, between(1, 7, 0.4), 3.0)  # alone in its cluster
    speakers.add_embedding(11, between(1, 8, 0.1), 0.4)  # too short
    for piece in range(12):
        speakers.tell(piece)
    decide(speakers, last=True)
    speakers.settle()
    speakers.revised()
    assert labels(speakers, 12) == [0, 1] * 4 + [2, 0, 1, 1]


def test_speaker_from_before_a_restart_stays_one_without_another_segment() -> None:
    before = LiveSpeakerLabels()
    for piece in range(4):
        before.add_embedding(piece, between(0, 5, 0.4) if piece % 2 else voice(0), 3.0)
        decide(before)
        before.tell(piece)
    after = LiveSpeakerLabels({piece: before.of(piece) for piece in range(4)}, before.voices)
    for piece in range(4, 12):
        after.add_embedding(piece, voice(0), 3.0)
        after.tell(piece)
    decide(after, last=True)
    assert set(after.voices) == {0, 1}


def test_labels_are_revised_when_one_voice_turns_out_to_be_two() -> None:
    """Two pieces seem one voice, barely; what follows of each is farther apart."""
    speakers = LiveSpeakerLabels()
    for piece, degrees in enumerate((0, 60, -15, 75, -15, 75)):
        there = math.radians(degrees)
        speakers.add_embedding(piece, math.cos(there) * voice(1) + math.sin(there) * voice(2), 3.0)
        decide(speakers)
        if piece < 2:
            assert speakers.tell(piece) == 0
        else:
            speakers.tell(piece)
    assert speakers.revised() == {1: 1}
    assert labels(speakers, 6) == [0, 1, 0, 1, 0, 1]


def test_dropped_segment_counts_for_no_speaker_label() -> None:
    speakers = LiveSpeakerLabels()
    hear(speakers, 0, 7)
    speakers.forget(0)
    hear(speakers, 1, 8)
    assert speakers.tell(1) == 0 or speakers.of(1) == 1
    decide(speakers, last=True)
    speakers.settle()
    speakers.revised()
    assert labels(speakers, 2) == [None, 0]
    assert set(speakers.voices) == {0}


def test_recomputed_embedding_is_clustered_anew_and_the_former_leaves_no_speaker() -> None:
    speakers = LiveSpeakerLabels()
    hear(speakers, 0, 7)
    mixed = (voice(7) + voice(8)) / math.sqrt(2)
    speakers.add_embedding(1, mixed, 3.0)
    late = speakers.question()
    assert late is not None
    speakers.forget(1)
    speakers.add_embedding(1, voice(8), 3.0)
    question = speakers.question()
    assert question is not None
    speakers.take(relabel(question))
    assert set(speakers.voices) == {0, 1}


def test_late_clustering_of_a_dropped_embedding_does_not_label_the_one_that_replaced_it() -> None:
    speakers = LiveSpeakerLabels()
    for piece, who in enumerate((7, 8, 7)):
        hear(speakers, piece, who)
    late = speakers.question(last=True)
    assert late is not None
    speakers.forget(1)
    speakers.add_embedding(1, voice(7), 3.0)
    speakers.take(relabel(late))
    assert [speakers.tell(piece) for piece in range(3)] == [0, 0, 0]
    assert set(speakers.voices) == {0}, "the voice of the dropped one is nobody's"


def test_clustering_is_asked_for_less_often_the_longer_a_session_is() -> None:
    speakers, count = LiveSpeakerLabels(), 0
    for piece in range(1000):
        speakers.add_embedding(piece, voice(piece % 3), 3.0)
        question = speakers.question()
        if question is not None:
            count += 1
            if piece < 40:
                speakers.take(relabel(question))
    assert count < 130


def test_speaker_labels_from_before_a_restart_are_not_given_to_new_voices() -> None:
    speakers = LiveSpeakerLabels({0: 0, 1: 1, 2: None})
    hear(speakers, 3, 7)
    assert speakers.tell(3) == 2
    speakers.settle()
    speakers.revised()
    assert labels(speakers, 4) == [0, 1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    people=st.integers(1, 5),
    pieces=st.integers(1, 30),
    lost=st.floats(0, 0.5),
)
def test_any_order_of_embeddings_gives_each_voice_one_label_in_order_of_appearance(
    seed: int, people: int, pieces: int, lost: float
) -> None:
    chance = random.Random(seed)
    who = [chance.randrange(people) for _ in range(pieces)]
    speakers, told, pending = LiveSpeakerLabels(), {}, []
    restarts = chance.random() < 0.3
    for piece in range(pieces):
        if chance.random() < lost:
            speakers.mark_without_embedding(piece)
            who[piece] = -1
        else:
            pending.append(piece)
        chance.shuffle(pending)
        while pending and chance.random() < 0.6:
            one = pending.pop()
            speakers.add_embedding(one, voice(who[one], chance, 0.02), chance.uniform(1.6, 3.0))
            if chance.random() < 0.8:
                decide(speakers)
        told[piece] = speakers.tell(piece)
        told.update(speakers.revised())
        assert told == {one: speakers.of(one) for one in told}
        if restarts and piece == pieces // 2:
            speakers = LiveSpeakerLabels(told, speakers.voices)
            for one in pending:
                who[one] = -1
            pending.clear()
    for one in pending:
        speakers.add_embedding(one, voice(who[one], chance, 0.02), 2.0)
    decide(speakers, last=True)
    speakers.settle()
    told.update(speakers.revised())
    last = list(told.values())
    assert None not in last
    seen = list(dict.fromkeys(last))
    assert seen == list(range(len(seen))), "not in order of appearance"
    if restarts:
        return
    heard = [one for one in told if who[one] >= 0]
    for one in heard:
        for other in heard:
            assert (told[one] == told[other]) is (who[one] == who[other])
