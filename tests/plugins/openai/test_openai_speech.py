"""OpenAI's API for speech: its package, against a service with tones for words."""

import asyncio
import base64
import io
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import openai
import pytest
import soundfile
from imageio_ffmpeg import get_ffmpeg_exe
from module_services import service_of_module
from service_process import PATIENCE_S, Server, StartServer, wait_until

from sidecar import errors
from sidecar.audio.codecs import EncodedFormat
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.plugins import settings_class
from sidecar.plugins.conversation.tts.tts_engine_selection import choose_tts_engine
from sidecar.plugins.openai import speech
from sidecar.plugins.openai.errors import SpeechFull
from sidecar.workers.engine_fleet import EngineFleet

Settings = settings_class()

RATE = 24_000
TEXT = "One two three. Four five six seven."
SECONDS = 0.05 * len("Onetwothree.Fourfivesixseven.") + 0.05 * 7
"""As `sidecar.plugins.conversation.tts.scripted_tts` speaks it."""
TOLERANCE_S = 0.2
"""Of coders, which add silence, and of resampling."""


def sdk(server: Server, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1",
        **{"api_key": "none", "max_retries": 0, **settings},
    )


def spoken(server: Server, **fields: Any) -> Any:
    """The answer of the package."""
    wish = {"model": "tts-1", "voice": "low", "input": TEXT, **fields}
    return sdk(server).audio.speech.create(**wish)


speaking = service_of_module(voice_engine="scripted")
"""A service that speaks at once."""


def decoded_s(audio: bytes) -> float:
    """Seconds of samples that ffmpeg finds, which reads a stream from its beginning."""
    command = [get_ffmpeg_exe(), "-v", "error", "-i", "-", "-f", "s16le", "-ar", str(RATE), "-"]
    done = subprocess.run(command, input=audio, capture_output=True, check=True)
    assert not done.stderr
    return len(done.stdout) / 2 / RATE


@pytest.mark.parametrize(
    ("form", "kind", "magic"),
    [
        ("mp3", "audio/mpeg", b"\xff\xf3"),
        ("opus", "audio/ogg", b"OggS"),
        ("flac", "audio/flac", b"fLaC"),
        ("wav", "audio/wav", b"RIFF"),
    ],
)
def test_audio_of_every_format_is_complete(
    form: Any, kind: str, magic: bytes, speaking: Server
) -> None:
    answer = spoken(speaking, model="scripted", response_format=form)
    audio = answer.read()
    assert answer.response.headers["content-type"] == kind
    assert "warning" not in answer.response.headers
    assert audio.startswith(magic)
    assert decoded_s(audio) == pytest.approx(SECONDS, abs=TOLERANCE_S)
    samples, _ = soundfile.read(io.BytesIO(audio))
    assert abs(samples).max() > 0.1


def test_defaults_of_the_package_give_an_mp3_with_a_warning(speaking: Server) -> None:
    wish = {"voice": "alloy", "instructions": "Speak like a pirate."}
    answer = spoken(speaking, model="gpt-4o-mini-tts", **wish)
    assert answer.read().startswith(b"\xff\xf3")
    warning = answer.response.headers["warning"]
    assert "'gpt-4o-mini-tts' is not loaded here; 'scripted' spoke" in warning
    assert "'alloy'" in warning
    assert "'instructions'" in warning


def test_model_name_with_a_line_break_adds_no_header_to_the_answer(speaking: Server) -> None:
    evil = spoken(speaking, model='a"b\r\nSet-Cookie: é')
    assert "a'b??Set-Cookie: ?" in evil.response.headers["warning"]
    assert "set-cookie" not in evil.response.headers


def test_unknown_field_is_a_warning_with_a_suggestion(speaking: Server) -> None:
    answer = spoken(speaking, extra_body={"sped": 2, "response_formt": "wav"})
    warning = answer.response.headers["warning"]
    assert "There is no field 'sped'; it has no effect. Did you mean 'speed'?" in warning
    assert "Did you mean 'response_format'?" in warning


