"""Files of VibeVoice-ASR for ggml: which are there, their memory, what `doctor` says of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.engines.vibevoice.vibevoice_prompt import HOP_SAMPLES
from sidecar.gpu_memory.memory_plan import DeviceRoom, JobForecast, duration_text
from sidecar.interfaces.engine_interface import (
    EngineSpec,
    MemoryPlan,
    Precision,
    TranscribeOptions,
    WindowingMode,
)
from sidecar.service.system_checks import CheckFinding, CheckState
from vibevoice_asr_ggml.gguf_file import GgufFile, read_header
from vibevoice_asr_ggml.layout import VibeVoiceLayout
from vibevoice_asr_ggml.library import Library
from vibevoice_asr_ggml.model import cache_positions

KINDS = {
    Precision.INT4: ("q4_k", "q4_k_m", "q4_k_s"),
    Precision.INT8: ("q8_0",),
    Precision.FP16: ("f16",),
    Precision.FP32: ("f32",),
}
"""Ends of the names of files, by precision."""
LIBRARIES, THREADS = "VIBEVOICE_GGML_LIBRARIES", "VIBEVOICE_GGML_THREADS"
"""Variables by which the worker process has the settings of the service."""
ENCODER_CHUNK_S, PREFILL_TILE = 20 * HOP_SAMPLES / VIBEVOICE_SAMPLE_RATE, 256
"""Seconds of audio and positions in a pass: the results of one stay small, and the processor ends
a node of one within a second (README)."""
WINDOW_S, MIN_WINDOW_S, MAX_WINDOW_S = 300.0, 30.0, 3600.0
"""Windows: by default; at least; of `windows=single` at most, which is what the model was trained
for."""
PROMPT_TOKENS = 256
PROCESS_BYTES = 260_000_000
"""Bytes of a worker process with NumPy, tokenizer, diarization: measured (README)."""
_STAGE_RESULTS, _ENCODER_RESULTS = 14.0, 4
"""Results of the first stage that live at once, in its channels: counted by ggml's allocator."""
CPU_S = {"audio": 2.95, "token": 0.61}
"""CPU seconds of 7B in 4 bit for a second of audio (encoders and prefill), and for a token
(decisions.md)."""
TOKENS_PER_S = 3.0, 8.5
"""Tokens for a second of audio: of quiet conversation, and of dense speech."""


