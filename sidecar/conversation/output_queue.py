"""Output queue of a conversation: client events, paced audio, playback position. Pure.

Some clients queue all audio that arrives and cannot drop it. Their audio is sent at most
`MAX_AUDIO_LEAD_S` ahead of playback, so that an interruption is heard at once. Other clients can
clear their queue. Their audio is sent as fast as it is made, and the playback position follows the
clock, or the client's reports.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.conversation.chat_completions import ChatRole, ToolCall
from sidecar.conversation.conversation_options import ConversationPhase
from sidecar.errors import SidecarError
from sidecar.interfaces.engine_interface import SynthesizedAudio
from sidecar.transcripts.transcript import Notice

MAX_PENDING_OUTPUT = 2_000
"""Maximum number of outputs that wait for a slow client: minutes of audio."""


class ConversationCommand:
    """Command of the state machine."""

    __slots__ = ()


class ConversationOutput:
    """Output for the client."""

    __slots__ = ()


class ConversationClientEvent(ConversationCommand, ConversationOutput):
    """Event for the client."""

    __slots__ = ()


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


@dataclass(frozen=True, slots=True)
class PhaseChanged(ConversationClientEvent):
    """Change of the conversation's phase."""

    phase: ConversationPhase


@dataclass(frozen=True, slots=True)
class UserTurnStarted(ConversationClientEvent):
    """Start of a user's turn, with that utterance. Over a reply it is sent only once the reply is
    interrupted."""

    utterance: int
    began: float


@dataclass(frozen=True, slots=True)
class UserTurnPartial(ConversationClientEvent):
    """Text of the user's turn so far."""

    text: str


@dataclass(frozen=True, slots=True)
class UserTurnStopped(ConversationClientEvent):
    """End of the user's speech: silence since ``ended``; ``utterance`` was the turn's last."""

    ended: float
    utterance: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class UserTurnFinal(ConversationClientEvent):
    """Final text of the user's turn, as stored in the history entry ``entry``; ``typed``: not
    spoken. ``backchannel``: start and end of words over a reply that did not interrupt it and are
    not answered."""

    text: str
    typed: bool = False
    entry: int = field(default=0, compare=False)
    backchannel: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntryRecorded(ConversationClientEvent):
    """Entry that the client added to the history, with its number ``entry`` there; ``name`` is the
    client's name for it."""

    entry: int
    role: ChatRole
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class UserTurnDropped(ConversationClientEvent):
    """End of a user's turn without words: noise, an echo (``echo``), or discarded by the client."""

    echo: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyStarted(ConversationClientEvent):
    """Start of a reply, spoken if ``voiced``; its number in the history is ``entry``."""

    turn: int
    voiced: bool = field(default=True, compare=False)
    entry: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReplyTextDelta(ConversationClientEvent):
    """Text that is added to the reply, as it is displayed."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted(ConversationClientEvent):
    """Start of a tool call of the reply, with the call's id and the tool's name."""

    turn: int
    call: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArgumentsDelta(ConversationClientEvent):
    """Fragment of that call's arguments."""

    turn: int
    call: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnded(ConversationClientEvent):
    """Complete tool call: the client executes it and returns the result. Its number in the history
    is ``entry``. A call that is not complete when its reply ends is void."""

    turn: int
    call: ToolCall
    entry: int = 0


@dataclass(frozen=True, slots=True)
class ReplyAudioStarted(ConversationClientEvent):
    """Start of a phrase's audio; ``text`` is the phrase's spoken text."""

    turn: int
    piece: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyEnded(ConversationClientEvent):
    """End of a turn's output. ``text`` is the heard part, as stored in the history; ``heard_s`` of
    ``made_s`` seconds of audio were heard."""

    turn: int
    ending: ReplyEnding
    text: str
    heard_s: float
    made_s: float


@dataclass(frozen=True, slots=True)
class ReplyTruncated(ConversationClientEvent):
    """Truncation of a turn at the client's playback position; ``text`` is in the history now, '' if
    the turn is not known any more."""

    turn: int
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class ConversationError(ConversationClientEvent):
    """Error; the conversation goes on. ``turn`` is 0 if it concerns no reply; ``name`` is the
    client's name for the request that failed, or ''."""

    turn: int
    error: SidecarError
    name: str = ""


