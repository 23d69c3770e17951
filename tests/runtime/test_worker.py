"""Real worker processes: they answer, they are cancelled, they die, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest
from moonshine_voice import get_assets_path

from sidecar import errors
from sidecar.engine import LoadOptions, Precision, TranscribeOptions
from sidecar.engines import spec_of
from sidecar.runtime import inside
from sidecar.runtime.slot import EngineSlot, SlotState
from sidecar.runtime.worker import Worker, WorkerDied

CLIP = Path(get_assets_path()) / "beckett.wav"
FACTS = {"container": "wav", "decoder": "sndfile", "total_s": 9.96}


def transcribe(worker: Worker, fd: int) -> Any:
    return worker.call(
        "transcribe", [fd], facts=FACTS, options=TranscribeOptions().to_wire(), max_s=1e5
    )


async def loaded(engine: str = "scripted") -> Worker:
    worker = Worker(engine)
    await worker.ask("load", engine=engine, options=LoadOptions().to_wire())
    return worker


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_worker_probes_a_file_it_was_handed() -> None:
    worker = Worker("intake")
    try:
        with CLIP.open("rb") as file:
            facts = await worker.ask("probe", [file.fileno()], max_s=1e5)
    finally:
        await worker.close()
    assert facts["container"] == "wav"
    assert facts["total_s"] == pytest.approx(9.963, abs=0.01)


async def test_a_worker_does_not_know_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBEVOICE_TOKEN", "correct-horse-battery-staple")
    worker = Worker("intake")
    try:
        environment = psutil.Process(worker.pid).environ()
        assert "VIBEVOICE_TOKEN" not in environment
        assert not any("battery-staple" in value for value in environment.values())
    finally:
        await worker.close()


async def test_an_error_keeps_its_code_across_the_process_border(tmp_path: Path) -> None:
    worker = Worker("intake")
    (tmp_path / "text").write_text("not audio")
    try:
        with (tmp_path / "text").open("rb") as file, pytest.raises(errors.AudioFormatUnsupported):
            await worker.ask("probe", [file.fileno()], max_s=1e5)
        with CLIP.open("rb") as file:
            assert await worker.ask("probe", [file.fileno()], max_s=1e5)
    finally:
        await worker.close()


async def test_leaving_a_call_cancels_it_and_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "10")
    worker = await loaded()
    try:
        with CLIP.open("rb") as file:
            async with aclosing(transcribe(worker, file.fileno())) as frames:
                first = await anext(frames)
            assert first["event"] == "SegmentReady"
            assert worker.alive
            again = [frame async for frame in transcribe(worker, file.fileno())]
        assert again[-1]["event"] == "Finished"
    finally:
        await worker.close()


async def test_a_worker_that_does_not_stop_when_told_is_killed() -> None:
    worker = await loaded()
    with CLIP.open("rb") as file:
        os.kill(worker.pid, signal.SIGSTOP)  # as deaf as native code can be
        frames = transcribe(worker, file.fileno())
        waiting = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not worker.alive
    await worker.close()
    assert gone(worker.pid)


async def test_a_killed_worker_is_reported_and_leaves_no_zombie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "1")
    worker = await loaded()
    with CLIP.open("rb") as file:
        frames = transcribe(worker, file.fileno())
        await anext(frames)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            async for _ in frames:
                pass
    await worker.close()
    assert not psutil.pid_exists(worker.pid)


def test_a_worker_dies_with_the_process_that_started_it() -> None:
    script = (
        "import asyncio, os, signal\n"
        "from sidecar.runtime.worker import Worker\n"
        "async def main():\n"
        "    worker = Worker('intake')\n"
        "    print(worker.pid, flush=True)\n"
        "    await asyncio.sleep(0.5)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    pid = int(result.stdout)
    for _ in range(100):
        if gone(pid):
            break
        import time

        time.sleep(0.02)
    assert gone(pid)


async def test_a_slot_loads_lends_reloads_and_unloads() -> None:
    slot = EngineSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=-1)
    assert slot.state is SlotState.ABSENT
    try:
        async with slot.lease() as engine:
            assert slot.state is SlotState.BUSY
            assert engine.precision is Precision.FP32
        assert slot.loaded
        old = slot.worker_pid
        await slot.reload(Precision.INT8)
        assert slot.precision is Precision.INT8
        assert slot.worker_pid != old
        assert old is not None
        assert gone(old)
        with pytest.raises(errors.PrecisionUnavailable) as refused:
            await slot.reload(Precision.INT4)
        assert "fp32, int8" in refused.value.hint
        assert slot.loaded
    finally:
        await slot.close()
    assert slot.state is SlotState.ABSENT


@pytest.mark.parametrize("keep_alive_s", [0.0, 0.05])
async def test_an_idle_engine_leaves_memory(keep_alive_s: float) -> None:
    slot = EngineSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=keep_alive_s)
    async with slot.lease():
        pid = slot.worker_pid
    for _ in range(200):
        if not slot.loaded:
            break
        await asyncio.sleep(0.02)
    assert not slot.loaded
    assert pid is not None
    assert gone(pid)
    await slot.close()


async def test_unloading_gives_all_memory_back() -> None:
    before, others = psutil.Process().memory_info().rss, psutil.Process().children()
    slot = EngineSlot(spec_of("moonshine"), LoadOptions(), keep_alive_s=-1)
    async with slot.lease():
        assert slot.worker_pid is not None
        assert psutil.Process(slot.worker_pid).memory_info().rss > 80 << 20
    await slot.close()
    assert psutil.Process().children() == others
    assert psutil.Process().memory_info().rss - before < 20 << 20


async def test_leases_are_given_in_the_order_they_were_asked_for() -> None:
    slot = EngineSlot(spec_of("scripted"), LoadOptions(), keep_alive_s=-1)
    order: list[int] = []

    async def work(number: int) -> None:
        async with slot.lease():
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(8)))
    await slot.close()
    assert order == list(range(8))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_a_worker_without_work_gives_free_memory_back_to_the_kernel() -> None:
    script = (
        "import ctypes, socket, threading, time\n"
        "import psutil\n"
        "from sidecar.engines.vibevoice import heap\n"
        "from sidecar.runtime import inside\n"
        "def held(): return psutil.Process().memory_info().rss >> 20\n"
        "if not hasattr(ctypes.CDLL(None), 'gnu_get_libc_version'): raise SystemExit(77)\n"
        "heap.keep(); inside.IDLE_S = 0.5\n"
        "blocks = [bytearray(b'x') * (1 << 20) for _ in range(100)]\n"
        "pin, full = bytearray(1 << 20), held()\n"
        "del blocks\n"
        "kept, end = held(), time.monotonic() + 30\n"
        "ours, theirs = socket.socketpair()\n"
        "threading.Thread(target=inside.serve, args=(theirs,), daemon=True).start()\n"
        "while held() > full - 90 and time.monotonic() < end: time.sleep(0.05)\n"
        "print(full - kept, full - held(), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    if done.returncode == 77:
        pytest.skip("another C library")
    at_once, when_idle = map(int, done.stdout.split())
    assert at_once < 50
    assert when_idle >= 90


def test_between_two_recordings_a_worker_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(inside, "give_back", lambda: given.append("back"))
    operations: queue.SimpleQueue[inside.Operation] = queue.SimpleQueue()
    operations.put(({"operation": "load"}, []))
    assert inside._next(operations) == ({"operation": "load"}, [])
    assert given == []

    monkeypatch.setattr(inside, "IDLE_S", 0.01)
    threading.Timer(0.3, operations.put, [({"operation": "late"}, [])]).start()
    assert inside._next(operations) == ({"operation": "late"}, [])
    assert given == ["back"]
