"""How many windows of a long recording go through a card at once, where a client wants that. Pure.

Decoding several in step reads the weights once for all of them, so an hour in eight windows takes
little more than an eighth of its passes. The price is a border for each: speakers are linked there
by their voices (`engines.vibevoice.voices`), which is why no window is short.
"""

from __future__ import annotations

from dataclasses import replace

from sidecar.gpu_memory.footprint import PROMPT_TOKENS, WINDOW_S, Work, peak_bytes
from sidecar.gpu_memory.plan import ladder
from sidecar.gpu_memory.shape import ModelShape
from sidecar.interfaces.engine import MemoryPlan, Precision

SHORTEST_S = 300.0
"""Seconds of a recording that are worth a window: enough to hear who speaks."""
BORDER_S = 130.0
"""What a window may lose to the search for a pause at its end, and to the overlap with the next
(`SEARCH_S` and `OVERLAP_S` of `engines.vibevoice.windows`)."""


def windows_in_step(
    shape: ModelShape,
    precision: Precision,
    audio_s: float,
    most: int,
    available_bytes: int,
    *,
    text_tokens: int = PROMPT_TOKENS,
    apart: bool = True,
) -> MemoryPlan | None:
    """The plan with the most windows in step that fits, at most ``most``; None where two do not.

    Together they hold and write what one recording of all their lengths would.
    """
    for count in range(min(most, int(audio_s // SHORTEST_S)), 1, -1):
        window_s = min(audio_s / count + BORDER_S, WINDOW_S)
        one = Work.of(shape, window_s, text_tokens=text_tokens)
        for step in ladder(one, apart=apart):
            plan = replace(step, window_s=window_s, together=count)
            peak = peak_in_step(shape, precision, plan, text_tokens=text_tokens)
            if peak <= available_bytes:
                return plan
    return None


def peak_in_step(
    shape: ModelShape, precision: Precision, plan: MemoryPlan, *, text_tokens: int = PROMPT_TOKENS
) -> int:
    """Bytes that a plan takes with all of its windows."""
    count = plan.together
    one = Work.of(shape, plan.window_s, text_tokens=text_tokens)
    all_ = Work(count * plan.window_s, count * one.prompt_tokens, count * one.output_tokens)
    held = replace(plan, cache_tokens=count * plan.cache_tokens, cache_step=count * plan.cache_step)
    return peak_bytes(shape, precision, held, all_).total
