"""Live session as it was shown: its transcript, if it ends without its summary."""

from collections.abc import Callable, Mapping, Sequence

from sidecar import errors
from sidecar.cli.backends import LiveBackend
from sidecar.interfaces import live_events
from sidecar.live.sessions.event_log import EventLog, NumberedEvent
from sidecar.transcripts.transcript import Segment, SpeakerProfile, Transcript


class ShownSession:
    """Session as the display showed it: its transcript, if it ends without its summary."""

    def __init__(self, show: Callable[[NumberedEvent], None]) -> None:
        self._show = show
        self._log = EventLog()
        self._names: dict[int, str | None] = {}

    def add(self, numbered: NumberedEvent) -> None:
        """Show an event."""
        self._show(numbered)
        self._log.add(numbered.event, numbered.channel)
        match numbered.event:
            case live_events.Final(segment=Segment(speaker=int(speaker)), name=name):
                self._names[speaker] = name
            case live_events.SpeakersRevised(names=revised):
                self._names |= revised

    def break_off(self) -> Transcript | None:
        """Show what was being said as final; return the transcript; `None` of no words."""
        for event in self._log.break_off(0.0):
            if self._log.add(event):
                channel = event.segment.speaker if isinstance(event, live_events.Final) else None
                self._show(NumberedEvent(self._log.last, event, channel))
        segments = self._log.so_far(0.0).said
        return _transcript_of(segments, self._names) if segments else None


async def show_events(
    backend: LiveBackend, shown: ShownSession
) -> tuple[live_events.Summary, errors.SidecarError | None]:
    """Show the events; return the summary. If the session ends without it, return one of what was
    shown last, and the error."""
    wrong: errors.SidecarError | None = None
    try:
        async for numbered in backend.events():
            shown.add(numbered)
            match numbered.event:
                case live_events.NoticeRaised(notice) if notice.code == errors.ShuttingDown.code:
                    wrong = errors.ShuttingDown(notice.message)
                case live_events.Summary() as summary:
                    return summary, wrong
        raise errors.SessionOver("The live session ended without its summary.")
    except errors.SidecarError as error:
        if (transcript := shown.break_off()) is None:
            raise
        return live_events.Summary(transcript), error


def _transcript_of(segments: Sequence[Segment], names: Mapping[int, str | None]) -> Transcript:
    """Return the transcript of segments in order of time: those of two channels come in another.
    ``names``: by speaker."""
    voices = (
        SpeakerProfile(number, 0.0, name=name) for number, name in names.items() if name is not None
    )
    return Transcript(
        tuple(sorted(segments, key=lambda one: (one.start, one.end))),
        language="",
        duration=max(one.end for one in segments),
        engine="",
        precision="",
        diarized=any(one.speaker is not None for one in segments),
        voices=tuple(voices),
    )
