"""Engine slot in made-up orders of leases, reloads, loads ahead, crashes and cancellations.

The slot is the real one; its processes are stand-ins, so that thousands of orders take seconds.
"""

import asyncio
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instrumented_slot import scripted_model
from service_process import PATIENCE_S
from stand_in_workers import StandInWorker

from sidecar import errors
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.workers.engine import Engine
from sidecar.workers.engine_lease import CONCURRENT, EXCLUSIVE, LIVE, Sharing
from sidecar.workers.engine_loading import WorkerLoader

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["lease", "lease", "alone", "int8", "fp32", "preload", "end", "cancel", "crash", "wait"]
        ),
        st.integers(0, 7),
    ),
    max_size=30,
)


class Orders:
    """Clients of one slot, and what they saw."""

    def __init__(self, sharing: Sharing) -> None:
        self.processes: list[StandInWorker] = []
        self.slot = Engine(scripted_model(Precision.FP32), keep_alive_s=0, sharing=sharing)
        self.tasks: list[asyncio.Task[object]] = []
        self.holders: dict[int, tuple[bool, asyncio.Event]] = {}
        self.arrivals: list[int] = []
        self._sharing = sharing
        self._leases = 0

    async def load(self, name: str, factory: str, options: LoadOptions) -> StandInWorker:
        """Stands for `WorkerLoader.start_worker`."""
        for _ in range(3):
            await asyncio.sleep(0)
        self.processes.append(StandInWorker(1 + len(self.processes)))
        return self.processes[-1]

    async def _hold(self, number: int, *, alone: bool) -> None:
        async with self.slot.lease(alone=alone):
            pid, end = self.slot.worker_pid, asyncio.Event()
            if not self._sharing.sessions:
                alone_now = alone or any(one for one, _ in self.holders.values())
                assert not (self.holders and (alone_now or not self._sharing.concurrent))
            self.holders[number] = alone, end
            self.arrivals.append(number)
            try:
                await end.wait()
            finally:
                del self.holders[number]
            if not self._sharing.sessions:
                assert self.slot.worker_pid in (pid, None), "no load under a job"

    def take(self, step: str, number: int) -> None:
        match step:
            case "lease" | "alone":
                self._leases += 1
                self._begin(self._hold(self._leases, alone=step == "alone"))
            case "int8" | "fp32":
                self._begin(self.slot.reload(Precision(step)))
            case "preload":
                self._begin(self.slot.preload())
            case "end":
                for _, end in [*self.holders.values()][: number + 1]:
                    end.set()
            case "cancel" if number < len(self.tasks):
                self.tasks[-1 - number].cancel()
            case "crash" if self.slot.worker is not None:
                self.processes[-1].die()

    def _begin(self, work: object) -> None:
        self.tasks.append(asyncio.ensure_future(work))  # type: ignore[call-overload]

    async def finish(self) -> list[object]:
        """Have all end that still hold it, until no client is left."""
        async with asyncio.timeout(PATIENCE_S):
            while not all(task.done() for task in self.tasks):
                for _, end in self.holders.values():
                    end.set()
                await asyncio.sleep(0)
        return await asyncio.gather(*self.tasks, return_exceptions=True)


async def follow(sharing: Sharing, steps: list[Step]) -> None:
    orders = Orders(sharing)
    with mock.patch.object(WorkerLoader, "start_worker", orders.load):
        for step, number in steps:
            orders.take(step, number)
            for _ in range(number if step == "wait" else 1):
                await asyncio.sleep(0)
        outcomes = await orders.finish()
        slot = orders.slot
        assert not slot.in_use
        await slot.close()
        with pytest.raises(errors.ShuttingDown):
            await slot.preload()
    allowed = (asyncio.CancelledError, errors.ReloadSuperseded)
    faults = [one for one in outcomes if isinstance(one, BaseException)]
    assert all(isinstance(one, allowed) for one in faults), faults
    assert orders.arrivals == sorted(orders.arrivals), "first come, first served"
    assert not any(process.alive for process in orders.processes), "none is left"


@pytest.mark.parametrize(
    "sharing", [EXCLUSIVE, CONCURRENT, LIVE], ids=["exclusive", "concurrent", "live"]
)
@given(steps=STEPS)
def test_every_order_of_leases_and_reloads_gives_clients_their_turn_and_leaves_no_worker(
    sharing: Sharing, steps: list[Step]
) -> None:
    asyncio.run(follow(sharing, steps))
