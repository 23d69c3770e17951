"""Graphics cards by size or name, and what VibeVoice-ASR does on one that is not here. Pure.

Memory and bandwidth are those of NVIDIA's data sheets and of its pages of GeForce specifications;
of H100 and A100 the SXM modules count. Nothing else is on the card, and a checkpoint is not needed.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from sidecar import errors
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import VIBEVOICE_7B_SHAPE, ModelShape
from sidecar.gpu_memory.memory_plan import GB, PREFERRED_PRECISIONS, DeviceRoom, JobForecast
from sidecar.gpu_memory.streaming_memory import (
    STREAMING_SHAPES,
    StreamingFootprint,
    default_precision,
)
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.interfaces.language_tags import printable_text

BANDWIDTHS: dict[str, dict[float, float]] = {
    "RTX 2060": {6: 336, 12: 336},
    "RTX 2070": {8: 448},
    "RTX 2080": {8: 448},
    "RTX 2080 Ti": {11: 616},
    "RTX 3050": {8: 224, 6: 168},
    "RTX 3060": {12: 360, 8: 240},
    "RTX 3060 Ti": {8: 448},
    "RTX 3070": {8: 448},
    "RTX 3070 Ti": {8: 608},
    "RTX 3080": {10: 760, 12: 912},
    "RTX 3080 Ti": {12: 912},
    "RTX 3090": {24: 936},
    "RTX 3090 Ti": {24: 1008},
    "RTX 4060": {8: 272},
    "RTX 4060 Ti": {8: 288, 16: 288},
    "RTX 4070": {12: 504},
    "RTX 4070 Super": {12: 504},
    "RTX 4070 Ti": {12: 504},
    "RTX 4070 Ti Super": {16: 672},
    "RTX 4080": {16: 717},
    "RTX 4080 Super": {16: 736},
    "RTX 4090": {24: 1008},
    "RTX 5060": {8: 448},
    "RTX 5060 Ti": {16: 448, 8: 448},
    "RTX 5070": {12: 672},
    "RTX 5070 Ti": {16: 896},
    "RTX 5080": {16: 960},
    "RTX 5090": {32: 1792},
    "RTX A2000": {12: 288, 6: 288},
    "RTX A4000": {16: 448},
    "RTX A5000": {24: 768},
    "RTX A6000": {48: 768},
    "RTX 6000 Ada": {48: 960},
    "RTX PRO 6000": {96: 1792},
    "T4": {16: 320},
    "L4": {24: 300},
    "A10": {24: 600},
    "A40": {48: 696},
    "L40S": {48: 864},
    "V100": {16: 900, 32: 900},
    "A100": {40: 1555, 80: 2039},
    "H100": {80: 3350},
    "H200": {141: 4800},
}
"""GB/s by name and by GB of memory, the usual size first."""
INLINE_ECC = ("T4", "L4", "A10", "A40", "L40S")
"""Cards of servers whose error correction takes a sixteenth of their memory."""
WITHOUT_BF16 = ("RTX 20", "T4", "V100")
"""Cards of compute capability below 8.0, which compute in fp16."""
SIZES_GB = (6, 8, 10, 12, 16, 24, 32, 48, 80, 96, 141)
"""Sizes that are compared with a card."""
LONGEST_S = 36_000.0
"""Longest recording that a streaming model is said to take: the default of `max_audio_hours`."""
_BRANDS = {"nvidia", "geforce", "tesla", "quadro"}


@dataclass(frozen=True, slots=True)
class Card:
    """A card with ``gb`` GB (2**30 bytes) of memory; ``bandwidths``: GB/s of the slowest and the
    fastest card that this may be, empty if none is known."""

    name: str
    gb: float
    bandwidths: tuple[float, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Return the bytes that an empty card has for programs."""
        ecc = self.name.partition(" ")[0] in INLINE_ECC
        return int(self.gb * GB * (15 / 16 if ecc else 1))


def find_card(text: str) -> Card:
    """Return the card of a name, such as 'RTX 4090' or 'rtx-3060-12gb', or of a size such as
    '12GB'.

    Raises:
        errors.FieldInvalid: there is none; the hint names near ones.
    """
    words = [word for word in re.split(r"[\s_-]+", text.strip().lower()) if word not in _BRANDS]
    spelled = re.fullmatch(r"(.*?) ?(\d{1,3}(?:\.\d)?) ?(?:gb|gib|g)", " ".join(words))
    name, gb = (spelled[1], float(spelled[2])) if spelled else (" ".join(words), None)
    if not name and gb:
        return _card_of_size(gb)
    names = {_squeezed(known): known for known in BANDWIDTHS}
    known = names.get(_squeezed(name))
    sizes = BANDWIDTHS.get(known or "", {})
    if known is None or gb not in {None, *sizes}:
        near = difflib.get_close_matches(_squeezed(name), names, 3, 0.5)
        shown = [_full_name(names[one], size) for one in near for size in BANDWIDTHS[names[one]]]
        hint = f"Near: {', '.join(shown)}. Or name its size: 12GB."
        raise errors.FieldInvalid(
            f"The card '{printable_text(text)}' is not known.",
            hint=hint if shown else "Name its size: 12GB.",
        )
    size = next(one for one in sizes if gb in (None, one))
    return Card(_full_name(known, size), size, (sizes[size],))


