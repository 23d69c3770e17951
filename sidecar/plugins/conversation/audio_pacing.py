"""Pacing of the audio that a conversation sends, and its playback position. Pure.

Some clients queue all audio that arrives and cannot drop it. Their audio is sent at most
`MAX_AUDIO_LEAD_S` ahead of playback, so that an interruption is heard at once. Other clients can
clear their queue. Their audio is sent as fast as it is made, and the playback position follows the
clock.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from sidecar.interfaces.engine_interface import SynthesizedAudio
from sidecar.plugins.conversation.conversation_events import ConversationOutput

MAX_AUDIO_LEAD_S = 0.15
"""Seconds of audio that are sent ahead of playback, at most, to a client that cannot drop audio."""
MIN_FRAME_S = 0.12
MAX_FRAME_S = 0.25
"""Minimum and maximum duration of a frame in seconds. A browser may lose 10 ms at the end of a
frame. So frames are not shorter than necessary, and end between two words if possible."""
UNDERRUN_S = 0.02
"""Seconds of buffered audio below which a client gets all audio that is available."""
_SLACK_S = 1e-6


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
    """Pacer of the audio that is sent to a client, one turn after the other. ``clears``: the client
    can drop queued audio."""

    def __init__(self, *, clears: bool = False) -> None:
        self._clears = clears
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
        if self._clears:
            return now
        waiting = line.made - line.sent
        start = MAX_AUDIO_LEAD_S - MIN_FRAME_S if waiting >= MIN_FRAME_S else UNDERRUN_S
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
        if self._clears or self._line is None:
            return self.heard(now)
        return self._line.sent

    def pause(self, now: float) -> None:
        """Pause sending without loss. A client that cannot drop audio plays all that it has, which
        counts as heard."""
        line = self._line
        if self._paused:
            return
        if line is not None:
            self._settle(line, now)
            if not self._clears:
                line.heard = line.sent
        self._paused = True

    def resume(self, now: float) -> None:
        """Resume sending."""
        if self._line is not None and self._stands:
            self._line.since = now
        self._paused = False

    def drop_audio(self, turn: int) -> None:
        """Drop the unsent audio of the turn, and ignore later audio of it."""
        self._hushed = max(self._hushed, turn)
        if self.turn == turn:
            self._line, self._paused = None, False

    def end(self, turn: int) -> list[ReplyAudioFrame]:
        """End a turn that is done; return the rest of its audio, which is too short to wait for."""
        line, found = self._line, list[ReplyAudioFrame]()
        if line is not None and line.turn == turn and line.pcm:
            found.append(ReplyAudioFrame(turn, bytes(line.pcm), line.rate, line.sent))
        self.drop_audio(turn)
        return found

    @property
    def _stands(self) -> bool:
        """Return whether the client's playback is paused, too."""
        return self._paused and not self._clears

    def _settle(self, line: _TurnAudio, now: float) -> None:
        """Count the audio that was played up to now."""
        line.heard, line.since = self.heard(now), max(now, line.since)

    def _next(self, line: _TurnAudio) -> float:
        """Return the duration of the next frame in seconds; 0 while there is none to send."""
        waiting = len(line.pcm) / (2 * line.rate)
        if self._clears:
            return min(waiting, MAX_FRAME_S)
        ahead = line.sent - line.heard
        most = min(waiting, MAX_AUDIO_LEAD_S - ahead, MAX_FRAME_S) + _SLACK_S
        if waiting < MIN_FRAME_S:
            return waiting if ahead <= UNDERRUN_S + _SLACK_S and most >= waiting else 0.0
        if most < MIN_FRAME_S:
            return 0.0
        first = bisect_left(line.words, line.sent + MIN_FRAME_S)
        last = bisect_right(line.words, line.sent + most)
        border = line.words[last - 1] - line.sent if last > first else most
        return min(border, waiting)
