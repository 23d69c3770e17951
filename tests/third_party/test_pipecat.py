"""Pipecat: transcription and conversation over `/v1/realtime`, with its defaults."""

import re
from pathlib import Path
from typing import Any

import pytest
from recordings import wav
from service_process import Server
from test_livekit import end, line, restarting
from test_realtime_transcription import sound

WORDS = re.compile(r"w\d+( w\d+)*")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A turn, as the scripted engine hears it."""
    path = tmp_path / "speech.wav"
    path.write_bytes(wav(sound(0, 0.5) + sound(0.3, 1) + sound(0, 1), rate=24_000))
    return path


@pytest.mark.parametrize("vad", ["local", "server"])
def test_pipecat_gets_final_words_with_its_own_vad_and_with_the_services(
    python_client: Any, thoughtful: Server, speech: Path, vad: str
) -> None:
    found = python_client("pipecat_stt.py", thoughtful.port, speech, vad, 1)
    assert found["errors"] == []
    assert WORDS.fullmatch(" ".join(found["final"]))


def test_pipecat_gets_more_words_after_the_service_restarted(
    python_client: Any, tmp_path: Path, speech: Path
) -> None:
    with (
        restarting(tmp_path) as (port, first),
        python_client.start("pipecat_stt.py", port, speech, "local", 2) as client,
    ):
        before = line(client)["final"]
        assert before
        end(first)
        assert len(line(client)["final"]) > len(before)


def test_pipecat_gets_spoken_answers_to_typed_and_spoken_turns(
    python_client: Any, thoughtful: Server, speech: Path
) -> None:
    found = python_client("pipecat_llm.py", thoughtful.port, speech)
    assert (found["errors"], found["answers"]) == ([], 2)
    assert found["audio"] > 0
    (_, typed), (role, said), (_, spoken), *_ = found["history"]
    assert (typed, role, said.strip()) == ("And plain", "assistant", "Good morning, Ada.")
    assert WORDS.search(spoken)
