"""Worker processes that are none, so that thousands of orders of loads and crashes take seconds."""

import asyncio
from collections.abc import Callable


class StandInWorker:
    """What an engine sees of a process that loads nothing and answers pings until it dies."""

    stuck, exit_code, last_lines, reading_s, name = False, -9, (), 0.0, "stand-in"
    silent = False

    def __init__(self, pid: int) -> None:
        self.pid, self.alive, self.died = pid, True, False
        self.on_end: Callable[[], None] = lambda: None

    def die(self) -> None:
        self.alive, self.died = False, True
        self.on_end()

    async def crashed(self) -> bool:
        return self.died

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.alive = False

    async def answers_ping(self, within_s: float) -> bool:
        return self.alive
