"""What fits on which card, planned and measured. Run ``python -m bench.memory``.

For cards of 24, 16, 12 and 8 GB (all of it free) and each precision: the longest recording that the
planner lets through at once, the plan for it, what it takes as planned and as measured. The ratios
are planned / measured, of the whole process and of its tensors alone: below 1.00 a job would run
out of memory that was promised, above 1.05 memory is left lying.

``--device simulated`` (the default where there is no GPU): the full-size model on fake tensors, by
`tests/support/memory_simulation.py`; what it cannot see, context and fragmentation, is as planned.
``--device cuda``: the full-size model with random weights, loaded and run by the engine's own code,
each row in a process of its own that is held to the card's size (`run`). ``--device
cpu``: the same rows with a small checkpoint, to see that all of this runs: cards that are as large
as each plan asks for and one that is too small, and living tensors counted. ``--frozen`` prints the
table of tests/gpu_memory/test_memory_plan.py.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.serving import ROOT, argument_parser, machine, table, workshop
from sidecar import errors
from sidecar.gpu_memory.gpu_devices import read_gpu_memory
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import (
    CONTEXT_BYTES,
    VIBEVOICE_7B_SHAPE,
    ModelFootprint,
    ModelShape,
    RecordingWork,
    reserve_bytes,
)
from sidecar.gpu_memory.memory_plan import (
    LOAD_PLANS,
    PREFERRED_PRECISIONS,
    DeviceRoom,
    max_audio_s,
    plan_job,
    plan_ladder,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

GIB, MIB = 1 << 30, 1 << 20
PATIENCE_S = 540.0
RATE = 24_000
CARDS_GB = (24, 16, 12, 8)
PROMISED = ((24, Precision.BF16, 60.0), (16, Precision.INT8, 60.0), (8, Precision.INT4, 30.0))
"""The goals: gigabytes, precision, minutes."""
ON_CPU = (Precision.FP32, Precision.BF16)
CPU_MINUTES = 2.0
"""Of the rows with a small checkpoint."""
HEADERS = (
    *("card", "precision", "minutes", "plan", "planned", "measured", "ratio"),
    *("tensors planned", "measured", "ratio", "s"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What is to be run. ``load``: of it counts what it keeps on the host; ``cap`` in bytes."""

    folder: str
    device: str
    cap: int
    precision: Precision
    load: MemoryPlan
    plan: MemoryPlan
    work: RecordingWork

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> Row:
        """The row that `asdict` made."""
        plans = {name: MemoryPlan(**values[name]) for name in ("load", "plan")}
        precision, work = Precision(values["precision"]), RecordingWork(**values["work"])
        return cls(**{**values, **plans, "precision": precision, "work": work})


@dataclass(slots=True)
class Taken:
    """What a row took, in bytes.

    ``tensors``: the most that lived at once. ``reserved``: the most that the allocator held.
    ``process``: that, and the context with all that the libraries keep outside of the allocator.
    ``phases``: the most tensors in each. ``failed``: why it did not come to its end.
    """

    tensors: int = 0
    reserved: int | None = None
    process: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    failed: str | None = None
    seconds: float = 0.0


