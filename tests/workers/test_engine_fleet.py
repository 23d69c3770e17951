"""The engines of a service: one for files and one for live audio, side by side."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.workers import engine_fleet
from sidecar.workers.engine_fleet import (
    EngineFleet,
    EngineRole,
    ModelLoadRequest,
    ModelRegistry,
)
from sidecar.workers.engine_host import EngineHost
from sidecar.workers.engine_slot import EngineState
from sidecar.workers.worker_process import Heartbeat, PingTimes

SCRIPTED = EngineChoice(replace(engine_spec("scripted"), sessions=100), "")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[EngineFleet]:
    one = EngineFleet(
        Settings(engine="scripted", data_dir=tmp_path, keep_alive=-1), SCRIPTED, SCRIPTED
    )
    yield one
    await one.close()


async def test_file_and_live_engine_have_own_processes_and_a_reload_of_one_keeps_the_other(
    fleet: EngineFleet,
) -> None:
    slots = [fleet.files.slot, fleet.live]
    assert [one.state for one in slots] == [EngineState.ABSENT] * 2
    async with fleet.files.slot.lease(), fleet.live.lease():
        assert [one.state for one in slots] == [EngineState.BUSY] * 2
        pid = fleet.live.worker_pid
        assert pid != fleet.files.slot.worker_pid
    await fleet.files.slot.reload(fleet.files.slot.spec.precisions[1])
    assert fleet.live.worker_pid == pid
    await fleet.close()
    assert [one.state for one in slots] == [EngineState.ABSENT] * 2
    assert not [one for one in psutil.Process().children() if one.pid == pid]


@pytest.mark.skipif(os.name == "nt", reason="kills with POSIX signals")
@pytest.mark.parametrize(
    ("role", "way"),
    [(EngineRole.LIVE, "SIGKILL"), (EngineRole.LIVE, "SIGSTOP"), (EngineRole.FILES, "SIGSTOP")],
)
async def test_engine_that_dies_or_hangs_during_lease_leaves_a_crash_note_file(
    fleet: EngineFleet, tmp_path: Path, role: EngineRole, way: str
) -> None:
    slot = fleet.live if role is EngineRole.LIVE else fleet.files.slot
    # One that was killed is dead and not deaf, however long the system takes to end it.
    second_s = 0.05 if way == "SIGSTOP" else PATIENCE_S
    times = PingTimes(0.2, second_s, interval_s=0.05)  # no sooner: it may be busy
    slot.heartbeat = Heartbeat(lambda: slot.worker, times)
    async with fleet.live.lease() if role is EngineRole.LIVE else fleet.files.slot.lease():
        pid = slot.worker_pid
        assert pid is not None
        os.kill(pid, getattr(signal, way))
        await until(lambda: slot.worker_pid is None)
    await fleet.close()
    (note,) = (tmp_path / "crash").glob("*.json")
    written = json.loads(note.read_text())
    assert (written["role"], written["engine"], written["exit_code"]) == (role, "scripted", -9)
    assert ("answered no ping" in str(written)) is (way == "SIGSTOP")
    assert fleet.engines[role].crashes == 1


async def test_folders_of_model_registry_include_adapter_and_model_that_are_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choice(name: str) -> EngineChoice[EngineSpec]:
        weights = (Path(f"{name} model") / "model.safetensors",)
        made = ModelCheckpoint(Path(f"{name} adapter"), {}, weights, 1, None)
        return replace(SCRIPTED, checkpoint=made)

    held, begun = asyncio.Event(), asyncio.Event()

    class Host:
        """Engine whose loads take until the end of the test."""

        slot = SimpleNamespace(precision=Precision.AUTO, check=lambda _: None)

        def check(self, _: object) -> None:
            """Accept every model."""

        def takes(self, _: object) -> bool:
            """Accept every model."""
            return True

        async def load_model(self, *_: object) -> Precision:
            """Load a model."""
            begun.set()
            await held.wait()
            return Precision.AUTO

    def chosen(settings: Settings) -> EngineChoice[EngineSpec]:
        return choice(settings.whisper_model)

    monkeypatch.setattr(engine_fleet, "choose_engine", chosen)
    hosts = cast(Mapping[str, EngineHost[EngineSpec]], {EngineRole.FILES: Host()})
    models = ModelRegistry(Settings(), hosts, {EngineRole.FILES: choice("first")})
    first = {Path("first adapter"), Path("first model")}
    assert set(models.folders()) == first
    await models.load(ModelLoadRequest("other", size="second"))
    await begun.wait()
    assert set(models.folders()) == first | {Path("second adapter"), Path("second model")}
    await models.close()
    assert set(models.folders()) == first


async def test_engine_that_does_not_load_leaves_the_old_one_loaded(
    fleet: EngineFleet, tmp_path: Path
) -> None:
    host = fleet.files
    damaged = EngineChoice(engine_spec("whisper"), "", folder=tmp_path)
    await host.slot.preload()
    pid, told = host.slot.worker_pid, list[str]()
    host.on_switch = lambda: told.append(host.spec.name)
    with pytest.raises(errors.PrecisionUnavailable):
        await host.switch(damaged, Precision.INT4)
    assert host.slot.worker_pid == pid, "what is known before the load unloads nothing"
    with pytest.raises(errors.ModelLoadFailed):
        await host.switch(damaged, Precision.AUTO)
    assert host.slot.state is EngineState.READY
    assert (host.spec.name, host.slot.spec.name, told) == ("scripted", "scripted", [])


class SwitchingHost:
    """Engine that is switched in the turn after a job, and then loads until it may end."""

    def __init__(self) -> None:
        self.slot = SimpleNamespace(precision=Precision.FP32)
        self.turn, self.loaded = asyncio.Event(), asyncio.Event()
        self.waiting, self.loads = list[str](), list[str]()

    def takes(self, _: object) -> bool:
        """Refuse to load a model beside another."""
        return False

    def check_switch(self, *_: object) -> None:
        """Accept every model."""

    async def switch(
        self, choice: EngineChoice[EngineSpec], _: object, on_turn: Callable[[], None]
    ) -> Precision:
        """Load an engine."""
        self.waiting.append(choice.spec.name)
        await self.turn.wait()
        on_turn()
        self.loads.append(choice.spec.name)
        await self.loaded.wait()
        return Precision.FP32


@pytest.fixture
def switching(monkeypatch: pytest.MonkeyPatch) -> tuple[SwitchingHost, ModelRegistry]:
    """An engine, and the registry of its models; "first" is loaded."""

    def chosen(name: str, _: object) -> EngineChoice[EngineSpec]:
        return EngineChoice(replace(engine_spec("scripted"), name=name), "")

    monkeypatch.setattr(engine_fleet, "choose_installed", chosen)
    host = SwitchingHost()
    hosts = cast(Mapping[str, EngineHost[EngineSpec]], {EngineRole.FILES: host})
    return host, ModelRegistry(Settings(), hosts, {EngineRole.FILES: chosen("first", None)})


async def test_request_of_a_later_model_supersedes_one_that_still_waits_for_a_job_to_end(
    switching: tuple[SwitchingHost, ModelRegistry],
) -> None:
    host, models = switching
    other = asyncio.create_task(models.use("other"))
    await until(lambda: host.waiting == ["other"])
    assert await models.use("first") is Precision.FP32
    with pytest.raises(errors.ReloadSuperseded, match="'first' was requested"):
        await other
    host.turn.set()
    host.loaded.set()
    await models.use("other")
    assert (host.loads, models.names) == (["other"], ["other"])


async def test_equal_requests_for_a_model_share_a_load_and_one_for_another_model_waits_for_it(
    switching: tuple[SwitchingHost, ModelRegistry],
) -> None:
    host, models = switching
    host.turn.set()
    both = [asyncio.create_task(models.use("other")) for _ in range(2)]
    await until(lambda: bool(host.loads))
    back = asyncio.create_task(models.use("first"))
    await until(lambda: len(asyncio.all_tasks()) == 6, "the test, three callers, two loads")
    host.loaded.set()
    await asyncio.gather(*both, back)
    assert (host.loads, models.names) == (["other", "first"], ["first"])


async def test_fleet_without_live_engine_has_file_engine_only(tmp_path: Path) -> None:
    fleet = EngineFleet(Settings(engine="scripted", data_dir=tmp_path), SCRIPTED, None)
    assert list(fleet.engines) == [EngineRole.FILES]
    await fleet.close()
