"""Every way to change a model, in made-up orders beside jobs and live sessions, with failures at
each step: whoever is asked names the same model, which comes under the name that was asked for.

The service is the real one, its worker processes are stand-ins.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from instrumented_slot import job_of
from released_vibevoice_config import TEXT
from service_process import PATIENCE_S
from stand_in_workers import StandInWorker

from sidecar import errors
from sidecar.api import gauges
from sidecar.api.health_routes import health_response
from sidecar.auth.identity import ANONYMOUS
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.gpu_memory.memory_admission import LoadPlacement, LoadPlan
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
)
from sidecar.jobs.duration_prediction import DurationFile, DurationFit
from sidecar.jobs.job_runner import Job
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Finished, Progress, Transcript, to_wire
from sidecar.workers import model_registry
from sidecar.workers.engine import Wanted
from sidecar.workers.engine_loading import WorkerLoader
from sidecar.workers.engine_memory import EngineMemory
from sidecar.workers.loaded_model import DurationKey, LoadedModel
from sidecar.workers.model_registry import ModelLoadRequest
from sidecar.workers.role_engine import RoleEngine
from sidecar.workers.worker_process import WorkerDied

SCRIPTED = engine_spec("scripted")
FP32, INT8 = Precision.FP32, Precision.INT8
SECONDS = 100.0
LOAD_S = 1000.0
"""Seconds of any load, in the file of durations from before the start."""
FAULTS = errors.MachineBusy, errors.ModelLoadFailed, errors.LoadInterrupted
"""The process does not start, the load fails, the process dies in it."""
STEPS = (
    "use", "use", "use", "use", "load", "unload", "reload", "reload now", "preload", "job", "job",
    "session", "go on", "go on", "hang up", "crash", "cancel", "wait", "wait",
)  # fmt: skip


def checkpoint(name: str) -> ModelCheckpoint:
    config = {"text_config": {**TEXT, "num_hidden_layers": 1, "vocab_size": 1000}}
    return ModelCheckpoint(Path(name), config, (), 1, None)


CHOICES = {
    "first": EngineChoice(SCRIPTED, "", checkpoint("first")),
    "second": EngineChoice(SCRIPTED, "", checkpoint("second")),
    "planned": EngineChoice(
        replace(SCRIPTED, name="planned", planned=True, precisions=(Precision.BF16, INT8)),
        "",
        checkpoint("planned"),
    ),
    "plain": EngineChoice(replace(SCRIPTED, name="plain", precisions=(FP32,)), ""),
}
TWINS = "twin of first", "twin of second"
"""Other names of these weights."""
KEYS = [
    DurationKey(one.spec.name, one.checkpoint.folder.name if one.checkpoint else "", precision)
    for one in CHOICES.values()
    for precision in one.spec.precisions
]
PACES = {key: DurationFit(0.0, 1.0 + number, LOAD_S) for number, key in enumerate(KEYS)}
"""Each model and precision has a pace of its own: an estimate shows of which one it is."""


class Call:
    """A call of a worker that transcribes, or takes live audio, until it is let go."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self.may_end = asyncio.Event()

    async def answers(self) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        yield {"event": to_wire(Progress(1.0, SECONDS))}, b""
        await self.may_end.wait()
        if not self._process.alive:
            raise WorkerDied("killed")
        key = self._process.key
        transcript = Transcript((), "en", 0.0, key.engine, key.precision)  # too short to learn from
        yield {"event": to_wire(Finished(transcript))}, b""


class Process(StandInWorker):
    """A stand-in, what was loaded into it, and its calls."""

    def __init__(self, pid: int, key: DurationKey) -> None:
        super().__init__(pid)
        self.key, self.calls = key, list[Call]()

    @asynccontextmanager
    async def calling(self, *_: Any, **__: Any) -> AsyncIterator[Call]:
        if not self.alive:
            raise WorkerDied("killed", began=False)
        self.calls.append(call := Call(self))
        try:
            yield call
        finally:
            self.calls.remove(call)

    def die(self) -> None:
        for call in self.calls:
            call.may_end.set()
        super().die()


def installed(name: str, settings: Settings) -> EngineChoice[Any]:
    """Stands for `choose_installed`."""
    return CHOICES[name.removeprefix("twin of ")]


