"""The parts of VibeVoice-ASR that engines of other distributions use: docs/plugins.md lists them.

The model here is made of those parts only. It writes given answers, and there is no torch.
"""

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from engine_requests import SampleStream, request_of, transcript_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE, Block
from sidecar.engines.vibevoice.vibevoice_generation import (
    DraftedGeneration,
    PromptContinuation,
    WindowGeneration,
    segment_template_of,
)
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.interfaces.engine_interface import (
    EngineSpec,
    MemoryPlan,
    Precision,
    TranscribeOptions,
)
from sidecar.transcripts.loop_guard import SamplingOptions
from sidecar.transcripts.transcript import Finished, ResumePoint, SegmentReady

ROOT = Path(__file__).parents[3]
END, TURN = "<|endoftext|>", "<|im_start|>"
SURE = -0.25
"""Log-likelihood of each token."""


def tokenizer() -> Tokenizer:
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(
        models.BPE({one: at for at, one in enumerate([*alphabet, '{"'])}, [("{", '"')])
    )
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END, TURN])
    return made


@dataclass
class Cache:
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.ids)

    @length.setter
    def length(self, length: int) -> None:
        del self.ids[length:]
        self.ids += [-1] * (length - len(self.ids))


class Written(DraftedGeneration):
    """Writes an answer, whatever was proposed."""

    def __init__(self, model: "WritingModel", answer: str) -> None:
        self._model = model
        self._answer = [*model.tokenizer.encode(answer).ids, model.tokenizer.token_to_id(END)]
        super().__init__(Cache(), self._rows(1, 0), model.template)

    @property
    def step(self) -> Callable[[Sequence[PromptContinuation]], Sequence[Any]]:
        return self._step

    def _step(self, wanted: Sequence[PromptContinuation]) -> Sequence[Any]:
        self._model.passes += 1
        return [self._add(one.ids) for one in wanted]

    def append(self, ids: Sequence[int]) -> Any:
        return self._add(ids)[-1:]

    def _add(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        first = self.cache.length
        self.cache.length += len(ids)
        return self._rows(len(ids), first + 1)

    def _rows(self, count: int, first: int) -> npt.NDArray[np.float32]:
        rows = np.zeros((count, self._model.tokenizer.get_vocab_size()), np.float32)
        for at, row in enumerate(rows):
            row[self._answer[min(first + at, len(self._answer) - 1)]] = 1.0
        return rows

    def likeliest(self, logits: Any) -> Sequence[tuple[int, float]]:
        return [(int(row.argmax()), SURE) for row in logits]

    def draw(self, logits: Any, sampling: SamplingOptions) -> tuple[int, float]:
        return int(logits.argmax()), SURE


@dataclass(frozen=True)
class Place:
    type: str = "cpu"


@dataclass(frozen=True)
class Loaded:
    precision: Precision = Precision.INT4
    device: Place = Place()


class WritingModel:
    """Says of each window one segment for each five seconds."""

    spec = EngineSpec(
        name="writing",
        factory="nowhere:Writing",
        title="Writes",
        sample_rate=VIBEVOICE_SAMPLE_RATE,
        diarizes=True,
        resumes="writing-1",
    )
    loaded, narrow, out_of_memory = Loaded(), False, MemoryError

    def __init__(self, most_s: float = math.inf) -> None:
        self.tokenizer = tokenizer()
        self.template = segment_template_of(self.tokenizer)
        self.passes, self.windows, self._most_s = 0, list[float](), most_s

    def inference(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def own_error(self, error: Exception) -> Exception:
        return error

    def free_memory(self) -> None:
        pass

    def widen(self) -> None:
        raise AssertionError("it is not narrow")

    def decoding(self, plan: MemoryPlan) -> None:
        pass

    def answers(
        self,
        windows: Sequence[Block],
        plan: MemoryPlan,
        check: Callable[[], None],
        planned_decoder: None,
        context: str = "",
        drawn: bool = False,
    ) -> Sequence[WindowGeneration]:
        check()
        seconds = [len(one) / VIBEVOICE_SAMPLE_RATE for one in windows]
        if max(seconds) > self._most_s:
            raise MemoryError
        self.windows += seconds
        ends = frozenset([self.tokenizer.token_to_id(END)])
        return [
            WindowGeneration(Written(self, answer(one, context)), self.tokenizer, ends, one)
            for one in seconds
        ]


def answer(seconds: float, context: str) -> str:
    items = [
        {
            "Start": at,
            "End": at + 5,
            "Speaker": at % 2,
            "Content": f"Words from {at}. {context.replace(chr(10), ' ')}",
        }
        for at in range(0, int(seconds) - 4, 5)
    ]
    return "assistant\n" + json.dumps(items, separators=(",", ":"))


def transcription(
    model: WritingModel,
    seconds: float,
    options: TranscribeOptions,
    resume_points: Sequence[ResumePoint] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> VibeVoiceTranscription:
    audio = SampleStream(np.zeros(round(seconds * 24_000), np.float32), VIBEVOICE_SAMPLE_RATE)
    request = request_of(audio, options, cancelled)
    return VibeVoiceTranscription(model, request, resume_points=resume_points)


WINDOWS = TranscribeOptions(diarize=False, memory=MemoryPlan(window_s=30.0))


def test_public_parts_are_imported_without_torch() -> None:
    listed = (ROOT / "docs/plugins.md").read_text("utf-8")
    names = ("transcription", "generation", "prompt", "windows", "coverage")
    modules = [f"sidecar.engines.vibevoice.vibevoice_{name}" for name in names]
    assert all(f"`{name}`" in listed for name in modules[:3])
    code = f"import sys; sys.modules['torch'] = None\nimport {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_model_of_another_library_transcribes_in_windows_with_its_context() -> None:
    model = WritingModel()
    options = replace(WINDOWS, prompt="Beckett", hotwords=("Endgame",))
    found = transcript_of(transcription(model, 70.0, options).events())
    assert len(model.windows) > 2
    assert max(model.windows) == 30.0
    assert found.segments[0].text.split() == ["Words", "from", "0.", "Beckett", "Endgame"]
    assert (found.engine, found.precision, found.device) == ("writing", "int4", "cpu")
    assert found.duration == 70.0


def test_proposals_save_passes_and_change_no_word() -> None:
    model, plain = WritingModel(), WritingModel()
    assert model.template is not None
    plain.template = None
    found, same = (
        transcript_of(transcription(one, 30.0, WINDOWS).events()) for one in (model, plain)
    )
    assert found == same
    assert model.passes < 0.7 * plain.passes
    assert found.segments[0].confidence == pytest.approx(math.exp(SURE), abs=1e-3)


def test_recording_resumed_at_each_point_has_the_transcript_of_one_that_ran_through() -> None:
    events = [*transcription(WritingModel(), 70.0, WINDOWS, []).events()]
    points = [one for one in events if isinstance(one, ResumePoint)]
    assert {one.form for one in points} == {"writing-1"}
    assert len(points) > 1
    for count in range(1, len(points) + 1):
        resumed = [*transcription(WritingModel(), 70.0, WINDOWS, points[:count]).events()]
        assert resumed[-1] == events[-1]


def test_cancelled_recording_ends_without_a_transcript() -> None:
    told = list[Any]()
    work = transcription(WritingModel(), 70.0, WINDOWS, cancelled=lambda: len(told) > 1)
    for event in work.events():
        told.append(event)
    assert any(isinstance(one, SegmentReady) for one in told)
    assert not any(isinstance(one, Finished) for one in told)


def test_window_beyond_memory_is_transcribed_in_smaller_ones_or_ends_the_recording() -> None:
    smaller = replace(WINDOWS, memory_fallback=MemoryPlan(window_s=12.0))
    found = transcript_of(transcription(WritingModel(most_s=20.0), 40.0, smaller).events())
    assert [one.code for one in found.notices] == ["smaller_memory_plan"]
    assert found.segments
    with pytest.raises(errors.GpuOutOfMemory):
        list(transcription(WritingModel(most_s=20.0), 40.0, WINDOWS).events())
