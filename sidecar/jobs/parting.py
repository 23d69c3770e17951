"""Speakers that are split by voice: a wish becomes the splits that can be done, and undone."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from sidecar.auth.identity import Identity
from sidecar.errors import EditImpossible, TranscriptChanged, VoicesNotKept
from sidecar.jobs.owned import OwnedJobs
from sidecar.jobs.record import JobRecord
from sidecar.transcripts.edits import Operation, Split, SplitSpeaker, Wish, edited, segments_of
from sidecar.transcripts.history import Redo, Undo
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import speaker_label
from sidecar.workers.audio_probe import Intake

ATTEMPTS = 3
"""How often voices are compared anew where somebody edits the transcript meanwhile."""


@dataclass(frozen=True, slots=True)
class Part:
    """A speaker that was split: the segments of each that it turned out to be, itself first.
    ``likeness``: the cosine between the two of them that are most alike."""

    speaker: int
    segments: tuple[tuple[int, tuple[int, ...]], ...]
    likeness: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A transcript as it was, the job as it is, and who was split by voice."""

    before: Transcript
    job: JobRecord
    parts: tuple[Part, ...] = ()


class Edits:
    """Changes transcripts of whoever asks; vectors are compared in the process that looks at
    files, for nothing here knows how."""

    def __init__(self, jobs: OwnedJobs, intake: Intake) -> None:
        self._jobs = jobs
        self._intake = intake

    async def edit(
        self,
        caller: Identity,
        job_id: str,
        wished: Undo | Redo | Sequence[Wish],
        revisions: Container[int] | None = None,
    ) -> Changed:
        """As `OwnedJobs.edit`, of what may have to be found out first.

        Raises:
            errors.SidecarError: as there.
            errors.VoicesNotKept: a speaker cannot be split by voice.
        """
        if isinstance(wished, Undo | Redo):
            return Changed(*await self._jobs.edit(caller, job_id, wished, revisions))
        for attempt in range(ATTEMPTS):
            record, transcript = await self._jobs.transcript(caller, job_id)
            revision = record.history.revision
            if revisions is not None and revision not in revisions:
                raise TranscriptChanged(f"The transcript is of revision {revision}.")
            step, parts = await self._resolved(caller, transcript, wished)
            try:
                done = await self._jobs.edit(caller, job_id, step, {revision} if parts else None)
            except TranscriptChanged:
                if revisions is not None or attempt == ATTEMPTS - 1:
                    raise
            else:
                return Changed(*done, parts)
        raise AssertionError

    async def _resolved(
        self, caller: Identity, transcript: Transcript, wished: Sequence[Wish]
    ) -> tuple[tuple[Operation, ...], tuple[Part, ...]]:
        """What is to be done, and who is split by that; each wish by what those before it do."""
        step: list[Operation] = []
        parts: list[Part] = []
        for number, wish in enumerate(wished):
            if not isinstance(wish, SplitSpeaker):
                step.append(wish)
                continue
            now = await self._jobs.in_turn(caller, edited, transcript, tuple(step))
            try:
                splits, part = await self._parted(caller, now, wish)
            except EditImpossible as error:
                raise EditImpossible(f"Operation {number}: {error.detail}") from None
            step += splits
            parts.append(part)
        return tuple(step), tuple(parts)

    async def _parted(
        self, caller: Identity, now: Transcript, wish: SplitSpeaker
    ) -> tuple[list[Split], Part]:
        places = segments_of(now, wish.speaker)
        if not now.prints:
            raise VoicesNotKept()
        found = await self._intake.parted(caller, [now.prints[at] for at in places], wish.into)
        if found is None:
            raise EditImpossible(
                f"what {speaker_label(wish.speaker)} says cannot be told apart by voice into "
                f"{wish.into or 2} people: too few of its segments are long enough."
            )
        groups, likeness = found
        of = [
            tuple(at for at, group in zip(places, groups, strict=True) if group == one)
            for one in range(max(groups) + 1)
        ]
        splits = [Split(segments) for segments in of[1:]]
        after = edited(now, splits)
        whose = tuple((after.segments[one[0]].speaker or 0, one) for one in of)
        return splits, Part(wish.speaker, whose, likeness)
