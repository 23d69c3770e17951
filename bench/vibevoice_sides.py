"""The sides of `bench.vibevoice` that are plain processes: ``python -m bench.vibevoice_sides
engine``.

``engine`` is our `VibeVoiceEngine` over `probe_audio` and `open_audio`, with the memory plan that
the server would give to each recording. ``plain`` is what the model's page shows: processor,
``model.generate(sample=False)``, ``decode(return_format="parsed")``, with samples from the same
decoder. Each keeps its model, decodes the file within the measured time, and takes one JSON line
per operation on stdin; `Child` is the other end of that.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from bench import serving

if TYPE_CHECKING:
    from sidecar.interfaces.engine_interface import Precision, TranscribeOptions

SIDES = ("engine", "plain")
_MAX_S = 5 * 3600.0
RATE = 24_000
HEAP_KEPT = {"MALLOC_TRIM_THRESHOLD_": str(512 << 20), "MALLOC_MMAP_THRESHOLD_": str(512 << 20)}
"""Has glibc keep what torch frees. Our engine does so itself; plain generate is measured both ways.
"""
Planned = Callable[[float | None, "TranscribeOptions"], "TranscribeOptions"]
Segments = list[list[Any]]
"""Rows of (start, end, speaker by appearance or None, text): what sides are compared by."""


class Child:
    """A side in a process of its own, loaded by the first operation that needs it."""

    def __init__(
        self, side: str, checkpoint: Path, precision: str, device: str, **env: str
    ) -> None:
        command = [sys.executable, "-m", "bench.vibevoice_sides", side]
        self._process = subprocess.Popen(
            [*command, str(checkpoint), "--precision", precision, "--device", device],
            cwd=serving.ROOT,
            env=serving.child_env(**env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one operation.

        Raises:
            RuntimeError: the process ended; what it said is on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([operation, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{operation}: the process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Side(Protocol):
    """What a child can do."""

    def load(self) -> None:
        """Read the checkpoint, anew where it was read before."""

    def transcribe(self, path: str, limit: int | None) -> dict[str, Any]:
        """One recording: ``first_s`` to the first segment if it streams, ``tokens``, segments."""


class EngineSide:
    """Ours."""

    def __init__(self, checkpoint: str, precision: str, device: str) -> None:
        from sidecar.interfaces.engine_interface import LoadOptions, Precision

        self._options = LoadOptions(Precision(precision), checkpoint, device)
        self._planned = planning(Path(checkpoint), self._options.precision, device)
        self._engine: Any = None
        self._tokens = 0

    def load(self) -> None:
        """Read it with the product's own loader."""
        from sidecar.engines.vibevoice import VibeVoiceEngine

        if self._engine is not None:
            self._engine = None
            gc.collect()
        else:
            self._count_tokens()
        self._engine = VibeVoiceEngine()
        list(self._engine.load(self._options))

    def transcribe(self, path: str, limit: int | None) -> dict[str, Any]:
        """The events of one request, timed."""
        from sidecar.audio.audio_decoder import open_audio, probe_audio
        from sidecar.interfaces.engine_interface import TranscribeOptions, TranscriptionRequest
        from sidecar.transcripts.transcript import Finished, SegmentReady

        begun, first_s, last = time.perf_counter(), None, None
        self._tokens, shown = 0, 0
        with open(path, "rb", buffering=0) as file:
            facts = probe_audio(file.fileno(), _MAX_S)
            options = self._planned(facts.total_s, TranscribeOptions(max_tokens=limit))
            with open_audio(file.fileno(), facts, rate=RATE, max_s=_MAX_S) as audio:
                request = TranscriptionRequest(audio, options, lambda: False)
                for event in self._engine.transcribe(request):
                    if isinstance(event, SegmentReady):
                        shown += 1
                        first_s = first_s or time.perf_counter() - begun
                    last = event
        assert isinstance(last, Finished)
        said = last.transcript
        return {
            "first_s": first_s,
            "tokens": self._tokens,
            "shown": shown,
            "notices": [notice.code for notice in said.notices],
            "flags": [list(segment.flags) for segment in said.segments],
            "segments": normal([(s.start, s.end, s.speaker, s.text) for s in said.segments]),
        }

    def _count_tokens(self) -> None:
        from sidecar.engines.vibevoice.vibevoice_generation import TokenGeneration

        choose = TokenGeneration.token

        def counted(generation: TokenGeneration, *arguments: Any) -> int:
            self._tokens += 1
            return choose(generation, *arguments)

        TokenGeneration.token = counted  # type: ignore[method-assign]


