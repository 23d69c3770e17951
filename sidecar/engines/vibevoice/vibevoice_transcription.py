"""Transcription of one recording by VibeVoice-ASR.

This module does not import torch, and knows of the model what `WindowModel` has: docs/plugins.md
lists it.
"""

import contextlib
import dataclasses
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, count, islice
from math import ceil
from typing import Any, Protocol

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE, Block
from sidecar.diarization.speaker_identification import DiarizedSpeakers, identify_speakers
from sidecar.engines.vibevoice import vibevoice_generation
from sidecar.engines.vibevoice.vibevoice_coverage import (
    LEAST_AGAIN_S,
    MissedSpeech,
    missed_speech,
)
from sidecar.engines.vibevoice.vibevoice_generation import TOP_P, Key
from sidecar.engines.vibevoice.vibevoice_windows import (
    TranscriptStitcher,
    VibeVoiceWindow,
    VibeVoiceWindows,
    WindowSpeakerMatcher,
    detect_window_speech,
)
from sidecar.interfaces import engine_interface
from sidecar.interfaces.engine_interface import (
    EngineSpec,
    MemoryPlan,
    Precision,
    TranscribeOptions,
)
from sidecar.transcripts.language_detection import detect_language
from sidecar.transcripts.loop_guard import SamplingOptions, loop_notices
from sidecar.transcripts.speaker_turns import number_speakers_by_appearance, speaker_turns_of
from sidecar.transcripts.transcript import (
    SPEECH_MISSED,
    WINDOWS_NOT_PARALLEL,
    Finished,
    Notice,
    Progress,
    ResumePoint,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
    speech_missed_notice,
    unreported_segments,
)
from sidecar.transcripts.vibevoice_output import sort_by_time
from sidecar.transcripts.word_alignment import align_words
from sidecar.transcripts.word_timing import estimate_word_times

log = logging.getLogger(__name__)

SMALLER_PLAN = Notice("smaller_memory_plan", "Memory ran out once; a smaller plan was used.")
FP16_OVERFLOW = Notice("fp16_overflow", "This checkpoint overflows in fp16; bf16 was used.")

ALL_PLACES = 1 << 16
"""More places than any plan has."""
_Inbox = queue.SimpleQueue["TranscriptionEvent | Exception | None"]
TOKENS_PER_SECOND, MIN_ANSWER_TOKENS = 12, 256
"""Limit of an answer's tokens; the model page's dense sample has 8.5 a second."""


class DeviceName(Protocol):
    """Device of a model; ``type`` is that of a transcript, such as 'cpu'."""

    @property
    def type(self) -> str:
        """Return its kind."""


class LoadedWeights(Protocol):
    """What a transcript says of a loaded model."""

    @property
    def precision(self) -> Precision:
        """Return the precision of its weights."""

    @property
    def device(self) -> DeviceName:
        """Return its device."""


