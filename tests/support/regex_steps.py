"""A backtracking matcher that counts its steps, and worst-case inputs for a regular expression.

Python's `re` does not say how much work a match was, and times depend on the machine. This matcher
takes the tree that `re` itself has parsed, tries alternatives in the same order, and counts. What
`re` skips by optimisations (literal prefixes, for one) is counted: a bound from above.
"""

import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

BUDGET = 400_000
"""Steps; a search that takes more is given up."""
_LETTERS = "".join(map(chr, range(32, 127))) + "\n\t\xe9\u3002\u2026\u0661\x00"
_CHARACTERS = ("LITERAL", "NOT_LITERAL", "ANY", "IN")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_Rest = Callable[[int, tuple[int, ...]], int | None]
"""The end of a match from this place on, if there is one; and where the rounds of loops began."""


class TooManySteps(Exception):
    """The search took more than `BUDGET`."""


class Counting:
    """The matcher of one expression. ``steps``: all that were made."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.steps = pattern, 0
        self._tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
        self._fits: list[Callable[[str], bool]] = []
        self._text, self._begun, self._not_at, self._whole = "", 0, -1, False
        self._match = self._sequence(self._tree, self._end)

    def spans(self, text: str, method: str) -> list[tuple[int, int]]:
        """Where the expression matches, as the ``method`` of a pattern looks for it: once at the
        beginning, or everywhere."""
        self._text, self._whole, usual = text, method == "fullmatch", sys.getrecursionlimit()
        sys.setrecursionlimit(10 * BUDGET)
        try:
            return list(self._found(once=method in ("match", "fullmatch")))
        finally:
            sys.setrecursionlimit(usual)

    def _found(self, *, once: bool) -> Iterator[tuple[int, int]]:
        self._begun, self._not_at = 0, -1
        while self._begun <= len(self._text):
            end = self._match(self._begun, ())
            if end is not None:
                yield self._begun, end
            if once:
                return
            if end is None:
                self._begun, self._not_at = self._begun + 1, -1
            else:  # no empty one twice
                self._not_at, self._begun = (end if end == self._begun else -1), end

    def _end(self, at: int, _: tuple[int, ...]) -> int | None:
        unfinished = self._whole and at < len(self._text)
        return None if unfinished or at == self._begun == self._not_at else at

    def _sequence(self, tree: Any, then: _Rest) -> _Rest:
        for op, value in reversed(list(tree)):
            then = self._counted(self._node(op, value, then))
        return then

    def _counted(self, rest: _Rest) -> _Rest:
        def step(at: int, loops: tuple[int, ...]) -> int | None:
            self.steps += 1
            if self.steps > BUDGET:
                raise TooManySteps
            return rest(at, loops)

        return step

    def _node(self, op: Any, value: Any, then: _Rest) -> _Rest:
        """What matches a node of the tree, and ``then`` the rest."""
        match str(op):
            case "SUBPATTERN":
                return self._sequence(value[-1], then)
            case "BRANCH":
                return _first([self._sequence(branch, then) for branch in value[1]])
            case "MAX_REPEAT" | "MIN_REPEAT" as kind:
                return self._repeat(*value, then, greedy=kind == "MAX_REPEAT")
            case "ATOMIC_GROUP":
                return _atomic(self._sequence(value, _here), then)
            case "POSSESSIVE_REPEAT":
                return _atomic(self._repeat(*value, _here, greedy=True), then)
            case "AT":
                place = self._alone(op, value)
                return lambda at, loops: then(at, loops) if place.match(self._text, at) else None
            case "ASSERT" | "ASSERT_NOT" as kind:
                way, inside = value
                behind, look = inside.getwidth()[0] if way < 0 else 0, self._sequence(inside, _here)

                def looked(at: int, loops: tuple[int, ...]) -> int | None:
                    found = at >= behind and look(at - behind, ()) is not None
                    return then(at, loops) if found == (kind == "ASSERT") else None

                return looked
        assert str(op) in _CHARACTERS, f"{op} in {self.pattern.pattern}"
        self._fits.append(fits := self._letter(op, value))

        def letter(at: int, loops: tuple[int, ...]) -> int | None:
            text = self._text
            return then(at + 1, loops) if at < len(text) and fits(text[at]) else None

        return letter

    def _repeat(self, low: int, high: Any, body: Any, then: _Rest, *, greedy: bool) -> _Rest:
        def choice(more: _Rest) -> _Rest:
            return self._counted(_first([more, then] if greedy else [then, more]))

        rest = then
        if high is _constants.MAXREPEAT:

            def again(at: int, loops: tuple[int, ...]) -> int | None:
                *outer, begun = loops  # an empty round of a loop is its last
                return (then if begun == at else rest)(at, tuple(outer))

            round_of = self._sequence(body, again)
            rest = choice(lambda at, loops: round_of(at, (*loops, at)))
        else:
            for _ in range(high - low):
                rest = choice(self._sequence(body, rest))
        begins = rest
        for _ in range(low):
            begins = self._sequence(body, begins)
        return begins

    def _letter(self, op: Any, value: Any) -> Callable[[str], bool]:
        alone = self._alone(op, value)
        return cache(lambda letter: alone.fullmatch(letter) is not None)

    def _alone(self, op: Any, value: Any) -> re.Pattern[str]:
        """A pattern of one node, compiled by `re`: it alone knows what a letter is."""
        state = _parser.State()
        state.flags, state.str = self._tree.state.flags, self.pattern.pattern
        flags = self.pattern.flags & ~re.DEBUG
        found: re.Pattern[str] = _compiler.compile(_parser.SubPattern(state, [(op, value)]), flags)
        return found

    def inputs(self, seed: int = 7) -> Iterator[Callable[[int], str]]:
        """Texts that grow: a beginning, something that repeats, and an end that may not fit."""
        dice, letters = random.Random(seed), self._kinds()
        places = list(self._places(self._tree, "", dice, letters))
        samples = [self._sample(body, dice, letters) for _, body in places for _ in range(3)]
        pumps = [*letters, *samples, self._sample(self._tree, dice, letters)]
        pumps += ["".join(dice.choices(letters, k=2)) for _ in range(24)]
        begins = ["", letters[-1]]
        wanted = [(begin, pump) for pump in pumps for begin in begins]
        wanted += [(begin, pump) for begin, _ in places for pump in [*letters, *samples[:6]]]
        for begin, pump in dict.fromkeys(wanted):
            for end in ("", *letters[-2:], "\n") if pump else ():  # what fits the fewest parts
                yield lambda many, b=begin, p=pump, e=end: b + p * many + e

    def _kinds(self) -> list[str]:
        """A letter of each kind that the expression tells apart; last what fits it the least."""
        tests = [*self._fits, str.isspace, str.isalnum, str.isdigit]
        kinds: dict[tuple[bool, ...], str] = {}
        for letter in _LETTERS:
            kinds.setdefault(tuple(test(letter) for test in tests), letter)
        return [letter for fits, letter in sorted(kinds.items(), key=lambda one: -sum(one[0]))]

    def _places(
        self, tree: Any, before: str, dice: random.Random, letters: list[str]
    ) -> Iterator[tuple[str, Any]]:
        """What repeats, at all depths, each with a text that leads to it."""
        for op, value in tree:
            if str(op) in _REPEATS:
                yield before, value[2]
            for part in _parts(op, value):
                yield from self._places(part, before, dice, letters)
            before += self._sample([(op, value)], dice, letters)

    def _sample(self, tree: Any, dice: random.Random, letters: list[str]) -> str:
        """A text that a part matches, but for what it looks ahead and behind."""
        said = ""
        for op, value in tree:
            times = 1
            if str(op) in _CHARACTERS:
                fits = self._letter(op, value)
                known = [one for one in letters if fits(one)]
                said += dice.choice(known) if known else next(filter(fits, _LETTERS), "")
            elif str(op) in _REPEATS:
                low, high, _ = value
                most = low + 2 if high is _constants.MAXREPEAT else min(high, low + 2)
                times = dice.randint(low, most)
            parts = () if str(op).startswith("ASSERT") else _parts(op, value)
            for _ in range(times if parts else 0):
                said += self._sample(dice.choice(parts), dice, letters)
        return said


def _here(at: int, _: tuple[int, ...]) -> int:
    """Nothing follows: it ends where it is."""
    return at


def _first(ways: Sequence[_Rest]) -> _Rest:
    def step(at: int, loops: tuple[int, ...]) -> int | None:
        for way in ways:
            if (end := way(at, loops)) is not None:
                return end
        return None

    return step


def _atomic(inside: _Rest, then: _Rest) -> _Rest:
    def step(at: int, loops: tuple[int, ...]) -> int | None:
        end = inside(at, ())
        return None if end is None else then(end, loops)

    return step


def _parts(op: Any, value: Any) -> Sequence[Any]:
    """What is inside a node."""
    match str(op):
        case "BRANCH":
            return list(value[1])
        case "ATOMIC_GROUP":
            return [value]
        case name if name in ("SUBPATTERN", "ASSERT", "ASSERT_NOT", *_REPEATS):
            return [value[-1]]
    return []


FIRST, LAST = 12, 384
"""How often the part of an input repeats that grows."""


def steps_of(matcher: Counting, text: str, method: str) -> int:
    """Steps for one text; `BUDGET` where it takes more."""
    matcher.steps = 0
    try:
        matcher.spans(text, method)
    except TooManySteps:
        return BUDGET
    return matcher.steps


def superlinear(pattern: re.Pattern[str], method: str) -> str | None:
    """An input whose steps grow faster than its length, None where none was found.

    Twice the input may cost three times the steps at most; four times is quadratic. First with
    short inputs, which are many; what looks suspicious there is looked at again with long ones,
    where limits such as ``{0,40}`` no longer look like growth.
    """
    matcher = Counting(pattern)
    for grown in matcher.inputs():
        few, more = (steps_of(matcher, grown(many), method) for many in (FIRST, 2 * FIRST))
        if more > 2.2 * few or few == BUDGET:  # what is linear has twice as many at most
            few, more = (steps_of(matcher, grown(many), method) for many in (LAST // 2, LAST))
            if more >= BUDGET or more > 3 * few:
                return grown(3)
    return None
