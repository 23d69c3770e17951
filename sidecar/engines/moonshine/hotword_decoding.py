"""Hotwords in the greedy decoder: where one is likely enough, the text goes on from it instead.

The model says how likely each next token is. After the greedy text is known, each hotword is tried
at each word whose place it could take: its tokens are forced, the rest is decoded greedily again,
and the text whose tokens are likelier is kept, with a bonus for the first place of a hotword. So a
hotword that sounds like nothing in the audio is never inserted, and a text costs more passes only
where the model is unsure. Measured in docs/decisions/recognition-parameters.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.transcripts.word_timing import common_prefix_length

BONUS = 2.0
"""Added to the log-likelihood of a text for each token of a hotword."""
MIN_FIRST = -7.0
"""Minimum log-likelihood of a hotword's first token where it is tried."""
MIN_TOKEN = -9.0
"""Minimum log-likelihood of each of its tokens."""
MAX_TRIES_PER_TOKEN = 1
"""Limit of tries by the number of tokens: a page of hotwords costs no more."""

KvCache = Sequence[npt.NDArray[np.float32]]
"""KV cache: keys and values of all layers, shape (1, heads, tokens, size) each."""
TokenScores = Callable[
    [Sequence[int], int, KvCache | None], tuple[npt.NDArray[np.float32], KvCache]
]
"""Pass over tokens from a position on, with the cache of those before: the log-likelihoods of what
follows each, shape (tokens, entries), and the cache of all."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPath:
    """Tokens from the end of the given ones on, and the log-likelihood of each.

    ``ended``: the last token is the end of the text. ``firsts``: before each token, the
    log-likelihoods of the hotwords' first tokens. ``cache``: of all tokens but the last at least.
    """

    tokens: tuple[int, ...]
    likely: tuple[float, ...]
    firsts: tuple[npt.NDArray[np.float32], ...]
    cache: KvCache | None = None
    ended: bool = False

    @property
    def text(self) -> tuple[int, ...]:
        """Return the tokens without the end."""
        return self.tokens[:-1] if self.ended else self.tokens


class HotwordDecoding:
    """Decoding of one utterance with hotwords.

    ``hotwords``: the tokens of each. ``known``: the start and the tokens before the text. ``most``:
    the maximum of tokens of the text. ``begins_word``: whether a token begins a word;
    ``continues_word``: whether it makes the word before it longer. A hotword is a whole word: 'Al'
    stands for no 'almost'.
    """

    def __init__(
        self,
        scores: TokenScores,
        hotwords: Iterable[Sequence[int]],
        *,
        known: Sequence[int],
        end: int,
        most: int,
        begins_word: Callable[[int], bool],
        continues_word: Callable[[int], bool],
        cancelled: CancelCheck,
    ) -> None:
        self._scores = scores
        by_first: dict[int, list[tuple[int, ...]]] = {}
        for hotword in hotwords:
            by_first.setdefault(hotword[0], []).append(tuple(hotword))
        self._by_first: Mapping[int, Sequence[tuple[int, ...]]] = by_first
        self._first_tokens = np.array([*by_first], np.int64)
        self._known, self._end, self._most = known, end, most
        self._begins_word, self._continues_word = begins_word, continues_word
        self._cancelled = cancelled

    def greedy_path(self, draft: Sequence[int]) -> DecodedPath | None:
        """Return the greedy text, without hotwords; None if cancelled."""
        return self._decode_rest(DecodedPath((), (), ()), draft)

    def with_hotwords(self, path: DecodedPath) -> DecodedPath | None:
        """Return the greedy ``path`` with the hotwords that are likely enough; None if
        cancelled."""
        tries = MAX_TRIES_PER_TOKEN * len(path.tokens)
        at = 0
        while at < len(path.tokens):
            best, best_gain, length = path, 0.0, 1
            for hotword in self._candidates(path, at)[:tries]:
                tries -= 1
                if (other := self._force(path, at, hotword)) is None:
                    if self._cancelled():
                        return None
                    continue
                known = _count(path.tokens[:at], hotword)
                # Behind itself it is likely without help, in place of other words, too.
                bonus = 0.0 if known else BONUS * len(hotword)
                gain = bonus + _gain(other, path, hotword, at)
                more = _count(other.tokens, hotword) > _count(path.tokens, hotword)
                if more and gain > best_gain and other.ended >= path.ended:
                    best, best_gain, length = other, gain, len(hotword)
            path, at = best, at + length
        return path

    def _candidates(self, path: DecodedPath, at: int) -> list[tuple[int, ...]]:
        """Return the hotwords that may be likelier than the text from ``at`` on, the likeliest
        first."""
        token = path.tokens[at]
        if not (token == self._end or self._begins_word(token)):
            return []
        rest = sum(path.likely[at:])
        found = [
            (float(likely), hotword)
            for first, likely in zip(self._first_tokens.tolist(), path.firsts[at], strict=True)
            if likely > MIN_FIRST
            for hotword in self._by_first[first]
            if likely + BONUS * len(hotword) > rest  # what follows can only cost more
            and hotword != path.tokens[at : at + len(hotword)]
            and not self._stands_before(path, at, hotword)
            and at + len(hotword) < self._most
        ]
        return [hotword for _, hotword in sorted(found, reverse=True)]

    def _stands_before(self, path: DecodedPath, at: int, hotword: tuple[int, ...]) -> bool:
        """Return whether the hotword is the last of the text before ``at``, marks aside: written
        once, it is likely there again, but was not said again."""
        last = next((n for n in reversed(range(at)) if self._begins_word(path.tokens[n])), 0)
        return _count(path.tokens[max(0, last - len(hotword) + 1) : at], hotword) > 0

    def _force(self, path: DecodedPath, at: int, hotword: tuple[int, ...]) -> DecodedPath | None:
        """Return the text with a hotword from ``at`` on and what follows it; None if it is too
        unlikely, part of a longer word, or cancelled."""
        if self._cancelled():
            return None
        before = [*self._known, *path.tokens[:at]]
        rows, cache = self._pass([before[-1], *hotword], len(before) - 1, path.cache)
        likely = [float(row[token]) for row, token in zip(rows, hotword, strict=False)]
        if min(likely) < MIN_TOKEN or sum(likely) + BONUS * len(hotword) < sum(path.likely[at:]):
            return None
        following = int(rows[-1].argmax())
        if self._continues_word(following):
            return None
        tokens = (*path.tokens[:at], *hotword, following)
        other = DecodedPath(
            tokens,
            (*path.likely[:at], *likely, float(rows[-1][following])),
            (*path.firsts[:at], *(row[self._first_tokens] for row in rows)),
            cache,
            following == self._end,
        )
        rest = path.tokens[at:]
        draft = rest[rest.index(following) + 1 :] if following in rest else ()
        return other if other.ended else self._decode_rest(other, draft)

    def _decode_rest(self, path: DecodedPath, draft: Sequence[int]) -> DecodedPath | None:
        """Return the path, decoded greedily up to the end; None if cancelled."""
        tokens, likely, firsts = [*path.tokens], [*path.likely], [*path.firsts]
        cache = path.cache
        ahead = [token for token in draft if token != self._end]
        ahead = ahead[: max(0, self._most - len(tokens) - 1)]
        fresh = [*self._known] if cache is None else tokens[-1:]
        while len(tokens) < self._most:
            if self._cancelled():
                return None
            position = len(self._known) + len(tokens) - len(fresh)
            rows, cache = self._pass([*fresh, *ahead], position, cache)
            rows = rows[len(fresh) - 1 :]
            said = rows.argmax(axis=1).tolist()
            said = said[: common_prefix_length(ahead, said) + 1]  # what the model confirms
            if self._end in said:
                said = said[: said.index(self._end) + 1]
            tokens += said
            likely += [float(row[token]) for row, token in zip(rows, said, strict=False)]
            firsts += [row[self._first_tokens] for row in rows[: len(said)]]
            if tokens[-1] == self._end:
                break
            fresh, ahead = said[-1:], []
        ended = bool(tokens) and tokens[-1] == self._end
        return replace(
            path,
            tokens=tuple(tokens),
            likely=tuple(likely),
            firsts=tuple(firsts),
            cache=cache,
            ended=ended,
        )

    def _pass(
        self, tokens: Sequence[int], position: int, cache: KvCache | None
    ) -> tuple[npt.NDArray[np.float32], KvCache]:
        if cache is not None:  # without what was decoded behind the position
            cache = [np.ascontiguousarray(values[:, :, :position]) for values in cache]
        return self._scores(tokens, position, cache)


def _count(tokens: Sequence[int], hotword: tuple[int, ...]) -> int:
    return sum(tuple(tokens[at : at + len(hotword)]) == hotword for at in range(len(tokens)))


def _gain(other_path: DecodedPath, path: DecodedPath, hotword: tuple[int, ...], at: int) -> float:
    """Return how much likelier ``other_path`` is, which has the hotword at ``at``.

    Where it has it again behind, it is likely for what was said there: both texts count up to that
    place, which is behind the same words in ``path``; if it has none of them, there is no gain.
    """
    behind = at + len(hotword)
    places = range(behind, len(other_path.tokens))
    again = next((n for n in places if other_path.tokens[n : n + len(hotword)] == hotword), None)
    if again is None:
        return sum(other_path.likely) - sum(path.likely)
    between = other_path.tokens[behind:again][::-1]
    same, end = max(
        (common_prefix_length(between, path.tokens[at:n][::-1]), n)
        for n in range(at, len(path.tokens))
    )
    return sum(other_path.likely[:again]) - sum(path.likely[:end]) if same else -np.inf
