"""Faults in the threads that all live sessions of an engine share: whose they are, who goes on."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from service_process import PATIENCE_S, wait_until
from wheel_recordings import clip

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.scripted_engine import TICK_S, LoudnessSpeakerEncoder, LoudnessVad
from sidecar.interfaces.live_events import (
    Final,
    LiveEvent,
    LiveSessionStart,
    NoticeRaised,
    Partial,
    SessionRejected,
    Summary,
    TurnDropped,
    TurnEnded,
)
from sidecar.interfaces.live_options import (
    ALL_AUDIO,
    LIVE_RATE,
    LiveOptions,
    LiveOrder,
    TurnControl,
)
from sidecar.interfaces.recognition import PartialSchedule, RecognitionHypothesis, SegmentRequest
from sidecar.live.runtime.live_scheduler import (
    EngineSession,
    LiveRecognizers,
    LiveScheduler,
    RecognizeFunction,
)
from sidecar.live.runtime.load_shedding import UtteranceAdmission
from sidecar.live.runtime.recognition_plan import RecognitionUrgency
from sidecar.live.runtime.stream_recognizer import StreamRecognizer
from sidecar.live.runtime.vad import load_vad

SHARED = (
    *("frames", "process_frame", "next_task", "begin", "add_hypothesis"),
    *("segment_embeddings.began", "segment_embeddings.add_embedding", "relabel"),
)
"""Methods of and in `StreamRecognizer` that the shared threads call."""
FAULTS = (OverflowError, MemoryError, ValueError)


def words(request: SegmentRequest) -> RecognitionHypothesis:
    loud = round(float(np.abs(request.audio).max()) * 100)
    return RecognitionHypothesis(f"w{loud}", language="en")


@pytest.fixture
def hall(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveScheduler]:
    ended: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(repr(args.exc_value)))
    ears = LiveRecognizers(words, encoder=LoudnessSpeakerEncoder())
    one = LiveScheduler(ears, LoudnessVad(), "made-up", "fp32", threads=2, tick_s=TICK_S)
    yield one
    assert ended == [], "all threads go on"
    one.close()


def talk(level: float) -> Block:
    """Two utterances."""
    loud = np.full(LIVE_RATE, level, np.float32)
    quiet = np.zeros(LIVE_RATE, np.float32)
    return np.concatenate([loud, quiet, loud, quiet])


def said(
    hall: LiveScheduler, level: float, before: Callable[[EngineSession], None]
) -> tuple[EngineSession, list[LiveEvent]]:
    told: list[LiveEvent] = []
    options = LiveOptions(partials=False, client=str(level))
    seat = hall.open(options, LiveSessionStart(), told.append)
    before(seat)
    seat.push(talk(level))
    seat.push(LiveOrder.FINISH)
    return seat, told


def lasting(told: list[LiveEvent]) -> list[object]:
    """What was said: without how long that took, and with the labels of the summary alone."""
    said: list[object] = []
    for one in told:
        if isinstance(one, Final):
            said.append(
                (one.turn, one.segment_number, dataclasses.replace(one.segment, speaker=None))
            )
        elif isinstance(one, TurnEnded | Summary):
            said.append(one)
    return said


def untouched(seat: EngineSession) -> None:
    """Nothing is wrong with it."""


@pytest.mark.parametrize("method", SHARED)
@pytest.mark.parametrize("kind", FAULTS)
def test_fault_in_the_work_for_one_session_fails_that_session_alone(
    hall: LiveScheduler, method: str, kind: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind("of one session")

    wrong: list[errors.SidecarError] = []

    def faulty(seat: EngineSession) -> None:
        part, _, name = method.rpartition(".")
        setattr(getattr(seat.recognizer, part) if part else seat.recognizer, name, fail)
        seat.failed = wrong.append

    _, alone = said(hall, 0.3, untouched)
    wait_until(lambda: any(isinstance(one, Summary) for one in alone), "it is over")
    _, before = said(hall, 0.3, untouched)
    said(hall, 0.5, faulty)
    _, behind = said(hall, 0.3, untouched)
    wait_until(lambda: wrong, "it is told")
    for told in (before, behind):
        wait_until(lambda: any(isinstance(one, Summary) for one in told), "heard")  # noqa: B023
        assert lasting(told) == lasting(alone)
    assert [one.code for one in wrong] == ["engine_failed"]
    assert kind.__name__ in wrong[0].detail
    # A thread leaves its place only behind the last event.
    wait_until(lambda: hall.encoding == 0, "nobody takes the place of those at voices")


def test_failed_session_gets_no_more_events_and_no_second_error(hall: LiveScheduler) -> None:
    def fail(*_: object) -> None:
        raise ValueError("and again")

    wrong: list[errors.SidecarError] = []

    def faulty(seat: EngineSession) -> None:
        seat.recognizer.process_frame = seat.recognizer.leave = fail  # type: ignore[method-assign, assignment]
        seat.failed = wrong.append

    seat, told = said(hall, 0.3, faulty)
    wait_until(lambda: wrong, "it is told")
    seat.push(talk(0.3))
    seat.push(LiveOrder.FINISH)
    _, other = said(hall, 0.3, untouched)
    wait_until(lambda: any(isinstance(one, Summary) for one in other), "heard")
    seat.close()
    assert (len(wrong), told) == (1, [])


def test_backlog_is_read_under_the_lock(
    hall: LiveScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the deque of pieces changes while it is iterated, which ends the process."""
    held: list[bool] = []

    def backlog_s(self: StreamRecognizer) -> float:
        with ThreadPoolExecutor() as other:
            held.append(not other.submit(hall.lock.acquire, blocking=False).result())
        return 1.5

    monkeypatch.setattr(StreamRecognizer, "backlog_s", property(backlog_s))
    seat = hall.open(LiveOptions(), LiveSessionStart(), lambda event: None)
    assert (seat.backlog_s, held) == (1.5, [True])


