"""The engines that speak: what each promises, and what each does in its own way."""

import array
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Literal

import pytest
import tiny_piper_voice
from http_file_server import FileHost
from not_tested import missing_extra
from service_process import PATIENCE_S, new_file

from sidecar import errors
from sidecar.engines import create_engine, missing_packages
from sidecar.installation import install_command
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    SynthesisOptions,
    SynthesizedAudio,
    TtsEngine,
    TtsSpec,
    UpstreamOptions,
)
from sidecar.plugin import VoiceRequest
from sidecar.plugins import settings_class
from sidecar.plugins.conversation.checks import check_tts
from sidecar.plugins.conversation.errors import SpeechFailed
from sidecar.plugins.conversation.tts import (
    espeak_tts,
    moonshine_tts,
    openai_tts,
    pull_voice,
    scripted_tts,
    system_tts,
    tts_engine_selection,
)
from sidecar.plugins.conversation.tts.tts_engine_selection import choose_tts_engine

Settings = settings_class()

TEXT = "Good morning, Ada. It is half past three."
REPLY = b"\x01\x02" * 5_000
JSON = {"content-type": "application/json"}


def never() -> bool:
    return False


@dataclass(kw_only=True)
class Speech(FileHost):
    """`/v1/audio/speech`, and servers that do it wrong, by the name of the model."""

    asked: list[dict[str, object]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set once the client of 'mute' or 'stalls' has closed the connection."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(self.read_body(request))
        self.asked.append({**body, "key": request.headers.get("authorization")})
        match body["model"]:
            case "locked":
                self.reply(request, 401, b'{"error":{"message":"no key"}}', JSON)
            case "says":
                self.reply(request, 200, b'{"error":"no such voice"}', JSON)
            case "mute" | "stalls" as model:
                if model == "stalls":
                    request.send_response(200)
                    request.end_headers()
                assert request.connection.recv(1) == b""
                self.left.set()
            case "gone":
                request.close_connection = True
            case _:  # half a sample too many
                self.reply(request, 200, REPLY + b"\x07", {"content-type": "audio/pcm"})


@pytest.fixture(scope="module")
def speech() -> Iterator[Speech]:
    with Speech() as one:
        yield one


@pytest.fixture(scope="module")
def server(speech: Speech) -> str:
    return speech.url


SAY = f"""#!{sys.executable}
import sys, wave
arguments = sys.argv[1:]
if arguments == ["-v", "?"]:
    print("Alex                en_US    # Most people recognise me.")
    print("Anna                de_DE    # Hallo.")
    raise SystemExit
text = sys.stdin.read()
if "hang" in text:
    import time
    time.sleep(600)
if "fail" in text:
    raise SystemExit(3)
if "silent" in text:
    raise SystemExit
with wave.open(arguments[arguments.index("-o") + 1], "wb") as sound:
    sound.setnchannels(1); sound.setsampwidth(2); sound.setframerate(22050)
    sound.writeframes(bytes(200 * len(text)) if "-v" not in arguments else b"\\1\\1" * len(text))
"""


@pytest.fixture
def say(tmp_path: Path) -> Path:
    """A program that takes what `say` of macOS takes; there is no other system here."""
    program = new_file(tmp_path / "say", SAY, 0o755)
    if sys.platform != "win32":
        return program
    return new_file(tmp_path / "say.cmd", f'@"{sys.executable}" "{program}" %*\n')


def loaded(
    spec: TtsSpec,
    url: str = "",
    model: str | None = None,
    folder: Path | None = None,
    program: Path | None = None,
) -> TtsEngine:
    engine = create_engine(spec.factory)
    if program is not None:
        engine = type(engine)(str(program))
    server = UpstreamOptions((url,), ("secret",), model=model)
    options = LoadOptions(speaks=True, upstream=server, checkpoint=str(folder) if folder else None)
    assert list(engine.load(options))[-1] == 1.0
    return engine


ALL = scripted_tts, espeak_tts, openai_tts, system_tts, moonshine_tts


@pytest.fixture(params=[one.SPEC for one in ALL], ids=lambda spec: spec.name)
def voice(
    request: pytest.FixtureRequest, server: str, say: Path, tmp_path: Path
) -> tuple[TtsSpec, TtsEngine]:
    spec: TtsSpec = request.param
    if lacking := missing_packages(spec):
        pytest.skip(f"not installed: {lacking}")
    folder = tiny_piper_voice.pulled(tmp_path) if spec is moonshine_tts.SPEC else None
    program = say if spec is system_tts.SPEC else None
    return spec, loaded(spec, server, folder=folder, program=program)


Spoken = tuple[TtsSpec, TtsEngine]


def test_tts_engine_gives_whole_samples_at_one_rate_and_word_marks_if_declared(
    voice: Spoken,
) -> None:
    spec, engine = voice
    sounds = list(engine.say(TEXT, SynthesisOptions(), never))
    assert sounds
    assert len({sound.rate for sound in sounds}) == 1
    assert not any(len(sound.pcm) % 2 for sound in sounds)
    marks = [mark for sound in sounds for mark in sound.marks]
    assert bool(marks) is spec.marks
    at = characters(sounds)
    assert at == sorted({*at})
    words = {at for at, letter in enumerate(TEXT) if letter != " " and TEXT[:at][-1:] in ("", " ")}
    assert {*at} <= words
    seconds = sum(sound.seconds for sound in sounds)
    assert all(0 <= mark.start <= seconds for mark in marks)


def test_tts_engine_repeats_marks_and_length_of_a_text_and_gives_nothing_when_cancelled(
    voice: Spoken,
) -> None:
    _, engine = voice
    first = list(engine.say(TEXT, SynthesisOptions(), never))
    assert list(engine.say(TEXT, SynthesisOptions(), lambda: True)) == []
    again = list(
        engine.say(TEXT, SynthesisOptions(), never)
    )  # a throat is never twice quite the same
    assert characters(again) == characters(first)
    assert len(pcm(iter(again))) == pytest.approx(len(pcm(iter(first))), rel=0.03)


def test_tts_engine_speaks_with_its_listed_voices_and_refuses_others(voice: Spoken) -> None:
    _, engine = voice
    if engine.voices():
        for name in engine.voices()[:2]:
            assert list(engine.say(TEXT, SynthesisOptions(voice=name), never))
        with pytest.raises(errors.VoiceUnknown) as refused:
            list(engine.say(TEXT, SynthesisOptions(voice="nobody"), never))
        assert engine.voices()[0] in (refused.value.hint or "")


@pytest.mark.skipif(
    bool(missing_packages(espeak_tts.SPEC)), reason=missing_extra("espeakng-loader")
)
def test_espeak_speaks_in_the_requested_language_and_speed() -> None:
    engine = loaded(espeak_tts.SPEC)
    english = pcm(engine.say(TEXT, SynthesisOptions(), never))
    swiss, american = (
        len(pcm(engine.say(TEXT, SynthesisOptions(language=tag), never)))
        for tag in ("de-CH", "en-US")
    )
    assert american == pytest.approx(len(english), rel=0.03)
    assert swiss != pytest.approx(len(english), rel=0.03)
    quick = pcm(engine.say(TEXT, SynthesisOptions(speed=1.5), never))
    assert 0.5 < len(quick) / len(english) < 0.85
    samples = array.array("h", english)
    assert max(samples) > 3_000
    assert pcm(engine.say("", SynthesisOptions(), never)) == pcm(
        engine.say("\0", SynthesisOptions(), never)
    )


@pytest.mark.skipif(
    bool(missing_packages(espeak_tts.SPEC)), reason=missing_extra("espeakng-loader")
)
def test_espeak_mark_is_at_the_start_of_its_word() -> None:
    """What is said up to a mark is what is said of the text up to there, give or take a pause."""
    engine = loaded(espeak_tts.SPEC)
    sounds = list(engine.say("One two three four. Ada", SynthesisOptions(), never))
    last = [mark for sound in sounds for mark in sound.marks][-1]
    assert last.character == len("One two three four. ")
    before = list(engine.say("One two three four.", SynthesisOptions(), never))
    assert last.start == pytest.approx(sum(sound.seconds for sound in before), abs=0.35)


@pytest.mark.parametrize(
    ("language", "voice"),
    [("de", "de"), ("de-ch", "de"), ("en-gb", "en-gb"), ("en", "en-us"), ("xx", "en-us")],
)
def test_espeak_uses_the_nearest_voice_for_a_missing_language(language: str, voice: str) -> None:
    assert espeak_tts.espeak_voice_for(language, ("en-us", "de", "en-gb")) == voice


def test_speech_server_gets_text_options_and_key_and_its_whole_samples_are_returned(
    speech: Speech,
) -> None:
    engine = loaded(openai_tts.SPEC, speech.url)
    sounds = list(engine.say(TEXT, SynthesisOptions(voice="nova", speed=1.25), never))
    assert pcm(iter(sounds)) == REPLY
    assert {sound.rate for sound in sounds} == {24_000}
    assert speech.asked[-1] == {
        "model": "tts-1",
        "input": TEXT,
        "voice": "nova",
        "speed": 1.25,
        "response_format": "pcm",
        "key": "Bearer secret",
    }


@pytest.mark.parametrize(
    ("model", "said"),
    [("locked", "401: no key"), ("says", "no such voice"), ("gone", "connection")],
)
def test_failing_speech_server_is_an_error_with_its_reason(
    server: str, model: str, said: str
) -> None:
    with pytest.raises(SpeechFailed) as failed:
        list(loaded(openai_tts.SPEC, server, model).say(TEXT, SynthesisOptions(), never))
    assert said in failed.value.detail


@pytest.mark.posix("programs for Linux")
@pytest.mark.parametrize("text", ["fail", "silent"])
def test_failing_system_program_is_an_error_and_leaves_no_file(
    say: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(system_tts.tempfile, "tempdir", str(scratch))
    engine = loaded(system_tts.SPEC, program=say)
    with pytest.raises(errors.EngineFailed):
        list(engine.say(text, SynthesisOptions(), never))
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("model", ["mute", "stalls"])
def test_cancelled_synthesis_closes_the_connection_to_a_silent_server(
    speech: Speech, model: str
) -> None:
    speech.left.clear()
    asked, engine = len(speech.asked), loaded(openai_tts.SPEC, speech.url, model)
    said = engine.say(TEXT, SynthesisOptions(), lambda: len(speech.asked) > asked)
    assert list(said) == []
    assert speech.left.wait(PATIENCE_S)
    assert list(loaded(openai_tts.SPEC, speech.url).say(TEXT, SynthesisOptions(), never))


@pytest.mark.posix("programs for Linux")
def test_cancelled_synthesis_returns_while_the_system_program_hangs(say: Path) -> None:
    engine, looks = loaded(system_tts.SPEC, program=say), iter([False, False, True])
    assert list(engine.say("hang", SynthesisOptions(), lambda: next(looks))) == []


def test_output_file_of_a_system_program_is_decoded(say: Path) -> None:
    (sound,) = loaded(system_tts.SPEC, program=say).say("hello", SynthesisOptions(), never)
    assert (sound.rate, len(sound.pcm)) == (22_050, 1_000)


@pytest.mark.parametrize(
    ("platform", "program"), [("darwin", "say"), ("win32", "powershell"), ("linux", "say")]
)
def test_voices_of_the_system_are_those_of_its_own_program(
    platform: str, program: str, say: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    asked: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda name: asked.append(name) or str(say))
    assert system_tts.is_system_tts_available() is (platform != "linux")
    assert asked == ([] if platform == "linux" else [program])


@pytest.mark.parametrize(
    ("pulled", "system", "espeak", "chosen"),
    [
        (True, True, True, "moonshine"),
        (False, True, True, "system"),
        (False, False, True, "espeak"),
        (False, False, False, None),
    ],
)
def test_auto_chooses_pulled_voices_then_system_then_espeak_or_hints_at_pull_voice(
    pulled: bool,
    system: bool,
    espeak: bool,
    chosen: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if pulled:
        tiny_piper_voice.pulled(tmp_path / "voices")
    monkeypatch.setattr(system_tts, "is_system_tts_available", lambda: system)
    installed = {moonshine_tts.SPEC.name, *([espeak_tts.SPEC.name] if espeak else [])}
    monkeypatch.setattr(
        tts_engine_selection,
        "missing_packages",
        lambda spec: [] if spec.name in installed else [*spec.requires],
    )
    found, reason = choose_tts_engine(Settings(data_dir=tmp_path))
    assert (found and found.spec.name) == chosen
    assert (found and found.folder) == (tmp_path / "voices" if pulled else None)
    assert ("pull voice" in reason) is (chosen is None)


def test_tts_library_present_only_as_a_folder_of_models_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So `moonshine_voice` is in an executable without voices."""
    (tmp_path / "only_models").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    spec = replace(moonshine_tts.SPEC, requires=("only_models",))
    assert tts_engine_selection.missing_packages(spec) == ["only_models"]
    assert tts_engine_selection.missing_packages(moonshine_tts.SPEC) == []


def test_engine_named_speech_uses_the_configured_server_and_needs_its_address(server: str) -> None:
    named, _ = choose_tts_engine(Settings(voice_engine="speech", speech_url=f"{server}/v1"))
    assert named is not None
    assert named.upstream == UpstreamOptions((server,), ("",))
    with pytest.raises(errors.SettingsInvalid, match="speech_url"):
        choose_tts_engine(Settings(voice_engine="speech"))


def test_each_unavailable_tts_engine_is_refused_with_a_hint_at_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tts_engine_selection, "missing_packages", lambda spec: [])
    with pytest.raises(errors.EngineUnavailable) as refused:
        choose_tts_engine(Settings(voice_engine="moonshine", data_dir=tmp_path))
    assert "pull voice" in (refused.value.hint or "")
    monkeypatch.undo()
    monkeypatch.setattr(system_tts, "is_system_tts_available", lambda: False)
    with pytest.raises(errors.EngineUnavailable) as refused:
        choose_tts_engine(Settings(voice_engine="system"))
    assert "espeak" in (refused.value.hint or "")
    monkeypatch.setattr("sidecar.engines.find_spec", lambda _: None)
    with pytest.raises(errors.EngineUnavailable) as refused:
        choose_tts_engine(Settings(voice_engine="espeak"))
    assert "pip install" in (refused.value.hint or "")
    with pytest.raises(errors.EngineUnavailable, match="moonshine_voice") as refused:
        choose_tts_engine(Settings(voice_engine="moonshine"))
    assert refused.value.hint == f"Install it again: {install_command('')}"


def test_executable_without_synthesizers_suggests_a_server_or_build_and_no_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr("sidecar.installation.find_spec", lambda _: None)
    monkeypatch.setattr("sidecar.engines.find_spec", lambda _: None)
    monkeypatch.setattr(system_tts, "is_system_tts_available", lambda: False)
    found, reason = choose_tts_engine(Settings(data_dir=tmp_path))
    hints = [reason]
    with pytest.raises(errors.EngineUnavailable) as refused:
        choose_tts_engine(Settings(voice_engine="moonshine"))
    hints.append(refused.value.hint)
    with pytest.raises(errors.EngineUnavailable) as refused:
        pull_voice.pull(
            VoiceRequest(name="", language="", folder=tmp_path, source="", listed=False)
        )
    hints.append(refused.value.hint)
    assert found is None
    for hint in hints:
        assert "This build has no voices: set voice_engine to 'speech'" in hint
        assert "pull voice" not in hint


@pytest.mark.parametrize(("engine", "better"), [("auto", True), ("espeak", False)])
def test_doctor_names_a_better_voice_where_auto_found_only_espeak(
    engine: Literal["auto", "espeak"], better: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(system_tts, "is_system_tts_available", lambda: False)
    monkeypatch.setattr(tts_engine_selection, "missing_packages", lambda spec: [])
    said = check_tts(Settings(voice_engine=engine, data_dir=tmp_path)).text
    assert said.startswith(f"espeak ({engine})")
    assert said.endswith("a better one: vibevoice-asr pull voice") is better


def characters(sounds: Sequence[SynthesizedAudio]) -> list[int]:
    return [mark.character for sound in sounds for mark in sound.marks]


def pcm(sounds: Iterator[SynthesizedAudio]) -> bytes:
    return b"".join(sound.pcm for sound in sounds)
