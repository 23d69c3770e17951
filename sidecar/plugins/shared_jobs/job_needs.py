"""What a shared job needs of its node, what a node can do, and why it cannot do a job. Pure."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.errors import AudioTooLong, SidecarError, StorageUnreachable
from sidecar.jobs.job_engine import needs_of, unmet_needs
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.wait_queue import is_long

STORAGE, LONG = "storage:", "long"
RefusalOf = Callable[[Iterable[str], Collection[str]], SidecarError | None]
"""Return why an engine that can do the second cannot do a job that needs the first; None if it
can (`job_engine.engine_refusal`)."""


@dataclass(frozen=True, slots=True)
class NodeCapabilities:
    """What a node can do: ``words`` and the longest recording that it accepts, in seconds."""

    words: tuple[str, ...] = ()
    longest_s: float = 0.0

    def without_long(self) -> "NodeCapabilities":
        """Return the same without long recordings."""
        return replace(self, words=tuple(one for one in self.words if one != LONG))

    def refusal(
        self, needs: Sequence[str], lasts_s: float, engine_refusal: RefusalOf
    ) -> SidecarError | None:
        """Return why it cannot do a job; None if it can."""
        if (error := engine_refusal(needs, self.words)) is not None:
            return error
        for need in unmet_needs(needs, self.words):
            if need.startswith(STORAGE):
                own = next(one for one in self.words if one.startswith(STORAGE))
                return StorageUnreachable(
                    f"The recording is in a {need.removeprefix(STORAGE)}, but this service uses a "
                    f"{own.removeprefix(STORAGE)}.",
                    hint="Start it with the storage of the recording (VIBEVOICE_UPLOADS).",
                )
        if lasts_s > self.longest_s:
            return AudioTooLong(
                f"The recording has {lasts_s / 3600:.1f} h; "
                f"the limit is {self.longest_s / 3600:.1f} h."
            )
        return None


def needs_of_job(record: JobRecord) -> tuple[list[str], float]:
    """Return what a job needs of its node, and the seconds of its recording; 0 if unknown."""
    needs = [*needs_of(record.options)]
    if isinstance(record.audio, StoredRecordingRef):
        needs.append(f"{STORAGE}{record.audio.storage}")
    if is_long(record):
        needs.append(LONG)
    lasts_s = record.audio_info.work_s or 0.0
    return needs, lasts_s if math.isfinite(lasts_s) else 0.0
