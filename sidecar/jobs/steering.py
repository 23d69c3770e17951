"""A node says that it is there, and brings itself to what all are to have when it has its turn.

A turn is a lease: who has it says every second that it goes on, and who dies frees it. While a node
has one it claims no jobs, so that others take them; what runs ends first. What cannot be had here
is said, and what was there stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Protocol

from sidecar import errors
from sidecar.jobs.claims import BEAT_S, LEASE_S
from sidecar.workers.desired import Desired, NodeStanding, Reached
from sidecar.workers.models import Wish

log = logging.getLogger(__name__)

LOOK_S = LEASE_S
"""So often a node looks by itself, and says that it is there: nobody tells that a turn is free
because its node died."""


class Nodes(Protocol):
    """What the nodes of a shared store are to have, and how far they are. Each call may raise
    `errors.JournalUnreachable`."""

    async def want(self, wish: Wish, at_once: int) -> Desired:
        """Have all nodes have this; the last wish counts."""
        ...

    async def desired(self) -> Desired | None:
        """The last wish; None where nobody said one."""
        ...

    async def all(self) -> Sequence[NodeStanding]:
        """The nodes that there are."""
        ...

    async def here(self, node: NodeStanding) -> None:
        """Say that a node is there, and how far it is; who does not for `strays.ALIVE_S` is none
        any more. A turn that it has is as it was."""
        ...

    async def take_turn(self, node_id: str, turn: str, generation: int) -> bool:
        """Have a turn for the wish of this number, if it is the last and one is free. ``turn``: how
        whoever has it calls it."""
        ...

    async def go_on(self, turn: str) -> bool:
        """Say that a turn goes on; whether it does: one that is over is for others."""
        ...

    async def end_turn(self, turn: str, node: NodeStanding) -> bool:
        """Say how a turn ended, and give it back; whether that counts, as `go_on`."""
        ...

    async def leave(self, node_id: str) -> None:
        """The node ends."""
        ...

    async def news(self) -> None:
        """Wait until there may be another wish, or a turn."""
        ...


class Works(Protocol):
    """What a node works with."""

    async def become(self, wish: Wish) -> None:
        """As `workers.models.Models.become`."""
        ...

    def standing(self) -> tuple[str, str]:
        """Name of the model, and precision."""
        ...


class Steering:
    """One node's. ``aside``: no jobs are claimed as long as that lasts."""

    def __init__(
        self,
        nodes: Nodes,
        node_id: str,
        name: str,
        works: Works,
        aside: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._nodes, self._id, self._name = nodes, node_id, name
        self._works, self._aside = works, aside
        self._generation, self._state, self._code = 0, Reached.STARTED, ""
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to see to it."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="steering")

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except errors.JournalUnreachable:
                await asyncio.sleep(LOOK_S)
            except Exception:
                log.exception("a fault of ours while this node looked what it is to have")
                await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """This node ends: it begins to load nothing more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        with contextlib.suppress(errors.JournalUnreachable, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._nodes.leave(self._id)

    @property
    def standing(self) -> NodeStanding:
        """How far it is."""
        model, precision = self._works.standing()
        return NodeStanding(
            self._id, self._name, self._generation, self._state, self._code, model, precision
        )

    async def _step(self) -> None:
        desired = await self._nodes.desired()
        due = desired is not None and desired.generation != self._generation
        if due and self._state is not Reached.LOADING:
            self._state, self._code = Reached.WAITING, ""
        await self._nodes.here(self.standing)
        if desired is not None and due:
            turn = secrets.token_hex(8)
            if await self._nodes.take_turn(self._id, turn, desired.generation):
                await self._have(desired, turn)
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._nodes.news()

    async def _have(self, desired: Desired, turn: str) -> None:
        """Bring this node there; the wish is dealt with only if the turn was still its own."""
        before = self._generation
        self._state = Reached.LOADING
        async with self._going_on(turn):
            with self._aside():
                reached, code = await self._become(desired)
        self._generation, self._state, self._code = desired.generation, reached, code
        if not await self._told(turn):
            log.warning("the turn to load was given up for lost; it is taken again")
            self._generation, self._state = before, Reached.WAITING

    async def _become(self, desired: Desired) -> tuple[Reached, str]:
        try:
            await self._works.become(desired.wish)
        except errors.SidecarError as error:
            log.error("what all nodes are to have cannot be had here: %s", error.detail)
            return Reached.FAILED, error.code
        log.info("this node has what the wish number %d says", desired.generation)
        return Reached.REACHED, ""

    async def _told(self, turn: str) -> bool:
        try:
            return await self._nodes.end_turn(turn, self.standing)
        except errors.JournalUnreachable:
            return False

    @asynccontextmanager
    async def _going_on(self, turn: str) -> AsyncIterator[None]:
        async def beat() -> None:
            ours = True
            while True:
                await asyncio.sleep(BEAT_S)
                with contextlib.suppress(errors.JournalUnreachable):
                    await self._nodes.here(self.standing)
                    # What was begun is finished; what is said of it may not count.
                    ours = ours and await self._nodes.go_on(turn)

        beating = asyncio.get_running_loop().create_task(beat(), name="turn")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait({beating})
