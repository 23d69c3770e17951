"""Hotwords in the greedy decoder, with a language model that is a table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from moonshine_voice import get_assets_path

from sidecar.audio import SAMPLE_RATE
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.moonshine.hotword_decoding import HotwordDecoding, KvCache
from sidecar.engines.moonshine.moonshine_recognizer import MoonshineRecognizer, model_folder
from sidecar.engines.moonshine.moonshine_tokenizer import MoonshineTokenizer

START, END, THE, CUBA, NITA, LAST, KU, BERNETES, WE = range(9)
INSIDE = (NITA, BERNETES)
"""Tokens that begin no word."""
UNLIKELY = 1e-7
Table = Mapping[tuple[int, ...], Mapping[int, float]]
"""Likelihoods of the next token behind the last tokens of a text."""
KUBERNETES = (KU, BERNETES)
SPOKEN: Table = {
    (START,): {WE: 0.9},
    (WE,): {THE: 0.9},
    (THE,): {CUBA: 0.6, KU: 0.2},
    (CUBA,): {NITA: 0.5},
    (NITA,): {LAST: 0.5},
    (KU,): {BERNETES: 0.9},
    (BERNETES,): {LAST: 0.9},
    (LAST,): {END: 0.9},
}
"""'We the Cuba Nita last' where 'Kubernetes' was said."""


class TableModel:
    """Decoder whose next token depends on the last one, or three; it counts its passes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.passes = 0

    def __call__(
        self, tokens: Sequence[int], position: int, cache: KvCache | None
    ) -> tuple[npt.NDArray[np.float32], KvCache]:
        known = [] if cache is None else cache[0][0, 0, :, 0].astype(int).tolist()
        assert len(known) == position, "the cache ends where the tokens begin"
        self.passes += 1
        rows = np.full((len(tokens), WE + 1), math.log(UNLIKELY), np.float32)
        for row, end in zip(rows, range(position + 1, position + 1 + len(tokens)), strict=True):
            last = tuple([*known, *tokens][max(0, end - 3) : end])
            likely = self._table.get(last) or self._table.get(last[-1:], {})
            for following, likelihood in likely.items():
                row[following] = math.log(likelihood)
        return rows, [np.array([*known, *tokens], np.float32).reshape(1, 1, -1, 1)]


def decoded(
    table: Table,
    *hotwords: Sequence[int],
    draft: Sequence[int] = (),
    most: int = 20,
    passes: int = 1_000,
) -> tuple[int, ...] | None:
    """The text with hotwords; cancelled after so many passes."""
    model = TableModel(table)
    decoding = HotwordDecoding(
        model,
        hotwords,
        known=(START,),
        end=END,
        most=most,
        begins_word=lambda token: token not in INSIDE,
        continues_word=lambda token: token == BERNETES,
        cancelled=lambda: model.passes >= passes,
    )
    greedy = decoding.greedy_path(draft)
    path = greedy and decoding.with_hotwords(greedy)
    return path and path.text


def test_likely_hotword_replaces_the_greedy_words() -> None:
    assert decoded(SPOKEN) == (WE, THE, CUBA, NITA, LAST)
    assert decoded(SPOKEN, KUBERNETES) == (WE, THE, KU, BERNETES, LAST)


def test_hotword_that_the_model_does_not_hear_is_not_inserted() -> None:
    unheard = {**SPOKEN, (KU,): {LAST: 0.9}}
    assert decoded(unheard, KUBERNETES) == (WE, THE, CUBA, NITA, LAST)
    seldom = {**SPOKEN, (THE,): {CUBA: 0.99, KU: 1e-4}}
    assert decoded(seldom, KUBERNETES) == (WE, THE, CUBA, NITA, LAST)


def test_hotword_is_not_tried_inside_a_word() -> None:
    inside = {**SPOKEN, (THE,): {CUBA: 0.9}, (CUBA,): {NITA: 0.5, KU: 0.4}}
    assert decoded(inside, KUBERNETES) == (WE, THE, CUBA, NITA, LAST)


def test_hotword_that_only_begins_a_longer_word_is_not_written() -> None:
    assert decoded(SPOKEN, (KU,)) == (WE, THE, CUBA, NITA, LAST)
    whole = {**SPOKEN, (KU,): {LAST: 0.9}}
    assert decoded(whole, (KU,)) == (WE, THE, KU, LAST)


