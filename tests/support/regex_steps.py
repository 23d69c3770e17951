"""A backtracking matcher that counts its steps, and worst-case inputs for a regular expression.

Python's `re` does not say how much work a match was, and times depend on the machine. This matcher
takes the tree that `re` itself has parsed, tries alternatives in the same order, and counts. What
`re` skips by optimisations (literal prefixes, for one) is counted: a bound from above.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

BUDGET = 400_000
"""Steps; a search that takes more is given up."""
MODES = {"match": "match", "fullmatch": "fullmatch"}
"""By the name of a method; all others look at every place of a text."""
_LETTERS = "".join(map(chr, range(32, 127))) + "\n\t\xe9\u3002\u2026\u0661\x00"
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


class TooManySteps(Exception):
    """The search took more than `BUDGET`."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction: what it is, what it tests, and where it goes on (or else)."""

    kind: str
    test: Any = None
    to: tuple[int, ...] = ()


@dataclass
class Counting:
    """The matcher of one expression. ``steps``: all that were made."""

    pattern: re.Pattern[str]
    steps: int = 0
    _program: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = _parser.parse(self.pattern.pattern, self.pattern.flags & ~re.UNICODE)
        self._program = self._compiled(self.tree)

    def spans(self, text: str, method: str) -> list[tuple[int, int]]:
        """Where the expression matches, as the ``method`` of a pattern looks for it: once at the
        beginning, or everywhere."""
        if method in MODES:
            end = self._run(self._program, text, 0, whole=method == "fullmatch")
            return [] if end is None else [(0, end)]
        found, at, empty_at = [], 0, -1
        while at <= len(text):
            end = self._run(self._program, text, at, not_at=empty_at)
            if end is None:
                at, empty_at = at + 1, -1
            else:
                found.append((at, end))
                at, empty_at = end, end if end == at else -1  # no empty one twice
        return found

    def _run(
        self, program: list[_Step], text: str, at: int, *, whole: bool = False, not_at: int = -1
    ) -> int | None:
        """The end of the match that begins at ``at``; it is not empty if that is ``not_at``."""
        waiting: list[tuple[int, int, tuple[int, ...]]] = [(0, at, ())]
        while waiting:
            pc, now, loops = waiting.pop()
            while True:
                self.steps += 1
                if self.steps > BUDGET:
                    raise TooManySteps
                step = program[pc]
                match step.kind:
                    case "char":
                        if now == len(text) or not step.test(text[now]):
                            break
                        pc, now = pc + 1, now + 1
                    case "split":
                        waiting.extend((other, now, loops) for other in reversed(step.to[1:]))
                        pc = step.to[0]
                    case "jump":
                        pc = step.to[0]
                    case "enter":
                        pc, loops = pc + 1, (*loops, now)
                    case "again":  # an empty round of a loop is its last
                        *outer, begun = loops
                        pc, loops = (pc + 1 if begun == now else step.to[0]), tuple(outer)
                    case "place":
                        if not step.test(text, now):
                            break
                        pc += 1
                    case "look":
                        behind, wanted, inner = step.test
                        found = now >= behind and self._run(inner, text, now - behind) is not None
                        if found is not wanted:
                            break
                        pc += 1
                    case "atomic":
                        end = self._run(step.test, text, now)
                        if end is None:
                            break
                        pc, now = pc + 1, end
                    case "end":
                        if (whole and now < len(text)) or now == at == not_at:
                            break
                        return now
        return None

    def _compiled(self, tree: Any) -> list[_Step]:
        program: list[_Step] = []
        self._add(program, tree)
        return [*program, _Step("end")]

    def _add(self, program: list[_Step], tree: Any) -> None:
        for op, value in tree:
            name = str(op)
            if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
                program.append(_Step("char", self._letter(op, value)))
            elif name == "AT":
                program.append(_Step("place", self._alone(op, value).match))
            elif name in ("ASSERT", "ASSERT_NOT"):
                way, inner = value
                behind = inner.getwidth()[0] if way < 0 else 0
                look = behind, name == "ASSERT", self._compiled(inner)
                program.append(_Step("look", look))
            elif name == "SUBPATTERN":
                self._add(program, value[-1])
            elif name == "BRANCH":
                self._branch(program, value[1])
            elif name == "ATOMIC_GROUP":
                program.append(_Step("atomic", self._compiled(value)))
            elif name == "POSSESSIVE_REPEAT":
                inside: list[_Step] = []
                self._repeat(inside, *value, greedy=True)
                program.append(_Step("atomic", [*inside, _Step("end")]))
            elif name in _REPEATS:
                self._repeat(program, *value, greedy=name == "MAX_REPEAT")
            else:
                raise NotImplementedError(f"{name} in {self.pattern.pattern}")

    def _branch(self, program: list[_Step], branches: list[Any]) -> None:
        at = len(program)
        program.append(_Step("split"))
        begins, ends = [], []
        for branch in branches:
            begins.append(len(program))
            self._add(program, branch)
            ends.append(len(program))
            program.append(_Step("jump"))
        program[at] = _Step("split", to=tuple(begins))
        for end in ends:
            program[end] = _Step("jump", to=(len(program),))

    def _repeat(
        self, program: list[_Step], low: int, high: Any, body: Any, *, greedy: bool
    ) -> None:
        for _ in range(low):
            self._add(program, body)
        if high is _constants.MAXREPEAT:
            top = len(program)
            program.append(_Step("split"))
            program.append(_Step("enter"))
            self._add(program, body)
            program.append(_Step("again", to=(top,)))
            program[top] = _way(top + 1, len(program), greedy)
            return
        optional = []
        for _ in range(high - low):
            optional.append(len(program))
            program.append(_Step("split"))
            self._add(program, body)
        for at in optional:
            program[at] = _way(at + 1, len(program), greedy)

    def _letter(self, op: Any, value: Any) -> Callable[[str], bool]:
        alone = self._alone(op, value)
        return cache(lambda letter: alone.fullmatch(letter) is not None)

    def _alone(self, op: Any, value: Any) -> re.Pattern[str]:
        """A pattern of one node, compiled by `re`: it alone knows what a letter is."""
        state = _parser.State()
        state.flags, state.str = self.tree.state.flags, self.pattern.pattern
        flags = self.pattern.flags & ~re.DEBUG
        found: re.Pattern[str] = _compiler.compile(_parser.SubPattern(state, [(op, value)]), flags)
        return found

    def inputs(self, seed: int = 7) -> Iterator[Callable[[int], str]]:
        """Texts that grow: a beginning, something that repeats, and an end that may not fit."""
        dice = random.Random(seed)
        letters = self._kinds()
        places = list(self._places(self.tree, "", dice, letters))
        samples = [self._sample(body, dice, letters) for _, body in places for _ in range(3)]
        pumps = [*letters, *samples, self._sample(self.tree, dice, letters)]
        pumps += ["".join(dice.choices(letters, k=2)) for _ in range(24)]
        begins = ["", letters[-1]]
        wanted = [(begin, pump) for pump in pumps for begin in begins]
        wanted += [(begin, pump) for begin, _ in places for pump in [*letters, *samples[:6]]]
        for begin, pump in dict.fromkeys(wanted):
            for end in ("", *letters[-2:], "\n") if pump else ():  # what fits the fewest parts
                yield lambda many, b=begin, p=pump, e=end: b + p * many + e

    def _places(
        self, tree: Any, before: str, dice: random.Random, letters: list[str]
    ) -> Iterator[tuple[str, Any]]:
        """What repeats, at all depths, each with a text that leads to it."""
        for op, value in tree:
            name = str(op)
            if name in _REPEATS:
                yield before, value[2]
                yield from self._places(value[2], before, dice, letters)
            elif name in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
                yield from self._places(value[-1], before, dice, letters)
            elif name == "ATOMIC_GROUP":
                yield from self._places(value, before, dice, letters)
            elif name == "BRANCH":
                for branch in value[1]:
                    yield from self._places(branch, before, dice, letters)
            before += self._sample([(op, value)], dice, letters)

    def _kinds(self) -> list[str]:
        """A letter of each kind that the expression tells apart; last what fits it the least."""
        tests = [step.test for step in _flat(self._program) if step.kind == "char"]
        tests += [str.isspace, str.isalnum, str.isdigit]
        kinds: dict[tuple[bool, ...], str] = {}
        for letter in _LETTERS:
            kinds.setdefault(tuple(test(letter) for test in tests), letter)
        return [letter for fits, letter in sorted(kinds.items(), key=lambda one: -sum(one[0]))]

    def _sample(self, tree: Any, dice: random.Random, letters: list[str]) -> str:
        """A text that a part matches, but for what it looks ahead and behind."""
        said = ""
        for op, value in tree:
            name = str(op)
            if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
                fits = self._letter(op, value)
                known = [one for one in letters if fits(one)]
                said += dice.choice(known) if known else next(filter(fits, _LETTERS), "")
            elif name == "SUBPATTERN":
                said += self._sample(value[-1], dice, letters)
            elif name == "BRANCH":
                said += self._sample(dice.choice(value[1]), dice, letters)
            elif name == "ATOMIC_GROUP":
                said += self._sample(value, dice, letters)
            elif name in _REPEATS:
                low, high, body = value
                most = low + 2 if high is _constants.MAXREPEAT else min(high, low + 2)
                for _ in range(dice.randint(low, most)):
                    said += self._sample(body, dice, letters)
        return said


def _way(into: int, past: int, greedy: bool) -> _Step:
    return _Step("split", to=(into, past) if greedy else (past, into))


def _flat(program: list[_Step]) -> Iterator[_Step]:
    for step in program:
        yield step
        if step.kind == "look":
            yield from _flat(step.test[2])
        elif step.kind == "atomic":
            yield from _flat(step.test)


FIRST, LAST = 24, 384
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
        if more > 2.4 * few or few == BUDGET:
            few, more = (steps_of(matcher, grown(many), method) for many in (LAST // 2, LAST))
            if more >= BUDGET or more > 3 * few:
                return grown(3)
    return None
