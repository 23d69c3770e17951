"""Events, commands and options of a conversation. Pure.

Who carries them out does so without waiting between two of one answer: what comes before the first
wait is what an interruption's speed hangs on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from sidecar.conversation.llm import chat_completions
from sidecar.conversation.output_queue import ConversationClientEvent
from sidecar.errors import SidecarError
from sidecar.interfaces.engine_interface import SynthesizedAudio

MAX_PLAYBACK_REPORT_S = 3_600
"""Most of a reply that a client may say was played: more than any reply has."""


@dataclass(frozen=True, slots=True)
class EndOfTurnDelays:
    """How long a pause ends a person's turn, in seconds: after a sentence that is finished, as a
    rule, and at most. ``scale`` makes all of them longer or shorter."""

    finished_s: float = 0.2
    usual_s: float = 0.3
    most_s: float = 1.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.finished_s <= self.usual_s <= self.most_s < float("inf"):
            raise ValueError("finished_s, usual_s and most_s lie above zero, in that order")
        if not 0 < self.scale < float("inf"):
            raise ValueError("scale is more than zero")


@dataclass(frozen=True, slots=True)
class ConversationOptions:
    """A conversation's manners.

    ``instructions``: what the thinker is told before all else. ``apology``: what is said aloud
    where nothing else can be. ``voiced``: there is a voice; else replies are text. ``ends_turns``:
    a pause ends a person's turn; else the client alone does. ``answers``: a turn is answered
    without being asked to. ``interruptible``: by voice. ``guarded``: sound that is played comes
    back as an echo; it is on by itself once that has happened. ``longest_reply_s``: of sound.
    ``tools``: what may be called instead of answering, and before that; the client has them.
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


UNKNOWN_UTTERANCE = -1
"""No utterance's number."""


class ConversationStage(StrEnum):
    """Who works for a turn."""

    RECOGNISER = "recogniser"
    THINKER = "thinker"
    VOICE = "voice"


@dataclass(frozen=True, slots=True)
class UserSpeechStarted:
    """Somebody speaks, since ``began``: an utterance begins, or goes on after a pause."""

    at: float
    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class UserSpeechStopped:
    """Nobody speaks since ``ended``. To be told as soon as it is known, 0.1 s later at best: how
    long a pause ends a turn is decided here."""

    at: float
    utterance: int
    ended: float


@dataclass(frozen=True, slots=True)
class RecognizedWords:
    """What an utterance seems to say, all of it; ``upto``: its sound up to there was heard. Words
    that cover all up to where it stopped are settled, unless it goes on."""

    at: float
    utterance: int
    text: str
    upto: float


@dataclass(frozen=True, slots=True)
class EchoSimilarity:
    """An utterance's sound so far is so like what was played then, from 0 to 1 (`evidence`): to be
    told before its words."""

    at: float
    utterance: int
    likeness: float


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The client says that the person's turn is over: no patience."""

    at: float


@dataclass(frozen=True, slots=True)
class TurnDiscarded:
    """The client does not want what was said and is not answered yet."""

    at: float


