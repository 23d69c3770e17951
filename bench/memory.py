"""What fits on which card, planned and measured. Run ``python -m bench.memory``.

For cards of 24, 16, 12 and 8 GB (all of it free) and each precision: the longest recording that the
planner lets through at once, the plan for it, what it takes as planned and as measured. The ratios
are planned / measured, of the whole process and of its tensors alone: below 1.00 a job would run
out of memory that was promised, above 1.05 memory is left lying.

``--device simulated`` (the default where there is no GPU): the full-size model on fake tensors
(`bench.memory_simulation`); what it cannot see, context and fragmentation, is added as planned.
``--device cuda``: the full-size model with random weights, loaded and run by the engine's own code,
each row in a process of its own that is held to the card's size (`bench.memory_run`). ``--device
cpu``: the same rows with a small checkpoint, to see that all of this runs: cards that are as large
as each plan asks for and one that is too small, and living tensors counted. ``--frozen`` prints the
table of tests/gpu_memory/test_memory_plan.py.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import memory_simulation
from bench.memory_run import Row, Taken, taken
from bench.serving import machine, table, workshop
from sidecar import errors
from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
from sidecar.gpu_memory.memory_footprint import (
    VIBEVOICE_7B_SHAPE,
    ModelShape,
    RecordingWork,
    peak_bytes,
    reserve_bytes,
)
from sidecar.gpu_memory.memory_plan import (
    LOAD_PLANS,
    PREFERRED_PRECISIONS,
    max_audio_s,
    plan_job,
    plan_ladder,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

GIB, MIB = 1 << 30, 1 << 20
CARDS_GB = (24, 16, 12, 8)
PROMISED = (
    (24, Precision.BF16, 60.0),
    (16, Precision.INT8, 60.0),
    (8, Precision.INT4, 30.0),
)
"""The goals: gigabytes, precision, minutes."""
ON_CPU = (Precision.FP32, Precision.BF16)
CPU_MINUTES = 2.0
"""Of the rows with a small checkpoint."""
HEADERS = (
    "card",
    "precision",
    "minutes",
    "plan",
    "planned",
    "measured",
    "ratio",
    "tensors planned",
    "measured",
    "ratio",
    "s",
)


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
        estimate = plan_job(self.shape, case.precision, work, case.card, apart=self.apart)
        planned = peak_bytes(self.shape, case.precision, estimate.plan, work)
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
        Case(size * GIB, one, max_audio_s(VIBEVOICE_7B_SHAPE, one, size * GIB) / 60)
        for size in gigabytes
        for one in precisions
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
        peaks = [
            peak_bytes(bench.shape, one, step, work) for step in plan_ladder(work, apart=False)
        ]
        cases += [Case(total, one, minutes) for total in dict.fromkeys(p.total for p in peaks)]
        least = min(peaks, key=lambda peak: peak.total)
        cases.append(Case(least.total - (least.cache + least.activations) // 4, one, minutes))
    bench.print("a small checkpoint on the CPU, in MB", cases)


def frozen() -> None:
    """Print the rows that the tests hold the planner to."""
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

    from bench import vibevoice_random_weights

    size = given.size or ("full" if given.device == "cuda" else "mid")
    home = given.weights or Path(tempfile.mkdtemp(dir=folder))
    if not (home / "model.safetensors.index.json").exists():
        vibevoice_random_weights.write(home, vibevoice_random_weights.SIZES[size], given.device)
    shape = ModelShape.from_config(json.loads((home / "config.json").read_text()))
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("simulated", "cpu", "cuda"))
    parser.add_argument("--cards", type=int, nargs="+", default=CARDS_GB, metavar="GB")
    parser.add_argument("--precisions", type=Precision, nargs="+", choices=tuple(Precision))
    parser.add_argument("--size", choices=("tiny", "mid", "full"), help="of the random weights")
    parser.add_argument("--weights", type=Path, help="folder to keep the random weights in")
    parser.add_argument("--minutes", type=float, default=CPU_MINUTES, help="with --device cpu")
    parser.add_argument("--frozen", action="store_true", help="print the rows of the tests")
    given = parser.parse_args()
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