@dataclass(frozen=True, slots=True)
class GgmlFootprint:
    """Bytes of a process that runs a file on the processor."""

    precision: Precision
    weights_bytes: int
    layout: VibeVoiceLayout
    file: Path

    @property
    def working_bytes(self) -> int:
        """Return the bytes of the results in a pass: the larger of encoder and prefill."""
        layout = self.layout
        encoder = ENCODER_CHUNK_S * VIBEVOICE_SAMPLE_RATE * layout.filters * 4 * _STAGE_RESULTS
        row = 3 * layout.mlp + _ENCODER_RESULTS * layout.hidden
        return round(max(encoder, PREFILL_TILE * row * 4))

    @property
    def loaded_bytes(self) -> int:
        """Return the bytes of a process that has loaded the file."""
        return PROCESS_BYTES + self.weights_bytes + self.working_bytes

    def window_bytes(self, window_s: float) -> int:
        """Return the bytes that a window takes beside those: keys and values, samples, mask."""
        tokens = PROMPT_TOKENS + round(window_s * VIBEVOICE_SAMPLE_RATE / HOP_SAMPLES)
        positions = cache_positions(tokens, window_s)
        pair = 2 * 2 * self.layout.layers * self.layout.key_width
        samples = 3 * 4 * round(window_s * VIBEVOICE_SAMPLE_RATE)
        return positions * (pair + 6 * PREFILL_TILE) + samples + 4 * tokens * self.layout.hidden

    @property
    def session_bytes(self) -> int:
        """Return the bytes of a recording in windows of the usual length."""
        return self.window_bytes(WINDOW_S)

    @property
    def needed_bytes(self) -> int:
        """Return the bytes with a recording in the shortest windows."""
        return self.loaded_bytes + self.window_bytes(MIN_WINDOW_S)

    def sessions(self, room: DeviceRoom) -> int:
        """Return whether it fits: it has no live sessions."""
        return int(self.needed_bytes <= room.available_bytes)

    def window_s(self, free_bytes: int, longest_s: float) -> float | None:
        """Return the longest windows that fit beside what is loaded; `None` if none does."""
        window_s = longest_s
        while window_s > MIN_WINDOW_S and self.window_bytes(window_s) > free_bytes:
            window_s = max(MIN_WINDOW_S, window_s / 2)
        return window_s if self.window_bytes(window_s) <= free_bytes else None

    def forecast(self, audio_s: float | None, longest_s: float, room: DeviceRoom) -> JobForecast:
        """Return the forecast of a recording, with what it takes by the trial at the last load of
        the file here; before the first by a table."""
        found = JobForecast.of_any_length(
            self.precision, self.needed_bytes, room.available_bytes, audio_s, longest_s
        )
        if audio_s is None or not found.fits:
            return found
        pace = Pace.read(self.file)
        # A token reads each matrix once, so that other files take in proportion to their bytes.
        token_s = CPU_S["token"] * self.weights_bytes / 5.0e9 / thread_count()
        usual = pace or Pace(CPU_S["audio"] / thread_count(), token_s)
        least, most = (audio_s * (usual.audio_s + usual.token_s * one) for one in TOKENS_PER_S)
        if pace is None:
            return found.with_usual_seconds(least, most)
        return found.with_note(f"{duration_text(least)} to {duration_text(most)} by a trial here")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a second of audio takes, and a token, as the trial at a load measured them."""

    audio_s: float
    token_s: float

    @classmethod
    def read(cls, file: Path) -> Pace | None:
        """Return what the last load of a GGUF file measured; `None` if it did not, or had another
        number of threads."""
        try:
            pace = json.loads(_pace_file(file).read_text("utf-8"))
            measured = cls(float(pace["audio_s"]), float(pace["token_s"]))
            return measured if pace["threads"] == thread_count() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, file: Path) -> None:
        """Keep it beside a GGUF file, if its folder can be written to."""
        with contextlib.suppress(OSError):
            measured = asdict(self) | {"threads": thread_count()}
            _pace_file(file).write_text(json.dumps(measured), "utf-8")


def _pace_file(file: Path) -> Path:
    return file.with_suffix(".pace.json")


def thread_count() -> int:
    """Return the threads to compute with: as set, else one for each processor that is allowed."""
    if (named := os.environ.get(THREADS, "")).isdigit() and int(named):
        return int(named)
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def planned(
    options: TranscribeOptions, footprint: GgmlFootprint, free_bytes: int
) -> TranscribeOptions:
    """Return the options of a recording with windows for the memory that is free.

    Raises:
        errors.WontFit: not even the shortest fits.
    """
    single = options.windows is WindowingMode.SINGLE
    window_s = footprint.window_s(free_bytes, MAX_WINDOW_S if single else WINDOW_S)
    if window_s is None:
        least = footprint.window_bytes(MIN_WINDOW_S)
        raise errors.WontFit(
            f"{MIN_WINDOW_S:g} s in {footprint.precision} need {least / 1e9:.1f} GB beside the "
            f"model; {free_bytes / 1e9:.1f} GB are free.",
            hint="Close other programs, or take a smaller precision.",
        )
    plan = MemoryPlan(encoder_chunk_s=ENCODER_CHUNK_S, prefill_tile=PREFILL_TILE, window_s=window_s)
    fallback = replace(plan, window_s=window_s / 2) if window_s > MIN_WINDOW_S else None
    return replace(options, memory=plan, memory_fallback=fallback, memory_alone=None)


def files_in(path: Path) -> dict[Precision, Path]:
    """Return the files of a folder by precision, or the one that ``path`` is."""
    named = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    found: dict[Precision, Path] = {}
    for precision, kinds in KINDS.items():
        for file in named:
            if file.stem.lower().endswith(kinds):
                found.setdefault(precision, file)
    return found


def find_files(
    spec: EngineSpec, model_path: Path | None, libraries: Path | None, threads: int = 0
) -> tuple[EngineSpec, ModelCheckpoint]:
    """Return the spec with the precisions that are there, and the files as a checkpoint.

    Raises:
        errors.BadCheckpoint: there is none, or its header is not usable.
    """
    for name, value in ((LIBRARIES, libraries), (THREADS, threads)):
        if value:
            os.environ[name] = str(value)
    if model_path is None:
        raise errors.CheckpointNotFound(
            f"The engine '{spec.name}' needs a folder with a GGUF file.",
            hint="Convert a checkpoint: vibevoice-asr convert-ggml FOLDER; then --model-path.",
        )
    path = Path(os.path.abspath(model_path))
    found = files_in(path) if path.exists() else {}
    if not found:
        ends = ", ".join(f"*{one[0]}.gguf" for one in KINDS.values())
        raise errors.CheckpointNotFound(f"There is no file {ends} in {path}.")
    for file in found.values():
        VibeVoiceLayout.of(read_header(file))
    precisions = tuple(one for one in spec.precisions if one in found)
    checkpoint = ModelCheckpoint.of(path, {"model_type": "vibevoice-ggml"}, tuple(found.values()))
    largest = max(file.stat().st_size for file in found.values())
    return replace(spec, precisions=precisions), replace(checkpoint, bytes=largest)


def footprint_of(file: GgufFile, precision: Precision) -> GgmlFootprint:
    """Return the footprint of a file."""
    weights = sum(one.bytes for one in file.tensors.values())
    return GgmlFootprint(precision, weights, VibeVoiceLayout.of(file), file.path)


def footprints_of(
    spec: EngineSpec, checkpoint: ModelCheckpoint
) -> Mapping[Precision, GgmlFootprint]:
    """Return the footprint of each precision that is there."""
    files = files_in(checkpoint.folder)
    return {one: footprint_of(read_header(files[one]), one) for one in spec.precisions}


def findings(used: bool, model_path: Path | None, libraries: Path | None) -> Iterator[CheckFinding]:
    """Yield what `doctor` says: the library, its devices, the file if the engine is used."""
    topic, bad = "ggml", CheckState.BAD if used else CheckState.ABSENT
    try:
        library = Library(libraries)
    except errors.SidecarError as error:
        yield CheckFinding(topic, bad, error.detail, error.hint or "")
        return
    devices = ", ".join(text for _, _, text in library.devices())
    yield CheckFinding(topic, CheckState.GOOD, f"{library.version}, on {devices}")
    if not used:
        return
    try:
        from vibevoice_asr_ggml import SPEC

        spec, _ = find_files(SPEC, model_path, libraries)
    except errors.SidecarError as error:
        yield CheckFinding("ggml model", CheckState.BAD, error.detail, error.hint or "")
    else:
        text = f"{', '.join(spec.precisions)}; real time needs some eight cores"
        yield CheckFinding("ggml model", CheckState.GOOD, text)
