"""One row of `bench.memory`: a recording under a cap, in a process of its own.

The product's loader, then its parts in the order of its `Model` (`simulation.transcribe`, with all
chunks and tiles). A process each, because after running out of memory an allocator is not what it
was. `taken` is the parent's end; ``python -m bench.memory_run`` takes a `Row` as JSON on stdin and
prints what was `Taken` as its last line.

On a GPU the cap is the card's: what the context takes is measured first, the allocator gets the
rest (`set_per_process_memory_fraction`). On the CPU there is no allocator to limit: living tensors
are counted, and more of them than the cap leaves are out of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench import serving
from sidecar.gpu_memory.gpu_devices import read_gpu_memory
from sidecar.gpu_memory.memory_footprint import CONTEXT_BYTES, RecordingWork, reserve_bytes
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

PATIENCE_S = 540.0
RATE = 24_000


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
        return cls(
            **{
                **values,
                "precision": Precision(values["precision"]),
                "load": MemoryPlan(**values["load"]),
                "plan": MemoryPlan(**values["plan"]),
                "work": RecordingWork(**values["work"]),
            }
        )


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
    command = [sys.executable, "-m", "bench.memory_run"]
    environment = {**os.environ, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    try:
        child = subprocess.run(
            command,
            input=json.dumps(asdict(row)),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=serving.ROOT,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Taken(failed=f"not done after {PATIENCE_S:.0f} s")
    lines = child.stdout.strip().splitlines()
    if child.returncode or not lines:
        said = child.stderr.strip().splitlines() or [""]
        return Taken(failed=f"ended with {child.returncode}: {said[-1][:120]}")
    return Taken(**json.loads(lines[-1]))


class Scale(Protocol):
    """Weighs what lives on a device, and limits it."""

    def begin(self, phase: str) -> None:
        """From here on it is ``phase``."""

    def loaded(self, model: Any) -> None:
        """The weights are there; what follows is weighed in this context, too."""

    def read(self, into: Taken) -> None:
        """What was weighed."""


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
        from bench.tensor_counting import Counter, Peaks

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
    scale: Scale = CardScale(row.cap) if on_gpu else HostScale(row.cap, samples)
    import torch

    from bench import memory_simulation
    from sidecar.engines import vibevoice
    from sidecar.engines.vibevoice import vibevoice_model

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
            evict_encoders=row.load.evict_encoders,
            host_token_table=row.load.host_token_table,
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


def main() -> None:
    """Read a row, run it, print what it took."""
    row = Row.from_wire(json.loads(sys.stdin.read()))
    print(json.dumps(asdict(run(row))))


if __name__ == "__main__":
    main()
