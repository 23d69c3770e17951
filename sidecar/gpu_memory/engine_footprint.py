"""Memory of an engine whose recordings take the same at any length."""

from typing import Protocol

from sidecar.gpu_memory.memory_plan import DeviceRoom, JobForecast


class EngineFootprint(Protocol):
    """Bytes of an engine at a precision. Those of models of which one can be loaded instead of the
    other are equal."""

    @property
    def loaded_bytes(self) -> int:
        """Return the bytes of a process without sessions."""

    @property
    def session_bytes(self) -> int:
        """Return the bytes that each live session, or a recording, takes beside those."""

    @property
    def needed_bytes(self) -> int:
        """Return the bytes of a process with one session, or with a recording."""

    def sessions(self, room: DeviceRoom) -> int:
        """Return how many live sessions fit; 0 if the engine does not."""

    def forecast(self, audio_s: float | None, longest_s: float, room: DeviceRoom) -> JobForecast:
        """Return the forecast of a recording of ``audio_s`` seconds. ``longest_s``: the longest
        that the service accepts."""
