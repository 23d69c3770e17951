"""Events and commands of a conversation. Pure.

Who carries them out does so without waiting between two of one answer: what comes before the first
wait is what an interruption's speed hangs on.
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
"""Most of a reply that a client may say was played: more than any reply has."""


UNKNOWN_UTTERANCE = -1
"""No utterance's number."""


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
    """Event of a stage that works for a reply, or of its player."""

    turn: int


@dataclass(frozen=True, slots=True)
class UserSpeechStarted(ConversationEvent):
    """Speech since ``began``: an utterance begins, or goes on after a pause."""

    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class UserSpeechStopped(ConversationEvent):
    """Silence since ``ended``. To be told as soon as it is known, 0.1 s later at best: how long
    a pause ends a turn is decided here."""

    utterance: int
    ended: float


@dataclass(frozen=True, slots=True)
class RecognizedWords(ConversationEvent):
    """All words of an utterance so far; ``upto``: end of the recognized audio. Words that cover
    all up to the utterance's stop are settled, unless it continues."""

    utterance: int
    text: str
    upto: float


@dataclass(frozen=True, slots=True)
class EchoSimilarity(ConversationEvent):
    """Similarity of an utterance's audio so far to what was played then, from 0 to 1
    (`evidence`): sent before its words."""

    utterance: int
    likeness: float


@dataclass(frozen=True, slots=True)
class TurnCommitted(ConversationEvent):
    """The client ends the user's turn, without a pause."""


@dataclass(frozen=True, slots=True)
class TurnDiscarded(ConversationEvent):
    """The client does not want what was said and is not answered yet."""


@dataclass(frozen=True, slots=True)
class TextTyped(ConversationEvent):
    """User's turn as text."""

    text: str


@dataclass(frozen=True, slots=True)
class HistoryEntryAdded(ConversationEvent):
    """Something that belongs into the history and wants no answer; the client calls it ``name``.
    It stands behind the entry ``after``, as `ChatHistory.add` has it. With a ``call`` it is one of
    a tool, from a conversation that went before."""

    role: chat_completions.ChatRole
    text: str
    name: str = ""
    after: int | None = None
    call: chat_completions.ToolCall | None = None


@dataclass(frozen=True, slots=True)
class ToolResultAdded(ConversationEvent):
    """Result of a tool call, by the call's id; the client calls the entry ``name``. It requests no
    reply yet; ``after`` as in `HistoryEntryAdded`."""

    call: str
    output: str
    name: str = ""
    after: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntryDeleted(ConversationEvent):
    """The entry of that number does not belong into the history."""

    entry: int


@dataclass(frozen=True, slots=True)
class ResponseRequested(ConversationEvent):
    """The client wants an answer to the history as it is, if it likes by other ``options``; it
    calls the request ``name``."""

    options: ConversationOptions | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class LlmToken(ReplyEvent):
    """More of the reply: some characters."""

    text: str


@dataclass(frozen=True, slots=True)
class LlmToolCallDelta(ReplyEvent):
    """Part of a tool call of the LLM."""

    fragment: chat_completions.ToolCallDelta


@dataclass(frozen=True, slots=True)
class TtsAudio(ReplyEvent):
    """More audio of a phrase."""

    piece: int
    sound: SynthesizedAudio


@dataclass(frozen=True, slots=True)
class StageEnded(ReplyEvent):
    """The LLM has finished; or the TTS engine has made all audio of ``piece``."""

    stage: ConversationStage
    piece: int = 0


@dataclass(frozen=True, slots=True)
class StageFailed(ReplyEvent):
    """A stage gave up. ``turn`` is the utterance's number if it was the recogniser,
    `UNKNOWN_UTTERANCE` where what it could not hear may have been none."""

    stage: ConversationStage
    error: SidecarError


@dataclass(frozen=True, slots=True)
class PlaybackReported(ReplyEvent):
    """``seconds`` of the turn's audio have been played by now, in all. To be told before
    whatever may interrupt (speech, words, a tick), so that the history is right to the word."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PlaybackTruncated(ConversationEvent):
    """The client reports that ``seconds`` of that turn's audio were played and no more; if it
    goes on, it ends. That counts for more than what was `PlaybackReported`, but once cut is cut."""

    turn: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ResponseCancelled(ConversationEvent):
    """The client cancels the rest of the answer."""


@dataclass(frozen=True, slots=True)
class ConversationReset(ConversationEvent):
    """A conversation from the beginning."""


@dataclass(frozen=True, slots=True)
class OptionsChanged(ConversationEvent):
    """From here on otherwise; what goes on is finished as it was begun."""

    options: ConversationOptions


@dataclass(frozen=True, slots=True)
class TimerFired(ConversationEvent):
    """It is as late as ``at``: `SetTimer` asked for this."""


@dataclass(frozen=True, slots=True)
class RecognizeUtterance(ConversationCommand):
    """Recognize the utterance's audio up to ``upto``, with `RecognizedWords` that cover it: it
    may be over. Nothing to do for an ear that does so by itself."""

    utterance: int
    upto: float


@dataclass(frozen=True, slots=True)
class GenerateReply(ConversationCommand):
    """Answer ``messages``, token by token, for this turn, or call one of the ``tools``."""

    turn: int
    messages: tuple[chat_completions.ChatMessage, ...]
    tools: chat_completions.ToolSet = chat_completions.NO_TOOLS


@dataclass(frozen=True, slots=True)
class SynthesizeText(ConversationCommand):
    """Synthesize ``text``. Of one turn these come in the order of ``piece``, and are to be said
    one after the other; two at most are on their way."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class SendReplyAudio(ConversationCommand):
    """Audio of the turn to be played behind all of it before."""

    turn: int
    piece: int
    sound: SynthesizedAudio


@dataclass(frozen=True, slots=True)
class StopStage(ConversationCommand):
    """Cancel that stage of the turn."""

    turn: int
    stage: ConversationStage


@dataclass(frozen=True, slots=True)
class SetSpeechDetection(ConversationCommand):
    """Change speech detection from here on: add ``threshold`` to the usual probability, and require
    ``speech_s`` seconds of it before a reply is held."""

    threshold: float
    speech_s: float


@dataclass(frozen=True, slots=True)
class SetTimer(ConversationCommand):
    """A `TimerFired` is wanted at that time, if nothing else happens before; the last one counts,
    and None means that none is."""

    at: float | None
