"""OpenAI's API: its official package for Python works here as it is, and so do what it goes by."""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import httpx
import moonshine_voice
import openai
import pytest
import soundfile
from module_services import service_of_module
from not_tested import missing
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionStreamEvent,
    TranscriptionVerbose,
)
from openai.types.audio_model import AudioModel
from openai.types.model import Model
from pydantic import TypeAdapter
from recordings import long, wav
from service_process import (
    REPOSITORY,
    Server,
    StartServer,
    check_discreet,
    new_file,
    wait_until,
    web,
)

from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.plugins.openai.common import ALIASES, LIVE_ALIASES

SECOND = b"\1\0" * 16_000
CLIP = ("clip.wav", wav(SECOND * 3))
TOKEN = "a token of sixteen bytes or more"
ANY_KEY = "sk-whatever-these-packages-insist-on"
GOLDEN = json.loads((REPOSITORY / "tests/golden/openai.json").read_text("utf-8"))
PLAY = Path(moonshine_voice.get_assets_path()) / "endgame_nagg_nell.wav"
TYPES: dict[str, Any] = {
    "json": Transcription,
    "verbose_json": TranscriptionVerbose,
    "diarized_json": TranscriptionDiarized,
}
VAD = {"type": "server_vad"}
Asking = Callable[..., Any]


def sdk(server: Server, **settings: Any) -> openai.OpenAI:
    """OpenAI's client, which would send thrice what fails."""
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1",
        **{"api_key": ANY_KEY, "max_retries": 0, **settings},
    )


def checked(kind: Any, body: str) -> Any:
    """A body as the package's own type, which it makes of anything; here nothing may be amiss."""
    return TypeAdapter(kind).validate_json(body, strict=True)


def busy(server: Server) -> bool:
    return bool(server.health()["engine_state"] == "busy")


def begun(server: Server, seconds: int) -> bool:
    """Whether a recording of so many seconds is heard, or was; not one of a test before."""
    found = server.jobs()
    return any(one["duration"] == seconds and one["state"] != "queued" for one in found)


def hang_up(server: Server, due: Callable[[], bool], **fields: Any) -> None:
    """Ask for a transcription, and hang up once that is due."""

    async def ask_and_leave() -> None:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key=ANY_KEY) as client:
            create = client.audio.transcriptions.create
            asking = asyncio.create_task(create(model="whisper-1", **fields))
            await asyncio.to_thread(wait_until, due, "it runs")
            asking.cancel()

    asyncio.run(ask_and_leave())


slow = service_of_module(scripted_speed=4, queue_limit=1, max_upload_mb=4, batch=1)
"""A service at four times real time, of which one that waits makes a full house."""


strict = service_of_module(openai_strict="true", token=TOKEN)
"""A service that refuses what it cannot give, and asks for a token."""


@pytest.fixture
def ask(server: Server) -> Asking:
    """Asks the shared service for a transcription."""
    client = sdk(server)

    def create(**fields: Any) -> Any:
        return client.audio.transcriptions.create(**{"file": CLIP, "model": "whisper-1", **fields})

    return create


