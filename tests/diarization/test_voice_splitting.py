"""One local speaker of a window who is two people."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wheel_recordings import RATE

from sidecar.audio import Block
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_models import SpeakerModels
from sidecar.diarization.voice_splitting import Matrix, Piece, split_speakers
from sidecar.diarization.window_embeddings import FRAME_STEP_S, WINDOW_FRAMES, solo_activity

Spoken = tuple[float, float, int]
"""Start and end of a turn in seconds, and who speaks."""


def window(turns: Sequence[Spoken]) -> np.ndarray:
    """Who speaks in each frame of a window, -1 for nobody."""
    people = np.full(WINDOW_FRAMES, -1)
    for start, end, person in turns:
        people[round(start / FRAME_STEP_S) : round(end / FRAME_STEP_S)] = person
    return people


def embeddings(people: np.ndarray, likeness: float = 0.0) -> Callable[[Sequence[Piece]], Matrix]:
    """Embeddings of pieces of a window; those of one person have a cosine of 0.8, people this one,
    before that."""
    basis = np.linalg.qr(np.random.default_rng(4).normal(size=(256, 40)))[0].T
    voices = np.sqrt(likeness) * basis[0] + np.sqrt(1 - likeness) * basis[1:8]

    def embeddings_of(pieces: Sequence[Piece]) -> Matrix:
        own = [np.bincount(people[piece] + 1, minlength=8)[1:] @ voices for piece in pieces]
        unit = [one / np.linalg.norm(one) for one in own]
        found = [0.9 * one + 0.436 * basis[10 + at % 25] for at, one in enumerate(unit)]
        return np.array(found, np.float32)

    return embeddings_of


def as_one(people: np.ndarray) -> np.ndarray:
    """Activity of a window whose local speakers are taken for one."""
    return np.stack([people >= 0, people > 9, people > 9], axis=1)


def split(people: np.ndarray, likeness: float = 0.0) -> np.ndarray:
    active = as_one(people)
    found = split_speakers(active, solo_activity(active), embeddings(people, likeness))
    assert (found.sum(axis=1) == active.sum(axis=1)).all(), "speech is as before"
    return found


def who_is_who(people: np.ndarray, found: np.ndarray) -> list[set[int]]:
    """The people of each local speaker."""
    return [set(people[column].tolist()) for column in found.T]


@given(
    lengths=st.lists(st.floats(1.1, 2.2), min_size=2, max_size=4),
    pause_s=st.floats(0.35, 0.5),
    first=st.integers(0, 1),
)
def test_local_speaker_of_two_people_who_take_turns_is_two(
    lengths: list[float], pause_s: float, first: int
) -> None:
    turns, at = list[Spoken](), 0.0
    for number, length_s in enumerate(lengths):
        turns.append((at, min(at + length_s, 9.9), (first + number) % 2))
        at += length_s + pause_s
    people = window(turns)
    assert sorted(who_is_who(people, split(people)), key=len) == [set(), {first}, {1 - first}]


def test_change_within_a_turn_is_found_to_half_a_second() -> None:
    for change_s in np.arange(2.0, 8.0, 0.3).tolist():
        people = window([(0.0, change_s, 0), (change_s, 9.9, 1)])
        found = split(people)
        wrong = (found[:, 0] & (people == 1)) | (found[:, 1] & (people == 0))
        right = (found[:, 0] | found[:, 1]) & ~wrong
        assert min(wrong.sum(), right.sum()) * FRAME_STEP_S < 0.55


@given(
    starts=st.lists(st.floats(0, 9), min_size=1, max_size=6),
    length_s=st.floats(0.3, 5),
    likeness=st.floats(0.0, 0.2),
)
def test_local_speaker_who_is_one_person_stays_whole(
    starts: list[float], length_s: float, likeness: float
) -> None:
    people = window([(start, min(9.9, start + length_s), 0) for start in starts])
    assert (split(people, likeness) == as_one(people)).all()


@pytest.mark.parametrize(
    ("turns", "likeness", "why"),
    [
        ([(0.0, 6.0, 0), (6.5, 7.3, 1)], 0.0, "one sound of less than a second"),
        ([(0.0, 4.0, 0), (4.5, 9.0, 1)], 0.5, "voices that are like each other"),
        ([(0.0, 0.8, 0), (1.5, 2.2, 1)], 0.0, "too little speech"),
    ],
)
def test_doubtful_local_speaker_stays_whole(turns: list[Spoken], likeness: float, why: str) -> None:
    people = window(turns)
    assert (split(people, likeness) == as_one(people)).all(), why


def test_three_people_taken_for_one_are_three_and_no_column_with_speech_is_touched() -> None:
    people = window([(0.0, 2.5, 0), (3.0, 5.0, 1), (5.5, 9.0, 2)])
    assert sorted(who_is_who(people, split(people)), key=str) == [{0}, {1}, {2}]
    other = window([(9.2, 9.9, 0)]) >= 0
    active = as_one(people)
    active[:, 1] = other
    found = split_speakers(active, solo_activity(active), embeddings(people))
    assert (found[:, 1] == other).all()
    assert found[:, 2].any()
    active[:, 2] = other
    assert (split_speakers(active, active, embeddings(people)) == active).all()


class Merging:
    """A segmentation that takes all people of a window for one."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, outputs: None, feed: dict[str, Any]) -> Any:
        found, nobody = self._session.run(outputs, feed)
        merged = np.zeros_like(found)
        merged[:, :, 0] = found.max(axis=2)
        return merged, nobody


def labels(models: SpeakerModels, sound: Block) -> dict[int, float]:
    """Seconds of each speaker, where the segmentation tells nobody apart."""
    diarizer = Diarizer(replace(models, segmentation=Merging(models.segmentation)))
    diarizer.feed(sound)
    diarizer.finish()
    spoken: dict[int, float] = {}
    for turn in diarizer.turns:
        spoken[turn.label] = spoken.get(turn.label, 0.0) + turn.end - turn.start
    return spoken


def test_two_people_are_told_apart_though_the_segmentation_takes_them_for_one(
    models: SpeakerModels, play: Block, novel: Block
) -> None:
    both = labels(models, play)
    assert len(both) == 2
    assert min(both.values()) > 5
    assert len(labels(models, novel[: 20 * RATE])) == 1
