"""Output queue of a conversation: client events, paced audio, playback position. Pure.

Some clients queue whatever arrives and cannot be told to drop it: to them nothing is sent more than
`MAX_AUDIO_LEAD_S` ahead of the ear, so that a hush is one. Others have a message that clears what
they have: they get it as fast as they like, and what was heard goes by time, or by what they
report.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.conversation.chat_completions import ChatRole, ToolCall
from sidecar.errors import SidecarError
from sidecar.interfaces.engine_interface import SynthesizedAudio
from sidecar.transcripts.transcript import Notice

MAX_PENDING_OUTPUT = 2_000
"""Limit of output that waits for a client that reads slowly: minutes of audio."""


class ConversationCommand:
    """Command to carry out."""

    __slots__ = ()


class ConversationOutput:
    """Output for the client."""

    __slots__ = ()


class ConversationClientEvent(ConversationCommand, ConversationOutput):
    """Event for the client."""

    __slots__ = ()


class ConversationPhase(StrEnum):
    """Phase of a conversation."""

    IDLE = "idle"
    LISTENING = "listening"
    """Somebody speaks."""
    TRANSCRIBING = "transcribing"
    """Nobody does, and it is not decided yet whether the turn is over."""
    GENERATING = "generating"
    SYNTHESIZING = "synthesizing"
    """There are words of the reply, and no sound of it."""
    SPEAKING = "speaking"


class ReplyEnding(StrEnum):
    """Ending of a reply."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    """By voice, or by another turn of the person."""
    CANCELLED = "cancelled"
    """By the client."""
    LIMITED = "limited"
    """It was as long as may be."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PhaseChanged(ConversationClientEvent):
    """The conversation does something else now."""

    phase: ConversationPhase


@dataclass(frozen=True, slots=True)
class UserTurnStarted(ConversationClientEvent):
    """A user's turn begins, with that utterance. Over a reply this is told only once that is
    interrupted."""

    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class UserTurnPartial(ConversationClientEvent):
    """Text of the user's turn so far."""

    text: str


@dataclass(frozen=True, slots=True)
class UserTurnStopped(ConversationClientEvent):
    """The user's turn is over: silence since ``ended``, and that ``utterance`` was its last."""

    ended: float
    utterance: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class UserTurnFinal(ConversationClientEvent):
    """Final text of the user's turn, as it stands in the history by the number of ``entry``;
    ``typed``: not spoken. ``backchannel``: from when to when it was said over a reply, which it did
    not interrupt; it is not answered."""

    text: str
    typed: bool = False
    entry: int = field(default=0, compare=False)
    backchannel: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntryRecorded(ConversationClientEvent):
    """Entry that the client added to the history, by the number of ``entry`` there; ``name`` is the
    client's name for it."""

    entry: int
    role: ChatRole
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class UserTurnDropped(ConversationClientEvent):
    """End of a user's turn that was none: noise, an echo (``echo``), or dropped by the client."""

    echo: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyStarted(ConversationClientEvent):
    """The turn is being answered, aloud if ``voiced``; its place in the history is ``entry``."""

    turn: int
    voiced: bool = field(default=True, compare=False)
    entry: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyTextDelta(ConversationClientEvent):
    """More of the reply's text, as it is to be shown."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted(ConversationClientEvent):
    """The turn calls a tool by that name; the call has an id."""

    turn: int
    call: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArgumentsDelta(ConversationClientEvent):
    """More of that call's arguments."""

    turn: int
    call: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnded(ConversationClientEvent):
    """All of a call is there: it is to be carried out, and what comes of it is waited for. It
    stands in the history as ``entry``. One that has not got so far when its reply ends is none."""

    turn: int
    call: ToolCall
    entry: int = 0


@dataclass(frozen=True, slots=True)
class ReplyAudioStarted(ConversationClientEvent):
    """Audio of that phrase begins to be sent; ``text`` is what the TTS engine makes of it."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyEnded(ConversationClientEvent):
    """End of a turn's output. ``text`` is what stands in the history: what was heard;
    ``heard_s`` of ``made_s`` seconds of sound were."""

    turn: int
    ending: ReplyEnding
    text: str
    heard_s: float
    made_s: float


@dataclass(frozen=True, slots=True)
class ReplyTruncated(ConversationClientEvent):
    """Playback of a turn ended there by the client's report; ``text`` is in the history now,
    nothing of a turn that is forgotten."""

    turn: int
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class ConversationError(ConversationClientEvent):
    """Error; the conversation goes on. ``turn`` is 0 where it was no reply's; ``name`` is what
    the client calls the request that came to nothing by it, or ''."""

    turn: int
    error: SidecarError
    name: str = ""


@dataclass(frozen=True, slots=True)
class ConversationNotice(ConversationClientEvent):
    """Notice of a problem by which nothing is lost."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class ConversationStarted(ConversationClientEvent):
    """The conversation begins, again after a reset."""