def test_hotword_is_not_written_again_behind_itself() -> None:
    """Written once, its tokens are likely: all but the first cost nothing, and each has a bonus."""
    again = {
        **SPOKEN,
        (BERNETES,): {NITA: 0.5, KU: 0.3},
        (NITA,): {END: 0.5, KU: 0.3},
    }
    assert decoded(again, KUBERNETES) == (WE, THE, KU, BERNETES, NITA)


def test_hotword_that_the_text_has_already_takes_no_words_away() -> None:
    """The text with the hotword at once is likelier, but for one word less."""
    later = {
        (START,): {WE: 0.9},
        (WE,): {THE: 0.5, KU: 0.4},
        (THE,): {LAST: 0.3},
        (LAST,): {KU: 0.3},
        (KU,): {BERNETES: 0.9},
        (BERNETES,): {END: 0.9},
    }
    assert decoded(later) == (WE, THE, LAST, KU, BERNETES)
    assert decoded(later, KUBERNETES) == (WE, THE, LAST, KU, BERNETES)


def test_hotword_has_no_bonus_for_other_words_once_it_is_in_the_text() -> None:
    """'We the Kubernetes the Cuba Nita' became 'We the Kubernetes the Kubernetes'."""
    twice = {
        (START,): {WE: 0.9},
        (WE,): {KU: 0.9},
        (KU,): {BERNETES: 0.9},
        (BERNETES,): {THE: 0.5, END: 0.3},
        (THE,): {CUBA: 0.5, KU: 0.2},
        (CUBA,): {NITA: 0.5},
        (NITA,): {END: 0.6},
    }
    said = (WE, KU, BERNETES, THE, CUBA, NITA)
    assert decoded(twice) == said
    assert decoded({**twice, (BERNETES,): {THE: 0.5, END: 0.45}}, KUBERNETES) == said


def test_hotword_does_not_replace_a_word_only_because_it_makes_itself_likely_later() -> None:
    """Forced in place of the first word, it appeared at its own place as well."""
    behind = {
        (START,): {LAST: 0.3, KU: 0.2},
        (LAST,): {THE: 0.3},
        (THE,): {CUBA: 0.4},
        (CUBA,): {NITA: 0.4},
        (NITA,): {END: 0.9},
        (KU,): {BERNETES: 0.9},
        (BERNETES,): {WE: 0.5},
        (WE,): {KU: 0.9},
        (WE, KU, BERNETES): {END: 0.9},
    }
    assert decoded(behind) == (LAST, THE, CUBA, NITA)
    assert decoded(behind, KUBERNETES) == (LAST, THE, CUBA, NITA)


def said_again(first: float) -> Table:
    """'We Cuba Nita the last Cuba Nita', 'Kubernetes' being so likely at the first place; behind
    one it is likely at the last."""
    return {
        (START,): {WE: 0.9},
        (WE,): {CUBA: 0.6, KU: first},
        (CUBA,): {NITA: 0.5},
        (NITA,): {THE: 0.9},
        (THE,): {LAST: 0.9},
        (LAST,): {CUBA: 0.6, KU: 0.2},
        (KU,): {BERNETES: 0.9},
        (BERNETES,): {THE: 0.9},
        (BERNETES, THE, LAST): {KU: 0.9},
        (LAST, CUBA, NITA): {END: 0.9},
        (LAST, KU, BERNETES): {END: 0.9},
    }


def test_hotword_likely_at_one_place_that_makes_itself_likely_later_is_written_at_both() -> None:
    assert decoded(said_again(0.2)) == (WE, CUBA, NITA, THE, LAST, CUBA, NITA)
    both = (WE, KU, BERNETES, THE, LAST, KU, BERNETES)
    assert decoded(said_again(0.2), KUBERNETES) == both


def test_hotword_of_a_later_place_does_not_replace_other_words_before() -> None:
    one = (WE, CUBA, NITA, THE, LAST, KU, BERNETES)
    assert decoded(said_again(0.005), KUBERNETES) == one


def test_hotword_said_three_times_is_written_at_each_place() -> None:
    thrice = {
        **said_again(0.2),
        (LAST, CUBA, NITA): {WE: 0.9},
        (LAST, KU, BERNETES): {WE: 0.9},
        (CUBA, NITA, WE): {THE: 0.9},
        (KU, BERNETES, WE): {THE: 0.9},
        (NITA, WE, THE): {CUBA: 0.6, KU: 0.2},
        (BERNETES, WE, THE): {KU: 0.9},
        (THE, CUBA, NITA): {END: 0.9},
        (THE, KU, BERNETES): {END: 0.9},
    }
    said = (WE, CUBA, NITA, THE, LAST, CUBA, NITA, WE, THE, CUBA, NITA)
    assert decoded(thrice) == said
    each = (WE, KU, BERNETES, THE, LAST, KU, BERNETES, WE, THE, KU, BERNETES)
    assert decoded(thrice, KUBERNETES) == each


