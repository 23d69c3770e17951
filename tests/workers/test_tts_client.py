"""What is said, by an engine in a process of its own."""

from __future__ import annotations

import array
import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import tiny_piper_voice
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.engines import spec_of as engine_of
from sidecar.engines.engine_selection import Choice
from sidecar.interfaces.engine_interface import LoadOptions, Mark, SayOptions, Sound
from sidecar.tts import VOICES, create_voice, spec_of
from sidecar.tts.voice_selection import choose_voice
from sidecar.workers.engine_fleet import Fleet, Role
from sidecar.workers.engine_lifecycle import SlotState
from sidecar.workers.engine_slot import SerialSlot, Spoken
from sidecar.workers.worker_environment import Manner

TEXT = "Good morning, who is there?"
HEARS = Choice(engine_of("scripted"), "")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    settings = Settings(
        engine="scripted", voice_engine="scripted", data_dir=tmp_path, keep_alive=-1
    )
    voice, _ = choose_voice(settings)
    one = Fleet(settings, HEARS, None, voice)
    yield one
    await one.close()


async def said(spoken: Spoken, text: str, **options: object) -> list[Sound]:
    async with asyncio.timeout(PATIENCE_S):
        return [sound async for sound in spoken.say(text, SayOptions(**options))]  # type: ignore[arg-type]


def here(text: str) -> list[Sound]:
    """What the engine says in this process."""
    engine = create_voice("scripted")
    list(engine.load(LoadOptions(speaks=True)))
    return list(engine.say(text, SayOptions(), lambda: False))


async def test_what_is_said_comes_out_as_the_engine_made_it_with_the_words_marked(
    fleet: Fleet,
) -> None:
    sounds = await said(fleet.voice, TEXT)
    assert sounds == here(TEXT)
    assert len(array.array("h", b"".join(sound.pcm for sound in sounds))) > 0
    marks = [mark for sound in sounds for mark in sound.marks]
    assert [TEXT[mark.character :].split()[0] for mark in marks] == TEXT.split()
    seconds = 0.0
    for sound, mark in zip(sounds, marks, strict=True):
        assert mark == Mark(mark.character, pytest.approx(seconds))
        seconds += sound.seconds


async def test_sound_in_one_piece_comes_in_frames_that_lose_nothing(fleet: Fleet) -> None:
    word = "w" * 90  # four and a half seconds
    sounds = await said(fleet.voice, word)
    (whole,) = here(word)
    assert len(sounds) > 1
    assert b"".join(sound.pcm for sound in sounds) == whole.pcm
    assert [sound.marks for sound in sounds if sound.marks] == [whole.marks]


async def test_who_speaks_keeps_nobody_from_hearing_and_has_a_process_of_its_own(
    fleet: Fleet,
) -> None:
    assert await fleet.voice.ready() == ("low", "high")
    async with asyncio.timeout(PATIENCE_S), fleet.files.slot.lease():
        assert await said(fleet.voice, "Yes.")
        standing = fleet.standing()
    assert standing[Role.FILES].worker_pid != standing[Role.VOICE].worker_pid
    await fleet.close()
    assert fleet.standing()[Role.VOICE].state is SlotState.ABSENT


async def test_who_leaves_early_hears_no_more_and_the_next_is_heard_whole(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SAY", "0.02")
    monkeypatch.setattr(
        "sidecar.workers.worker_process.CANCEL_GRACE_S", 30.0
    )  # a busy machine is no hang
    async with asyncio.timeout(PATIENCE_S), aclosing(fleet.voice.say("word " * 300)) as sounds:
        async for _ in sounds:
            break
    pid = fleet.standing()[Role.VOICE].worker_pid
    assert [sound.marks for sound in await said(fleet.voice, "one two")] == [
        (Mark(0, 0.0),),
        (Mark(4, pytest.approx(0.2)),),
    ]
    assert fleet.standing()[Role.VOICE].worker_pid == pid, "nobody had to be killed"


async def test_a_voice_that_there_is_not_is_refused_with_those_that_there_are(
    fleet: Fleet,
) -> None:
    with pytest.raises(errors.VoiceUnknown) as refused:
        await said(fleet.voice, "Hello.", voice="nobody")
    assert "low, high" in (refused.value.hint or "")
    assert await said(fleet.voice, "Hello.", voice="high") != await said(fleet.voice, "Hello.")


@pytest.mark.skipif(os.name == "nt", reason="kills with POSIX signals")
async def test_an_engine_that_dies_while_it_speaks_fails_that_and_nothing_after(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SAY", "0.02")

    async def killed() -> None:
        async with asyncio.timeout(PATIENCE_S), aclosing(fleet.voice.say("word " * 300)) as sounds:
            async for _ in sounds:
                pid = fleet.standing()[Role.VOICE].worker_pid
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)

    with pytest.raises(errors.EngineFailed):
        await killed()
    assert await said(fleet.voice, "Here again.")


async def test_an_engine_that_hangs_in_a_text_ends_with_who_left_it_and_others_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HANGS", "hang")
    monkeypatch.setattr(SerialSlot, "manner", Manner(niceness=0, patience_s=0.2))
    settings = Settings(engine="scripted", voice_engine="scripted", data_dir=tmp_path)
    voice, _ = choose_voice(settings)
    one = Fleet(settings, HEARS, None, voice)
    try:
        async with asyncio.timeout(PATIENCE_S), aclosing(one.voice.say("I hang now")) as sounds:
            async for _ in sounds:
                waits = asyncio.create_task(said(one.voice, "So what?"))
                break
        assert await waits == here("So what?"), "though its process ended under it"
    finally:
        await one.close()


async def test_where_nothing_speaks_whoever_wants_it_is_told(tmp_path: Path) -> None:
    settings = Settings(engine="scripted", voice_engine="none", data_dir=tmp_path)
    assert choose_voice(settings) == (None, "as set")
    fleet = Fleet(settings, HEARS, None)
    assert Role.VOICE not in fleet.standing()
    with pytest.raises(errors.EngineUnavailable, match="speaks"):
        fleet.voice.say("Hello.")
    await fleet.close()


def test_every_engine_that_speaks_is_there_by_its_name() -> None:
    assert [spec_of(spec.name) for spec in VOICES] == list(VOICES)
    assert len({spec.name for spec in VOICES}) == len(VOICES)


async def test_a_voice_that_was_pulled_speaks_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("moonshine_voice")
    folder = tiny_piper_voice.pulled(tmp_path / "voices")
    settings = Settings(
        engine="scripted", voice_engine="moonshine", voices_dir=folder, data_dir=tmp_path
    )
    voice, _ = choose_voice(settings)
    one = Fleet(settings, HEARS, None, voice)
    try:
        assert await one.voice.ready() == (tiny_piper_voice.VOICE,)
        (sound,) = await said(one.voice, "Merhaba.")
        assert sound.seconds > 0
    finally:
        await one.close()
