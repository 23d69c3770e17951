"""The pure part of the streaming wire: words are never taken back, every request has one final."""

import asyncio
import json
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.interfaces import live_events
from sidecar.plugins.yap.inbound_queue import InboundQueue
from sidecar.plugins.yap.messages import YapIds, close_of
from sidecar.plugins.yap.settings import YapCloseCodes
from sidecar.plugins.yap.utterances import YapUtterances, YapWordDeltas
from sidecar.transcripts.transcript import Notice, Segment

WORDS = st.lists(st.sampled_from(("one", "two,", "three", "4.")), max_size=6)


@given(st.lists(st.tuples(WORDS, st.lists(st.integers(0, 6), max_size=4), st.booleans())))
def test_joined_deltas_are_the_transcript(pieces: list[tuple[list[str], list[int], bool]]) -> None:
    deltas, told, said = YapWordDeltas(), "", []
    deltas.begins(0.0)
    for number, (words, lengths, early) in enumerate(pieces):
        for length in sorted(lengths):
            told += deltas.partial(number, " ".join(words[:length]), float(number))
        if early:  # the next piece begins before this one's final is there
            assert deltas.partial(number + 1, "soon", number + 1.0) == ""
        told += deltas.final(number, " ".join(words))
        said += words
    assert told == " ".join(said)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_final_that_differs_from_its_partials_repeats_no_word(
    pieces: list[tuple[list[str], list[str]]],
) -> None:
    deltas, told, count = YapWordDeltas(), "", 0
    for number, (stable, final) in enumerate(pieces):
        told += deltas.partial(number, " ".join(stable))
        told += deltas.final(number, " ".join(final))
        count += max(len(stable), len(final))
    assert len(told.split()) == count


@given(WORDS, WORDS, WORDS, st.integers(0, 12))
def test_final_that_is_cut_at_another_speaker_repeats_and_loses_no_word(
    first: list[str], second: list[str], third: list[str], stable: int
) -> None:
    deltas = YapWordDeltas()
    whole = [*first, *second]
    told = deltas.partial(0, " ".join(whole[:stable]), 0.0, 0.5 * min(stable, len(whole)))
    told += deltas.final(0, " ".join(first), 0.0)
    told += deltas.final(1, " ".join(second), 0.5 * len(first) - 0.2)
    told += deltas.final(2, " ".join(third), 0.5 * len(whole))
    assert told.split() == [*whole, *third]


def test_next_segment_after_a_final_of_fewer_words_loses_none() -> None:
    deltas = YapWordDeltas()
    told = deltas.partial(0, "I I think so", 0.0, 1.0) + deltas.final(0, "I think so", 0.0)
    told += deltas.partial(1, "", 1.5, 2.0) + deltas.final(1, "Hello world again", 1.5)
    assert told == "I I think so Hello world again"


def test_partial_of_a_segment_that_was_cut_off_repeats_no_word() -> None:
    deltas = YapWordDeltas()
    told = deltas.partial(0, "one two three four", 0.0, 2.0) + deltas.final(0, "one two", 0.0)
    told += deltas.partial(1, "three four five", 1.0, 2.5) + deltas.final(1, "three four five", 1.0)
    assert told == "one two three four five"


def test_final_in_thai_that_is_cut_repeats_nothing() -> None:
    deltas = YapWordDeltas()
    told = deltas.partial(0, "ผมกำลังครูสอน", 0.0, 2.0) + deltas.final(0, "ผมกำลัง", 0.0)
    assert told + deltas.final(1, "ครูสอน", 1.0) == "ผมกำลังครูสอน"


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ([(["我们"], "我们明天去北京。"), ([], "然后吃饭。")], "我们明天去北京。然后吃饭。"),
        ([(["我", "我们"], "我们明天")], "我们明天"),
        ([(["ผมกำลัง"], "ผมกำลังจะไป"), (["ครู"], "ครูสอน")], "ผมกำลังจะไป ครูสอน"),
        ([(["私は"], "私は学校に"), (["OK"], "OK です")], "私は学校に OK です"),
        ([(["안녕"], "안녕 하세요"), ([], "네")], "안녕 하세요 네"),
    ],
)
def test_joined_deltas_have_all_words_and_no_space_more_in_scripts_without_spaces(
    segments: list[tuple[list[str], str]], told: str
) -> None:
    deltas, found = YapWordDeltas(), ""
    for number, (partials, final) in enumerate(segments):
        found += "".join(deltas.partial(number, stable) for stable in partials)
        found += deltas.final(number, final)
    assert found == told


