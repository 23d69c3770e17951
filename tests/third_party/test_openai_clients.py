"""OpenAI's packages and agents, for Python and JavaScript, over `/v1/realtime`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from recordings import wav
from service_process import Server
from test_realtime_transcription import sound

SAID = "Good morning, Ada."


def test_the_package_for_python(python_client: Any, dialogue: Server, tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    speech.write_bytes(wav(sound(0, 0.5) + sound(0.3, 1) + sound(0, 1), rate=24_000))
    found = python_client("openai_realtime.py", dialogue.port, speech)
    assert found["said"] == SAID
    assert re.fullmatch(r"(w\d+ ?)+", found["heard"])


def test_the_package_for_javascript(node_client: Any, dialogue: Server) -> None:
    found = node_client("openai_realtime.mjs", dialogue.port)
    assert (found["errors"], found["said"].strip()) == ([], SAID)


def test_agents_for_python_call_tools(python_client: Any, dialogue: Server) -> None:
    found = python_client("openai_agents.py", dialogue.port)
    assert (found["errors"], found["called"], found["said"].strip()) == ([], ["Oslo"], SAID)
    assert found["audio"] > 0


def test_agents_for_javascript_call_tools(node_client: Any, dialogue: Server) -> None:
    found = node_client("openai_agents_realtime.mjs", dialogue.port)
    assert (found["errors"], found["called"], found["said"].strip()) == ([], ["Oslo"], SAID)
    assert found["audio"] > 0