MAX_AUDIO_LEAD_S = 0.15
"""So far ahead of the ear a client is at most that cannot be told to be quiet."""
MIN_FRAME_S = 0.12
MAX_FRAME_S = 0.25
"""Of a frame. A browser's page may lose a hundredth of a second where one ends, so they are not
shorter than need be, and end between two words if there is such a place."""
UNDERRUN_S = 0.02
"""Buffer below which a client gets whatever there is."""
_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class PlaybackClient:
    """Capabilities of a client that plays audio: drop what it has (``clears``), pause and resume
    (``holds``). ``lead_s``: the most that it has ahead, if it cannot drop."""

    clears: bool = False
    holds: bool = False
    lead_s: float = MAX_AUDIO_LEAD_S


@dataclass(frozen=True, slots=True)
class ReplyAudioFrame(ConversationOutput):
    """Audio to be sent now; ``start`` is its position in the turn's audio, in seconds."""

    turn: int
    pcm: bytes
    rate: int
    start: float

    @property
    def seconds(self) -> float:
        """Return the playback duration in seconds."""
        return len(self.pcm) / (2 * self.rate)


@dataclass(slots=True)
class _TurnAudio:
    """One turn's audio: what waits, from ``sent`` to ``made``, and where words begin in it."""

    turn: int
    rate: int
    since: float
    pcm: bytearray = field(default_factory=bytearray)
    words: list[float] = field(default_factory=list)
    piece: int = -1
    piece_start: float = 0.0
    made: float = 0.0
    sent: float = 0.0
    heard: float = 0.0


