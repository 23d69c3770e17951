"""One process that several jobs have at once: side by side, and alone after a crash or a wish."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from instrumented_slot import scripted_model
from job_fixtures import Hold
from job_fixtures import hold as hold
from recordings import wav
from service_process import PATIENCE_S, new_file

from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource, open_recording_file
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.transcripts.transcript import Finished, SegmentReady
from sidecar.workers.engine import Engine
from sidecar.workers.engine_lease import CONCURRENT, EngineLease, RecordingRequest

SECONDS = 30
FACTS = AudioInfo("wav", "sndfile", SECONDS)
"""So long that it goes on for whatever is done meanwhile, however busy the machine is."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_file(tmp_path / "long.wav", wav(bytes(SECONDS * 32_000)))


@pytest.fixture
async def slot() -> AsyncIterator[Engine]:
    made = Engine(scripted_model(Precision.AUTO), keep_alive_s=-1, sharing=CONCURRENT)
    yield made
    await made.close()


class Listener:
    """Hears a recording in a lease of its own."""

    def __init__(self, slot: Engine, path: Path, *, alone: bool = False) -> None:
        self.words = ""
        self._began = asyncio.Event()
        self.may_leave = asyncio.Event()
        """It has had its words, and may give back its lease."""
        self.may_leave.set()
        self._slot, self._path, self._alone = slot, path, alone
        self.task = asyncio.ensure_future(self._hear())

    async def _hear(self) -> None:
        with open_recording_file(str(self._path)) as source:
            async with self._slot.lease(alone=self._alone) as engine:
                await self._words(engine, source)
                await self.may_leave.wait()

    async def _words(self, engine: EngineLease, source: AudioSource) -> None:
        events = engine.transcribe(RecordingRequest(source, FACTS, TranscribeOptions()), 60.0)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, SegmentReady):
                    self._began.set()
                if isinstance(event, Finished):
                    self.words = event.transcript.text

    async def began(self) -> None:
        """Wait until it has heard something, which it may not live to see."""
        began = asyncio.ensure_future(self._began.wait())
        await asyncio.wait(
            {began, self.task}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        began.cancel()
        assert self._began.is_set()


async def test_lease_that_ends_early_cancels_only_its_own_call(
    slot: Engine, path: Path, hold: Hold
) -> None:
    one, other = Listener(slot, path), Listener(slot, path)
    one.may_leave.clear()
    await asyncio.gather(one.began(), other.began())
    pid = slot.worker_pid
    one.task.cancel()
    await asyncio.wait({one.task})
    assert slot.in_use
    hold.release()
    await other.task
    assert other.words
    assert slot.worker_pid == pid
    assert not slot.in_use


@pytest.mark.parametrize("who", ["reload", "alone"])
async def test_reload_or_exclusive_lease_waits_for_earlier_leases_and_precedes_later_ones(
    slot: Engine, path: Path, who: str
) -> None:
    first = Listener(slot, path)
    first.may_leave.clear()
    await first.began()
    order: list[str] = []

    def note(name: str) -> Callable[[object], None]:
        return lambda task: order.append(name)

    if who == "reload":
        sole: asyncio.Future[object] = asyncio.ensure_future(slot.reload(Precision.INT8))
    else:
        sole = Listener(slot, path, alone=True).task
    for _ in range(5):  # it takes its place in line
        await asyncio.sleep(0)
    last = Listener(slot, path)
    for name, task in (("first", first.task), ("sole", sole), ("last", last.task)):
        task.add_done_callback(note(name))
    first.may_leave.set()
    await asyncio.gather(first.task, sole, last.task)
    assert order == ["first", "sole", "last"]
    assert slot.precision is (Precision.INT8 if who == "reload" else Precision.FP32)