@pytest.mark.parametrize("fmt", ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"])
@pytest.mark.anywhere
def test_response_of_every_format_is_the_golden_one(fmt: str, server: Server) -> None:
    raw = sdk(server).audio.transcriptions.with_raw_response.create(
        file=CLIP, model="gpt-4o-transcribe-diarize", response_format=fmt, language="en"
    )
    assert re.fullmatch("[0-9a-f]{32}", raw.headers["x-request-id"])
    if fmt in TYPES:
        assert raw.headers["content-type"] == "application/json"
        assert checked(TYPES[fmt], raw.text) == raw.parse()
        assert json.loads(raw.text) == GOLDEN[fmt]
    else:
        assert raw.headers["content-type"] == "text/plain; charset=utf-8"
        assert raw.text == raw.parse() == GOLDEN[fmt]


def test_speakers_of_separate_channels_have_the_names_of_the_channels(server: Server) -> None:
    stereo = wav(b"\1\0\2\1" * 16_000, channels=2)
    answer = sdk(server).audio.transcriptions.create(
        file=("call.wav", stereo),
        model="whisper-1",
        response_format="diarized_json",
        extra_body={"channels": "separate", "channel_names": "Agent"},
    )
    segments = answer.segments  # type: ignore[union-attr]
    assert {segment.speaker for segment in segments} == {"Agent", "Right"}
    assert not hasattr(answer, "warnings")


@pytest.mark.anywhere
def test_diarized_stream_is_the_golden_one(server: Server) -> None:
    fields = {"model": "whisper-1", "stream": "true", "response_format": "diarized_json"}
    files = {"file": CLIP}
    response = server.client.post("/v1/audio/transcriptions", files=files, data=fields)
    assert response.headers["content-type"].startswith("text/event-stream")
    *sent, end = response.text.strip().split("\n\n")
    assert end == "data: [DONE]"
    for line in sent:
        checked(TranscriptionStreamEvent, line.removeprefix("data: "))
    assert [json.loads(line.removeprefix("data: ")) for line in sent] == GOLDEN["stream"]
    assert response.headers["x-request-id"]


def test_stream_sends_deltas_during_the_job_and_the_whole_text(
    start_server: StartServer, tmp_path: Path
) -> None:
    hold = new_file(tmp_path / "hold", "")
    held = start_server(scripted_hold=hold)
    client = sdk(held)
    clip = ("clip.wav", wav(SECOND * 12))
    deltas, done = [], None
    with client.audio.transcriptions.create(file=clip, model="whisper-1", stream=True) as stream:
        for event in stream:
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
                if len(deltas) == 1:
                    assert busy(held)
                    hold.unlink()
            else:
                assert done is None
                done = event
    assert done is not None
    assert done.type == "transcript.text.done"
    assert "".join(deltas) == done.text
    assert len(deltas) == 12
    assert done.usage is not None
    assert done.usage.total_tokens == 0


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"file": ("a.wav", b"")}, 400, "audio_empty", "file"),
        ({"file": ("a.wav", b"no recording at all " * 9)}, 400, "audio_format_unsupported", "file"),
        ({"model": "whisper-9"}, 404, "model_not_found", "model"),
        ({"response_format": "docx"}, 422, "field_invalid", "response_format"),
        ({"language": "no such language"}, 422, "language_invalid", "language"),
        ({"temperature": 7}, 422, "field_invalid", "temperature"),
        ({"prompt": "a" * 5000}, 422, "field_invalid", "prompt"),
        ({"include": ["item"]}, 422, "field_invalid", "include"),
        ({"timestamp_granularities": ["page"]}, 422, "field_invalid", "timestamp_granularities"),
        ({"stream": True, "response_format": "srt"}, 422, "field_invalid", "stream"),
        ({"chunking_strategy": "manual"}, 422, "field_invalid", "chunking_strategy"),
        ({"chunking_strategy": {**VAD, "threshold": 2}}, 422, "field_invalid", "chunking_strategy"),
        ({"known_speaker_names": ["Ann"]}, 422, "field_invalid", "known_speaker_names"),
    ],
)
def test_invalid_field_is_refused_in_openais_shape(
    fields: dict[str, Any], status: int, code: str, param: str, ask: Asking
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(**fields)
    check_error(caught.value, status, code, param)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": ""}, 422, "field_missing", "model"),
        ({"model": "vibevoice-asr"}, 404, "model_not_found", "model"),
        ({"model": "gpt-realtime"}, 404, "model_not_found", "model"),
        ({"include": ["logprobs"]}, 422, "logprobs_unavailable", "include"),
        ({"timestamp_granularities": ["word"]}, 422, "field_invalid", "timestamp_granularities"),
    ],
)
def test_strict_service_refuses_fields_without_effect_and_models_that_are_not_loaded(
    fields: dict[str, Any], status: int, code: str, param: str, strict: Server
) -> None:
    client = sdk(strict, api_key=TOKEN)
    create = client.audio.transcriptions.create
    with pytest.raises(openai.APIStatusError) as caught:
        create(**{"file": CLIP, "model": "whisper-1", **fields})
    check_error(caught.value, status, code, param)
    assert create(file=CLIP, model="whisper-1").text == GOLDEN["json"]["text"]
    assert "gpt-realtime" not in [model.id for model in client.models.list()]


@pytest.mark.parametrize(
    "name",
    [
        *("", "scripted", "vibevoice-asr"),
        *("whisper-1", "Systran/faster-whisper-large-v3", "gpt-realtime"),
    ],
)
@pytest.mark.anywhere
def test_foreign_model_name_gets_the_loaded_model_with_a_warning_and_an_own_name_none(
    name: str, server: Server
) -> None:
    create = sdk(server).audio.transcriptions.with_raw_response.create
    raw = create(file=CLIP, model=name, language="en")
    assert json.loads(raw.text) == GOLDEN["json"]
    warned = f"299 vibevoice-asr \"The model '{name}' is not loaded here; 'scripted' answered.\""
    ours = name in ("", "scripted", "vibevoice-asr")
    assert raw.headers.get("warning") == (None if ours else warned)


