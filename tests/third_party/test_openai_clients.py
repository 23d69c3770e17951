"""OpenAI's packages and agents, for Python and JavaScript, over `/v1/realtime`."""

import re
from pathlib import Path
from typing import Any

from recordings import wav
from service_process import Server
from test_realtime_transcription import sound

SAID = "Good morning, Ada."


def test_openai_package_for_python_gets_a_reply_and_a_transcript_over_realtime(
    python_client: Any, thoughtful: Server, tmp_path: Path
) -> None:
    speech = tmp_path / "speech.wav"
    speech.write_bytes(wav(sound(0, 0.5) + sound(0.3, 1) + sound(0, 1), rate=24_000))
    found = python_client("openai_realtime.py", thoughtful.port, speech)
    assert found["said"] == SAID
    assert re.fullmatch(r"(w\d+ ?)+", found["heard"])


def test_openai_package_for_javascript_gets_a_reply_over_realtime(
    node_client: Any, thoughtful: Server
) -> None:
    found = node_client("openai_realtime.mjs", thoughtful.port)
    assert (found["errors"], found["said"].strip()) == ([], SAID)


def test_openai_agent_for_python_calls_a_tool_and_gets_a_spoken_reply(
    python_client: Any, thoughtful: Server
) -> None:
    found = python_client("openai_agents.py", thoughtful.port)
    assert (found["errors"], found["called"], found["said"].strip()) == ([], ["Oslo"], SAID)
    assert found["audio"] > 0


def test_openai_agent_for_javascript_calls_a_tool_and_gets_a_spoken_reply(
    node_client: Any, thoughtful: Server
) -> None:
    found = node_client("openai_agents_realtime.mjs", thoughtful.port)
    assert (found["errors"], found["called"], found["said"].strip()) == ([], ["Oslo"], SAID)
    assert found["audio"] > 0
