"""What the memory of this machine admits of VibeVoice that speaks: pure decisions on snapshots."""

from __future__ import annotations

from sidecar import errors
from sidecar.gpu_memory import speaking
from sidecar.gpu_memory.admission import EVERYTHING, USUAL_S, Memory
from sidecar.gpu_memory.footprint import Work
from sidecar.gpu_memory.placement import LoadPlan, Placement
from sidecar.gpu_memory.plan import GB, best_precision
from sidecar.gpu_memory.shape import ModelShape
from sidecar.gpu_memory.speaking import VoiceShape
from sidecar.interfaces.engine import MemoryPlan, Precision


class VoiceAdmission:
    """Decides for one checkpoint that speaks. ``limit_bytes`` caps what it may take, None: all.

    What it says takes the same every time, as long as the longest text may be, and people wait for
    it: so it is asked for when it is loaded, with the weights, and nobody else gets it meanwhile.
    """

    def __init__(self, shape: VoiceShape, limit_bytes: int | None) -> None:
        self._shape = shape
        self._limit = limit_bytes

    def first_precision(self, now: Memory) -> Precision:
        """What to load when nobody said: 16 bit."""
        return Precision.BF16

    def place(self, precision: Precision, now: Memory) -> LoadPlan:
        """How it is loaded: beside the old one, or in its place.

        Raises:
            errors.WontFit: it has no room even then.
        """
        needed = self.peak_bytes(precision)
        room = now.available_bytes(self.loaded_bytes, self._limit)
        if needed > room:
            raise errors.WontFit(
                f"Out of memory: VibeVoice that speaks takes {needed / GB:.1f} GB in {precision}, "
                f"{room / GB:.1f} GB are there.",
                hint="Choose another VIBEVOICE_VOICE_ENGINE, or a smaller VIBEVOICE_PRECISION for "
                "the engine that hears.",
            )
        both = self._limit is None or now.held is None
        beside = both and needed <= now.free_bytes
        return LoadPlan(Placement.BESIDE if beside else Placement.INSTEAD)

    def loaded_bytes(self, precision: Precision, memory: MemoryPlan = EVERYTHING) -> int:
        """What it takes while it is silent; nothing of it stays on the host."""
        return speaking.phases(self._shape, precision)[0].total

    def peak_bytes(self, precision: Precision) -> int:
        """What it takes while it speaks."""
        return speaking.peak_bytes(self._shape, precision).total

    def work_bytes(self, precision: Precision) -> int:
        """What it takes for that beside what it takes anyway."""
        return self.peak_bytes(precision) - self.loaded_bytes(precision)


def fits_beside(voice: VoiceShape, hearing: ModelShape | None, free_bytes: int) -> bool:
    """Whether a device has room for VibeVoice that speaks, and for the model that hears on the same
    one, at the precision that takes least: recordings of a usual length."""
    left = free_bytes - speaking.peak_bytes(voice, Precision.BF16).total
    if hearing is None or left < 0:
        return left >= 0
    return best_precision(hearing, Work.of(hearing, USUAL_S), left).fits
