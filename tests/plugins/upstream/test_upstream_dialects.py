"""What servers are sent, what they answer, what their refusals mean: pure, from bytes."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from math import nan
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_process import PATIENCE_S

from sidecar import errors, openai_http
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import TranscribeOptions, UpstreamOptions
from sidecar.openai_http import RequestRefused
from sidecar.plugins.upstream import upstream_client, upstream_dialect
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamRefusedRecording,
    UpstreamUnreachable,
)
from sidecar.plugins.upstream.load_balancer import FailoverLimits
from sidecar.plugins.upstream.openai_dialect import openai_dialect, parse_openai_answer
from sidecar.plugins.upstream.sidecar_dialect import parse_sidecar_answer, sidecar_dialect
from sidecar.plugins.upstream.streaming_dialect import streaming_dialect
from sidecar.plugins.upstream.upstream_dialect import (
    AskAgain,
    ChunkRequest,
    ChunkTooLarge,
    UpstreamAnswer,
    UpstreamDialect,
)
from sidecar.plugins.upstream.vllm_dialect import vllm_dialect

SOME = TranscribeOptions()


def said(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "code": 400}}).encode()


@pytest.mark.parametrize(
    ("status", "message", "after", "error"),
    [
        (400, "This model's maximum context length is 65536 tokens", None, ChunkTooLarge),
        (400, "item exceeds the pre-allocated encoder cache size 8192", None, ChunkTooLarge),
        (400, "Audio file is too large: 26 MB", None, ChunkTooLarge),
        (400, "Audio duration 700 s exceeds the limit of 600", None, ChunkTooLarge),
        (413, "", None, ChunkTooLarge),
        (500, "session exceeded 512 audio windows (~25 minutes)", None, ChunkTooLarge),
        (500, "session outgrew the 16384-token context after 300 windows", None, ChunkTooLarge),
        (400, "Invalid audio", None, UpstreamRefusedRecording),
        (401, "Incorrect API key", None, UpstreamRefused),
        (404, "The model `x` does not exist", None, UpstreamRefused),
        (429, "slow down", "7", UpstreamBusy),
        (429, "slow down", None, UpstreamBusy),
        (503, "overloaded", "2", UpstreamBusy),
        (503, "overloaded", None, UpstreamFailed),
        (500, "EngineCore encountered an issue", None, UpstreamFailed),
        (502, "", None, UpstreamFailed),
        (504, "", None, UpstreamFailed),
        (307, "", None, UpstreamRefused),
        *((status, "", None, UpstreamUnreachable) for status in (408, 425, 507)),
    ],
)
def test_status_and_body_of_a_refusal_decide_what_it_means(
    status: int, message: str, after: str | None, error: type[Exception]
) -> None:
    headers = {"retry-after": after} if after else {}
    found = upstream_dialect.error_of_refusal(RequestRefused(status, headers, said(message)))
    assert type(found) is error
    if isinstance(found, UpstreamBusy):
        assert found.rest_s == float(after or 1)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        *((status, Fault.RECORDING) for status in (400, 415, 422)),
        *((status, Fault.UPSTREAM) for status in (204, 301, 302, 307, 401, 402, 403, 404, 405)),
        *((status, Fault.UPSTREAM) for status in (407, 408, 410, 426, 429, 451, 500, 502, 503)),
    ],
)
def test_recording_may_be_to_blame_only_if_the_upstream_refused_what_it_was_sent(
    status: int, fault: Fault
) -> None:
    error = upstream_dialect.error_of_refusal(RequestRefused(status, {}, said("told to")))
    assert isinstance(error, UpstreamError)
    assert errors.from_wire(error.to_wire()).fault is fault, "as the job gets it"


def test_error_with_the_name_of_its_server_is_to_blame_for_the_same_as_without() -> None:
    refused = UpstreamRefused("The upstream said no.", hint="Ask.", fault=Fault.RECORDING)
    busy = UpstreamBusy(retry_after=7)
    busy.rest_s = 6.5
    for error in (refused, busy):
        named = upstream_dialect.with_server_name(error, "one:80")
        assert str(named) == named.detail
        assert "The upstream one:80" in named.detail
        assert "one:80" not in error.detail
        assert vars(named) == {**vars(error), "detail": named.detail}


def test_upstream_whose_quota_is_exhausted_is_not_waited_for() -> None:
    body = json.dumps({"error": {"message": "x", "code": "insufficient_quota"}}).encode()
    found = upstream_dialect.error_of_refusal(RequestRefused(429, {"retry-after": "1"}, body))
    assert type(found) is UpstreamRefused


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("5", 5.0), ("0.5", 0.5), ("-1", 0.0), ("1e9", 300.0), ("nan", None), ("Wed, 21 Oct", None)],
)
def test_retry_after_header_is_limited_to_0_to_300_s_and_ignored_if_no_number(
    header: str, seconds: float | None
) -> None:
    assert openai_http.parse_retry_after({"retry-after": header}) == seconds


@given(body=st.binary(max_size=300))
def test_error_of_an_upstream_is_one_short_printable_line(body: bytes) -> None:
    for words in (
        openai_http.server_message(body),
        openai_http.server_message(said(body.decode("latin-1"))),
    ):
        assert len(words) <= 200
        assert words.isprintable()


FIELDS = [
    *("text", "segments", "words", "start", "end", "word", "metadata"),
    *("choices", "delta", "content", "error", "usage", "diarized", "chunk_texts"),
]
"""Of the answers of all dialects."""
CONFIG: dict[str, Any] = {
    "model": "vibevoice",
    "sample_rate": 24_000,
    "chunk_seconds": 22 * 3200 / 24_000,
    "chunk_frames": 22,
    "lookahead_frames": 4,
    "window_samples": 26 * 3200,
    "max_audio_windows": 512,
}


def streaming(**values: Any) -> UpstreamDialect | None:
    return streaming_dialect(json.dumps(CONFIG | values).encode())


@pytest.mark.parametrize(
    "make",
    [
        lambda: sidecar_dialect(16_000),
        lambda: openai_dialect("w"),
        lambda: vllm_dialect("v"),
        streaming,
    ],
    ids=["s", "o", "v", "vs"],
)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
            ),
            max_leaves=9,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_random_answers_raise_only_errors_of_an_upstream(make: Any, body: bytes) -> None:
    for blocks in ([body], [body, b"[DONE]"]):
        chunk_request = make().chunk_request(SOME, 10.0, b"fLaC")
        chunk_request.next_request()
        try:
            for data in blocks:
                chunk_request.feed(data)
            answer = chunk_request.finish()
        except (UpstreamError, ChunkTooLarge, AskAgain):
            continue
        assert all(0 <= one.start <= one.end <= 10 for one in answer.segments)


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [3]},
        {"choices": {"a": 1}},
        {"usage": [1], "choices": []},
        {"usage": {"prompt_tokens": float("inf")}},
        {"error": [1]},
        {"choices": [{"delta": "x"}]},
    ],
    ids=str,
)
def test_vllm_event_of_unexpected_shape_is_an_error_of_the_upstream(event: dict[str, Any]) -> None:
    with pytest.raises((UpstreamGarbled, UpstreamFailed)):
        vllm_dialect("v").chunk_request(SOME, 9.0, b"").feed(json.dumps(event).encode())


def test_vllm_answer_with_half_of_a_pair_of_surrogates_has_all_its_words() -> None:
    chunk = vllm_dialect("v").chunk_request(SOME, 9.0, b"")
    text = '[{"Start": 0, "End": 1, "Content": "Yes \ud83d"}]'
    chunk.feed(json.dumps({"choices": [{"delta": {"content": text}}]}).encode())
    chunk.feed(b"[DONE]")
    assert [one.text for one in chunk.finish().segments] == ["Yes \N{REPLACEMENT CHARACTER}"]


def vllm_event(start: float, end: float, text: str) -> bytes:
    item = json.dumps({"Start": start, "End": end, "Content": text})
    return json.dumps({"choices": [{"delta": {"content": f",{item}"}}]}).encode()


def vllm_answer_begun(chunk: ChunkRequest) -> str:
    body = chunk.next_request().content["content"]
    return str(json.loads(body)["messages"][-1]["content"])


def test_vllm_answer_with_a_loop_among_turns_that_breaks_off_goes_on_at_its_end() -> None:
    chunk = vllm_dialect("v").chunk_request(SOME, 60.0, b"")
    chunk.feed(vllm_event(0, 4, "First."))
    with pytest.raises(AskAgain):
        chunk.feed(vllm_event(5, 5.1, "Yeah.\nYeah.\nYeah."))
    assert vllm_answer_begun(chunk).count("Yeah.") == 1
    chunk.feed(vllm_event(10, 12, "Alpha."))
    chunk.feed(vllm_event(13, 15, "Beta."))
    begun = vllm_answer_begun(chunk)
    assert [begun.count(text) for text in ("First.", "Yeah.", "Alpha.", "Beta.")] == [1] * 4


def test_vllm_answer_that_breaks_off_after_a_loop_ended_it_keeps_its_segments() -> None:
    chunk = vllm_dialect("v").chunk_request(SOME, 5.0, b"")
    chunk.feed(vllm_event(0, 4.5, "First."))
    for _ in range(3):
        with pytest.raises(AskAgain):
            chunk.feed(vllm_event(4.6, 4.7, "Yeah.\nYeah.\nYeah."))
    chunk.feed(vllm_event(4.6, 4.7, "Yeah.\nYeah.\nYeah."))
    assert [one.text for one in chunk.finish().segments] == ["First.", "Yeah."]
    begun = vllm_answer_begun(chunk)
    assert [begun.count(text) for text in ("First.", "Yeah.")] == [1, 1]


def test_words_are_assigned_to_segments_and_times_stay_in_the_chunk() -> None:
    answer = parse_openai_answer(
        {
            "text": "a b c",
            "language": "german",
            "segments": [
                {"start": 0, "end": 2, "text": " a b"},
                {"start": 2.5, "end": 99, "text": " c"},
                {"start": 3, "end": 3, "text": "  "},
            ],
            "words": [
                {"word": "a", "start": -1, "end": 0.5},
                {"word": " b", "start": 1, "end": 1.5},
                {"word": "c", "start": 2.6, "end": 99},
            ],
        },
        4.0,
    )
    assert [(one.start, one.end, one.text) for one in answer.segments] == [
        (0, 2, "a b"),
        (2.5, 4.0, "c"),
    ]
    assert [[word.text for word in one.words] for one in answer.segments] == [["a", "b"], ["c"]]
    assert answer.language == "de"


@pytest.mark.parametrize("words", [[], [{"word": "Hello", "start": 1, "end": 2}]])
def test_text_of_an_answer_is_kept_if_all_its_segments_are_blank(
    words: list[dict[str, Any]],
) -> None:
    blank = [{"start": 0, "end": 2, "text": " "}]
    answer = parse_openai_answer({"text": "Hello.", "segments": blank, "words": words}, 4.0)
    assert [one.text for one in answer.segments] == ["Hello."]
    assert (answer.form, len(answer.segments[0].words)) == ("" if words else "text", len(words))
    assert parse_openai_answer({"text": "", "segments": blank}, 4.0).segments == ()


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("slovak", "sk"),
        ("Haitian Creole", "ht"),
        ("yue", "yue"),
        ("klingon", "auto"),
        (None, "auto"),
    ],
)
def test_language_name_of_an_upstream_becomes_its_code(named: str | None, code: str) -> None:
    body = {"text": "Áno.", "language": named}
    assert parse_openai_answer(body, 1.0).language == code


def test_openai_diarizing_model_is_asked_for_speakers_and_its_labels_are_numbered() -> None:
    dialect = openai_dialect("gpt-4o-transcribe-diarize")
    assert dialect.diarizes
    upstream_request = dialect.chunk_request(SOME, 5.0, b"").next_request()
    assert upstream_request.content["data"]["response_format"] == "diarized_json"
    segments = [
        {"id": "0", "start": 0.0, "end": 1.0, "text": "Yes.", "speaker": "B"},
        {"id": "1", "start": 1.0, "end": 2.0, "text": "No.", "speaker": "A"},
    ]
    answer = parse_openai_answer({"text": "Yes. No.", "segments": segments}, 5.0)
    assert (answer.diarized, [one.speaker for one in answer.segments]) == (True, [0, 1])


def test_vllm_request_has_audio_prompt_and_options_in_the_form_of_its_plugin() -> None:
    options = TranscribeOptions(
        prompt="A talk.", hotwords=("Ada", "Bob"), max_tokens=99, temperature=0.3
    )
    upstream_request = (
        vllm_dialect("vibevoice").chunk_request(options, 28.28, b"fLaC").next_request()
    )
    body = json.loads(upstream_request.content["content"])
    assert upstream_request.path == "/v1/chat/completions"
    audio, text = body["messages"][1]["content"]
    assert audio["audio_url"]["url"] == "data:audio/flac;base64,ZkxhQw=="
    assert text["text"] == (
        "This is a 28.28 seconds audio, with extra info: A talk.\nAda\nBob\n\nPlease "
        "transcribe it with these keys: Start time, End time, Speaker ID, Content"
    )
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (99, 0.3, 0.95)
    short = vllm_dialect("v").chunk_request(SOME, 1.0, b"").next_request()
    plain = json.loads(short.content["content"])
    assert "max_tokens" not in plain  # more than there is room for would be refused
    assert plain["messages"][1]["content"][1]["text"].startswith(
        "This is a 1.00 seconds audio, please transcribe"
    )


@pytest.mark.parametrize(
    ("values", "longest_s"),
    [
        ({}, 600.0),
        ({"max_audio_windows": 30}, 88.0),
        ({"chunk_seconds": 2.0, "window_samples": 19 * 3200}, 600.0),
        ({"chunk_seconds": 2, "window_samples": 19 * 3200, "max_audio_windows": 100}, 200.0),
        ({"chunk_seconds": 0}, None),
        ({"chunk_seconds": -1.0}, None),
        ({"chunk_seconds": nan}, None),
        ({"chunk_seconds": "2.0"}, None),
        ({"chunk_seconds": 4.0}, None),
        ({"sample_rate": 1}, None),
        ({"window_samples": 1 << 40}, None),
        ({"max_audio_windows": 0}, None),
        ({"max_audio_windows": None}, None),
    ],
    ids=str,
)
def test_streaming_server_is_known_by_how_it_cuts_audio_if_that_is_possible(
    values: dict[str, Any], longest_s: float | None
) -> None:
    dialect = streaming(**values)
    assert longest_s == (None if dialect is None else pytest.approx(dialect.longest_s))
    for body in (b"", b"{}", b"[]", b"<html>", b'{"detail": "Not Found"}'):
        assert streaming_dialect(body) is None


def test_streaming_request_has_audio_a_context_of_lines_and_a_temperature_that_is_not_0() -> None:
    dialect = streaming()
    assert dialect is not None
    options = TranscribeOptions(
        prompt="A talk.\nOf two.", hotwords=("Ada", "Bob"), max_tokens=99, temperature=0.3
    )
    request = dialect.chunk_request(options, 9.0, b"fLaC").next_request()
    assert request.path == "/v1/transcribe"
    assert json.loads(request.content["content"]) == {
        "audio_base64": "ZkxhQw==",
        "context_info": "A talk.\nOf two.\nAda\nBob",
        "temperature": 0.3,
        "top_p": 0.95,
    }
    plain = dialect.chunk_request(SOME, 9.0, b"fLaC").next_request()
    assert json.loads(plain.content["content"]) == {"audio_base64": "ZkxhQw=="}


def streaming_answer(texts: list[Any], duration_s: float) -> UpstreamAnswer:
    dialect = streaming()
    assert dialect is not None
    chunk = dialect.chunk_request(SOME, duration_s, b"")
    chunk.feed(json.dumps({"chunk_texts": texts}).encode())
    return chunk.finish()


def test_streaming_answer_has_turns_at_the_times_of_their_chunks_and_sounds_that_are_no_words() -> (
    None
):
    answer = streaming_answer(
        ["Speaker 0: One two", " three. [Music]", "[Silence]", "Speaker 1: Four."], 11.0
    )
    found = [(round(one.start, 1), one.text, one.flags) for one in answer.segments]
    (_, one, none), (_, music, sound), (begin, four, _) = found
    assert (one, none, music, sound) == ("One two three.", (), "[Music]", ("non_speech",))
    assert (begin, four, answer.segments[-1].end) == (8.8, "Four.", 11.0)
    assert not answer.diarized, "the labels of the model are not trusted"


def test_streaming_answer_without_the_text_of_some_audio_is_garbled() -> None:
    with pytest.raises(UpstreamGarbled):
        streaming_answer([" a"], 10.0)
    assert streaming_answer(["", "", "", ""], 10.0).segments == ()


def test_loop_over_chunks_of_a_streaming_answer_is_cut_and_told() -> None:
    verse = " we will go to the sea and to the sun and to the moon and home."
    answer = streaming_answer([verse] * 9, 26.0)
    assert [one.code for one in answer.notices] == ["loop_recovered"]
    assert sum(one.text.count("moon") for one in answer.segments) == 2


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("queue_full", UpstreamBusy),
        ("engine_crashed", UpstreamFailed),
        ("model_load_failed", UpstreamFailed),
        ("engine_failed", UpstreamFailed),
        ("language_unsupported", None),
        ("audio_too_long", ChunkTooLarge),
        ("audio_undecodable", UpstreamFailed),
        ("audio_format_unsupported", UpstreamFailed),
        ("audio_decode_timeout", UpstreamFailed),
        ("unschedulable", UpstreamFailed),
        ("wont_fit", None),
        ("disk_full", UpstreamUnreachable),
        ("spool_unwritable", UpstreamUnreachable),
        ("upload_stalled", UpstreamUnreachable),
        ("token_invalid", UpstreamRefused),
        ("peer_not_allowed", UpstreamRefused),
    ],
)
def test_error_code_of_another_vibevoice_asr_decides_what_it_means_and_is_kept_if_no_other_helps(
    code: str, found: type[Exception] | None
) -> None:
    from sidecar.api.http.error_responses import STATUS, problem_body

    known = {error.code: error for error in errors.all_errors()}[code]()
    headers = {} if known.retry_after is None else {"retry-after": str(known.retry_after)}
    refusal = RequestRefused(STATUS[known.kind], headers, json.dumps(problem_body(known)).encode())
    error = sidecar_dialect(16_000).chunk_request(SOME, 9.0, b"").refused(refusal)
    assert type(error) is (found or type(known))


def test_another_vibevoice_asr_is_detected_by_health_and_one_with_upstreams_is_refused() -> None:
    health = {"contract": 1, "engine": "vibevoice", "engine_state": "ready"}
    ours = upstream_client.sidecar_dialect_of(json.dumps(health).encode())
    assert ours is not None
    assert ours.rate == 24_000
    for other in (b"", b'{"status": "ok"}', b"[]"):
        assert upstream_client.sidecar_dialect_of(other) is None
    with pytest.raises(UpstreamRefused, match="itself"):
        upstream_client.sidecar_dialect_of(json.dumps({**health, "engine": "upstream"}).encode())


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (errors.AudioUndecodable, UpstreamFailed),
        (errors.LanguageUnsupported, UpstreamRefused),
    ],
)
async def test_error_of_a_recording_for_a_second_of_speech_is_that_of_the_upstream(
    error: type[errors.SidecarError], found: type[UpstreamError]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            health = {"contract": 1, "engine": "moonshine", "engine_state": "ready"}
            return httpx.Response(200, json=health)
        return httpx.Response(422, json=error("No.").to_wire())

    url, limits = "http://upstream:8765", FailoverLimits()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        upstream = upstream_client.UpstreamClient(http, url, "", UpstreamOptions((url,)), limits)
        with pytest.raises(found, match="No") as caught:
            await upstream.probe(await upstream.known_dialect())
    assert caught.value.fault is Fault.UPSTREAM


@pytest.mark.parametrize("status", [429, 500])
async def test_upstream_in_trouble_while_it_is_detected_is_asked_again_and_then_known(
    status: int,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/health"
        if statuses:
            return httpx.Response(statuses.pop(), json={"code": "rate_limited"})
        return httpx.Response(
            200, json={"contract": 1, "engine": "moonshine", "engine_state": "ready"}
        )

    statuses = [status]
    url, limits = "http://upstream:8765", FailoverLimits()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        upstream = upstream_client.UpstreamClient(http, url, "", UpstreamOptions((url,)), limits)
        with pytest.raises(UpstreamUnreachable, match=str(status)):
            await upstream.known_dialect()
        assert (await upstream.known_dialect()).name == "sidecar"


@pytest.mark.parametrize(
    ("kind", "models", "wanted", "found"),
    [
        ("auto", [{"id": "whisper-1"}], None, ("openai", "whisper-1")),
        ("auto", [{"id": "vibevoice"}], None, ("vllm", "vibevoice")),
        ("auto", [{"id": "asr", "root": "/m/VibeVoice-ASR"}], None, ("vllm", "asr")),
        ("auto", [{"id": "vibevoice"}, {"id": "whisper"}], "whisper", ("openai", "whisper")),
        ("vllm", [{"id": "asr"}], None, ("vllm", "asr")),
        ("openai", [], "large", ("openai", "large")),
    ],
)
def test_model_and_dialect_come_from_the_model_list(
    kind: str, models: list[dict[str, str]], wanted: str | None, found: tuple[str, str]
) -> None:
    dialect = upstream_client.dialect_of(kind, json.dumps({"data": models}).encode(), wanted)
    assert (dialect.name, dialect.model) == found


def test_upstream_without_model_list_and_model_name_is_an_error() -> None:
    with pytest.raises(UpstreamRefused, match="no models"):
        upstream_client.dialect_of("auto", b"{}", None)


def test_segments_streamed_by_another_vibevoice_asr_are_read_early_and_a_whole_answer_late() -> (
    None
):
    segment = {"speaker": "Speaker_1", "start_time": 1.0, "end_time": 2.0, "text": "Yes."}
    whole = {"status": "success", "segments": [segment], "metadata": {"diarized": True}}
    told = b"".join(
        json.dumps(one).encode() + b"\n\n" for one in ({"segment": segment}, {"result": whole})
    )
    chunk_request = sidecar_dialect(16_000).chunk_request(TranscribeOptions(), 10.0, b"fLaC")
    for body, early in ((told, [1]), (json.dumps(whole).encode(), [])):
        assert "ndjson" in chunk_request.next_request().accept
        found = [one for at in range(len(body)) for one in chunk_request.feed(body[at : at + 1])]
        assert [one.speaker for one in found] == early
        assert [one.text for one in chunk_request.finish().segments] == ["Yes."]


def test_upstream_that_says_our_own_file_is_damaged_has_failed() -> None:
    lost = {"code": "audio_truncated", "message": "About 58 s of it are lost."}
    whole = {"segments": [], "metadata": {"diarized": True, "warnings": [lost]}}
    chunk_request = sidecar_dialect(16_000).chunk_request(SOME, 60.0, b"fLaC")
    chunk_request.next_request()
    chunk_request.feed(json.dumps({"result": whole}).encode() + b"\n")
    with pytest.raises(UpstreamFailed, match="only a part"):
        chunk_request.finish()


@pytest.mark.parametrize(
    ("confidence", "found"),
    [(0.5, 0.5), (1e-9, 0.001), *((bad, None) for bad in (-1, 5, nan, None))],
)
def test_confidence_of_an_upstream_is_between_0_and_1_or_none(
    confidence: float | None, found: float | None
) -> None:
    segment = {"start_time": 1.0, "end_time": 2.0, "text": "Yes.", "confidence": confidence}
    whole = {"segments": [segment | {"language": None}], "metadata": {"diarized": False}}
    (only,) = parse_sidecar_answer(whole, 3.0).segments
    assert (only.confidence, only.language) == (found, "")


@pytest.mark.parametrize(
    ("told", "found"),
    [(0.1234, 0.123), (1, 1.0), (0.0, None), *((bad, None) for bad in (-1, 5, nan, "1", True))],
)
def test_no_speech_probability_of_openai_servers_is_none_if_0_or_impossible_else_kept(
    told: object, found: float | None
) -> None:
    segment = {"start": 1.0, "end": 2.0, "text": "Yes.", "no_speech_prob": told}
    (only,) = parse_openai_answer({"text": "Yes.", "segments": [segment]}, 3.0).segments
    assert only.no_speech_probability == found


def test_no_speech_probability_of_0_from_another_vibevoice_asr_is_kept() -> None:
    segment = {"start_time": 1.0, "end_time": 2.0, "text": "Yes.", "no_speech_probability": 0.0}
    whole = {"segments": [segment], "metadata": {"diarized": False}}
    assert parse_sidecar_answer(whole, 3.0).segments[0].no_speech_probability == 0.0


def test_error_within_a_stream_means_what_its_status_would() -> None:
    problem = {"status": 503, "code": "machine_busy", "detail": "It is busy.", "retry_after": "7"}
    for said, error in (
        (problem, UpstreamBusy),
        ({**problem, "retry_after": ""}, UpstreamFailed),
    ):
        chunk_request = sidecar_dialect(16_000).chunk_request(TranscribeOptions(), 10.0, b"fLaC")
        with pytest.raises(error):
            chunk_request.feed(json.dumps({"failed": said}).encode() + b"\n")


STREAM = b': a comment\nevent: x\ndata: {"a":1}\r\n\nid: 7\ndata:2\n\n: alive\n\ndata: [DONE]\n'


class Wrong(Exception):
    """What a stream raises."""


def read(*pieces: bytes, longest: int = 100) -> list[bytes]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def all_of() -> list[bytes]:
        return [data async for data in openai_http.event_data(body(), longest, Wrong)]

    return asyncio.run(all_of())


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_do_not_depend_on_how_their_bytes_are_split(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(borders)]
    assert read(*pieces) == [b'{"a":1}', b"2", b"[DONE]"]


def test_body_without_events_is_an_error_with_its_start() -> None:
    with pytest.raises(Wrong, match="full"):
        read(b'{"error": "full"}\n')


def test_event_longer_than_the_limit_is_an_error() -> None:
    with pytest.raises(Wrong, match="None"):
        read(b"data: " + bytes(50), bytes(50))
    assert len(read(*[b"data: " + b"x" * 50 + b"\n\n"] * 9)) == 9


@pytest.mark.parametrize("body", [None, [], "x", {"data": None}, {"data": [1, {}, {"id": ""}]}])
def test_invalid_model_list_has_no_names(body: object) -> None:
    assert openai_http.model_names(body) == []


def test_only_the_start_of_a_long_model_list_is_read() -> None:
    names = [str(number) for number in range(2 * openai_http.MAX_MODELS)]
    assert (
        openai_http.model_names({"data": [{"id": name} for name in names]})
        == names[: openai_http.MAX_MODELS]
    )


def test_http_client_follows_no_redirect_no_environment_proxy_and_sends_its_key_as_bearer() -> None:
    options = openai_http.client_options(3.0, key="secret")
    assert (options["trust_env"], options["follow_redirects"]) == (False, False)
    assert options["headers"]["Authorization"] == "Bearer secret"
    assert openai_http.authorization("") == {}


def test_http_client_opens_a_connection_for_each_request_however_many_are_under_way() -> None:
    """A health check behind a hundred recordings is one more."""
    count, here = 101, asyncio.Semaphore(0)

    async def open_all() -> None:
        async with (
            await asyncio.start_server(lambda *_: here.release(), "127.0.0.1", 0) as server,
            httpx.AsyncClient(**openai_http.client_options(PATIENCE_S)) as client,
        ):
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            asked = [asyncio.create_task(client.get(url)) for _ in range(count)]
            async with asyncio.timeout(PATIENCE_S):
                for _ in asked:
                    await here.acquire()
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(open_all())
