"""Utterances of several people: words are divided at the changes of speakers, and none is lost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from wheel_recordings import clip

from sidecar.diarization.speaker_models import load_models
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.live.runtime import speaker_changes
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Word

WORDS = tuple(
    Word(at, at + 0.4, text)
    for at, text in ((0.1, "Do"), (0.6, "you?"), (1.2, "No,"), (1.7, "I"), (2.2, "never"))
)
SAID = RecognitionHypothesis("Do you? No, I never", WORDS)
TWO = (SpeakerTurn(0.0, 1.05, 0), SpeakerTurn(1.15, 2.6, 1))


def test_words_behind_a_change_are_another_text_with_times_from_its_begin() -> None:
    said = RecognitionHypothesis(SAID.text, SAID.words, turns=TWO)
    found = speaker_changes.divided_at_changes(said, 1000, 1000 + round(2.7 * LIVE_RATE))
    [(end, first)] = found.earlier
    assert (first.text, found.text) == ("Do you?", "No, I never")
    assert end == 1000 + round(1.1 * LIVE_RATE)
    assert [one.start for one in first.words] == [0.1, 0.6]
    assert np.allclose([one.start for one in found.words], [0.1, 0.6, 1.1])


def test_one_reader_has_one_label_also_beyond_the_ten_seconds_of_a_window() -> None:
    turns = speaker_changes.turns_within(load_models(), clip("two_cities")[: 25 * LIVE_RATE])
    assert len({turn.label for turn in turns}) == 1
    assert sum(turn.end - turn.start for turn in turns) > 15


@given(
    st.lists(st.tuples(st.floats(0, 8), st.floats(0.1, 4), st.integers(0, 3)), max_size=8),
    st.lists(st.sampled_from(["yes.", "no", "Ada,", "3.5", "why?", "你好", "…"]), max_size=30),
)
def test_any_turns_keep_all_words_in_order_within_the_utterance(
    turns: list[tuple[float, float, int]], words: list[str]
) -> None:
    heard = tuple(SpeakerTurn(at, min(8.0, at + long), who) for at, long, who in sorted(turns))
    said = RecognitionHypothesis(" ".join(words), turns=heard)
    found = speaker_changes.divided_at_changes(said, 0, 8 * LIVE_RATE)
    texts = [*(one.text for _, one in found.earlier), found.text]
    assert "".join("".join(texts).split()) == "".join(said.text.split())
    ends = [end for end, _ in found.earlier]
    assert ends == sorted(ends)
    assert all(0 <= end <= 8 * LIVE_RATE for end in ends)
