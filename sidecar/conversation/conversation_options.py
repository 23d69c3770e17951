"""Options of a conversation, with their defaults: end-of-turn delays, history, idle time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.conversation import chat_completions
from sidecar.limit_overrides import limit

IDLE_S = limit("talk_idle", 600.0)
"""Seconds that a conversation waits for sound, for typed text or for another wish of its client's,
once nothing is said any more, before it ends."""


@dataclass(frozen=True, slots=True)
class EndOfTurnDelays:
    """Pauses that end a user's turn, in seconds: after a sentence that is finished, as a rule,
    and at most. ``scale`` makes all of them longer or shorter."""

    finished_s: float = 0.2
    usual_s: float = 0.3
    most_s: float = 1.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.finished_s <= self.usual_s <= self.most_s < float("inf"):
            raise ValueError(
                "finished_s, usual_s and most_s have to be above zero, in ascending order"
            )
        if not 0 < self.scale < float("inf"):
            raise ValueError("scale has to be above zero")


@dataclass(frozen=True, slots=True)
class ConversationOptions:
    """Options of a conversation.

    ``instructions``: system prompt of the LLM. ``apology``: spoken if nothing else can be.
    ``voiced``: there is a TTS voice; else replies are text. ``ends_turns``: a pause ends a person's
    turn; else the client alone does. ``answers``: a turn is answered without being asked to.
    ``interruptible``: by voice. ``guarded``: sound that is played comes back as an echo; it is on
    by itself once that has happened. ``longest_reply_s``: of sound. ``tools``: what may be called
    instead of answering, and before that; the client has them.
    """

    instructions: str = ""
    tools: chat_completions.ToolSet = chat_completions.NO_TOOLS
    apology: str = "Sorry, something went wrong. Please try again."
    voiced: bool = True
    ends_turns: bool = True
    answers: bool = True
    interruptible: bool = True
    guarded: bool = False
    patience: EndOfTurnDelays = field(default_factory=EndOfTurnDelays)
    longest_reply_s: float = 60.0
    most_messages: int = 40
    most_bytes: int = 4096