def taken(row: Row) -> Taken:
    """Run a row in a fresh process. Whatever becomes of that, this returns."""
    command = [sys.executable, "-m", "bench.memory", "--row"]
    environment = {**os.environ, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    try:
        child = subprocess.run(
            command,
            input=json.dumps(asdict(row)),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=ROOT,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Taken(failed=f"not done after {PATIENCE_S:.0f} s")
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        said = child.stderr.strip().splitlines() or [""]
        return Taken(failed=f"ended with {child.returncode}: {said[-1][:120]}")
    return Taken(**json.loads(lines[-1]))


class CardScale:
    """A GPU that is told to be as small as ``cap``."""

    def __init__(self, cap: int) -> None:
        self._before = _used()
        import torch

        self._cuda = torch.cuda
        torch.zeros(1, device="cuda")
        context = self._share() - self._cuda.memory_reserved()
        total = self._cuda.get_device_properties(0).total_memory
        self._cuda.set_per_process_memory_fraction(min(1.0, max(0, cap - context) / total))
        self._phases: dict[str, int] = {}
        self._phase: str | None = None
        self._reserved = 0

    def begin(self, phase: str) -> None:
        """Keep what the last phase took, and begin at zero."""
        self._note()
        self._cuda.reset_peak_memory_stats()
        self._phase = phase

    def loaded(self, model: Any) -> None:
        """The allocator knows them already."""

    def read(self, into: Taken) -> None:
        """The allocator's figures, and what is taken beside it by now."""
        self._note()
        outside = self._share() - self._cuda.memory_reserved()
        into.phases, into.tensors = self._phases, max(self._phases.values(), default=0)
        into.reserved, into.process = self._reserved, self._reserved + outside

    def _note(self) -> None:
        self._cuda.synchronize()
        self._reserved = max(self._reserved, self._cuda.max_memory_reserved())
        if self._phase is not None:
            self._phases[self._phase] = self._cuda.max_memory_allocated()

    def _share(self) -> int:
        """What this process takes of the card; where that is not told, what more is taken."""
        return _used(os.getpid()) or _used() - self._before


def _used(pid: int | None = None) -> int:
    """Bytes of the card that are taken, by a process (0 where that is not told) or in all."""
    gpu = read_gpu_memory()
    if gpu is None:
        raise RuntimeError("the driver of the GPU does not answer")
    return gpu.used_bytes if pid is None else gpu.processes.get(pid, 0)


class HostScale:
    """Living tensors of the CPU, and what a card would take beside them.

    ``samples``: bytes of a chunk of the recording, which is no card's.
    """

    def __init__(self, cap: int, samples: int) -> None:
        from tests.support.memory_simulation import Counter, Peaks

        self._samples = samples
        self._peaks = Peaks(limit=cap - CONTEXT_BYTES + samples)
        self._counter = Counter(self._peaks, "cpu")
        self._counting = contextlib.ExitStack()

    def begin(self, phase: str) -> None:
        """What lives now is where it begins."""
        self._peaks.begin(phase)

    def loaded(self, model: Any) -> None:
        """Count the weights, and from now on what operations make."""
        self._counting.enter_context(self._counter)
        for tensor in (*model.parameters(), *model.buffers()):
            self._counter.count(tensor)

    def read(self, into: Taken) -> None:
        """The most that lived; what a card would take beside it, as planned."""
        self._counting.close()
        into.phases = self._peaks.phases
        if "encode" in into.phases:
            into.phases["encode"] -= self._samples
        into.tensors = max(into.phases.values(), default=0)
        into.process = into.tensors + reserve_bytes(into.tensors)


def run(row: Row) -> Taken:
    """Load, hear, answer; memory that runs out is an outcome like any other."""
    result, begun = Taken(), time.perf_counter()
    on_gpu = row.device == "cuda"
    samples = 0 if row.precision is Precision.FP32 else 4 * round(row.plan.encoder_chunk_s * RATE)
    scale = CardScale(row.cap) if on_gpu else HostScale(row.cap, samples)
    import torch

    from sidecar.engines import vibevoice
    from sidecar.engines.vibevoice import vibevoice_model
    from tests.support import memory_simulation

    phase = "load"

    def begin(name: str) -> None:
        nonlocal phase
        phase = name
        scale.begin(name)

    def move(part: torch.nn.Module, device: str) -> None:
        part.to(device)

    vibevoice.keep_freed_memory()
    begin(phase)
    as_on_a_gpu = contextlib.nullcontext() if on_gpu else memory_simulation.as_on_a_gpu()
    try:
        loaded = vibevoice_model.load_vibevoice(
            Path(row.folder),
            row.precision,
            vibevoice_model.pick_device(row.device),
            vibevoice_model.host_modules(row.load),
        )
        with torch.inference_mode(), as_on_a_gpu:
            scale.loaded(loaded.model)
            table = loaded.model.get_input_embeddings()
            move(table, "cpu" if row.plan.host_token_table else str(loaded.device))
            memory_simulation.transcribe(loaded.model, row.plan, row.work, begin, move, whole=True)
    except torch.OutOfMemoryError:
        result.failed = f"out of memory: {phase}"
    scale.read(result)
    result.seconds = time.perf_counter() - begun
    return result


@dataclass(frozen=True, slots=True)
class Case:
    """A recording on a card of ``card`` bytes."""

    card: int
    precision: Precision
    minutes: float


Measure = Callable[[Case, MemoryPlan, RecordingWork], Taken]


@dataclass(frozen=True, slots=True)
class Bench:
    """Whose memory is measured, how, and in what unit it is said.

    ``apart``: the device's memory is not the host's. ``found`` is what the columns are called that
    are not planned.
    """

    shape: ModelShape
    measure: Measure
    unit: int
    apart: bool = True
    found: str = "measured"

    def print(self, title: str, cases: Sequence[Case]) -> None:
        """A table of the cases."""
        headers = [self.found if name == "measured" else name for name in HEADERS]
        table(title, headers, list(self.rows(cases)))

    def rows(self, cases: Sequence[Case]) -> Iterator[tuple[str, ...]]:
        """A line for each: what was planned, and what it took."""
        for case in cases:
            if not case.minutes:
                yield self._size(case.card), case.precision.value, "none", *[""] * 8
                continue
            yield self._row(case)

    def _row(self, case: Case) -> tuple[str, ...]:
        work = RecordingWork.of(self.shape, case.minutes * 60)
        model = ModelFootprint(self.shape, case.precision)
        estimate = plan_job(model, work, DeviceRoom(case.card, apart=self.apart))
        planned = model.peak(estimate.plan, work)
        measured = self.measure(case, estimate.plan, work)
        said = described(estimate.plan, work) if estimate.fits else "does not fit"
        print(
            f"  {self._size(case.card)} {case.precision} {case.minutes:.3g} min: {said}", flush=True
        )
        return (
            self._size(case.card),
            case.precision.value,
            f"{case.minutes:.3g}",
            said,
            self._size(planned.total),
            measured.failed or self._size(measured.process),
            "" if measured.failed else f"{planned.total / measured.process:.4f}",
            self._size(planned.tensors),
            self._size(measured.tensors) if measured.tensors else "",
            "" if measured.failed else f"{planned.tensors / measured.tensors:.4f}",
            f"{measured.seconds:.0f}" if measured.seconds else "",
        )

    def _size(self, count: int) -> str:
        return f"{count / self.unit:.2f}"


@functools.cache
def simulated(case: Case, plan: MemoryPlan, work: RecordingWork) -> Taken:
    """The peak on fake tensors, and the reserve as planned."""
    from tests.support import memory_simulation

    peak = memory_simulation.simulate(
        memory_simulation.full_size(), case.precision, plan, work
    ).highest
    return Taken(tensors=peak, process=peak + reserve_bytes(peak))


def in_a_process(home: Path, device: str, shape: ModelShape) -> Measure:
    """The engine's own parts on a device that is told to be as small as the card."""

    @functools.cache  # what was promised may be the longest as well
    def measure(case: Case, plan: MemoryPlan, work: RecordingWork) -> Taken:
        load = LOAD_PLANS[-1] if device == "cuda" else LOAD_PLANS[0]
        admission = MemoryAdmission(shape, tuple(Precision), None)
        now = MemoryState(case.card, None, on_gpu=device == "cuda")
        with contextlib.suppress(errors.WontFit):  # it is to be seen that it does not
            load = admission.place(case.precision, now).memory
        return taken(Row(str(home), device, case.card, case.precision, load, plan, work))

    return measure


def described(plan: MemoryPlan, work: RecordingWork) -> str:
    """What a plan gives up, in words."""
    parts = ["encoders evicted"] if plan.evict_encoders else []
    parts += ["growing cache"] if plan.cache_tokens < work.positions else []
    parts += ["small pieces"] if plan.prefill_tile < MemoryPlan().prefill_tile else []
    parts += ["token table on the host"] if plan.host_token_table else []
    return ", ".join(parts) or "all at hand"


def cards(bench: Bench, gigabytes: Sequence[int], precisions: Sequence[Precision]) -> None:
    """Print the longest audio for each card and precision, planned beside measured."""
    longest = [
        Case(size * GIB, one, max_audio_s(model, DeviceRoom(size * GIB)) / 60)
        for size in gigabytes
        for one in precisions
        for model in [ModelFootprint(VIBEVOICE_7B_SHAPE, one)]
    ]
    promised = [
        Case(size * GIB, one, minutes)
        for size, one, minutes in PROMISED
        if size in gigabytes and one in precisions
    ]
    bench.print("the longest recording at once, in GB", longest)
    bench.print("what was promised, in GB", promised)


def small_cards(bench: Bench, precisions: Sequence[Precision], minutes: float) -> None:
    """Print the same of a small checkpoint, on cards that are just as large as a plan, or less."""
    work = RecordingWork.of(bench.shape, minutes * 60)
    cases = []
    for one in precisions:
        model = ModelFootprint(bench.shape, one)
        peaks = [model.peak(step, work) for step in plan_ladder(work, apart=False)]
        cases += [Case(total, one, minutes) for total in dict.fromkeys(p.total for p in peaks)]
        least = min(peaks, key=lambda peak: peak.total)
        cases.append(Case(least.total - (least.cache + least.activations) // 4, one, minutes))
    bench.print("a small checkpoint on the CPU, in MB", cases)


def frozen() -> None:
    """Print the rows that the tests hold the planner to."""
    from tests.support import memory_simulation

    for precision in (Precision.FP32, *PREFERRED_PRECISIONS):
        for minutes in (1, 30, 60):
            work = RecordingWork.of(VIBEVOICE_7B_SHAPE, 60.0 * minutes)
            for step, plan in enumerate(plan_ladder(work)):
                peak = memory_simulation.simulate(
                    memory_simulation.full_size(), precision, plan, work
                ).highest
                print(f"    ({precision.name}, {minutes}, {step}, {peak:_}),", flush=True)


def with_weights(given: argparse.Namespace, folder: Path) -> None:
    """The tables that need a checkpoint: a full-size one on a GPU, a small one on the CPU."""
    import torch

    from bench import vibevoice_card

    size = given.size or ("full" if given.device == "cuda" else "mid")
    home = given.weights or Path(tempfile.mkdtemp(dir=folder))
    if not (home / "model.safetensors.index.json").exists():
        vibevoice_card.write(home, size, given.device)
    shape = ModelShape.from_config(json.loads((home / "config.json").read_text("utf-8")))
    measure = in_a_process(home, given.device, shape)
    if given.device == "cpu":
        print("On the CPU: tensors are counted; context and fragmentation are as planned.")
        bench = Bench(shape, measure, MIB, apart=False)
        small_cards(bench, given.precisions or ON_CPU, given.minutes)
    else:
        print(torch.cuda.get_device_name())
        cards(Bench(shape, measure, GIB), given.cards, given.precisions or PREFERRED_PRECISIONS)


def main() -> None:
    """Choose the device, print the tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--device", choices=("simulated", "cpu", "cuda"))
    parser.add_argument("--cards", type=int, nargs="+", default=CARDS_GB, metavar="GB")
    parser.add_argument("--precisions", type=Precision, nargs="+", choices=tuple(Precision))
    parser.add_argument("--size", choices=("tiny", "mid", "full"), help="of the random weights")
    parser.add_argument("--weights", type=Path, help="folder to keep the random weights in")
    parser.add_argument("--minutes", type=float, default=CPU_MINUTES, help="with --device cpu")
    parser.add_argument("--frozen", action="store_true", help="print the rows of the tests")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(asdict(run(Row.from_wire(json.load(sys.stdin))))))
        return
    if given.frozen:
        frozen()
        return
    if given.device is None:
        import torch

        given.device = "cuda" if torch.cuda.is_available() else "simulated"
    print(machine())
    if given.device == "simulated":
        print("SIMULATED: no GPU was used; what context and fragmentation take is an assumption.")
        bench = Bench(VIBEVOICE_7B_SHAPE, simulated, GIB, found="simulated")
        cards(bench, given.cards, given.precisions or PREFERRED_PRECISIONS)
        return
    with workshop() as folder:
        with_weights(given, folder)


if __name__ == "__main__":
    main()
