"""Who is a speaker of a recording, and who is only taken for one."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.diarization.clustering import SpeakerCount
from sidecar.diarization.window_embeddings import (
    FRAME_STEP_S,
    MAX_WINDOW_SPEAKERS,
    WINDOW_FRAMES,
    DiarizationWindow,
)
from sidecar.diarization.window_speakers import WindowSpeakers

STEP_S = 2.5
Spoken = tuple[float, float, int]


def windows_of(
    turns: Sequence[Spoken], end_s: float, voices: np.ndarray | None = None
) -> list[DiarizationWindow]:
    """Windows of a recording with these turns: start, end, person. ``voices``: the embedding of
    each person; by default nobody is like another."""
    random = np.random.default_rng(3)
    if voices is None:
        voices = np.linalg.qr(random.normal(size=(256, 8)))[0].T
    whole = np.zeros((round(end_s / FRAME_STEP_S) + WINDOW_FRAMES, len(voices)), np.bool_)
    for start, end, person in turns:
        whole[round(start / FRAME_STEP_S) : round(end / FRAME_STEP_S), person] = True
    windows = []
    for start_s in np.arange(0, end_s - 10 + 1e-6, STEP_S):
        start = round(start_s / FRAME_STEP_S)
        inside = whole[start : start + WINDOW_FRAMES]
        active = np.zeros((WINDOW_FRAMES, MAX_WINDOW_SPEAKERS), np.bool_)
        vectors = np.zeros((MAX_WINDOW_SPEAKERS, 256), np.float16)
        people = np.flatnonzero(inside.any(axis=0))[:MAX_WINDOW_SPEAKERS]
        for local, person in enumerate(people):
            active[:, local] = inside[:, person]
            noisy = voices[person] + random.normal(scale=0.02, size=256)
            vectors[local] = noisy / np.linalg.norm(noisy)
        alone_s = (active.sum(axis=0) * FRAME_STEP_S).astype(np.float32)
        windows.append(
            DiarizationWindow(start, np.packbits(active), vectors, alone_s, active.any(axis=0))
        )
    return windows


def turns_by(
    windows: list[DiarizationWindow], end_s: float, count: SpeakerCount | None = None
) -> dict[int, float]:
    """Seconds of each speaker that is found."""
    found = WindowSpeakers(count)
    found.cluster(windows)
    spoken: dict[int, float] = {}
    for turn in found.turns(end_s):
        spoken[turn.label] = spoken.get(turn.label, 0.0) + turn.end - turn.start
    return spoken


def two_who_talk(end_s: float) -> list[Spoken]:
    return [(at, at + 4.5, int(at // 5) % 2) for at in np.arange(0, end_s, 5).tolist()]


def test_person_who_never_speaks_for_two_seconds_is_a_speaker() -> None:
    turns = [*two_who_talk(20), (20.0, 21.2, 2), *((at + 21.5, e + 21.5, p) for at, e, p in
             two_who_talk(20)), (42.0, 43.0, 2)]  # fmt: skip
    spoken = turns_by(windows_of(turns, 60), 60)
    assert sorted(spoken) == [0, 1, 2]
    assert spoken[2] == pytest.approx(2.2, abs=0.2)


def test_short_answer_of_a_known_voice_founds_no_speaker() -> None:
    random = np.random.default_rng(5)
    basis = np.linalg.qr(random.normal(size=(256, 3)))[0].T
    like_the_first = 0.5 * basis[0] + 0.866 * basis[2]
    voices = np.stack([basis[0], basis[1], like_the_first])
    turns = [*two_who_talk(30), (30.0, 31.2, 2)]
    assert len(turns_by(windows_of(turns, 40, voices), 40)) == 2


def test_one_noise_in_a_long_recording_is_no_speaker() -> None:
    turns = [*two_who_talk(600), (600.0, 600.8, 2)]
    assert len(turns_by(windows_of(turns, 610), 610)) == 2


@pytest.mark.parametrize("exact", [False, True])
def test_given_number_is_reached_by_who_speaks_little_before_a_voice_is_cut_in_two(
    exact: bool,
) -> None:
    random = np.random.default_rng(5)
    basis = np.linalg.qr(random.normal(size=(256, 3)))[0].T
    a_little_like_the_first = 0.42 * basis[0] + 0.9 * basis[2]
    a_little_like_the_first /= np.linalg.norm(a_little_like_the_first)
    voices = np.stack([basis[0], basis[1], a_little_like_the_first])
    windows = windows_of([*two_who_talk(30), (30.0, 31.2, 2)], 40, voices)
    assert len(turns_by(windows, 40)) == 2
    spoken = turns_by(windows, 40, SpeakerCount(3, 3, exact=exact))
    assert len(spoken) == 3
    assert min(spoken.values()) == pytest.approx(1.2, abs=0.2)


@pytest.mark.parametrize(
    ("least", "most", "speakers"),
    [(1, 1, 1), (1, 2, 2), (2, 2, 2), (3, 3, 3), (4, None, 4), (1, None, 4), (2, 9, 4)],
)
def test_exact_number_of_speakers_is_never_exceeded_and_the_largest_are_kept(
    least: int, most: int | None, speakers: int
) -> None:
    people = [0, 1, 0, 2, 0, 1, 0, 1, 0]
    turns = [(5.0 * at, 5.0 * at + 4.5, person) for at, person in enumerate(people)]
    windows = windows_of([*turns, (45.0, 46.5, 3)], 55)
    spoken = turns_by(windows, 55, SpeakerCount(least, most, exact=True))
    assert sorted(spoken) == [*range(speakers)]
    if speakers == 2:
        assert spoken[0] > spoken[1]


def meeting(seed: int) -> tuple[list[Spoken], float, np.ndarray]:
    """Turns of two to four people, their end, and the people's embeddings: two may be alike."""
    random = np.random.default_rng(seed)
    people = int(random.integers(2, 5))
    voices = np.linalg.qr(random.normal(size=(256, people)))[0].T
    alike = random.uniform(0.2, 0.6)
    voices[-1] = alike * voices[0] + np.sqrt(1 - alike**2) * voices[-1]
    turns, at = list[Spoken](), 0.2
    while at < 50:
        person = int(random.integers(people))
        length_s = random.uniform(0.6, 1.8) if person > 1 else random.uniform(1, 6)
        turns.append((at, at + length_s, person))
        at += length_s + random.uniform(0.6, 0.9)
    return turns, at, voices


