"""Words that an upstream answered are in the transcript, once: whatever it is, whatever it does."""

import asyncio
import itertools
import math
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_requests import transcript_of
from faulty_proxy import FaultyProxy
from hypothesis import given
from hypothesis import strategies as st
from marked_upstreams import SEGMENTS, TEXT, WORDS, MarkedUpstream, marked, words_until
from service_process import PATIENCE_S
from upstream_engine_samples import PATIENT_LIMITS, Engine
from upstream_stand_ins import StandIn

from sidecar import errors
from sidecar.clock import wall_time
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import UpstreamOptions
from sidecar.plugins.upstream import probe_memory
from sidecar.plugins.upstream.chunk_requests import ChunkRequests
from sidecar.plugins.upstream.errors import UpstreamFailed, UpstreamRefused
from sidecar.plugins.upstream.openai_dialect import UNTIMED_S
from sidecar.plugins.upstream.upstream_dialect import UpstreamDialect
from sidecar.transcripts.transcript import (
    WORDS_BY_ALIGNMENT,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
)

FORMS = [
    *(("sidecar", SEGMENTS), ("sidecar", WORDS), ("openai", TEXT), ("openai", SEGMENTS)),
    *(("openai", WORDS), ("vllm", SEGMENTS), ("vllm-streaming", TEXT)),
]
PIECES = st.sampled_from([0.0, 15.0, 40.0])
"""Longest chunk, in seconds; 0: what the upstream takes."""


def refused_beyond(seconds: float, longest_s: float) -> tuple[int, str]:
    return (413, "too large") if seconds > longest_s else (0, "")


def streamed_words(events: list[TranscriptionEvent]) -> list[str]:
    """The words that were reported before the end."""
    ready = [one.segment.text for one in events if isinstance(one, SegmentReady)]
    return " ".join(ready).split()


def left_out(transcript: Transcript) -> list[str]:
    """The options that a notice says an upstream did not take."""
    (notice,) = transcript.notices
    assert notice.code == "option_ignored"
    return notice.message.removesuffix(".").partition(": ")[2].split(", ")


@pytest.mark.parametrize("diarize", [False, True])
def test_words_of_an_upstream_without_times_come_once_from_the_first_recording_on(
    diarize: bool,
) -> None:
    """The noise is no speech for the diarizer of this service: it is sent all the same."""
    with MarkedUpstream("openai", TEXT) as there:
        engine = Engine(there.url, piece_s=40.0)
        for seconds in (90, 70):
            found = engine.transcript(marked(seconds), diarize=diarize)
            assert found.text.split() == words_until(seconds)
            assert all(one.words for one in found.segments), "they are aligned"
            assert {one.words_by for one in found.segments} == {WORDS_BY_ALIGNMENT}


@pytest.mark.parametrize(("dialect", "form"), [one for one in FORMS if TEXT not in one])
@pytest.mark.parametrize(
    "odd",
    [
        (math.nan, 2.0),
        (3.0, math.nan),
        (math.nan, math.nan),
        (1.0, math.inf),
        (None, 4.0),
        (5.0, 2.0),
        (100.0, 101.0),
        (-7.0, -3.0),
    ],
    ids=str,
)
def test_words_with_times_that_are_none_or_beyond_the_recording_stay_within_it(
    dialect: str, form: str, odd: tuple[float | None, float | None]
) -> None:
    with MarkedUpstream(dialect, form, odd=odd) as there:
        engine = Engine(there.url)
        found = engine.transcript(marked(12, engine.engine.sample_rate), diarize=False)
    assert sorted(found.text.split()) == sorted(words_until(12))
    times = [found.segments, *(one.words for one in found.segments)]
    assert all(0 <= one.start <= one.end <= 12 for some in times for one in some)


def test_upstream_is_asked_for_a_second_of_speech_in_each_form_until_it_answers_one() -> None:
    with MarkedUpstream("openai") as there:
        there.refuses = lambda fields, _: (
            400 * ("timestamp_granularities[]" in fields),
            "no words",
        )
        engine = Engine(there.url)
        assert [(one["refused"], one["seconds"]) for one in there.asked] == [(400, 1.0), (0, 1.0)]
        there.asked.clear()
        engine.transcript(marked(12), diarize=False)
    assert [one["response_format"] for one in there.asked] == ["verbose_json"]
    assert "timestamp_granularities[]" not in there.asked[0]


