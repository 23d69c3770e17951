"""Pipecat: transcription and conversation over `/v1/realtime`, with its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from recordings import wav
from service_process import Server
from test_realtime_transcription import sound

WORDS = re.compile(r"w\d+( w\d+)*")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A turn, as the scripted engine hears it."""
    path = tmp_path / "speech.wav"
    path.write_bytes(wav(sound(0, 0.5) + sound(0.3, 1) + sound(0, 1), rate=24_000))
    return path


@pytest.mark.parametrize("vad", ["local", "server"])
def test_transcription(python_client: Any, dialogue: Server, speech: Path, vad: str) -> None:
    found = python_client("pipecat_stt.py", dialogue.port, speech, vad)
    assert found["errors"] == []
    assert WORDS.fullmatch(" ".join(found["final"]))


def test_conversation(python_client: Any, dialogue: Server, speech: Path) -> None:
    found = python_client("pipecat_llm.py", dialogue.port, speech)
    assert (found["errors"], found["answers"]) == ([], 2)
    assert found["audio"] > 0
    (_, typed), (role, said), (_, spoken), *_ = found["history"]
    assert (typed, role, said.strip()) == ("And plain", "assistant", "Good morning, Ada.")
    assert WORDS.search(spoken)
