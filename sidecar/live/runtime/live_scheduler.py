"""Scheduler of many live sessions over one engine, and the recognizers that they share.

One thread runs voice activity detection for all sessions in one batch (`live.runtime.vad`). As many
threads as there are cores recognize what is due (`live.runtime.recognition_plan`). An engine of
this kind provides `LiveRecognizers`. A fault in the work for one session ends that session; a fault
that belongs to no session ends the thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.signal_conditioning import Resampler
from sidecar.concurrency import usable_cpu_cores
from sidecar.interfaces.engine_interface import TranscriptionEngine
from sidecar.interfaces.live_events import (
    LiveEvent,
    LiveEventCallback,
    LiveSessionStart,
    NoticeRaised,
)
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.interfaces.recognition import (
    DEFAULT_SCHEDULE,
    PartialSchedule,
    RecognitionHypothesis,
    SegmentRequest,
    in_chinese_script,
)
from sidecar.live.runtime import live_speaker_labels, load_shedding
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.recognition_plan import (
    RecognitionTask,
    RecognitionUrgency,
    SpeechSegment,
    TurnOrder,
    WorkPace,
    turn_order,
)
from sidecar.live.runtime.segment_embeddings import EmbeddingTask
from sidecar.live.runtime.stream_recognizer import SessionInput, SessionTask, StreamRecognizer
from sidecar.transcripts.chinese_script import chinese_script
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import SPEAKERS_UNAVAILABLE, Notice

log = logging.getLogger(__name__)

RecognizeFunction: TypeAlias = Callable[[SegmentRequest], RecognitionHypothesis | None]
"""Recognition of a segment. Returns None once it is cancelled. Several threads call it at once."""

TICK_INTERVAL_S = 0.096
"""Interval of the scheduler: three frames, so that batches are worthwhile."""
PARTIALS_TOO_SLOW = (
    "The model is too slow on this machine for partials: words come after each utterance."
)
SURE_FRAMES = 5
MIN_SPEECH_PROBABILITY, MIN_TONE_PROBABILITY = 0.15, 0.95
"""Mean probability that `SURE_FRAMES` successive frames exceed somewhere in speech and nowhere in
noise, and nowhere in tones, all as loud as usual. Measured: noises (white, pink, brown) at most
0.08; telephone tones, also in noise, at most 0.91 (DTMF); clean speech of 0.5 s, also at -55 dB,
mostly 0.9; of 1 s at least 0.87, 5 dB louder than white noise 0.78."""
_TONE_WINDOW, _TONE_BINS = 1024, 2
_TONE_SHARE = 0.9
"""Share of the energy in the two strongest lines of all spectra from which audio is tones: of
telephones 0.93 and more, of speech of 3 s at most 0.92, mostly 0.6."""
MAX_FRAMES_AT_ONCE = 64
"""Frames of one session that are processed at a time: two seconds."""


class LiveSpeakerEncoder(Protocol):
    """Speaker encoder, for several threads at once."""

    def vector(self, voice: Block) -> live_speaker_labels.Vector:
        """Return the embedding of one speaker's audio, shape (samples,) at `LIVE_RATE`; two of the
        same person point in the same direction."""


@dataclass(frozen=True, slots=True)
class LiveRecognizers:
    """Recognizers of an engine; only ``recognize`` is required. ``glimpse`` recognizes an open
    segment, if that differs from one that has ended. ``contexts``: whether ``recognize`` takes the
    context of an ended segment. Without an ``encoder`` there are no speaker labels. ``changes``
    finds the turns of speakers within a segment, in seconds from its start; without it a segment
    has one speaker."""

    recognize: RecognizeFunction
    glimpse: RecognizeFunction | None = None
    contexts: bool = False
    encoder: LiveSpeakerEncoder | None = None
    changes: Callable[[Block], Sequence[SpeakerTurn]] | None = None

    def words(
        self, request: SegmentRequest, urgency: RecognitionUrgency
    ) -> RecognitionHypothesis | None:
        """Recognize a segment. Return None if the result is not wanted any more, or if recognition
        failed."""
        open_ = urgency is RecognitionUrgency.PARTIAL
        try:
            if open_:
                quick = replace(request.options, words=False, accurate=False)
                found = (self.glimpse or self.recognize)(replace(request, options=quick))
            else:
                found = self.recognize(request)
            asked = request.options.language
            is_chinese = asked[:2].lower() == "zh"  # others' path of live audio gets no longer
            if found is None or not is_chinese or (script := chinese_script(asked)) is None:
                return found
            return in_chinese_script(found, script, open_=open_)
        except errors.DeviceLost:
            os._exit(1)  # this process cannot use the device any more; sessions resume in a new one
        except Exception:  # a fault of an engine costs one segment, not the other sessions
            log.exception("internal error in the recognition of a segment; its session goes on")
            return None

    def with_turns(
        self, hypothesis: RecognitionHypothesis, segment: SpeechSegment, audio: Block
    ) -> RecognitionHypothesis:
        """Return the hypothesis with the turns of its speakers, if it can be divided by them."""
        assert self.changes is not None
        words = hypothesis.text.split(maxsplit=1)
        if not segment.diarize or len(words) < 2:
            return hypothesis
        try:
            return replace(hypothesis, turns=tuple(self.changes(audio)))
        except Exception:  # a fault costs the labels of one segment, not the other sessions
            log.exception("internal error in the segmentation of speakers; its session goes on")
            return hypothesis

    def voice(self, samples: Block) -> live_speaker_labels.Vector | None:
        """Return the speaker embedding of audio; None if that failed."""
        assert self.encoder is not None
        try:
            vector = self.encoder.vector(samples)
        except Exception:  # a fault costs one label, not the other sessions
            log.exception("internal error in a speaker embedding; its session goes on")
            return None
        return vector if np.isfinite(vector).all() and vector.any() else None


class VadModel(Protocol):
    """Voice activity detector for many streams at once."""

    def state(self) -> Any:
        """Return the state of a new stream."""

    def probabilities(self, frames: Block, states: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Return the probability of speech in each of ``frames``, shape (streams,
        `FRAME_SAMPLES`); update the ``states`` of their streams."""