def test_enrolled_speakers_who_are_identified_before_the_end_are_named_in_the_answer() -> None:
    utterances = YapUtterances()
    utterances.begin(YapIds("s", "r"))
    utterances.active(YapIds("s", "r")).bytes += 2
    utterances.end(YapIds("s", "r"))
    *_, answer = [
        json.loads(frame)
        for event in (
            live_events.Final(0, 0, Segment(0.0, 0.9, "Do you hear me?", 0)),
            live_events.Final(0, 1, Segment(1.5, 1.9, "Yes.", 0), name="Hamm"),
            live_events.SpeakersRevised({1: 1}, {0: "Nagg", 1: None}),
            live_events.TurnEnded(0, 0.0, 2.0, "Do you hear me? Yes."),
        )
        for frame in utterances.frames_of(event)
    ]
    told = [(one["speaker"], one.get("name")) for one in answer["payload"]["segments"]]
    assert told == [("Speaker_0", "Nagg"), ("Speaker_1", None)]


def test_segment_without_partials_is_sent_before_the_next_ones_partials() -> None:
    utterances = YapUtterances()
    utterances.begin(YapIds("s", "r"))
    utterances.active(YapIds("s", "r")).bytes += 2
    told = ""
    for event in (
        live_events.SpeechStarted(0, 0.3),
        live_events.Partial(0, 1, 1.2, 2.0, "and more", "and more"),
        live_events.Final(0, 0, Segment(0.3, 0.7, "No", None)),
        live_events.Partial(0, 1, 1.2, 2.4, "and more of", "and more of"),
        live_events.Final(0, 1, Segment(1.2, 2.6, "and more of it", None)),
    ):
        frames = [json.loads(raw) for raw in utterances.frames_of(event)]
        told += "".join(one["payload"].get("delta", "") for one in frames)
    assert told == "No and more of it"


COMMIT, FORGET = object(), object()


class Engine:
    """What a session does with what it is told, and events that come as late as they like."""

    def __init__(self) -> None:
        self.asked: deque[Any] = deque()
        self.events: deque[live_events.LiveEvent] = deque()
        self.turn, self.piece, self.said = 0, 0, list[str]()

    def ask(self, what: Any) -> None:
        self.asked.append(what)

    def step(self) -> None:
        what = self.asked.popleft()
        if what is FORGET:  # behind all that was asked before
            self.events.append(live_events.TurnDropped(self.turn, 0.0))
        elif what is COMMIT:
            self.events.append(live_events.TurnEnded(self.turn, 0.0, 0.0, " ".join(self.said)))
        else:
            self.said.append(what)
            self.events.append(live_events.Partial(self.turn, self.piece, 0.0, 0.0, what, what))
            self.events.append(
                live_events.Final(self.turn, self.piece, Segment(0.0, 0.0, what, None))
            )
            self.piece += 1
            return
        self.turn, self.said = self.turn + 1, []


STORIES = (
    "begin sound sound end",
    "begin sound engine begin sound engine end engine engine",
    "engine event engine event",
    "begin sound end begin sound begin sound end",
)
"""What steps often are in a row."""


