"""What happens to a job: events with numbers, each a frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Self

from sidecar import errors
from sidecar.transcripts.history import Step
from sidecar.transcripts.transcript import Checkpoint, Event, Progress, Transcript


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as plain values."""

    code: str
    detail: str
    hint: str
    retry_after: int | None = None

    @classmethod
    def of(cls, error: errors.SidecarError) -> Self:
        """What ``error`` says."""
        return cls(**error.to_wire())

    def error(self) -> errors.SidecarError:
        """The error that it was, to be raised."""
        return errors.from_wire(asdict(self))


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt starts, from what is settled; ``anew``: from nothing all the same, because what
    was settled means nothing to the engine. ``behind``: it does when that job has ended, and waits
    at the engine until then."""

    anew: bool = False
    behind: str = ""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The engine's process died in it; what follows is tried alone."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """Back to the queue, as if nothing had happened; ``counted``: the attempt was one, in which the
    engine's process died or (``passed``) which showed that it cannot be done there."""

    counted: bool = False
    alone: bool = False
    passed: bool = False


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The service died while it was there, and has begun again; it waits, and what follows is tried
    alone. ``waited``: so it did then, at the engine."""

    waited: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Of those that could work on it nobody who is there can, and what they say; None: somebody
    can again."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """What the engine said, ``processing_s`` seconds into the attempt. With its transcript a job is
    done, whatever becomes of the engine."""

    event: Event
    processing_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """It ended without a transcript."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody ended it."""


@dataclass(frozen=True, slots=True)
class Edited:
    """Somebody changed the transcript, after the end. ``ready``: a transcript and what the step
    makes of it, where that was worked out before; no part of what is kept."""

    step: Step
    ready: tuple[Transcript, Transcript] | None = field(default=None, compare=False, repr=False)


Change = Begun | Crashed | PutBack | Interrupted | Refused | Reported | Failed | Cancelled | Edited


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of one job: the ``seq``-th, ``at`` a time of day."""

    seq: int
    at: float
    change: Change

    @property
    def fleeting(self) -> bool:
        """Whether only the last of its kind is worth keeping: each says all that those before it
        said."""
        return isinstance(self.change, Reported) and isinstance(self.change.event, Progress)

    @property
    def ends(self) -> bool:
        """Whether a job that is over after it was not so before."""
        return not isinstance(self.change, Edited)

    @property
    def worn(self) -> JobEvent:
        """What is left of it once its job has ended: nobody goes on from a checkpoint any more, nor
        works out an edit that was applied."""
        match self.change:
            case Reported(Checkpoint() as checkpoint, processing_s):
                change = Reported(replace(checkpoint, state={}), processing_s)
                return replace(self, change=change)
            case Edited(step):
                return replace(self, change=Edited(step))
        return self
