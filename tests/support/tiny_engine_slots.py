"""A slot with the real engine of a tiny checkpoint, which dies or stops at its resume points."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import tiny_vibevoice
import tiny_whisper
from instrumented_slot import Overheard, OverheardSlot

from sidecar.engines.engine_selection import choose_engine
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.plugins import load_settings
from sidecar.transcripts.transcript import ResumePoint, TranscriptionEvent
from sidecar.workers.engine_lease import Sharing
from sidecar.workers.loaded_model import DEFAULT_MODEL_ID, LoadedModel
from sidecar.workers.worker_environment import WorkerOptions

CHECKPOINTS: dict[str, Callable[[], Path]] = {
    "vibevoice": lambda: tiny_vibevoice.checkpoint("tiny"),
    "whisper": tiny_whisper.model,
}


def tiny_model(engine: str) -> LoadedModel[EngineSpec]:
    """The engine with its tiny checkpoint, in fp32 on the CPU."""
    settings = load_settings(engine=engine, model_path=CHECKPOINTS[engine](), device="cpu")
    choice = choose_engine(settings)
    return LoadedModel(DEFAULT_MODEL_ID, choice, choice.spec, Precision.FP32)


class TinySlot(OverheardSlot):
    """``kills``: how often its process is killed from now on, each time at the first resume point
    of an attempt. ``stops``: attempts stop there, until they are cancelled."""

    shares = Sharing(worker=WorkerOptions(niceness=0))

    def __init__(self, engine: str, kills: int = 0, *, stops: bool = False) -> None:
        super().__init__()
        self.model = tiny_model(engine)
        self.kills, self.stops = kills, stops
        self.points: list[ResumePoint] = []
        """All that were reported."""

    @asynccontextmanager
    async def lease(self, *wanted: Any) -> AsyncIterator[Any]:
        async with super().lease(*wanted) as engine:
            yield _Endangered(engine, self)


class _Endangered(Overheard):
    _slot: TinySlot

    async def transcribe(self, *request: Any) -> AsyncGenerator[TranscriptionEvent, None]:
        async with aclosing(self._engine.transcribe(*request)) as events:
            async for event in events:
                yield event
                if not isinstance(event, ResumePoint):
                    continue
                self._slot.points.append(event)
                if self._slot.kills:
                    self._slot.kills -= 1
                    self._slot.kill()
                while self._slot.stops:
                    await asyncio.Event().wait()