@pytest.mark.parametrize(
    ("key", "age_s", "asked"),
    [("sesame", 60, 0), ("sesame", 86_401, 2), ("sesame", -60, 2), ("", 60, 2)],
    ids=["with a key", "a day later", "of a clock that was wrong", "without a key"],
)
def test_upstream_with_a_key_is_asked_for_speech_once_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, age_s: int, asked: int
) -> None:
    file = tmp_path / "data/upstreams.json"
    options: dict[str, Any] = {"keys": (key,), "answers": str(file)}
    with MarkedUpstream("openai") as there:
        there.refuses = lambda fields, _: (
            400 * ("timestamp_granularities[]" in fields),
            "no words",
        )
        Engine(there.url, **options)
        assert [one["refused"] for one in there.asked] == [400, 0]
        there.asked.clear()
        now = wall_time()
        monkeypatch.setattr(probe_memory, "wall_time", lambda: now + age_s)
        engine = Engine(there.url, **options)
        assert len(there.asked) == asked
        there.asked.clear()
        assert engine.transcript(marked(12), diarize=False).text.split() == words_until(12)
    assert "timestamp_granularities[]" not in there.asked[0]
    assert file.exists() == bool(key)
    assert not key or key not in file.read_text("utf-8")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"SERVER": "words"}', '{"SERVER": ["x", 1]}', '{"SERVER": ["text", null]}'],
)
def test_unreadable_memory_of_an_upstream_is_as_none_and_is_replaced(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "upstreams.json"
    with MarkedUpstream("openai") as there:
        file.write_text(content.replace("SERVER", f"{there.url} {there.model}"), "utf-8")
        for asked in (1, 0):
            Engine(there.url, keys=("sesame",), answers=str(file))
            assert len(there.asked) == asked
            there.asked.clear()


@pytest.mark.parametrize("dialect", ["openai", "vllm", "vllm-streaming"])
def test_prompt_that_an_upstream_refuses_as_too_long_is_left_out_and_chunks_stay_as_long(
    dialect: str,
) -> None:
    too_long = (400, "This model's maximum context length is 448 tokens.")
    with MarkedUpstream(dialect) as there:
        engine = Engine(there.url)
        sound = marked(60, engine.engine.sample_rate)
        there.refuses = lambda fields, _: (
            too_long if "Nagg" in fields.get("prompt", "") else (0, "")
        )
        found = engine.transcript(sound, diarize=False, prompt="Nagg " * 200)
        assert (found.text.split(), left_out(found)) == (words_until(60), ["prompt"])
        there.asked.clear()
        assert engine.transcript(sound, diarize=False).notices == ()
    assert [one["seconds"] for one in there.asked] == [60.0]


@pytest.mark.parametrize("prompt", ["", "Nagg"])
@pytest.mark.parametrize("why", ["Input should be 'en' or 'de' for language", "invalid"])
def test_language_that_an_upstream_refuses_is_left_out_and_later_requests_stay_the_same(
    prompt: str, why: str
) -> None:
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url)
        there.refuses = lambda fields, _: (422, why) if fields.get("language") == "uk" else (0, "")
        found = engine.transcript(marked(12), diarize=False, language="uk", prompt=prompt)
        assert found.text.split() == words_until(12)
        assert left_out(found)[-1] == "language"
        assert found.language == "auto", "nobody knows it"
        assert "prompt" not in left_out(found) or why == "invalid"
        there.asked.clear()
        assert all(one.words for one in engine.transcript(marked(12), diarize=False).segments)
    (asked,) = there.asked
    assert asked["timestamp_granularities[]"]


def test_options_that_an_upstream_refuses_are_left_out_of_later_chunks_of_the_recording() -> None:
    """Two chunks are under way at once: each of them may find out."""
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url, piece_s=15.0)
        there.refuses = lambda fields, _: (
            400 * bool({"language", "prompt"} & fields.keys()),
            "invalid",
        )
        found = engine.transcript(marked(90), diarize=False, language="uk", prompt="Nagg")
        assert found.text.split() == words_until(90)
        assert sorted(left_out(found)) == ["language", "prompt"]
        assert len([one for one in there.asked if one["refused"]]) <= 2 * 2
        there.refuses, there.asked = lambda *_: (0, ""), []
        engine.transcript(marked(7), diarize=False, language="uk", prompt="Nagg")
    assert [(one["language"], one["prompt"]) for one in there.asked] == [("uk", "Nagg")]


def test_prompt_that_one_upstream_refuses_is_sent_to_another() -> None:
    with MarkedUpstream("openai", WORDS) as one, MarkedUpstream("openai", WORDS) as other:
        engine = Engine(one.url, other.url)
        one.refuses = lambda fields, _: (400, "invalid") if "prompt" in fields else (500, "broken")
        other.asked.clear()
        found = engine.transcript(marked(12), diarize=False, prompt="Nagg")
    assert found.text.split() == words_until(12)
    assert found.notices == ()
    assert [asked["prompt"] for asked in other.asked] == ["Nagg"]


