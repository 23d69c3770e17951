"""State machine of one engine: absent, loading, ready, busy, reloading.

Who has it, one at a time or many at once, is said by `slot` and `shared`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from sidecar import errors
from sidecar.gpu_memory.memory_admission import (
    MemoryAccount,
    MemoryProbe,
    NoMemoryAccount,
    PlacementDecision,
    load_beside,
    no_memory_probe,
)
from sidecar.interfaces.engine_interface import LoadOptions, MemoryPlan, ModelSpec, Precision
from sidecar.workers.engine_supervisor import EngineSupervisor
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import Heartbeat, WorkerProcess


@dataclass(frozen=True, slots=True)
class WantedEngine:
    """An engine as somebody wants it: at a precision, with the weights in a folder."""

    precision: Precision
    checkpoint: str | None = None


@dataclass(slots=True)
class _ReloadRequest:
    """What is wanted, and what became of it for all who wait; ``loads`` there had been before."""

    wanted: WantedEngine
    loads: int
    outcome: asyncio.Future[None] = field(default_factory=asyncio.Future)

    def __post_init__(self) -> None:
        self.outcome.add_done_callback(lambda done: done.cancelled() or done.exception())

    def fails(self, error: BaseException) -> None:
        """Tell all who wait; if they have hung up, nobody."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class ReloadQueue:
    """At most one is carried out while one waits, however many ask.

    ``turn`` is entered before one is carried out by ``renew``, which is given what is wanted and
    how many loads there had been when it was asked for.
    """

    def __init__(
        self,
        turn: Callable[[], AbstractAsyncContextManager[None]],
        renew: Callable[[WantedEngine, int], Awaitable[None]],
    ) -> None:
        self._turn = turn
        self._renew = renew
        self._waiting: _ReloadRequest | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, wanted: WantedEngine, loads: int) -> None:
        """Wait until it is done; who is cancelled meanwhile takes nothing back.

        Raises:
            errors.ReloadSuperseded: something else was asked for before this one's turn came.
            errors.SidecarError: why it was not done.
        """
        overtaken = self._waiting
        if overtaken is None:
            task = asyncio.get_running_loop().create_task(self._carry_out())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if overtaken is None or overtaken.wanted != wanted:
            self._waiting = _ReloadRequest(wanted, loads)
        if overtaken is not None and overtaken is not self._waiting:
            before, after = overtaken.wanted.precision, wanted.precision
            what = f"Before the reload at {before} began one at {after} came in."
            overtaken.fails(errors.ReloadSuperseded(what))
        assert self._waiting is not None
        await asyncio.shield(self._waiting.outcome)

    async def close(self) -> None:
        """End them all; who waits is told `errors.ShuttingDown`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._waiting is not None:  # its task was cancelled before it ran at all
            self._taken().fails(errors.ShuttingDown())

    async def _carry_out(self) -> None:
        wish: _ReloadRequest | None = None
        try:
            async with self._turn():
                wish = self._taken()
                await self._renew(wish.wanted, wish.loads)
                wish.outcome.set_result(None)
        except asyncio.CancelledError:
            (wish or self._taken()).fails(errors.ShuttingDown())
            raise
        except Exception as error:
            (wish or self._taken()).fails(error)

    def _taken(self) -> _ReloadRequest:
        """What was asked for last; what is asked for from now on is another reload."""
        wish, self._waiting = self._waiting, None
        assert wish is not None
        return wish


log = logging.getLogger(__name__)

PRELOADED_KEEP_S = 60.0
"""Where nothing is kept (``keep_alive_s`` 0), an engine that was loaded ahead of its job waits so
long for it."""


class EngineState(StrEnum):
    """Where the engine is in its life."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    STUCK = "stuck"
    """Its process does not end, and no other comes before it has."""


