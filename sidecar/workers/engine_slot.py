"""Engine slot: state machine of one engine, its turns, leases, reloads, idle time (`keep_alive`).

A *turn* is the right to change the engine; turns are first in, first out. An exclusive lease keeps
its turn. A concurrent lease gives it back once the engine is loaded, so that the next one can share
the engine.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Generic, NamedTuple

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.engines.engine_selection import Spec
from sidecar.gpu_memory.memory_admission import MemoryAccount
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    MemoryPlan,
    ModelSpec,
    Precision,
    TranscribeOptions,
)
from sidecar.transcripts.transcript import ResumePoint, TranscriptionEvent, from_wire, to_wire
from sidecar.workers import worker_process
from sidecar.workers.engine_loading import EngineSupervisor
from sidecar.workers.rpc_client import RpcCall
from sidecar.workers.worker_environment import WorkerOptions

log = logging.getLogger(__name__)
PRELOADED_KEEP_S = 60.0
"""Idle time of an engine that was loaded ahead of its first lease, if ``keep_alive_s`` is 0."""
TTS_CANCEL_TIMEOUT_S = 10.0
"""Minimum time for a TTS engine to stop: some synthesize a whole clause in one call."""


class RecordingRequest(NamedTuple):
    """Recording to transcribe. ``resume_points``: those to resume from
    (`engine_interface.ResumableEngine`); None if none are wanted."""

    source: AudioSource
    audio_info: AudioInfo
    options: TranscribeOptions
    resume_points: Sequence[ResumePoint] | None = None


def check_precision(spec: ModelSpec, precision: Precision) -> Precision:
    """Return the precision that a load at ``precision`` would load.

    Raises:
        errors.PrecisionUnavailable: the engine has no such precision.
    """
    target = spec.resolve_precision(precision)
    if precision not in (Precision.AUTO, target, *spec.stands_for):
        reason = spec.lacking.get(precision)
        raise errors.PrecisionUnavailable(
            f"The engine '{spec.name}' does not support the precision '{precision}'"
            f"{f': {reason}' if reason else ''}.",
            hint=f"It supports: {', '.join(spec.precisions)}.",
        )
    return target


class EngineLease:
    """Right to use a loaded engine, until the lease ends.

    The engine may end earlier: it dies, or is reloaded under live sessions. Calls then raise
    `WorkerDied`, and their caller takes another lease.
    """

    def __init__(
        self,
        worker: worker_process.WorkerProcess,
        precision: Precision,
        set_memory: Callable[[MemoryPlan], None],
        *,
        beside: bool = False,
    ) -> None:
        """``set_memory`` is called with the plan of each job. ``beside``: its calls run
        concurrently with earlier ones."""
        self._worker = worker
        self._call_options = {"beside": True} if beside else {}
        self._set_memory = set_memory
        self.precision = precision
        """Precision at which the engine is loaded."""

    @property
    def alive(self) -> bool:
        """Return whether it can be called."""
        return self._worker.alive

    def calling(
        self, operation: str, fds: Sequence[int] = (), **arguments: Any
    ) -> AbstractAsyncContextManager[RpcCall]:
        """Start one operation; its call can be read and sent more messages. Leaving early cancels
        this call only.

        Raises:
            WorkerDied: the engine's process ended.
        """
        return self._worker.calling(operation, fds, **arguments)

    async def transcribe(
        self, recording: RecordingRequest, max_s: float
    ) -> AsyncGenerator[TranscriptionEvent, None]:
        """Yield the events of a transcription; leaving early cancels it.

        Raises:
            WorkerDied: the engine's process ended.
            errors.SidecarError: the engine refused or failed it.
        """
        self._set_memory(recording.options.memory)
        resume_points = recording.resume_points
        wanted = {
            "facts": recording.audio_info.to_wire(),
            "options": recording.options.to_wire(),
            "max_s": max_s,
            "settled": None if resume_points is None else [to_wire(one) for one in resume_points],
        }
        fds = [recording.source.fd]
        async with self.calling("transcribe", fds, **wanted, **self._call_options) as call:
            async for frame, _ in call.answers():
                yield from_wire(frame["event"])


class EngineState(StrEnum):
    """State of the engine in a slot."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STUCK = "stuck"
    """Its process does not end, and no other is loaded until it has."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Sharing of an engine: the number of leases at once, and the behaviour of its process.

    ``concurrent``: any number of leases (else one); a lease that is ``alone``, or a reload, waits
    for the end of all earlier ones. ``sessions``: its leases are sessions, which take memory of
    their own and start again if their engine ends. So a reload does not wait for them, and
    the free memory is not queried when one starts. ``pings``: of its `Heartbeat`.
    """

    concurrent: bool = False
    sessions: bool = False
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    pings: worker_process.PingTimes = field(default_factory=worker_process.PingTimes)


