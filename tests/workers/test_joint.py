"""One process that several jobs have at once: side by side, and alone after a crash or a wish."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from serving import PATIENCE_S

from sidecar.audio.decode import AudioFacts
from sidecar.audio.source import AudioSource, open_path
from sidecar.engines import spec_of
from sidecar.speech.engine import LoadOptions, Precision, TranscribeOptions
from sidecar.speech.transcript import Finished, SegmentReady
from sidecar.workers.joint import JointSlot
from sidecar.workers.place import Lease, WorkerDied

FACTS = AudioFacts("wav", "sndfile", 3.0)


@pytest.fixture
def path(voice: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path


@pytest.fixture
async def slot(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JointSlot]:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "4")
    made = JointSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=-1)
    yield made
    await made.close()


class Listener:
    """Hears a recording in a lease of its own."""

    def __init__(self, slot: JointSlot, path: Path, *, alone: bool = False) -> None:
        self.began, self.words = asyncio.Event(), ""
        self._slot, self._path, self._alone = slot, path, alone
        self.task = asyncio.ensure_future(self._hear())

    async def _hear(self) -> None:
        with open_path(str(self._path)) as source:
            async with self._slot.lease(alone=self._alone) as engine:
                await self._words(engine, source)

    async def _words(self, engine: Lease, source: AudioSource) -> None:
        events = engine.transcribe(source, FACTS, TranscribeOptions(), 60.0)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, SegmentReady):
                    self.began.set()
                if isinstance(event, Finished):
                    self.words = event.transcript.text


async def test_several_are_heard_at_the_same_time_in_one_process(
    slot: JointSlot, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "1")
    listeners = [Listener(slot, path) for _ in range(4)]
    for one in listeners:
        await asyncio.wait_for(one.began.wait(), PATIENCE_S)
    assert not any(one.task.done() for one in listeners), "each has said something, none is over"
    assert slot.loads == 1
    await asyncio.gather(*(one.task for one in listeners))
    assert len({one.words for one in listeners}) == 1
    assert listeners[0].words
    assert not slot.in_use


async def test_who_leaves_in_the_middle_stops_its_own_call_and_no_other(
    slot: JointSlot, path: Path
) -> None:
    one, other = Listener(slot, path), Listener(slot, path)
    await asyncio.gather(one.began.wait(), other.began.wait())
    pid = slot.worker_pid
    one.task.cancel()
    await other.task
    assert other.words
    assert slot.worker_pid == pid
    await asyncio.wait({one.task})
    assert not slot.in_use


@pytest.mark.parametrize("who", ["reload", "alone"])
async def test_who_wants_it_alone_waits_for_all_and_nobody_comes_before(
    slot: JointSlot, path: Path, who: str
) -> None:
    first = Listener(slot, path)
    await first.began.wait()
    order: list[str] = []

    def note(name: str) -> Callable[[object], None]:
        return lambda task: order.append(name)

    if who == "reload":
        sole: asyncio.Future[object] = asyncio.ensure_future(slot.reload(Precision.INT8))
    else:
        sole = Listener(slot, path, alone=True).task
    for _ in range(5):  # it takes its place in line
        await asyncio.sleep(0)
    assert slot.awaited
    last = Listener(slot, path)
    for name, task in (("first", first.task), ("sole", sole), ("last", last.task)):
        task.add_done_callback(note(name))
    await asyncio.gather(first.task, sole, last.task)
    assert order == ["first", "sole", "last"]
    assert slot.precision is (Precision.INT8 if who == "reload" else Precision.FP32)


@pytest.mark.skipif(os.name == "nt", reason="kills a process")
async def test_a_process_that_dies_ends_all_calls_and_who_comes_then_has_a_fresh_one(
    slot: JointSlot, path: Path
) -> None:
    listeners = [Listener(slot, path) for _ in range(2)]
    for one in listeners:
        await one.began.wait()
    pid = slot.worker_pid
    assert pid is not None
    psutil.Process(pid).kill()
    for one in listeners:
        with pytest.raises(WorkerDied) as died:
            await one.task
        assert died.value.began
    again = Listener(slot, path)
    await again.task
    assert again.words
    assert slot.worker_pid not in (None, pid)