@pytest.mark.parametrize("cancelled", [False, True], ids=["no words", "cancelled"])
def test_cost_of_recognition_is_measured_even_without_a_result(
    monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    heard, go_on, spoken = threading.Semaphore(0), threading.Event(), list[float]()

    def nothing(request: SegmentRequest) -> RecognitionHypothesis:
        heard.release()
        assert go_on.wait(PATIENCE_S)
        return RecognitionHypothesis("words" if cancelled else "")

    hall = LiveScheduler(
        LiveRecognizers(nothing), LoudnessVad(), "made-up", "fp32", threads=1, tick_s=TICK_S
    )
    monkeypatch.setattr(hall.load.costs, "spoken", spoken.append)
    seat = hall.open(LiveOptions(partials=False, client="one"), LiveSessionStart(), lambda _: None)
    seat.push(talk(0.3))
    assert heard.acquire(timeout=PATIENCE_S)
    if cancelled:
        seat.close()
    go_on.set()
    wait_until(lambda: sum(spoken) > 0.5, "its speech counts")
    hall.close()


@pytest.mark.parametrize("began", [0, 1], ids=["new", "restarted engine"])
def test_overload_refuses_a_new_session_but_not_an_utterance_admitted_before_a_restart(
    hall: LiveScheduler, monkeypatch: pytest.MonkeyPatch, began: int
) -> None:
    monkeypatch.setattr(hall.load, "admission", lambda *_: UtteranceAdmission.REFUSE)
    told: list[LiveEvent] = []
    seat = hall.open(LiveOptions(partials=False), LiveSessionStart(began=began), told.append)
    seat.push(talk(0.3)[: LIVE_RATE * 2])
    seat.push(LiveOrder.FINISH)
    last = Summary if began else SessionRejected
    wait_until(lambda: any(isinstance(one, last) for one in told), "it is over")
    assert any(isinstance(one, Final) for one in told) == bool(began)


def _is_summed_up(told: list[LiveEvent]) -> bool:
    return any(isinstance(one, Summary) for one in told)


def test_session_ahead_of_real_time_is_served_on_a_full_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()

    def held(request: SegmentRequest) -> RecognitionHypothesis:
        assert go_on.wait(PATIENCE_S)
        return words(request)

    hall = LiveScheduler(
        LiveRecognizers(held), LoudnessVad(), "made-up", "fp32", threads=1, tick_s=TICK_S
    )
    monkeypatch.setattr(hall.load, "admission", lambda *_: UtteranceAdmission.REFUSE)
    told: list[LiveEvent] = []
    seat = hall.open(LiveOptions(partials=False), LiveSessionStart(), told.append)
    seat.push(np.tile(talk(0.3), 6), ahead=True)
    seat.push(LiveOrder.FINISH)
    wait_until(lambda: seat.left or not seat.recognizer.busy, "all of it is heard")
    go_on.set()
    wait_until(lambda: seat.left, "it is over")
    assert sum(isinstance(one, Final) for one in told) == 12
    hall.close()


def test_all_audio_setting_leaves_noise_unrecognized_and_recognizes_quiet_speech() -> None:
    asked: list[int] = []

    def counted(request: SegmentRequest) -> RecognitionHypothesis:
        asked.append(len(request.audio))
        return RecognitionHypothesis("You")

    hall = LiveScheduler(
        LiveRecognizers(counted), load_vad(), "made-up", "fp32", threads=1, tick_s=TICK_S
    )
    noise = np.random.default_rng(0).normal(scale=0.1, size=2 * LIVE_RATE).astype(np.float32)
    texts = []
    for sound in (noise, 0.001 * clip("beckett")[: 2 * LIVE_RATE]):
        told: list[LiveEvent] = []
        options = LiveOptions(turns=TurnControl.CLIENT, endpointing=ALL_AUDIO, partials=False)
        seat = hall.open(options, LiveSessionStart(), told.append)
        seat.push(sound)
        seat.push(LiveOrder.FINISH)
        wait_until(partial(_is_summed_up, told), "it ended")
        texts.append([one.segment.text for one in told if isinstance(one, Final)])
    hall.close()
    assert texts[1] == ["You"]
    assert "".join(texts[0]) == ""
    assert len(asked) == 1


def test_draft_of_a_diarizing_engine_is_finished_even_if_its_last_audio_is_silence() -> None:
    def growing(request: SegmentRequest) -> RecognitionHypothesis:
        return RecognitionHypothesis(f"{len(request.audio) // LIVE_RATE} s", draft="state")

    schedule = PartialSchedule(1.0, 1.0, grows=True, turns=True)
    hall = LiveScheduler(
        LiveRecognizers(growing), load_vad(), "made-up", "fp32", threads=1, schedule=schedule
    )
    told: list[LiveEvent] = []
    options = LiveOptions(turns=TurnControl.CLIENT, endpointing=ALL_AUDIO)
    seat = hall.open(options, LiveSessionStart(), told.append)
    seat.push(clip("beckett")[: 2 * LIVE_RATE])
    wait_until(lambda: any(isinstance(one, Partial) for one in told), "it was heard")
    before = len(told)
    with hall.lock:
        seat.recognizer.audio.silence(0, 2 * LIVE_RATE)  # as behind a change of speakers
    seat.push(LiveOrder.FINISH)
    wait_until(partial(_is_summed_up, told), "it ended")
    hall.close()
    assert [one.segment.text for one in told[before:] if isinstance(one, Final)] == ["2 s"]


SPEECH_S = 0.7
"""Of speech: a partial of `hall_of_turns` is due, and no audio waits behind it."""


def speech(level: float, seconds: float = SPEECH_S) -> Block:
    return np.full(round(seconds * LIVE_RATE), level, np.float32)


def hall_of_turns(hear: RecognizeFunction, tick_s: float = TICK_S) -> LiveScheduler:
    """A scheduler with one thread for an engine that hears turns, half a second at a time."""
    schedule = PartialSchedule(0.5, 0.5, grows=True, turns=True)
    return LiveScheduler(
        LiveRecognizers(hear), LoudnessVad(), "made-up", "fp32", 1, schedule=schedule, tick_s=tick_s
    )


def test_audio_that_waits_for_a_diarizing_engine_is_backlog_and_gives_a_partials_late_notice() -> (
    None
):
    heard, go_on = threading.Semaphore(0), threading.Event()

    def held(request: SegmentRequest) -> RecognitionHypothesis:
        heard.release()
        assert go_on.wait(PATIENCE_S)
        return RecognitionHypothesis(f"{len(request.audio)} samples", draft="state")

    told: list[LiveEvent] = []
    hall = hall_of_turns(held)
    seat = hall.open(LiveOptions(diarize=False), LiveSessionStart(), told.append)
    seat.push(speech(0.3))
    assert heard.acquire(timeout=PATIENCE_S)
    seat.push(speech(0.3, 2.0))
    with hall.lock:
        assert seat.waiting_s >= 2.0
    assert seat.backlog_s >= 2.0
    go_on.set()
    wait_until(lambda: any(isinstance(one, NoticeRaised) for one in told), "it is told")
    hall.close()
    assert [one.notice.code for one in told if isinstance(one, NoticeRaised)] == ["partials_late"]


def test_partial_of_a_diarizing_engine_is_as_urgent_as_a_final_if_a_commit_waits_behind_it() -> (
    None
):
    order, go_on = list[str](), threading.Event()

    def held(request: SegmentRequest) -> RecognitionHypothesis:
        found = dataclasses.replace(words(request), draft="state")
        order.append(found.text)
        assert go_on.wait(PATIENCE_S)
        return found

    hall = hall_of_turns(held)
    seats = []

    def all_wait() -> bool:
        with hall.lock:
            return bool(order) and all(one.recognizer.held for one in seats)

    for client, level in (("one", 0.2), ("another", 0.3), ("one", 0.4)):
        options = LiveOptions(client=client)
        seats.append(hall.open(options, LiveSessionStart(), lambda _: None))
        seats[-1].push(speech(level))
        wait_until(all_wait, "it waits")
    seats[-1].push(LiveOrder.COMMIT)
    go_on.set()
    wait_until(lambda: len(order) > 2, "they are heard")
    hall.close()
    assert order[:2] == ["w20", "w40"], "not first the client that was served less"


def test_cancel_stops_the_running_recognition_and_skips_the_audio_sent_before_it() -> None:
    heard, told = list[int](), list[LiveEvent]()

    def until_cancelled(request: SegmentRequest) -> RecognitionHypothesis:
        heard.append(len(request.audio))
        wait_until(request.cancelled, "it is cancelled")
        return RecognitionHypothesis("words", draft="state")

    hall = hall_of_turns(until_cancelled)
    options = LiveOptions(turns=TurnControl.CLIENT, patience_s=PATIENCE_S)
    seat = hall.open(options, LiveSessionStart(), told.append)
    seat.push(speech(0.3, 5.0))
    wait_until(lambda: heard, "it is heard")
    seat.push(LiveOrder.CANCEL)
    wait_until(lambda: any(isinstance(one, TurnDropped) for one in told), "it is dropped")
    seat.push(LiveOrder.FINISH)
    wait_until(partial(_is_summed_up, told), "it ended")
    hall.close()
    assert len(heard) == 1
    assert not any(isinstance(one, Final) for one in told)


def test_audio_that_waits_for_a_diarizing_engine_is_recognized_without_a_wait_for_a_tick() -> None:
    heard = list[int]()

    def at_once(request: SegmentRequest) -> RecognitionHypothesis:
        heard.append(len(request.audio))
        return RecognitionHypothesis("words", draft="state")

    hall = hall_of_turns(at_once, tick_s=2 * PATIENCE_S)
    hall.open(LiveOptions(), LiveSessionStart(), lambda _: None).push(speech(0.3, 2.4))
    wait_until(lambda: len(heard) == 4, "all of it is heard")
    hall.close()


@pytest.mark.parametrize("utterances", [1, 12])
@pytest.mark.parametrize("client", ["one", "another"])
def test_microphone_however_much_of_it_waits_waits_for_no_final_of_a_file_that_waits(
    client: str, utterances: int
) -> None:
    order, go_on = list[str](), threading.Event()

    def held(request: SegmentRequest) -> RecognitionHypothesis:
        found = words(request)
        order.append(found.text)
        assert go_on.wait(PATIENCE_S)
        return found

    def open_one(client: str, tell: Callable[[LiveEvent], object]) -> EngineSession:
        options = LiveOptions(partials=False, client=client, wait_s=1.0)
        return hall.open(options, LiveSessionStart(), tell)

    told: list[LiveEvent] = []
    hall = LiveScheduler(
        LiveRecognizers(held), LoudnessVad(), "made-up", "fp32", threads=1, tick_s=TICK_S
    )
    hall.load.costs.measured(1.0, 0.05)  # five may speak
    file = open_one("one", lambda _: None)
    file.push(np.tile(talk(0.3), 3), ahead=True)
    wait_until(lambda: order and not file.recognizer.busy, "all of the file waits")
    assert file.waiting_s == 0.0 < file.recognizer.waiting_s
    now = time.monotonic()  # real time: the scheduler has no other clock
    assert file.speaker(now) is None, "it takes nothing from others"
    microphone = open_one(client, told.append)
    microphone.push(np.tile(talk(0.6)[: 2 * LIVE_RATE], utterances))
    for session in (file, microphone):
        session.push(LiveOrder.FINISH)

    def final_waits() -> bool:  # what it says up to a pause is less urgent than a file's finals
        task = microphone.recognizer.next_recognition()
        return task is not None and task.urgency is RecognitionUrgency.FINAL

    wait_until(final_waits, "its words wait")
    wait_until(lambda: not microphone.recognizer.busy, "all of it waits")
    go_on.set()
    wait_until(lambda: any(isinstance(one, Summary) for one in told), "it is over")
    finals = [one.segment.text for one in told if isinstance(one, Final)]
    assert finals == ["w60"] * utterances
    # behind what ran already, which may have been for a pause of the file
    assert order[1 : 1 + utterances] == finals, order
    hall.close()


def test_live_worker_process_exits_with_code_1_if_its_gpu_is_lost() -> None:
    program = """
from sidecar import errors
from sidecar.live.runtime.live_scheduler import LiveRecognizers
from sidecar.live.runtime.recognition_plan import RecognitionUrgency

def hear(request):
    raise errors.DeviceLost()

LiveRecognizers(hear).words(None, RecognitionUrgency.FINAL)
print("goes on")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (run.returncode, run.stdout) == (1, b""), run.stderr
