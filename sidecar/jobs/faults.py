"""Faults: what is to blame for an error, and when a job is a poison job. Pure.

Each class of errors names its `errors.Fault`. What each does to a job and its attempts:
docs/operations.md, "Faults".
"""

import errno

from sidecar import errors
from sidecar.bounded_dict import BoundedDict
from sidecar.errors import Fault
from sidecar.jobs.job_record import JobRecord

ENDS_REQUESTS = frozenset({Fault.ENGINE, Fault.UPSTREAM, Fault.UNKNOWN})
"""Faults that end a job for which a request waits; a kept job waits until they are over."""
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


def fault_of(error: BaseException) -> Fault:
    """Return what is to blame for an error; one of ours that was raised from an error of the system
    is judged by that.

    An unknown error of the system is the storage's."""
    if isinstance(error, errors.AudioPathForbidden):  # a client's own file
        return Fault.RECORDING
    if isinstance(error, errors.SidecarError):
        cause = error.__cause__
        return fault_of(cause) if isinstance(cause, OSError) else error.fault
    if isinstance(error, MemoryError) or errors.lacks_resources(error):
        return Fault.MEMORY
    if not isinstance(error, OSError):
        return Fault.UNKNOWN
    if error.errno in _ERRNOS_OF_RECORDING:
        return Fault.RECORDING
    return Fault.DISK if error.errno in errors.MACHINE_ERRNOS else Fault.STORAGE


def passes(error: BaseException) -> bool:
    """Return whether another attempt may not meet an error: neither the recording nor a bug is to
    blame."""
    return fault_of(error) not in (Fault.RECORDING, Fault.UNKNOWN)


def counts(error: errors.SidecarError) -> bool:
    """Return whether an attempt that waits for another one counts like the death of a service: the
    recording may have caused the error."""
    return error.counts_as_death or fault_of(error) is Fault.UNKNOWN


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
