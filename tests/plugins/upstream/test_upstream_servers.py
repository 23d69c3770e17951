"""The engine against servers that run here: our own service, faults in between, two stand-ins."""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fastapi import Request, Response
from faulty_proxy import FaultyProxy
from service_process import PATIENCE_S, Server, StartServer, free_port, wait_until
from upstream_engine_samples import PATIENT_LIMITS, RATE, Engine, Sound
from upstream_stand_ins import OpenAiStandIn, VllmStandIn, words_of

from sidecar import errors
from sidecar.api.http.responses import SSE_KEEP_ALIVE_S
from sidecar.diarization.diarizer import enrolment_embedding
from sidecar.diarization.speaker_models import load_models
from sidecar.plugins.upstream import audio_chunks, upstream_client
from sidecar.plugins.upstream.errors import (
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from sidecar.plugins.upstream.load_balancer import FailoverLimits
from sidecar.transcripts.transcript import (
    Finished,
    Progress,
    SegmentReady,
    SpeakerCandidate,
    Transcript,
)
from sidecar.transcripts.transcript_formats import transcript_body


@pytest.fixture(scope="module")
def noise() -> Sound:
    """Twelve seconds that are the same every time."""
    dice = np.random.default_rng(7)
    samples = dice.integers(-3000, 3000, 12 * RATE) / 32768
    return Sound(samples.astype(np.float32))


def heard(transcript: object) -> list[tuple[float, str, int | None]]:
    return [(one.start, one.text, one.speaker) for one in transcript.segments]  # type: ignore[attr-defined]


def test_transcript_equals_that_of_the_upstream(server: Server, two_voices: Sound) -> None:
    there = server.post(two_voices.wav(), language="en").json()
    here = transcript_body(
        Engine(f"http://127.0.0.1:{server.port}").transcript(two_voices, language="en")
    )
    assert here["segments"] == there["segments"]
    assert len(here["segments"]) == 14
    assert here["metadata"]["engine"] == f"upstream 127.0.0.1:{server.port}"
    for name in ("duration", "language", "model_precision", "num_speakers", "diarized"):
        assert here["metadata"][name] == there["metadata"][name], name


def test_all_options_reach_the_upstream(proxy: FaultyProxy, noise: Sound) -> None:
    Engine(proxy.url).transcript(
        noise,
        prompt="Ada, Bob",
        min_speakers=2,
        max_speakers=3,
        max_tokens=500,
        diarize=False,
        temperature=0.2,
    )
    (body,) = proxy.posts
    for name, value in {
        "prompt": "Ada, Bob",
        "min_speakers": "2",
        "max_speakers": "3",
        "max_tokens": "500",
        "diarize": "false",
        "temperature": "0.2",
        "precision": "auto",
    }.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body, name


@pytest.mark.parametrize("fault", ["500", "429", "gone", "half", "garbage", "no http"])
def test_chunk_that_failed_once_is_sent_again_and_the_transcript_is_the_same(
    proxy: FaultyProxy, noise: Sound, fault: str
) -> None:
    engine = Engine(proxy.url)
    right = heard(engine.transcript(noise))
    proxy.posts.clear()
    proxy.plan.append(fault)
    assert heard(engine.transcript(noise)) == right
    assert len(proxy.posts) == 2
    assert len(set(map(len, proxy.posts))) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("500", UpstreamFailed),
        ("gone", UpstreamFailed),
        ("half", UpstreamFailed),
        ("garbage", UpstreamGarbled),
        ("403", UpstreamRefused),
        ("302", UpstreamRefused),
        ("page to sign in", UpstreamRefused),
    ],
)
def test_lasting_failure_is_an_error_that_names_the_upstream_after_3_tries_or_1_if_refused(
    proxy: FaultyProxy, noise: Sound, fault: str, error: type[errors.SidecarError]
) -> None:
    proxy.plan.extend([fault] * 9)
    with pytest.raises(error) as caught:
        Engine(proxy.url).transcript(noise)
    assert f"127.0.0.1:{proxy.port}" in caught.value.detail
    assert caught.value.fault is errors.Fault.UPSTREAM
    assert len(proxy.posts) == (1 if error is UpstreamRefused else 3)