def test_raw_samples_have_openais_rate_and_the_requested_speed(speaking: Server) -> None:
    lengths = []
    for speed in (1.0, 2.0):
        audio = spoken(speaking, response_format="pcm", speed=speed).read()
        lengths.append(len(audio) / 2 / RATE)
    assert lengths[0] == pytest.approx(SECONDS, abs=0.05)
    assert lengths[1] < 0.65 * lengths[0]


def test_sse_events_of_speech_have_the_same_samples_as_the_plain_body(speaking: Server) -> None:
    body = {"input": TEXT, "voice": "low", "response_format": "pcm"}
    plain = speaking.client.post("/v1/audio/speech", json=body).content
    told = speaking.client.post("/v1/audio/speech", json={**body, "stream_format": "sse"})
    assert told.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(one.removeprefix("data: ")) for one in told.text.strip().split("\n\n")]
    assert events[-1]["type"] == "speech.audio.done"
    assert all(one["type"] == "speech.audio.delta" for one in events[:-1])
    assert b"".join(base64.b64decode(one["audio"]) for one in events[:-1]) == plain


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"input": ""}, 422, "field_missing", "input"),
        ({"input": "a" * 4097}, 422, "field_invalid", "input"),
        ({"response_format": "aac"}, 422, "field_invalid", "response_format"),
        ({"speed": 9}, 422, "field_invalid", "speed"),
        ({"voice": "nobody"}, 400, "voice_unknown", "voice"),
        ({"stream_format": "raw"}, 422, "field_invalid", "stream_format"),
    ],
)
def test_invalid_field_is_refused_in_openais_shape(
    fields: dict[str, Any], status: int, code: str, param: str, speaking: Server
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        spoken(speaking, **fields)
    error = caught.value
    assert (error.status_code, error.code, error.param) == (status, code, param)


def test_input_without_words_gives_a_moment_of_silence(speaking: Server) -> None:
    answer = speaking.client.post("/v1/audio/speech", json={"input": "…", "response_format": "wav"})
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert (rate, len(samples), abs(samples).max()) == (RATE, RATE // 5, 0.0)


def test_speech_without_a_tts_engine_is_refused(start_server: StartServer) -> None:
    silent = start_server(voice_engine="none")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        sdk(silent, max_retries=2).audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
    assert caught.value.code == "speech_unavailable"
    assert "pull voice" in caught.value.response.json()["error"]["message"]


slow = service_of_module(
    voice_engine="scripted",
    scripted_say=0.5,
    scripted_hangs="hang",
    openai_strict="true",
    limits={"speech_characters": 600, "speech_seconds": 30},
)
"""A service that takes half a second for each word, and has little room."""


def test_audio_is_streamed_and_a_hangup_ends_the_synthesis(slow: Server) -> None:
    """More than two minutes of work; the next one is not behind them."""
    endless = "a " * 290
    body = {"input": endless, "response_format": "pcm", "model": "tts-1"}
    with slow.client.stream("POST", "/v1/audio/speech", json=body) as response:
        assert response.status_code == 200
        assert next(response.iter_raw())
    short = {"input": "One.", "response_format": "pcm", "model": "tts-1"}
    assert slow.client.post("/v1/audio/speech", json=short, timeout=120).status_code == 200


def test_text_over_the_limit_of_waiting_speech_gets_retry_after_until_the_other_hangs_up(
    slow: Server,
) -> None:
    body = {"input": "word " * 90, "response_format": "pcm", "model": "tts-1"}
    with slow.client.stream("POST", "/v1/audio/speech", json=body) as response:
        sounds = response.iter_raw()  # held, because httpx hangs up once it is gone
        assert next(sounds)
        with pytest.raises(openai.RateLimitError) as caught:
            spoken(slow, input="word " * 90)
        assert caught.value.code == "speech_full"
        assert int(caught.value.response.headers["retry-after"]) > 0

    def free() -> bool:
        answer = slow.client.post(
            "/v1/audio/speech", json={**body, "input": "One.", "speed": 4}, timeout=PATIENCE_S
        )
        return answer.status_code == 200

    wait_until(free, "its place is free once it has left")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "kokoro"}, "model_not_found", "model"),
        ({"model": ""}, "field_missing", "model"),
        ({"input": "a" * 200, "speed": 0.25, "response_format": "flac"}, "field_invalid", "input"),
    ],
    ids=["another model", "no model", "more audio than a request may have"],
)
def test_strict_service_refuses_other_models_and_too_much_audio(
    fields: dict[str, Any], code: str, param: str, slow: Server
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        spoken(slow, **fields)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_number_of_speech_requests_at_once_is_limited() -> None:
    quota = speech.SpeechQuota()
    with ExitStack() as held:
        for _ in range(speech.MAX_REQUESTS):
            held.enter_context(quota.held(ANONYMOUS, 3))
        with pytest.raises(SpeechFull), quota.held(ANONYMOUS, 3):
            pass
    with quota.held(ANONYMOUS, 3):
        pass


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineFleet]:
    """The engine that speaks in its process, without a service."""
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SAY", "0.05")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HANGS", "hang")
    settings = Settings(
        engine="scripted", voice_engine="scripted", data_dir=tmp_path, keep_alive=-1
    )
    voice, _ = choose_tts_engine(settings)
    one = EngineFleet(settings, EngineChoice(engine_spec("scripted"), ""), None, voice)
    yield one
    await one.close()


