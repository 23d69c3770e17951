"""Plans of jobs on a card with the weights of the real engine: of the first, and of one that joins
it."""

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from instrumented_slot import FACTS
from job_fixtures import Hold
from released_vibevoice_config import TEXT

from sidecar.audio.audio_source import open_recording_file
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.gpu_memory.gpu_devices import GpuMemory, GpuMonitor
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.job_engine import JobEngine
from sidecar.workers.engine_lease import EXCLUSIVE, RecordingRequest
from sidecar.workers.engine_memory import MemoryDevices
from sidecar.workers.role_engine import RoleEngine

WEIGHTS_GIB, CARD_GIB = 34, 48


async def test_job_that_joins_a_running_one_has_its_memory_plan_and_a_job_after_both_a_new_plan(
    tmp_path: Path, recording: Path, hold: Hold
) -> None:
    """Another program takes memory meanwhile."""
    hosts: list[RoleEngine[Any]] = []
    others_gib = 0

    def driver() -> GpuMemory:
        pid = hosts[0].worker_pid if hosts else None
        held = {pid: WEIGHTS_GIB << 30} if pid else {}
        used_gib = others_gib + WEIGHTS_GIB * len(held)
        return GpuMemory("a card", used_gib << 10, CARD_GIB << 10, processes=held)

    devices = MemoryDevices(GpuMonitor(driver))
    settings = Settings(precision="fp32", keep_alive=-1, data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    choice = EngineChoice(
        replace(engine_spec("scripted"), planned=True, together=8), "", checkpoint
    )
    hosts.append(RoleEngine("files", settings, choice, devices, EXCLUSIVE))
    engine, slot = JobEngine(settings, hosts[0]), hosts[0]

    def plan() -> TranscribeOptions:
        return engine.plan(TranscribeOptions(), 600.0, Precision.FP32)

    source = open_recording_file(str(recording))
    async with slot.lease() as lease:
        first = plan()
        reserved = hosts[0].memory.reserved_bytes
        async with aclosing(lease.transcribe(RecordingRequest(source, FACTS, first), 60)) as events:
            await anext(events)
            others_gib = 10
            await devices.gpu.query()
            joins = plan()
            assert hosts[0].memory.reserved_bytes == reserved, "it takes a place that is planned"
    async with slot.lease():
        after = plan()
        assert hosts[0].memory.reserved_bytes < reserved
    await slot.close()
    source.close()
    assert joins.memory == first.memory
    assert after.memory.places
    assert after.memory != first.memory
