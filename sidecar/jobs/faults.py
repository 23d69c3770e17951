"""Faults: what is to blame for an error, and breakers of what jobs need.

Each class of errors names its `errors.Fault`. What each does to a job and its attempts:
docs/operations.md, "Faults".
"""

import errno
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sidecar import errors
from sidecar.concurrency import backoff_s
from sidecar.errors import Fault

log = logging.getLogger(__name__)

RETRY_S = 3.0
"""First pause after an error: a person frees a disk within minutes."""
LONGEST_PAUSES = 20
"""Longest pause, in first ones: a minute for a breaker, ten for a job."""
REST_PAUSES = 10
"""First pause of a job of its own, in those of a breaker: others have their turns."""
HOLDS_ALL = frozenset({Fault.DISK, Fault.SPOOL, Fault.MEMORY})
"""Faults that every job would meet: while such a breaker is open, jobs are tried one by one."""
HOLDS_KEPT = HOLDS_ALL | {Fault.ENGINE, Fault.UPSTREAM}
"""The same, of kept jobs; a request is tried at once, and gets the error."""
PERSISTENCE = frozenset({Fault.DISK, Fault.SPOOL, Fault.DATABASE})
"""What works if the events of a job are persisted."""
ENDS_REQUESTS = frozenset({Fault.ENGINE, Fault.UPSTREAM, Fault.UNKNOWN})
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
    return errors.MachineBusy(f"{error}") if passes(error) else errors.SidecarError()


@dataclass(slots=True)
class Breaker:
    """Breaker of one resource. ``error``: the last that it met. ``tries``: those in vain."""

    error: errors.SidecarError
    until: float = 0.0
    tries: int = 0

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
        self.on_close: Callable[[], None] = lambda: None
        """Called when jobs that were held may start."""

    @property
    def broken(self) -> Mapping[Fault, errors.SidecarError]:
        """Return the last error of each open breaker, the oldest first."""
        return {fault: breaker.error for fault, breaker in self.open.items()}

    def failed(self, error: errors.SidecarError, *, kept: bool = True) -> None:
        """Open the breaker of an error; one that is open holds jobs for longer after each try of a
        job that it holds. Others are tried however often, so each would keep those waiting.
        ``kept``: whether a kept job met it."""
        fault = fault_of(error)
        breaker = self.open.get(fault)
        again = breaker is not None and breaker.error.code == error.code
        log.log(
            logging.DEBUG if again else logging.WARNING, "jobs wait until this is over: %s", error
        )
        holds = breaker is None or fault in _held(kept=kept)
        breaker = self.open.setdefault(fault, Breaker(error))
        breaker.error = error
        if holds and time.monotonic() >= breaker.until:
            breaker.pause(self._retry_s)
        # that of our errors is for our clients, and the recording may have caused the others
        if holds and fault is Fault.UPSTREAM and not error.counts_as_death:
            breaker.until = max(breaker.until, time.monotonic() + (error.retry_after or 0.0))

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

    def _holding(self, kept: bool) -> Iterator[Breaker]:
        return (breaker for fault, breaker in self.open.items() if fault in _held(kept=kept))

    def rest_s(self, error: errors.SidecarError, attempts: int) -> float:
        """Return how long a job waits of its own after so many vain attempts in a row: for longer
        than those that wait for the same, as it may be the only one that meets the error."""
        if fault_of(error) in HOLDS_ALL | {Fault.UPSTREAM} and not error.counts_as_death:
            return backoff_s(attempts, self._retry_s, LONGEST_PAUSES * self._retry_s)
        first_s = REST_PAUSES * self._retry_s
        return backoff_s(attempts - 1, first_s, LONGEST_PAUSES * first_s)


def _held(*, kept: bool) -> frozenset[Fault]:
    """Return the faults whose breakers hold a job."""
    return HOLDS_KEPT if kept else HOLDS_ALL