class EngineLifecycle:
    """Owns the worker of one engine, and nobody else starts or ends it.

    ``load`` says how it loads; its precision is the first, others come by `reload` and `lease`.
    ``look`` is awaited before each load, for ``place`` to decide by; ``account`` keeps what
    follows from it.
    """

    manner: ClassVar[WorkerOptions] = WorkerOptions()
    """How its process behaves."""

    def __init__(
        self,
        spec: ModelSpec,
        load: LoadOptions,
        keep_alive_s: float,
        place: PlacementDecision = load_beside,
        look: MemoryProbe = no_memory_probe,
        on_crash: Callable[[WorkerProcess], None] = lambda worker: None,
        account: MemoryAccount | None = None,
    ) -> None:
        self.spec = spec
        self._account = account or NoMemoryAccount()
        self._supervisor = EngineSupervisor(
            spec,
            load,
            place,
            look,
            on_crash,
            self._account,
            self._arrived,
            self.manner,
        )
        self._keep_alive_s = keep_alive_s
        self._place = place
        self._look = look
        self._turn = asyncio.Lock()
        self._in_line = 0
        """Who has the turn, and all who wait for it."""
        self._holders = 0
        self._pulse = Heartbeat(lambda: self._supervisor.worker, self.manner.deaf_s)
        self._used_load = 0
        self._reloads = ReloadQueue(self._in_turn, self._renew)
        self._reloaded_at = -math.inf
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def precision(self) -> Precision:
        """Of the engine that is there, or that is on its way."""
        return self._supervisor.precision

    @property
    def memory(self) -> MemoryPlan:
        """By which plan its parts lie: that of the load, then that of the job which came last."""
        return self._supervisor.memory

    @property
    def loaded_at(self) -> float:
        """When the engine came into memory last (`time.monotonic`)."""
        return self._supervisor.loaded_at

    @property
    def load_s(self) -> float:
        """How many seconds that took."""
        return self._supervisor.load_s

    def last_load(self, now: float) -> tuple[float, float]:
        """From when to when it came in last, in seconds since 1970 as is ``now``; long before all
        times where it never did."""
        end = now - (time.monotonic() - self.loaded_at)
        return end - self.load_s, end

    @property
    def loads(self) -> int:
        """How often an engine came into memory."""
        return self._supervisor.loads

    @property
    def loading(self) -> float | None:
        """How much of an engine that is being loaded is there (0 to 1), None at other times."""
        return self._supervisor.loading

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the turn of whoever has it."""
        return self._in_line > 1

    @property
    def changing(self) -> bool:
        """Whether an engine is coming in."""
        return self._supervisor.changing

    @property
    def in_use(self) -> bool:
        """Whether somebody has it."""
        return self._holders > 0

    @property
    def state(self) -> EngineState:
        """Where the engine is now."""
        if self.loading is not None:
            return EngineState.LOADING
        if self._supervisor.worker is None:
            return EngineState.STUCK if self._supervisor.stuck else EngineState.ABSENT
        return EngineState.BUSY if self.in_use else EngineState.READY

    @property
    def loaded(self) -> bool:
        """Whether the engine is in memory."""
        return self.state in (EngineState.READY, EngineState.BUSY)

    @property
    def worker_pid(self) -> int | None:
        """The process the engine lives in, None while it is not loaded."""
        return self._supervisor.worker.pid if self._supervisor.worker is not None else None

    def resolve(self, wanted: Precision, since: float) -> Precision:
        """The precision for a job that asked for ``wanted`` at ``since`` (`time.monotonic`).

        AUTO takes what is there, and so does what was asked for before somebody had the engine
        loaded anew.
        """
        if wanted is Precision.AUTO or since < self._reloaded_at:
            return self.precision
        return self.spec.resolve_precision(wanted)

    @property
    def resolution(self) -> tuple[Precision, float]:
        """As long as this is the same, so is every answer of `resolve`."""
        return self.precision, self._reloaded_at

    async def preload(self) -> None:
        """Load the engine ahead of the first job.

        Raises:
            errors.ModelLoadFailed: it does not load.
            errors.WontFit: there is no room for it.
        """
        async with self._in_turn():
            await self._supervisor.settle(self.precision)
            await self._supervisor.standing(self.precision)

    def check(self, precision: Precision) -> Precision:
        """What a reload at ``precision`` would load.

        Raises:
            errors.PrecisionUnavailable: the engine has no such precision.
        """
        target = self.spec.resolve_precision(precision)
        if precision not in (Precision.AUTO, target, *self.spec.stands_for):
            raise errors.PrecisionUnavailable(
                f"The engine '{self.spec.name}' has no precision '{precision}'.",
                hint=f"It has: {', '.join(self.spec.precisions)}.",
            )
        return target

    async def check_room(self, precision: Precision) -> None:
        """Raise `errors.WontFit` where a reload at ``precision`` would now find no room."""
        target = self.check(precision)
        await self._look()
        if not self._supervisor.changing:  # else nobody can tell what will be free
            self._place(target)

    async def reload(self, precision: Precision, checkpoint: str | None = None) -> Precision:
        """Load the engine anew at another precision, in its turn; which it is then. ``checkpoint``:
        the folder of other weights for it, None where it keeps its own.

        Whoever asked may hang up: it is done all the same. Of several that ask for the same
        meanwhile, one does it for all; of those that wait and want different ones, the last wins.

        Raises:
            errors.PrecisionUnavailable: the engine has no such precision.
            errors.ReloadSuperseded: somebody wanted another one before it was this one's turn.
            errors.WontFit: there is no room for it; the old one goes on serving.
            errors.ModelLoadFailed: it does not load; the old one goes on serving.
        """
        target = self.check(precision)
        wanted = WantedEngine(target, checkpoint or self._supervisor.checkpoint)
        await self._reloads.ask(wanted, self._supervisor.loads)
        return target

    async def close(self) -> None:
        """Unload, whatever is going on; what would be loaded is not."""
        self._closed = True
        self._stop_idling()
        self._pulse.stop()
        await self._reloads.close()
        await self._supervisor.close()

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """Who has the turn decides about the engine; afterwards it idles."""
        self._in_line += 1
        try:
            async with self._turn:
                if self._closed:
                    raise errors.ShuttingDown()
                self._stop_idling()
                try:
                    yield
                finally:  # also after a load that failed and left the old one standing
                    self._rest()
        finally:
            self._in_line -= 1

    def _hold(self, more: int) -> None:
        """So many more have the engine, or fewer."""
        self._holders += more
        self._watch()

    def _watch(self) -> None:
        """See to it that it does not hang, where there is one."""
        if self.in_use and not self._closed:
            self._pulse.start()
        elif self._supervisor.worker is not None and not self._closed:
            self._pulse.rest()
        else:
            self._pulse.stop()

    def _rest(self) -> None:
        """Nobody decides about the engine: one that died leaves, one that nobody has idles."""
        if self._supervisor.worker is None:
            self._supervisor.let_go()
            self._watch()
        self._start_idling()

    async def _renew(self, wanted: WantedEngine, loads: int) -> None:
        """Load the engine anew, unless that was done since there had been so many ``loads``."""
        await self._supervisor.settle(wanted.precision)
        is_it = WantedEngine(self.precision, self._supervisor.checkpoint) == wanted and self.loaded
        if self._supervisor.loads == loads or not is_it:
            await self._supervisor.replace_engine(wanted.precision, wanted.checkpoint)
        self._reloaded_at = time.monotonic()
        await self._supervisor.gone()

    def _arrived(self) -> None:
        self._watch()
        if not self._turn.locked():  # else who has the turn sees to it
            self._start_idling()

    def _start_idling(self) -> None:
        self._stop_idling()
        coming_or_none = self._supervisor.changing or self._supervisor.worker is None
        if self._keep_alive_s < 0 or coming_or_none or self.in_use or self._closed:
            return
        unused = self._used_load != self._supervisor.loads
        idle_s = self._keep_alive_s or (PRELOADED_KEEP_S if unused else 0.0)
        self._idle = asyncio.get_running_loop().call_later(idle_s, self._idled)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idled(self) -> None:
        self._idle = None
        if self._supervisor.worker is not None:
            log.info("engine %s unloaded after being idle", self.spec.name)
            self._supervisor.let_go()
            self._watch()
