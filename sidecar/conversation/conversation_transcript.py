"""Transcript of a conversation. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sidecar.conversation import conversation_events
from sidecar.conversation.audio_pacing import ReplyAudioFrame
from sidecar.conversation.chat_completions import ChatRole
from sidecar.transcripts.transcript import Segment, SpeakerProfile, Transcript

PERSON, MACHINE = 0, 1
"""Speaker numbers of the user and the assistant."""
MAX_ENTRIES = 5_000
"""Maximum number of entries; the oldest are dropped."""
MAX_CHARACTERS = 1_000_000
"""Maximum number of characters in all entries; a conversation of a day has fewer."""
NEVER = float("-inf")


@dataclass(slots=True)
class _TranscriptEntry:
    """Utterance or reply, by the transcript's clock; ``turn`` is a reply's number."""

    speaker: int
    began: float
    ended: float
    text: str
    turn: int = 0


class ConversationTranscript:
    """Transcript of one conversation since ``began``, made from its outputs in order."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._lines: deque[_TranscriptEntry] = deque(maxlen=MAX_ENTRIES)
        self._person: _TranscriptEntry | None = None
        self._reply: _TranscriptEntry | None = None

    def take(self, told: conversation_events.ConversationOutput, at: float) -> None:
        """Add an output, sent at ``at``."""
        match told:
            case conversation_events.UserTurnStarted(began=began):
                self._person = _TranscriptEntry(PERSON, began, NEVER, "")
            case conversation_events.UserTurnPartial(text) if self._person is not None:
                self._person.text = text
            case conversation_events.UserTurnStopped(ended) if self._person is not None:
                self._person.ended = ended
            case conversation_events.UserTurnDropped():
                self._person = None
            case conversation_events.UserTurnFinal(text, backchannel=(began, ended)):
                self._keep(_TranscriptEntry(PERSON, began, ended, text))
            case conversation_events.UserTurnFinal(text):
                self._said(text, at)
            case conversation_events.HistoryEntryRecorded(role=ChatRole.USER, text=text):
                self._keep(_TranscriptEntry(PERSON, at, at, text))
            case conversation_events.ReplyStarted(turn):
                self._reply = _TranscriptEntry(MACHINE, at, at, "", turn)
            case ReplyAudioFrame(turn=turn, start=0.0):
                self._spoken(turn, at)
            case conversation_events.ReplyEnded(turn=turn, text=text):
                self._ended(turn, text, at)
            case conversation_events.ReplyTruncated(turn=turn, text=text):
                self._truncated(turn, text)

    def transcript(
        self, at: float, *, engine: str, precision: str, language: str, machine: str
    ) -> Transcript:
        """Return the transcript up to ``at``, with the words that the user is saying at its end.
        ``engine`` and ``precision`` are the recognizer's; ``machine`` is the assistant's name."""
        lines = [one for one in (*self._lines, self._person) if one is not None and one.text]
        segments = list[Segment]()
        for line in lines:
            ended = at if line.ended == NEVER else line.ended
            start, end = self._since(line.began), self._since(max(line.began, ended))
            segments.append(Segment(start, end, line.text, line.speaker))
        segments.sort(key=lambda one: (one.start, one.end))
        spoke = {one.speaker for one in lines}
        names = (SpeakerProfile(MACHINE, 0.0, name=machine),) if MACHINE in spoke else ()
        about = language, self._since(at), engine, precision
        return Transcript(tuple(segments), *about, diarized=True, voices=names)

    def _said(self, text: str, at: float) -> None:
        line, self._person = self._person or _TranscriptEntry(PERSON, at, at, ""), None
        self._keep(_TranscriptEntry(PERSON, line.began, max(line.began, line.ended), text))

    def _spoken(self, turn: int, at: float) -> None:
        if self._reply is not None and self._reply.turn == turn:
            self._reply.began = at

    def _ended(self, turn: int, text: str, at: float) -> None:
        line = self._reply
        if line is None or line.turn != turn:
            return
        self._reply = None
        if text:
            self._keep(_TranscriptEntry(MACHINE, line.began, at, text, turn))

    def _keep(self, line: _TranscriptEntry) -> None:
        """Add an entry; drop the oldest if there are too many characters."""
        self._lines.append(line)
        while len(self._lines) > 1 and sum(len(one.text) for one in self._lines) > MAX_CHARACTERS:
            self._lines.popleft()

    def _truncated(self, turn: int, text: str) -> None:
        for line in self._lines:
            if line.speaker == MACHINE and line.turn == turn:
                line.text = text

    def _since(self, at: float) -> float:
        return round(max(0.0, at - self._began), 3)
