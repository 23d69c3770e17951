"""Faults: what is to blame for an error, and breakers of what jobs need.

Each class of errors names its `errors.Fault`, and whether its recording may have caused it. What
each does to a job and its attempts: docs/operations.md, "Faults".
"""

import errno
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.errors import Fault
from sidecar.workers.worker_process import WorkerDied

log = logging.getLogger(__name__)

RETRY_S = 3.0
"""First pause after an error: a person frees a disk within minutes."""
LONGEST_PAUSES = 20
"""Longest pause, in first ones: a minute for a breaker, ten for a job."""
REST_PAUSES = 10
"""First pause of a job of its own, in those of a breaker: others have their turns."""
HOLDS_ALL = frozenset({Fault.DISK, Fault.SPOOL, Fault.MEMORY})
"""Faults that every job would meet: while such a breaker is open, jobs are tried one by one."""
PROBED = frozenset({Fault.ENGINE, Fault.UPSTREAM})
"""Faults of what transcribes: if a recording may have caused such an error, `jobs.engine_probe`
finds out."""
HOLDS_KEPT = HOLDS_ALL | PROBED
"""The same, of kept jobs; a request is tried at once, and gets the error."""
_HOLDS = {True: HOLDS_KEPT, False: HOLDS_ALL}
"""Faults whose breakers hold a job, by whether it is kept."""
PERSISTENCE = frozenset({Fault.DISK, Fault.SPOOL, Fault.DATABASE})
"""What works if the events of a job are persisted."""
ENDS_REQUESTS = frozenset({Fault.ENGINE, Fault.DEVICE, Fault.UPSTREAM, Fault.UNKNOWN})
"""Faults that end a job for which a request waits; a kept job waits until they are over."""
_ERRNOS_OF_RECORDING = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.EINVAL, errno.ENXIO, errno.ENAMETOOLONG),
}
"""There is no such recording, or something else has its name."""


def fault_of(error: BaseException) -> Fault:
    """Return what is to blame for an error; one of ours that was raised from an error of the system
    is judged by that.

    An unknown error of the system is the storage's."""
    if isinstance(error, WorkerDied):
        return known_error(error).fault
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


def known_error(error: Exception) -> errors.SidecarError:
    """Return an error as a client gets it."""
    if isinstance(error, errors.SidecarError):
        return error
    if isinstance(error, WorkerDied):
        disk_hung = errors.StorageUnreachable("The disk of the recording did not answer.")
        return disk_hung if error.reading else errors.EngineCrashed()
    return errors.MachineBusy(f"{error}") if passes(error) else errors.SidecarError()


@dataclass(slots=True)
class Breaker:
    """Breaker of one resource. ``error``: the last that it met. ``tries``: those in vain.
    ``doubted``: recordings may have caused one, so kept jobs wait until a probe succeeds.
    ``judged``: the probe in progress began after the last that a kept job met."""

    error: errors.SidecarError
    until: float = 0.0
    tries: int = 0
    doubted: bool = False
    judged: bool = True

    def pause(self, first_s: float) -> None:
        """Hold jobs for a pause that doubles."""
        pause_s = backoff_s(self.tries, first_s, LONGEST_PAUSES * first_s)
        self.tries, self.until = self.tries + 1, max(self.until, time.monotonic() + pause_s)