def neighbours(card: Card) -> Iterator[Card]:
    """Yield the next smaller and the next larger size of cards, where there is one."""
    smaller = [size for size in SIZES_GB if size < card.gb]
    larger = [size for size in SIZES_GB if size > card.gb]
    yield from map(_card_of_size, smaller[-1:] + larger[:1])


def forecast_on(
    card: Card, audio_s: float | None, options: TranscribeOptions, engine: str | None = None
) -> JobForecast:
    """Return the forecast of a recording on a card, with those of its `neighbours`.

    ``engine``: VibeVoice-ASR-Streaming by one of its names for `pull`; others: VibeVoice-ASR.
    """
    shape = STREAMING_SHAPES.get(engine or "")
    forecast = _forecast if shape is None else partial(_streaming_forecast, shape)
    others = [(forecast(one, audio_s, options), one) for one in neighbours(card)]
    smaller = next((one for one, other in others if other.gb < card.gb), None)
    larger = next((one for one, other in others if other.gb > card.gb), None)
    return replace(forecast(card, audio_s, options), smaller=smaller, larger=larger)


def _streaming_forecast(
    shape: ModelShape, card: Card, audio_s: float | None, options: TranscribeOptions
) -> JobForecast:
    """Return the forecast of a streaming model in its default precision, on the slowest card that
    this may be."""
    # The model has no fp16: a card without bf16 takes the next (`engine_selection.spec_on_device`).
    wide, *others = PREFERRED_PRECISIONS
    able = others if card.name.startswith(WITHOUT_BF16) else [wide, *others]
    wanted = wide if options.precision is Precision.FP16 else options.precision
    candidates = [wanted] if wanted in (*able, Precision.FP32) else able
    room = DeviceRoom(card.memory_bytes, 1e9 * card.bandwidths[0] if card.bandwidths else None)
    footprints = [StreamingFootprint(shape, one) for one in candidates]
    smallest = min(footprints, key=lambda one: one.needed_bytes).precision
    sessions = {one.precision: one.sessions(room) for one in footprints}
    precision, reason = default_precision(sessions) or (smallest, "")
    best = StreamingFootprint(shape, precision).forecast(audio_s, LONGEST_S, room).with_note(reason)
    return replace(best, card=card.name, sentence=f"{card.name}: {best.sentence}")


def _forecast(card: Card, audio_s: float | None, options: TranscribeOptions) -> JobForecast:
    """Return the forecast on one card; its seconds are those of the slowest one it may be."""
    wide = Precision.FP16 if card.name.startswith(WITHOUT_BF16) else Precision.BF16
    precision = wide if options.precision is Precision.BF16 else options.precision
    precisions = {wide, Precision.INT4, Precision.INT8, precision} - {Precision.AUTO}
    fused = wide is Precision.BF16
    admission = MemoryAdmission(VIBEVOICE_7B_SHAPE, tuple(precisions), None, fused)
    speeds: list[float | None] = [1e9 * one for one in card.bandwidths] or [None]
    now, fastest = (
        MemoryState(card.memory_bytes, None, on_gpu=True, bandwidth=speed)
        for speed in (speeds[0], speeds[-1])
    )
    if precision is Precision.AUTO:
        first = admission.first_precision(now)
        precision = admission.fitting_precision(first, audio_s, options, now)
    estimate, others = admission.estimate(precision, audio_s, options, now)
    least_s = None
    if len(speeds) > 1:
        least_s = admission.estimate(precision, audio_s, options, fastest)[0].seconds
    found = JobForecast.planned(audio_s, estimate, others, least_s)
    return replace(found, card=card.name, sentence=f"{card.name}: {found.sentence}")


def _card_of_size(gb: float) -> Card:
    speeds = sorted(sizes[gb] for sizes in BANDWIDTHS.values() if gb in sizes)
    return Card(f"{gb:g}GB", gb, tuple(dict.fromkeys(speeds[:1] + speeds[-1:])))


def _full_name(name: str, gb: float) -> str:
    return f"{name} {gb:g}GB"


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]|rtx", "", name.lower())
