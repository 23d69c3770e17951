"""Live session with two channels, each of which is one speaker.

For an engine each channel is a session: with its own audio, worker call and resume point. For the
client there is one: its events have the number of their channel, and turns and segments have
numbers that are unique in both.
"""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions, LiveOrder, SampleEncoding
from sidecar.live.sessions.input_log import InputLog, InputLogTotals
from sidecar.live.sessions.session import (
    ENGINE_LOADING_NOTICE,
    ENGINE_RESTARTED_NOTICE,
    Session,
)
from sidecar.transcripts.channel_merge import TranscribedChannel, merge_channels, with_own_speakers
from sidecar.transcripts.transcript import Transcript

_ITEM_TYPES = {2: "h", 4: "i"}
"""Types of array items by the bytes of a sample."""


class ChannelSession(Session):
    """Session of one channel for an engine. Its events go to ``tell``."""

    def __init__(
        self,
        session: StereoSession,
        totals: InputLogTotals,
        now: Callable[[], float],
        tell: Callable[[live_events.LiveEvent], None],
    ) -> None:
        options = of_one_speaker(session.options, session.channel_of)
        metrics, spec = session.event_metrics, session.spec
        super().__init__(
            session.id, session.owner, options, session.bounds, totals, now, metrics, spec
        )
        self._tell = tell

    async def fail(self, error: errors.SidecarError) -> None:
        """End the channel: the session has the summary of both."""
        self.end(error)

    def end(self, error: errors.SidecarError | None = None) -> None:
        """End the channel, which is no end of a session for the metrics."""
        self.event_log.end(error)
        self.input_log.clear()
        self.news.set()

    def _say(self, event: live_events.LiveEvent, channel: int | None = None) -> None:
        if self.event_log.add(event):
            self._tell(event)


class StereoSession(Session):
    """Session of interleaved samples of two channels; ``channel_names`` has the name of each."""

    channels = 2

    def __init__(self, *given: Any, channel_names: Sequence[str], **named: Any) -> None:
        super().__init__(*given, **named)
        self.channel_names = tuple(channel_names)
        self.channel_of = uuid.uuid4().hex
        """Id of the session for the engine, which has no other."""
        self.sessions = tuple(
            ChannelSession(self, self._held, self._now, partial(self._hear, channel))
            for channel in range(self.channels)
        )
        self.input_log = SplitInputLog(self._held, self.owner, self.sessions)
        self._processed = [live_events.InputProcessed(0.0, 0.0)] * self.channels
        self._transcripts: dict[int, Transcript] = {}
        """Transcripts of the channels that are over."""
        self._restarts = [0] * self.channels
        """Restarts of the engine of which each channel was told."""

    def finish(self, reason: errors.SidecarError | None = None, *, asked: bool = True) -> None:
        """End the audio of both channels, as `Session.finish`."""
        super().finish(reason, asked=asked)
        for one in self.sessions:
            one.finish(asked=False)

    def break_off(self) -> None:
        """End the turns of both channels, as `Session.break_off`."""
        for one in self.sessions:
            one.break_off()

    def end(self, error: errors.SidecarError | None = None) -> None:
        """End the session, and those of its channels."""
        for one in self.sessions:
            one.end(error)
        super().end(error)

    def transcript(self) -> Transcript:
        """Return the transcript of both channels; of one that is not over, its finals so far."""
        so_far = [one.transcript() for one in self.sessions]
        found = [
            TranscribedChannel(name, self._transcripts.get(channel, so_far[channel]))
            for channel, name in enumerate(self.channel_names)
        ]
        return merge_channels(found, least_speakers=1)

    def _hear(self, channel: int, event: live_events.LiveEvent) -> None:
        """Send an event of a channel, with numbers that are unique in both."""
        match event:
            case live_events.InputProcessed():
                self._processed[channel] = event
                at, settled = (
                    min(one.at for one in self._processed),
                    min(one.settled for one in self._processed),
                )
                self._room.set()
                self._say(live_events.InputProcessed(at, settled))
            case live_events.Summary(transcript):
                self._transcripts[channel] = transcript
            case live_events.SpeakersRevised():
                pass  # it says again that its only speaker is that
            case live_events.NoticeRaised(notice) if notice == ENGINE_LOADING_NOTICE:
                self._say(event)
            case live_events.NoticeRaised(notice) if notice == ENGINE_RESTARTED_NOTICE:
                self._restarts[channel] += 1
                if self._restarts[channel] > self._restarts[1 - channel]:  # both are told of each
                    self._say(event)
            case live_events.Final():
                segment = with_own_speakers(event.segment, channel)
                name = None if segment.speaker is None else self.channel_names[channel]
                event = replace(event, segment=segment, name=name)
                self._say(self._numbered(event, channel), channel)
            case _:
                self._say(self._numbered(event, channel), channel)

    def _numbered(self, event: live_events.LiveEvent, channel: int) -> live_events.LiveEvent:
        """Return an event of a channel with the session's number of its turn and segment."""
        numbers = {
            name: self.channels * number + channel
            for name in ("turn", "segment_number")
            if (number := getattr(event, name, None)) is not None
        }
        return replace(event, **numbers)


class SplitInputLog(InputLog):
    """Input log that gives the audio of each channel, and all orders, to the session of the
    channel; it keeps nothing itself."""

    def __init__(
        self, totals: InputLogTotals, owner: str, sessions: Sequence[ChannelSession]
    ) -> None:
        super().__init__(totals, owner)
        self._sessions = sessions

    @property
    def seconds(self) -> float:
        """Return the seconds of kept audio of the channel that keeps the most."""
        return max(one.input_log.seconds for one in self._sessions)

    @property
    def has_unanswered_order(self) -> bool:
        """Return whether a channel has an order that was not answered yet."""
        return any(one.input_log.has_unanswered_order for one in self._sessions)

    def add(self, raw: bytes, encoding: SampleEncoding, rate: int, *, ahead: bool = False) -> None:
        """Add interleaved samples."""
        samples = array(_ITEM_TYPES[encoding.width], raw)
        for channel, one in enumerate(self._sessions):
            raw = samples[channel :: len(self._sessions)].tobytes()
            one.input_log.add(raw, encoding, rate, ahead=ahead)
            one.news.set()
        self.at = self._sessions[0].input_log.at

    def order(self, order: LiveOrder | LiveOptions) -> None:
        """Add an order, or other options, for all channels."""
        for one in self._sessions:
            if isinstance(order, LiveOptions):
                one.options = order = of_one_speaker(order, one.options.channel_of)
            one.input_log.order(order)
            one.news.set()


def of_one_speaker(options: LiveOptions, channel_of: str = "") -> LiveOptions:
    """Return the options without speaker labels, for a channel of ``channel_of``: who speaks in it
    is known."""
    return replace(
        options,
        diarize=False,
        recognise=False,
        known_voices=(),
        voiceprints=False,
        channel_of=channel_of,
    )