class WindowModel(Protocol):
    """Loaded model that answers windows of audio, for one thread at a time."""

    @property
    def spec(self) -> EngineSpec:
        """Return the spec of its engine."""

    @property
    def loaded(self) -> LoadedWeights:
        """Return what a transcript says of it."""

    @property
    def narrow(self) -> bool:
        """Return whether it computes in fp16, which may overflow."""

    @property
    def out_of_memory(self) -> type[Exception]:
        """Return the error of the library for memory that ran out."""

    def inference(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which it computes."""

    def own_error(self, error: Exception) -> Exception:
        """Return an error of the device as one of `errors`, and others as they are."""

    def free_memory(self) -> None:
        """Return memory of ended work to the device."""

    def decoding(self, plan: MemoryPlan) -> Any:
        """Return the decoder of all answers with such a plan."""

    def answers(
        self,
        windows: Sequence[Block],
        plan: MemoryPlan,
        check: Callable[[], None],
        planned_decoder: Any,
        context: str = "",
        drawn: bool = False,
    ) -> Sequence[vibevoice_generation.WindowGeneration]:
        """Encode windows (24 kHz mono) and begin to answer; ``check`` may raise to stop it.
        ``context``: the text beside the audio. ``drawn``: its latents have noise.

        Raises:
            vibevoice_generation.NonFiniteLogits: its type is too narrow; `widen` helps.
        """

    def widen(self) -> None:
        """Convert fp16 to a type that does not overflow."""


class _VibeVoiceCancelled(Exception):
    """The request was cancelled between two steps."""


@dataclasses.dataclass(slots=True)
class _WindowInProgress:
    """Window in progress. ``reported_before``: the reported segments before each of its own.
    ``placed``: each of them on the recording's clock."""

    window: VibeVoiceWindow
    generation: vibevoice_generation.WindowGeneration
    ended: bool = False
    reported_before: list[int] = dataclasses.field(default_factory=lambda: [0])
    placed: dict[Segment, Segment] = dataclasses.field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        return len(self.window.samples) / VIBEVOICE_SAMPLE_RATE


class WindowSlots:
    """Places for windows that are decoded at once, divided among transcriptions in the order in
    which they ask, an equal share each."""

    def __init__(self) -> None:
        self._held: dict[object, int] = {}
        self._waiting: list[object] = []

    def take(
        self, owner: object, plan: MemoryPlan, own_plan: MemoryPlan | None = None
    ) -> MemoryPlan | None:
        """Return the plan by which ``owner`` may decode its next windows, ``together`` of them,
        until it calls `leave`; None: it has to ask again. ``own_plan``: the plan while no other
        transcription runs or waits."""
        if owner not in self._waiting:
            self._waiting.append(owner)
        if self._waiting[0] != owner:
            return None
        most, users = plan.places or plan.together, len(self._held) + len(self._waiting)
        free = (most - sum(self._held.values())) // plan.weight
        share = most // users // plan.weight
        if (count := min(free, max(1, share), plan.together)) < 1:
            return None
        del self._waiting[0]
        whole = users == 1 and own_plan is not None
        # a plan without places, as after memory ran out, is for a recording alone
        held = count * plan.weight if plan.places else ALL_PLACES
        self._held[owner] = most if whole else held
        return own_plan if whole else dataclasses.replace(plan, together=count)

    def leave(self, owner: object) -> None:
        """Return the places of ``owner``, which waits for none either."""
        self._held.pop(owner, None)
        if owner in self._waiting:
            self._waiting.remove(owner)


class VibeVoiceTranscription:
    """Transcription of one request. It ends early, without `Finished`, once it is cancelled.

    ``slots`` are shared with the requests that are decoded in step with this one.
    """

    def __init__(
        self,
        model: WindowModel,
        request: engine_interface.TranscriptionRequest,
        slots: WindowSlots | None = None,
        resume_points: Sequence[ResumePoint] | None = None,
    ) -> None:
        """``resume_points``: those of this recording so far; None if none are wanted."""
        audio, options = request.audio, request.options
        self._resume_points = resume_points
        self._model, self._slots = model, slots or WindowSlots()
        self._plan = options.memory
        """Of the windows in progress."""
        self._audio, self._options, self._cancelled = audio, options, request.cancelled
        watched = engine_interface.InterruptibleAudio(audio, self._check)
        self._windows = VibeVoiceWindows(
            watched, VIBEVOICE_SAMPLE_RATE, options.memory.window_s, detect_window_speech
        )
        self._voices = WindowSpeakerMatcher(VIBEVOICE_SAMPLE_RATE) if options.diarize else None
        self._whole = TranscriptStitcher(self._voices, remember=options.identifies_speakers)
        self._notices: dict[str, Notice] = {}
        self._missed: deque[MissedSpeech] = deque()
        self._wordless: list[tuple[float, float]] = []
        """Starts of speech without words, and the seconds of speech from each."""
        self._reported: dict[int, Segment] = {}
        """Segments that were reported, by index."""
        self._announced = self._in_resume_points = 0
        self._settled = 0
        self._loops, self._truncated = 0, False
        self._done_s = 0.0

    def events(self) -> Iterator[TranscriptionEvent]:
        """Run the transcription."""
        runs = [(None, self.steps())]
        for _, event in transcribe_in_step(self._model, lambda: [runs.pop()] if runs else []):
            if isinstance(event, Exception):
                raise event
            if event is not None:
                yield event

    def steps(self) -> vibevoice_generation.Run:
        """Run the transcription; the caller runs the decoder passes that it yields. It yields
        `None` while it waits for slots."""
        try:
            with contextlib.suppress(_VibeVoiceCancelled):
                yield from self._events()
        finally:
            self._slots.leave(self)

    def _events(self) -> vibevoice_generation.Run:
        if self._resume_points:
            self._go_on(self._resume_points)
        windows = iter(self._windows)
        for window in windows:
            options = self._options
            while (plan := self._slots.take(self, options.memory, options.memory_alone)) is None:
                self._check()
                yield None
            self._plan, together = plan, plan.together
            batch = [window]
            if together > 1:  # a window's samples are valid only until the next window
                batch = [
                    dataclasses.replace(one, samples=one.samples.copy())
                    for one in chain(batch, islice(windows, together - 1))
                ]
            yield from self._batch(batch)
            done = self._windows.position[0] != round(window.start_s * VIBEVOICE_SAMPLE_RATE)
            if self._resume_points is not None and done and batch[-1].border_s is not None:
                yield self._resume_point()
            self._slots.leave(self)
        if self._cancelled():
            return
        done_s = self._windows.end_s
        parallel = self._options.windows is engine_interface.WindowingMode.PARALLEL
        if parallel and (self._options.memory_alone or self._options.memory).together == 1:
            self._notices[WINDOWS_NOT_PARALLEL.code] = WINDOWS_NOT_PARALLEL
        if self._wordless:
            self._notices[SPEECH_MISSED] = speech_missed_notice(self._wordless)
        for notice in loop_notices(self._whole.segments, self._loops, truncated=self._truncated):
            self._notices[notice.code] = notice
        segments = sort_by_time(self._whole.segments)
        late = unreported_segments(self._reported.values(), segments)
        yield from map(SegmentReady, count(self._announced), late)
        yield Progress(done_s, done_s)
        yield finished(
            self._model.spec.name,
            self._model.loaded,
            segments,
            done_s,
            self._options,
            self._notices.values(),
            self._speakers(segments),
        )

    def _resume_point(self) -> ResumePoint:
        """Return the resume point between two batches of windows."""
        start, size = self._windows.position
        state = {
            "window": [start, size],
            "transcript": self._whole.snapshot(),
            "notices": [[one.code, one.message] for one in self._notices.values()],
            "wordless": [*self._wordless],
            "loops": self._loops,
            "truncated": self._truncated,
            "done_s": self._done_s,
        }
        numbers = range(self._in_resume_points, self._announced)
        self._in_resume_points = self._announced
        segments = tuple(self._reported[number] for number in numbers)
        return ResumePoint(start / VIBEVOICE_SAMPLE_RATE, self._model.spec.resumes, segments, state)

    def _go_on(self, resume_points: Sequence[ResumePoint]) -> None:
        """Restore the state of the last one."""
        state = resume_points[-1].state
        self._windows.go_on(*state["window"])
        self._whole.go_on([one.state["transcript"] for one in resume_points])
        self._notices = {code: Notice(code, message) for code, message in state["notices"]}
        self._wordless = [(start, speech_s) for start, speech_s in state["wordless"]]
        self._loops, self._truncated = state["loops"], state["truncated"]
        self._done_s = state["done_s"]
        self._reported = dict(enumerate(one for each in resume_points for one in each.segments))
        self._announced = self._in_resume_points = len(self._reported)
        if SMALLER_PLAN.code in self._notices:
            self._fall_back()
        if FP16_OVERFLOW.code in self._notices and self._model.narrow:
            self._model.widen()

    def _speakers(self, segments: Sequence[Segment]) -> DiarizedSpeakers | None:
        """Return the speakers of these segments; None if their embeddings are not known."""
        persons = self._voices.persons if self._voices is not None else {}
        return DiarizedSpeakers(speaker_turns_of(segments), persons) if persons else None

    def _batch(
        self, windows: list[VibeVoiceWindow]
    ) -> Iterator[TranscriptionEvent | vibevoice_generation.DecoderPass]:
        """Transcribe a batch; if memory runs out, transcribe it again with the smaller plan."""
        settled_before = self._settled
        try:
            yield from self._attempt(windows)
        except self._model.out_of_memory as error:
            if self._options.memory_fallback is None:
                raise errors.GpuOutOfMemory() from None
            log.warning(
                "out of GPU memory; the recording is tried again with a smaller plan: %s", error
            )
            error.__traceback__ = None  # its frames hold the tensors to be freed
        else:
            yield from self._fill_gaps()
            return
        self._fall_back()
        self._model.free_memory()
        self._notices[SMALLER_PLAN.code] = SMALLER_PLAN
        if len(windows) == 1:
            self._windows.again(self._options.memory.window_s)
            return
        for window in windows[self._settled - settled_before :]:
            yield from self._batch([window])

    def _fall_back(self) -> None:
        """Use the smaller plan from now on, if there is one."""
        self._plan = self._options.memory_fallback or self._options.memory
        self._options = dataclasses.replace(
            self._options, memory=self._plan, memory_fallback=None, memory_alone=None
        )

    def _fill_gaps(self) -> Iterator[TranscriptionEvent | vibevoice_generation.DecoderPass]:
        """Transcribe speech again that has no segment, until nothing more is found."""
        while self._missed:
            missed = self._missed.popleft()
            try:
                for window in missed.windows(VIBEVOICE_SAMPLE_RATE, detect_window_speech):
                    yield from self._attempt([window], missed_speech=missed)
            except self._model.out_of_memory as error:
                log.warning("out of GPU memory; missed speech is not transcribed again: %s", error)
                error.__traceback__ = None  # its frames hold the tensors to be freed
                self._wordless.append((missed.start_s, missed.speech_s))

    def _attempt(
        self, windows: list[VibeVoiceWindow], missed_speech: MissedSpeech | None = None
    ) -> Iterator[TranscriptionEvent | vibevoice_generation.DecoderPass]:
        """Encode all windows and decode them in step; yield their events in the order of the
        windows. ``missed_speech``: what they have of earlier ones; with noise if it was a loop."""
        hearings = self._begin_windows(
            windows, drawn=missed_speech is not None and missed_speech.looped
        )
        temperature = self._options.temperature
        answers = [one.generation for one in hearings]
        steps = vibevoice_generation.decode_in_step(
            answers,
            SamplingOptions(temperature, TOP_P) if temperature else None,
            [max_answer_tokens(one.duration_s, self._options) for one in hearings],
            self._cancelled,
        )
        waiting = deque(hearings)
        self._whole.begin(windows[0])
        for step in steps:
            if isinstance(step, vibevoice_generation.DecoderPass):
                yield step
                continue
            number, index = step
            hearing = hearings[number]
            if index is None:
                self._check()
                hearing.ended = True
            elif hearing is waiting[0]:
                yield from self._closed(hearing, index)
            while waiting and waiting[0].ended:
                self._end(waiting.popleft(), fills=missed_speech is not None)
                if waiting:
                    self._whole.begin(waiting[0].window)
                    for earlier in range(len(waiting[0].generation.segments)):
                        yield from self._closed(waiting[0], earlier)

    def _begin_windows(
        self, windows: list[VibeVoiceWindow], *, drawn: bool
    ) -> list[_WindowInProgress]:
        """Encode the windows and begin their answers."""
        try:
            answers = self._model.answers(
                [window.samples for window in windows],
                self._plan,
                self._check,
                self._model.decoding(self._plan),
                self._options.prompt_lines,
                drawn,
            )
            return [*map(_WindowInProgress, windows, answers)]
        except vibevoice_generation.NonFiniteLogits:
            if not self._model.narrow:
                raise errors.EngineFailed("The output of the model is not finite.") from None
        self._model.widen()
        self._notices[FP16_OVERFLOW.code] = FP16_OVERFLOW
        return self._begin_windows(windows, drawn=drawn)

    def _closed(self, hearing: _WindowInProgress, index: int) -> Iterator[TranscriptionEvent]:
        """Yield the events of a segment of the current window. After a loop was cut, an index may
        repeat."""
        start_s = hearing.window.start_s
        segment = self._whole.place(self._placed(hearing, index))
        before = hearing.reported_before
        before[index + 1 :] = [before[index] + (segment is not None)]
        if segment is not None:
            number = self._announced + before[index]
            self._reported[number] = segment
            yield SegmentReady(number, segment)
            yield self._progress(segment, start_s + hearing.duration_s)

    def _end(self, hearing: _WindowInProgress, *, fills: bool) -> None:
        window, answer = hearing.window, hearing.generation
        self._announced += hearing.reported_before[-1]
        self._settled += not fills
        segments = [self._placed(hearing, at) for at in range(len(answer.segments))]
        known = [*self._whole.segments, *segments]
        missed: list[MissedSpeech] = []
        if not self._options.max_tokens:  # else the client wants no more
            missed += missed_speech(
                window, known, VIBEVOICE_SAMPLE_RATE, detect_window_speech, last=fills
            )
        given_up = fills and (not segments or hearing.duration_s < LEAST_AGAIN_S)
        if given_up:
            self._wordless += [(one.start_s, one.speech_s) for one in missed]
        else:
            self._missed += missed
        if fills:
            self._whole.fill(window, segments)
        else:
            self._whole.end(window, segments, gaps=bool(missed))
        self._loops += answer.loops
        self._truncated |= answer.truncated

    def _progress(self, segment: Segment, known_s: float) -> Progress:
        total = self._audio.total_s or known_s
        self._done_s = min(max(self._done_s, segment.end), total)
        return Progress(self._done_s, total)

    def _placed(self, hearing: _WindowInProgress, index: int) -> Segment:
        """Return a segment on the recording's clock, with words if the client wants some."""
        segment = hearing.generation.segments[index]
        if (placed := hearing.placed.get(segment)) is None:
            start_s = hearing.window.start_s
            placed = dataclasses.replace(
                segment,
                start=segment.start + start_s,
                end=segment.end + start_s,
                speaker=segment.speaker if self._options.diarize else None,
            )
            placed = described(placed, hearing.window.samples, start_s, self._options)
            if placed.is_speech:
                placed = hearing.generation.with_confidence(index, placed)
            hearing.placed[segment] = placed
        return placed

    def _check(self) -> None:
        if self._cancelled():
            raise _VibeVoiceCancelled


def transcribe_in_step(
    model: WindowModel,
    arrivals: Callable[[], Iterable[tuple[Key, vibevoice_generation.Run]]],
) -> Iterator[vibevoice_generation.RunEvent[Key]]:
    """Yield the events of the transcriptions that ``arrivals`` returns, which are decoded in step:
    as `vibevoice_generation.interleave_runs`.

    The error `errors.DeviceLost` says that nothing in this process can use the device again.
    """
    with model.inference():
        for key, event in vibevoice_generation.interleave_runs(arrivals):
            yield key, model.own_error(event) if isinstance(event, Exception) else event


class JoinedTranscriptions:
    """Transcriptions of several threads, which one thread decodes in step: a request joins those
    that run before their next pass, and gets windows as they become free."""

    def __init__(self, model: WindowModel) -> None:
        self._model, self._slots = model, WindowSlots()
        self._arrived: queue.SimpleQueue[tuple[_Inbox, vibevoice_generation.Run]]
        self._arrived = queue.SimpleQueue()
        self._turn = threading.Lock()
        """Held by the thread that uses the model."""
        threading.Thread(target=self._decode, name="decode", daemon=True).start()

    def events(
        self,
        request: engine_interface.TranscriptionRequest,
        resume_points: Sequence[ResumePoint] | None = None,
    ) -> Iterator[TranscriptionEvent]:
        """Run the transcription of a request: beside those of other threads, if its memory plan is
        a shared one; else in this thread, while no other runs. ``resume_points``: as of
        `VibeVoiceTranscription`."""
        if not request.options.memory.places:
            with self._turn:
                yield from VibeVoiceTranscription(
                    self._model, request, resume_points=resume_points
                ).events()
            return
        inbox, left = _Inbox(), threading.Event()
        watched = dataclasses.replace(
            request, cancelled=lambda: left.is_set() or request.cancelled()
        )
        run = VibeVoiceTranscription(self._model, watched, self._slots, resume_points).steps()
        self._arrived.put((inbox, run))
        event: TranscriptionEvent | Exception | None = None
        try:
            while (event := inbox.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            left.set()
            while event is not None:  # until then the recording is read
                event = inbox.get()

    def _decode(self) -> None:
        while True:
            first = [self._arrived.get()]
            with self._turn:
                for inbox, event in transcribe_in_step(self._model, partial(self._arrivals, first)):
                    inbox.put(event)

    def _arrivals(
        self, first: list[tuple[_Inbox, vibevoice_generation.Run]]
    ) -> Iterator[tuple[_Inbox, vibevoice_generation.Run]]:
        """Yield those that have arrived, and ``first`` once."""
        while first:
            yield first.pop()
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._arrived.get_nowait()


def described(
    segment: Segment, samples: Block, start_s: float, options: TranscribeOptions
) -> Segment:
    """Return a segment with its language, and with words if ``options`` request them; ``samples``:
    shape (samples,), of the recording from ``start_s`` on."""
    if options.words:
        segment = align_words(segment, samples, VIBEVOICE_SAMPLE_RATE, start_s)
        segment = estimate_word_times(segment)
    if not segment.is_speech:
        return segment
    language = options.language
    if language == engine_interface.AUTO:
        language = detect_language([segment]) or ""
    return dataclasses.replace(segment, language=language)


def finished(
    engine: str,
    loaded: LoadedWeights,
    segments: Sequence[Segment],
    duration_s: float,
    options: TranscribeOptions,
    notices: Iterable[Notice],
    speakers: DiarizedSpeakers | None,
) -> Finished:
    """Return the end of a transcription; ``segments``: in order of time."""
    numbered = number_speakers_by_appearance(segments)
    language = options.language
    if language == engine_interface.AUTO:
        language = detect_language(numbered) or engine_interface.AUTO
    transcript = Transcript(
        segments=tuple(numbered),
        language=language,
        duration=duration_s,
        engine=engine,
        precision=loaded.precision.value,
        device=loaded.device.type,
        diarized=options.diarize,
        notices=tuple(notices),
    )
    return Finished(identify_speakers(transcript, speakers, options))


def max_answer_tokens(seconds: float, options: TranscribeOptions) -> int:
    """Return the maximum number of tokens of the answer to ``seconds`` of audio."""
    return options.max_tokens or ceil(TOKENS_PER_SECOND * seconds) + MIN_ANSWER_TOKENS
