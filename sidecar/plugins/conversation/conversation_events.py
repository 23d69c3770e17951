"""Options, phases, events, commands and outputs of a conversation. Pure.

The caller carries out all commands of one event without awaiting in between. What happens before
the first await determines how fast an interruption is.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import dataclass_transform

from sidecar.errors import SidecarError
from sidecar.interfaces.engine_interface import SynthesizedAudio
from sidecar.plugins.conversation import chat_completions
from sidecar.transcripts.transcript import Notice

MAX_PENDING_OUTPUT = 2_000
"""Maximum number of outputs that wait for a slow client: minutes of audio."""
MAX_PLAYBACK_REPORT_S = 3_600
"""Maximum of a playback report in seconds: longer than any reply."""
UNKNOWN_UTTERANCE = -1
"""Number that no utterance has."""


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


@dataclass(frozen=True, slots=True)
class ConversationOptions:
    """Options of a conversation.

    ``instructions``: system prompt of the LLM. ``tools``: tools of the client, which the LLM may
    call before or instead of an answer. ``voiced``: replies are spoken; else they are text.
    ``ends_turns``: a pause ends a user's turn; else only the client does. ``answers``: each turn is
    answered; else only on request. ``interruptible``: by speech. ``longest_reply_s``: seconds of
    audio.
    """

    instructions: str = ""
    tools: chat_completions.ToolSet = chat_completions.NO_TOOLS
    voiced: bool = True
    ends_turns: bool = True
    answers: bool = True
    interruptible: bool = True
    delays: EndOfTurnDelays = field(default_factory=EndOfTurnDelays)
    longest_reply_s: float = 60.0
    most_messages: int = 40
    most_bytes: int = 4096


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _FrozenValues:
    """Base of classes that are all frozen dataclasses."""

    def __init_subclass__(cls) -> None:
        """Make a class that is derived from this one a frozen dataclass."""
        dataclass(frozen=True)(cls)


class ConversationCommand(_FrozenValues):
    """Command of the state machine."""


class ConversationOutput(_FrozenValues):
    """Output for the client."""


class ConversationClientEvent(ConversationCommand, ConversationOutput):
    """Event for the client."""


class ReplyEnding(StrEnum):
    """Ending of a reply."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    """Interrupted by speech, or by another turn of the user."""
    CANCELLED = "cancelled"
    """Cancelled by the client."""
    LIMITED = "limited"
    """Ended at its maximum length."""
    FAILED = "failed"


class UserTurnStarted(ConversationClientEvent):
    """Start of a user's turn, with that utterance. Over a reply it is sent only once the reply is
    interrupted."""

    utterance: int
    began: float


class UserTurnPartial(ConversationClientEvent):
    """Text of the user's turn so far."""

    text: str


class UserTurnStopped(ConversationClientEvent):
    """End of the user's speech: silence since ``ended``; ``utterance`` was the turn's last;
    ``failure``: why no words of it come."""

    ended: float
    utterance: int = field(default=0, compare=False)
    failure: SidecarError | None = None


class UserTurnFinal(ConversationClientEvent):
    """Final text of the user's turn, as stored in the history entry ``entry``. ``backchannel``:
    start and end of words over a reply that did not interrupt it and are not answered."""

    text: str
    entry: int = field(default=0, compare=False)
    backchannel: tuple[float, float] | None = None


class HistoryEntryRecorded(ConversationClientEvent):
    """Entry that the client added to the history, with its number ``entry`` there; ``name`` is the
    client's name for it."""

    entry: int
    role: chat_completions.ChatRole
    text: str
    name: str = ""


class UserTurnDropped(ConversationClientEvent):
    """End of a user's turn without words: noise, an echo, or discarded by the client."""


class ReplyStarted(ConversationClientEvent):
    """Start of a reply, spoken if ``voiced``; its number in the history is ``entry``."""

    turn: int
    voiced: bool = field(default=True, compare=False)
    entry: int = field(default=0, compare=False)


class ReplyTextDelta(ConversationClientEvent):
    """Text that is added to the reply, as it is displayed."""

    turn: int
    text: str


class ToolCallStarted(ConversationClientEvent):
    """Start of a tool call of the reply, with the call's id and the tool's name."""

    turn: int
    call: str
    name: str