@dataclass(frozen=True, slots=True)
class TextTyped:
    """A person's turn as text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class HistoryEntryAdded:
    """Something that belongs into the history and wants no answer; the client calls it ``name``.
    It stands behind the entry ``after``, as `ChatHistory.add` has it. With a ``call`` it is one of
    a tool, from a conversation that went before."""

    at: float
    role: chat_completions.ChatRole
    text: str
    name: str = ""
    after: int | None = None
    call: chat_completions.ToolCall | None = None


@dataclass(frozen=True, slots=True)
class ToolResultAdded:
    """What came of a call, by its id; the client calls that ``name``. It wants no answer yet;
    ``after`` as in `HistoryEntryAdded`."""

    at: float
    call: str
    output: str
    name: str = ""
    after: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntryDeleted:
    """The entry of that number does not belong into the history."""

    at: float
    entry: int


@dataclass(frozen=True, slots=True)
class ResponseRequested:
    """The client wants an answer to the history as it is, if it likes by other ``options``; it
    calls the request ``name``."""

    at: float
    options: ConversationOptions | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class LlmToken:
    """More of the reply: some characters."""

    at: float
    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class LlmToolCallDelta:
    """The thinker calls a tool: some of that call."""

    at: float
    turn: int
    fragment: chat_completions.ToolCallDelta


@dataclass(frozen=True, slots=True)
class TtsAudio:
    """More sound of a piece that was to be said."""

    at: float
    turn: int
    piece: int
    sound: SynthesizedAudio


@dataclass(frozen=True, slots=True)
class StageEnded:
    """The thinker has nothing more to say; or the voice has made all sound of ``piece``."""

    at: float
    turn: int
    stage: ConversationStage
    piece: int = 0


@dataclass(frozen=True, slots=True)
class StageFailed:
    """A stage gave up. ``turn`` is the utterance's number if it was the recogniser,
    `UNKNOWN_UTTERANCE` where what it could not hear may have been none."""

    at: float
    turn: int
    stage: ConversationStage
    error: SidecarError


@dataclass(frozen=True, slots=True)
class PlaybackReported:
    """``seconds`` of the turn's sound have been heard by now, in all. To be told before whatever
    may interrupt (speech, words, a tick), so that the history is right to the word."""

    at: float
    turn: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PlaybackTruncated:
    """The client says that ``seconds`` of that turn's sound were heard and no more; if it goes on,
    it ends. That counts for more than what was `PlaybackReported`, but once cut is cut."""

    at: float
    turn: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ResponseCancelled:
    """The client does not want to hear the rest."""

    at: float


@dataclass(frozen=True, slots=True)
class ConversationReset:
    """A conversation from the beginning."""

    at: float


@dataclass(frozen=True, slots=True)
class OptionsChanged:
    """From here on otherwise; what goes on is finished as it was begun."""

    at: float
    options: ConversationOptions


@dataclass(frozen=True, slots=True)
class TimerFired:
    """It is as late as ``at``: `SetTimer` asked for this."""

    at: float


ConversationEvent: TypeAlias = (
    UserSpeechStarted
    | UserSpeechStopped
    | RecognizedWords
    | EchoSimilarity
    | TurnCommitted
    | TurnDiscarded
    | TextTyped
    | HistoryEntryAdded
    | ToolResultAdded
    | HistoryEntryDeleted
    | ResponseRequested
    | LlmToken
    | LlmToolCallDelta
    | TtsAudio
    | StageEnded
    | StageFailed
    | PlaybackReported
    | PlaybackTruncated
    | ResponseCancelled
    | ConversationReset
    | OptionsChanged
    | TimerFired
)


@dataclass(frozen=True, slots=True)
class RecognizeUtterance:
    """Make words of the utterance's sound up to ``upto`` and tell them as `RecognizedWords` that
    cover it: it may be over. Nothing to do for an ear that does so by itself."""

    utterance: int
    upto: float


@dataclass(frozen=True, slots=True)
class GenerateReply:
    """Answer ``messages``, token by token, for this turn, or call one of the ``tools``."""

    turn: int
    messages: tuple[chat_completions.ChatMessage, ...]
    tools: chat_completions.ToolSet = chat_completions.NO_TOOLS


@dataclass(frozen=True, slots=True)
class SynthesizeText:
    """Make sound of ``text``. Of one turn these come in the order of ``piece``, and are to be said
    one after the other; two at most are on their way."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class SendReplyAudio:
    """Sound of the turn to be heard behind all of it before."""

    turn: int
    piece: int
    sound: SynthesizedAudio


@dataclass(frozen=True, slots=True)
class PauseReplyAudio:
    """Hold the turn's sound where it is: nothing is lost, and what comes of it waits as well."""

    turn: int


@dataclass(frozen=True, slots=True)
class ResumeReplyAudio:
    """The turn's sound goes on."""

    turn: int


@dataclass(frozen=True, slots=True)
class DropReplyAudio:
    """Drop all of the turn's sound that is not with the client, and have the client drop the rest
    if it can."""

    turn: int


@dataclass(frozen=True, slots=True)
class StopStage:
    """Nobody waits for that stage of the turn any more."""

    turn: int
    stage: ConversationStage


@dataclass(frozen=True, slots=True)
class SetSpeechDetection:
    """What counts as speech from here on: add ``threshold`` to the usual probability, and ask for
    ``speech_s`` seconds of it before a reply is held."""

    threshold: float
    speech_s: float


@dataclass(frozen=True, slots=True)
class SetTimer:
    """A `TimerFired` is wanted at that time, if nothing else happens before; the last one counts,
    and None means that none is."""

    at: float | None


ConversationCommand: TypeAlias = (
    RecognizeUtterance
    | GenerateReply
    | SynthesizeText
    | SendReplyAudio
    | PauseReplyAudio
    | ResumeReplyAudio
    | DropReplyAudio
    | StopStage
    | SetSpeechDetection
    | ConversationClientEvent
    | SetTimer
)