@given(
    st.lists(
        st.sampled_from(("begin", "sound", "end", "cancel", "undo", "engine", "event")).flatmap(
            lambda step: st.just(step) | st.sampled_from(STORIES)
        ),
        max_size=12,
    )
)
def test_every_ended_and_not_cancelled_request_has_one_final_of_its_own_words(
    steps: list[str],
) -> None:
    utterances, engine = YapUtterances(), Engine()
    frames: list[dict[str, Any]] = []
    sent: dict[str, list[str]] = {}
    ended: list[str] = []
    silent: set[str] = set()
    active: str | None = None

    def hear() -> None:
        for raw in utterances.frames_of(engine.events.popleft()):
            frame = json.loads(raw)
            assert frame["request_id"] not in silent
            frames.append(frame)

    for step in " ".join(steps).split():
        if step == "begin":
            if active is not None:
                silent.add(active)
            active = f"r{len(sent)}"
            sent[active] = []
            if utterances.begin(YapIds("s", active)):
                engine.ask(FORGET)
        elif step == "sound" and active is not None:
            utterances.active(YapIds("s", active)).bytes += 2
            sent[active].append(f"{active}-{len(sent[active])}")
            engine.ask(sent[active][-1])
        elif step == "end" and active is not None:
            utterances.end(YapIds("s", active))
            engine.ask(COMMIT)
            ended.append(active)
            active = None
        elif step in ("cancel", "undo"):
            # "undo" names the last that has ended, and what has no final of it yet has none
            named = ended[-1] if step == "undo" and ended else active or "nobody"
            finals = {one["request_id"] for one in frames if one["type"] == "transcription.done"}
            silent |= {named} - finals
            if utterances.cancel(YapIds("s", named)):
                engine.ask(FORGET)
            if named == active:
                active = None
        elif step == "engine" and engine.asked:
            engine.step()
        elif step == "event" and engine.events:
            hear()
    while engine.asked:
        engine.step()
    while engine.events:
        hear()
    done = [one for one in frames if one["type"] == "transcription.done"]
    assert [one["request_id"] for one in done] == [one for one in ended if one not in silent]
    for one in done:
        request = one["request_id"]
        assert one["payload"]["text"] == " ".join(sent[request])
        told = [frame for frame in frames if frame["request_id"] == request]
        deltas = [each["payload"]["delta"] for each in told if "delta" in each["payload"]]
        assert "".join(deltas) == one["payload"]["text"]
        assert [each["type"] for each in told[-3:]] == ["final", "done", "transcription.done"]


def test_cancel_of_an_ended_or_unknown_request_leaves_the_active_one() -> None:
    utterances, active = YapUtterances(), YapIds("s", "r2")
    utterances.begin(YapIds("s", "r1"))
    utterances.end(YapIds("s", "r1"))
    utterances.begin(active)
    utterances.active(active).bytes += 2
    for other in ("r1", "r0"):
        assert utterances.cancel(YapIds("s", other)) is False
        assert utterances.active(active)
    assert utterances.cancel(active) is True


def test_repeated_begin_of_a_request_keeps_its_audio() -> None:
    utterances, ids = YapUtterances(), YapIds("s", "r1")
    assert utterances.begin(ids) is False
    utterances.active(ids).bytes += 2
    assert utterances.begin(ids) is False
    assert utterances.active(ids).bytes == 2


def test_notice_is_a_status_of_the_active_request() -> None:
    utterances = YapUtterances()
    utterances.begin(YapIds("s", "r"))
    notice = live_events.NoticeRaised(Notice("engine_restarted", "The engine was restarted."))
    [frame] = map(json.loads, utterances.frames_of(notice))
    assert (frame["type"], frame["request_id"]) == ("status", "r")
    assert (frame["payload"]["kind"], frame["payload"]["code"]) == ("notice", "engine_restarted")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.TokenMissing(), 4001, "authentication_failed"),
        (errors.OriginNotAllowed(), 4001, "authentication_failed"),
        (errors.LiveFull(), 4002, "server_at_capacity"),
        (errors.LiveLimited(), 4002, "server_at_capacity"),
        (errors.RateLimited(), 4002, "message_rate_limited"),
        (errors.SessionIdle(), 4000, "idle timeout"),
        (errors.SessionTooLong(), 4003, "max connection duration reached"),
        (errors.ShuttingDown(), 1001, "shutting_down"),
        (errors.LiveUnavailable(), 1003, "live_unavailable"),
        (errors.SidecarError(), 1011, "internal"),
    ],
)
def test_error_closes_the_connection_with_its_code_and_reason_or_those_of_the_settings(
    error: errors.SidecarError, code: int, reason: str
) -> None:
    last = close_of(error, YapCloseCodes())
    assert (last.code, last.reason) == (code, reason)
    newer = close_of(error, YapCloseCodes(unauthorized=1008, busy=1013, idle_reason="idle_timeout"))
    assert newer.code == {4001: 1008, 4002: 1013}.get(code, code)
    assert newer.reason == {"idle timeout": "idle_timeout"}.get(reason, reason)


async def test_full_inbound_queue_takes_one_message_and_the_next_once_it_has_space() -> None:
    inbound = InboundQueue(most_bytes=1000)
    await inbound.put("large", 5000)
    messages = aiter(inbound)
    for empty in (anext(messages), asyncio.to_thread(str)):
        adding = asyncio.ensure_future(inbound.put("next", 1))
        assert not (await asyncio.wait({adding}, timeout=0.01))[0]
        await empty
        inbound.clear()
        await adding
        assert await anext(messages) == "next"
        await inbound.put("large", 5000)
