"""A semaphore that owners share."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from service_process import settle

from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, OwnerLimits
from sidecar.auth.rate_limits import FairOwnerSemaphore, is_within_fair_share


def owner(name: str, *, shares: bool = True) -> Identity:
    return Identity(name, AuthMethod.JWT, limits=OwnerLimits(shares=shares))


class Work:
    """Pieces of work that hold a place until they are let go, in the order in which they began."""

    def __init__(self, slots: int) -> None:
        self.semaphore = FairOwnerSemaphore(slots)
        self.begun: list[tuple[str, asyncio.Event]] = []
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def add(self, who: Identity) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._run(who))
        self.tasks.append(task)
        return task

    async def _run(self, who: Identity) -> None:
        async with self.semaphore.held(who):
            end = asyncio.Event()
            self.begun.append((who.subject, end))
            self.order.append(who.subject)
            try:
                await end.wait()
            finally:
                self.begun = [one for one in self.begun if one[1] is not end]

    async def finish(self) -> None:
        """Let go of one after the other until nobody waits."""
        while not all(task.done() for task in self.tasks):
            await settle()
            if self.begun:
                self.begun[0][1].set()


async def test_owner_with_a_long_queue_leaves_a_place_free_for_another_owner() -> None:
    work = Work(3)
    for _ in range(100):
        work.add(owner("ada"))
    await settle()
    assert work.order == ["ada", "ada"]
    work.add(owner("bob"))
    await settle()
    assert work.order[2:] == ["bob"]
    await work.finish()


async def test_owners_take_turns_at_a_single_place() -> None:
    work = Work(1)
    for name in "aaaaabbc":
        work.add(owner(name))
    await work.finish()
    assert "".join(work.order) == "aabcabaa"


async def test_anonymous_work_uses_all_places_in_order_of_arrival() -> None:
    work = Work(3)
    for _ in range(5):
        work.add(ANONYMOUS)
    await settle()
    assert len(work.begun) == 3
    await work.finish()


@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "cancel", "end"])), max_size=60
    ),
)
def test_no_place_is_lost_or_given_twice_under_random_cancellation(
    slots: int, steps: list[tuple[str, str]]
) -> None:
    async def play() -> None:
        work = Work(slots)
        for name, step in steps:
            if step == "add":
                work.add(owner(name))
            elif step == "cancel" and work.tasks:
                work.tasks[len(work.order) % len(work.tasks)].cancel()
            elif work.begun:
                work.begun[0][1].set()
            if len(steps) % 2:  # half of the time several things happen at once
                await settle()
            assert len(work.begun) <= slots
        await work.finish()
        await asyncio.wait_for(work.semaphore.held(owner("z")).__aenter__(), 60)

    asyncio.run(play())


@given(st.integers(2, 500))
def test_fair_share_of_a_single_owner_is_most_places_and_never_all(slots: int) -> None:
    taken = Counter[str]()
    while is_within_fair_share(taken["ada"], 1, slots - taken.total()):
        taken["ada"] += 1
    assert max(1, 3 * slots // 4 - 1) <= taken["ada"] < slots
    assert is_within_fair_share(0, 1, slots - taken.total())
