"""Vectors into persons."""

import numpy as np
import pytest

from sidecar.diarization.clustering import (
    MAX_CLUSTERED_VECTORS,
    NO_SPEAKER,
    SpeakerCount,
    cluster_embeddings,
    linkage_tree,
    renumber_speakers,
    speaker_activity,
    speakers_of_windows,
    speech_spans,
    turns_from_activity,
)
from sidecar.diarization.window_embeddings import FRAME_STEP_S, MAX_WINDOW_SPEAKERS, WINDOW_FRAMES
from sidecar.transcripts.speaker_turns import SpeakerTurn


def people(counts: list[int], spread: float = 0.03, seed: int = 1) -> tuple[np.ndarray, list[int]]:
    """Vectors of so many looks at each person, mixed; and who each is."""
    random = np.random.default_rng(seed)
    voices = np.linalg.qr(random.normal(size=(64, len(counts))))[0].T
    who = [person for person, count in enumerate(counts) for _ in range(count)]
    random.shuffle(who)
    vectors = voices[who] + random.normal(scale=spread, size=(len(who), 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), who


def renumbered(who: list[int]) -> list[int]:
    numbers: dict[int, int] = {}
    return [numbers.setdefault(one, len(numbers)) for one in who]


@pytest.mark.parametrize(
    "counts", [[1], [2], [1, 1], [30, 5], [10, 10, 10, 10], [400, 60, 9], [900, 300, 50, 4]]
)
def test_embeddings_are_clustered_into_speakers_numbered_in_order_of_appearance(
    counts: list[int],
) -> None:
    vectors, who = people(counts)
    assert cluster_embeddings(vectors, np.full(len(who), 5, np.float32)).tolist() == renumbered(who)


def test_merge_tree_equals_average_linkage() -> None:
    vectors, _ = people([6, 5, 4], spread=0.15)
    members = {at: [at] for at in range(len(vectors))}
    expected = []
    while len(members) > 1:
        apart = {
            (one, other): float(np.mean(1 - vectors[members[one]] @ vectors[members[other]].T))
            for one in members
            for other in members
            if one < other
        }
        nearest = min(apart, key=lambda pair: apart[pair])
        expected.append(apart[nearest])
        members[nearest[0]] += members.pop(nearest[1])
    found = linkage_tree(vectors, np.ones(len(vectors), np.float32))
    assert [merge.distance for merge in found] == pytest.approx(expected, abs=1e-5)


def test_embeddings_of_hours_clustered_in_parts_give_the_same_speakers() -> None:
    vectors, who = people([5 * MAX_CLUSTERED_VECTORS, MAX_CLUSTERED_VECTORS, 40, 40])
    assert cluster_embeddings(vectors, np.ones(len(who), np.float32)).tolist() == renumbered(who)


OUTLIER = 2


def with_an_outlier() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Two people of 100 s, and a noise of 2 s that is like nobody; how long, and who each is."""
    vectors, who = people([20, 20, 1])
    seconds = np.array([2.0 if person == OUTLIER else 5.0 for person in who], np.float32)
    return vectors, seconds, who


@pytest.mark.parametrize("hint", [1, 2, 3, 5])
def test_different_voices_and_an_outlier_stay_apart_whatever_number_is_hinted(hint: int) -> None:
    vectors, seconds, who = with_an_outlier()
    count = SpeakerCount(hint, hint)
    assert cluster_embeddings(vectors, seconds, count).tolist() == renumbered(who)


def test_hinted_number_of_speakers_separates_voices_that_are_one_without_a_hint() -> None:
    vectors, seconds, who = with_an_outlier()
    one, other = vectors[who.index(0)], vectors[who.index(1)]
    near = np.where(np.array(who)[:, None] == 1, 0.52 * one + 0.85 * other, vectors)
    vectors = near.astype(np.float32) / np.linalg.norm(near, axis=1, keepdims=True)
    unaided = cluster_embeddings(vectors, seconds)
    assert len(set(unaided.tolist())) == 2
    assert cluster_embeddings(vectors, seconds, SpeakerCount(2, 2)).tolist() == renumbered(who)


STEP = 148  # frames between two windows


def assigned(*alike: list[float], heard: tuple[bool, bool, bool] = (True, True, True)) -> list[int]:
    found = speakers_of_windows(np.array([alike], np.float32), np.array([heard]))
    assert found.shape == (1, MAX_WINDOW_SPEAKERS)
    return found[0].tolist()


@pytest.mark.parametrize(
    ("alike", "heard", "expected"),
    [
        (([0.9, 0.1, 0.0], [0.2, 0.8, 0.1], [0.0, 0.0, 0.7]), (1, 1, 1), [0, 1, 2]),
        # Both are most like 0: the second best there is, for the two together.
        (([0.9, 0.5, 0.0], [0.8, 0.7, 0.0], [0.0, 0.0, 0.0]), (1, 1, 0), [0, 1, NO_SPEAKER]),
        # Both are 0, and by far: one voice that the window took for two.
        (([0.9, 0.1, 0.0], [0.8, 0.1, 0.0], [0.0, 0.0, 0.0]), (1, 1, 0), [0, 0, NO_SPEAKER]),
        (([0.9], [0.8], [0.7]), (1, 1, 1), [0, 0, 0]),
        (([0.9], [0.8], [0.7]), (0, 0, 0), [NO_SPEAKER] * 3),
        (([], [], []), (1, 1, 1), [NO_SPEAKER] * 3),
    ],
)
def test_voices_of_a_window_share_a_speaker_only_if_both_clearly_match_it(
    alike: tuple[list[float], ...], heard: tuple[bool, bool, bool], expected: list[int]
) -> None:
    assert assigned(*alike, heard=heard) == expected


def window(*spans: tuple[int, int, int]) -> np.ndarray:
    """A window's activity: (voice, first frame, frame behind the last)."""
    active = np.zeros((WINDOW_FRAMES, MAX_WINDOW_SPEAKERS), np.bool_)
    for voice, first, last in spans:
        active[first:last, voice] = True
    return active


def test_windows_with_permuted_voices_give_one_turn() -> None:
    windows = [window((0, 300, WINDOW_FRAMES)), window((2, 300 - STEP, 500))]
    active = speaker_activity(
        [0, STEP], windows, np.array([[0, NO_SPEAKER, NO_SPEAKER], [NO_SPEAKER, NO_SPEAKER, 0]])
    )
    (turn,) = turns_from_activity(active, 0, 100.0)
    assert turn.label == 0
    assert turn.end - turn.start == pytest.approx((500 + STEP - 300) * FRAME_STEP_S)


def test_simultaneous_speech_is_two_overlapping_turns() -> None:
    active = speaker_activity(
        [0], [window((0, 0, 400), (1, 200, WINDOW_FRAMES))], np.array([[4, 2, NO_SPEAKER]])
    )
    first, second = turns_from_activity(active, 0, 100.0)
    assert (first.label, second.label) == (4, 2)
    assert first.end - second.start == pytest.approx(200 * FRAME_STEP_S)


def test_speech_in_one_of_three_windows_is_no_turn() -> None:
    windows = [
        window((0, 0, WINDOW_FRAMES)),
        window((0, 0, WINDOW_FRAMES), (1, 100, 200)),
        window((0, 0, 589)),
    ]
    active = speaker_activity([0, 10, 20], windows, np.array([[0, 1, NO_SPEAKER]] * 3))
    assert {turn.label for turn in turns_from_activity(active, 0, 100.0)} == {0}


def test_short_pause_ends_no_turn_and_short_noise_is_none() -> None:
    speaking = np.zeros(1000, np.bool_)
    speaking[100:200] = speaking[220:300] = True  # 0.34 s apart
    speaking[400:404] = True  # 0.07 s
    speaking[500:600] = speaking[640:700] = True  # 0.68 s apart
    found = speech_spans(speaking, 0, 100.0)
    assert [round((end - start) / FRAME_STEP_S) for start, end in found] == [200, 100, 60]


def test_no_turn_extends_beyond_the_end() -> None:
    assert turns_from_activity(np.ones((589, 1), np.bool_), 0, 3.0) == [SpeakerTurn(0.0, 3.0, 0)]


def test_renumbering_keeps_numbers_of_known_speakers_and_gives_new_ones_another() -> None:
    before = np.array([[0, 1, NO_SPEAKER], [0, 1, NO_SPEAKER], [0, NO_SPEAKER, NO_SPEAKER]])
    after = np.array([[1, 0, NO_SPEAKER], [1, 0, NO_SPEAKER], [2, NO_SPEAKER, NO_SPEAKER]])
    assert renumber_speakers(before, after, 3).tolist() == [1, 0, 2]
    assert renumber_speakers(
        np.empty((0, 3), np.int64), np.empty((0, 3), np.int64), 2
    ).tolist() == [0, 1]
