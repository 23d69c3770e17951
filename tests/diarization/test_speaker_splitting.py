"""A speaker taken apart: by made-up vectors, and by those of the two people of a real recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from wheel_recordings import RATE

from sidecar.audio import Block
from sidecar.diarization.clustering import split_speaker
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_identification import SpeakerVector, embedding_of
from sidecar.diarization.speaker_models import SpeakerModels
from sidecar.diarization.word_attribution import merge_turns
from sidecar.transcripts.transcript import SpeakerEmbedding


def voice_of(who: int, at: int, seconds: float = 3.0) -> SpeakerEmbedding:
    """Somebody, a little otherwise each time."""
    random = np.random.default_rng(1000 * who + at)
    vector = 0.3 * random.standard_normal(256).astype(np.float32) / 16
    vector[who] += 1.0
    return embedding_of(SpeakerVector(vector / np.linalg.norm(vector), seconds))


@pytest.mark.parametrize(
    ("who", "into", "groups"),
    [
        ([0, 1, 0, 0, 1], None, [0, 1, 0, 0, 1]),
        ([1, 1, 0, 1, 0, 1], None, [0, 0, 1, 0, 1, 0]),  # who is heard most is the first
        ([0, 1, 2, 0, 0, 1], None, [0, 1, 2, 0, 0, 1]),
        ([0, 1, 2, 0, 1, 0], 3, [0, 1, 2, 0, 1, 0]),
    ],
)
def test_who_differs_is_told_apart_and_the_one_heard_most_is_the_first(
    who: Sequence[int], into: int | None, groups: list[int]
) -> None:
    found = split_speaker([voice_of(one, at) for at, one in enumerate(who)], into)
    assert found is not None
    assert found.groups == groups
    assert found.likeness < 0.55


def test_one_voice_is_two_where_somebody_says_so_and_its_likeness_says_that_it_is_one() -> None:
    found = split_speaker([voice_of(0, at) for at in range(8)])
    assert found is not None
    assert set(found.groups) == {0, 1}
    assert found.likeness > 0.55


def test_what_is_hardly_heard_founds_nobody_and_what_is_not_goes_with_its_neighbour() -> None:
    stranger = voice_of(5, 0, seconds=0.3)
    voices = [None, voice_of(0, 1), stranger, voice_of(1, 2), None, voice_of(0, 3)]
    found = split_speaker(voices)
    assert found is not None
    assert [found.groups[at] for at in (0, 1, 3, 4, 5)] == [0, 0, 1, 1, 0]
    assert set(found.groups) == {0, 1}


def test_fewer_voices_than_people_cannot_be_told_apart() -> None:
    assert split_speaker([]) is None
    assert split_speaker([voice_of(0, 0), None]) is None
    assert split_speaker([voice_of(0, 0), voice_of(1, 1)], 3) is None


def test_a_thousand_segments_of_four_people_are_theirs() -> None:
    who = [at % 7 % 4 for at in range(1000)]
    found = split_speaker([voice_of(one, at) for at, one in enumerate(who)])
    assert found is not None
    assert len({*zip(who, found.groups, strict=True)}) == 4


@pytest.mark.slow
def test_the_lines_of_a_real_talk_that_were_one_persons_are_two_peoples_again(
    models: SpeakerModels, play: Block
) -> None:
    diarizer = Diarizer(models)
    for at in range(0, len(play), RATE):
        diarizer.feed(play[at : at + RATE])
    diarizer.finish()
    lines = [one for one in merge_turns(diarizer.turns) if one.end - one.start > 0.6]
    passages = diarizer.speakers().passages
    assert passages is not None
    heard = passages([(one.start, one.end) for one in lines])
    found = split_speaker([one and embedding_of(one) for one in heard])
    assert found is not None
    assert found.groups == [one.label for one in lines]
    assert {0, 1} == set(found.groups)
