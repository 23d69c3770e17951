"""All engines of this service: each role has a slot of its own, and devices are shared by a ledger.

An hour of live audio is not an hour without files, nor the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.engines.choice import Choice
from sidecar.gpu_memory.devices import GpuMemory
from sidecar.interfaces.engine import EngineSpec
from sidecar.interfaces.voice import VoiceSpec
from sidecar.workers.engine_host import Devices, Lodging
from sidecar.workers.joint import JointSlot
from sidecar.workers.lifecycle import EngineLife, SlotState
from sidecar.workers.remote_engine import DistantSlot
from sidecar.workers.shared import SerialSlot, SharedSlot
from sidecar.workers.slot import EngineSlot
from sidecar.workers.spoken import Spoken


class Role(StrEnum):
    """What an engine is there for."""

    FILES = "files"
    """Recordings, one after the other."""
    LIVE = "live"
    """People who are speaking, many at once."""
    VOICE = "voice"
    """What is said to them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an engine is: where in its life, how much of it is there, and in which process.

    ``loads`` and ``crashes``: how often it came into memory and its process died; ``load_s``: how
    long the last load took; ``reserved_bytes`` of its device, which is the GPU where ``on_gpu``.
    """

    engine: str
    precision: str
    state: SlotState
    loading: float | None
    worker_pid: int | None
    loads: int
    crashes: int
    load_s: float
    reserved_bytes: int
    on_gpu: bool

    @classmethod
    def of_others(cls, slot: DistantSlot) -> Standing:
        """Of those that hear on other machines: nothing of them is here."""
        precision = slot.spec.precisions[0].value
        return cls(slot.spec.name, precision, slot.state, None, None, 0, 0, 0.0, 0, on_gpu=False)

    @classmethod
    def of(cls, lodging: Lodging[Any, Any]) -> Standing:
        """As it is now."""
        slot: EngineLife = lodging.slot
        return cls(
            engine=slot.spec.name,
            precision=slot.precision.value,
            state=slot.state,
            loading=slot.loading,
            worker_pid=slot.worker_pid,
            loads=slot.loads,
            crashes=lodging.crashes,
            load_s=slot.load_s,
            reserved_bytes=lodging.reserved_bytes,
            on_gpu=lodging.on_gpu,
        )


class Fleet:
    """Owns the slots, and what is seen of the devices. No engine is loaded before somebody asks.

    ``live``: None where no engine here can hear live; ``voice``: where none speaks.
    """

    def __init__(
        self,
        settings: Settings,
        files: Choice[EngineSpec],
        live: Choice[EngineSpec] | None,
        voice: Choice[VoiceSpec] | None = None,
    ) -> None:
        self._devices = Devices()
        self._voice: Lodging[VoiceSpec, SerialSlot] | None = None
        beside = 0
        if voice is not None:
            self._voice = Lodging(
                Role.VOICE, settings, voice, self._devices, SerialSlot, speaks=True
            )
            beside = self._voice.needed_bytes
        self.places = 1 if files.upstream is None else len(files.upstream.urls)
        """So many recordings are heard at once: here one, or one on each of so many machines, which
        one process of ours has to do with."""
        kind = JointSlot if self.places > 1 else EngineSlot
        self.files = Lodging(Role.FILES, settings, files, self._devices, kind, beside=beside)
        """Where the engine for files lives."""
        self._live: Lodging[EngineSpec, SharedSlot] | None = None
        self._distant: DistantSlot | None = None
        if live is not None and live.upstream is not None:
            self._distant = DistantSlot(live.spec, live.upstream)
        elif live is not None:
            self._live = Lodging(
                Role.LIVE, settings, live, self._devices, SharedSlot, live=True, beside=beside
            )

    @property
    def live_spec(self) -> EngineSpec | None:
        """The engine that hears live, None where none does."""
        if self._distant is not None:
            return self._distant.spec
        return self._live.spec if self._live is not None else None

    @property
    def live(self) -> SharedSlot | DistantSlot:
        """The slot for live audio, here or wherever there is room.

        Raises:
            errors.EngineUnavailable: no engine here can hear live.
        """
        if self._distant is not None:
            return self._distant
        if self._live is None:
            raise errors.EngineUnavailable("No engine of this installation can hear live audio.")
        return self._live.slot

    @property
    def voice_spec(self) -> VoiceSpec | None:
        """The engine that speaks, None where none does."""
        return self._voice.spec if self._voice is not None else None

    @property
    def voice(self) -> Spoken:
        """What says things.

        Raises:
            errors.EngineUnavailable: no engine here speaks.
        """
        if self._voice is None:
            raise errors.EngineUnavailable(
                "No engine of this installation speaks.", hint="See the setting voice_engine."
            )
        return Spoken(self._voice.slot)

    @property
    def gpu(self) -> GpuMemory | None:
        """The GPU as it was last seen, None where there is none."""
        return self._devices.gpu.seen

    def standing(self) -> dict[Role, Standing]:
        """How each engine is; from memory, nobody is asked."""
        found = {Role.FILES: Standing.of(self.files)}
        if self._distant is not None:
            found[Role.LIVE] = Standing.of_others(self._distant)
        if self._live is not None:
            found[Role.LIVE] = Standing.of(self._live)
        if self._voice is not None:
            found[Role.VOICE] = Standing.of(self._voice)
        return found

    @property
    def lodgings(self) -> dict[str, Lodging[EngineSpec, Any]]:
        """Where each engine lives, by what it is there for."""
        found: dict[str, Lodging[EngineSpec, Any]] = {Role.FILES.value: self.files}
        if self._live is not None:
            found[Role.LIVE.value] = self._live
        return found

    async def watch(self) -> None:
        """Go on looking at the GPU, until cancelled."""
        await self._devices.gpu.go_on()

    async def close(self) -> None:
        """Unload all, the last opened first."""
        if self._voice is not None:
            await self._voice.slot.close()
        if self._distant is not None:
            await self._distant.close()
        if self._live is not None:
            await self._live.slot.close()
        await self.files.slot.close()
