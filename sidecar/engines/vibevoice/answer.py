"""One answer of the model, read while it is written, and helped on where it is stuck."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from sidecar.engines.vibevoice.generation import Generation
from sidecar.interfaces.engine import Cancelled
from sidecar.transcripts.loop_guard import Loop, LoopGuard
from sidecar.transcripts.output import OutputParser
from sidecar.transcripts.recovery import Sampling, next_attempt, next_skip
from sidecar.transcripts.transcript import LOOP, Segment

TURN, OPENING = "<|im_start|>", "assistant\n["
"""How an answer begins: a mark, which the text leaves out, and the list after it."""


class Answer:
    """The segments of one window of audio, ``duration_s`` long, out of a generation.

    ``segments`` grows as they close and shrinks where a loop is cut, which ``loops`` counts; the
    stretches that were given up are segments with a flag.
    """

    def __init__(
        self, generation: Generation, tokenizer: Any, ends: frozenset[int], duration_s: float
    ) -> None:
        self.generation = generation
        self._tokenizer = tokenizer
        self._ends = ends
        self._duration_s = duration_s
        self._reading = _Reading(tokenizer, duration_s)
        self._place = -1
        self._tried = 0
        self._helps_left = 16 + round(duration_s / 5)
        self.segments: list[Segment] = []
        self.loops = 0
        self.truncated = False

    def run(
        self, sampling: Sampling | None, limit: int, cancelled: Cancelled
    ) -> Iterator[int | None]:
        """Decode up to ``limit`` tokens; yields the index of each segment as it closes.

        And None where ``generation`` needs a pass of the decoder: `lockstep` gives one to several
        answers at once; where nobody does, it takes its own.
        """
        attempt: Sampling | None = None
        while not self._reading.parser.ended and not cancelled():
            if len(self.generation.ids) >= limit:
                break
            if not self.generation.ready:
                yield None
            token = self.generation.token(attempt or sampling)
            if token in self._ends:
                break
            loop = yield from self._take(token)
            if len(self.segments) > self._place:
                attempt = None
            if loop is not None:
                self.loops += 1
                self._cut(loop)
                attempt = next_attempt(self._tried, _lost_s(self.segments))
                if attempt is not None:
                    self._tried += 1
                    self._go_on(self._reading.text_until(len(self.segments)))
                elif not self._skip():
                    break
        self.segments += self._reading.parser.finish()
        self.truncated = self._reading.parser.truncated

    def _take(self, token: int) -> Generator[int, None, Loop | None]:
        """Read one token; the loop that it closes, if it does."""
        closed = self._reading.take(token)
        loop = self._reading.guard.token(token, self._reading.parser.open_content)
        for segment in closed:
            if loop is not None:
                break
            self.segments.append(segment)
            loop = self._reading.guard.segment(segment)
            if loop is None:
                yield len(self.segments) - 1
        return loop

    def _cut(self, loop: Loop) -> None:
        """Leave the sound segments; count the attempts at this place anew if it is a later one."""
        del self.segments[len(self.segments) - loop.cut :]
        if len(self.segments) > self._place:
            self._tried = 0
        self._place = len(self.segments)

    def _skip(self) -> bool:
        """Leave a stretch out and go on behind it; False where nothing is left to go on with."""
        content = self._reading.parser.open_content
        skip = next_skip(
            self.segments[-1].end if self.segments else 0.0,
            self._duration_s,
            _lost_s(self.segments),
            content.end if content else None,
        )
        self._helps_left -= 1
        if skip is None or self._helps_left < 0:
            return False
        before = self._reading.text_until(len(self.segments))
        self.segments.append(skip.segment())
        self._place, self._tried = len(self.segments), 0
        self._go_on(f"{before}," + skip.text if before else OPENING + skip.text)
        return True

    def _go_on(self, text: str) -> None:
        """Make ``text`` the answer so far."""
        ids = self._tokenizer.encode(TURN + text, add_special_tokens=False).ids if text else []
        self.generation.go_on_from(ids)
        self._reading = _Reading(self._tokenizer, self._duration_s, text, self.segments)


class _Reading:
    """An answer's text from the last place it was gone on from, and who watches it."""

    def __init__(
        self, tokenizer: Any, duration_s: float, text: str = "", kept: Sequence[Segment] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._pieces = [text]
        self.parser = OutputParser(duration_s)
        self.parser.feed(text)
        self.guard = LoopGuard(duration_s, kept)

    def take(self, token: int) -> list[Segment]:
        """The segments that the next token closes."""
        piece = self._stream.step(self._tokenizer, token) or ""
        self._pieces.append(piece)
        return self.parser.feed(piece)

    def text_until(self, count: int) -> str:
        """The answer up to the brace that closes its ``count``-th segment."""
        return "".join(self._pieces)[: self.parser.closed_at[count - 1]] if count else ""


def _lost_s(segments: Sequence[Segment]) -> float:
    """Seconds that were given up directly before the end."""
    lost = 0.0
    for segment in reversed(segments):
        if LOOP not in segment.flags:
            break
        lost += segment.end - segment.start
    return lost
