"""What is said, by an engine in a process of its own."""

import array
import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import tiny_piper_voice
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.engines import engine_spec as engine_of
from sidecar.engines.engine_selection import EngineChoice
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    SynthesisOptions,
    SynthesizedAudio,
    WordMark,
)
from sidecar.plugins import settings_class
from sidecar.plugins.conversation.tts.scripted_tts import ScriptedTts
from sidecar.plugins.conversation.tts.tts_engine_selection import choose_tts_engine
from sidecar.workers.engine import Engine
from sidecar.workers.engine_fleet import EngineFleet
from sidecar.workers.engine_lease import SERIAL, EngineState
from sidecar.workers.role_engine import EngineRole
from sidecar.workers.tts_client import TtsClient

Settings = settings_class()

TEXT = "Good morning, who is there?"
HEARS = EngineChoice(engine_of("scripted"), "")
VoiceEngine = Literal["scripted", "none", "moonshine"]


@asynccontextmanager
async def fleet_with(
    voice_engine: VoiceEngine, folder: Path, **worker: float
) -> AsyncIterator[EngineFleet]:
    settings = Settings(
        engine="scripted", voice_engine=voice_engine, data_dir=folder, keep_alive=-1
    )
    voice, _ = choose_tts_engine(settings)
    sharing = replace(SERIAL, worker=replace(SERIAL.worker, **worker))
    one = EngineFleet(settings, HEARS, None, voice, sharing)
    try:
        yield one
    finally:
        await one.close()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[EngineFleet]:
    # a busy machine is no hang
    patient = dict.fromkeys(("cancel_grace_s", "ping_timeout_s"), PATIENCE_S)
    async with fleet_with("scripted", tmp_path, **patient) as one:
        yield one


async def said(spoken: TtsClient, text: str, **options: object) -> list[SynthesizedAudio]:
    return [sound async for sound in spoken.say(text, SynthesisOptions(**options))]  # type: ignore[arg-type]


def here(text: str) -> list[SynthesizedAudio]:
    """What the engine says in this process."""
    engine = ScriptedTts()
    list(engine.load(LoadOptions(speaks=True)))
    return list(engine.say(text, SynthesisOptions(), lambda: False))


async def test_speech_has_audio_and_word_marks_of_engine(fleet: EngineFleet) -> None:
    sounds = await said(fleet.voice, TEXT)
    assert sounds == here(TEXT)
    assert len(array.array("h", b"".join(sound.pcm for sound in sounds))) > 0
    marks = [mark for sound in sounds for mark in sound.marks]
    assert [TEXT[mark.character :].split()[0] for mark in marks] == TEXT.split()
    seconds = 0.0
    for sound, mark in zip(sounds, marks, strict=True):
        assert mark == WordMark(mark.character, pytest.approx(seconds))
        seconds += sound.seconds


async def test_long_audio_is_split_into_frames_without_loss(fleet: EngineFleet) -> None:
    word = "w" * 90  # four and a half seconds
    sounds = await said(fleet.voice, word)
    (whole,) = here(word)
    assert len(sounds) > 1
    assert b"".join(sound.pcm for sound in sounds) == whole.pcm
    assert [sound.marks for sound in sounds if sound.marks] == [whole.marks]


def voice_slot(fleet: EngineFleet) -> Engine[Any]:
    return fleet.engines[EngineRole.VOICE]


async def test_tts_speaks_in_its_own_process_while_the_file_engine_is_leased(
    fleet: EngineFleet,
) -> None:
    assert await fleet.voice.ready() == ("low", "high")
    async with fleet.files.lease():
        assert await said(fleet.voice, "Yes.")
        assert fleet.files.worker_pid != voice_slot(fleet).worker_pid
    await fleet.close()
    assert voice_slot(fleet).state is EngineState.ABSENT


async def test_cancelled_speech_ends_and_the_next_is_complete_from_the_same_process(
    fleet: EngineFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SAY", "0.1")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HANGS", "end")
    async with aclosing(fleet.voice.say("w " * 900 + "end")) as sounds:  # it hangs after 90 s
        async for _ in sounds:
            break
    pid = voice_slot(fleet).worker_pid
    assert [sound.marks for sound in await said(fleet.voice, "one two")] == [
        (WordMark(0, 0.0),),
        (WordMark(4, pytest.approx(0.2)),),
    ]
    assert voice_slot(fleet).worker_pid == pid, "nobody had to be killed"


async def test_tts_engine_that_dies_fails_only_its_current_speech(
    fleet: EngineFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SAY", "0.02")

    async def killed() -> None:
        async with aclosing(fleet.voice.say("word " * 300)) as sounds:
            async for _ in sounds:
                pid = voice_slot(fleet).worker_pid
                if pid is not None:
                    psutil.Process(pid).kill()

    with pytest.raises(errors.EngineFailed):
        await killed()
    assert await said(fleet.voice, "Here again.")


async def test_hung_tts_engine_is_killed_after_cancel_and_next_speech_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HANGS", "hang")
    async with fleet_with("scripted", tmp_path, patience_s=0.2, cancel_grace_s=0.2) as fleet:
        async with aclosing(fleet.voice.say("I hang now")) as sounds:
            async for _ in sounds:
                waits = asyncio.create_task(said(fleet.voice, "So what?"))
                break
        assert await waits == here("So what?"), "though its process ended under it"


async def test_fleet_without_a_tts_engine_has_no_tts_client(tmp_path: Path) -> None:
    async with fleet_with("none", tmp_path) as fleet:
        assert fleet.voice is None
        assert EngineRole.VOICE not in fleet.engines


async def test_pulled_voice_is_reported_ready_and_speaks(tmp_path: Path) -> None:
    pytest.importorskip("moonshine_voice")
    tiny_piper_voice.pulled(tmp_path / "voices")
    async with fleet_with("moonshine", tmp_path) as fleet:
        assert await fleet.voice.ready() == (tiny_piper_voice.VOICE,)
        (sound,) = await said(fleet.voice, "Merhaba.")
        assert sound.seconds > 0
