"""End of an attempt: what becomes of its job, and what the attempt counts as. Pure.

Queue, runs, recovery and the nodes of a cluster say what happened; this module alone decides, and
`Job.end_attempt` applies it.
"""

from dataclasses import dataclass, replace

from sidecar import errors
from sidecar.errors import Fault
from sidecar.jobs.faults import ENDS_REQUESTS, fault_of, known_error
from sidecar.jobs.job_record import (
    CancelledChange,
    CountsAs,
    FailedChange,
    JobFailure,
    JobRecord,
    RequeuedChange,
)
from sidecar.workers.worker_process import WorkerDied

CRASH_WEIGHT = 5
"""Weight of a crash of the engine's worker process while the service lives on, and of an error
that the engine raises behind its first report: each costs the engine as much as a whole run."""
SERVICE_DEATH_WEIGHT = 1
POISON_WEIGHT = 10
"""Weight at which a job fails: two crashes, ten deaths, or one crash and five deaths."""
# One machine may be at fault. If two fail alike, the recording is to blame.
MAX_NODE_ATTEMPTS = 2
"""Nodes that try a job before it fails."""


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """End of an attempt. ``changes``: what becomes of the job; none if it has ended already.
    ``error``: what the attempt met; none if it was the last of a job whose attempts show that its
    recording is to blame. ``vain_s``: seconds for which it kept the engine from others in vain."""

    changes: tuple[RequeuedChange | FailedChange | CancelledChange, ...] = ()
    error: errors.SidecarError | None = None
    vain_s: float = 0.0


REQUEUED = AttemptEnd((RequeuedChange(),))
"""The job waits for its next turn."""
FOR_ALONE = AttemptEnd((RequeuedChange(CountsAs.ALONE),))
"""The job waits for a turn in which no other runs beside it."""


def attempt_end(
    record: JobRecord,
    error: Exception,
    *,
    shared: bool = False,
    vain_s: float = 0.0,
    late: bool = False,
    alike: bool = False,
    planned: bool = False,
) -> AttemptEnd:
    """Return the end of an attempt that met an error. ``record``: the job, which runs. ``shared``:
    whether other nodes may do it. ``late``: whether the engine raised it after it had reported
    progress. ``alike``: whether that or its process's death happened in others, too. ``planned``:
    whether its memory on the device was, and so was there when it began."""
    fault, known = fault_of(error), known_error(error)
    if isinstance(known, errors.EngineCrashed) or (late and record.kept):
        weak = alike and record.kept  # the engine may be to blame, although its probe succeeds
        return _counted(record, CountsAs.DEATH if weak else CountsAs.CRASH, known)
    blamed = fault is Fault.RECORDING and isinstance(error, errors.GpuOutOfMemory)
    if blamed and record.kept and not last_attempt(record):  # one reading may have come too late
        again = errors.GpuOutOfMemory(known.detail, hint=known.hint)
        return _counted(record, CountsAs.CRASH, again)
    if fault is Fault.RECORDING or (fault in ENDS_REQUESTS and not record.kept):
        if shared and fault is not Fault.UNKNOWN and may_pass_on(record):  # it may be the node's
            return AttemptEnd((RequeuedChange(CountsAs.UNABLE_NODE),), known)
        return AttemptEnd((FailedChange(JobFailure.of(known)),), known)
    if counts(known) or (planned and isinstance(known, errors.GpuOutOfMemory)):
        return _counted(record, CountsAs.DEATH, known, vain_s)
    counts_as = CountsAs.ALONE if isinstance(error, WorkerDied) else CountsAs.NOTHING
    return AttemptEnd((RequeuedChange(counts_as),), known, vain_s)


def _counted(
    record: JobRecord, counts_as: CountsAs, error: errors.SidecarError, vain_s: float = 0.0
) -> AttemptEnd:
    """Return the end of an attempt that counts. If that ends the job, the recording is to blame."""
    crashes = record.crashes + (counts_as is CountsAs.CRASH)
    deaths = record.interruptions + (counts_as is CountsAs.DEATH)
    poison = poison_error(replace(record, crashes=crashes, interruptions=deaths))
    requeued = RequeuedChange(counts_as)
    if poison is None:
        return AttemptEnd((requeued,), error, vain_s)
    raised = (errors.EngineFailed, errors.GpuOutOfMemory, errors.OutOfMemory)
    # Those are of an attempt in which no process died of a fault.
    last = error if type(error) in raised or fault_of(error) is Fault.UNKNOWN else poison
    return AttemptEnd((requeued, FailedChange(JobFailure.of(last))))


def may_pass_on(record: JobRecord) -> bool:
    """Return whether another node may try a job that this one cannot do."""
    return record.passed + 1 < MAX_NODE_ATTEMPTS


def counts(error: errors.SidecarError) -> bool:
    """Return whether an attempt that waits for another one counts like the death of a service: the
    recording may have caused the error."""
    return error.counts_as_death or fault_of(error) is Fault.UNKNOWN


def last_attempt(record: JobRecord) -> bool:
    """Return whether a job fails if the engine's process dies in it: its next attempt has to be by
    an engine that works."""
    return poison_error(replace(record, crashes=record.crashes + 1)) is not None


def poison_error(record: JobRecord) -> errors.EngineCrashed | None:
    """Return the error of a job after its crashes and deaths; None if it is tried again."""
    crashes, deaths = record.crashes, record.interruptions
    if crashes * CRASH_WEIGHT + deaths * SERVICE_DEATH_WEIGHT < POISON_WEIGHT:
        return None
    if not deaths:
        return errors.EngineCrashed()
    died = f"{deaths} services, decoders or upstreams ended while they worked on this"
    also = f", and the engine failed {crashes} times" if crashes else ""
    return errors.EngineCrashed(f"{died}{also}, without progress between the attempts.")
