"""What the format forces: the tokens between the values of a segment, proposed before they come.

Of the tokens of a segment about every second belongs to ``"},{"Start":``, ``,"End":`` and the like,
and a segment mostly starts where the last one ended. A proposal is verified by the model in one
pass (speculative decoding, Leviathan et al. 2023, with a draft that is not a model): a right one
saves passes, a wrong one changes nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST = 11
"""Tokens of a proposal."""
_KEYS = ("Start", "End", "Speaker", "Content")
_START, _END, _SPEAKER, _CONTENT = range(4)
_ITEM = '{"Start":0,"End":0,"Speaker":0,"Content":"'


class Frame:
    """The format as a tokenizer spells it.

    Raises:
        ValueError: it does not spell digits, keys and marks apart.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._opening: dict[int, bool] = {}
        spelled: list[int] = tokenizer.encode(_ITEM, add_special_tokens=False).ids
        zero = tokenizer.token_to_id("0")
        parts: list[tuple[int, ...]] = []
        at = 0
        for end in [*(i for i, id_ in enumerate(spelled) if id_ == zero), len(spelled)]:
            parts.append(tuple(spelled[at:end]))
            at = end + 1
        if (
            len(parts) != len(_KEYS)
            or not all(len(part) > 1 for part in parts)
            or not self.opens(parts[_START][0])
            or len({part[0] for part in parts[_END:]}) > 1
        ):
            raise ValueError("this tokenizer does not spell digits, keys and marks apart")
        self.before = parts
        """For each key the tokens between the value before it and its own."""

    def opens(self, token: int) -> bool:
        """Whether a segment begins with this token, whatever it ends: ``},{"`` or ``."},{"``."""
        known = self._opening.get(token)
        if known is None:
            known = self._opening[token] = (self._tokenizer.id_to_token(token) or "").endswith('{"')
        return known


class Proposals:
    """Follows an answer token by token, and proposes what comes next where it is all but sure."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._opened: list[int] = []
        """The tokens since a key was opened; none in a value."""
        self._value: list[int] | None = None
        """The tokens of the number that is being written; None in a text, or where lost."""
        self._key = _START
        self._past: dict[int, list[list[int]]] = {_START: [], _END: [], _SPEAKER: []}

    def read(self, token: int) -> None:
        """The next token of the answer."""
        before = self._frame.before
        if self._frame.opens(token):
            self._key, self._opened, self._value = _START, [token], None
        elif self._opened:
            self._opened.append(token)
            self._name()
        elif self._value is not None and token == before[_END][0]:
            self._past[self._key] = [*self._past[self._key][-1:], self._value]
            self._key, self._opened, self._value = self._key + 1, [token], None
        elif self._value is not None:
            self._value.append(token)

    def next(self) -> Sequence[int]:
        """Tokens that are likely to come next, at most `LONGEST`; none where nobody knows."""
        before = self._frame.before
        if len(self._opened) == 1:
            proposal = [*before[self._key][1:]]
            guess = self._guess()
            return [*proposal, *guess, *before[self._key + 1]][:LONGEST] if guess else proposal
        if self._key == _SPEAKER and self._value:
            return before[_CONTENT]
        return ()

    def _name(self) -> None:
        """Whether what was opened is a key by now: the expected one, or a later one."""
        for key in range(self._key, len(_KEYS)):
            if self._opened[1:] == [*self._frame.before[key][1:]]:
                self._key, self._opened = key, []
                self._value = None if key == _CONTENT else []
                return
        if len(self._opened) == max(map(len, self._frame.before)):
            self._opened = []

    def _guess(self) -> list[int]:
        """A start: the last end. A speaker: who spoke before the last, as two people do."""
        if self._key == _START:
            return (self._past[_END] or [[]])[-1]
        return (self._past[_SPEAKER] or [[]])[0] if self._key == _SPEAKER else []
