"""Host of an engine on this machine: spec, slot, share of a device.

The ledger of its device records what the engine holds and will take. `gpu_memory.memory_admission`
decides on snapshots of memory, which are taken here.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic

from sidecar import errors, files
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import EngineChoice, Spec, spec_on_device
from sidecar.gpu_memory import gpu_devices, memory_admission
from sidecar.gpu_memory.memory_footprint import ModelShape
from sidecar.gpu_memory.memory_plan import DeviceRoom, JobForecast, room_text
from sidecar.interfaces.engine_interface import EngineSpec, LoadOptions, MemoryPlan, Precision
from sidecar.observability.logs import default_data_folder
from sidecar.version import __version__
from sidecar.workers.engine_slot import CONCURRENT, EngineSlot, Sharing, check_precision
from sidecar.workers.worker_process import WorkerProcess

log = logging.getLogger(__name__)
MAX_CRASH_NOTES = 20
"""Newest crash notes that are kept."""


@dataclass(frozen=True, slots=True)
class MemoryDevices:
    """Memory that the engines of this service share: of the GPU in use, and of the host."""

    gpu: gpu_devices.GpuMonitor = field(default_factory=gpu_devices.GpuMonitor)
    host: gpu_devices.HostMemoryMonitor = field(default_factory=gpu_devices.HostMemoryMonitor)


class EngineHost(memory_admission.MemoryAccount, Generic[Spec]):
    """Host of an engine: owns its slot and accounts for its memory.

    ``name``: its name in ledgers and crash notes. ``live``: it serves live sessions. ``speaks``: it
    is a TTS engine.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        choice: EngineChoice[Spec],
        devices: MemoryDevices,
        sharing: Sharing,
        *,
        live: bool = False,
        speaks: bool = False,
    ) -> None:
        self.name = name
        self._settings = settings
        self._devices = devices
        self._device = settings.device
        self._adopt(choice)
        self.concurrency = 1 if live else self._concurrency()
        """Recordings transcribed at once: by the upstreams, or by threads that share the model."""
        servers = choice.upstream and len(choice.upstream.urls)
        self.long_concurrency = servers or max(1, self.concurrency - 1)
        """How many of them may be long, so that short ones need not wait for them."""
        self.admission: memory_admission.MemoryAdmission | None = self._plan_memory()
        """Plans of the memory of jobs; None if the engine needs none."""
        self.on_switch: Callable[[], None] = lambda: None
        """Called when another engine replaces that in use (`switch`)."""
        precision = self._first_precision()
        self._replaced: gpu_devices.EngineMemoryHolding | None = None
        """Holding of the old engine while a new one loads; None otherwise."""
        self._expected = 0
        self.crashes = 0
        """Number of deaths and kills of its process."""
        self._own: int | None = None
        """Bytes that it has reserved; None while it is not loaded."""
        self._sessions = 0 if live else 1
        """Live sessions; a recording takes as much as one."""
        self._crash_notes = CrashNotes(default_data_folder(settings.data_dir))
        self.slot: EngineSlot[Spec] = EngineSlot(
            self.spec,
            LoadOptions(
                precision,
                self._folder,
                settings.device,
                upstream=choice.upstream,
                live=live,
                speaks=speaks,
            ),
            settings.keep_alive,
            self,
            self._note_crash,
            CONCURRENT if self.concurrency > 1 else sharing,
        )
        self._least = 0
        """Bytes that stay reserved while it is not loaded: of a live engine that was planned beside
        that for files."""
        if live and choice.fits and self.on_gpu:
            used = self.spec.resolve_precision(precision)
            self._least = choice.footprints[used].needed_bytes
            self._release()
        devices.gpu.ledger.register_engine(name, lambda: self._holding(on_gpu=True))
        devices.host.ledger.register_engine(name, lambda: self._holding(on_gpu=False))

    def _adopt(self, choice: EngineChoice[Spec]) -> None:
        """Record the engine that is loaded next."""
        self._choice = choice
        self._file_bytes = choice.checkpoint.bytes if choice.checkpoint else choice.folder_bytes
        self._has_checkpoint = choice.checkpoint is not None
        self._session_bytes = choice.session_bytes
        self.spec = self._spec_of(choice)

    def _spec_of(self, choice: EngineChoice[Spec]) -> Spec:
        """Return the spec of an engine on the device of this one."""
        watches_gpu = choice.checkpoint and (choice.spec.planned or self._device != "cpu")
        if watches_gpu:
            self._devices.gpu.begin()
        return spec_on_device(choice.spec, self.gpu if watches_gpu else None)

    @property
    def _folder(self) -> str | None:
        """Return the folder of the engine's files; None if it needs none."""
        checkpoint = self._choice.checkpoint
        folder = checkpoint.folder if checkpoint else self._choice.folder
        return str(folder) if folder else None

    def _plan_memory(self) -> memory_admission.MemoryAdmission | None:
        """Return the plans of memory for the engine; drop the precision that it lacks here."""
        choice, settings = self._choice, self._settings
        if choice.checkpoint is None or not choice.spec.planned:
            return None
        shape = ModelShape.from_config(choice.checkpoint.config)
        several = len(self.spec.precisions) > 1  # else it is a quantized checkpoint
        if several and not self.on_gpu and (obstacle := shape.int4_obstacle):
            self.spec = self.spec.without(Precision.INT4, obstacle)
            if settings.precision is Precision.INT4:
                log.warning("%s", self.spec.replacement(Precision.INT4))
        limit = settings.memory_limit_mb and settings.memory_limit_mb << 20
        fused = self.gpu is None or not self.on_gpu or self.gpu.bf16
        return memory_admission.MemoryAdmission(
            shape, self.spec.precisions, limit, fused, self.concurrency
        )

    def _first_precision(self) -> Precision:
        """Return the precision of the settings, or the one that fits."""
        precision = self._settings.precision
        if precision is Precision.AUTO and self.admission is not None:
            precision = self.admission.first_precision(self._memory(None))
        return precision

    def _concurrency(self) -> int:
        spec, upstream = self._choice.spec, self._choice.upstream
        narrow = self.on_gpu and self.gpu is not None and not self.gpu.bf16
        if not isinstance(spec, EngineSpec) or narrow:
            return 1  # fp16 may have to be widened, which would change what others decode
        most = spec.together if self.on_gpu or spec.remote else 1
        each = min(self._settings.batch or most, spec.together)
        return each * (len(upstream.urls) if upstream is not None else 1)

    @property
    def model_name(self) -> str:
        """Return the name of the weights, by which durations are stored; '' if there are none."""
        return self._choice.checkpoint.folder.name if self._choice.checkpoint else ""

    @property
    def gpu(self) -> gpu_devices.GpuMemory | None:
        """Return the GPU as of the last query; None if there is none."""
        return self._devices.gpu.seen

    @property
    def on_gpu(self) -> bool:
        """Return whether the engine uses the GPU; one without a checkpoint never does."""
        return self._has_checkpoint and self.gpu is not None and self._device != "cpu"

    @property
    def device(self) -> str:
        """Return the device that the engine uses: ``cuda`` or ``cpu``."""
        return "cuda" if self.on_gpu else "cpu"

    async def switch(
        self,
        choice: EngineChoice[Spec],
        precision: Precision,
        on_turn: Callable[[], None] = lambda: None,
    ) -> Precision:
        """Load another engine instead of the one in use, after the running job. Return its
        precision. ``precision``: AUTO for that of the settings. ``on_turn`` is called once that job
        has ended; until then the caller may be cancelled.

        Raises:
            errors.ModelUnsuited, errors.PrecisionUnavailable: as `check_switch`.
            errors.SidecarError: as `EngineSlot.reload`; the old engine is loaded again, if it was.
        """
        self.check_switch(choice, precision)
        slot = self.slot
        async with slot.vacated() as was_loaded:
            on_turn()
            old = self._choice, self._file_bytes, self.admission
            old_engine = slot.spec, slot.precision, slot.checkpoint
            self._adopt(choice)
            self.admission = self._plan_memory()
            try:
                if precision is Precision.AUTO:
                    precision = self._first_precision()
                else:
                    check_precision(self.spec, precision)
                slot.set_engine(self.spec, precision, self._folder)
                await slot.load_set()
            except BaseException as error:
                self._adopt(old[0])
                _, self._file_bytes, self.admission = old
                self.spec = old_engine[0]
                slot.set_engine(*old_engine)
                if was_loaded and isinstance(error, errors.SidecarError):
                    with suppress(errors.SidecarError):  # else the next job tells why
                        await slot.load_set()
                raise
            self.on_switch()
            return slot.precision

    def check_switch(
        self, choice: EngineChoice[Spec], precision: Precision = Precision.AUTO
    ) -> None:
        """Refuse an engine that cannot replace the one in use while the service runs.

        Raises:
            errors.ModelUnsuited: it cannot run as many jobs at once, or one of the two is remote.
            errors.PrecisionUnavailable: it has no such precision.
        """
        check_precision(self._spec_of(choice), precision)
        new, old = choice.spec, self.spec
        assert isinstance(new, EngineSpec)
        assert isinstance(old, EngineSpec)
        if new.remote or old.remote or new.together < self.concurrency:
            raise errors.ModelUnsuited(
                f"The engine '{new.name}' cannot replace '{old.name}' while the service runs.",
                hint="Restart the service with it.",
            )

    def takes(self, choice: EngineChoice[Spec]) -> bool:
        """Return whether `load_model` can load a model."""
        try:
            self.check(choice)
        except errors.ModelUnsuited:
            return False
        return True

    async def load_model(self, choice: EngineChoice[Spec], precision: Precision) -> Precision:
        """Load another model of the same engine, beside the old one or, if memory is short, instead
        of it. Return its precision.

        Raises:
            errors.ModelUnsuited: it differs from the first model in what the service relies on.
            errors.SidecarError: as `EngineSlot.reload`; the old model goes on serving.
        """
        self.check(choice)
        assert choice.checkpoint is not None
        before = self._file_bytes, self._choice
        self._file_bytes = max(self._file_bytes, choice.checkpoint.bytes)
        self._choice = replace(self._choice, footprints=choice.footprints)
        try:
            found = await self.slot.reload(precision, str(choice.checkpoint.folder))
        except BaseException:
            self._file_bytes, self._choice = before
            raise
        self._file_bytes = choice.checkpoint.bytes
        return found

    def check(self, choice: EngineChoice[Spec]) -> None:
        """Refuse a model that differs from the one in use in its engine, its languages, or what
        determines its memory. What is free now does not count.

        Raises:
            errors.ModelUnsuited: it differs.
        """
        old, new = self._choice.checkpoint, choice.checkpoint
        if old is None or new is None or _identity(self._choice) != _identity(choice):
            raise errors.ModelUnsuited()
        if self.admission is not None:
            shape = ModelShape.from_config(old.config)
            if shape != ModelShape.from_config(new.config):
                raise errors.ModelUnsuited()

    @property
    def reserved_bytes(self) -> int:
        """Return the bytes of its device that it has reserved, for weights and work."""
        return self._device_in_use.ledger.reserved_bytes(self.name)

    @property
    def _device_in_use(self) -> gpu_devices.GpuMonitor | gpu_devices.HostMemoryMonitor:
        return self._devices.gpu if self.on_gpu else self._devices.host

    def memory_now(self) -> memory_admission.MemoryState:
        """Return the memory of its device at the last query."""
        return self._memory(self.slot.precision if self.slot.loaded else None)

    def footprint_forecast(
        self, precision: Precision, audio_s: float | None, longest_s: float
    ) -> JobForecast | None:
        """Return the forecast of a recording by an engine with footprints; None for others."""
        if (footprint := self._choice.footprints.get(precision)) is None:
            return None
        state = self.memory_now()
        room = DeviceRoom(self._available_bytes(state), state.bandwidth)
        return footprint.forecast(audio_s, longest_s, room)

    def _available_bytes(self, state: memory_admission.MemoryState) -> int:
        own = (
            self._weights(state.held_precision, self.slot.memory)
            if state.held_precision is not None
            else 0
        )
        return state.free_bytes + (own if state.own_bytes is None else state.own_bytes)

    def expect_peak(self, peak_bytes: int) -> None:
        """Reserve memory for a job that needs ``peak_bytes`` with the engine; jobs that run beside
        each other have the same."""
        loaded = self._weights(self.slot.precision, self.slot.memory)
        self._expected = max(self._expected, peak_bytes - loaded)
        self._reserve(loaded + self._expected)

    async def query_memory(self) -> None:
        """Query the free memory, for a plan that depends on it (`MemoryAccount`)."""
        if not self.slot.in_use:  # else it is what the jobs that run may take
            self._expected = 0
        if self.admission is not None or self._choice.footprints:
            await self._devices.gpu.query()

    def place(self, precision: Precision) -> memory_admission.LoadPlan:
        """Return the placement of a new engine (`MemoryAccount`)."""
        state, footprints = self.memory_now(), self._choice.footprints
        if self.admission is not None:
            return self.admission.place(precision, state)
        if precision not in footprints:
            return memory_admission.LoadPlan()
        available = self._available_bytes(state)
        needed = {one: footprints[one].needed_bytes for one in self.spec.precisions}
        if needed[precision] > available:
            others = [one for one, size in needed.items() if size <= available]
            hint = (
                f"What would fit: precision {' or '.join(others)}."
                if others
                else "Wait until the other engine of this service is unloaded (keep_alive), close "
                "other programs on this device, or use one with more memory."
            )
            free = room_text(available, None, "free")
            raise memory_admission.no_room_error(precision, needed[precision], free, hint, state)
        if footprints[precision].loaded_bytes <= state.free_bytes:
            return memory_admission.LoadPlan()
        return memory_admission.LoadPlan(memory_admission.LoadPlacement.INSTEAD)

    def load_begins(self, precision: Precision, plan: memory_admission.LoadPlan) -> None:
        """Reserve the memory of an engine that is about to be loaded (`MemoryAccount`)."""
        old = self._holding(self.on_gpu)
        size = self._weights(precision, plan.memory)
        if plan.placement is memory_admission.LoadPlacement.BESIDE and old.pid is not None:
            size += max(old.weights_bytes, self._devices.gpu.own_bytes(self.name))
        self._replaced = old
        self._reserve(size)

    def settled(self) -> None:
        """Update the reservation after a load succeeded or failed, or an unload
        (`MemoryAccount`)."""
        if self.slot.changing:
            return
        arrived, self._replaced = self._replaced is not None, None
        if self.slot.worker_pid is None:
            self._release()
        elif arrived:
            self._reserve(self._weights(self.slot.precision, self.slot.memory))

    def held(self, sessions: int) -> None:
        """Record the number of live sessions, each with its memory beside the weights
        (`MemoryAccount`)."""
        self._sessions = sessions
        if self._own is not None:
            self._reserve(self._own)

    def _reserve(self, size: int) -> None:
        """Reserve ``size`` bytes and those of its sessions on its device. Release those on both
        devices first: a GPU driver may have begun to answer since the last time."""
        self._release()
        self._own = size
        size += self._sessions * self._session_bytes
        self._device_in_use.ledger.reserve(self.name, max(size, self._least))

    def _release(self) -> None:
        self._own = None
        for device in (self._devices.gpu, self._devices.host):
            device.ledger.release(self.name)
        if self._least:
            self._device_in_use.ledger.reserve(self.name, self._least)

    def _holding(self, on_gpu: bool) -> gpu_devices.EngineMemoryHolding:
        """Return the bytes that the engine's process holds of the GPU, or of the host."""
        if on_gpu is not self.on_gpu:
            return gpu_devices.EngineMemoryHolding()
        pid, replaced = self.slot.worker_pid, self._replaced
        if pid is None:
            return gpu_devices.EngineMemoryHolding(coming=replaced is not None)
        if replaced is not None:
            return gpu_devices.EngineMemoryHolding(pid, replaced.weights_bytes, coming=True)
        return gpu_devices.EngineMemoryHolding(
            pid, self._weights(self.slot.precision, self.slot.memory)
        )

    def _weights(self, precision: Precision, memory: MemoryPlan) -> int:
        """Return the bytes of an idle engine; the size of its files if these are not planned."""
        if (footprint := self._choice.footprints.get(precision)) is not None:
            return footprint.loaded_bytes
        if self.admission is None:
            return self._file_bytes
        return self.admission.loaded_bytes(precision, memory)

    def _memory(self, held_precision: Precision | None) -> memory_admission.MemoryState:
        gpu, watch = self.gpu, self._devices.gpu
        if gpu is None or not self.on_gpu:
            return memory_admission.MemoryState(
                self._devices.host.free_bytes(self.name), held_precision, on_gpu=False
            )
        return memory_admission.MemoryState(
            watch.free_bytes(self.name),
            held_precision,
            on_gpu=True,
            bandwidth=gpu.bandwidth,
            own_bytes=watch.own_bytes(self.name),
        )

    def _note_crash(self, worker: WorkerProcess) -> None:
        """Write a crash note for a bug report; it contains no audio and no text."""
        self.crashes += 1
        about = {
            "engine": self.spec.name,
            "role": self.name,
            "precision": self.slot.precision.value,
            "memory_plan": asdict(self.slot.memory),
            "gpu": self.gpu and asdict(self.gpu),
            "exit_code": worker.exit_code,
            "last_lines": worker.last_lines,
        }
        self._crash_notes.write(worker.name, about)


def _identity(choice: EngineChoice[Any]) -> tuple[Any, ...]:
    """Return what a model must have in common with another to replace it."""
    memory = choice.footprints or (choice.spec.precisions, choice.session_bytes)
    return choice.spec.name, choice.spec.languages, memory


class CrashNotes:
    """Folder of crash notes: last lines of the engine's log, versions, GPU, memory plan."""

    def __init__(self, data: Path | None) -> None:
        self.folder = data and data / "crash"

    def write(self, who: str, about: Mapping[str, Any]) -> Path | None:
        """Write a note about a worker's death; return the file, or None if it cannot be written."""
        if self.folder is None:
            return None
        note = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "who": who,
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            **about,
        }
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 10**6:06}"
        path = self.folder / f"{name}.json"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with files.open_new(path) as file:
                file.write(json.dumps(note, indent=2, default=str).encode() + b"\n")
            for old in self.notes()[:-MAX_CRASH_NOTES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the crash note cannot be written: %s", error.strerror)
            return None
        log.warning("crash note written: %s", path.name)
        return path

    def notes(self) -> list[Path]:
        """Return all notes, oldest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("*.json"))
