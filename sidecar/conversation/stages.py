"""Who works for a turn: a task for each stage, to be abandoned at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol, TypeAlias

from sidecar import errors
from sidecar.conversation.commands import Say, Think
from sidecar.conversation.events import (
    Calling,
    Stage,
    StageEnded,
    StageFailed,
    TalkEvent,
    Token,
    Voiced,
)
from sidecar.conversation.llm.thinker import Thinker
from sidecar.interfaces.voice import SayOptions, Sound

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""What a stage does; made when its task begins, which one that is stopped at once never does."""


class Speaks(Protocol):
    """What says things (`workers.spoken.Spoken`)."""

    def say(self, text: str, options: SayOptions | None = None) -> AsyncGenerator[Sound, None]:
        """The sound of a text; leaving early ends it."""


class Stages:
    """Owns the tasks. To stop one is not to wait for it: nobody listens to it any more at once,
    and it ends in its own time."""

    def __init__(
        self,
        thinker: Thinker,
        voice: Speaks | None,
        manner: SayOptions,
        now: Callable[[], float],
        happened: Callable[[TalkEvent], None],
    ) -> None:
        self.thinker, self.manner = thinker, manner
        """Who thinks, and how the voice speaks: what is set counts for what begins later."""
        self._voice = voice
        self._now, self._happened = now, happened
        self._going: dict[tuple[int, Stage], asyncio.Task[None]] = {}
        self._said: dict[int, asyncio.Queue[Say]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def think(self, command: Think) -> None:
        """Begin to answer."""
        self._begin(command.turn, Stage.THINKER, partial(self._thought, command))

    def say(self, command: Say) -> None:
        """Say that behind what is being said of the turn."""
        if command.turn not in self._said:
            self._said[command.turn] = asyncio.Queue()
            spoken = partial(self._spoken, command.turn, self.manner)
            self._begin(command.turn, Stage.VOICE, spoken)
        self._said[command.turn].put_nowait(command)

    def stop(self, turn: int, stage: Stage) -> None:
        """Nobody waits for that any more."""
        if stage is Stage.VOICE:
            self._said.pop(turn, None)
        if (task := self._going.pop((turn, stage), None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """End all of them. Those that were stopped before are on their way: who hurries them takes
        a process that others use along."""
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, turn: int, stage: Stage, work: Work) -> None:
        task = asyncio.get_running_loop().create_task(self._watched(turn, stage, work), name=stage)
        self._going[turn, stage] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watched(self, turn: int, stage: Stage, work: Work) -> None:
        try:
            await work()
        except errors.SidecarError as error:
            self._happened(StageFailed(self._now(), turn, stage, error))
        except Exception:  # whatever a stage raises: the conversation goes on
            log.exception("the stage %s failed", stage)
            self._happened(StageFailed(self._now(), turn, stage, errors.EngineFailed()))
        finally:
            self._going.pop((turn, stage), None)

    async def _thought(self, command: Think) -> None:
        async with aclosing(self.thinker.reply(command.messages, command.tools)) as pieces:
            async for piece in pieces:
                more = Token if isinstance(piece, str) else Calling
                self._happened(more(self._now(), command.turn, piece))  # type: ignore[arg-type]
        self._happened(StageEnded(self._now(), command.turn, Stage.THINKER))

    async def _spoken(self, turn: int, manner: SayOptions) -> None:
        waiting = self._said[turn]
        while True:
            command = await waiting.get()
            if self._voice is None:
                raise errors.EngineUnavailable("No engine of this installation speaks.")
            async with aclosing(self._voice.say(command.text, manner)) as sounds:
                async for sound in sounds:
                    self._happened(Voiced(self._now(), turn, command.piece, sound))
            self._happened(StageEnded(self._now(), turn, Stage.VOICE, command.piece))