class NamedChanges:
    """The changes of an engine that name a model, and the models that it had."""

    def __init__(self, engine: RoleEngine[Any], patch: pytest.MonkeyPatch) -> None:
        self._engine, self._change = engine, engine.change
        self._asked: list[str] = []
        self._pending: list[str] = []
        """Names that may still come; those of callers that were cancelled for good."""
        self._had = [(engine.model.name, engine.precision)]
        self.faults: list[str] = []
        patch.setattr(engine, "change", self.change)
        engine.watch(self._changed)

    def _changed(self) -> None:
        name, precision = self._engine.model.name, self._engine.precision
        if name not in (self._had[-1][0], *self._pending):
            self.faults.append(f"nobody asked for '{name}'")
        self._had.append((name, precision))

    async def change(self, wanted: Wanted[Any], *, again: bool = False) -> LoadedModel[Any]:
        """Stands for `Engine.change`. A model comes under the name that was asked for, or under
        one that was asked for later."""
        if again:
            return await self._change(wanted, again=True)
        name, asked, had = wanted(self._engine.coming).name, len(self._asked), len(self._had)
        self._asked.append(name)
        self._pending.append(name)
        try:
            model = await self._change(wanted)
        except errors.SidecarError:
            self._pending.remove(name)
            raise
        self._pending.remove(name)
        came = {name for name, precision in self._had[had:] if precision is model.precision}
        if not came & {*self._asked[asked:]}:
            self.faults.append(f"'{name}' was promised and did not come")
        return model