IGNORED = "option_ignored"


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"include": ["logprobs"]}, IGNORED, "This service returns probabilities of words and seg"),
        ({"timestamp_granularities": ["word"]}, IGNORED, "the response_format verbose_json only"),
        ({"prompt": "Beckett", "keywords": ["Nagg"]}, IGNORED, "prompt/hotwords"),
        ({"chunking_strategy": {**VAD, "silence_duration_ms": 500}}, IGNORED, "cut at pauses"),
        ({"languages": ["en", "de"]}, IGNORED, "The language was detected"),
        ({"extra_body": {"lanuage": "en"}}, "field_unknown", "no field 'lanuage'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.anywhere
def test_unknown_field_or_one_without_effect_is_a_warning_in_the_answer(
    fields: dict[str, Any], code: str, said: str, ask: Asking
) -> None:
    answer = ask(**fields)
    assert answer.text == GOLDEN["json"]["text"]
    (warning,) = answer.warnings
    assert warning["code"] == code
    assert said in warning["message"]


def test_warning_of_a_plain_text_is_in_the_header(server: Server) -> None:
    raw = sdk(server).audio.transcriptions.with_raw_response.create(
        file=CLIP, model="scripted", response_format="text", include=["logprobs"]
    )
    assert raw.text == GOLDEN["text"]
    assert "probabilities" in raw.headers["warning"]


@pytest.mark.parametrize("kind", ["audio/wav", "audio/x-wav; codecs=1", "application/octet-stream"])
@pytest.mark.anywhere
def test_recording_sent_as_the_body_takes_its_fields_from_the_query(
    kind: str, server: Server
) -> None:
    address = "/v1/audio/transcriptions"
    headers = {"content-type": kind}
    plain = server.client.post(address, content=CLIP[1], headers=headers, params={"language": "en"})
    assert plain.json() == GOLDEN["json"]
    asked = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    timed = server.client.post(address, content=CLIP[1], headers=headers, params=asked)
    assert [one["word"] for one in timed.json()["words"]] == GOLDEN["json"]["text"].split()
    assert timed.json()["segments"]
    empty = server.client.post(address, content=b"", headers=headers)
    assert (empty.status_code, empty.json()["error"]["code"]) == (400, "audio_empty")


def test_recording_sent_as_a_body_over_the_upload_limit_returns_413(slow: Server) -> None:
    headers = {"content-type": "audio/wav"}
    large = slow.client.post("/v1/audio/transcriptions", content=b"\1" * (5 << 20), headers=headers)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "upload_too_large")
    other = slow.client.post("/v1/transcribe", content=CLIP[1], headers=headers)
    assert other.status_code >= 400


@pytest.mark.parametrize(
    "path", ["/v1/audio/transcriptions/", "/v1//audio/transcriptions", "//v1/audio//transcriptions"]
)
@pytest.mark.anywhere
def test_extra_slash_in_an_openai_path_is_accepted_but_no_foreign_host_with_it(
    path: str, server: Server
) -> None:
    base = f"http://127.0.0.1:{server.port}"
    sent = web.post(base + path, files={"file": CLIP}, data={"model": "scripted"})
    assert sent.status_code == 200, sent.text
    slashed = openai.OpenAI(base_url=f"{base}/v1/", api_key=ANY_KEY)
    assert slashed.audio.transcriptions.create(file=CLIP, model="scripted").text
    assert web.get(f"{base}/v1/models/").json()["object"] == "list"
    foreign = web.get(f"{base}//v1/models/", headers={"Host": "evil.example"})
    assert foreign.status_code == 403
    assert web.get(f"{base}/health/").status_code == 404


def check_error(error: openai.APIStatusError, status: int, code: str, param: str | None) -> None:
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert error.request_id == error.response.headers["x-request-id"]
    body = json.loads(error.response.text)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert error.type == ("invalid_request_error" if status < 429 else "rate_limit_error")
    check_discreet(error.response.text)


def jobs_submitted(server: Server) -> int:
    return int(server.client.get("/metrics.json").json()["vibevoice"]["jobs"]["submitted"])


