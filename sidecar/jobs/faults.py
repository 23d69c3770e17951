"""Faults: what is to blame for an error, and when a job is a poison job. Pure.

What each does to a job and its attempts: docs/operations.md, "Faults".
"""

import errno
from enum import StrEnum

from sidecar import errors
from sidecar.bounded_dict import BoundedDict
from sidecar.jobs.job_record import JobRecord

_OF_NODE = (
    *(errors.DiskFull, errors.SpoolUnwritable, errors.UploadsFull),
    *(errors.MachineBusy, errors.EngineStuck),
)
_OF_STORAGE = (errors.StorageUnreachable, errors.JournalUnreachable)
_ERRNOS_OF_RECORDING = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.EINVAL, errno.ENXIO, errno.ENAMETOOLONG),
}
"""There is no such recording, or something else has its name."""
CRASH_WEIGHT = 5
"""Weight of a crash of the engine's worker process while the service lives on."""
SERVICE_DEATH_WEIGHT = 1
POISON_WEIGHT = 10
"""Weight at which a job fails: two crashes, ten deaths, or one crash and five deaths."""
MAX_FAULTY_JOBS = 1000
"""Jobs that are remembered because they met a fault."""


class Fault(StrEnum):
    """What is to blame for an error in a job."""

    RECORDING = "recording"
    """The recording, its options, or the engine on it: the attempt counts, and the job may end."""
    NODE = "node"
    """This service for now: its disk, its descriptors, its upstreams. The job waits, and no attempt
    counts."""
    DECODER = "decoder"
    """What stops an ffmpeg, such as the kernel for lack of memory, or an upstream. The job goes
    behind others, and the attempt counts as the death of a service."""
    STORAGE = "storage"
    """The storage of recordings or the database for now. The job waits, and no attempt counts."""


def fault_of(error: BaseException) -> Fault:
    """Return what is to blame for an error; one of ours that was raised from an error of the system
    is judged by that.

    An unknown error is the recording's: else a job that meets a bug would be tried for ever. An
    unknown error of the system is the storage's: it may be over in a moment, and a job that has
    ended does not come back."""
    if isinstance(error, errors.AudioPathForbidden):  # a client's own file
        return Fault.RECORDING
    if isinstance(error, errors.SidecarError) and isinstance(error.__cause__, OSError):
        return fault_of(error.__cause__)
    if isinstance(error, errors.SidecarError) and error.counts_as_death:
        return Fault.DECODER
    if isinstance(error, (*_OF_NODE, MemoryError)):
        return Fault.NODE
    if isinstance(error, errors.SidecarError) and error.ends_requests_only:
        return Fault.NODE
    if isinstance(error, _OF_STORAGE):
        return Fault.STORAGE
    if isinstance(error, RuntimeError) and errors.machine_error(error):  # no thread
        return Fault.NODE
    if not isinstance(error, OSError) or error.errno in _ERRNOS_OF_RECORDING:
        return Fault.RECORDING
    return Fault.NODE if error.errno in errors.MACHINE_ERRNOS else Fault.STORAGE


def poison_error(record: JobRecord) -> errors.EngineCrashed | None:
    """Return the error of a job after its crashes and deaths; None if it is tried again."""
    crashes, deaths = record.crashes, record.interruptions
    if crashes * CRASH_WEIGHT + deaths * SERVICE_DEATH_WEIGHT < POISON_WEIGHT:
        return None
    if not deaths:
        return errors.EngineCrashed()
    died = f"{deaths} services, decoders or upstreams ended while they worked on this"
    also = f", and the engine's process died {crashes} times" if crashes else ""
    return errors.EngineCrashed(f"{died}{also}, without progress between the attempts.")


class FaultHistory:
    """Jobs that met a fault of the node or the storage. It tells one that only they have, such as a
    bad sector, from one that all jobs would meet."""

    def __init__(self) -> None:
        self._met = BoundedDict[str, int](MAX_FAULTY_JOBS)
        """Jobs, and `_well` when they met it first."""
        self._well = 0
        """Number of jobs that met none."""

    def note_well(self, job_id: str) -> None:
        """Note that a job met no fault."""
        self._met.pop(job_id, None)
        self._well += 1

    def note_fault(self, job_id: str) -> bool:
        """Note that a job met a fault; return whether all may have to wait: none went well between
        another's fault and this one. A job that met it before others went well has it alone."""
        before = self._met.pop(job_id, self._well)
        general = before == self._well and self._well in self._met.values()
        self._met[job_id] = before
        return general
