"""Engines of this service by role.

Recognition of files and of live audio have an engine each, so that neither waits for the other.
"""

from typing import Any, cast

from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import EngineChoice
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.interfaces.engine_interface import EngineSpec, TtsSpec
from sidecar.workers.engine_lease import EXCLUSIVE, LIVE, SERIAL, Sharing
from sidecar.workers.engine_memory import MemoryDevices
from sidecar.workers.role_engine import EngineRole, RoleEngine
from sidecar.workers.tts_client import TtsClient

AnyEngine = RoleEngine[Any]


class EngineFleet:
    """Engines of this service and memory of its devices. An engine is loaded at its first use.

    ``live``: None if no engine transcribes live audio. ``voice``: None if there is no TTS engine.
    """

    def __init__(
        self,
        settings: Settings,
        files: EngineChoice[EngineSpec],
        live: EngineChoice[EngineSpec] | None,
        voice: EngineChoice[TtsSpec] | None = None,
        voice_sharing: Sharing = SERIAL,
    ) -> None:
        self._devices = MemoryDevices()
        self.recognizers: dict[str, RoleEngine[EngineSpec]] = {}
        """Each ASR engine, by role."""
        # The live engine comes first: the precision of that for files depends on what it reserves.
        if live is not None:
            self.recognizers[EngineRole.LIVE] = RoleEngine(
                EngineRole.LIVE, settings, live, self._devices, LIVE, live=True
            )
        self.files = RoleEngine(EngineRole.FILES, settings, files, self._devices, EXCLUSIVE)
        """Engine for files."""
        self.recognizers = {EngineRole.FILES: self.files, **self.recognizers}
        self.engines = {
            EngineRole(role): cast(AnyEngine, one) for role, one in self.recognizers.items()
        }
        """Each engine, by role."""
        self.voice: TtsClient | None = None
        """TTS client; None without a TTS engine."""
        if voice is not None:
            engine = RoleEngine(
                EngineRole.VOICE, settings, voice, self._devices, voice_sharing, speaks=True
            )
            self.engines[EngineRole.VOICE] = engine
            self.voice = TtsClient(engine)

    @property
    def live(self) -> RoleEngine[EngineSpec]:
        """Return the engine for live audio; only if there is one."""
        return self.recognizers[EngineRole.LIVE]

    @property
    def gpu(self) -> GpuMemory | None:
        """Return the GPU as of the last query; None if there is none."""
        return self._devices.gpu.seen

    async def watch(self) -> None:
        """Query the GPU periodically, until cancelled."""
        await self._devices.gpu.go_on()

    async def close(self) -> None:
        """Unload all engines, the last one opened first."""
        for engine in reversed(self.engines.values()):
            await engine.close()