class Walk:
    """A service, its clients, and what may fail."""

    def __init__(self, seed: int, folder: Path, recording: Path, patch: pytest.MonkeyPatch) -> None:
        self.random, self._recording = random.Random(seed), recording
        settings = Settings(
            engine="scripted",
            precision="fp32",
            data_dir=folder,
            device="cpu",
            keep_alive=self.random.choice([0, -1]),
            admin_model_roots=[folder],
        )
        DurationFile(folder).write(PACES)
        live = replace(CHOICES["first"], spec=replace(SCRIPTED, sessions=9))
        self.service = Service(settings, CHOICES["first"], live=live)
        engines = self.service.fleet.recognizers.values()
        self._changes = [NamedChanges(one, patch) for one in engines]
        self.processes: list[Process] = []
        self.tasks: list[asyncio.Future[Any]] = []
        self.jobs: list[Job] = []
        self.sessions: list[asyncio.Event] = []
        self.mixed: set[DurationKey] = set()

    async def load(
        self, loader: WorkerLoader, name: str, factory: str, options: LoadOptions
    ) -> Process:
        """Stands for `WorkerLoader.start_worker`."""
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        if self.random.random() < 0.3:
            raise self.random.choice(FAULTS)()
        weights = Path(options.checkpoint).name if options.checkpoint else ""
        key = DurationKey(name, weights, options.precision)
        self.processes.append(Process(1 + len(self.processes), key))
        return self.processes[-1]

    def place(self, memory: EngineMemory, model: Any) -> LoadPlan:
        """Stands for `EngineMemory.place`."""
        if self.random.random() < 0.1:
            raise errors.WontFit()
        return LoadPlan(self.random.choice([*LoadPlacement]))

    def take(self, step: str) -> None:
        service, chosen = self.service, self.random.choice
        precision = chosen([Precision.AUTO, FP32, INT8])
        match step:
            case "use":
                self._begin(service.use_model(ANONYMOUS, chosen([*CHOICES, *TWINS]), precision))
            case "load":
                name = f"model {self.random.randrange(3)}"
                size = chosen(["first", "second"])
                self._begin(service.models.load(ModelLoadRequest(name, None, size, precision)))
            case "unload":
                with suppress(errors.ModelNotFound):
                    self._begin(service.models.unload(chosen(service.models.names)))
            case "reload" | "reload now":
                now = step == "reload now"
                self._begin(service.reload(ANONYMOUS, precision, now=now))
            case "preload":
                self._begin(chosen([service.fleet.files, service.fleet.live]).preload())
            case "job":
                options = TranscribeOptions(precision=precision)
                self.jobs.append(job_of(self._recording, options))
                self._begin(service.queue.submit(self.jobs[-1]))
            case "session":
                self._begin(self._session())
            case "go on":
                for process in self.processes:
                    for call in process.calls[:1]:
                        call.may_end.set()
            case "hang up" if self.sessions:
                self.sessions.pop().set()
            case "crash" if alive := [one for one in self.processes if one.alive]:
                chosen(alive).die()
            case "cancel" if self.tasks:
                chosen(self.tasks).cancel()

    async def _session(self) -> None:
        async with self.service.fleet.live.lease():
            self.sessions.append(ends := asyncio.Event())
            await ends.wait()

    def _begin(self, work: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def compare(self) -> None:
        """Ask everybody, in one turn of the loop, which model is loaded and which one comes."""
        service, files = self.service, self.service.fleet.files
        health = json.loads((await health_response(service)).body)
        told = health["engine"], health["precision"]
        state, loading = health["engine_state"], health["load_percent"]
        (metrics, live) = gauges.service_values(service)["engines"]
        if live["pid"] is not None:
            key = self.processes[live["pid"] - 1].key
            assert (key.engine, key.precision) == (live["engine"], live["precision"])
        assert (metrics["engine"], metrics["precision"]) == told
        assert (metrics["state"], metrics["load_percent"]) == (state, loading)
        assert metrics["pid"] == health["worker_pid"]
        values = {one.name: one.values for one in gauges.gauges(service)}
        assert ("files", *told) in values["engine_info"]
        assert values["engine_state"]["files", state] == 1.0
        used = service.models.in_use()["files"]
        weights = used.checkpoint.folder.name if used.checkpoint else ""
        assert used.spec.name == health["engine"] == service.spec.name
        loaded = DurationKey(told[0], weights, told[1])
        if health["worker_pid"] is not None:
            assert self.processes[health["worker_pid"] - 1].key == loaded, "what serves in truth"
        assert health["model_loaded"] <= (health["worker_pid"] is not None)
        names = [one.model.name for one in service.fleet.recognizers.values()]
        assert service.models.names == [*dict.fromkeys(names)]
        asked = TranscribeOptions(precision=files.coming.precision)
        forecast = service.job_engine.forecast(SECONDS, asked)
        if forecast.seconds is not None:
            (estimated,) = (key for key in KEYS if PACES[key].per_s == forecast.seconds / SECONDS)
            assert estimated.precision == forecast.precision
            if estimated != loaded:  # that of the load in progress, all of it
                assert estimated == files.coming.duration_key
                assert files.coming is not files.model
            spec = files.coming.spec
            assert forecast.precision in spec.precisions
            assert (forecast.needed_bytes is None) is not spec.planned

    async def finish(self) -> None:
        """Let all end, or stop in the middle."""
        if self.random.random() < 0.5:
            async with asyncio.timeout(PATIENCE_S):
                while not all(one.done() for one in self.tasks):
                    for _ in range(9):
                        self.take("go on")
                        self.take("hang up")
                        await asyncio.sleep(0)
                    await self.compare()

    async def check_outcomes(self) -> None:
        """Nothing unknown was raised, and no process is left of a service that is closed."""
        for ends in self.sessions:
            ends.set()
        outcomes = await asyncio.gather(*self.tasks, return_exceptions=True)
        faults = [one for one in outcomes if isinstance(one, BaseException)]
        assert not [
            one
            for one in faults
            if not isinstance(one, (errors.SidecarError, asyncio.CancelledError))
        ]
        assert not any(one.alive for one in self.processes), "none is left"
        assert not [fault for one in self._changes for fault in one.faults]


@pytest.fixture
def recording(tmp_path: Path, voice: bytes) -> Path:
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return path


@pytest.mark.parametrize("seed", [*range(30), 477])  # a reload finds another model at its turn
async def test_all_that_name_the_model_name_the_same_whatever_changes_and_fails(
    seed: int, tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    walk = Walk(seed, folder, recording, monkeypatch)

    async def inline(work: Callable[..., Any], *given: Any) -> Any:
        await asyncio.sleep(0)
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", inline)
    monkeypatch.setattr(model_registry, "choose_installed", installed)
    monkeypatch.setattr(
        model_registry, "choose_engine", lambda settings: CHOICES[settings.whisper_model]
    )
    monkeypatch.setattr(WorkerLoader, "start_worker", lambda *given: walk.load(*given))
    monkeypatch.setattr(EngineMemory, "place", lambda *given: walk.place(*given))
    walk.service.queue.open()
    try:
        await walk.compare()
        for _ in range(60):
            walk.take(walk.random.choice(STEPS))
            for _ in range(walk.random.randrange(8)):
                await asyncio.sleep(0)
                await walk.compare()
        await walk.finish()
    finally:
        await walk.service.close()
    await walk.check_outcomes()
    learned = {
        DurationKey(one["engine"], one["model"], one["precision"])
        for one in json.loads((folder / "pace.json").read_text("utf-8"))["paces"]
        if one["load_s"] < LOAD_S
    }
    assert learned <= {one.key for one in walk.processes}