def test_hotword_may_stand_at_the_end_of_the_text() -> None:
    ending = {**SPOKEN, (LAST,): {END: 0.5, KU: 0.4}, (BERNETES,): {END: 0.9}}
    assert decoded(ending, KUBERNETES)[-2:] == KUBERNETES  # type: ignore[index]


def test_hotword_text_that_never_ends_does_not_replace_a_text_that_ends() -> None:
    circle = {**SPOKEN, (BERNETES,): {KU: 1.0}, (KU,): {BERNETES: 1.0}}
    assert decoded(circle, KUBERNETES) == (WE, THE, CUBA, NITA, LAST)


@pytest.mark.parametrize(
    "draft", [(WE, THE, CUBA, NITA, LAST), (WE, LAST), (END,), (WE, THE, KU, BERNETES, LAST, WE)]
)
def test_draft_does_not_change_the_decoded_text(draft: tuple[int, ...]) -> None:
    assert decoded(SPOKEN, draft=draft) == decoded(SPOKEN)
    assert decoded(SPOKEN, KUBERNETES, draft=draft) == decoded(SPOKEN, KUBERNETES)


@pytest.mark.parametrize("most", range(1, 6))
def test_decoded_text_with_hotwords_has_no_more_tokens_than_allowed(most: int) -> None:
    text = decoded(SPOKEN, KUBERNETES, most=most)
    assert text is not None
    assert len(text) <= most


@pytest.mark.parametrize("passes", range(8))
def test_decoding_that_is_cancelled_has_no_text(passes: int) -> None:
    assert decoded(SPOKEN, KUBERNETES, passes=passes) is None


def test_many_hotwords_cost_at_most_as_many_passes_as_the_greedy_text_has_tokens() -> None:
    model = TableModel(SPOKEN)
    hotwords = [(KU, BERNETES, *[LAST] * count) for count in range(1, 200)]
    decoding = HotwordDecoding(
        model,
        hotwords,
        known=(START,),
        end=END,
        most=300,
        begins_word=lambda token: token not in INSIDE,
        continues_word=lambda token: token == BERNETES,
        cancelled=lambda: False,
    )
    greedy = decoding.greedy_path(())
    assert greedy is not None
    before = model.passes
    decoding.with_hotwords(greedy)
    assert model.passes - before <= len(greedy.tokens)


@pytest.fixture(scope="module")
def tokenizer() -> MoonshineTokenizer:
    return MoonshineTokenizer.read(model_folder() / "tokenizer.bin")


@pytest.mark.parametrize(
    "word", ["Kubernetes", "Siobhan", "PostgreSQL", "Zbigniew", "naïve café", "北京", "a", "U2!"]
)
def test_word_encoded_to_tokens_decodes_to_itself(word: str, tokenizer: MoonshineTokenizer) -> None:
    tokens = tokenizer.encode(f" {word}")
    assert tokenizer.text(tokens) == word
    assert tokenizer.begins_word(tokens[0])


def test_token_continues_a_word_if_it_begins_with_a_letter_or_digit(
    tokenizer: MoonshineTokenizer,
) -> None:
    almost, most, accent, mark, end = (
        tokenizer.encode(text)[-1] for text in (" almost", "most", "\u00e9", ",", " a")
    )
    assert [tokenizer.continues_word(token) for token in (most, accent)] == [True, True]
    assert [tokenizer.continues_word(token) for token in (almost, mark, end)] == [False] * 3


def test_tokenizer_encodes_recognized_text_into_the_tokens_that_the_model_wrote(
    tokenizer: MoonshineTokenizer,
) -> None:
    recognizer = MoonshineRecognizer(model_folder())
    audio = decode_audio_file(Path(get_assets_path()) / "beckett.wav", SAMPLE_RATE)
    found = recognizer.recognize(audio[: 6 * SAMPLE_RATE])
    assert found is not None
    assert tuple(tokenizer.encode(f" {found.text}")) == found.tokens
