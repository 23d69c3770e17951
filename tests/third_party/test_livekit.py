"""LiveKit's plugin for OpenAI over `/v1/realtime`, with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_server import Obedient
from service_process import Server

RunClient = Callable[..., Any]


def test_an_agent_goes_on_with_its_context_is_asked_by_text_and_calls_a_tool(
    python_client: RunClient, dialogue: Server, llm: Obedient
) -> None:
    found = python_client("livekit_agent.py", dialogue.port)
    assert (found["errors"], found["called"]) == ([], ["Oslo"])
    assert found["said"][-1].strip() == "Good morning, Ada."
    told = [(one["role"], one["content"]) for one in llm.replies[-2]["messages"]]
    assert told == [
        ("system", "Be brief."),
        ("user", "I am Eve."),
        ("assistant", "Hello, Eve."),
        ("user", "It asks"),
    ]
