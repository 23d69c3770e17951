"""Whether to believe what the model says of a window: silence, and loops. Pure.

The loops are those of every model that writes token by token (`transcripts.repetition`, shared with
VibeVoice-ASR). Here a text has no times to be held against but its window's, and a model that
found no end before its last position is stuck as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.transcripts.repetition import FEW_TOKENS, MIN_REPEATED_TOKENS, RepeatedTokens, overfull

TEMPERATURES = (0.2, 0.4, 0.6)
"""What a stuck window is tried again with; the first of those that Whisper's authors use."""
NO_SPEECH = 0.6
UNSURE = -1.0
"""Above the one there is likely no speech, below the other the words are unlikely (mean log
probability of a token); both together: there is none. Whisper's authors' figures, too."""


def is_silence(no_speech: float, log_probability: float) -> bool:
    """Whether the words are made up over silence."""
    return no_speech > NO_SPEECH and log_probability < UNSURE


def sound_tokens(tokens: Sequence[int], text: str, seconds: float, *, ended: bool) -> int | None:
    """How many tokens to keep of an answer that is stuck; None where it is not.

    ``text``: what the tokens say. ``seconds``: of the window. ``ended``: the model found an end.
    The first copy of what is repeated is kept.
    """
    if ended and not overfull(len(text), seconds):
        return None
    seen = RepeatedTokens()
    for token in tokens:
        seen.add(token)
    if seen.repeated >= MIN_REPEATED_TOKENS:
        return len(tokens) - seen.repeated + seen.period
    return 0 if seen.different <= FEW_TOKENS else None
