"""Utterances and word deltas of a session. Pure.

A client begins a request, sends its audio and ends it. Each end is answered by exactly one
`TurnEnded`, and each dropped request by one `TurnDropped`, all in order.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import WholeSamples
from sidecar.plugins.yap.messages import YapIds, bad_payload, message_text
from sidecar.transcripts.transcript import Notice, join_texts
from sidecar.transcripts.transcript_formats import segment_body
from sidecar.transcripts.word_timing import one_line, split_atoms, unsent_text

BYTES_A_SECOND = 32_000


class YapWordDeltas:
    """Word deltas of one utterance, which is sent segment by segment, in order."""

    def __init__(self) -> None:
        self._segment: int | None = None
        """Number of the current segment; `None` before the first."""
        self._sent = ""
        """Text of it that was sent."""
        self._last = ""
        """Last character of the utterance that was sent."""
        self._begin: float | None = None
        self._until = 0.0
        """End of the speech whose words were sent before its final."""
        self._more = ""
        """Words that were sent of it beyond its final: those of the next one, if it was cut."""

    def begins(self, at: float) -> None:
        """Record the start of the utterance's first segment: a later segment may arrive before
        it."""
        self._begin = at

    def partial(self, segment: int, stable: str, start: float = 0.0, end: float = 0.0) -> str:
        """Return the new words in the stable beginning of a segment from ``start`` to ``end``.
        Return "" while an earlier segment has not ended."""
        if self._segment is None:
            if self._begin is not None and start > self._begin:
                return ""
            self._segment = segment
        if segment != self._segment:
            return ""
        new = self._unsent(stable, self._sent or self._rest(start))
        if new:
            self._sent, self._until = one_line(stable), end
        return new

    def final(self, segment: int, text: str, start: float = math.inf) -> str:
        """Return the unsent words of a segment that has ended, which began at ``start``."""
        sent = (self._sent if segment == self._segment else "") or self._rest(start)
        new = self._unsent(text, sent)
        if self._segment is None or segment >= self._segment:
            whole = one_line(text)
            cut = len(whole) if sent.startswith(whole) else len(_beginning(sent, whole))
            self._more = sent[cut:].strip()
            self._segment, self._sent = segment + 1, ""
        return new

    def _rest(self, start: float) -> str:
        """Return the words that were sent of a segment that begins before their end: it was cut
        off from the one before, where that was too long or another speaker began."""
        return self._more if start < self._until else ""

    def _unsent(self, text: str, sent: str) -> str:
        """Return what is new in the text of a segment of which ``sent`` was sent."""
        whole = one_line(text)
        if sent:
            new = unsent_text(whole, sent)
        else:
            new = join_texts((self._last, whole))[len(self._last) :]
        self._last = new[-1:] or self._last
        return new


def _beginning(text: str, other: str) -> str:
    """Return as many words of ``text`` as ``other`` has."""
    return "".join(split_atoms(text)[: len(split_atoms(other))])


@dataclass(eq=False, slots=True)
class YapUtterance:
    """Utterance of a request, and its words that were sent. ``silent``: the client wants no more
    results; ``dropped``: it never ended, and the session drops it; ``shed``: it gets no words."""

    ids: YapIds
    bytes: int = 0
    samples: WholeSamples = field(default_factory=WholeSamples)
    silent: bool = False
    dropped: bool = False
    shed: bool = False
    deltas: YapWordDeltas = field(default_factory=YapWordDeltas)
    finals: list[live_events.Final] = field(default_factory=list)

    def revise(self, speakers: Mapping[int, int]) -> None:
        """Take over the revised speakers of segments."""
        for index, one in enumerate(self.finals):
            if (speaker := speakers.get(one.segment_number)) is not None:
                self.finals[index] = replace(one, segment=replace(one.segment, speaker=speaker))


class YapUtterances:
    """Utterances of one connection. ``backlog_s``: audio that may wait for the engine, in
    seconds."""

    def __init__(self, backlog_s: float = 0.0) -> None:
        self._active: YapUtterance | None = None
        self._waiting: deque[YapUtterance] = deque()
        """Utterances that have ended and have no final yet, and those to be dropped."""
        self._turn = 0
        """Turn of the first of them."""
        self._last = YapIds()
        self._names: dict[int | None, str | None] = {}
        """Enrolled speakers by the numbers of their speakers, as identified so far."""
        self._backlog_s = backlog_s

    @property
    def unanswered(self) -> bool:
        """Return whether the client waits for results, or has sent audio of which some come."""
        active = self._active is not None and self._active.bytes > 0
        return active or any(not one.silent for one in self._waiting)

    def begin(self, ids: YapIds) -> bool:
        """Begin a request; an unfinished one is dropped without an answer. Return whether the
        session has to drop audio."""
        self._last = ids
        previous = self._active
        if previous is not None and previous.ids.request == ids.request:
            return False
        self._active = YapUtterance(ids)
        return self._drop(previous)

    def active(self, ids: YapIds) -> YapUtterance:
        """Return the utterance of a request that is the active one, which receives audio.

        Raises:
            YapRefused: it is not.
        """
        if self._active is None or self._active.ids.request != ids.request:
            raise bad_payload("no_active_request", "Begin it first: commit with 'final' false.")
        return self._active

    def end(self, ids: YapIds) -> None:
        """End the active request.

        Raises:
            YapRefused: another request is active, or none.
        """
        if self._active is None:
            self.active(ids)
        elif self._active.ids.request != ids.request:
            raise bad_payload(
                "request_id_mismatch",
                "Another request is active.",
                active_request_id=self._active.ids.request,
            )
        else:
            self._waiting.append(self._active)
            self._active = None

    def cancel(self, ids: YapIds) -> bool:
        """Cancel the request with this id, active or ended. Return as `begin`."""
        for one in self._waiting:
            one.silent = one.silent or one.ids.request == ids.request
        previous = self._active
        if previous is None or previous.ids.request != ids.request:
            return False
        self._active = None
        return self._drop(previous)

    def frames_of(self, event: live_events.LiveEvent) -> Iterator[str]:
        """Yield the frames of an event."""
        if isinstance(event, live_events.TurnDropped):
            self._turn = event.turn + 1
            if self._waiting and self._waiting[0].dropped:
                self._waiting.popleft()
        elif isinstance(event, live_events.TurnEnded):
            ended = self._of(event.turn)
            self._turn = event.turn + 1
            if ended is not None and ended.shed and not ended.silent:
                yield self._overload(ended.ids, "utterance", ended.bytes / BYTES_A_SECOND)
            yield from self._ended(event.text)
        elif isinstance(event, live_events.NoticeRaised):
            shed = None if event.turn is None else self._of(event.turn)
            if event.notice.code != live_events.UTTERANCE_DROPPED:
                yield self._notice(event.notice)
            elif shed is not None:
                shed.shed = True  # reported at its end, with its duration
        elif isinstance(event, live_events.SpeakersRevised):
            for speaker, name in event.names.items():
                self._names[speaker] = name
            for one in (*self._waiting, *filter(None, [self._active])):
                one.revise(event.speakers)
        elif isinstance(event, live_events.SpeechStarted):
            utterance = self._of(event.turn)
            if utterance is not None:
                utterance.deltas.begins(event.at)
        elif isinstance(event, live_events.Partial | live_events.Final):
            utterance = self._of(event.turn)
            if utterance is not None and not utterance.silent:
                yield from _words(utterance, event)

    def _of(self, turn: int) -> YapUtterance | None:
        index = turn - self._turn
        if 0 <= index < len(self._waiting):
            return self._waiting[index]
        return self._active if index == len(self._waiting) else None

    def _ended(self, text: str) -> Iterator[str]:
        if self._waiting:
            utterance = self._waiting.popleft()
        elif self._active is not None:  # ended by the service, not by the client
            utterance, self._active = self._active, None
        else:
            return
        if utterance.silent:
            return
        ids = utterance.ids
        usage = {"type": "duration", "seconds": round(utterance.bytes / BYTES_A_SECOND, 3)}
        yield message_text("final", ids, {"normalized_text": text})
        yield message_text("done", ids, {"usage": usage})
        transcription: dict[str, object] = {"text": text, "usage": usage}
        names = [self._names.get(one.segment.speaker, one.name) for one in utterance.finals]
        if any(name is not None for name in names):
            transcription["segments"] = [
                segment_body(one.segment, name)
                for one, name in zip(utterance.finals, names, strict=True)
            ]
        yield message_text("transcription.done", ids, transcription)

    def _notice(self, notice: Notice) -> str:
        ids = self._active.ids if self._active else self._last
        if notice.code != live_events.PARTIALS_LATE:
            return message_text(
                "status", ids, {"kind": "notice", "code": notice.code, "message": notice.message}
            )
        return self._overload(ids, "partials", 0.0)

    def _overload(self, ids: YapIds, source: str, dropped_s: float) -> str:
        dropped = {"dropped_seconds": round(dropped_s, 3), "source": source}
        backlog = {"max_backlog_seconds": self._backlog_s}
        return message_text("status", ids, {"kind": "overload_drop", **dropped, **backlog})

    def _drop(self, utterance: YapUtterance | None) -> bool:
        """Drop an unfinished utterance; it has a turn in the session only if it has audio."""
        if utterance is None or not utterance.bytes:
            return False
        utterance.silent = utterance.dropped = True
        self._waiting.append(utterance)
        return True


def _words(
    utterance: YapUtterance, event: live_events.Partial | live_events.Final
) -> Iterator[str]:
    if isinstance(event, live_events.Partial):
        delta = utterance.deltas.partial(event.segment_number, event.stable, event.start, event.end)
    else:
        segment = event.segment
        delta = utterance.deltas.final(event.segment_number, segment.text, segment.start)
        utterance.finals.append(event)
    if delta:
        yield message_text("transcription.delta", utterance.ids, {"delta": delta})
        yield message_text("token", utterance.ids, {"text": delta})
