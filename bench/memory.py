"""What fits on which card, planned and measured. Run ``python -m bench.memory``.

For cards of 24, 16, 12 and 8 GB (all of it free) and each precision: the longest recording that the
planner lets through at once, the plan for it, its peak as planned, and the peak as measured. The
last column is planned / measured: below 1.00 a job would run out of memory that was promised, above
1.05 memory is left lying.

``--device simulated`` (the default where there is no GPU): the full-size model on fake tensors
(`bench.simulation`); what it cannot see, context and fragmentation, is added as planned, so the
comparison is of tensors alone. ``--device cpu``: a small model of the same architecture with real
tensors; no cards then, and nothing to evict to. ``--device cuda``: the full-size model with random
weights, under a cap for each card. ``--frozen`` prints the table of tests/runtime/test_plan.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from bench import simulation
from bench.serving import machine, table
from sidecar.engine import MemoryPlan, Precision
from sidecar.runtime.footprint import Work, peak_bytes, reserve_bytes
from sidecar.runtime.plan import PREFERRED, ladder, longest_audio_s, plan_job
from sidecar.runtime.shape import FULL, ModelShape

GIB = 1 << 30
CARDS_GB = (24, 16, 12, 8)
PROMISED = (
    (24, Precision.BF16, 60.0),
    (16, Precision.INT8, 60.0),
    (8, Precision.INT4, 30.0),
)
"""The goals: gigabytes, precision, minutes."""
CONTEXT_GB = 0.7
"""What `set_per_process_memory_fraction` does not limit."""
SMALL_WORK_S = (10.0, 60.0, 300.0)

Measure = Callable[[Precision, MemoryPlan, Work, int], int]
"""Precision, plan, work, bytes of the card -> the peak in bytes, context and all."""


def simulated(precision: Precision, plan: MemoryPlan, work: Work, _: int) -> int:
    """The peak on fake tensors, and the reserve as planned."""
    peak = simulation.simulate(simulation.full_size(), precision, plan, work).highest
    return peak + reserve_bytes(peak)


def on_gpu(precision: Precision, plan: MemoryPlan, work: Work, card_bytes: int) -> int:
    """The peak of the engine on a GPU that is told to be as small as ``card_bytes``."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((card_bytes - CONTEXT_GB * GIB) / total)
    raise NotImplementedError("the engine with full-size random weights is not wired in yet")


def cards(measure: Measure, column: str) -> None:
    """Print the longest audio for each card and precision, planned beside measured."""
    rows = []
    for card_gb in CARDS_GB:
        for precision in PREFERRED:
            longest = longest_audio_s(FULL, precision, card_gb * GIB)
            if not longest:
                rows.append((f"{card_gb}", precision.value, "none", "", "", "", ""))
                continue
            rows.append(row(measure, card_gb, precision, longest / 60))
    table(
        "the longest recording at once",
        ("card GB", "precision", "minutes", "plan", "planned GB", column, "ratio"),
        rows,
    )
    table(
        "what was promised",
        ("card GB", "precision", "minutes", "plan", "planned GB", column, "ratio"),
        [row(measure, *promise) for promise in PROMISED],
    )


def row(measure: Measure, card_gb: int, precision: Precision, minutes: float) -> tuple[str, ...]:
    """One line: what was planned for a recording on a card, and what it took."""
    work = Work.of(FULL, minutes * 60)
    estimate = plan_job(FULL, precision, work, card_gb * GIB)
    measured = measure(precision, estimate.plan, work, card_gb * GIB)
    return (
        f"{card_gb}",
        precision.value,
        f"{minutes:.0f}",
        described(estimate.plan, work) if estimate.fits else "does not fit",
        f"{estimate.peak_bytes / GIB:.2f}",
        f"{measured / GIB:.2f}",
        f"{estimate.peak_bytes / measured:.4f}",
    )


def described(plan: MemoryPlan, work: Work) -> str:
    """What a plan gives up, in words."""
    parts = ["encoders evicted"] if plan.evict_encoders else []
    parts += ["growing cache"] if plan.cache_tokens < work.positions else []
    parts += ["small pieces"] if plan.prefill_tile < MemoryPlan().prefill_tile else []
    parts += ["token table on the host"] if plan.host_token_table else []
    return ", ".join(parts) or "all at hand"


def small_on_cpu() -> None:
    """Print the same comparison for a small model with real tensors."""
    config = simulation.small_size()
    shape = ModelShape.from_config(config.to_dict())
    rows = []
    for precision in (Precision.FP32, Precision.BF16):
        for audio_s in SMALL_WORK_S:
            work = Work.of(shape, audio_s)
            plan = MemoryPlan(cache_tokens=work.prompt_tokens + 256, cache_step=256)
            planned = peak_bytes(shape, precision, plan, work).tensors
            measured = simulation.simulate(config, precision, plan, work, real=True).highest
            if precision is not Precision.FP32:  # the host's chunk, before it is cast, is there too
                measured -= round(4 * plan.encoder_chunk_s * simulation.SAMPLE_RATE)
            rows.append(
                (
                    precision.value,
                    f"{audio_s:.0f}",
                    f"{planned / 1e6:.2f}",
                    f"{measured / 1e6:.2f}",
                    f"{planned / measured:.4f}",
                )
            )
    table(
        "a small model on the CPU, tensors only",
        ("precision", "seconds", "planned MB", "measured MB", "ratio"),
        rows,
    )


def frozen() -> None:
    """Print the rows that the tests hold the planner to."""
    for precision in (Precision.FP32, *PREFERRED):
        for minutes in (1, 30, 60):
            work = Work.of(FULL, 60.0 * minutes)
            for step, plan in enumerate(ladder(work)):
                peak = simulation.simulate(simulation.full_size(), precision, plan, work).highest
                print(f"    ({precision.name}, {minutes}, {step}, {peak:_}),", flush=True)


def main() -> None:
    """Choose the device, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "simulated"
    parser.add_argument("--device", choices=("simulated", "cpu", "cuda"), default=default)
    parser.add_argument("--frozen", action="store_true", help="print the rows of the tests")
    given = parser.parse_args()
    if given.frozen:
        frozen()
        return
    print(machine())
    if given.device == "cpu":
        small_on_cpu()
    elif given.device == "cuda":
        print(torch.cuda.get_device_name())
        cards(on_gpu, "measured GB")
    else:
        print("SIMULATED: no GPU was used; what context and fragmentation take is an assumption.")
        cards(simulated, "simulated GB")


if __name__ == "__main__":
    main()
