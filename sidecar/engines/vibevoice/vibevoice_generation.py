"""Token generation of VibeVoice-ASR: proposals, recovery, several answers in step.

About every second token of a segment belongs to ``"},{"Start":``, ``,"End":`` and the like, and a
segment mostly starts where the last one ended. The model verifies a proposal in one pass
(speculative decoding, Leviathan et al. 2023, with a draft that is not a model). A right proposal
saves passes, a wrong one changes nothing.

This module does not import torch: docs/plugins.md lists it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol, TypeVar

from tokenizers.decoders import DecodeStream

from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.transcripts import loop_guard
from sidecar.transcripts.transcript import LOOP_FLAG, Segment, TranscriptionEvent, mean_confidence
from sidecar.transcripts.vibevoice_output import content_positions
from sidecar.transcripts.word_timing import common_prefix_length

log = logging.getLogger(__name__)
TOP_P = 0.95

MAX_DRAFT_TOKENS = 11
"""Maximum number of tokens of a proposal."""
_SEGMENT_KEYS = ("Start", "End", "Speaker", "Content")
_START, _END, _SPEAKER, _CONTENT = range(4)
_SEGMENT_OPENING = '{"Start":0,"End":0,"Speaker":0,"Content":"'

SEED = 20_24
"""Seed of the sampling: the same audio alone gives the same transcript, including loops."""
TURN = "<|im_start|>"
"""Beginning of an answer: a special token, which the text leaves out."""
Key = TypeVar("Key")
RunEvent = tuple[Key, TranscriptionEvent | Exception | None]


class SegmentTemplate:
    """Tokens of the output format's fixed parts.

    Raises:
        ValueError: the tokenizer does not separate digits, keys and marks.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._opening: dict[int, bool] = {}
        spelled: list[int] = tokenizer.encode(_SEGMENT_OPENING, add_special_tokens=False).ids
        zero = tokenizer.token_to_id("0")
        parts: list[tuple[int, ...]] = []
        at = 0
        for end in [*(i for i, id_ in enumerate(spelled) if id_ == zero), len(spelled)]:
            parts.append(tuple(spelled[at:end]))
            at = end + 1
        if (
            len(parts) != len(_SEGMENT_KEYS)
            or not all(len(part) > 1 for part in parts)
            or not self.opens(parts[_START][0])
            or len({part[0] for part in parts[_END:]}) > 1
        ):
            raise ValueError("this tokenizer does not spell digits, keys and marks apart")
        self.before = parts
        """For each key the tokens between the previous value and its own."""

    def opens(self, token: int) -> bool:
        """Return whether a segment begins with this token, whatever text the token ends: ``},{"``
        or ``."},{"``."""
        known = self._opening.get(token)
        if known is None:
            known = self._opening[token] = (self._tokenizer.id_to_token(token) or "").endswith('{"')
        return known


def segment_template_of(tokenizer: Any) -> SegmentTemplate | None:
    """Return the format's template in a checkpoint's tokens; `None`, and no proposals, if the
    tokenizer differs."""
    try:
        return SegmentTemplate(tokenizer)
    except ValueError as error:
        log.info("speculative decoding of the output format is off: %s", error)
        return None


class DraftProposals:
    """Proposals for the next tokens of an answer, where the format or the past makes them
    likely."""

    def __init__(self, template: SegmentTemplate) -> None:
        self._template = template
        self._opened: list[int] = []
        """Tokens since a key was opened; empty in a value."""
        self._value: list[int] | None = None
        """Tokens of the number in progress; `None` in a text, or if the position is not known."""
        self._key = _START
        self._past: dict[int, list[list[int]]] = {_START: [], _END: [], _SPEAKER: []}

    def read(self, token: int) -> None:
        """Add the next token of the answer."""
        before = self._template.before
        if self._template.opens(token):
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
        """Return the tokens that are likely to come next, at most `MAX_DRAFT_TOKENS`; none if
        nothing is likely."""
        before = self._template.before
        if len(self._opened) == 1:
            proposal = [*before[self._key][1:]]
            if guess := self._guess():
                proposal += [*guess, *before[self._key + 1]]
            return proposal[:MAX_DRAFT_TOKENS]
        if self._key == _SPEAKER and self._value:
            return before[_CONTENT]
        return ()

    def _name(self) -> None:
        """Check whether the open tokens are a key by now: the expected one, or a later one."""
        for key in range(self._key, len(_SEGMENT_KEYS)):
            if self._opened[1:] == [*self._template.before[key][1:]]:
                self._key, self._opened = key, []
                self._value = None if key == _CONTENT else []
                return
        if len(self._opened) == max(map(len, self._template.before)):
            self._opened = []

    def _guess(self) -> list[int]:
        """Return the likely value. A start: the last end. A speaker: the one before the last, as in
        a dialogue."""
        if self._key == _START:
            return (self._past[_END] or [[]])[-1]
        return (self._past[_SPEAKER] or [[]])[0] if self._key == _SPEAKER else []