@pytest.mark.parametrize("dialect", ["openai", "vllm", "vllm-streaming", "sidecar"])
@pytest.mark.parametrize("seconds", [7, 31])
@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refusal_is_of_the_recording_only_if_the_upstream_takes_a_second_of_speech(
    dialect: str, seconds: int, status: int
) -> None:
    with MarkedUpstream(dialect) as there:
        engine = Engine(there.url)
        sound = marked(seconds, engine.engine.sample_rate)
        for longest_s, fault in ((1.5, Fault.RECORDING), (0.0, Fault.UPSTREAM)):
            there.refuses = lambda _, seconds, most_s=longest_s: (
                (status * (seconds > most_s), "The model `x` does not exist")
            )
            with pytest.raises(errors.SidecarError) as caught:
                engine.transcript(sound, diarize=False)
            assert caught.value.fault is fault
        there.refuses = lambda *_: (0, "")
        assert engine.transcript(sound, diarize=False).text.split() == words_until(seconds)


def test_request_that_is_answered_in_a_simpler_form_only_changes_no_later_one() -> None:
    """A minute without times is aligned as it is: in parts of at most 28 s."""
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url)
        there.refuses = lambda fields, _: (
            400 * (fields["response_format"] == "verbose_json"),
            "not today",
        )
        found = engine.transcript(marked(60), diarize=False)
        assert found.text.split() == words_until(60)
        assert len(found.segments) == 3
        assert {one.words_by for one in found.segments} == {WORDS_BY_ALIGNMENT}
        there.refuses, there.asked = lambda *_: (0, ""), []
        assert len(engine.transcript(marked(60), diarize=False).segments) == 60
    assert [one["seconds"] for one in there.asked] == [60.0]


def test_chunks_are_as_long_as_the_longest_that_was_answered_after_a_longer_one_was_refused() -> (
    None
):
    with MarkedUpstream("openai") as there:
        engine = Engine(there.url)
        there.refuses = lambda _, seconds: refused_beyond(seconds, 1.5)
        with pytest.raises(errors.SidecarError):
            engine.transcript(marked(60), diarize=False)
        there.asked.clear()
        there.refuses = lambda _, seconds: refused_beyond(seconds, 20.0)
        for _ in range(2):
            found = engine.transcript(marked(60), diarize=False)
            assert found.text.split() == words_until(60)
    assert there.asked[0]["seconds"] == 60.0, "a refusal alone teaches nothing"
    sizes = [(one["seconds"], one["refused"]) for one in there.asked]
    refused = [at for at, one in enumerate(sizes) if one[1]]
    assert max(refused) < len(sizes) - 3, "the second recording has chunks that it takes"


def test_recording_goes_in_short_chunks_to_an_upstream_found_to_give_no_times_after_it_began() -> (
    None
):
    """A second of speech fails at the load and as the recording begins: a model that starts."""
    with MarkedUpstream("openai", TEXT) as there:
        starting = [500, 500]
        there.refuses = lambda *_: (starting.pop() if starting else 0, "starting")
        engine = Engine(there.url)
        for _ in range(2):
            assert engine.transcript(marked(120), diarize=False).text.split() == words_until(120)
    sent = [one["seconds"] for one in there.asked if not one["refused"]]
    assert sent[0] == 1.0, "the form was not known"
    assert max(sent) <= UNTIMED_S


@pytest.mark.parametrize("seconds", [7, 31])
@pytest.mark.parametrize("most_s", [0.0, 1.5], ids=["all", "the recording"])
def test_recording_that_one_upstream_calls_too_large_is_transcribed_by_another(
    seconds: int, most_s: float
) -> None:
    with MarkedUpstream("openai", WORDS) as one, MarkedUpstream("openai", WORDS) as other:
        engine = Engine(one.url, other.url)
        one.asked.clear()
        one.refuses = lambda _, seconds: refused_beyond(seconds, most_s)
        found = engine.transcript(marked(seconds), diarize=False)
    assert one.asked[0]["refused"], "it was asked"
    assert found.text.split() == words_until(seconds)
    assert found.engine == f"upstream 127.0.0.1:{other.port}"


