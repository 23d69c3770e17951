"""Vectors into persons."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar.diarization.clustering import MAX_CLUSTERED_VECTORS, cluster_embeddings, linkage_tree


def people(counts: list[int], spread: float = 0.03, seed: int = 1) -> tuple[np.ndarray, list[int]]:
    """Vectors of so many looks at each person, mixed; and who each is."""
    random = np.random.default_rng(seed)
    voices = np.linalg.qr(random.normal(size=(64, len(counts))))[0].T
    who = [person for person, count in enumerate(counts) for _ in range(count)]
    random.shuffle(who)
    vectors = voices[who] + random.normal(scale=spread, size=(len(who), 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), who


def in_order(who: list[int]) -> list[int]:
    numbers: dict[int, int] = {}
    return [numbers.setdefault(one, len(numbers)) for one in who]


@pytest.mark.parametrize(
    "counts", [[1], [2], [1, 1], [30, 5], [10, 10, 10, 10], [400, 60, 9], [900, 300, 50, 4]]
)
def test_every_person_is_one_number_in_order_of_appearance(counts: list[int]) -> None:
    vectors, who = people(counts)
    assert cluster_embeddings(vectors, np.full(len(who), 5, np.float32)).tolist() == in_order(who)


def test_the_tree_is_that_of_average_linkage() -> None:
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


def test_vectors_of_hours_are_clustered_in_parts_with_the_same_persons() -> None:
    vectors, who = people([5 * MAX_CLUSTERED_VECTORS, MAX_CLUSTERED_VECTORS, 40, 40])
    assert cluster_embeddings(vectors, np.ones(len(who), np.float32)).tolist() == in_order(who)


OUTLIER = 2


def with_an_outlier() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Two people of 100 s who are not that unlike, and a noise of 2 s that is like nobody."""
    vectors, who = people([20, 20, 1])
    one, other = vectors[who.index(0)], vectors[who.index(1)]
    near = np.where(np.array(who)[:, None] == 1, 0.52 * one + 0.85 * other, vectors)
    near = near.astype(np.float32) / np.linalg.norm(near, axis=1, keepdims=True)
    seconds = np.array([2.0 if person == OUTLIER else 5.0 for person in who], np.float32)
    return near.astype(np.float32), seconds, who


@pytest.mark.parametrize("hint", [1, 2, 3, 5])
def test_a_number_of_speakers_makes_no_person_of_an_outlier_nor_one_of_two_people(
    hint: int,
) -> None:
    vectors, who = people([20, 20, 1])
    seconds = np.array([2.0 if person == OUTLIER else 5.0 for person in who], np.float32)
    assert cluster_embeddings(vectors, seconds, hint).tolist() == in_order(who)


def test_a_number_of_speakers_parts_people_whose_voices_are_alike() -> None:
    vectors, seconds, who = with_an_outlier()
    unaided = cluster_embeddings(vectors, seconds)
    assert len(set(unaided.tolist())) == 2
    assert cluster_embeddings(vectors, seconds, 2).tolist() == in_order(who)