class NonFiniteLogits(Exception):
    """The first logits hold a NaN or an infinity: 16-bit floats overflowed (QwenLM/Qwen3#761)."""


class CachedPositions(Protocol):
    """Cache of keys and values; setting ``length`` goes back."""

    length: int


@dataclass(frozen=True, slots=True)
class PromptContinuation:
    """Tokens to add after those that a cache holds."""

    ids: Sequence[int]
    cache: Any


class DraftedGeneration(ABC):
    """Answer to one prompt; ``ids`` are its tokens so far.

    With a ``template``, tokens that the format forces are proposed and verified: a pass of the
    decoder may then confirm several tokens, each the likeliest. Nothing is proposed after a sampled
    token: a pass of several rows gives other last digits than passes of one row, and sampling
    depends on them.

    A library's own class has what is abstract here; its logits are any sequence of rows.
    """

    def __init__(
        self, cache: CachedPositions, prompt_logits: Any, template: SegmentTemplate | None = None
    ) -> None:
        """``prompt_logits``: one row, after the prompt that ``cache`` holds."""
        self.cache = cache
        self._prompt_tokens = cache.length
        self._prompt_logits = prompt_logits
        self._template = template
        self._proposed: Sequence[int] = ()
        self._drawn = False
        self._row = 0
        self._logits = prompt_logits
        self._likeliest: Sequence[tuple[int, float]] | None = None
        self.likelihood = 0.0
        """Natural logarithm of the probability of the last token, without a temperature."""
        self._settle([])

    @property
    @abstractmethod
    def step(self) -> Callable[[Sequence[PromptContinuation]], Sequence[Any]]:
        """Return the function that runs a pass over these tokens and others': it adds them to each
        cache, and returns the logits after each of them."""

    @abstractmethod
    def append(self, ids: Sequence[int]) -> Any:
        """Add tokens to the cache; return the logits after the last of them, one row."""

    @abstractmethod
    def likeliest(self, logits: Any) -> Sequence[tuple[int, float]]:
        """Return the likeliest token of each row, and its `likelihood`."""

    @abstractmethod
    def draw(self, logits: Any, sampling: loop_guard.SamplingOptions) -> tuple[int, float]:
        """Sample a token of one row of logits; return it, and its `likelihood`."""

    @property
    def ready(self) -> bool:
        """Return whether the next token can be chosen without another pass."""
        return self._row < len(self._logits)

    def token(self, sampling: loop_guard.SamplingOptions | None = None) -> int:
        """Choose the next token: the likeliest, or a sample of the likely ones."""
        if not self.ready:
            decode_pass([self])
        if sampling is None:
            if self._likeliest is None:  # of all rows at once: each read waits for the GPU
                self._likeliest = self.likeliest(self._logits)
            token, self.likelihood = self._likeliest[self._row]
        else:
            token, self.likelihood = self.draw(self._logits[self._row], sampling)
        self._drawn = sampling is not None
        self.ids.append(token)
        if self._proposals is not None:
            self._proposals.read(token)
        if self._row < len(self._proposed) and self._proposed[self._row] == token:
            self._row += 1
            self.cache.length += 1
        else:
            self._row = len(self._logits)
        return token

    def go_on_from(self, ids: Sequence[int]) -> None:
        """Make ``ids`` the answer so far; the beginning that it shares with the present answer is
        kept."""
        known = self.cache.length - self._prompt_tokens
        shared = max(0, min(common_prefix_length(self.ids, ids), known, len(ids) - 1))
        self.cache.length = self._prompt_tokens + shared
        self._settle(list(ids))
        if ids:
            self._show(self.append(ids[shared:]))

    def _settle(self, ids: list[int]) -> None:
        self.ids = ids
        self._proposed = ()
        self._show(self._prompt_logits)
        self._proposals = DraftProposals(self._template) if self._template else None
        if self._proposals is not None:
            for token in ids:
                self._proposals.read(token)

    def wanted(self) -> PromptContinuation:
        """Return the input of the next pass: the last token, and the proposed tokens after it."""
        proposals = None if self._drawn else self._proposals
        self._proposed = proposals.next() if proposals is not None else ()
        return PromptContinuation([self.ids[-1], *self._proposed], self.cache)

    def take(self, logits: Any) -> None:
        """Set the logits ``(n, vocabulary)`` of the pass over `wanted`; `token` verifies them one
        by one."""
        self.cache.length -= len(logits) - 1
        self._show(logits)

    def _show(self, logits: Any) -> None:
        self._logits, self._row, self._likeliest = logits, 0, None