EXCLUSIVE = Sharing()
"""One job at a time."""
CONCURRENT = Sharing(concurrent=True, worker=WorkerOptions(shared=True))
"""Jobs that share a model, or whose work is done elsewhere: a second process would only cost
memory. If it dies, all calls end. Each job then runs alone, so that a job which kills it again
costs no other job a second attempt."""
LIVE = Sharing(
    concurrent=True,
    sessions=True,
    worker=WorkerOptions(niceness=0, shared=True),
    pings=worker_process.PingTimes(worker_process.LIVE_PING_TIMEOUT_S),
)
"""Live sessions run at normal priority, and a process that hangs is killed soon."""
SERIAL = Sharing(
    concurrent=True,
    sessions=True,
    worker=WorkerOptions(niceness=0, patience_s=TTS_CANCEL_TIMEOUT_S),
    pings=worker_process.PingTimes(worker_process.LIVE_PING_TIMEOUT_S),
)
"""TTS: a call that does not stop blocks all others, and the process is killed."""


@dataclass(slots=True)
class _PendingReload:
    """Reload that waits for its turn; a later one with another target replaces it."""

    wanted: tuple[Precision, str | None, ModelSpec]
    """Precision, folder of the weights, and the engine that loads them."""
    loads: int
    """Number of loads at the request: a load since then may have done it."""
    outcome: asyncio.Future[None] = field(default_factory=asyncio.Future)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in all waiting callers; there may be none left."""
        self.outcome.set_exception(error)
        self.outcome.exception()  # else asyncio logs that it was never retrieved


class EngineSlot(EngineSupervisor, Generic[Spec]):
    """Owner of one engine: no other code starts or ends its process.

    ``load``: its load options; the first precision is there, others come with `reload` and `lease`.
    ``account`` plans the memory of each load and is notified of its result. ``keep_alive_s``: idle
    time until it is unloaded; negative: never. ``preloaded_keep_s``: as `PRELOADED_KEEP_S`.
    """

    def __init__(
        self,
        spec: Spec,
        load: LoadOptions,
        keep_alive_s: float,
        account: MemoryAccount | None = None,
        on_worker_crash: Callable[[worker_process.WorkerProcess], None] = lambda worker: None,
        sharing: Sharing = EXCLUSIVE,
        *,
        preloaded_keep_s: float = PRELOADED_KEEP_S,
    ) -> None:
        super().__init__(spec, load, account or MemoryAccount(), on_worker_crash, sharing.worker)
        self.spec = spec
        self.sharing = sharing
        self._keep_alive_s, self._preloaded_keep_s = keep_alive_s, preloaded_keep_s
        self._turn = asyncio.Lock()
        self._holders = 0
        self.exclusive = 0
        """Leases without others at the same time that are held or waited for, of an engine that
        has several."""
        self.shared_memory: MemoryPlan | None = None
        """Plan of the recordings that run beside each other; None if there are none."""
        self._unheld = asyncio.Event()
        self._unheld.set()
        self.heartbeat = worker_process.Heartbeat(lambda: self.worker, sharing.pings)
        self._idle: asyncio.TimerHandle | None = None
        self._used_load = 0
        """The load that the last lease used."""
        self._pending: _PendingReload | None = None
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloaded_at = -math.inf

    @property
    def reading_s(self) -> float:
        """Return the seconds for which the engine has waited for a recording's disk."""
        return self.worker.reading_s if self.worker is not None and self.in_use else 0.0

    @property
    def in_use(self) -> bool:
        """Return whether there is a lease."""
        return self._holders > 0

    @property
    def state(self) -> EngineState:
        """Return the current state of the engine."""
        if self.loading is not None:
            return EngineState.LOADING
        if self.worker is None:
            return EngineState.STUCK if self._shutdowns.stuck else EngineState.ABSENT
        return EngineState.BUSY if self.in_use else EngineState.READY

    @property
    def loaded(self) -> bool:
        """Return whether the engine is in memory."""
        return self.loading is None and self._worker is not None

    def last_load(self, now: float) -> tuple[float, float]:
        """Return start and end of the last load, in seconds since 1970 as ``now``; if there was
        none, both are in the distant past."""
        end = now - (time.monotonic() - self.loaded_at)
        return end - self.load_s, end

    def resolve(self, precision: Precision, since: float) -> Precision:
        """Return the precision for a job that requested ``precision`` at ``since``
        (`time.monotonic`).

        AUTO takes the loaded one, and so does a job from before the last reload.
        """
        if precision is Precision.AUTO or since < self._reloaded_at:
            return self.precision
        return self.spec.resolve_precision(precision)

    @property
    def resolution(self) -> tuple[Precision, float]:
        """Return a value that changes whenever answers of `resolve` may change."""
        return self.precision, self._reloaded_at

    @asynccontextmanager
    async def lease(
        self, precision: Precision = Precision.AUTO, since: float = math.inf, alone: bool = False
    ) -> AsyncIterator[EngineLease]:
        """Wait for the engine, loaded as `resolve` determines if necessary, and hold it: it is not
        unloaded for being idle. ``alone``: without other leases at the same time.

        Raises:
            errors.ModelLoadFailed, errors.EngineStuck: it does not load.
            errors.WontFit: its memory at that precision does not fit.
            errors.ShuttingDown: the slot is closed.
        """
        beside = self.sharing.concurrent and not alone
        async with AsyncExitStack() as turn:
            if alone:
                turn.enter_context(self._exclusively())
            await turn.enter_async_context(self._in_turn(joins=beside))
            if not self.sharing.sessions and self.resolve(precision, since) is not self.precision:
                await self._unheld.wait()
            worker = await self._leased_worker(precision, since)
            self._hold(1)
            try:
                if beside:
                    await turn.aclose()
                yield EngineLease(worker, self.precision, self._set_memory, beside=beside)
            finally:
                self._hold(-1)

    async def preload(self) -> None:
        """Load the engine ahead of the first job.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: its memory does not fit.
        """
        async with self._in_turn():
            await self._finish_change(self.precision)
            await self._ensure_loaded(self.precision)

    def check(self, precision: Precision) -> Precision:
        """Return the precision that a reload at ``precision`` would load.

        Raises:
            errors.PrecisionUnavailable: the engine has no such precision.
        """
        return check_precision(self.spec, precision)

    async def check_room(self, precision: Precision) -> None:
        """Raise `errors.WontFit` if the memory of a reload at ``precision`` would not fit now."""
        target = self.check(precision)
        await self._account.query_memory()
        if not self.changing:  # else the free memory is not known
            self._account.place(target)

    async def reload(self, precision: Precision, checkpoint: str | None = None) -> Precision:
        """Reload the engine at another precision, in its turn; return that precision.
        ``checkpoint``: folder of other weights, None to keep the weights.

        If a caller is cancelled, the reload goes on. Concurrent callers with the same target share
        one reload; of those that wait with different targets, the last one wins.

        Raises:
            errors.PrecisionUnavailable: the engine has no such precision.
            errors.ReloadSuperseded: another reload was requested before this one had its turn, or
                another engine was loaded.
            errors.WontFit: its memory does not fit; the old engine goes on serving.
            errors.ModelLoadFailed: it does not load; the old engine goes on serving.
        """
        target = self.check(precision)
        wanted = target, checkpoint or self.checkpoint, self.spec
        pending = self._pending
        if pending is None:
            pending = self._pending = _PendingReload(wanted, self.loads)
            task = asyncio.get_running_loop().create_task(self._carry_out(pending))
            self._reloads.add(task)
            task.add_done_callback(partial(self._reload_ended, pending))
        elif pending.wanted != wanted:
            what = f"Before the reload at {pending.wanted[0]} began one at {target} came in."
            pending.fail(errors.ReloadSuperseded(what))
            pending.wanted, pending.loads, pending.outcome = wanted, self.loads, asyncio.Future()
        await asyncio.shield(pending.outcome)
        return target

    @asynccontextmanager
    async def vacated(self) -> AsyncIterator[bool]:
        """Hold the turn, after the running job, with the engine unloaded: for `set_engine` and
        `load_set`. Yield whether it was loaded. Jobs that wait take the precision of the new
        engine.

        Raises:
            errors.EngineStuck: the engine's process does not end.
            errors.ShuttingDown: the slot is closed.
        """
        async with self._in_turn():
            await self._finish_change(self.precision)
            was_loaded = self.loaded
            self._unload()
            await self._check_not_stuck()
            yield was_loaded
            self._reloaded_at = time.monotonic()

    def set_engine(self, spec: Spec, precision: Precision, checkpoint: str | None) -> None:
        """Set the engine that the next load loads, with the folder of its weights; the caller has
        vacated the slot."""
        self.spec = self._spec = spec
        self.precision, self.checkpoint = spec.resolve_precision(precision), checkpoint

    async def load_set(self) -> None:
        """Load the engine that was set; the caller has vacated the slot.

        Raises:
            errors.WontFit, errors.ModelLoadFailed: it does not load.
        """
        await self._ensure_loaded(self.precision)

    async def close(self) -> None:
        """Unload the engine at once, whatever is in progress, and load nothing any more."""
        self._closed = True
        self._settled()
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        await super().close()

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        self.exclusive += 1
        try:
            yield
        finally:
            self.exclusive -= 1

    @asynccontextmanager
    async def _in_turn(self, *, joins: bool = False) -> AsyncIterator[None]:
        """Hold the turn, once all leases have ended that a change must wait for. ``joins``: do not
        wait for leases of an engine that is loaded."""
        try:
            async with self._turn:
                if not (self.sharing.sessions or (joins and self.worker is not None)):
                    await self._unheld.wait()
                self._settled()
                if self._closed:
                    raise errors.ShuttingDown()
                yield
        finally:  # also after a failed load that kept the old engine
            self._settled()

    async def _leased_worker(
        self, precision: Precision, since: float
    ) -> worker_process.WorkerProcess:
        """Return the worker process for a lease that has the turn: the one in use, or one loaded if
        necessary, after which the memory is queried."""
        if self.in_use and not self.sharing.sessions and self.worker is not None:
            return self.worker
        await self._finish_change(self.resolve(precision, since))
        worker = await self._ensure_loaded(self.resolve(precision, since))
        if not self.sharing.sessions:
            await self._shutdowns.ends.wait()
            await self._account.query_memory()
        self._used_load = self.loads
        return worker

    def _set_memory(self, memory: MemoryPlan) -> None:
        self.memory = memory
        self.shared_memory = memory if memory.places else None

    def _hold(self, more: int) -> None:
        """Add ``more`` leases; a negative number removes them."""
        self._holders += more
        if self.in_use:
            self._unheld.clear()
        else:
            self._unheld.set()
            self.shared_memory = None
        self._settled()
        if self.sharing.sessions:
            self._account.held(self._holders)

    async def _carry_out(self, reload: _PendingReload) -> None:
        async with self._in_turn():
            self._pending = None  # later requests are another reload
            precision, checkpoint, spec = reload.wanted
            if spec is not self.spec:
                raise errors.ReloadSuperseded(
                    f"Before the reload at {precision} began the engine '{self.spec.name}' was "
                    "loaded."
                )
            await self._finish_change(precision)
            done = self.loaded and (self.precision, self.checkpoint) == (precision, checkpoint)
            if self.loads == reload.loads or not done:
                await self._replace(precision, checkpoint)
            self._reloaded_at = time.monotonic()
            await self._shutdowns.ends.wait()

    def _reload_ended(self, reload: _PendingReload, task: asyncio.Task[None]) -> None:
        self._reloads.discard(task)
        if self._pending is reload:  # it never had its turn
            self._pending = None
        error = errors.ShuttingDown() if task.cancelled() else task.exception()
        if error is None:
            reload.outcome.set_result(None)
        else:
            reload.fail(error)

    def _settled(self) -> None:
        """Bring process, heartbeat and idle timer in line with the state, after each change of
        it."""
        alive = self.worker is not None
        if not alive:
            self._unload()
        if not self._closed and (self.in_use or alive):
            self.heartbeat.start(in_use=self.in_use)
        else:
            self.heartbeat.stop()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._turn.locked() or self.changing or self.in_use or self._closed:
            return
        if alive and self._keep_alive_s >= 0:
            unused = self._used_load != self.loads
            idle_s = self._keep_alive_s or (self._preloaded_keep_s if unused else 0.0)
            self._idle = asyncio.get_running_loop().call_later(idle_s, self._idled)

    def _idled(self) -> None:
        self._idle = None
        if self.worker is not None:
            log.info("engine %s unloaded: it was idle for keep_alive", self.spec.name)
            self._unload()
            self._settled()
