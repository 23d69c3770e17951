"""Options of a conversation (end of turn, history) with defaults; its phases. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.conversation import chat_completions


class ConversationPhase(StrEnum):
    """Phase of a conversation."""

    IDLE = "idle"
    LISTENING = "listening"
    """The user speaks."""
    TRANSCRIBING = "transcribing"
    """The user is silent, and it is not decided yet whether the turn has ended."""
    GENERATING = "generating"
    SYNTHESIZING = "synthesizing"
    """The reply has text, but no audio yet."""
    SPEAKING = "speaking"


@dataclass(frozen=True, slots=True)
class EndOfTurnDelays:
    """Pauses that end a user's turn, in seconds: after a finished sentence, usually, and at most.
    ``scale`` multiplies all of them."""

    finished_s: float = 0.2
    usual_s: float = 0.3
    most_s: float = 1.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.finished_s <= self.usual_s <= self.most_s < float("inf"):
            raise ValueError(
                "finished_s, usual_s and most_s must be at least 0, in ascending order"
            )
        if not 0 < self.scale < float("inf"):
            raise ValueError("scale must be above 0")


@dataclass(frozen=True, slots=True)
class ConversationOptions:
    """Options of a conversation.

    ``instructions``: system prompt of the LLM. ``tools``: tools of the client, which the LLM may
    call before or instead of an answer. ``apology``: spoken if there is nothing else to speak.
    ``voiced``: replies are spoken; else they are text. ``ends_turns``: a pause ends a user's turn;
    else only the client does. ``answers``: each turn is answered; else only on request.
    ``interruptible``: by speech. ``guarded``: the microphone picks up the played audio as an echo;
    this also takes effect once an echo was heard. ``longest_reply_s``: seconds of audio.
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