def test_upstreams_that_differ_in_their_path_get_requests_of_their_own_and_are_named_by_it() -> (
    None
):
    one, other = MarkedUpstream("openai", WORDS), MarkedUpstream("sidecar")
    with StandIn() as gateway:
        gateway.app.mount("/one", one.app)
        gateway.app.mount("/other", other.app)
        engine = Engine(f"{gateway.url}/one", f"{gateway.url}/other")
        one.refuses = lambda *_: (500, "broken")
        found = engine.transcript(marked(12), diarize=False)
    assert found.text.split() == words_until(12)
    assert found.engine == f"upstream 127.0.0.1:{gateway.port}/other"
    assert [asked["seconds"] for asked in one.asked] == [1.0, 12.0]


@pytest.mark.parametrize("form", [SEGMENTS, WORDS])
@pytest.mark.parametrize("fault", ["third", "half"])
@pytest.mark.parametrize("joined", [(1, 4), (4, 1), (2, 3), (3, 2, 5), (3, 3)], ids=str)
def test_words_streamed_of_an_answer_that_breaks_off_are_not_streamed_again_and_the_others_are(
    joined: tuple[int, ...], fault: str, form: str
) -> None:
    with MarkedUpstream("sidecar", form) as there, FaultyProxy(there.port) as proxy:
        engine = Engine(proxy.url)
        proxy.plan.extend([fault] * (len(joined) - 1))
        there.joined.extend(joined)
        events = engine.events(marked(40), diarize=False)
    assert streamed_words(events) == words_until(40)
    assert transcript_of(events).text.split() == words_until(40)


def test_words_streamed_by_vllm_that_takes_no_begun_answer_are_streamed_once() -> None:
    with MarkedUpstream("vllm") as there, FaultyProxy(there.port) as proxy:
        engine = Engine(proxy.url)
        proxy.plan.extend(["half", "400", "half"])
        events = engine.events(marked(7, engine.engine.sample_rate), diarize=False)
    assert streamed_words(events) == words_until(7)


def test_words_said_beyond_the_end_of_a_chunk_hide_none_of_the_next_in_the_stream() -> None:
    with MarkedUpstream("sidecar", odd=(100.0, 101.0)) as there:
        engine = Engine(there.url, piece_s=15.0)
        events = engine.events(marked(40), diarize=False)
    assert sorted(streamed_words(events)) == sorted(words_until(40))


def test_all_who_wait_for_a_second_of_speech_share_its_answer_or_its_failure() -> None:
    with MarkedUpstream("openai", WORDS, lambda *_: (500, "starting")) as there:
        requests = ChunkRequests(UpstreamOptions((there.url,)), PATIENT_LIMITS)
        (upstream,) = requests.upstreams

        async def wait_for_it() -> list[UpstreamDialect | BaseException]:
            waiting = [asyncio.create_task(upstream.ready()) for _ in range(8)]
            await asyncio.sleep(0)  # they have begun
            waiting[0].cancel()
            return await asyncio.gather(*waiting[1:], return_exceptions=True)

        assert {*map(type, requests.run(wait_for_it()).result())} == {UpstreamFailed}
        assert len(there.asked) == 1
        there.refuses, there.asked = lambda *_: (0, ""), []
        assert {*map(type, requests.run(wait_for_it()).result())} == {UpstreamDialect}
        assert len(there.asked) == 1


@given(data=st.data())
def test_words_in_are_words_out_once_after_an_upstream_changed_its_model_in_the_middle(
    data: st.DataObject,
) -> None:
    dialect, form = data.draw(st.sampled_from(FORMS))
    then = data.draw(st.sampled_from(FORMS))
    answered = data.draw(st.integers(0, 3))
    seconds, piece_s = data.draw(st.sampled_from([7, 31, 64])), data.draw(PIECES)
    with MarkedUpstream(dialect, form) as there:
        engine = Engine(there.url, piece_s=piece_s)
        sound = marked(seconds, engine.engine.sample_rate)
        there.unknown_model = data.draw(st.sampled_from([400, 404, 405]))
        there.asked.clear()

        def changes(*_: object) -> tuple[int, str]:
            if len(there.asked) >= answered:
                there.become(*then, version=2)
            return 0, ""

        there.refuses = changes
        try:
            events = engine.events(sound, diarize=False)
        except UpstreamRefused as error:
            assert error.fault is not Fault.RECORDING, "a job waits"  # noqa: PT017
            events = engine.events(sound, diarize=False)
    for words in (transcript_of(events).text.split(), streamed_words(events)):
        assert words == words_until(seconds)


