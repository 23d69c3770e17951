"""What a stretch of speech seems to say."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.transcripts.transcript import BY_ATTENTION, Word


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """``draft`` is whatever the engine wants to have again when it hears more of the stretch.

    ``words``: seconds from the begin of the stretch, none where nobody asked or the engine cannot
    tell. ``language``: '' where the engine does not say; ``sure``: it is not in doubt, so that
    what follows need not be asked for it. ``tokens``: what it says in the engine's own, where what
    follows is heard behind it.
    """

    text: str
    words: tuple[Word, ...] = ()
    words_by: str = BY_ATTENTION
    language: str = ""
    draft: object = None
    sure: bool = False
    tokens: tuple[int, ...] = ()
