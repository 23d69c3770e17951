"""Several answers at once: every pass of the decoder takes each of them a token further.

Decoding is bound by reading the weights, and a pass reads them once, however many sequences are in
it. Each attends to its own cache, so nothing is padded and each writes what it would write alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.engine import Cancelled
from sidecar.engines.vibevoice.answer import Answer
from sidecar.engines.vibevoice.decoding import Decoding
from sidecar.engines.vibevoice.generation import advance
from sidecar.engines.vibevoice.recovery import Sampling


def in_step(
    answers: Sequence[Answer],
    decoding: Decoding,
    sampling: Sampling | None,
    limits: Sequence[int],
    cancelled: Cancelled,
) -> Iterator[tuple[int, int | None]]:
    """Decode all; ``limits`` are the tokens that each may have.

    Yields the number of an answer and the index of its segment as that closes, or None as the
    answer ends.
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
            advance(decoding, [answers[number].generation for number in running])