def decode_pass(generations: Sequence[DraftedGeneration]) -> None:
    """Run one pass for all of them, by the `PlannedDecoder` of the first."""
    wanted = [generation.wanted() for generation in generations]
    for generation, logits in zip(generations, generations[0].step(wanted), strict=True):
        generation.take(logits)


class WindowGeneration:
    """Segments of one window of audio, ``duration_s`` long, from a generation.

    ``segments`` grows as segments close, and shrinks when a loop is cut; ``loops`` counts the
    loops. Skipped audio is a segment with a flag.
    """

    def __init__(
        self, generation: DraftedGeneration, tokenizer: Any, ends: frozenset[int], duration_s: float
    ) -> None:
        self.generation = generation
        self._tokenizer = tokenizer
        self._ends = ends
        self._duration_s = duration_s
        self._tried_at = -1
        self._tried = 0
        self._recoveries_left = loop_guard.max_recoveries(duration_s)
        self.segments: list[Segment] = []
        self._written: list[tuple[float, ...]] = []
        """For each character of the answer the likelihoods of the tokens that wrote it; the same
        object for all characters of a token. Empty if it was not generated."""
        self._unwritten: tuple[float, ...] = ()
        self._read_on("")
        self.loops = 0
        self.truncated = False

    def run(
        self, sampling: loop_guard.SamplingOptions | None, limit: int, cancelled: CancelCheck
    ) -> Iterator[int | None]:
        """Decode up to ``limit`` tokens; yield the index of each segment as it closes.

        Yield `None` if it needs a pass of the decoder. `decode_in_step` runs one for
        several answers at once; without it the generation runs its own.
        """
        attempt: loop_guard.SamplingOptions | None = None
        while not self._reading.parser.ended and not cancelled():
            if len(self.generation.ids) >= limit:
                break
            if not self.generation.ready:
                yield None
            token = self.generation.token(attempt or sampling)
            if token in self._ends:
                break
            loop = yield from self._take(token)
            if len(self.segments) > self._tried_at:
                attempt = None
            if loop is not None:
                self.loops += 1
                self._cut(loop)
                attempt = loop_guard.retry_sampling(self._tried, _lost_seconds(self.segments))
                if attempt is not None:
                    self._tried += 1
                    self._go_on(self._reading.text_until(len(self.segments)))
                elif not self._skip():
                    break
        self.segments += self._reading.parser.finish()
        self.truncated = self._reading.parser.truncated

    def _take(self, token: int) -> Generator[int, None, loop_guard.RepetitionLoop | None]:
        """Read one token; return the loop that it closes, if any."""
        first, piece = len(self.segments), self._stream.step(self._tokenizer, token) or ""
        self._unwritten = (*self._unwritten, self.generation.likelihood)
        self._written += [self._unwritten] * len(piece)
        if piece:  # else the token ends within a character
            self._unwritten = ()
        closed, loop = self._reading.take(token, piece)
        yield from range(first, first + len(closed) - (loop is not None and len(closed) > 0))
        return loop

    def _cut(self, loop: loop_guard.RepetitionLoop) -> None:
        """Remove the segments of a loop; reset the number of tries if it is a later one."""
        del self.segments[len(self.segments) - loop.cut :]
        if len(self.segments) > self._tried_at:
            self._tried = 0
        self._tried_at = len(self.segments)

    def _skip(self) -> bool:
        """Skip audio and go on after it; return false if nothing is left to go on with."""
        content = self._reading.parser.open_content
        skip = loop_guard.next_skipped_audio(
            self.segments[-1].end if self.segments else 0.0,
            self._duration_s,
            _lost_seconds(self.segments),
            content.end if content else None,
        )
        self._recoveries_left -= 1
        if skip is None or self._recoveries_left < 0:
            return False
        before = self._reading.text_until(len(self.segments))
        self.segments.append(skip.segment())
        self._tried_at, self._tried = len(self.segments), 0
        self._go_on(loop_guard.with_item(before, self.segments[-1]))
        return True

    def _go_on(self, text: str) -> None:
        """Make ``text`` the answer so far."""
        kept = common_prefix_length(self._reading.text, text)
        self._written[kept:] = [()] * (len(text) - kept)
        ids = self._tokenizer.encode(TURN + text, add_special_tokens=False).ids if text else []
        self.generation.go_on_from(ids)
        self._read_on(text)

    def with_confidence(self, index: int, segment: Segment) -> Segment:
        """Return ``segment``, which has the text of `segments` at ``index``, with the confidence of
        its tokens, and with that of its words."""
        closed = self._reading.parser.closed_at
        end = closed[index]
        before = bisect_left(closed, end)
        begin = closed[before - 1] if before else 0
        written = self._written[begin:end]
        at = content_positions(self._reading.text[begin:end], segment.text)
        if not at:
            return segment
        words, done = [], 0
        for word in segment.words:
            first = segment.text.find(word.text, done)
            done = first + len(word.text)
            words.append(replace(word, confidence=_confidence(written[at[first] : at[done]])))
        sure = _confidence(written[at[0] : at[-1]])
        return replace(segment, words=tuple(words), confidence=sure)

    def _read_on(self, text: str) -> None:
        self._unwritten = ()
        self._stream = DecodeStream(skip_special_tokens=True)
        self._reading = loop_guard.GuardedAnswer(self._duration_s, text, self.segments)


