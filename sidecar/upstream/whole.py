"""What was heard in the pieces as one transcript: times shifted, speakers for all of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sidecar.diarization.attribution import attributed
from sidecar.interfaces.engine import AUTO, TranscribeOptions
from sidecar.transcripts.speaker_turns import (
    Turn,
    in_order_of_appearance,
    matched,
    together,
    within,
)
from sidecar.transcripts.transcript import BY_RULE, Notice, Segment, Transcript
from sidecar.upstream.dialect import Answer
from sidecar.upstream.pieces import Piece

NAME = "upstream"
LEAST_SHARED_S = 0.5
"""What a server's speaker and a voice must have in common to be taken for one."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in a piece, and by whom (host and port)."""

    piece: Piece
    answer: Answer
    server: str

    @property
    def by_voices(self) -> bool:
        """Whether its own speakers were told apart as the turns are, with less to go by."""
        return self.answer.local_voices is not None and self.answer.local_voices.same

    def settled(self) -> Heard:
        """What of it is needed to the end: neither sound nor vectors."""
        said = self.answer.local_voices
        bare = None if said is None else replace(said, windows="")
        return replace(
            self, piece=self.piece.silent(), answer=replace(self.answer, local_voices=bare)
        )

    def without_guesses(self) -> Heard:
        """The same where nobody wants to know when each word was said, and nobody knows it."""
        bare = tuple(
            replace(one, words=(), words_by="") if one.words_by == BY_RULE else one
            for one in self.answer.segments
        )
        return replace(self, answer=replace(self.answer, segments=bare))


def shifted(segments: Sequence[Segment], by_s: float) -> list[Segment]:
    """The same segments so many seconds later, their words too."""
    return [
        replace(
            one,
            start=one.start + by_s,
            end=one.end + by_s,
            words=tuple(
                replace(word, start=word.start + by_s, end=word.end + by_s) for word in one.words
            ),
        )
        for one in segments
    ]


def placed(heard: Heard) -> list[Segment]:
    """The segments of a piece on the recording's clock, within the piece."""
    start_s, end_s = heard.piece.start_s, heard.piece.end_s
    return [
        replace(one, start=min(max(one.start, start_s), end_s), end=min(one.end, end_s))
        for one in shifted(heard.answer.segments, start_s)
        if one.start <= end_s
    ]


def with_speakers(
    heard: Sequence[Heard], turns: Sequence[Turn] | None, *, diarize: bool
) -> list[Segment]:
    """The segments of all pieces, their speakers numbered in order of appearance.

    ``turns``: who speaks when in the whole recording; None where nobody looked. A server's own
    speakers are kept where it heard all of it; of several pieces each has its own, which are
    matched with the turns, or say nothing beside them (`LocalVoices.same`).
    """
    found: list[Segment] = []
    for number, one in enumerate(heard):
        segments = placed(one)
        if not diarize:
            segments = [replace(segment, speaker=None) for segment in segments]
        elif one.answer.diarized and len(heard) > 1 and not (turns and one.by_voices):
            segments = _linked(segments, turns or (), 1000 * (number + 1), one)
        elif not one.answer.diarized or len(heard) > 1:
            segments = attributed(segments, turns or ())
        found += segments
    return in_order_of_appearance(sorted(found, key=lambda one: (one.start, one.end)))


def _linked(
    segments: Sequence[Segment], turns: Sequence[Turn], first: int, heard: Heard
) -> list[Segment]:
    """A piece's own speakers as those of the turns; who is none of these is somebody new."""
    theirs = [Turn(one.start, one.end, one.speaker) for one in segments if one.speaker is not None]
    ours = within(turns, heard.piece.start_s, heard.piece.end_s)
    persons = matched(together(ours, theirs, LEAST_SHARED_S), 0.0)
    return [
        one
        if one.speaker is None
        else replace(one, speaker=persons.get(one.speaker, first + one.speaker))
        for one in segments
    ]


def transcript_of(
    heard: Sequence[Heard],
    segments: Sequence[Segment],
    options: TranscribeOptions,
    duration_s: float,
    *,
    diarized: bool,
) -> Transcript:
    """All of it; ``engine`` says who heard it."""
    servers = dict.fromkeys(one.server for one in heard)
    language = options.language
    if language == AUTO:
        language = _first(one.answer.language for one in heard)
    return Transcript(
        segments=tuple(segments),
        language=language,
        duration=duration_s,
        engine=f"{NAME} {', '.join(servers)}".rstrip(),
        precision=_first(one.answer.precision for one in heard),
        diarized=diarized,
        notices=tuple(_notices(heard)),
    )


def _notices(heard: Iterable[Heard]) -> list[Notice]:
    found: dict[str, Notice] = {}
    ignored: dict[str, None] = {}
    for one in heard:
        for notice in one.answer.notices:
            found.setdefault(notice.code, notice)
        ignored |= dict.fromkeys(one.answer.ignored)
    if ignored:
        fields = ", ".join(ignored)
        found["option_ignored"] = Notice(
            "option_ignored", f"The upstream cannot follow these options: {fields}."
        )
    return list(found.values())


def _first(values: Iterable[str]) -> str:
    """The first that says something."""
    return next((value for value in values if value != AUTO), AUTO)