def speech_request(text: str, voice: str = "low", speed: float = 1.0) -> speech.SpeechRequest:
    synthesis = SynthesisOptions(voice=voice, speed=speed, rate=RATE)
    return speech.SpeechRequest(
        text, synthesis, EncodedFormat.PCM, speech.SpeechStreamFormat.AUDIO, ()
    )


async def heard(
    fleet: EngineFleet, text: str, quota: speech.SpeechQuota, identity: Identity = ANONYMOUS
) -> bytes:
    parts = speech.speech_audio(fleet.voice, speech_request(text), quota, identity)
    return b"".join([part async for part in parts])


async def conversation_hears(fleet: EngineFleet, text: str) -> bytes:
    return b"".join([sound.pcm async for sound in fleet.voice.say(text)])


async def test_client_that_does_not_read_blocks_no_other_speech(fleet: EngineFleet) -> None:
    """Its phrase has more bytes than may lie unread between the engine's process and ours."""
    quota, endless = speech.SpeechQuota(), speech_request("a" * 480, speed=0.25)
    async with aclosing(speech.speech_audio(fleet.voice, endless, quota, ANONYMOUS)) as unread:
        assert await anext(unread)
        assert await conversation_hears(fleet, "Hi there.")
        assert await heard(fleet, "Hi there.", quota)


async def test_speech_of_a_conversation_or_another_owner_waits_for_few_phrases_of_a_busy_owner(
    fleet: EngineFleet,
) -> None:
    quota, other = speech.SpeechQuota(), Identity("other", AuthMethod.TOKEN)
    phrase = "one two three four five."
    many = [asyncio.create_task(heard(fleet, phrase, quota)) for _ in range(8)]

    def ended() -> int:
        return sum(one.done() for one in many)

    await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
    assert await conversation_hears(fleet, "Hi.")
    assert ended() <= 3, "one that was spoken, and what came in between on a busy machine"
    before = ended()
    assert await heard(fleet, "Hi.", quota, other)
    assert ended() <= before + 3
    assert all(await asyncio.gather(*many))


async def test_phrase_synthesized_to_too_much_audio_is_engine_failed(fleet: EngineFleet) -> None:
    assert fleet.voice is not None
    quota, synthesis = speech.SpeechQuota(), speech_request("").synthesis
    turn = quota.turns.held(ANONYMOUS)
    phrase = speech.phrase_audio(fleet.voice, "a" * 100, synthesis, turn, max_bytes=RATE)
    with pytest.raises(errors.EngineFailed):
        _ = [block async for block in phrase]
    assert await heard(fleet, "One.", quota), "its turn is over"


async def test_hangup_ends_the_wait_for_the_tts_engine(fleet: EngineFleet) -> None:
    hung = asyncio.create_task(conversation_hears(fleet, "One hang there."))
    await asyncio.sleep(0)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    assert fleet.voice is not None
    response = speech.SpeechResponse(
        fleet.voice, speech_request("Hi.", "alloy"), speech.SpeechQuota(), ANONYMOUS
    )
    await response({"type": "http", "state": {}}, receive, send)
    assert not sent
    hung.cancel()
    await asyncio.wait({hung})
