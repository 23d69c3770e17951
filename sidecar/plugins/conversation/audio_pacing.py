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
class _TurnAudioQueue:
    """Queue of the audio of one turn: samples from ``sent`` to ``made``, and the positions at
    which words begin."""

    turn: int
    rate: int
    since: float
    pcm: bytearray = field(default_factory=bytearray)
    words: list[float] = field(default_factory=list)
    phrase: int = -1
    phrase_start: float = 0.0
    made: float = 0.0
    sent: float = 0.0
    heard_s: float = 0.0


class AudioPacer:
    """Pacer of the audio that is sent to a client, one turn after the other. ``clears``: the client
    can drop queued audio."""

    def __init__(self, *, clears: bool = False) -> None:
        self._clears = clears
        self._queue: _TurnAudioQueue | None = None
        self._last_dropped = 0
        self._paused = False

    @property
    def turn(self) -> int:
        """Return the turn whose audio is queued, 0 if none."""
        return self._queue.turn if self._queue is not None else 0

    @property
    def waiting(self) -> bool:
        """Return whether some of the audio was not sent."""
        return self._queue is not None and bool(self._queue.pcm)

    def add(self, turn: int, phrase: int, audio: SynthesizedAudio, now: float) -> None:
        """Add audio after all that is queued. A new turn replaces the turn before; audio of a
        dropped or an older turn is ignored.

        Raises:
            ValueError: the rate changed within a turn.
        """
        queue = self._queue
        if turn <= self._last_dropped or (queue is not None and turn < queue.turn):
            return
        if queue is None or queue.turn != turn:
            queue = self._queue = _TurnAudioQueue(turn, audio.rate, now)
            self._paused = False
        if audio.rate != queue.rate:
            raise ValueError(f"a turn's audio has one rate: {queue.rate}, not {audio.rate}")
        self._count_played(queue, now)
        if phrase != queue.phrase:
            queue.phrase, queue.phrase_start = phrase, queue.made
        queue.words += [queue.phrase_start + mark.start for mark in audio.marks]
        queue.pcm += audio.pcm
        queue.made += audio.seconds

    def due(self, now: float) -> list[ReplyAudioFrame]:
        """Return the frames that are due now, in order."""
        queue, frames = self._queue, list[ReplyAudioFrame]()
        if queue is None or self._paused:
            return frames
        self._count_played(queue, now)
        while (seconds := self._next(queue)) > 0:
            size = min(len(queue.pcm), 2 * max(1, round(seconds * queue.rate)))
            frames.append(
                ReplyAudioFrame(queue.turn, bytes(queue.pcm[:size]), queue.rate, queue.sent)
            )
            del queue.pcm[:size]
            queue.sent += frames[-1].seconds
        return frames

    def wake_at(self, now: float) -> float | None:
        """Return the time at which a frame is due or playback ends; `None` if neither is to
        come."""
        queue = self._queue
        if queue is None or self._playback_paused:
            return None
        ahead = queue.sent - self.heard_s(now)
        if not queue.pcm or self._paused:
            return now + ahead if ahead > _SLACK_S else None
        if self._clears:
            return now
        waiting = queue.made - queue.sent
        start = MAX_AUDIO_LEAD_S - MIN_FRAME_S if waiting >= MIN_FRAME_S else UNDERRUN_S
        return now + max(0.0, ahead - start)

    def heard_s(self, now: float) -> float:
        """Return how many seconds of the turn's audio were played by now."""
        queue = self._queue
        if queue is None:
            return 0.0
        if self._playback_paused:
            return queue.heard_s
        return min(queue.sent, queue.heard_s + max(0.0, now - queue.since))

    def played(self, now: float) -> float:
        """Return the seconds for `PlaybackReported`: the audio that will have been heard if
        playback stops now. For a client that cannot drop audio that is all that was sent."""
        if self._clears or self._queue is None:
            return self.heard_s(now)
        return self._queue.sent

    def pause(self, now: float) -> None:
        """Pause sending without loss. A client that cannot drop audio plays all that it has, which
        counts as heard."""
        queue = self._queue
        if self._paused:
            return
        if queue is not None:
            self._count_played(queue, now)
            if not self._clears:
                queue.heard_s = queue.sent
        self._paused = True

    def resume(self, now: float) -> None:
        """Resume sending."""
        if self._queue is not None and self._playback_paused:
            self._queue.since = now
        self._paused = False

    def drop_audio(self, turn: int) -> None:
        """Drop the unsent audio of the turn, and ignore later audio of it."""
        self._last_dropped = max(self._last_dropped, turn)
        if self.turn == turn:
            self._queue, self._paused = None, False

    def end(self, turn: int) -> list[ReplyAudioFrame]:
        """End a turn that is done; return the rest of its audio, which is too short to wait for."""
        queue, frames = self._queue, list[ReplyAudioFrame]()
        if queue is not None and queue.turn == turn and queue.pcm:
            frames.append(ReplyAudioFrame(turn, bytes(queue.pcm), queue.rate, queue.sent))
        self.drop_audio(turn)
        return frames

    @property
    def _playback_paused(self) -> bool:
        """Return whether the client's playback is paused, too."""
        return self._paused and not self._clears

    def _count_played(self, queue: _TurnAudioQueue, now: float) -> None:
        """Count the audio that was played up to now."""
        queue.heard_s, queue.since = self.heard_s(now), max(now, queue.since)

    def _next(self, queue: _TurnAudioQueue) -> float:
        """Return the duration of the next frame in seconds; 0 while there is none to send."""
        waiting = len(queue.pcm) / (2 * queue.rate)
        if self._clears:
            return min(waiting, MAX_FRAME_S)
        ahead = queue.sent - queue.heard_s
        longest = min(waiting, MAX_AUDIO_LEAD_S - ahead, MAX_FRAME_S) + _SLACK_S
        if waiting < MIN_FRAME_S:
            return waiting if ahead <= UNDERRUN_S + _SLACK_S and longest >= waiting else 0.0
        if longest < MIN_FRAME_S:
            return 0.0
        first = bisect_left(queue.words, queue.sent + MIN_FRAME_S)
        last = bisect_right(queue.words, queue.sent + longest)
        seconds = queue.words[last - 1] - queue.sent if last > first else longest
        return min(seconds, waiting)
