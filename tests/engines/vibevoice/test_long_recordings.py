"""A recording of several windows through the engine, with a model that reads where it is.

The tiny checkpoints know three clips and no others, so a window of anything else says nothing of
them; here the samples are their own time, and the model says what a script has there.
"""

import json
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_requests import request_of, transcript_of

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch

from sidecar.audio import Block
from sidecar.engines.vibevoice import SPEC, vibevoice_transcription
from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceModel
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions
from sidecar.transcripts.loop_guard import SkippedAudio
from sidecar.transcripts.transcript import (
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    from_wire,
    to_wire,
)

RATE = 24_000
SECONDS = 100.0
PEOPLE = "abbcacbab" * 3
SCRIPT = [
    Segment(4.0 * i, 4.0 * i + 3.5, f"What was said here is sentence number {i}.", "abc".index(who))
    for i, who in enumerate(PEOPLE[:25])
]


class Recording:
    """A hundred seconds; each sample is its own time."""

    total_s = SECONDS

    def __iter__(self) -> Iterator[Block]:
        for second in range(round(SECONDS)):
            yield (second + np.arange(RATE) / RATE).astype(np.float32)


class Answer:
    """What a window has of the script, speakers by appearance in it, as the model would."""

    loops, recovered, truncated = 0, 0, False

    def __init__(self, samples: Block) -> None:
        begin, end = float(samples[0]), float(samples[-1])
        numbers: dict[int | None, int] = {}
        self.whole = [
            Segment(
                max(one.start, begin) - begin,
                min(one.end, end) - begin,
                one.text,
                numbers.setdefault(one.speaker, len(numbers)),
            )
            for one in SCRIPT
            if one.end > begin and one.start < end
        ]
        self.segments: list[Segment] = []

    def run(self, sampling: Any, limit: int, cancelled: Any) -> Iterator[int]:
        for index, segment in enumerate(self.whole):
            if cancelled():
                return
            self.segments.append(segment)
            yield index

    def with_confidence(self, index: int, segment: Segment) -> Segment:
        return segment


class Forgetful:
    """The answers of a model that writes down nothing of some seconds of the recording, of windows
    of ``least_s`` and more."""

    def __init__(self, begin: float, end: float, least_s: float = 0.0) -> None:
        self._begin, self._end, self._least_s = begin, end, least_s

    def __call__(self, samples: Block) -> Answer:
        answer, first = Answer(samples), float(samples[0])
        if len(samples) >= self._least_s * RATE:
            answer.whole = [
                one
                for one in answer.whole
                if not self._begin <= first + (one.start + one.end) / 2 <= self._end
            ]
        return answer


class Model:
    """Answers, and notes the lengths that it was given; may run out of memory over a length."""

    spec, out_of_memory = SPEC, torch.OutOfMemoryError
    inference, free_memory = VibeVoiceModel.inference, VibeVoiceModel.free_memory
    own_error = VibeVoiceModel.own_error
    loaded = SimpleNamespace(precision=Precision.BF16, device=torch.device("cpu"))

    def __init__(
        self,
        most_s: float = 1e9,
        most_at_once: int = 99,
        answers: Callable[[Block], Answer] = Answer,
    ) -> None:
        self._answers = answers
        self._most_s = most_s
        self._most_at_once = most_at_once
        self._at_once = 0
        self.decodings = 0
        self.heard: list[float] = []
        self.contexts: list[str] = []
        self.drawn: list[bool] = []

    def decoding(self, plan: MemoryPlan) -> None:
        self._at_once = 0
        self.decodings += 1

    def answers(
        self,
        windows: list[Block],
        plan: MemoryPlan,
        check: Any,
        decoding: Any,
        context: str,
        drawn: bool,
    ) -> list[Answer]:
        return [self._answer(samples, context, drawn) for samples in windows]

    def _answer(self, samples: Block, context: str, drawn: bool) -> Answer:
        self.drawn.append(drawn)
        self.heard.append(len(samples) / RATE)
        self.contexts.append(context)
        self._at_once += 1
        if len(samples) > self._most_s * RATE or self._at_once > self._most_at_once:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._answers(samples)


