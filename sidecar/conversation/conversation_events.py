"""Events and commands of a conversation. Pure.

The caller carries out all commands of one event without awaiting in between. What happens before
the first await determines how fast an interruption is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sidecar.conversation import chat_completions
from sidecar.conversation.conversation_options import ConversationOptions
from sidecar.conversation.output_queue import ConversationCommand
from sidecar.errors import SidecarError
from sidecar.interfaces.engine_interface import SynthesizedAudio

MAX_PLAYBACK_REPORT_S = 3_600
"""Maximum of a playback report in seconds: longer than any reply."""


UNKNOWN_UTTERANCE = -1
"""Number that no utterance has."""


class ConversationStage(StrEnum):
    """Stage that works for a turn."""

    RECOGNISER = "recogniser"
    THINKER = "thinker"
    VOICE = "voice"


@dataclass(frozen=True, slots=True)
class ConversationEvent:
    """Event that happened ``at`` a time."""

    at: float


@dataclass(frozen=True, slots=True)
class ReplyEvent(ConversationEvent):
    """Event of a stage that works for a reply, or of the reply's player."""

    turn: int


@dataclass(frozen=True, slots=True)
class UserSpeechStarted(ConversationEvent):
    """Start of speech at ``began``: an utterance begins, or continues after a pause."""

    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class UserSpeechStopped(ConversationEvent):
    """End of speech at ``ended``. It is reported as soon as it is known, 0.1 s later at best: the
    state machine decides how long a pause ends a turn."""

    utterance: int
    ended: float


@dataclass(frozen=True, slots=True)
class RecognizedWords(ConversationEvent):
    """All words of an utterance so far; ``upto``: end of the recognized audio. Words that cover all
    up to the utterance's stop are final, unless the utterance continues."""

    utterance: int
    text: str
    upto: float


@dataclass(frozen=True, slots=True)
class EchoSimilarity(ConversationEvent):
    """Similarity of an utterance's audio so far to what was played then, from 0 to 1
    (`acoustic_echo`). It is sent before the utterance's words."""

    utterance: int
    likeness: float


@dataclass(frozen=True, slots=True)
class TurnCommitted(ConversationEvent):
    """The client ends the user's turn without waiting for a pause."""


@dataclass(frozen=True, slots=True)
class TurnDiscarded(ConversationEvent):
    """The client discards the user's words that are not answered yet."""


@dataclass(frozen=True, slots=True)
class TextTyped(ConversationEvent):
    """User's turn as text."""

    text: str


@dataclass(frozen=True, slots=True)
class HistoryEntryAdded(ConversationEvent):
    """Entry that the client adds to the history without a reply; ``name`` is the client's name for
    it. It is added after the entry ``after``, as in `ChatHistory.add`. With a ``call`` it is a tool
    call from a previous conversation."""

    role: chat_completions.ChatRole
    text: str
    name: str = ""
    after: int | None = None
    call: chat_completions.ToolCall | None = None


@dataclass(frozen=True, slots=True)
class ToolResultAdded(ConversationEvent):
    """Result of a tool call, by the call's id; ``name`` is the client's name for the entry. It does
    not request a reply; ``after`` as in `HistoryEntryAdded`."""

    call: str
    output: str
    name: str = ""
    after: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntryDeleted(ConversationEvent):
    """The client deletes the entry of that number from the history."""

    entry: int


@dataclass(frozen=True, slots=True)
class ResponseRequested(ConversationEvent):
    """The client requests a reply to the history as it is. ``options``: for this reply alone, if
    given; ``name``: the client's name for the request."""

    options: ConversationOptions | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class LlmToken(ReplyEvent):
    """Text that the LLM adds to the reply: some characters."""

    text: str


@dataclass(frozen=True, slots=True)
class LlmToolCallDelta(ReplyEvent):
    """Fragment of a tool call of the LLM."""

    fragment: chat_completions.ToolCallDelta


@dataclass(frozen=True, slots=True)
class TtsAudio(ReplyEvent):
    """More audio of a phrase."""

    piece: int
    sound: SynthesizedAudio


@dataclass(frozen=True, slots=True)
class StageEnded(ReplyEvent):
    """The LLM has finished, or the TTS engine has made all audio of ``piece``."""

    stage: ConversationStage
    piece: int = 0


@dataclass(frozen=True, slots=True)
class StageFailed(ReplyEvent):
    """Failure of a stage. ``turn`` is the utterance's number if the recognizer failed;
    `UNKNOWN_UTTERANCE` if it is not known whether there was an utterance."""

    stage: ConversationStage
    error: SidecarError


@dataclass(frozen=True, slots=True)
class PlaybackReported(ReplyEvent):
    """Playback position: ``seconds`` of the turn's audio were played by now, in all. It is sent
    before any event that may interrupt (speech, words, a timer), so that the history is exact to
    the word."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PlaybackTruncated(ConversationEvent):
    """The client reports that only ``seconds`` of the turn's audio were played; a reply in progress
    ends. The report overrides `PlaybackReported`, but does not restore text that was truncated."""

    turn: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ResponseCancelled(ConversationEvent):
    """The client cancels the rest of the answer."""


@dataclass(frozen=True, slots=True)
class ConversationReset(ConversationEvent):
    """The client starts the conversation anew."""


@dataclass(frozen=True, slots=True)
class OptionsChanged(ConversationEvent):
    """Other options from now on. A turn in progress keeps its options."""

    options: ConversationOptions


@dataclass(frozen=True, slots=True)
class TimerFired(ConversationEvent):
    """The time ``at`` has come, as `SetTimer` requested."""


@dataclass(frozen=True, slots=True)
class RecognizeUtterance(ConversationCommand):
    """Request to recognize the utterance's audio up to ``upto``, as it may have ended, and to
    report `RecognizedWords` that cover it. Recognizers that do so by themselves ignore it."""

    utterance: int
    upto: float


@dataclass(frozen=True, slots=True)
class GenerateReply(ConversationCommand):
    """Request to answer ``messages`` for this turn, token by token, or to call one of the
    ``tools``."""

    turn: int
    messages: tuple[chat_completions.ChatMessage, ...]
    tools: chat_completions.ToolSet = chat_completions.NO_TOOLS


@dataclass(frozen=True, slots=True)
class SynthesizeText(ConversationCommand):
    """Request to synthesize ``text``. The requests of one turn come in the order of ``piece`` and
    are synthesized one after the other; at most two are in progress."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class SendReplyAudio(ConversationCommand):
    """Audio of the turn, to be played after all audio before it."""

    turn: int
    piece: int
    sound: SynthesizedAudio


@dataclass(frozen=True, slots=True)
class StopStage(ConversationCommand):
    """Request to cancel that stage of the turn."""

    turn: int
    stage: ConversationStage


@dataclass(frozen=True, slots=True)
class SetSpeechDetection(ConversationCommand):
    """Change of speech detection from now on: ``threshold`` is added to the usual probability, and
    ``speech_s`` seconds of speech are required before a reply is held."""

    threshold: float
    speech_s: float


@dataclass(frozen=True, slots=True)
class SetTimer(ConversationCommand):
    """Request for a `TimerFired` at that time if nothing else happens before. The latest request
    counts; `None` cancels it."""

    at: float | None
