"""Orders to load the engine anew: a wish for a state, of which the last one counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from sidecar import errors
from sidecar.interfaces.engine import Precision


@dataclass(frozen=True, slots=True)
class Wanted:
    """An engine as somebody wants it: at a precision, with the weights in a folder."""

    precision: Precision
    checkpoint: str | None = None


@dataclass(slots=True)
class _Wish:
    """What is wanted, and what became of it for all who wait; ``loads`` there had been before."""

    wanted: Wanted
    loads: int
    outcome: asyncio.Future[None] = field(default_factory=asyncio.Future)

    def __post_init__(self) -> None:
        self.outcome.add_done_callback(lambda done: done.cancelled() or done.exception())

    def fails(self, error: BaseException) -> None:
        """Tell all who wait; if they have hung up, nobody."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Reloads:
    """At most one is carried out while one waits, however many ask.

    ``turn`` is entered before one is carried out by ``renew``, which is given what is wanted and
    how many loads there had been when it was asked for.
    """

    def __init__(
        self,
        turn: Callable[[], AbstractAsyncContextManager[None]],
        renew: Callable[[Wanted, int], Awaitable[None]],
    ) -> None:
        self._turn = turn
        self._renew = renew
        self._waiting: _Wish | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, wanted: Wanted, loads: int) -> None:
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
            self._waiting = _Wish(wanted, loads)
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
        wish: _Wish | None = None
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

    def _taken(self) -> _Wish:
        """What was asked for last; what is asked for from now on is another reload."""
        wish, self._waiting = self._waiting, None
        assert wish is not None
        return wish
