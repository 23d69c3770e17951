"""VibeVoice that speaks, in a process of its own: what is heard of it, and what is not."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("torch") is None or find_spec("transformers") is None:
    pytest.skip("the extra 'vibevoice' is not installed", allow_module_level=True)

import tiny_vibevoice_tts
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec as engine_of
from sidecar.engines.engine_selection import EngineChoice
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.tts.tts_engine_selection import choose_tts_engine
from sidecar.workers.engine_fleet import EngineFleet, EngineRole

LONG, _ = tiny_vibevoice_tts.TEXTS


async def test_it_is_heard_frame_by_frame_and_falls_silent_for_who_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sidecar.workers.worker_process.CANCEL_GRACE_S", 30.0
    )  # a busy machine is no hang
    settings = Settings(
        engine="scripted",
        voice_engine="vibevoice",
        voice_path=tiny_vibevoice_tts.model(),
        precision="fp32",
        device="cpu",
        data_dir=tmp_path,
        keep_alive=-1,
    )
    voice, reason = choose_tts_engine(settings)
    assert "slow" in reason
    assert "each sentence has another voice" in reason
    fleet = EngineFleet(settings, EngineChoice(engine_of("scripted"), ""), None, voice)
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await fleet.voice.ready() == ("own",)
            sounds = [sound async for sound in fleet.voice.say(LONG)]
            assert len(sounds) > 3
            assert {sound.rate for sound in sounds} == {24_000}
            pid = fleet.standing()[EngineRole.VOICE].worker_pid
            async with aclosing(fleet.voice.say(LONG)) as leaving:
                async for sound in leaving:
                    assert sound == sounds[0]
                    break
            again = [sound async for sound in fleet.voice.say(LONG)]
            assert again == sounds, "whoever left, left nothing behind"
            assert fleet.standing()[EngineRole.VOICE].worker_pid == pid, "nobody had to be killed"
            with pytest.raises(errors.VoiceUnknown):
                await anext(fleet.voice.say(LONG, SynthesisOptions(voice="nobody")))
    finally:
        await fleet.close()