def planning(checkpoint: Path, precision: Precision, device: str) -> Planned:
    """(seconds, options) -> options with the memory plan that the server would give them."""
    from sidecar.engines import engine_spec
    from sidecar.gpu_memory.gpu_devices import host_free_bytes
    from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
    from sidecar.gpu_memory.memory_footprint import ModelShape

    shape = ModelShape.from_config(json.loads((checkpoint / "config.json").read_text()))
    admission = MemoryAdmission(shape, engine_spec("vibevoice").precisions, None)

    def planned(audio_s: float | None, options: TranscribeOptions) -> TranscribeOptions:
        now = MemoryState(host_free_bytes(), precision, on_gpu=False)
        if device == "cuda":
            import torch

            free, _ = torch.cuda.mem_get_info()
            now = MemoryState(free, precision, on_gpu=True, own_bytes=torch.cuda.memory_reserved())
        return admission.planned(precision, audio_s, options, now)

    return planned


class PlainSide:
    """The library by itself."""

    def __init__(self, checkpoint: str, precision: str, device: str) -> None:
        self._checkpoint, self._precision, self._device = checkpoint, precision, device
        self._model: Any = None

    def load(self) -> None:
        """Read it with ``from_pretrained``."""
        from transformers import AutoProcessor, VibeVoiceAsrForConditionalGeneration
        from transformers.utils import logging

        if self._model is not None:
            self._model = None
            gc.collect()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._processor = AutoProcessor.from_pretrained(self._checkpoint)
        self._model = VibeVoiceAsrForConditionalGeneration.from_pretrained(
            self._checkpoint, dtype=torch_name(self._precision), device_map=self._device
        )

    def transcribe(self, path: str, limit: int | None) -> dict[str, Any]:
        """One ``generate``."""
        import torch

        from sidecar.audio.audio_decoder import decode_audio_file

        inputs = self._processor.apply_transcription_request(audio=decode_audio_file(path, RATE))
        inputs = inputs.to(self._model.device, self._model.dtype)
        more = {} if limit is None else {"max_new_tokens": limit}
        with torch.inference_mode():
            ids = self._model.generate(**inputs, sample=False, **more)
        ids = ids[:, inputs["input_ids"].shape[1] :]
        said = self._processor.decode(ids, return_format="parsed")[0]
        if isinstance(said, str):  # its answer to a list that was cut off
            said = []
        rows = [(s["Start"], s["End"], s.get("Speaker"), s["Content"]) for s in said]
        return {"first_s": None, "tokens": ids.shape[1], "segments": normal(rows)}


def torch_name(precision: str) -> str:
    """A precision as torch spells it."""
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision]


def normal(rows: list[tuple[Any, Any, Any, str]]) -> Segments:
    """Segments in a form in which equal ones are equal: numbers, speakers by appearance."""
    seen: dict[Any, int] = {}
    return [
        [
            round(float(start), 3),
            round(float(end), 3),
            None if speaker is None else seen.setdefault(speaker, len(seen)),
            text.strip(),
        ]
        for start, end, speaker, text in rows
    ]


def serve(side: Side) -> None:
    """Answer operations until stdin ends; each answer has its ``seconds``."""
    operations: Mapping[str, Callable[..., dict[str, Any] | None]] = {
        "load": side.load,
        "transcribe": side.transcribe,
    }
    for line in sys.stdin:
        name, arguments = json.loads(line)
        begun = time.perf_counter()
        answer = operations[name](**arguments) or {}
        print(json.dumps({"seconds": time.perf_counter() - begun, **answer}), flush=True)


def main() -> None:
    """One side."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("checkpoint")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    kind = EngineSide if given.side == "engine" else PlainSide
    serve(kind(given.checkpoint, given.precision, given.device))


if __name__ == "__main__":
    main()