def test_busy_upstream_is_asked_again_after_its_retry_after(
    proxy: FaultyProxy, noise: Sound
) -> None:
    proxy.retry_after = "0.05"
    proxy.plan.extend(["429"] * 5)
    assert Engine(proxy.url).transcript(noise).segments
    assert len(proxy.posts) == 6


def test_busy_upstream_is_not_waited_for_if_another_is_free(
    proxy: FaultyProxy, server: Server, noise: Sound
) -> None:
    proxy.retry_after = "60"
    engine = Engine(proxy.url, f"http://127.0.0.1:{server.port}")
    proxy.plan.extend(["429"] * 9)
    names = {engine.transcript(noise).engine for _ in range(2)}
    assert names == {f"upstream 127.0.0.1:{server.port}"}
    assert len(proxy.posts) <= 1


def test_recording_that_does_not_fit_at_one_upstream_is_sent_to_another(
    proxy: FaultyProxy, server: Server, noise: Sound
) -> None:
    engine = Engine(proxy.url, f"http://127.0.0.1:{server.port}")
    proxy.plan.extend(["507"] * 9)
    names = {engine.transcript(noise).engine for _ in range(2)}
    assert names == {f"upstream 127.0.0.1:{server.port}"}
    assert proxy.posts


def test_language_that_one_upstream_refuses_and_speech_that_it_cannot_decode_go_to_another(
    proxy: FaultyProxy, server: Server, noise: Sound
) -> None:
    engine = Engine(proxy.url, f"http://127.0.0.1:{server.port}")
    for refusals in (["422", ""], ["415", "415"]):  # of the chunk, and perhaps of the probe
        proxy.plan.extend(refusals * 9)
        names = {engine.transcript(noise).engine for _ in range(2)}
        assert names == {f"upstream 127.0.0.1:{server.port}"}
        proxy.plan.clear()
    assert proxy.posts


def test_language_that_the_only_upstream_refuses_is_its_error_after_a_probe(
    proxy: FaultyProxy, noise: Sound
) -> None:
    proxy.plan.append("422")
    with pytest.raises(errors.LanguageUnsupported):
        Engine(proxy.url).transcript(noise)
    assert len(proxy.posts) == 2


