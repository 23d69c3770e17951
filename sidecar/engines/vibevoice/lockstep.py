"""Several answers at once: every pass of the decoder takes each of them a token further.

Decoding is bound by reading the weights, and a pass reads them once, however many sequences are in
it. Each attends to its own cache, so nothing is padded and none hears another; what it computes is
what it would compute alone, but for last digits, which hang on the number of rows.
The answers may be windows of one recording, and recordings of several requests: who works yields a
`Pass` where it needs one, and `together` gives one to all who wait.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from sidecar.engines.vibevoice.answer import Answer
from sidecar.engines.vibevoice.generation import Generation, advance
from sidecar.errors import SidecarError
from sidecar.interfaces.engine import Cancelled
from sidecar.transcripts.recovery import Sampling
from sidecar.transcripts.transcript import Event


@dataclass(frozen=True, slots=True)
class Pass:
    """What is needed to go on: a pass of the decoder over these."""

    generations: Sequence[Generation]


def in_step(
    answers: Sequence[Answer],
    sampling: Sampling | None,
    limits: Sequence[int],
    cancelled: Cancelled,
) -> Iterator[tuple[int, int | None] | Pass]:
    """Decode all; ``limits`` are the tokens that each may have.

    Yields the number of an answer and the index of its segment as that closes, or None as the
    answer ends; and passes that it needs.
    """
    running = {
        number: answer.run(sampling, limit, cancelled)
        for number, (answer, limit) in enumerate(zip(answers, limits, strict=True))
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
            yield Pass([answers[number].generation for number in running])


def together(
    runs: Sequence[Generator[Event | Pass, None, None]],
) -> Iterator[tuple[int, Event | SidecarError]]:
    """Run all to their ends; yields the number of a run and its event, or the error it ended with.

    Where the memory runs out in a pass, each of them gets to know.
    """
    running = dict(enumerate(runs))
    full: torch.OutOfMemoryError | None = None
    while running:
        wanted: list[Generation] = []
        for number, run in list(running.items()):
            thrown = full
            while True:
                try:
                    step = next(run) if thrown is None else run.throw(thrown)
                except StopIteration:
                    del running[number]
                    break
                except SidecarError as error:
                    del running[number]
                    yield number, error
                    break
                thrown = None
                if isinstance(step, Pass):
                    wanted += step.generations
                    del step  # what runs out of memory must not be held from here
                    break
                yield number, step
        full = None
        if wanted:
            try:
                advance(wanted)
            except torch.OutOfMemoryError as error:
                full = error