def pauses(samples: Block, rate: int) -> list[tuple[float, float]]:
    """Where the script speaks."""
    first = float(samples[0])
    return [(one.start - first, one.end - first) for one in SCRIPT]


def run(
    model: Any, options: TranscribeOptions, resume_points: list[ResumePoint] | None = None
) -> list[TranscriptionEvent]:
    request = request_of(Recording(), options)
    return [*VibeVoiceTranscription(model, request, resume_points=resume_points).events()]


class Unheard:
    """Voices that nobody hears: there are none in these samples (test_vibevoice_diarization.py has
    real ones)."""

    def __init__(self, rate: int) -> None:
        pass

    @property
    def persons(self) -> dict[int, Any]:
        return {}

    def hear(self, samples: Block, turns: Any) -> dict[int, Any]:
        return {}

    def snapshot(self) -> list[Any]:
        return []

    def go_on(self, snapshot: list[Any]) -> None:
        assert not snapshot


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vibevoice_transcription, "detect_window_speech", pauses)
    monkeypatch.setattr(vibevoice_transcription, "WindowSpeakerMatcher", Unheard)


def plan(window_s: float) -> TranscribeOptions:
    return TranscribeOptions(memory=MemoryPlan(window_s=window_s))


def in_one_piece() -> Transcript:
    return transcript_of(run(Model(), TranscribeOptions()))


@pytest.mark.parametrize("window_s", [30.0, 45.0, 99.9])
def test_transcript_in_windows_has_the_text_and_times_of_that_in_one_window(
    window_s: float,
) -> None:
    model = Model()
    whole = transcript_of(run(model, plan(window_s)))
    wanted = in_one_piece()
    assert len(model.heard) > 1
    assert max(model.heard) <= window_s
    assert whole.text == wanted.text
    assert whole.duration == wanted.duration == SECONDS
    for one, other in zip(whole.segments, wanted.segments, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.01)


def test_speaker_who_is_heard_in_the_overlap_of_two_windows_keeps_the_label_in_both() -> None:
    """One of the three is silent there, and nobody hears voices: that one has another label."""
    model = Model()
    whole = transcript_of(run(model, plan(60.0)))
    second_s = SECONDS - model.heard[1]
    labels = [
        (one.start, one.speaker, other.speaker)
        for one, other in zip(whole.segments, in_one_piece().segments, strict=True)
    ]
    heard_twice = {wanted for start, _, wanted in labels if second_s < start < 60.0}
    assert len(model.heard) == len(heard_twice) == 2
    for start, label, wanted in labels:
        assert (label == wanted) is (start < second_s or wanted in heard_twice)


def test_segments_of_windows_come_in_order_with_monotone_progress() -> None:
    events = run(Model(), plan(30.0))
    ready = [event for event in events if isinstance(event, SegmentReady)]
    done = [event.audio_s_done for event in events if isinstance(event, Progress)]
    assert [event.index for event in ready] == list(range(len(ready)))
    assert [event.segment.text for event in ready] == [one.text for one in SCRIPT]
    assert done == sorted(done)
    assert done[-1] == SECONDS


def test_out_of_memory_shortens_windows_to_fallback_plan() -> None:
    model = Model(most_s=40.0)
    options = TranscribeOptions(memory_fallback=MemoryPlan(window_s=40.0))
    whole = transcript_of(run(model, options))
    assert whole.text == in_one_piece().text
    assert model.heard[0] == SECONDS
    assert max(model.heard[1:]) <= 40.0
    assert [notice.code for notice in whole.notices] == ["smaller_memory_plan"]


@pytest.mark.parametrize("together", [2, 3, 8])
def test_batched_windows_have_segments_of_single_ones_in_order(together: int) -> None:
    one_by_one = run(Model(), plan(30.0))
    options = TranscribeOptions(memory=MemoryPlan(window_s=30.0, together=together))
    events = run(Model(), options)
    assert [event for event in events if isinstance(event, SegmentReady)] == [
        event for event in one_by_one if isinstance(event, SegmentReady)
    ]
    assert transcript_of(events) == transcript_of(one_by_one)
    done = [event.audio_s_done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)