class AudioPacer:
    """Pacing of the audio of one turn after the other, on its way to ``client``."""

    def __init__(self, client: PlaybackClient | None = None) -> None:
        self.client = client or PlaybackClient()
        """Playback state of the client; another one from the next step on."""
        self._line: _TurnAudio | None = None
        self._hushed = 0
        self._paused = False

    @property
    def turn(self) -> int:
        """Return the turn whose audio is queued, 0 if none."""
        return self._line.turn if self._line is not None else 0

    @property
    def waiting(self) -> bool:
        """Return whether some of it was not sent."""
        return self._line is not None and bool(self._line.pcm)

    def add(self, turn: int, piece: int, sound: SynthesizedAudio, now: float) -> None:
        """More sound behind all there is. A new turn's replaces what there was; sound of one that
        was hushed, or is older, is dropped.

        Raises:
            ValueError: the rate changed within a turn.
        """
        line = self._line
        if turn <= self._hushed or (line is not None and turn < line.turn):
            return
        if line is None or line.turn != turn:
            line = self._line = _TurnAudio(turn, sound.rate, now)
            self._paused = False
        if sound.rate != line.rate:
            raise ValueError(f"a turn's sound has one rate: {line.rate}, not {sound.rate}")
        self._settle(line, now)
        if piece != line.piece:
            line.piece, line.piece_start = piece, line.made
        line.words += [line.piece_start + mark.start for mark in sound.marks]
        line.pcm += sound.pcm
        line.made += sound.seconds

    def due(self, now: float) -> list[ReplyAudioFrame]:
        """Return the frames that are due now, in order."""
        line, found = self._line, list[ReplyAudioFrame]()
        if line is None or self._paused:
            return found
        self._settle(line, now)
        while (seconds := self._next(line)) > 0:
            size = min(len(line.pcm), 2 * max(1, round(seconds * line.rate)))
            found.append(ReplyAudioFrame(line.turn, bytes(line.pcm[:size]), line.rate, line.sent))
            del line.pcm[:size]
            line.sent += found[-1].seconds
        return found

    def wake_at(self, now: float) -> float | None:
        """Return the time of the next send or resend, if nothing happens before."""
        line = self._line
        if line is None or self._stands:
            return None
        ahead = line.sent - self.heard(now)
        if not line.pcm or self._paused:
            return now + ahead if ahead > _SLACK_S else None
        if self.client.clears:
            return now
        waiting = line.made - line.sent
        start = self.client.lead_s - MIN_FRAME_S if waiting >= MIN_FRAME_S else UNDERRUN_S
        return now + max(0.0, ahead - start)

    def heard(self, now: float) -> float:
        """Return how many seconds of the turn's audio were played by now."""
        line = self._line
        if line is None:
            return 0.0
        if self._stands:
            return line.heard
        return min(line.sent, line.heard + max(0.0, now - line.since))

    def played(self, now: float) -> float:
        """Return the seconds for `Played`: the audio that will have been heard if it ends here. If
        a client cannot drop audio, that is all it has."""
        if self.client.clears or self._line is None:
            return self.heard(now)
        return self._line.sent

    def report(self, turn: int, seconds: float, now: float) -> None:
        """The client says that so much of the turn's sound was heard by now: from here on that
        counts, and goes on by time."""
        line = self._line
        if line is not None and line.turn == turn:
            line.heard, line.since = min(line.sent, max(0.0, seconds)), max(now, line.since)

    def pause(self, now: float) -> None:
        """Send nothing, lose nothing. A client that cannot be told plays what it has, and that is
        taken for heard."""
        line = self._line
        if self._paused:
            return
        if line is not None:
            self._settle(line, now)
            if not self.client.holds and not self.client.clears:
                line.heard = line.sent
        self._paused = True

    def resume(self, now: float) -> None:
        """Go on where it was."""
        if self._line is not None and self._stands:
            self._line.since = now
        self._paused = False

    def drop_audio(self, turn: int, now: float) -> float:
        """Drop what was not sent of the turn, and take no more; so much of it was heard, or will
        have been where a client can drop nothing."""
        self._hushed = max(self._hushed, turn)
        line = self._line
        if line is None or line.turn != turn:
            return 0.0
        heard = self.played(now)
        self._line, self._paused = None, False
        return heard

    def end(self, turn: int, now: float) -> list[ReplyAudioFrame]:
        """The turn is over by itself: what is left of it, which is too short to be waited for."""
        line, found = self._line, list[ReplyAudioFrame]()
        if line is not None and line.turn == turn and line.pcm:
            found.append(ReplyAudioFrame(turn, bytes(line.pcm), line.rate, line.sent))
        self.drop_audio(turn, now)
        return found

    @property
    def _stands(self) -> bool:
        """Return whether the client's playback is paused, too."""
        return self._paused and (self.client.holds or not self.client.clears)

    def _settle(self, line: _TurnAudio, now: float) -> None:
        """Count the audio that was played up to now."""
        line.heard, line.since = self.heard(now), max(now, line.since)

    def _next(self, line: _TurnAudio) -> float:
        """Return the duration of the next frame in seconds; 0 while there is none to send."""
        waiting = len(line.pcm) / (2 * line.rate)
        if self.client.clears:
            return min(waiting, MAX_FRAME_S)
        ahead = line.sent - line.heard
        most = min(waiting, self.client.lead_s - ahead, MAX_FRAME_S) + _SLACK_S
        if waiting < MIN_FRAME_S:
            return waiting if ahead <= UNDERRUN_S + _SLACK_S and most >= waiting else 0.0
        if most < MIN_FRAME_S:
            return 0.0
        first = bisect_left(line.words, line.sent + MIN_FRAME_S)
        last = bisect_right(line.words, line.sent + most)
        border = line.words[last - 1] - line.sent if last > first else most
        return min(border, waiting)


@dataclass(frozen=True, slots=True)
class PauseReplyAudio(ConversationCommand, ConversationOutput):
    """Pause the turn's audio, here and, if it can, at the client: nothing is lost, and its
    events wait as well."""

    turn: int


@dataclass(frozen=True, slots=True)
class ResumeReplyAudio(ConversationCommand, ConversationOutput):
    """Resume the turn's audio."""

    turn: int


@dataclass(frozen=True, slots=True)
class DropReplyAudio(ConversationCommand, ConversationOutput):
    """Drop all of the turn's audio that was not sent, and have the client drop the rest if it
    can."""

    turn: int


@dataclass(frozen=True, slots=True)
class TurnAudioSent(ConversationOutput):
    """All of that turn was sent, though some may still have to be played; it will end like that.
    Where that is all the same, `ReplyEnded` alone is told."""

    turn: int
    ending: ReplyEnding


@dataclass(frozen=True, slots=True)
class CommitAcknowledged(ConversationOutput):
    """Acknowledgement of a commit: all audio before it was recognized, and its words were sent."""


@dataclass(frozen=True, slots=True)
class DiscardAcknowledged(ConversationOutput):
    """Acknowledgement of a discard: the audio is dropped."""


@dataclass(frozen=True, slots=True)
class ConversationEnded(ConversationOutput):
    """The client has asked for the end: nothing comes behind this."""
