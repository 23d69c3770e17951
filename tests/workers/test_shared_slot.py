"""An engine that many hold at once: loaded for the first, kept for the last, renewed under all."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from instrumented_slot import scripted_model
from job_fixtures import Hold
from job_fixtures import hold as hold
from recordings import wav
from service_process import PATIENCE_S, new_file, settle, until

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.gpu_memory.memory_admission import LoadPlan
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.workers.engine import Engine
from sidecar.workers.engine_lease import LIVE, EngineState
from sidecar.workers.engine_memory import AnyModel, MemoryAccount
from sidecar.workers.worker_process import WorkerDied

FP32, INT8 = Precision.FP32, Precision.INT8
SECONDS = 100


class Loads(MemoryAccount):
    """Notes at which precisions it was loaded, and which of its processes died."""

    def __init__(self) -> None:
        self.at: list[Precision] = []
        self.died: list[int] = []

    def place(self, model: AnyModel) -> LoadPlan:
        self.at.append(model.precision)
        return LoadPlan()


@pytest.fixture
def loads() -> Loads:
    return Loads()


Build = Callable[..., Engine]


@pytest.fixture
async def build(loads: Loads) -> AsyncIterator[Build]:
    """Slots of the scripted engine, closed in the end."""
    slots: list[Engine] = []

    def make(keep_alive_s: float = -1, **worker: float) -> Engine:
        noted = loads.died
        slot = Engine(
            scripted_model(FP32),
            keep_alive_s,
            loads,
            on_worker_crash=lambda one: noted.append(one.pid),
            sharing=replace(LIVE, worker=replace(LIVE.worker, **worker)),
        )
        slots.append(slot)
        return slot

    yield make
    for slot in slots:
        await slot.close()


class Speaking:
    """A holder with a call that goes on for as long as the recording, or until it ends."""

    def __init__(self, slot: Engine, path: Path) -> None:
        self._slot, self._path = slot, path
        self.heard = 0
        self.begun = False
        self.task = asyncio.ensure_future(self._speak())

    async def _speak(self) -> None:
        wanted = {
            "facts": AudioInfo("wav", "sndfile", SECONDS).to_wire(),
            "options": TranscribeOptions().to_wire(),
            "max_s": 1e5,
        }
        with self._path.open("rb") as file:
            async with self._slot.lease() as engine:
                fds = [file.fileno()]
                self.begun = True
                async with engine.calling("transcribe", fds, **wanted) as call:
                    async for _ in call.answers():
                        self.heard += 1


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """So long that it goes on for whatever is done meanwhile, however busy the machine is."""
    return new_file(tmp_path / "long.wav", wav(bytes(SECONDS * 32_000)))


async def test_concurrent_leases_share_engine_that_is_loaded_once(
    build: Build, loads: Loads, recording: Path
) -> None:
    slot = build()
    speaking = [Speaking(slot, recording) for _ in range(8)]
    await asyncio.gather(*(one.task for one in speaking))
    assert all(one.heard > 1 for one in speaking)
    assert loads.at == [FP32]
    assert slot.state is EngineState.READY


async def test_shared_engine_without_keep_alive_is_unloaded_after_the_last_lease_and_not_before(
    build: Build,
) -> None:
    slot = build(keep_alive_s=0)
    async with slot.lease():
        pid = slot.worker_pid
        async with slot.lease():
            assert slot.state is EngineState.BUSY
        await slot.preload()  # a turn of somebody else's ends meanwhile
        await settle()
        assert (slot.state, slot.worker_pid) == (EngineState.BUSY, pid)
    await until(lambda: slot.state is EngineState.ABSENT)


@pytest.mark.usefixtures("hold")
async def test_reload_ends_calls_of_leases_and_next_lease_gets_new_engine(
    build: Build, loads: Loads, recording: Path
) -> None:
    slot = build(keep_alive_s=0)
    speaking = [Speaking(slot, recording) for _ in range(3)]
    await until(lambda: all(one.begun for one in speaking) and speaking[0].heard)
    old = slot.worker_pid
    assert await slot.reload(INT8) is INT8
    outcomes = await asyncio.gather(*(one.task for one in speaking), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WorkerDied] * 3
    async with slot.lease() as engine:
        assert (engine.precision, engine.alive) == (INT8, True)
        assert slot.worker_pid != old
    assert (loads.at, loads.died) == ([FP32, INT8], [])


async def test_crash_of_shared_engine_ends_its_calls_is_noted_once_and_leases_get_a_new_engine(
    build: Build, loads: Loads, recording: Path, hold: Hold
) -> None:
    slot = build(keep_alive_s=-1)
    speaking = [Speaking(slot, recording) for _ in range(3)]
    await until(lambda: all(one.begun for one in speaking) and speaking[0].heard)
    killed = slot.worker_pid
    assert killed is not None
    psutil.Process(killed).kill()
    outcomes = await asyncio.gather(*(one.task for one in speaking), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WorkerDied] * 3
    hold.release()
    again = [Speaking(slot, recording) for _ in range(3)]
    await asyncio.gather(*(one.task for one in again))
    assert (loads.at, loads.died) == ([FP32, FP32], [killed])


@pytest.mark.posix("pipes of POSIX")
@pytest.mark.parametrize("cancelled_twice", [False, True], ids=["cancelled", "cancelled twice"])
async def test_call_that_does_not_stop_does_not_end_shared_engine(
    cancelled_twice: bool,
    build: Build,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")  # nobody writes: as native code that hears no cancel
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_EVENTS", str(pipe))
    slot = build(cancel_grace_s=0.2, ping_timeout_s=PATIENCE_S)
    async with slot.lease() as engine:
        worker = slot.worker
        assert worker is not None
        worker.patience_s = 0.0
        for impatient in (cancelled_twice, True):  # the second call is behind the first
            slow = Speaking(slot, recording)
            await until(lambda slow=slow: slow.begun)
            slow.task.cancel()
            if impatient:
                await settle()  # it waits for the end of the call
                slow.task.cancel()
            await asyncio.gather(slow.task, return_exceptions=True)
        assert engine.alive
        assert slot.state is EngineState.BUSY


@pytest.mark.usefixtures("hold")
async def test_closed_slot_ends_calls_and_refuses_leases(build: Build, recording: Path) -> None:
    slot = build()
    speaking = Speaking(slot, recording)
    await until(lambda: speaking.heard)
    await slot.close()
    with pytest.raises(WorkerDied):
        await speaking.task
    with pytest.raises(errors.ShuttingDown):
        async with slot.lease():
            pytest.fail("it cannot be lent")
    assert slot.state is EngineState.ABSENT


async def test_failed_load_raises_in_each_waiting_lease(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "fp32")
    slot = build(keep_alive_s=0)

    async def hold() -> None:
        async with slot.lease():
            pytest.fail("it cannot be lent")

    outcomes = await asyncio.gather(hold(), hold(), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [errors.ModelLoadFailed] * 2
    assert (slot.state, slot.in_use) == (EngineState.ABSENT, False)


@pytest.mark.posix("niceness")
async def test_live_engine_has_normal_priority_and_file_engine_lower(build: Build) -> None:
    ours = psutil.Process().nice()
    alone = Engine(scripted_model(FP32), -1)
    try:
        together = build()
        await asyncio.gather(alone.preload(), together.preload())
        nice = [psutil.Process(slot.worker_pid).nice() - ours for slot in (together, alone)]
    finally:
        await alone.close()
    assert nice == [0, min(5, 19 - ours)]