def test_upstream_that_refuses_each_request_is_probed_once_an_attempt() -> None:
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url)
        there.refuses = lambda _, seconds: (404 * (seconds > 1.0), "no such model")
        for probes in ([], [1.0]):
            there.asked.clear()
            with pytest.raises(UpstreamRefused):
                engine.transcript(marked(12), diarize=False)
            assert [one["seconds"] for one in there.asked] == [*probes, 12.0]


def test_upstream_with_no_model_at_the_load_is_known_by_the_one_that_it_has_later() -> None:
    with MarkedUpstream("openai", WORDS, lambda *_: (404, "no such model")) as there:
        engine = Engine(there.url)
        there.refuses = lambda *_: (0, "")
        there.become("vllm", version=2)
        sound = marked(12, engine.engine.sample_rate)
        assert engine.transcript(sound, diarize=False).text.split() == words_until(12)


def test_length_that_an_upstream_refused_is_forgotten_with_its_model() -> None:
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url)
        there.refuses = lambda _, seconds: refused_beyond(seconds, 20.0)
        engine.transcript(marked(60), diarize=False)
        there.refuses = lambda *_: (0, "")
        there.become("openai", WORDS, version=2)
        with pytest.raises(UpstreamRefused):
            engine.transcript(marked(60), diarize=False)
        there.asked.clear()
        engine.transcript(marked(60), diarize=False)
    # a chunk of the recording before may still have been on its way
    assert [one["seconds"] for one in there.asked if one["seconds"] in (1.0, 60.0)] == [1.0, 60.0]


FAULTS = ["429", "500", "503", "gone", "third", "half", "garbage", "no http"]
REFUSALS = ["400", "413"]
ODD = [(math.nan, 2.0), (1.0, math.inf), (100.0, 101.0), (5.0, 2.0)]
Server = tuple[MarkedUpstream, list[FaultyProxy]]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[tuple[str, str], Server]]:
    """A server of each dialect and form, behind two proxies."""
    with ExitStack() as running:
        found = {}
        for dialect, form in FORMS:
            there = running.enter_context(MarkedUpstream(dialect, form))
            proxies = [running.enter_context(FaultyProxy(there.port)) for _ in range(2)]
            found[dialect, form] = (there, proxies)
            for proxy in proxies:
                proxy.retry_after = "0.01"
        yield found


@given(data=st.data())
def test_words_in_are_words_out_once_whatever_an_upstream_does(
    servers: dict[tuple[str, str], Server], data: st.DataObject
) -> None:
    there, proxies = servers[data.draw(st.sampled_from(FORMS))]
    used = proxies[: data.draw(st.integers(1, 2))]
    longest_s = data.draw(st.sampled_from([1e9, 21.0]))
    there.odd = data.draw(st.none() | st.sampled_from(ODD))
    refuses_all = data.draw(st.sampled_from([0, 0, 0, 400, 422]))
    there.refuses = lambda _, seconds: (
        (refuses_all, "no such model") if refuses_all else refused_beyond(seconds, longest_s)
    )
    limits = replace(
        PATIENT_LIMITS, max_backoff_s=0.1, broken_servers=99, unreachable_wait_s=PATIENCE_S
    )
    faults = st.lists(st.sampled_from([*FAULTS, *REFUSALS]), max_size=4)
    plans = [data.draw(faults) for _ in used]
    seconds = data.draw(st.sampled_from([7, 31, 64]))
    options = data.draw(st.sampled_from([{}, {"prompt": "Ada", "language": "en"}]))
    same_times = bool(there.odd) or there.form != WORDS  # else some words have no known time
    there.joined.clear()
    there.joined.extend(data.draw(st.lists(st.integers(1, 1 if same_times else 4), max_size=20)))
    engine = Engine(*(proxy.url for proxy in used), limits=limits, piece_s=data.draw(PIECES))
    sound = marked(seconds, engine.engine.sample_rate)
    try:  # no draw from here on: it may end the example, and leave the plans
        for proxy, plan in zip(used, plans, strict=True):
            proxy.plan.extend(plan)
        with pytest.raises(errors.SidecarError) if refuses_all else nullcontext() as caught:
            events = engine.events(sound, diarize=False, **options)  # type: ignore[arg-type]
            found = transcript_of(events)
    except errors.SidecarError:
        assert set(itertools.chain(*plans)) & set(REFUSALS), "it was refused"
    else:
        if caught is not None:
            assert caught.value.fault is Fault.UPSTREAM, "it refuses speech, too"
            return
        in_order = sorted if there.odd else list
        for words in (found.text.split(), streamed_words(events)):
            assert in_order(words) == in_order(words_until(seconds))
    finally:
        for proxy in proxies:
            proxy.plan.clear()