def wrong_s(
    turns: Sequence[Spoken],
    end_s: float,
    windows: list[DiarizationWindow],
    count: SpeakerCount | None,
) -> float:
    """Seconds of speech whose speaker is wrong, with the numbers that fit best."""
    found = WindowSpeakers(count)
    found.cluster(windows)
    size = max(4, len(found.known))
    shared = np.zeros((size, 4))
    for turn in found.turns(end_s):
        for start, end, person in turns:
            shared[turn.label, person] += turn.overlap(start, end)
    best = max(
        sum(shared[label, person] for person, label in enumerate(order))
        for order in permutations(range(size), 4)
    )
    return float(shared.sum() - best)


@given(seed=st.integers(0, 100_000))
def test_right_number_given_exactly_is_never_worse_than_none(seed: int) -> None:
    turns, end_s, voices = meeting(seed)
    windows = windows_of(turns, end_s, voices)
    people = len({person for *_, person in turns})
    exact = SpeakerCount(people, people, exact=True)
    given_none = wrong_s(turns, end_s, windows, None)
    assert wrong_s(turns, end_s, windows, exact) <= given_none + 0.5


def test_exact_number_is_reached_by_the_farthest_words_before_a_voice_is_cut_in_two() -> None:
    """The first person sounds different in the second half, and the third a little like both."""
    basis = np.linalg.qr(np.random.default_rng(5).normal(size=(256, 4)))[0].T
    later = 0.62 * basis[0] + 0.785 * basis[1]
    middle = (basis[0] + later) / np.linalg.norm(basis[0] + later)
    voices = np.stack([basis[0], basis[2], later, 0.6 * middle + 0.8 * basis[3]])
    turns = [
        (start, end, 2 if one == 0 and start >= 20 else one) for start, end, one in two_who_talk(40)
    ]
    windows = windows_of([*turns, (40.0, 41.5, 3)], 50, voices)
    assert len(turns_by(windows, 50)) == 2
    spoken = sorted(turns_by(windows, 50, SpeakerCount(3, 3, exact=True)).values())
    assert spoken == pytest.approx([1.5, 18, 18], abs=0.3)
