"""`bench.memory` without a GPU: the same rows, the same loader, a small checkpoint."""

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import tiny_vibevoice

from bench.memory import Row, taken
from sidecar.gpu_memory import memory_footprint
from sidecar.gpu_memory.memory_plan import plan_ladder
from sidecar.interfaces.engine_interface import MemoryPlan, Precision


def row(folder: Path, *, enough: bool = True) -> tuple[Row, memory_footprint.MemoryBreakdown]:
    """Ten seconds in fp32 on a card that has what is planned, or half of the activations less."""
    config = json.loads((tiny_vibevoice.checkpoint("tiny") / "config.json").read_text("utf-8"))
    shape = memory_footprint.ModelShape.from_config(config)
    work = memory_footprint.RecordingWork.of(shape, 10.0)
    plan = plan_ladder(work, apart=False)[0]
    planned = memory_footprint.ModelFootprint(shape, Precision.FP32).peak(plan, work)
    less = memory_footprint.CONTEXT_BYTES + planned.tensors - planned.activations // 2
    cap = planned.total if enough else less
    return Row(str(folder), "cpu", cap, Precision.FP32, MemoryPlan(), plan, work), planned


@pytest.mark.slow
def test_planned_memory_of_recording_is_0_to_5_percent_above_measured() -> None:
    here, planned = row(tiny_vibevoice.checkpoint("tiny"))
    found = taken(here)
    assert found.failed is None
    assert found.tensors <= planned.tensors <= 1.05 * found.tensors
    assert list(found.phases) == ["load", "encode", "prefill", "decode"]


@pytest.mark.slow
def test_bench_row_that_runs_out_of_memory_is_reported() -> None:
    here, _ = row(tiny_vibevoice.checkpoint("tiny"), enough=False)
    assert taken(here).failed == "out of memory: encode"


@pytest.mark.slow
def test_bench_row_whose_process_fails_is_reported_with_its_exit_code(tmp_path: Path) -> None:
    found = taken(row(tmp_path)[0])
    assert found.failed is not None
    assert found.failed.startswith("ended with 1: ")