class ToolCallArgumentsDelta(ConversationClientEvent):
    """Fragment of that call's arguments."""

    turn: int
    call: str
    text: str


class ToolCallEnded(ConversationClientEvent):
    """Complete tool call: the client executes it and returns the result. Its number in the history
    is ``entry``. A call that is not complete when its reply ends is void."""

    turn: int
    call: chat_completions.ToolCall
    entry: int = 0


class ReplyLatency(ConversationClientEvent):
    """Latencies before a reply was heard, in seconds.

    ``endpoint``: from the end of speech to the end-of-turn decision; ``recognized``: the final
    recognition; ``thought``: to the LLM's first words; ``voiced``: from the first phrase to its
    first audio; ``total``: from the end of speech to the first audio of the reply. Zero if there
    was none.

    They may overlap: the last recognition, the LLM and TTS begin before the end of the turn is
    certain.
    """

    turn: int
    endpoint: float = 0.0
    recognized: float = 0.0
    thought: float = 0.0
    voiced: float = 0.0
    total: float = 0.0


class ReplyEnded(ConversationClientEvent):
    """End of a turn's output. ``text`` is the heard part, as stored in the history; ``made_s``
    seconds of audio were made."""

    turn: int
    ending: ReplyEnding
    text: str
    made_s: float


class ReplyTruncated(ConversationClientEvent):
    """Truncation of a turn at the client's playback position; ``text`` is in the history now, '' if
    the turn is not known any more."""

    turn: int
    seconds: float
    text: str


class ConversationError(ConversationClientEvent):
    """Error; the conversation goes on. ``turn`` is 0 if it concerns no reply; ``name`` is the
    client's name for the request that failed, or ''."""

    turn: int
    error: SidecarError
    name: str = ""


class ConversationNotice(ConversationClientEvent):
    """Notice of a problem without any loss."""

    notice: Notice


class ConversationStarted(ConversationClientEvent):
    """Start of a conversation after a reset."""


class PauseReplyAudio(ConversationCommand):
    """Request to pause sending the turn's audio, without loss."""

    turn: int


class ResumeReplyAudio(ConversationCommand):
    """Request to resume sending the turn's audio."""

    turn: int


class DropReplyAudio(ConversationCommand, ConversationOutput):
    """Request to drop the turn's audio that was not sent, and the client's rest of it if it can."""

    turn: int


class TurnAudioSent(ConversationOutput):
    """All audio of that turn was sent, though some may still have to be played; ``ending`` is how
    the turn will end. If the turn ends at the same time, only `ReplyEnded` is sent."""

    turn: int
    ending: ReplyEnding


class CommitAcknowledged(ConversationClientEvent):
    """Acknowledgement of a commit: all audio before it was recognized, and its words were sent."""


class DiscardAcknowledged(ConversationClientEvent):
    """Acknowledgement of a discard: the audio is dropped."""


class ConversationEnded(ConversationOutput):
    """End of the conversation at the client's request; the last output."""


class ConversationStage(StrEnum):
    """Stage that works for a turn."""

    RECOGNIZER = "recognizer"
    LLM = "llm"
    TTS = "tts"


class ConversationEvent(_FrozenValues):
    """Event that happened ``at`` a time."""

    at: float


class ReplyEvent(ConversationEvent):
    """Event of a stage that works for a reply, or of the reply's player."""

    turn: int


class UserSpeechStarted(ConversationEvent):
    """Start of speech at ``began``: an utterance begins, or continues after a pause."""

    utterance: int
    began: float


class UserSpeechStopped(ConversationEvent):
    """End of speech at ``ended``. It is reported as soon as it is known, 0.1 s later at best: the
    state machine decides how long a pause ends a turn."""

    utterance: int
    ended: float


class RecognizedWords(ConversationEvent):
    """All words of an utterance so far; ``upto``: end of the recognized audio. Words that cover all
    up to the utterance's stop are final, unless the utterance continues."""

    utterance: int
    text: str
    upto: float


class EchoSimilarity(ConversationEvent):
    """Similarity of an utterance's audio so far to what was played then, from 0 to 1
    (`acoustic_echo`). It is sent before the utterance's words."""

    utterance: int
    likeness: float


