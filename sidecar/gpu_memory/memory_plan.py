"""Memory plan of a recording: precision, batched windows, forecast of fit and duration. Pure.

Plans are tried from the fastest to the smallest (`plan_ladder`); `memory_footprint` computes the
bytes of each. A recording that does not fit at once is planned in windows of what fits. Bytes are
those of the card. GB in sentences are 2**30 bytes, as in the specification of a card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from sidecar.gpu_memory.memory_footprint import (
    PROMPT_TOKENS,
    WINDOW_S,
    MemoryBreakdown,
    ModelFootprint,
    RecordingWork,
    last_positions,
)
from sidecar.interfaces.engine_interface import EngineSpec, MemoryPlan, Precision

MAX_WINDOWS = 8
"""Maximum number of windows of a recording in one batch: an eighth of the decoder passes. Each
further window adds one more border and saves ever less."""
PREFERRED_PRECISIONS = (Precision.BF16, Precision.INT4, Precision.INT8)
"""Precisions that `auto` chooses from on a GPU, the best first: decoding in int8 (LLM.int8) cannot
be captured in graphs and takes three times as long as in int4 (nf4)."""

CACHE_ROUND = 256
"""The cache's length is a multiple of this number of positions, which suits attention kernels."""

SMALL_STEP = 2048
"""Positions by which the cache grows if memory is short."""

EFFICIENCY_UNQUANTIZED = 0.6
EFFICIENCY = {Precision.INT8: 0.3, Precision.INT4: 0.4}
"""Share of the card's bandwidth that decoding reaches. Estimates until they are measured on a GPU;
the int8 and NF4 kernels of bitsandbytes are known to be far from the limit."""

LIKELY_TOKENS_PER_SECOND = 6.0
"""Tokens per second of typical speech: between a slow hour (4.5) and a dense one (8.5)."""

ENCODE_AND_PREFILL = 0.05
"""Time of encoding and prefill, as a share of the decoding of one window at a time, at any
length."""

GB = float(1 << 30)
_OFFLOADED_PLAN = MemoryPlan(evict_encoders=True, host_token_table=True)
LOAD_PLANS = (MemoryPlan(), MemoryPlan(evict_encoders=True), _OFFLOADED_PLAN)
"""Plans for a load, from nothing on the host to all that can be there; each job has its own plan
later."""

MIN_WINDOW_S = 300.0
"""Minimum length of a window: enough to distinguish the speakers."""
WINDOW_OVERLAP_S = 10.0
"""Overlap of a window with the next (`OVERLAP_S` of `engines.vibevoice.vibevoice_windows`)."""
MAX_WINDOW_LOSS_S = 120.0 + WINDOW_OVERLAP_S
"""Maximum loss of a window to the search for a pause at its end (`BORDER_SEARCH_S`, at most a
quarter of the window), and to the overlap."""
BATCHED_WINDOW_S = 400.0
"""Longest window of a batch: about five minutes without that loss. Chunks of 300 s were as accurate
as a single pass (AMI-IHM, arXiv 2606.01483)."""
LONG_AUDIO_S = 900.0
"""Seconds above which a GPU transcribes windows in batches by default."""
UNKNOWN_LENGTH_NOTE = "how long it takes is not known, as the file does not say how long it is"
"""Note of a forecast without seconds: the recording's header has no length."""
UNMEASURED_NOTE = "how long it takes is known after a first recording"
"""The same if no job was measured yet, and the device's speed is not known."""