def test_request_beyond_the_timeout_for_its_audio_length_is_ended_and_tried_again(
    proxy: FaultyProxy, noise: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout_s, asked = upstream_client.UpstreamClient.timeout_s, list[float]()

    def hastily(there: upstream_client.UpstreamClient, duration_s: float) -> float:
        """Any time for all attempts together, and a moment for a request that is to be slow."""
        asked.append(timeout_s(there, duration_s))
        return 0.1 if proxy.plan and len(asked) > 1 else PATIENCE_S

    monkeypatch.setattr(upstream_client.UpstreamClient, "timeout_s", hastily)
    # until the moment was long enough to send it
    persistent = replace(PATIENT_LIMITS, broken_servers=99)
    proxy.plan.append("slow")
    assert Engine(proxy.url, limits=persistent, timeout=0.5).transcript(noise).segments
    assert proxy.hung_up.wait(PATIENCE_S)
    assert set(asked) == {persistent.extra_timeout_s + 0.5 * 12}
    asked.clear()
    proxy.plan.extend(["slow"] * 9)
    with pytest.raises(UpstreamTimeout):
        Engine(proxy.url).transcript(noise)


def test_cancelled_call_hangs_up_before_the_server_answers(
    proxy: FaultyProxy, noise: Sound
) -> None:
    """The server answers never: only who hangs up ends this."""
    engine, cancelled = Engine(proxy.url), threading.Event()
    proxy.plan.append("slow")
    came: list[object] = []
    work = threading.Thread(target=lambda: came.extend(engine.events(noise, cancelled.is_set)))
    work.start()
    wait_until(lambda: proxy.posts, "it is sent")
    cancelled.set()
    assert proxy.hung_up.wait(PATIENCE_S)
    work.join(PATIENCE_S)
    assert not work.is_alive()
    assert not any(isinstance(event, Finished) for event in came)


@pytest.mark.slow
def test_chunk_at_an_upstream_that_stops_answering_is_sent_to_another(
    start_server: StartServer, server: Server, noise: Sound
) -> None:
    """Its connection stays, and nothing ever comes, not even a sign of life."""
    stuck = start_server(scripted_speed=0.01)
    silence_s = 1.5 * SSE_KEEP_ALIVE_S
    limits = replace(  # the other may be slow
        PATIENT_LIMITS, stream_silence_timeout_s=silence_s, unreachable_wait_s=PATIENCE_S
    )
    urls = [f"http://127.0.0.1:{there.port}" for there in (stuck, server)]
    engine = Engine(*urls, limits=limits)
    work = threading.Thread(target=lambda: came.append(engine.transcript(noise)))
    came: list[Transcript] = []
    work.start()
    wait_until(lambda: stuck.health()["engine_state"] == "busy", "it works")
    stuck.process.suspend()
    work.join(PATIENCE_S)
    stuck.process.resume()
    assert [one.engine for one in came] == [f"upstream 127.0.0.1:{server.port}"]


def test_unreachable_upstream_is_an_error_with_a_remedy(noise: Sound) -> None:
    port = free_port()
    with pytest.raises(UpstreamUnreachable, match=f"127.0.0.1:{port}") as caught:
        Engine(f"http://127.0.0.1:{port}").transcript(noise)
    assert "VIBEVOICE_UPSTREAM" in caught.value.hint


@pytest.mark.parametrize("dialect", ["auto", "openai"])
def test_upstream_whose_proxy_answers_502_at_first_is_detected_later(
    noise: Sound, dialect: str
) -> None:
    there, answers = OpenAiStandIn(), deque[int]([502] * 6)

    @there.app.middleware("http")
    async def proxy(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        status = answers.popleft() if answers else 200
        return await call_next(request) if status == 200 else Response(status_code=status)

    with there:
        engine = Engine(
            there.url,
            dialect=dialect,
            limits=replace(PATIENT_LIMITS, unreachable_wait_s=PATIENCE_S),
        )
        assert len(answers) < 6, "it asks as it loads"
        assert engine.transcript(noise, diarize=False).engine == f"upstream 127.0.0.1:{there.port}"


def test_upstreams_that_never_answer_are_asked_a_bounded_number_of_times(noise: Sound) -> None:
    limits = FailoverLimits(probe_timeout_s=0.3, unreachable_wait_s=0.2, min_backoff_s=0.01)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    engine = Engine(*(f"http://127.0.0.1:{one.getsockname()[1]}" for one in silent), limits=limits)
    with pytest.raises(UpstreamUnreachable):
        engine.transcript(noise)
    asked = [0 for _ in silent]
    for number, one in enumerate(silent):
        with one, contextlib.suppress(BlockingIOError):
            one.setblocking(False)
            while True:
                one.accept()[0].close()
                asked[number] += 1
    assert max(asked) <= 6  # when it begins, by who looks after all, and once for the chunk


def test_upstream_started_later_is_found_despite_its_backoff(noise: Sound) -> None:
    limits = replace(PATIENT_LIMITS, min_backoff_s=PATIENT_LIMITS.max_backoff_s)
    port = free_port()
    engine = Engine(f"http://127.0.0.1:{port}", limits=limits)
    with pytest.raises(UpstreamUnreachable):
        engine.transcript(noise)
    with OpenAiStandIn(port=port):
        assert engine.transcript(noise, diarize=False).engine == f"upstream 127.0.0.1:{port}"


def test_upstream_that_did_not_answer_at_the_load_gets_audio_at_the_rate_of_its_model(
    noise: Sound,
) -> None:
    there, away = VllmStandIn(), True

    @there.app.middleware("http")
    async def proxy(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        return Response(status_code=502) if away else await call_next(request)

    with there:
        engine = Engine(there.url)
        away = False
        assert engine.transcript(noise).text == Engine(there.url).transcript(noise).text


def test_chunks_sent_to_two_upstreams_are_joined_in_order_without_gap_or_overlap(
    server: Server, proxy: FaultyProxy, two_voices: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece has the server's own speakers; who is who is told by their voices."""
    monkeypatch.setattr(
        upstream_client, "waiting_jobs", lambda _: 0
    )  # both are one, and count it twice
    engine = Engine(f"http://127.0.0.1:{server.port}", proxy.url, piece_s=5.0)
    events = engine.events(two_voices)
    transcript = events[-1].transcript  # type: ignore[union-attr]
    spans = [(one.start, one.end) for one in transcript.segments]
    assert spans == sorted(spans)
    assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(spans))
    assert sum(end - begin for begin, end in spans) == pytest.approx(14.0, abs=0.01)
    assert transcript.engine.count("127.0.0.1") == 2
    ready = [event.index for event in events if isinstance(event, SegmentReady)]
    assert ready == list(range(len(ready)))
    done = [event.audio_s_done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)


# OpenAI's dialect


def test_openai_upstream_gets_prompt_and_language_and_its_words_get_speakers(
    two_voices: Sound,
) -> None:
    with OpenAiStandIn() as there:
        engine = Engine(there.url)
        plain = engine.transcript(two_voices, diarize=False)
        spoken = engine.transcript(two_voices, prompt="Nagg", language="en-GB", max_tokens=9)
    said, _ = words_of(
        audio_chunks.AudioChunk(0, audio_chunks.to_16_bit(two_voices.samples), RATE, True).flac()
    )
    assert plain.text.split() == spoken.text.split() == said
    assert {one.speaker for one in plain.segments} == {None}
    assert plain.language == "en"
    assert spoken.num_speakers == 2
    assert [len(one.words) for one in spoken.segments if not one.words] == []
    asked = there.asked[-1]
    assert (asked["prompt"], asked["language"]) == (["Nagg"], ["en"])
    assert asked["timestamp_granularities[]"] == ["word", "segment"]
    assert [notice.code for notice in spoken.notices] == ["option_ignored"]


@pytest.mark.slow
def test_enrolled_speakers_are_identified_here_and_not_sent_upstream(two_voices: Sound) -> None:
    """The man of the play speaks until 8.1 s, then the woman until 11.4 s."""
    clip = [two_voices.samples[: 7 * RATE]]
    nagg = SpeakerCandidate("an-id", "Nagg", (enrolment_embedding(load_models(), clip),))
    with OpenAiStandIn() as there:
        engine = Engine(there.url)
        transcript = engine.transcript(two_voices, known_voices=(nagg,))
        asked = str(there.asked)
        unasked = engine.transcript(two_voices)
    named = {one.speaker: (one.name, one.person) for one in transcript.voices}
    assert named == {0: ("Nagg", "an-id"), 1: (None, None)}
    assert (transcript.segments, unasked.voices) == (unasked.segments, ())
    assert "Nagg" not in asked
    assert nagg.prints[0].vector not in asked


def test_aligned_words_of_an_upstream_without_times_go_to_their_speakers(two_voices: Sound) -> None:
    with OpenAiStandIn("json") as there:
        engine = Engine(there.url)
        first = engine.transcript(two_voices)
        plain = engine.transcript(two_voices, diarize=False)
    assert first.num_speakers == 2
    assert first.text.split() == plain.text.split()
    assert {one.speaker for one in plain.segments} == {None}
    formats = [form["response_format"][0] for form in there.asked]
    assert formats == ["verbose_json", "verbose_json", "json"] + 2 * ["json"], "first for a second"


def test_repetition_loop_is_asked_again_at_a_higher_temperature_and_skipped_if_it_lasts(
    two_voices: Sound,
) -> None:
    with OpenAiStandIn() as there:
        engine = Engine(there.url)
        there.asked.clear()
        there.plan.append("loop")
        once = engine.transcript(two_voices, diarize=False)
        assert [asked.get("temperature") for asked in there.asked] == [None, ["0.2"]]
        assert "Thank you." not in once.text
        there.plan.extend(["loop"] * 9)
        stuck = engine.transcript(two_voices, diarize=False)
    assert [notice.code for notice in stuck.notices] == ["loop_skipped"]
    assert stuck.text.count("Thank you.") <= 3


# vLLM with VibeVoice-ASR


def test_vllm_upstream_gets_the_prompt_and_its_segments_keep_their_speakers(noise: Sound) -> None:
    with VllmStandIn() as there:
        engine = Engine(there.url)
        assert engine.engine.sample_rate == 24_000
        transcript = engine.transcript(noise, prompt="Ada", num_speakers=2)
    assert [one.speaker for one in transcript.segments] == [0, 1, 0, 1][: len(transcript.segments)]
    assert there.asked[0]["text"].startswith(
        "This is a 12.00 seconds audio, with extra info: Ada\n"
    )
    assert [notice.code for notice in transcript.notices] == ["option_ignored"]


@pytest.mark.parametrize("fault", ["cut", "error", "loop", "repeats all", "no prefix"])
def test_broken_vllm_answer_continues_from_its_last_segment(two_voices: Sound, fault: str) -> None:
    with VllmStandIn() as there:
        engine = Engine(there.url)
        right = engine.transcript(two_voices)
        there.asked.clear()
        there.plan.extend(["cut", "no prefix"] if fault == "no prefix" else [fault])
        again = engine.transcript(two_voices)
    assert heard(again) == heard(right)
    second = there.asked[1:2]
    if fault == "repeats all":
        assert not second
    else:
        assert second[0]["before"].startswith('[{"Start":0.0')
        assert second[0]["temperature"] == (0.2 if fault == "loop" else 0.0)
        codes = [notice.code for notice in again.notices]
        assert codes == (["loop_recovered"] if fault == "loop" else [])


def test_broken_vllm_answer_continues_at_another_upstream_of_the_model(noise: Sound) -> None:
    with VllmStandIn() as one, VllmStandIn() as other:
        right = Engine(one.url).transcript(noise)
        one.asked.clear()
        engine = Engine(one.url, other.url)
        one.plan.append("cut")
        again = engine.transcript(noise)
    assert heard(again) == heard(right)
    assert again.engine == f"upstream 127.0.0.1:{other.port}"
    assert other.asked[0]["before"].startswith('[{"Start":0.0')


def test_repetition_loop_at_every_temperature_is_skipped_as_a_flagged_segment(
    two_voices: Sound,
) -> None:
    with VllmStandIn() as there:
        there.plan.extend(["loop"] * 4)
        transcript = Engine(there.url).transcript(two_voices)
    assert [asked["temperature"] for asked in there.asked] == [0.0, 0.2, 0.3, 0.4, 0.0]
    assert [notice.code for notice in transcript.notices] == ["loop_skipped"]
    (lost,) = [one for one in transcript.segments if "loop" in one.flags]
    assert 4 < lost.end - lost.start < 16


def test_chunk_too_long_for_its_upstream_is_sent_in_smaller_ones_and_later_ones_too(
    two_voices: Sound,
) -> None:
    with VllmStandIn(most_s=8.0) as there:
        engine = Engine(there.url)
        transcript = engine.transcript(two_voices)
        assert transcript.num_speakers == 2
        first = len(there.asked)
        engine.transcript(two_voices, diarize=False)
    assert first > 2
    assert len(there.asked) - first < first
    assert transcript.segments[-1].end == pytest.approx(14.0, abs=0.6)


@pytest.mark.parametrize("faults", [["inflated"], ["length"], ["unavailable", "length"]])
def test_recording_with_an_inflated_or_cut_off_answer_is_sent_in_smaller_chunks(
    two_voices: Sound, faults: list[str]
) -> None:
    with VllmStandIn() as there:
        there.plan.extend(faults)
        *_, last = Engine(there.url).events(two_voices, diarize=False)
    assert len(there.asked) == len(faults) + 3, "a second of speech, too"
    assert isinstance(last, Finished)
    assert last.transcript.segments[-1].end == pytest.approx(14.0, abs=0.6)