@dataclass(frozen=True, slots=True)
class ConversationNotice(ConversationClientEvent):
    """Notice of a problem without any loss."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class ConversationStarted(ConversationClientEvent):
    """Start of a conversation after a reset."""


MAX_AUDIO_LEAD_S = 0.15
"""Seconds of audio that are sent ahead of playback, at most, to a client that cannot drop audio."""
MIN_FRAME_S = 0.12
MAX_FRAME_S = 0.25
"""Minimum and maximum duration of a frame in seconds. A browser may lose 10 ms at the end of a
frame. So frames are not shorter than necessary, and end between two words if possible."""
UNDERRUN_S = 0.02
"""Seconds of buffered audio below which a client gets all audio that is available."""
_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class PlaybackClient:
    """Capabilities of a client that plays audio: drop queued audio (``clears``), pause and resume
    (``holds``). ``lead_s``: seconds that it gets ahead, at most, if it cannot drop audio."""

    clears: bool = False
    holds: bool = False
    lead_s: float = MAX_AUDIO_LEAD_S


@dataclass(frozen=True, slots=True)
class ReplyAudioFrame(ConversationOutput):
    """Audio to send now; ``start`` is its position in the turn's audio, in seconds."""

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
    """Audio of one turn: queued samples from ``sent`` to ``made``, and the positions at which words
    begin."""

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
    """Pacer of the audio that is sent to ``client``, one turn after the other."""

    def __init__(self, client: PlaybackClient | None = None) -> None:
        self.client = client or PlaybackClient()
        """Capabilities of the client; may be replaced at any time."""
        self._line: _TurnAudio | None = None
        self._hushed = 0
        self._paused = False

    @property
    def turn(self) -> int:
        """Return the turn whose audio is queued, 0 if none."""
        return self._line.turn if self._line is not None else 0

    @property
    def waiting(self) -> bool:
        """Return whether some of the audio was not sent."""
        return self._line is not None and bool(self._line.pcm)

    def add(self, turn: int, piece: int, sound: SynthesizedAudio, now: float) -> None:
        """Add audio after all that is queued. A new turn replaces the turn before; audio of a
        dropped or an older turn is ignored.

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
        """Return the time at which a frame is due or playback ends; `None` if neither is to
        come."""
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
        """Return the seconds for `PlaybackReported`: the audio that will have been heard if
        playback stops now. For a client that cannot drop audio that is all that was sent."""
        if self.client.clears or self._line is None:
            return self.heard(now)
        return self._line.sent

    def report(self, turn: int, seconds: float, now: float) -> None:
        """Set the playback position to the client's report; from there it follows the clock."""
        line = self._line
        if line is not None and line.turn == turn:
            line.heard, line.since = min(line.sent, max(0.0, seconds)), max(now, line.since)

    def pause(self, now: float) -> None:
        """Pause sending without loss. A client that can neither pause nor drop plays all that it
        has, which counts as heard."""
        line = self._line
        if self._paused:
            return
        if line is not None:
            self._settle(line, now)
            if not self.client.holds and not self.client.clears:
                line.heard = line.sent
        self._paused = True

    def resume(self, now: float) -> None:
        """Resume sending."""
        if self._line is not None and self._stands:
            self._line.since = now
        self._paused = False

    def drop_audio(self, turn: int, now: float) -> float:
        """Drop the unsent audio of the turn, and ignore later audio of it. Return the seconds that
        were heard, or will be if the client cannot drop audio."""
        self._hushed = max(self._hushed, turn)
        line = self._line
        if line is None or line.turn != turn:
            return 0.0
        heard = self.played(now)
        self._line, self._paused = None, False
        return heard

    def end(self, turn: int, now: float) -> list[ReplyAudioFrame]:
        """End a turn that is done; return the rest of its audio, which is too short to wait for."""
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
    """Request to pause the turn's audio, at the client too if it can, without loss. The turn's
    audio events wait as well."""

    turn: int


@dataclass(frozen=True, slots=True)
class ResumeReplyAudio(ConversationCommand, ConversationOutput):
    """Request to resume the turn's audio."""

    turn: int


@dataclass(frozen=True, slots=True)
class DropReplyAudio(ConversationCommand, ConversationOutput):
    """Request to drop the turn's audio that was not sent, and the client's rest of it if it can."""

    turn: int


@dataclass(frozen=True, slots=True)
class TurnAudioSent(ConversationOutput):
    """All audio of that turn was sent, though some may still have to be played; ``ending`` is how
    the turn will end. If the turn ends at the same time, only `ReplyEnded` is sent."""

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
    """End of the conversation at the client's request; the last output."""