@dataclass(frozen=True, slots=True)
class DeviceRoom:
    """Memory of a device for an engine. ``available_bytes``: the limit of the engine's process with
    its CUDA context: the free bytes, and those that a loaded engine holds. ``bandwidth``: in bytes
    per second, `None` if not known. ``apart``: it is not the host's memory."""

    available_bytes: int
    bandwidth: float | None = None
    apart: bool = True


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Estimate of a job before it starts.

    ``plan``: the fastest that fits; if none does, the smallest. ``seconds``: rough duration, `None`
    if the card's bandwidth is not known. ``longest_audio_s``: the longest audio that fits at once
    at this precision, 0 if none does. ``unlimited_bytes``: those that the setting `memory_limit_mb`
    withholds included; `None` if it withholds none. ``shared_plan``: the plan beside others, whose
    peak is theirs, too; `None` if it runs alone.
    """

    fits: bool
    precision: Precision
    plan: MemoryPlan
    peak_bytes: int
    available_bytes: int
    audio_s: float
    seconds: float | None
    longest_audio_s: float
    unlimited_bytes: int | None = None
    shared_plan: MemoryPlan | None = None

    @property
    def windows(self) -> int:
        """Return the number of windows, at most; 1: the whole recording at once."""
        return windows_of(self.audio_s, self.plan.window_s)

    @property
    def fits_without_limit(self) -> bool:
        """Return whether it would fit without the setting `memory_limit_mb`."""
        return self.unlimited_bytes is not None and self.peak_bytes <= self.unlimited_bytes


def plan_ladder(work: RecordingWork, *, apart: bool = True) -> tuple[MemoryPlan, ...]:
    """Return the plans for a recording; each is slower and needs less memory than the one before.

    The steps are: 1. The encoders are evicted to the host's memory (a copy of 1.4 GB before the
    next job). 2. The cache grows while decoding (its graph is captured anew each time). 3. Encoder
    chunks and prefill tiles are smaller (more kernel launches). 4. The token table stays on the
    host (a row of 7 KB per token).

    ``apart``: the device's memory is not the host's; if it is, moving saves nothing.
    """
    fast = MemoryPlan(cache_tokens=_rounded(work.positions), window_s=work.window_s)
    evicting = replace(fast, evict_encoders=apart)
    growing = replace(
        evicting,
        cache_tokens=min(fast.cache_tokens, _rounded(work.prompt_tokens + fast.cache_step)),
    )
    small = replace(
        growing,
        encoder_chunk_s=2.0,
        prefill_tile=512,
        cache_tokens=min(fast.cache_tokens, _rounded(work.prompt_tokens + SMALL_STEP)),
        cache_step=SMALL_STEP,
    )
    if not apart:
        return fast, growing, small
    return fast, evicting, growing, small, replace(small, host_token_table=True)


def plan_job(model: ModelFootprint, work: RecordingWork, room: DeviceRoom) -> MemoryEstimate:
    """Return the estimate of the fastest plan that fits: in windows of what fits if the whole
    recording does not."""
    plan, peak = _choose_plan(model, work, room)
    longest_s = max_audio_s(model, room, text_tokens=work.text_tokens(model.shape))
    available = room.available_bytes
    if peak.total > available and (window_s := _window_s(work.audio_s, longest_s)):
        within = work.in_windows(model.shape, window_s)
        windowed, less = _choose_plan(model, within, room)
        if less.total <= available:
            work, plan, peak = within, windowed, less
    return MemoryEstimate(
        fits=peak.total <= available,
        precision=model.precision,
        plan=plan,
        peak_bytes=peak.total,
        available_bytes=available,
        audio_s=work.audio_s,
        seconds=room.bandwidth and estimated_seconds(model, work, room.bandwidth),
        longest_audio_s=longest_s,
    )


def windows_of(audio_s: float, window_s: float) -> int:
    """Return how many windows of ``window_s`` seconds a recording has, at most."""
    return 1 if audio_s <= window_s else ceil(audio_s / (window_s - _window_loss_s(window_s)))


def _window_s(audio_s: float, longest_s: float) -> float:
    """Return the length of equal windows of which each fits; 0 if one that fits is too short to
    distinguish the speakers."""
    if longest_s < MIN_WINDOW_S:
        return 0.0
    loss_s = _window_loss_s(longest_s)
    count = ceil(audio_s / (longest_s - loss_s))
    return min(longest_s, max(MIN_WINDOW_S, audio_s / count + loss_s))


def _window_loss_s(window_s: float) -> float:
    """Return how much of a window is transcribed again in the next, at most."""
    return min(MAX_WINDOW_LOSS_S, window_s / 4 + WINDOW_OVERLAP_S)


def best_precision(
    models: Sequence[ModelFootprint], work: RecordingWork, room: DeviceRoom
) -> MemoryEstimate:
    """Return the estimate of the first of ``models`` with which a recording fits at once, else of
    that with the longest windows; if it fits with none, of the smallest."""
    estimates = [plan_job(one, work, room) for one in models]
    whole = [one for one in estimates if one.fits and one.windows == 1]
    smallest = max(estimates, key=lambda one: (one.fits, one.longest_audio_s, -one.peak_bytes))
    return whole[0] if whole else smallest


def next_smaller_plan(
    plan: MemoryPlan, model: ModelFootprint, work: RecordingWork, *, apart: bool = True
) -> MemoryPlan | None:
    """Return the next plan that needs less memory, for a job that ran out of it: the smallest is
    followed by that of windows half as long, if these distinguish the speakers; else `None`."""
    work = work.in_windows(model.shape, plan.window_s)
    taken = model.peak(plan, work).total
    steps = plan_ladder(work, apart=apart)
    later = steps[steps.index(plan) + 1 :] if plan in steps else steps
    for step in later:
        if model.peak(step, work).total < taken:
            return step
    half_s = min(work.audio_s, work.window_s) / 2
    if half_s < MIN_WINDOW_S:
        return None
    return plan_ladder(work.in_windows(model.shape, half_s), apart=apart)[-1]


def max_audio_s(
    model: ModelFootprint, room: DeviceRoom, *, text_tokens: int = PROMPT_TOKENS
) -> float:
    """Return whole seconds of audio that fit at once, at most `WINDOW_S`; 0 if none do."""

    def fits(seconds: int) -> bool:
        work = RecordingWork.of(model.shape, float(seconds), text_tokens=text_tokens)
        return _choose_plan(model, work, room)[1].total <= room.available_bytes

    return _longest_s(fits)


def _longest_s(fits: Callable[[int], bool]) -> float:
    """Return the most whole seconds that fit, at most `WINDOW_S`; 0 if none do."""
    low, high = 0, int(WINDOW_S) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return float(low)


def estimated_seconds(
    model: ModelFootprint, work: RecordingWork, bandwidth: float, together: int = 1
) -> float:
    """Return a rough duration: each token reads the language model and the cache once; ``together``
    windows share a read of the model."""
    window_s = min(work.audio_s, work.window_s)
    windows = work.audio_s / window_s if window_s else 0.0
    if together > 1:
        windows = float(windows_of(work.audio_s, window_s))
    tokens = min(work.output_tokens, ceil(LIKELY_TOKENS_PER_SECOND * window_s))
    weights = model.weights_bytes(_OFFLOADED_PLAN)
    cache = model.cache_bytes(work.prompt_tokens + tokens // 2)
    reached = bandwidth * EFFICIENCY.get(model.precision, EFFICIENCY_UNQUANTIZED)
    read = weights / together + cache + ENCODE_AND_PREFILL * (weights + cache)
    return windows * tokens * read / reached


def estimate_sentence(
    estimate: MemoryEstimate,
    other_estimates: Sequence[MemoryEstimate] = (),
    least_s: float | None = None,
) -> str:
    """Return the estimate as a sentence.

    ``other_estimates``: those of other precisions that fit, if the estimate does not. ``least_s``:
    the fewest seconds that it may take, if not those of the estimate.
    """
    if estimate.fits:
        parts = [
            f"fits: {estimate.precision}",
            f"{estimate.peak_bytes / GB:.1f} of {estimate.available_bytes / GB:.1f} GB",
        ]
        if estimate.windows > 1:
            length = duration_text(estimate.plan.window_s)
            together = f", {count} at once" if (count := estimate.plan.together) > 1 else ""
            parts.append(f"in {estimate.windows} windows of {length}{together}")
        if estimate.seconds is not None:
            times = (estimate.seconds if least_s is None else least_s, estimate.seconds)
            parts.append(f"about {' to '.join(dict.fromkeys(map(duration_text, times)))}")
        return ", ".join(parts)
    if other_estimates:
        return f"does not fit; {' or '.join(other.precision for other in other_estimates)} would"
    if estimate.longest_audio_s:
        return (
            f"does not fit; {duration_text(estimate.longest_audio_s, down=True)} of it would, "
            f"in {estimate.precision}"
        )
    room = room_text(estimate.available_bytes, estimate.unlimited_bytes, "free")
    way = "; raise that setting" if estimate.fits_without_limit else ""
    return (
        f"does not fit: {estimate.precision} takes {estimate.peak_bytes / GB:.1f} GB, {room}{way}"
    )


def room_text(available_bytes: int, unlimited_bytes: int | None, free: str) -> str:
    """Return the available memory in words, ``free`` or limited by the setting."""
    gigabytes = f"{available_bytes / GB:.1f}"
    if unlimited_bytes is None:
        return f"{gigabytes} GB are {free}"
    return (
        f"the setting 'memory_limit_mb' allows {gigabytes} of the {unlimited_bytes / GB:.1f} GB "
        f"that are {free}"
    )


def _choose_plan(
    model: ModelFootprint, work: RecordingWork, room: DeviceRoom
) -> tuple[MemoryPlan, MemoryBreakdown]:
    """Return the first plan that fits, and its peak; if none fits, the smallest plan."""
    peaks = [(plan, model.peak(plan, work)) for plan in plan_ladder(work, apart=room.apart)]
    for plan, peak in peaks:
        if peak.total <= room.available_bytes:
            return plan, peak
    return min(peaks, key=lambda pair: pair[1].total)


def _rounded(positions: int) -> int:
    return ceil(positions / CACHE_ROUND) * CACHE_ROUND


def duration_text(seconds: float, *, down: bool = False) -> str:
    """Return seconds, or minutes from about one, in words; ``down``: rounded down."""
    if seconds < (60 if down else 55):
        return "1 second" if seconds < 1.5 else f"{round(seconds)} seconds"
    minutes = int(seconds // 60) if down else round(seconds / 60)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"


def batched_windows_plan(
    model: ModelFootprint,
    work: RecordingWork,
    room: DeviceRoom,
    most: int = MAX_WINDOWS,
) -> MemoryPlan | None:
    """Return the plan with the most windows in one batch that fits, at most ``most``.

    Return `None` if not even two fit. A batch needs the memory, and writes the output, of one
    recording of the total length. All batches of a recording are about equally large.
    """
    window_s = _window_s(work.audio_s, BATCHED_WINDOW_S)
    windows = windows_of(work.audio_s, window_s) if work.audio_s >= 2 * MIN_WINDOW_S else 1
    for count in range(min(most, windows), 1, -1):
        together = ceil(windows / ceil(windows / count))
        for step in plan_ladder(work.in_windows(model.shape, window_s), apart=room.apart):
            plan = replace(step, together=together)
            if batched_peak_bytes(model, plan, work) <= room.available_bytes:
                return plan
    return None


def shared_plan(model: ModelFootprint, room: DeviceRoom) -> MemoryPlan | None:
    """Return the plan of recordings that run beside each other, with the most places that fit; None
    if not even two do. A window is encoded beside caches that have grown."""
    work = RecordingWork.of(model.shape, BATCHED_WINDOW_S)
    for places in range(MAX_WINDOWS, 1, -1):
        for step in plan_ladder(work, apart=room.apart):
            plan = replace(step, places=places)
            if shared_peak_bytes(model, plan) <= room.available_bytes:
                return plan
    return None


def shared_peak_bytes(model: ModelFootprint, plan: MemoryPlan) -> int:
    """Return the peak bytes of all recordings that run beside each other by a shared plan."""
    full = replace(plan, together=plan.places, window_s=BATCHED_WINDOW_S)
    return batched_peak_bytes(model, full, RecordingWork.of(model.shape, BATCHED_WINDOW_S))


def as_shared(
    joint_plan: MemoryPlan, model: ModelFootprint, work: RecordingWork, own_plan: MemoryPlan
) -> MemoryPlan | None:
    """Return the plan of a recording beside others, in the windows of its ``own_plan``; None
    if one takes more than there are places for. A window takes as many as its cache and its prompt
    need.
    """
    shape, each = model.shape, RecordingWork.of(model.shape, BATCHED_WINDOW_S)

    def places(work: RecordingWork) -> int:
        caches = last_positions(joint_plan, work) / last_positions(joint_plan, each)
        return ceil(max(caches, work.prompt_tokens / each.prompt_tokens))

    weight = places(work.in_windows(shape, own_plan.window_s))
    together = min(own_plan.together, joint_plan.places // weight)
    if not together:
        return None
    text = work.text_tokens(shape)
    longest_s = _longest_s(
        lambda length_s: places(RecordingWork.of(shape, length_s, text_tokens=text)) <= weight
    )
    # a header may claim too little: a window reads no more than it has places for
    window_s = min(own_plan.window_s, max(work.audio_s, longest_s))
    return replace(joint_plan, window_s=window_s, together=together, weight=weight)


def batched_peak_bytes(model: ModelFootprint, plan: MemoryPlan, work: RecordingWork) -> int:
    """Return the peak bytes of a recording by its plan, with all windows of a batch."""
    count = plan.together
    one = work.in_windows(model.shape, plan.window_s)
    all_ = replace(
        one,
        audio_s=count * min(work.audio_s, plan.window_s),
        prompt_tokens=count * one.prompt_tokens,
        output_tokens=count * one.output_tokens,
    )
    held = replace(plan, cache_tokens=count * plan.cache_tokens, cache_step=count * plan.cache_step)
    return model.peak(held, all_).total


@dataclass(frozen=True, slots=True)
class JobForecast:
    """Forecast of a job, for users and programs.

    ``audio_s`` is `None` if the recording's length is not known. The bytes are `None` if the engine
    needs little memory. ``seconds`` (of work) is `None` if the device's speed is not known.
    ``longest_audio_s``: maximum audio at once at ``precision``. ``alternatives``: estimates that
    fit, if this one does not. ``windows``: their maximum number, ``at_once`` of them in a batch;
    `None` as with the bytes. ``card``: its name, if the device is not this machine's, with the
    fewest seconds, and the forecasts of the next ``smaller`` and ``larger`` card.
    """

    fits: bool
    precision: Precision
    audio_s: float | None
    longest_audio_s: float
    sentence: str
    needed_bytes: int | None = None
    available_bytes: int | None = None
    seconds: float | None = None
    alternatives: tuple[MemoryEstimate, ...] = ()
    windows: int | None = None
    at_once: int | None = None
    card: str | None = None
    least_s: float | None = None
    smaller: JobForecast | None = None
    larger: JobForecast | None = None

    @classmethod
    def planned(
        cls,
        audio_s: float | None,
        estimate: MemoryEstimate,
        other_estimates: Sequence[MemoryEstimate],
        least_s: float | None = None,
    ) -> JobForecast:
        """Return the forecast of an engine with a memory plan.

        ``other_estimates``: the precisions that fit if ``estimate`` does not. ``least_s``: as in
        `estimate_sentence`.
        """
        return cls(
            fits=estimate.fits,
            precision=estimate.precision,
            audio_s=audio_s,
            needed_bytes=estimate.peak_bytes,
            available_bytes=estimate.available_bytes,
            seconds=estimate.seconds,
            longest_audio_s=estimate.longest_audio_s,
            sentence=estimate_sentence(estimate, other_estimates, least_s),
            alternatives=tuple(other_estimates),
            windows=estimate.windows if estimate.fits else None,
            at_once=estimate.plan.together if estimate.fits else None,
            least_s=least_s,
        )

    def with_seconds(self, seconds: float) -> JobForecast:
        """Return the forecast with ``seconds`` of work, predicted from measured jobs."""
        sentence = f"{self.sentence}, about {duration_text(seconds)}"
        return replace(self, seconds=seconds, sentence=sentence)

    def with_usual_seconds(self, least: float, most: float) -> JobForecast:
        """Return the forecast with a typical range of seconds, for when no job was measured."""
        usual = " to ".join(dict.fromkeys((duration_text(least), duration_text(most))))
        return replace(self, sentence=f"{self.sentence}, usually {usual} (not measured here)")

    def with_note(self, note: str) -> JobForecast:
        """Return the forecast with a note at the end of its sentence; none if it is empty."""
        return replace(self, sentence=f"{self.sentence}; {note}") if note else self

    @classmethod
    def of_any_length(
        cls,
        precision: Precision,
        needed_bytes: int,
        available_bytes: int,
        audio_s: float | None,
        longest_s: float,
    ) -> JobForecast:
        """Return the forecast of an engine whose memory is the same at any length."""
        takes, fits = f"{needed_bytes / GB:.1f}", needed_bytes <= available_bytes
        sentence = f"fits: {precision}, {takes} of {available_bytes / GB:.1f} GB for any length"
        if not fits:
            free = room_text(available_bytes, None, "free")
            sentence = f"does not fit: {precision} takes {takes} GB, {free}"
        return cls(
            fits=fits,
            precision=precision,
            audio_s=audio_s,
            longest_audio_s=longest_s if fits else 0.0,
            sentence=sentence,
            needed_bytes=needed_bytes,
            available_bytes=available_bytes,
        )

    @classmethod
    def small(
        cls, spec: EngineSpec, precision: Precision, audio_s: float | None, longest_s: float
    ) -> JobForecast:
        """Return the forecast of an engine with small memory that is constant at any length."""
        means = f"{precision}, the engine '{spec.name}' takes any length in the same memory"
        return cls(True, precision, audio_s, longest_s, f"fits: {means}")