def test_out_of_memory_of_batched_windows_falls_back_to_one_at_a_time() -> None:
    model = Model(most_at_once=2)
    options = TranscribeOptions(
        memory=MemoryPlan(window_s=30.0, together=3), memory_fallback=MemoryPlan(window_s=30.0)
    )
    events = run(model, options)
    assert model.decodings > 2
    assert transcript_of(events).segments == transcript_of(run(Model(), plan(30.0))).segments
    assert [notice.code for notice in transcript_of(events).notices] == ["smaller_memory_plan"]


def test_text_context_of_the_model_is_only_the_prompt_of_the_client() -> None:
    model, asked = Model(), TranscribeOptions(prompt="Nagg, Nell", language="de", num_speakers=3)
    run(model, asked)
    assert model.contexts == ["Nagg, Nell"]


def test_language_of_a_recording_in_one_window_is_detected_unless_it_was_requested() -> None:
    assert in_one_piece().language == "en"
    assert transcript_of(run(Model(), TranscribeOptions(language="de"))).language == "de"


@pytest.mark.parametrize("window_s", [3600.0, 70.0])
@pytest.mark.parametrize(("begin", "end"), [(40.0, 100.0), (0.0, 20.0), (30.0, 62.0), (0.0, 100.0)])
def test_speech_that_the_answer_leaves_out_is_transcribed_again_in_a_window_of_its_own(
    begin: float, end: float, window_s: float
) -> None:
    model = Model(answers=Forgetful(begin, end, least_s=65.0))
    events = run(model, plan(window_s))
    whole = transcript_of(events)
    assert (whole.text, whole.notices) == (in_one_piece().text, ())
    assert [one.start for one in whole.segments] == pytest.approx(
        [one.start for one in SCRIPT], abs=0.01
    )
    again = [length for length in model.heard if length < 65.0]
    assert sum(again) < 1.3 * (end - begin) + max(0.0, SECONDS - window_s + 20.0)
    ready = [event for event in events if isinstance(event, SegmentReady)]
    assert [event.index for event in ready] == list(range(len(SCRIPT)))
    assert {event.segment.text for event in ready} == {one.text for one in SCRIPT}


def test_speech_without_words_after_a_second_try_has_speech_missed_notice() -> None:
    model = Model(answers=Forgetful(40.0, 60.0))
    whole = transcript_of(run(model, TranscribeOptions()))
    wanted = [one.text for one in SCRIPT if not 40.0 <= (one.start + one.end) / 2 <= 60.0]
    assert [one.text for one in whole.segments] == wanted
    assert [(one.code, one.message) for one in whole.notices] == [
        ("speech_missed", "No words were found for 18 s of speech, the first at 0:40.")
    ]
    assert len(model.heard) == 2


def test_recording_whose_speech_has_no_words_has_no_segments_and_is_not_called_silent() -> None:
    whole = transcript_of(run(Model(answers=Forgetful(0.0, SECONDS)), TranscribeOptions()))
    assert whole.segments == ()
    assert not whole.no_speech


def test_missed_speech_of_batched_windows_is_transcribed_again() -> None:
    options = TranscribeOptions(memory=MemoryPlan(window_s=30.0, together=3))
    model = Model(answers=Forgetful(0.0, 20.0, least_s=29.0))
    assert transcript_of(run(model, options)).text == in_one_piece().text


class Looping(Forgetful):
    """Answers that have skipped audio from 40 to 60 s where another has nothing."""

    def __call__(self, samples: Block) -> Answer:
        answer, first = super().__call__(samples), float(samples[0])
        if len(samples) >= self._least_s * RATE:
            end = min(60.0 - first, len(samples) / RATE)
            answer.whole.append(SkippedAudio(max(0.0, 40.0 - first), end).segment())
            answer.whole.sort(key=lambda one: one.start)
            answer.loops = 1
        return answer