def has_speech(vad_model: VadModel, audio: Block) -> bool:
    """Return whether there may be speech in 16 kHz audio, however quiet, also beside loud noise.
    For other audio recognizers invent words."""
    least = MIN_TONE_PROBABILITY if _is_tones(audio) else MIN_SPEECH_PROBABILITY
    for part in np.array_split(audio, 1 + len(audio) // (2 * LIVE_RATE)):
        loud = float(np.quantile(np.abs(part), 0.99)) if len(part) else 0.0  # without clicks
        usual = np.clip(part * (0.25 / max(loud, 1e-9)), -1, 1).astype(np.float32)
        frames = usual[: len(usual) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, 1, FRAME_SAMPLES)
        state, recent = [vad_model.state()], deque([0.0], SURE_FRAMES)
        for frame in frames:
            recent.append(float(vad_model.probabilities(frame, state)[0]))
            if sum(recent) > least * SURE_FRAMES:
                return True
    return False


def _is_tones(audio: Block) -> bool:
    """Return whether the energy is in one or two lines at any time, as in signals of telephones."""
    if len(audio) < _TONE_WINDOW:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(audio - audio.mean(), _TONE_WINDOW)
    shape = np.hanning(_TONE_WINDOW).astype(np.float32)
    spectra = np.square(np.abs(np.fft.rfft(windows[:: _TONE_WINDOW // 2] * shape)))
    total, bins = float(spectra.sum()), np.arange(spectra.shape[1])
    for _ in range(2):
        near = np.abs(bins - spectra.argmax(axis=1)[:, None]) <= _TONE_BINS
        spectra[near] = 0.0
    return float(spectra.sum()) < (1 - _TONE_SHARE) * total


class EngineSession:
    """Session of a `LiveScheduler`: a stream of audio in an engine. `Summary` is its last event,
    and comes only after `LiveOrder.FINISH`. ``state``: the state of the VAD for its audio.

    `push`, `close` and `backlog_s` do not wait for recognition. A caller of all else holds the
    scheduler's lock.
    """

    def __init__(
        self,
        scheduler: LiveScheduler,
        recognizer: StreamRecognizer,
        tell: LiveEventCallback,
        options: LiveOptions,
        state: Any,
    ) -> None:
        self.recognizer, self.tell, self.state = recognizer, tell, state
        self.client, self.channel_of = options.client, options.channel_of
        self.left = False
        """True if the session has left the scheduler: no more events are sent."""
        self.wordless = False
        """True if the client was notified that there are no partials."""
        self.around: Callable[[], AbstractContextManager[object]] = nullcontext
        """Context of each thread that works for this session; set before any audio."""
        self.failed: Callable[[errors.SidecarError], object] = lambda error: None
        """Called once if work for this session fails; no events follow. Set as `around` is."""
        self.rank: int | None = None
        """Order of the first admission among the sessions, of it or its other channel; None before
        that."""
        self.share: load_shedding.SpeechShare | None = None
        """Share of the time with speech, since that admission."""
        self._scheduler = scheduler

    @property
    def backlog_s(self) -> float:
        """Return the seconds of pushed audio that are not processed yet, or wait for recognition.
        More than a few mean that the caller pushes too fast."""
        with self._scheduler.lock:
            return self.recognizer.backlog_s

    @property
    def waiting_s(self) -> float:
        """Return the seconds of its speech that wait for finals and delay those of others."""
        return 0.0 if self.share is None or self.recognizer.ahead else self.recognizer.waiting_s

    def speaker(self, now: float) -> load_shedding.ServedSession | None:
        """Return its share of the speech; None before its first admission, and if it is ahead of
        real time."""
        if self.rank is None or self.share is None or self.recognizer.ahead:
            return None
        return load_shedding.ServedSession(
            self.client, self.rank, self.recognizer.speaking, self.share.at(now)
        )

    def frames(self, say: Callable[[Iterable[LiveEvent]], None]) -> Block | None:
        """Return the frames to process now; before there are any, follow the orders that precede
        them and send their events."""
        while not self.recognizer.held:
            frames = self.recognizer.frames(MAX_FRAMES_AT_ONCE)
            if frames is not None or not self.recognizer.orders:
                return frames
            say(self.recognizer.follow())
        return None

    def push(self, what: SessionInput, *, ahead: bool = False) -> None:
        """Add audio at the engine's rate, shape (samples,), or what follows it. Audio that came
        ``ahead`` of real time waits behind that of all other sessions, and takes nothing from
        them."""
        with self._scheduler.lock:
            self.recognizer.push(what, time.monotonic(), ahead=ahead)
            self._scheduler.input_came.notify()

    def close(self) -> None:
        """Close the session."""
        self._scheduler.leave(self)


class LiveEngine(TranscriptionEngine, Protocol):
    """Live engine, for at most `EngineSpec.sessions` streams at once."""

    def open(
        self, options: LiveOptions, start: LiveSessionStart, tell: LiveEventCallback
    ) -> EngineSession:
        """Open a session; ``tell`` gets its events on threads of the engine.

        Raises:
            errors.SidecarError: the engine refuses these options.
        """


class LiveScheduler:
    """Scheduler of live sessions; owns the threads, which end with `close`."""

    def __init__(
        self,
        recognizers: LiveRecognizers,
        vad_model: VadModel,
        engine: str,
        precision: str,
        threads: int | None = None,
        pace: WorkPace | None = None,
        schedule: PartialSchedule = DEFAULT_SCHEDULE,
        sample: Block | None = None,
        tick_s: float = TICK_INTERVAL_S,
        rate: int = LIVE_RATE,
    ) -> None:
        """Start the threads.

        ``threads`` recognize at once; None: as many as there are usable cores. At most half of them
        compute speaker embeddings, so that one is free for a final. ``pace``: for an engine that
        cannot be stopped within a segment, which work is left out. ``schedule``: the schedule of
        partials. ``sample``: speech with which the cost is measured at the start. ``tick_s``:
        seconds between two runs of the VAD. ``rate``: of the audio that sessions push.
        """
        self._schedule, self._sample, self._tick_s = schedule, sample, tick_s
        self._rate = rate
        self._released = threading.Event()
        """Set if audio may be processed that waited for recognition."""
        threads = threads or usable_cpu_cores()
        self.load, self._let = load_shedding.EngineLoadModel(threads), 0
        self.vad_model = vad_model
        self._recognizers, self.pace = recognizers, pace
        self.encoding, self._encode_at_once = 0, max(1, threads // 2)
        self._about = engine, precision
        self.lock = threading.RLock()
        self.input_came, self._work_waits = (threading.Condition(self.lock) for _ in range(2))
        self._sessions: list[EngineSession] = []
        self._served: dict[str, float] = {}
        self._closed = False
        targets = [self._run_vad, *[self._work] * threads]
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"live-{number}")
            for number, target in enumerate(targets)
        ]
        for thread in self._threads:
            thread.start()

    def open(
        self, options: LiveOptions, start: LiveSessionStart, tell: LiveEventCallback
    ) -> EngineSession:
        """Open a session."""
        recognizer = StreamRecognizer(
            options,
            start,
            *self._about,
            voices=self._recognizers.encoder is not None,
            schedule=self._schedule,
            context=self._recognizers.contexts,
            rate=self._rate,
        )
        session = EngineSession(self, recognizer, tell, options, self.vad_model.state())
        recognizer.decide_admission = partial(self._decide_admission, session)
        if options.diarize and self._recognizers.encoder is None and not start.at:
            tell(NoticeRaised(SPEAKERS_UNAVAILABLE))
        with self.lock:
            self.load.limit_s = options.wait_s or self.load.limit_s
            self._sessions.append(session)
        return session

    def close(self) -> None:
        """End the threads; no session gets events after that."""
        with self.lock:
            self._closed = True
            self._sessions.clear()
            self.input_came.notify_all()
            self._work_waits.notify_all()
            self._released.set()
        for thread in self._threads:
            thread.join()

    def leave(self, session: EngineSession) -> None:
        """Remove a session."""
        with self.lock, self._ending_failed_session(session):
            self._drop(session)

    def _drop(self, session: EngineSession) -> None:
        session.left = True
        self._sessions = [one for one in self._sessions if one is not session]
        if all(one.client != session.client for one in self._sessions):
            self._served.pop(session.client, None)
        session.recognizer.leave()

    @contextmanager
    def _ending_failed_session(self, session: EngineSession) -> Iterator[None]:
        """End this session if work for it fails; the thread goes on for the others."""
        try:
            yield
        except Exception as fault:
            log.exception("internal error in a live session, which ended")
            with self.lock:
                if session.left:
                    return
                with suppress(Exception):  # the fault may occur again
                    self._drop(session)
                session.failed(errors.EngineFailed(f"The engine failed: {type(fault).__name__}."))

    # ── the VAD thread ──

    def _run_vad(self) -> None:
        while True:
            begun = time.monotonic()
            with self.lock:
                while not (self._closed or any(one.recognizer.busy for one in self._sessions)):
                    self.input_came.wait()
                if self._closed:
                    return
                due = self._due()
                self._work_waits.notify_all()  # a commit may have ended segments, which are now due
            if due:
                self._detect(due)
            self._released.wait(max(0.0, self._tick_s - (time.monotonic() - begun)))
            self._released.clear()

    def _due(self) -> list[tuple[EngineSession, Block]]:
        """Return the frames of all sessions that are due; follow the orders before them."""
        due = []
        for session in self._sessions:
            with self._ending_failed_session(session):
                frames = session.frames(partial(self._send, session))
                if frames is not None:
                    due.append((session, frames))
        return due

    def _detect(self, due_sessions: list[tuple[EngineSession, Block]]) -> None:
        """Run the VAD: one batch of the first frames of all sessions, then of the second, …"""
        counts = dict.fromkeys((session for session, _ in due_sessions), 0)
        held = set[EngineSession]()
        for step in range(max(len(frames) for _, frames in due_sessions)):
            rows = [
                (session, frames)
                for session, frames in due_sessions
                if len(frames) > step and session not in held
            ]
            if not rows:
                break
            batch = np.stack([frames[step] for _, frames in rows])
            found = self.vad_model.probabilities(batch, [session.state for session, _ in rows])
            with self.lock:
                now = time.monotonic()
                for row, (session, _) in enumerate(rows):
                    if not session.left:
                        with self._ending_failed_session(session):
                            self._send(
                                session, session.recognizer.process_frame(float(found[row]), now)
                            )
                    counts[session] += 1
                    if session.recognizer.held:
                        held.add(session)  # its other frames wait
        with self.lock:
            now = time.monotonic()
            for session, count in counts.items():
                if session.share is not None:
                    audio_s = count * FRAME_SAMPLES / LIVE_RATE
                    session.share.spoken(audio_s if session.recognizer.speaking else 0.0, now)
            served = (session.speaker(now) for session in self._sessions)
            speaking = sum(one.speaking for one in served if one is not None)
            self.load.update_level(speaking, sum(one.waiting_s for one in self._sessions), now)
            self._work_waits.notify_all()

    def _decide_admission(self, session: EngineSession) -> load_shedding.UtteranceAdmission:
        """Return the admission of an utterance that begins."""
        now = time.monotonic()
        others = [one for one in self._sessions if one is not session]
        if session.channel_of and session.rank is None:
            ranks = (one.rank for one in others if one.channel_of == session.channel_of)
            session.rank = next(ranks, None)
        found = (one.speaker(now) for one in others)
        speakers = [speaker for speaker in found if speaker is not None]
        if session.recognizer.resumed or session.recognizer.ahead:
            admission = load_shedding.UtteranceAdmission.SERVE
        else:
            entering = session.rank is None and session.recognizer.new
            arriving = load_shedding.ArrivingUtterance(session.client, session.rank, entering)
            waiting_s = sum(one.waiting_s for one in self._sessions)
            admission = self.load.admission(arriving, speakers, waiting_s)
        if admission is load_shedding.UtteranceAdmission.SERVE:
            if session.share is None:
                session.rank = self._let if session.rank is None else session.rank
                session.share = load_shedding.SpeechShare(now)
            self._let += 1
        return admission

    # ── the recognition threads ──

    def _measure(self) -> None:
        """Measure the cost of speech on all threads at once, as under full load."""
        if self._sample is None:
            return
        begun = time.monotonic()
        request = SegmentRequest(self._sample, LiveOptions(), cancelled=lambda: self._closed)
        found = self._recognizers.words(request, RecognitionUrgency.FINAL)
        if found is None:  # a failure at once says nothing of costs
            return
        with self.lock:
            self.load.costs.measured(len(self._sample) / LIVE_RATE, time.monotonic() - begun)

    def _work(self) -> None:
        self._measure()
        while True:
            with self.lock:
                while not self._closed and (chosen := self._next_task()) is None:
                    is_shedding = self.load.level(time.monotonic())
                    self._work_waits.wait(load_shedding.MIN_SHEDDING_S if is_shedding else None)
                if self._closed:
                    return
                assert chosen is not None
                session, work = chosen[0], None
                with self._ending_failed_session(session):
                    work = self._start_task(*chosen)
            if work is not None:
                with self._ending_failed_session(session), session.around():
                    work()
            del work, chosen, session  # a thread that waits keeps no session alive

    def _start_task(self, session: EngineSession, due: SessionTask) -> Callable[[], None]:
        """Return the work to do outside the lock."""
        if isinstance(due, RecognitionTask):
            return partial(self._recognize, session, due, session.recognizer.begin(due))
        samples = session.recognizer.segment_embeddings.began(due, session.recognizer.audio)
        self.encoding += 1
        return partial(self._embed_and_relabel, session, due, samples)

    def _recognize(
        self, session: EngineSession, task: RecognitionTask, request: SegmentRequest
    ) -> None:
        begun, options = time.monotonic(), request.options

        def unwanted() -> bool:
            late = time.monotonic() > begun + options.patience_s
            return self._closed or task.obsolete or late or self._is_shed(task)

        hypothesis: RecognitionHypothesis | None = RecognitionHypothesis("")
        draft = request.draft_hypothesis.draft if request.draft_hypothesis is not None else None
        goes_on = self._schedule.turns and draft is not None  # it may have text of this audio
        heard = request.audio
        if self._rate != LIVE_RATE:
            heard = Resampler(self._rate, LIVE_RATE).take(heard, last=True)
        if goes_on or has_speech(self.vad_model, heard):
            hypothesis = self._recognizers.words(replace(request, cancelled=unwanted), task.urgency)
            whole = task.urgency is not RecognitionUrgency.PARTIAL and not self._schedule.turns
            if hypothesis is not None and whole and self._recognizers.changes is not None:
                own = heard[task.segment.start - task.to :]  # without what precedes it
                hypothesis = self._recognizers.with_turns(hypothesis, task.segment, own)
        with self.lock:
            now = time.monotonic()
            self._count(task, hypothesis, now - begun)
            if self.pace is not None and hypothesis is not None:
                self.pace.took(task.urgency, now - begun, now)
            self._send(
                session, session.recognizer.add_hypothesis(task, hypothesis, now, now - begun)
            )
            self._work_waits.notify_all()
            if self._schedule.turns and session.recognizer.busy:
                self._released.set()

    def _count(
        self, task: RecognitionTask, hypothesis: RecognitionHypothesis | None, work_s: float
    ) -> None:
        """Count the cost of a recognition. A second of speech counts once, whether or not events
        are sent for it. Work that was stopped as unwanted says nothing of costs."""
        if self._is_extra(task):
            self.load.costs.add_work(load_shedding.WorkKind.PARTIAL, work_s)
        elif hypothesis is not None or not task.obsolete:
            segment = task.segment
            new = task.to - max(segment.start, segment.counted)
            segment.counted = max(segment.counted, task.to)
            self.load.costs.spoken(max(0, new) / LIVE_RATE)
            self.load.costs.add_work(load_shedding.WorkKind.FINAL, work_s)

    def _embed_and_relabel(
        self, session: EngineSession, task: EmbeddingTask, samples: Block | None
    ) -> None:
        begun = time.monotonic()
        try:
            vector = None if samples is None else self._recognizers.voice(samples)
            with self.lock:
                request = session.recognizer.segment_embeddings.add_embedding(task, vector)
            result = None
            if request is not None:
                try:
                    result = live_speaker_labels.relabel(request)
                except Exception:  # the labels stay as they were
                    log.exception("internal error in the clustering of speakers; the labels stay")
            with self.lock:
                self._send(session, session.recognizer.relabel(task, result))
        finally:
            with self.lock:
                self.encoding -= 1
                self.load.costs.add_work(load_shedding.WorkKind.LABEL, time.monotonic() - begun)
                self._work_waits.notify_all()

    def _next_task(self) -> tuple[EngineSession, SessionTask] | None:
        voices = self.encoding < self._encode_at_once
        labels = self.load.level(time.monotonic()) < load_shedding.SheddingLevel.LABELS
        tasks = list[tuple[TurnOrder, EngineSession, SessionTask]]()
        for session in self._sessions:
            embeds = voices and (labels or session.recognizer.finishing)
            with self._ending_failed_session(session):
                task = session.recognizer.next_task(embeds, partial(self._admits_task, session))
                if task is not None:
                    urgency, since = task.urgency, task.since
                    hurried_since = session.recognizer.hurried_since
                    if urgency is RecognitionUrgency.PARTIAL and hurried_since is not None:
                        urgency, since = RecognitionUrgency.FINAL, hurried_since
                    ahead = session.recognizer.ahead
                    order = turn_order(session.client, urgency, since, self._served, ahead=ahead)
                    tasks.append((order, session, task))
        if not tasks:
            return None
        _, session, due = min(tasks, key=itemgetter(0))
        if due.urgency is not RecognitionUrgency.FINAL:
            now = self._served[session.client] = time.monotonic()
            if self.pace is not None:
                self.pace.tried(due.urgency, now)
        return session, due

    def _admits_task(self, session: EngineSession, task: RecognitionTask) -> bool:
        """Return whether a segment may be recognized now; notify a session that gets no
        partials."""
        if self._is_shed(task):
            self._send(session, session.recognizer.partials_late(task))
            return False
        if self.pace is None or self.pace.allows(task.urgency, time.monotonic()):
            return True
        if task.urgency is RecognitionUrgency.PARTIAL and not session.wordless:
            session.wordless = True
            self._send(session, [NoticeRaised(Notice("partials_off", PARTIALS_TOO_SLOW))])
        return False

    def _is_extra(self, task: RecognitionTask) -> bool:
        """Return whether no final needs this task: a growing segment is recognized only once."""
        return task.urgency is RecognitionUrgency.PARTIAL and not self._schedule.grows

    def _is_shed(self, task: RecognitionTask) -> bool:
        """Return whether this task is left out because of load."""
        level = self.load.level(time.monotonic())
        return self._is_extra(task) and level >= load_shedding.SheddingLevel.PARTIALS

    def _send(self, session: EngineSession, events: Iterable[LiveEvent]) -> None:
        for event in events:
            if not (session.left or self._closed):
                session.tell(event)
        if session.recognizer.over:
            self._drop(session)