class Breakers:
    """Breakers of what jobs need: each is open from an error until a success."""

    def __init__(self, retry_s: float = RETRY_S) -> None:
        self._retry_s = retry_s
        self.open: dict[Fault, Breaker] = {}
        """Those that are open, the oldest first."""
        self.crashes: dict[str, int | str] = {}
        """Jobs in which the engine crashed since a recording was done, and where."""
        self.on_close: Callable[[], None] = lambda: None
        """Called when jobs that were held may start."""

    @property
    def broken(self) -> Mapping[Fault, errors.SidecarError]:
        """Return the last error of each open breaker, the oldest first."""
        return {fault: breaker.error for fault, breaker in self.open.items()}

    @property
    def fresh_first(self) -> bool:
        """Return whether jobs are tried one by one, those first that were tried in vain least
        often: others may meet what those met, or show that it was theirs."""
        return bool(self.open.keys() & HOLDS_KEPT or self.crashes)

    @property
    def doubted(self) -> bool:
        """Return whether kept jobs wait until a probe of the engine succeeds."""
        return any(one.doubted for one in self.open.values())

    def failed(self, error: errors.SidecarError, *, kept: bool = True) -> None:
        """Open the breaker of an error; one that is open holds jobs for longer after each try of a
        job that it holds, or a probe. Others are tried however often, so each would keep those
        waiting. ``kept``: whether a kept job met it."""
        fault = fault_of(error)
        breaker = self.open.get(fault)
        again = breaker is not None and breaker.error.code == error.code
        log.log(
            logging.DEBUG if again else logging.WARNING, "jobs wait until this is over: %s", error
        )
        doubted = fault in PROBED and error.counts_as_death
        holds = fault in _HOLDS[kept] if breaker else not doubted  # the first probe is at once
        breaker = self.open.setdefault(fault, Breaker(error))
        breaker.error, breaker.doubted = error, breaker.doubted or doubted
        breaker.judged &= not (kept and doubted)
        if holds and time.monotonic() >= breaker.until:
            breaker.pause(self._retry_s)
        # that of our errors is for our clients, and the recording may have caused the others
        if holds and fault is Fault.UPSTREAM and not error.counts_as_death:
            breaker.until = max(breaker.until, time.monotonic() + (error.retry_after or 0.0))

    def crashed(self, job_id: str, where: int | str) -> bool:
        """Note in which job the engine's process died (``where``: number of its load), or raised an
        error behind its first report (the job). Return whether that happened elsewhere in another
        job since the last recording that was done."""
        alike = any(one != job_id and place != where for one, place in self.crashes.items())
        self.crashes[job_id] = where
        return alike

    def done(self, *, persisted: bool) -> None:
        """Note that a recording is done. ``persisted``: whether that needed no disk, either."""
        self.crashes.clear()
        self.succeeded(Fault if persisted else {*Fault} - PERSISTENCE)

    def reported(self) -> None:
        """Note that an engine reports something: it works, but may yet die of the recording."""
        doubted = {fault for fault, breaker in self.open.items() if breaker.doubted}
        self.succeeded({*Fault} - PERSISTENCE - doubted)

    def succeeded(self, faults: Iterable[Fault] = Fault) -> None:
        """Close breakers."""
        if [self.open.pop(one) for one in faults if one in self.open]:
            self.on_close()

    def held_until(self, *, kept: bool) -> float:
        """Return until when no job is started (`time.monotonic`)."""
        return max((one.until for one in self._holding(kept)), default=0.0)

    def begin_try(self, *, kept: bool) -> None:
        """Hold other jobs while one is tried."""
        for breaker in self._holding(kept):
            breaker.pause(self._retry_s)

    def begin_probe(self) -> None:
        """Hold kept jobs until `end_probe`."""
        for breaker in self.open.values():
            breaker.until = math.inf if breaker.doubted else breaker.until
            breaker.judged = True

    def end_probe(self, error: errors.SidecarError | None) -> None:
        """Note what a probe met; None: the engine works, or did before a kept job met an error
        while the probe went on, for which another one is due."""
        if error is None:
            late = {fault for fault, breaker in self.open.items() if not breaker.judged}
            for fault in late:
                self.open[fault].until = 0.0
            self.succeeded({*Fault} - PERSISTENCE - late)
            return
        for breaker in self.open.values():
            if breaker.doubted:
                breaker.until = 0.0
                breaker.pause(self._retry_s)
        self.failed(error)

    def _holding(self, kept: bool) -> Iterator[Breaker]:
        return (breaker for fault, breaker in self.open.items() if fault in _HOLDS[kept])

    def rest_s(self, error: errors.SidecarError, attempts: int) -> float:
        """Return how long a job waits of its own after so many vain attempts in a row: for longer
        than those that wait for the same, as it may be the only one that meets the error. After a
        first crash it waits for the probe only."""
        if isinstance(error, errors.EngineCrashed) and attempts == 1:
            return 0.0
        if fault_of(error) in HOLDS_ALL | {Fault.UPSTREAM} and not error.counts_as_death:
            return backoff_s(attempts, self._retry_s, LONGEST_PAUSES * self._retry_s)
        first_s = REST_PAUSES * self._retry_s
        return backoff_s(attempts - 1, first_s, LONGEST_PAUSES * first_s)