class TurnCommitted(ConversationEvent):
    """The client ends the user's turn without waiting for a pause."""


class UserAudioEnded(ConversationEvent):
    """No more audio of the user comes: the session ends."""


class TurnDiscarded(ConversationEvent):
    """The client discards the user's words that are not answered yet."""


class TextTyped(ConversationEvent):
    """User's turn as text."""

    text: str


class HistoryEntryAdded(ConversationEvent):
    """Entry that the client adds to the history without a reply; ``name`` is the client's name for
    it. It is added after the entry ``after``, as in `ChatHistory.add`. With a ``call`` it is a tool
    call from a previous conversation."""

    role: chat_completions.ChatRole
    text: str
    name: str = ""
    after: int | None = None
    call: chat_completions.ToolCall | None = None


class ToolResultAdded(ConversationEvent):
    """Result of a tool call, by the call's id; ``name`` is the client's name for the entry. It does
    not request a reply; ``after`` as in `HistoryEntryAdded`."""

    call: str
    output: str
    name: str = ""
    after: int | None = None


class HistoryEntryDeleted(ConversationEvent):
    """The client deletes the entry of that number from the history."""

    entry: int


class ResponseRequested(ConversationEvent):
    """The client requests a reply to the history as it is. ``options``: for this reply alone, if
    given; ``name``: the client's name for the request."""

    options: ConversationOptions | None = None
    name: str = ""


class LlmToken(ReplyEvent):
    """Text that the LLM adds to the reply: some characters."""

    text: str


class LlmToolCallDelta(ReplyEvent):
    """Fragment of a tool call of the LLM."""

    delta: chat_completions.ToolCallDelta


class TtsAudio(ReplyEvent):
    """More audio of a phrase."""

    phrase: int
    audio: SynthesizedAudio


class StageEnded(ReplyEvent):
    """The LLM has finished, or the TTS engine has made all audio of ``phrase``."""

    stage: ConversationStage
    phrase: int = 0


class StageFailed(ReplyEvent):
    """Failure of a stage. ``turn`` is the utterance's number if the recognizer failed;
    `UNKNOWN_UTTERANCE` if it is not known whether there was an utterance."""

    stage: ConversationStage
    error: SidecarError


class PlaybackReported(ReplyEvent):
    """Playback position: ``seconds`` of the turn's audio were played by now, in all. It is sent
    before any event that may interrupt (speech, words, a timer), so that the history is exact to
    the word."""

    seconds: float


class PlaybackTruncated(ConversationEvent):
    """The client reports that only ``seconds`` of the turn's audio were played; a reply in progress
    ends. The report overrides `PlaybackReported`, but does not restore text that was truncated."""

    turn: int
    seconds: float


class ResponseCancelled(ConversationEvent):
    """The client cancels the rest of the answer."""


class ConversationReset(ConversationEvent):
    """The client starts the conversation anew."""


class OptionsChanged(ConversationEvent):
    """Other options from now on. A turn in progress keeps its options."""

    options: ConversationOptions


class TimerFired(ConversationEvent):
    """The time ``at`` has come, as `SetTimer` requested."""


class GenerateReply(ConversationCommand):
    """Request to answer ``messages`` for this turn, token by token, or to call one of the
    ``tools``."""

    turn: int
    messages: tuple[chat_completions.ChatMessage, ...]
    tools: chat_completions.ToolSet = chat_completions.NO_TOOLS


class SynthesizeText(ConversationCommand):
    """Request to synthesize ``text``. The requests of one turn come in the order of ``phrase`` and
    are synthesized one after the other; at most two are in progress."""

    turn: int
    phrase: int
    text: str


class SendReplyAudio(ConversationCommand):
    """Audio of the turn, to be played after all audio before it."""

    turn: int
    phrase: int
    audio: SynthesizedAudio


class StopStage(ConversationCommand):
    """Request to cancel that stage of the turn."""

    turn: int
    stage: ConversationStage


class SetSpeechDetection(ConversationCommand):
    """Change of speech detection from now on: ``threshold`` is added to the usual probability."""

    threshold: float


class SetTimer(ConversationCommand):
    """Request for a `TimerFired` at that time if nothing else happens before. The latest request
    counts; `None` cancels it."""

    at: float | None
