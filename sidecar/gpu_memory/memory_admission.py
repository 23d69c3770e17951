"""Memory admission: available bytes of a device, plans of jobs, placement of engines. Pure.

`memory_plan` computes the memory of a recording. This module combines that with the free memory and
the engine's own. It returns a plan for a job, an error that names what would fit, or the placement
of a new engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self, TypeVar

from sidecar.errors import Fault, WontFit
from sidecar.gpu_memory import memory_footprint, memory_plan
from sidecar.gpu_memory.memory_footprint import ModelFootprint
from sidecar.gpu_memory.memory_plan import DeviceRoom, MemoryEstimate
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    ModelSpec,
    Precision,
    TranscribeOptions,
    WindowingMode,
)

Spec = TypeVar("Spec", bound=ModelSpec)
CPU_CHUNK_S = 8 / 3
"""Encoder chunk of twenty tokens: its activations stay in a CPU's cache."""
TYPICAL_AUDIO_S = 600.0
"""Duration of audio by which the time is predicted if a recording's is not known. Memory is planned
for an hour then, in windows as of a recording of that length."""


class LoadPlacement(StrEnum):
    """Placement of a new engine while an old one is loaded."""

    BESIDE = "beside"
    """Both fit: the old engine is unloaded after the new one is loaded."""
    INSTEAD = "instead"
    """Only one fits: the old engine is unloaded first, and reloaded if the new one fails."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Plan of a load: placement, and a memory plan for the parts that stay on the host."""

    placement: LoadPlacement = LoadPlacement.BESIDE
    memory: MemoryPlan = field(default_factory=MemoryPlan)


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Free bytes of the engine's device, and the loaded precision.

    ``free_bytes``: without reservations of other engines (`gpu_memory.gpu_devices`). ``on_gpu``:
    decides which precisions are useful. ``bandwidth``: in bytes per second, `None` if not known.
    ``own_bytes``: bytes of the engine's process, with the cache of the running job and the memory
    that its allocator keeps; `None`: those of its weights. ``total_bytes``: of the whole device,
    `None` if not known.
    """

    free_bytes: int
    held_precision: Precision | None
    on_gpu: bool
    bandwidth: float | None = None
    own_bytes: int | None = None
    total_bytes: int | None = None

    @property
    def empty(self) -> Self | None:
        """Return the state with nothing on the device; `None` if its size is not known."""
        if self.total_bytes is None:
            return None
        return replace(self, free_bytes=self.total_bytes, held_precision=None, own_bytes=0)

    def fault(self, needed_bytes: int) -> Fault:
        """Return what is to blame if so many bytes do not fit: what is asked for, if the whole
        device has fewer."""
        too_large = self.total_bytes is not None and needed_bytes > self.total_bytes
        return Fault.RECORDING if too_large else Fault.DEVICE


class MemoryAdmission:
    """Memory admission for one checkpoint. ``limit_bytes`` limits its memory; `None`: no limit.
    ``fused``: as of `ModelFootprint`. ``concurrency``: recordings that run at once, at most."""

    def __init__(
        self,
        shape: memory_footprint.ModelShape,
        precisions: Sequence[Precision],
        limit_bytes: int | None,
        fused: bool = True,
        concurrency: int = 1,
    ) -> None:
        self._shape, self._fused, self.concurrency = shape, fused, concurrency
        first, *rest = memory_plan.PREFERRED_PRECISIONS
        if first not in precisions:  # a GPU without bf16
            first = Precision.FP16
        self._candidates = [one for one in (first, *rest) if one in precisions]
        self._limit = limit_bytes

    def plans_as(self, other: Self | None) -> bool:
        """Return whether another checkpoint has the same needs."""
        return other is not None and self._shape == other._shape

    def estimate(
        self,
        precision: Precision,
        audio_s: float | None,
        options: TranscribeOptions,
        state: MemoryState,
        plan_beside: MemoryPlan | None = None,
    ) -> tuple[MemoryEstimate, tuple[MemoryEstimate, ...]]:
        """Return the memory estimate of a recording at ``precision``. ``plan_beside``: the plan of
        recordings that run, which it may join.

        If it does not fit, also return the estimates of the other precisions that would.
        """
        work, room = self._work(audio_s, options), self._room(state)
        estimate = memory_plan.plan_job(self._model(precision), work, room)
        estimate = replace(estimate, unlimited_bytes=self._unlimited_bytes(state))
        if estimate.fits:
            found = self._in_batches(estimate, options, room, plan_beside)
            if audio_s is None and found.seconds is not None:
                typical_s = found.seconds * TYPICAL_AUDIO_S / memory_footprint.WINDOW_S
                found = replace(found, seconds=typical_s)
            return found, ()
        others = (self._model(one) for one in self._candidates if one != precision)
        estimates = (memory_plan.plan_job(one, work, room) for one in others)
        return estimate, tuple(one for one in estimates if one.fits)

    def planned(
        self,
        precision: Precision,
        audio_s: float | None,
        options: TranscribeOptions,
        state: MemoryState,
        plan_beside: MemoryPlan | None = None,
    ) -> TranscribeOptions:
        """Return the options with a memory plan that fits, and a fallback plan; ``plan_beside``: as
        in `estimate`.

        Raises:
            errors.WontFit: no plan fits; the hint names what would.
        """
        estimate, others = self.estimate(precision, audio_s, options, state, plan_beside)
        if not estimate.fits:
            raise does_not_fit_error(
                estimate, others, self._fault(precision, audio_s, options, state)
            )
        work, memory = self._work(audio_s, options), estimate.plan
        model = self._model(precision)
        fallback = memory_plan.next_smaller_plan(memory, model, work, apart=state.on_gpu)
        if memory.together > 1:
            window = work.in_windows(self._shape, memory.window_s)
            fallback = memory_plan.plan_ladder(window, apart=state.on_gpu)[-1]
        alone = None
        if (shared := estimate.shared_plan) is not None:
            memory, alone = shared, memory if memory.together > shared.together else None
        if not state.on_gpu:
            memory = _with_cpu_chunks(memory)
            fallback, alone = (one and _with_cpu_chunks(one) for one in (fallback, alone))
        return replace(options, memory=memory, memory_fallback=fallback, memory_alone=alone)

    def _in_batches(
        self,
        estimate: MemoryEstimate,
        options: TranscribeOptions,
        room: DeviceRoom,
        plan_beside: MemoryPlan | None,
    ) -> MemoryEstimate:
        """Return the estimate with windows in batches if the client asks for them, or by default
        on a GPU for a long recording, and if two fit at once; and with the plan beside others.

        Of one that draws tokens the last digits depend on the others, and fp16 may be widened: they
        run alone."""
        long = room.apart and estimate.audio_s > memory_plan.LONG_AUDIO_S
        by_default = options.windows is WindowingMode.AUTO and long
        work, model = self._work(estimate.audio_s, options), self._model(estimate.precision)
        if by_default or options.windows is WindowingMode.PARALLEL:
            plan = memory_plan.batched_windows_plan(model, work, room)
            if plan is not None:
                within = work.in_windows(self._shape, plan.window_s)
                seconds = room.bandwidth and memory_plan.estimated_seconds(
                    model, within, room.bandwidth, plan.together
                )
                peak = memory_plan.batched_peak_bytes(model, plan, work)
                estimate = replace(estimate, plan=plan, peak_bytes=peak, seconds=seconds)
        if self.concurrency < 2 or options.temperature or estimate.precision is Precision.FP16:
            return estimate
        if (base := plan_beside or memory_plan.shared_plan(model, room)) is None:
            return estimate
        return replace(
            estimate, shared_plan=memory_plan.as_shared(base, model, work, estimate.plan)
        )

    def fitting_precision(
        self,
        loaded_precision: Precision,
        audio_s: float | None,
        options: TranscribeOptions,
        state: MemoryState,
    ) -> Precision:
        """Return the precision for a client that names none: the loaded one, else one that fits.

        If no precision fits, return the loaded one.
        """
        estimate, others = self.estimate(loaded_precision, audio_s, options, state)
        return loaded_precision if estimate.fits or not others else others[0].precision

    def first_precision(self, state: MemoryState) -> Precision:
        """Return the precision to load by default: 16 bit on a CPU, the best with which an hour
        fits on a GPU."""
        if not state.on_gpu:
            return Precision.BF16
        hour = memory_footprint.RecordingWork.of(self._shape, memory_footprint.WINDOW_S)
        models, room = [*map(self._model, self._candidates)], self._room(state)
        return memory_plan.best_precision(models, hour, room).precision

    def place(self, precision: Precision, state: MemoryState) -> LoadPlan:
        """Return the plan of a load at ``precision``.

        The engine is loaded beside the old one if possible, with as much of it on the device as
        fits.

        Raises:
            errors.WontFit: even alone, the engine cannot transcribe one second.
        """
        available = self.available_bytes(state)
        second = memory_footprint.RecordingWork.of(self._shape, 1.0)
        least = memory_plan.plan_job(self._model(precision), second, self._room(state))
        if not least.fits:
            least, others = self.estimate(precision, 1.0, TranscribeOptions(), state)
            free = memory_plan.room_text(available, least.unlimited_bytes, "free")
            fault = self._fault(precision, 1.0, TranscribeOptions(), state)
            hint = _ways_hint(least, others)
            raise no_room_error(precision, least.peak_bytes, free, hint, state, fault)
        beside = state.free_bytes
        if self._limit is not None and state.held_precision is not None:
            beside = min(beside, self._limit - self.loaded_bytes(state.held_precision))
        steps = memory_plan.LOAD_PLANS if state.on_gpu else memory_plan.LOAD_PLANS[:1]
        for placement, room in ((LoadPlacement.BESIDE, beside), (LoadPlacement.INSTEAD, available)):
            for memory in steps:
                if self.loaded_bytes(precision, memory) <= room:
                    return LoadPlan(placement, memory)
        return LoadPlan(LoadPlacement.INSTEAD, steps[-1])

    def _fault(
        self,
        precision: Precision,
        audio_s: float | None,
        options: TranscribeOptions,
        state: MemoryState,
    ) -> Fault:
        """Return what is to blame if a recording does not fit: the recording, if no plan would fit
        into the empty device either (within the limit), else those that use the device."""
        empty = state.empty
        if empty is None or self.estimate(precision, audio_s, options, empty)[0].fits:
            return Fault.DEVICE
        return Fault.RECORDING

    def available_bytes(self, state: MemoryState) -> int:
        """Return the bytes that the engine may use in all."""
        available = self._free_and_own_bytes(state)
        return available if self._limit is None else min(available, self._limit)

    def _model(self, precision: Precision) -> ModelFootprint:
        return ModelFootprint(self._shape, precision, self._fused)

    def _room(self, state: MemoryState) -> DeviceRoom:
        return DeviceRoom(self.available_bytes(state), state.bandwidth, state.on_gpu)

    def _unlimited_bytes(self, state: MemoryState) -> int | None:
        """Return the available bytes without the limit; `None` if it withholds none."""
        unlimited = self._free_and_own_bytes(state)
        return unlimited if self._limit is not None and self._limit < unlimited else None

    def _free_and_own_bytes(self, state: MemoryState) -> int:
        own = state.own_bytes
        if own is None:
            own = self.loaded_bytes(state.held_precision) if state.held_precision is not None else 0
        return max(0, state.free_bytes + own)

    def loaded_bytes(
        self, precision: Precision, memory: MemoryPlan = memory_plan.LOAD_PLANS[0]
    ) -> int:
        """Return the bytes of an engine that loads or is idle; ``memory``: parts on the host."""
        return self._model(precision).loading(memory).total

    def peak_bytes(
        self, precision: Precision, audio_s: float | None, options: TranscribeOptions
    ) -> int:
        """Return the peak bytes of a recording by the plan in its ``options``."""
        work, model = self._work(audio_s, options), self._model(precision)
        plans = [one for one in (options.memory, options.memory_alone) if one is not None]
        return max(
            memory_plan.shared_peak_bytes(model, plan)
            if plan.places
            else memory_plan.batched_peak_bytes(model, plan, work)
            for plan in plans
        )

    def _work(
        self, audio_s: float | None, options: TranscribeOptions
    ) -> memory_footprint.RecordingWork:
        """Return the work of a recording.

        A client's limit of tokens makes it smaller, never larger: the output depends on the audio,
        and the cache grows if the estimate was too low.
        """
        work = memory_footprint.RecordingWork.of(
            self._shape,
            memory_footprint.WINDOW_S if audio_s is None else audio_s,
            text_tokens=memory_footprint.PROMPT_TOKENS + len(options.prompt_lines.encode()) // 2,
        )
        most = options.max_tokens or work.output_tokens
        return replace(work, output_tokens=min(most, work.output_tokens))


def admission_of(
    config: dict[str, Any],
    spec: Spec,
    limit_bytes: int | None,
    *,
    on_gpu: bool,
    fused: bool,
    concurrency: int,
) -> tuple[Spec, MemoryAdmission]:
    """Return the admission for the checkpoint with this `config.json`, and the spec of its engine
    without the precision that it lacks on this device."""
    shape = memory_footprint.ModelShape.from_config(config)
    several = len(spec.precisions) > 1  # else it is a quantized checkpoint
    if several and not on_gpu and (obstacle := shape.int4_obstacle):
        spec = spec.without(Precision.INT4, obstacle)
    return spec, MemoryAdmission(shape, spec.precisions, limit_bytes, fused, concurrency)


def _with_cpu_chunks(plan: MemoryPlan) -> MemoryPlan:
    return replace(plan, encoder_chunk_s=min(plan.encoder_chunk_s, CPU_CHUNK_S))


def no_room_error(
    precision: Precision,
    needed_bytes: int,
    free: str,
    hint: str,
    state: MemoryState,
    fault: Fault,
) -> WontFit:
    """Return the error for an engine that does not fit on its device; ``free``: as `room_text`."""
    return WontFit(
        f"{'CUDA out of memory' if state.on_gpu else 'Too little memory (device: CPU)'}: the model "
        f"in {precision} needs at least {needed_bytes / memory_plan.GB:.1f} GB; {free}.",
        hint=hint,
        fault=fault,
    )


def does_not_fit_error(
    estimate: MemoryEstimate, other_estimates: Sequence[MemoryEstimate], fault: Fault
) -> WontFit:
    """Return the error for a recording that does not fit; its hint names what would fit."""
    audio = memory_plan.duration_text(estimate.audio_s)
    available = memory_plan.room_text(
        estimate.available_bytes, estimate.unlimited_bytes, "available"
    )
    return WontFit(
        f"{audio} in {estimate.precision} need{'s' if audio.startswith('1 ') else ''} "
        f"{estimate.peak_bytes / memory_plan.GB:.1f} GB; {available}.",
        hint=_ways_hint(estimate, other_estimates),
        fault=fault,
    )


def _ways_hint(estimate: MemoryEstimate, other_estimates: Sequence[MemoryEstimate]) -> str:
    """Return the precisions, the length and the setting with which it would fit, if any does."""
    ways = [f"precision {one.precision}" for one in other_estimates]
    if estimate.longest_audio_s:
        longest = memory_plan.duration_text(estimate.longest_audio_s, down=True)
        ways.append(f"at most {longest} at once in {estimate.precision}")
    if ways:
        return f"What would fit: {'; '.join(ways)}."
    if estimate.fits_without_limit:
        return "Raise the setting 'memory_limit_mb'."
    return (
        "No shorter recording and no smaller precision fits: free memory (close other programs on "
        "this device), or use a device with more."
    )
