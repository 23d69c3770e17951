"""Limits of live sessions: how many, how long (`live_grace`, `live_idle`, `live_longest`), sizes.

The engine decides by the load how many of them may speak at once (`live.runtime.load_shedding`).
"""

from dataclasses import dataclass, field, replace

from sidecar import errors
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import is_within_fair_share
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import EngineSpec
from sidecar.interfaces.language_tags import parse_language
from sidecar.interfaces.live_options import BUFFER_S, LiveOptions, TurnControl
from sidecar.limit_overrides import limit
from sidecar.transcripts.language_detection import other_languages_hint

MAX_COMMANDS = 20_000
"""Commits, cancels and changes of one session: each leaves events, which are kept."""
MAX_EVENTS = 100_000
"""Events of one session that are kept: ten times those of 90 minutes of speech."""
MAX_CHUNK_S = 10.0
"""Seconds of audio in one message of a session."""
SAMPLE_RATES = range(8_000, 192_001)
LATE_S = limit("live_late", 0.7)
"""Seconds for which audio may be late on its way: a packet that is lost twice is late by 0.6 s and
a round trip."""


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """Bounds of one session, in seconds: ``idle_s`` without audio, ``longest_s`` in all,
    ``chunk_s`` of audio at once, ``buffer_s`` of audio that is not settled, besides the silence
    that ends an utterance, ``late_s`` after which audio that does not come is silence; and the
    numbers of its ``commands`` and ``events``."""

    idle_s: float = 150.0
    longest_s: float = 5400.0
    chunk_s: float = MAX_CHUNK_S
    buffer_s: float = BUFFER_S
    # Not read at import: tests fork services that have another one.
    late_s: float = field(default_factory=lambda: LATE_S)
    commands: int = MAX_COMMANDS
    events: int = MAX_EVENTS


def accepted_options(
    options: LiveOptions, bounds: SessionBounds, spec: EngineSpec | None, channels: int = 1
) -> LiveOptions:
    """Return the options of a session that begins or changes, within the bounds: an utterance is at
    most half as long as the buffer, so that a whole one is kept. ``spec``: of the engine.

    Raises:
        errors.LanguageInvalid: the language does not have the form of a tag.
        errors.LanguageUnsupported: the engine does not support it.
        errors.FieldInvalid: the pre-roll leaves too little of that for an utterance, or the first
            pause would end several ``channels``.
    """
    if channels > 1 and options.turns is TurnControl.ONE:
        raise errors.FieldInvalid(
            "With several channels 'turns' cannot be 'one': a pause of one would cut the others.",
            hint="Send 'turns' with the value 'silence', and 'finish' at the end.",
        )
    ends = options.endpointing
    try:
        ends = replace(ends, longest_s=min(ends.longest_s, bounds.buffer_s / 2))
    except ValueError as error:
        raise errors.FieldInvalid(
            f"'endpointing' is invalid: {error}, and at most {bounds.buffer_s / 2:g} here.",
            hint="Reduce pre_roll_s, min_speech_s or min_sure_speech_s.",
        ) from None
    language = parse_language(options.language)
    if spec is not None and not spec.speaks(language):
        raise errors.LanguageUnsupported(
            f"The engine '{spec.name}' does not support '{language}'.",
            hint=other_languages_hint(live=True),
        )
    return replace(options, endpointing=ends, language=language)


def may_have_more(
    settings: Settings, identity: Identity, has: int, free: int, more: int = 1
) -> bool:
    """Return whether a caller may have so many ``more`` sessions besides ``has`` while ``free`` are
    possible. By default some are left to others."""
    if settings.live_sessions_per_owner is not None:
        return has + more <= (settings.live_sessions_per_owner or settings.live_sessions)
    limits = identity.limits
    if limits.live_sessions is not None and has + more > limits.live_sessions:
        return False
    return not limits.shares or is_within_fair_share(has, more, free)