@pytest.mark.parametrize(("least_s", "code"), [(65.0, "loop_recovered"), (0.0, "loop_skipped")])
def test_speech_skipped_in_a_repetition_loop_is_transcribed_once_more_with_sampled_latents(
    least_s: float, code: str
) -> None:
    model = Model(answers=Looping(40.0, 60.0, least_s))
    whole = transcript_of(run(model, TranscribeOptions()))
    assert model.drawn == [False, True]
    assert [one.code for one in whole.notices] == [code]
    assert sum(not one.is_speech for one in whole.segments) == (code == "loop_skipped")
    assert (whole.text == in_one_piece().text) is (code == "loop_recovered")


def test_missed_speech_is_not_transcribed_again_if_the_client_limits_tokens() -> None:
    model = Model(answers=Forgetful(40.0, 100.0))
    whole = transcript_of(run(model, TranscribeOptions(max_tokens=50)))
    assert model.heard == [SECONDS]
    assert whole.notices == ()


def test_out_of_memory_while_missed_speech_is_transcribed_keeps_the_rest_with_a_notice() -> None:
    class Tight(Forgetful):
        def __call__(self, samples: Block) -> Answer:
            if len(samples) < SECONDS * RATE:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().__call__(samples)

    whole = transcript_of(run(Model(answers=Tight(40.0, 100.0)), TranscribeOptions()))
    assert [one.text for one in whole.segments] == [one.text for one in SCRIPT if one.start < 40.0]
    assert [one.code for one in whole.notices] == ["speech_missed"]


def as_stored(event: TranscriptionEvent) -> Any:
    """As it comes back from a job's store."""
    return from_wire(json.loads(json.dumps(to_wire(event))))


IN_WINDOWS = plan(30.0)
IN_BATCHES = TranscribeOptions(memory=MemoryPlan(window_s=20.0, together=2), words=True)
SHORTENED = TranscribeOptions(
    memory=MemoryPlan(window_s=60.0), memory_fallback=MemoryPlan(window_s=30.0)
)


@pytest.mark.parametrize(
    ("options", "answers", "most_s"),
    [
        pytest.param(IN_WINDOWS, Answer, 1e9, id="windows"),
        pytest.param(IN_BATCHES, Answer, 1e9, id="batches"),
        pytest.param(SHORTENED, Answer, 40.0, id="memory ran out"),
        pytest.param(IN_WINDOWS, Forgetful(20.0, 52.0), 1e9, id="speech without words"),
        pytest.param(IN_WINDOWS, Forgetful(20.0, 52.0, 25.0), 1e9, id="speech transcribed again"),
        pytest.param(plan(65.0), Looping(40.0, 60.0, 30.0), 1e9, id="loop"),
    ],
)
def test_transcription_from_any_resume_point_has_the_same_events_after_it(
    options: TranscribeOptions, answers: Callable[[Block], Answer], most_s: float
) -> None:
    whole = run(Model(most_s=most_s, answers=answers), options, [])
    points = [as_stored(one) for one in whole if isinstance(one, ResumePoint)]
    assert points
    assert [one for one in whole if not isinstance(one, ResumePoint)] == run(
        Model(most_s=most_s, answers=answers), options
    )
    places = [at for at, one in enumerate(whole) if isinstance(one, ResumePoint)]
    for number, place in enumerate(places, 1):
        model = Model(most_s=most_s, answers=answers)
        again = run(model, options, points[:number])
        assert [as_stored(one) for one in again] == [as_stored(one) for one in whole[place + 1 :]]
        assert to_wire(again[-1]) == to_wire(whole[-1]), "with the confidences"
        assert max(model.heard) <= most_s, "memory ran out once more"
        known = [one for point in points[:number] for one in point.segments]
        transcript_of([*map(SegmentReady, count(), known), *again])


def test_recording_in_one_window_has_no_resume_point() -> None:
    assert not [one for one in run(Model(), plan(200.0), []) if isinstance(one, ResumePoint)]
