"""Memory of the devices that the engines of a service share: plans, reservations.

An account knows models and the process that holds one, and no engine. `gpu_memory.memory_admission`
decides on snapshots of memory, which are taken here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import EngineChoice, Spec, spec_on_device
from sidecar.errors import Fault
from sidecar.gpu_memory import gpu_devices, memory_admission
from sidecar.gpu_memory.memory_admission import LoadPlacement, LoadPlan, MemoryState
from sidecar.gpu_memory.memory_plan import DeviceRoom, JobForecast, room_text
from sidecar.interfaces.engine_interface import EngineSpec, MemoryPlan, Precision
from sidecar.workers.loaded_model import DEFAULT_MODEL_ID, LoadedModel

AnyModel = LoadedModel[Any]


@dataclass(frozen=True, slots=True)
class MemoryDevices:
    """Memory that the engines of this service share: of the GPU in use, and of the host."""

    gpu: gpu_devices.GpuMonitor = field(default_factory=gpu_devices.GpuMonitor)
    host: gpu_devices.HostMemoryMonitor = field(default_factory=gpu_devices.HostMemoryMonitor)


class ModelHolder(NamedTuple):
    """Process that holds a model. ``pid``: None if there is none. ``memory``: parts that are on the
    host. ``loaded``: no load is in progress. ``changing``: another one is being started.
    ``leases``: number of those that hold it."""

    model: AnyModel
    pid: int | None
    memory: MemoryPlan
    loaded: bool
    changing: bool
    leases: int


class MemoryAccount:
    """Account of the memory of one engine's models, now and planned.

    This base class records nothing, and a new model is loaded beside the old one.
    """

    def open(self, holder: Callable[[], ModelHolder]) -> None:
        """Begin to account for the process that ``holder`` returns."""

    async def query_memory(self, model: AnyModel) -> None:
        """Query the free memory, if plans for the model depend on it."""

    def place(self, model: AnyModel) -> LoadPlan:
        """Return the placement of a load.

        Raises:
            errors.WontFit: the model does not fit even alone.
        """
        return LoadPlan()

    def blame(self, model: AnyModel) -> Fault:
        """Return what is to blame for a recording in which memory ran out, by the last query: the
        recording, if what was planned for it is there, else those that use the device."""
        return Fault.DEVICE

    def load_begins(self, model: AnyModel, plan: LoadPlan) -> None:
        """Reserve the memory of a model that is about to be loaded by ``plan``."""

    def settled(self) -> None:
        """Update the reservation after a load succeeded or failed, an unload, and as leases begin
        and end: each live session has its memory beside the weights."""


class EngineMemory(MemoryAccount):
    """Account that plans by settings and devices. ``name``: its name in ledgers. ``choice``: the
    model of the start. ``live``: it serves live sessions."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        choice: EngineChoice[Any],
        devices: MemoryDevices,
        *,
        live: bool = False,
    ) -> None:
        self._name, self._settings, self._devices = name, settings, devices
        self._watch(choice)
        self.concurrency = 1 if live else self._concurrency(choice)
        """Recordings transcribed at once: by the upstreams, or by threads that share the model."""
        self._held: Callable[[], ModelHolder]
        self._coming: AnyModel | None = None
        """Model that is being loaded; None if there is none."""
        self._expected = 0
        self._own: int | None = None
        """Bytes that it has reserved; None while nothing is loaded."""
        self._live = live
        self.first = self.model(DEFAULT_MODEL_ID, choice)
        """Model of the start."""
        self._least = 0
        """Bytes that stay reserved while nothing is loaded: of a live engine that was planned
        beside that for files."""
        if live and choice.fits and self.on_gpu(choice):
            assert self.first.footprint is not None
            self._least = self.first.footprint.needed_bytes
            self._release(self.first)

    def open(self, holder: Callable[[], ModelHolder]) -> None:
        """As of `MemoryAccount`."""
        self._held = holder
        devices = self._devices
        devices.gpu.ledger.register_engine(self._name, lambda: self._holding(on_gpu=True))
        devices.host.ledger.register_engine(self._name, lambda: self._holding(on_gpu=False))

    def model(
        self, name: str, choice: EngineChoice[Spec], precision: Precision = Precision.AUTO
    ) -> LoadedModel[Spec]:
        """Return a model on this device. ``precision``: AUTO for that of the settings, or the best
        one that fits.

        Raises:
            errors.PrecisionUnavailable: it has no such precision.
        """
        gpu = self._devices.gpu.seen if self._watch(choice) else None
        spec, checkpoint = spec_on_device(choice.spec, gpu), choice.checkpoint
        model = LoadedModel(name, choice, spec, spec.precisions[0])
        if checkpoint is not None and choice.spec.planned:
            on_gpu, limit_mb = self.on_gpu(model.choice), self._settings.memory_limit_mb
            spec, admission = memory_admission.admission_of(
                checkpoint.config,
                spec,
                limit_mb and limit_mb << 20,
                on_gpu=on_gpu,
                fused=gpu is None or not on_gpu or gpu.bf16,
                concurrency=self.concurrency,
            )
            model = replace(model, spec=spec, admission=admission)
        if precision is not Precision.AUTO:
            return model.checked_at(precision)
        if (wanted := self._settings.precision) is Precision.AUTO and model.admission is not None:
            wanted = model.admission.first_precision(self._state(model, None))
        return model.at(wanted)

    def _watch(self, choice: EngineChoice[Any]) -> bool:
        """Return whether a model may use the GPU, which is then known from now on."""
        watched = choice.checkpoint is not None and (
            choice.spec.planned or self._settings.device != "cpu"
        )
        if watched:
            self._devices.gpu.begin()
        return watched

    def _concurrency(self, choice: EngineChoice[Any]) -> int:
        spec, upstream, gpu = choice.spec, choice.upstream, self._devices.gpu.seen
        on_gpu = self.on_gpu(choice)
        narrow = on_gpu and gpu is not None and not gpu.bf16
        if not isinstance(spec, EngineSpec) or narrow:
            return 1  # fp16 may have to be widened, which would change what others decode
        most = spec.together if on_gpu or spec.remote else 1
        each = min(self._settings.batch or most, spec.together)
        return each * (len(upstream.urls) if upstream is not None else 1)

    def on_gpu(self, choice: EngineChoice[Any]) -> bool:
        """Return whether a model uses the GPU; one without a checkpoint never does."""
        gpu = self._devices.gpu.seen
        if gpu is None or self._settings.device == "cpu" or choice.checkpoint is None:
            return False
        return not gpu.by_torch or "torch" in choice.spec.requires

    @property
    def reserved_bytes(self) -> int:
        """Return the bytes that are reserved, for weights and work."""
        devices = (self._devices.gpu, self._devices.host)
        return sum(device.ledger.reserved_bytes(self._name) for device in devices)

    def now(self, model: AnyModel) -> MemoryState:
        """Return the memory of the device of a model at the last query."""
        held = self._held()
        return self._state(model, held.model.precision if held.loaded else None)

    def footprint_forecast(
        self, model: AnyModel, audio_s: float | None, longest_s: float
    ) -> JobForecast | None:
        """Return the forecast of a recording by a model with footprints; None for others."""
        if (footprint := model.footprint) is None:
            return None
        state = self.now(model)
        room = DeviceRoom(self._available_bytes(state), state.bandwidth)
        return footprint.forecast(audio_s, longest_s, room)

    def expect_peak(self, peak_bytes: int) -> None:
        """Reserve memory for a job that needs ``peak_bytes`` with the model; jobs that run beside
        each other have the same."""
        held = self._held()
        loaded = held.model.idle_bytes(held.memory)
        self._expected = max(self._expected, peak_bytes - loaded)
        self._reserve(held.model, loaded + self._expected)

    async def query_memory(self, model: AnyModel) -> None:
        """As of `MemoryAccount`."""
        if not self._held().leases:  # else it is what the jobs that run may take
            self._expected = 0
        if model.admission is not None or model.choice.footprints:
            await self._devices.gpu.query()

    def place(self, model: AnyModel) -> LoadPlan:
        """As of `MemoryAccount`."""
        state, footprint = self.now(model), model.footprint
        if model.admission is not None:
            return model.admission.place(model.precision, state)
        if footprint is None:
            return LoadPlan()
        available, needed = self._available_bytes(state), footprint.needed_bytes
        if needed > available:
            footprints = ((one, model.at(one).footprint) for one in model.spec.precisions)
            fits = [one for one, size in footprints if size and size.needed_bytes <= available]
            hint = (
                f"What would fit: precision {' or '.join(fits)}."
                if fits
                else "Wait until the other engine of this service is unloaded (keep_alive), close "
                "other programs on this device, or use one with more memory."
            )
            free = room_text(available, None, "free")
            fault = state.fault(needed)
            raise memory_admission.no_room_error(model.precision, needed, free, hint, state, fault)
        beside = footprint.loaded_bytes <= state.free_bytes
        return LoadPlan() if beside else LoadPlan(LoadPlacement.INSTEAD)

    def blame(self, model: AnyModel) -> Fault:
        """As of `MemoryAccount`. Memory that the driver reports of no process may be of others."""
        gpu, planned = self._devices.gpu.seen, 0
        if model.footprint is not None:
            planned = model.footprint.needed_bytes
        elif model.admission is not None:
            planned = self._device_of(model).ledger.reserved_bytes(self._name)
        is_known = planned > 0 and gpu is not None and self._held().pid in gpu.processes
        is_there = is_known and planned <= self._available_bytes(self.now(model))
        return Fault.RECORDING if is_there else Fault.DEVICE

    def load_begins(self, model: AnyModel, plan: LoadPlan) -> None:
        """As of `MemoryAccount`."""
        held, size = self._held(), model.idle_bytes(plan.memory)
        if plan.placement is LoadPlacement.BESIDE and held.pid is not None:
            own_bytes = (
                self._devices.gpu.own_bytes(self._name) if self.on_gpu(held.model.choice) else 0
            )
            size += max(held.model.idle_bytes(held.memory), own_bytes)
        self._coming = model
        self._reserve(model, size)

    def settled(self) -> None:
        """As of `MemoryAccount`."""
        held = self._held()
        if not held.changing:
            arrived, self._coming = self._coming is not None, None
            if held.pid is None:
                self._release(held.model)
            elif arrived:
                self._own = held.model.idle_bytes(held.memory)
        if self._own is not None:
            self._reserve(self._coming or held.model, self._own)

    def _available_bytes(self, state: MemoryState) -> int:
        held, own = self._held(), state.own_bytes
        if own is None:
            own = held.model.idle_bytes(held.memory) if held.loaded else 0
        return state.free_bytes + own

    def _reserve(self, model: AnyModel, size: int) -> None:
        """Reserve ``size`` bytes and those of the sessions on the device of a model. Release those
        on both devices first: a GPU driver may have begun to answer since the last time."""
        self._release(model)
        self._own = size
        sessions = self._held().leases if self._live else 1  # a recording takes as much as one
        size += sessions * model.choice.session_bytes
        self._device_of(model).ledger.reserve(self._name, max(size, self._least))

    def _release(self, model: AnyModel) -> None:
        self._own = None
        for device in (self._devices.gpu, self._devices.host):
            device.ledger.release(self._name)
        if self._least:
            self._device_of(model).ledger.reserve(self._name, self._least)

    def _device_of(self, model: AnyModel) -> gpu_devices.GpuMonitor | gpu_devices.HostMemoryMonitor:
        return self._devices.gpu if self.on_gpu(model.choice) else self._devices.host

    def _holding(self, on_gpu: bool) -> gpu_devices.EngineMemoryHolding:
        """Return the bytes that the process holds of the GPU, or of the host."""
        held, coming = self._held(), self._coming
        comes = coming is not None and self.on_gpu(coming.choice) is on_gpu
        if held.pid is None or self.on_gpu(held.model.choice) is not on_gpu:
            return gpu_devices.EngineMemoryHolding(coming=comes)
        weights_bytes = held.model.idle_bytes(held.memory)
        return gpu_devices.EngineMemoryHolding(held.pid, weights_bytes, coming=comes)

    def _state(self, model: AnyModel, held_precision: Precision | None) -> MemoryState:
        gpu, watch = self._devices.gpu.seen, self._devices.gpu
        if gpu is None or not self.on_gpu(model.choice):
            host = self._devices.host
            free_bytes = host.free_bytes(self._name)
            return MemoryState(
                free_bytes, held_precision, on_gpu=False, total_bytes=host.total_bytes
            )
        return MemoryState(
            watch.free_bytes(self._name),
            held_precision,
            on_gpu=True,
            bandwidth=gpu.bandwidth,
            own_bytes=watch.own_bytes(self._name),
            total_bytes=gpu.total_bytes,
        )