def _confidence(written: Sequence[tuple[float, ...]]) -> float | None:
    """Return the confidence of some characters of an answer; `None` if any was not generated."""
    tokens = {id(one): one for one in written}.values()
    return mean_confidence(chain(*tokens)) if all(tokens) else None


def _lost_seconds(segments: Sequence[Segment]) -> float:
    """Return the seconds that were skipped directly before the end."""
    lost = 0.0
    for segment in reversed(segments):
        if LOOP_FLAG not in segment.flags:
            break
        lost += segment.end - segment.start
    return lost


@dataclass(frozen=True, slots=True)
class DecoderPass:
    """Pass of the decoder that these generations need to go on."""

    generations: Sequence[DraftedGeneration]


Run = Generator[TranscriptionEvent | DecoderPass | None, None, None]


def decode_in_step(
    generations: Sequence[WindowGeneration],
    sampling: loop_guard.SamplingOptions | None,
    limits: Sequence[int],
    cancelled: CancelCheck,
) -> Iterator[tuple[int, int | None] | DecoderPass]:
    """Decode all answers; ``limits`` are their maximum numbers of tokens.

    Yield the number of an answer with the index of its segment as that closes, or with `None` as
    the answer ends. Also yield the decoder passes that are needed.
    """
    running = {
        number: answer.run(sampling, limit, cancelled)
        for number, (answer, limit) in enumerate(zip(generations, limits, strict=True))
    }
    while running:
        for number, run in list(running.items()):
            for closed in run:
                if closed is None:
                    break
                yield number, closed
            else:
                del running[number]
                yield number, None
        if running:
            yield DecoderPass([generations[number].generation for number in running])


def interleave_runs(arrivals: Callable[[], Iterable[tuple[Key, Run]]]) -> Iterator[RunEvent[Key]]:
    """Run all to their ends; ``arrivals`` returns those to begin before a pass, each with its key.

    Yield the key of a run with its event, then with the error that ended it, if any, then with
    `None`. An error of a pass is raised in all runs that needed it. A run yields `None` while it
    waits for another.
    """
    running: dict[Key, Run] = {}
    failed: dict[Key, Exception] = {}
    while True:
        running.update(arrivals())
        if not running:
            return
        wanted: dict[Key, Sequence[DraftedGeneration]] = {}
        for key, run in list(running.items()):
            thrown = failed.pop(key, None)
            ended: Exception | None = None
            while True:
                try:
                    step = next(run) if thrown is None else run.throw(thrown)
                except StopIteration:
                    del running[key]
                    break
                except Exception as error:
                    del running[key]
                    ended = error
                    break
                thrown = None
                if isinstance(step, DecoderPass):
                    wanted[key] = step.generations
                    del step  # this frame must not keep alive what runs out of memory
                    break
                if step is None:
                    break
                yield key, step
            if ended is not None:
                yield key, ended
                del ended
            if key not in running:
                yield key, None
        if wanted:
            try:
                decode_pass([*chain.from_iterable(wanted.values())])
            except Exception as error:
                failed = dict.fromkeys(wanted, error)