def uploads_in(server: Server) -> list[str]:
    """The uploads that a service has open, where the system tells (Linux)."""
    found = []
    for one in Path(f"/proc/{server.process.pid}/fd").glob("*"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(os.readlink(one))
    return [one for one in found if "memfd:upload" in one]


def data_url(recording: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(recording).decode()}"


@pytest.mark.parametrize(
    ("names", "voices", "said"),
    [
        (["Ann"], [data_url(wav(SECOND))], "has 1.0 s"),
        (["Ann"], [data_url(wav(SECOND * 11))], "has 11.0 s"),
        (["Ann"], [data_url(b"no recording")], "cannot be used"),
        (["Ann"], ["data:audio/wav;base64,$$$$"], "is not valid base64"),
        (["Ann"], ["https://example.org/ann.wav"], "is no data URL"),
        (["Ann"], [data_url(b"")], "is empty"),
        (["Ann", "Ann"], [data_url(wav(SECOND * 3))] * 2, "duplicated"),
        (["Ann", "Bob"], [data_url(wav(SECOND * 3))], "has 2 names"),
        (list("ABCDE"), [data_url(wav(SECOND * 3))] * 5, "more than 4"),
    ],
)
def test_invalid_known_speakers_are_refused_without_a_job_or_an_upload_left_open(
    names: list[str], voices: list[str], said: str, ask: Asking, server: Server
) -> None:
    before = jobs_submitted(server)
    with pytest.raises(openai.UnprocessableEntityError, match=said):
        ask(known_speaker_names=names, known_speaker_references=voices)
    assert jobs_submitted(server) == before
    wait_until(lambda: not uploads_in(server), "nothing of them stays open")


def test_four_known_speakers_of_ten_seconds_in_stereo_fit_into_a_form(ask: Asking) -> None:
    """1.92 MB each; more than four of them are too long for any form."""
    voice = data_url(wav(b"\1\0" * 48_000 * 2 * 10, rate=48_000, channels=2))
    with pytest.raises(openai.UnprocessableEntityError, match="no speech") as caught:
        ask(known_speaker_names=list("ABCD"), known_speaker_references=[voice] * 4)
    check_error(caught.value, 422, "field_invalid", "known_speaker_references")
    with pytest.raises(openai.BadRequestError) as caught_too:
        ask(known_speaker_names=["A"], known_speaker_references=["data:" + "A" * (13 << 20)])
    check_error(caught_too.value, 400, "field_too_long", None)


@pytest.mark.anywhere
def test_loaded_engine_is_listed_under_every_openai_model_name(server: Server) -> None:
    client = sdk(server)
    assert set(ALIASES) == set(get_args(AudioModel))
    raw = client.models.with_raw_response.list()
    checked(list[Model], json.dumps(json.loads(raw.text)["data"]))
    listed = [model.id for model in client.models.list()]
    assert listed[0] == "scripted"
    assert set(listed) > {*ALIASES, *LIVE_ALIASES, "gpt-realtime"}
    assert client.models.retrieve("whisper-1").alias_of == "scripted"  # type: ignore[attr-defined]
    for name in listed:
        assert client.models.retrieve(name).id == name
    default = "Systran/faster-whisper-large-v3"
    assert client.models.retrieve(default).id == default
    bare = web.get(f"http://127.0.0.1:{server.port}/v1/models/{default}")
    assert (bare.status_code, bare.json()["id"]) == (200, default)
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("whisper-9")
    check_error(caught.value, 404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("base", "path"),
    [
        *(("", "/audio/transcriptions"), ("", "/audio/speech"), ("", "/models/whisper-1")),
        *(("", "/models"), ("/v1/v1", "/audio/transcriptions")),
    ],
)
def test_path_of_a_wrong_base_url_is_404_in_openais_shape_and_says_how_the_base_url_ends(
    server: Server, base: str, path: str
) -> None:
    client = sdk(server).with_options(base_url=f"http://127.0.0.1:{server.port}{base}")
    with pytest.raises(openai.NotFoundError, match="ends with /v1") as caught:
        client.post(path, cast_to=object)
    check_error(caught.value, 404, "not_found", None)


def test_unknown_path_or_method_and_foreign_host_are_refused_in_openais_shape(
    server: Server,
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk(server).post("/audio/music", cast_to=object)
    check_error(caught.value, 404, "not_found", None)
    response = server.client.get("/v1/audio/transcriptions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"
    foreign = server.client.get("/v1/models", headers={"Host": "evil.example"})
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "host_not_allowed")
    assert foreign.headers["x-request-id"]


def test_allowed_origin_may_send_the_openai_packages_headers_and_read_the_request_id(
    server: Server,
) -> None:
    """Whose headers a browser asks about first."""
    asked = {
        "Origin": "tauri://localhost",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-arch,x-stainless-lang,"
        "x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
        "x-stainless-runtime-version,x-stainless-timeout",
    }
    answer = server.client.options("/v1/audio/transcriptions", headers=asked)
    assert answer.status_code == 200, answer.text
    listed = server.client.get("/v1/models", headers={"Origin": "tauri://localhost"})
    assert "X-Request-Id" in listed.headers["access-control-expose-headers"]


def test_wrong_key_is_an_authentication_error(strict: Server) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk(strict).audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert (caught.value.code, caught.value.type) == ("token_invalid", "authentication_error")
    assert caught.value.request_id


def test_form_without_a_file_or_with_two_is_refused_and_a_file_without_a_name_is_not(
    server: Server,
) -> None:
    post = server.client.post
    address = "/v1/audio/transcriptions"
    fields = {"model": "whisper-1"}
    audio = ("a.wav", CLIP[1])
    for response, status, code in (
        (post(address, json=fields), 415, "content_type_unsupported"),
        (post(address, data=fields, files={"audio": audio}), 400, "file_missing"),
        (post(address, data=fields, files={"model": (None, "whisper-1")}), 400, "file_missing"),
        (post(address, data=fields, files=[("file", audio)] * 2), 400, "multiple_files"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert "audio=@" not in response.text
    nameless = {"file": (None, CLIP[1]), "model": (None, "whisper-1")}
    assert post(address, files=nameless).status_code == 200


def test_full_queue_returns_429_with_retry_after(slow: Server) -> None:
    client = sdk(slow)
    ids = [slow.submit(long(100))]
    slow.wait_state(ids[0], "running")
    ids.append(slow.submit(long(100)))
    try:
        with pytest.raises(openai.RateLimitError) as caught:
            client.audio.transcriptions.create(file=CLIP, model="whisper-1")
    finally:
        for job in ids:
            slow.cancel(job)
    check_error(caught.value, 429, "queue_full", None)
    assert 15 <= int(caught.value.response.headers["retry-after"]) <= 60, "100 s at four times that"
    assert caught.value.response.headers["x-should-retry"] == "true"


@pytest.mark.posix("signals")
@pytest.mark.parametrize("stream", [False, True])
def test_crash_of_the_engine_is_not_retried_by_the_package(
    stream: bool, start_server: StartServer
) -> None:
    """By its status it would be: six crashes instead of two."""
    poison = GOLDEN["json"]["text"].split()[-1]
    sent: list[str] = []
    note = lambda request: sent.append(request.headers["x-stainless-retry-count"])  # noqa: E731
    http_client = httpx.Client(event_hooks={"request": [note]})
    server = start_server(scripted_poison=poison, scripted_speed=10)
    client = sdk(server, max_retries=2, http_client=http_client)
    with pytest.raises(openai.APIError) as caught:
        list(client.audio.transcriptions.create(file=CLIP, model="whisper-1", stream=stream))
    assert caught.value.code == "engine_crashed"
    assert isinstance(caught.value, openai.InternalServerError) is not stream
    assert sent == ["0"]


def test_idempotency_key_repeated_after_a_hangup_is_one_job_and_refused_for_other_audio(
    slow: Server,
) -> None:
    """Even where its client hung up long before it would have timed out."""
    clip = ("clip.wav", wav(SECOND * 11))
    keyed = {"extra_headers": {"Idempotency-Key": "talk-1"}}
    hang_up(slow, lambda: begun(slow, 11), file=clip, **keyed)
    job = slow.client.get("/v1/jobs").json()["jobs"][-1]
    create = sdk(slow).audio.transcriptions.with_raw_response.create
    raw = create(file=clip, model="whisper-1", **keyed)
    assert raw.headers["x-request-id"] == job["id"]
    assert raw.headers["idempotent-replayed"] == "true"
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        create(file=CLIP, model="whisper-1", **keyed)
    check_error(caught.value, 422, "idempotency_key_reused", None)
    slow.client.delete(f"/v1/jobs/{job['id']}")


def test_hangup_of_a_streaming_or_waiting_client_cancels_its_job(slow: Server) -> None:
    """Streaming, and waiting; minutes of work each."""
    clip = ("clip.wav", long(600))
    wait_until(lambda: not busy(slow), "nothing runs any more")
    stream = sdk(slow).audio.transcriptions.create(file=clip, model="whisper-1", stream=True)
    next(iter(stream))
    assert busy(slow)
    stream.close()
    wait_until(lambda: not busy(slow), "the stream's job is ended")
    hang_up(slow, lambda: busy(slow), file=clip)
    wait_until(lambda: not busy(slow), "the waiting one's job is ended")


@pytest.mark.slow
def test_speakers_have_their_letters_and_known_ones_their_names(
    start_server: StartServer, tmp_path: Path
) -> None:
    """What the wheel's clip says, by two voices, whole and streamed."""
    clip = tmp_path / "play.wav"
    soundfile.write(clip, decode_audio_file(PLAY, 16_000)[: 12 * 16_000], 16_000, subtype="PCM_16")
    there = start_server(engine="moonshine")
    model = "gpt-4o-transcribe-diarize"
    raw = sdk(there).audio.transcriptions.with_raw_response.create(
        file=clip, model=model, response_format="diarized_json", chunking_strategy="auto"
    )
    answer = checked(TranscriptionDiarized, raw.text)
    assert {segment.speaker for segment in answer.segments} == {"A", "B"}
    assert answer.text == " ".join(segment.text for segment in answer.segments)
    fields = {"file": clip, "model": model, "response_format": "diarized_json"}

    def streamed(**more: Any) -> tuple[list[Any], Any]:
        """The last event of each segment, and the last of all."""
        events = list(sdk(there).audio.transcriptions.create(**fields, stream=True, **more))
        segments = {one.id: one for one in events if one.type == "transcript.text.segment"}
        return list(segments.values()), events[-1]

    segments, done = streamed()
    said = [(one.id, one.speaker, one.text) for one in answer.segments]
    assert [(one.id, one.speaker, one.text) for one in segments] == said
    assert done.text == answer.text
    man = tmp_path / "man.wav"
    soundfile.write(man, decode_audio_file(PLAY, 16_000)[: 8 * 16_000], 16_000, subtype="PCM_16")
    known = data_url(man.read_bytes())
    segments, done = streamed(known_speaker_names=["Nagg"], known_speaker_references=[known])
    named = [one.speaker for one in segments]
    assert named == [{"A": "Nagg", "B": "B"}[speaker] for _, speaker, _ in said]
    assert [one["speaker"] for one in done.segments] == named


def test_examples_of_the_openai_docs_run(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    page = (REPOSITORY / "docs/openai.md").read_text("utf-8")
    (tmp_path / "meeting.wav").write_bytes(CLIP[1])
    monkeypatch.chdir(tmp_path)
    here = "http://127.0.0.1:8765", f"http://127.0.0.1:{server.port}"
    (example,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert here[0] in example
    exec(compile(example.replace(*here), "openai.md", "exec"), {})
    said = capfd.readouterr().out
    assert re.match(r"A 0\.0-1\.0: \w{8}\nB 1\.0-2\.0: \w{8}\nA 2\.0-3\.0: \w{8}\n", said)
    assert said.endswith(GOLDEN["json"]["text"])
    if os.name == "nt":  # the rest is for a shell
        return
    (commands,) = re.findall(r"```sh\n(.+?)```", page, re.DOTALL)
    subprocess.run(["sh", "-euc", commands.replace(*here)], check=True)
    said = capfd.readouterr().out
    assert said.startswith(GOLDEN["srt"])
    assert "transcript.text.done" in said
    assert '"whisper-1"' in said


@pytest.mark.skipif(shutil.which("curl") is None, reason=missing("curl", "curl"))
@pytest.mark.anywhere
def test_requests_for_whisper_cpps_server_are_answered_and_translation_is_refused(
    server: Server, tmp_path: Path
) -> None:
    """The command of its README, another format, and a refusal."""
    (tmp_path / "clip.wav").write_bytes(CLIP[1])
    url = f"http://127.0.0.1:{server.port}/inference"

    def curl(*more: str) -> str:
        usual = ["-H", "Content-Type: multipart/form-data", "-F", "file=@clip.wav"]
        usual += ["-F", "temperature=0.0", "-F", "temperature_inc=0.2", "-F", "language=en"]
        command = ["curl", "-s", url, *usual, *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    assert json.loads(curl("-F", "response_format=json")) == GOLDEN["json"]
    assert curl("-F", "response_format=srt") == GOLDEN["srt"]
    refused = json.loads(curl("-F", "translate=true"))
    assert refused["error"]["code"] == "translation_unavailable"
