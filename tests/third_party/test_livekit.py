"""LiveKit's plugin for OpenAI over `/v1/realtime`, with its defaults, also behind a restart: a
proxy leads to one service, and once that has ended to another."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_server import Obedient
from proxies import RoundRobin
from recordings import Studio
from service_process import PATIENCE_S, Server


def line(client: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a program, which has to be one of ours."""
    assert client.stdout is not None
    assert client.stderr is not None
    said = client.stdout.readline()
    assert said, client.stderr.read()[-8000:]
    return dict(json.loads(said))


@contextlib.contextmanager
def restarting(home: Path, **settings: object) -> Iterator[tuple[int, Server]]:
    """A port, and the service that it leads to at first; then it leads to another."""
    with (
        Server(home / "first", voice_engine="scripted", **settings) as first,
        Server(home / "second", voice_engine="scripted", **settings) as second,
        contextlib.closing(RoundRobin(first.port, second.port)) as proxy,
    ):
        yield proxy.port, first


def end(server: Server) -> None:
    """As a host ends it."""
    server.process.terminate()
    server.process.wait(PATIENCE_S)


def test_livekit_agent_calls_a_tool_and_keeps_its_context_over_a_restart(
    python_client: Any, tmp_path: Path, mind: Obedient
) -> None:
    with (
        restarting(tmp_path, llm=mind.url) as (port, first),
        python_client.start("livekit_agent.py", port) as client,
    ):
        found = line(client)
        assert (found["errors"], found["called"]) == ([], ["Oslo"])
        assert found["said"][-1].strip() == "Good morning, Ada."
        history = [("user", "I am Eve."), ("assistant", "Hello, Eve."), ("user", "It asks")]
        told = [(one["role"], one["content"]) for one in mind.replies[-2]["messages"]]
        assert told == [("system", "Be brief."), *history]
        end(first)
        client.stdin.write("And plain\n")
        client.stdin.flush()
        found = line(client)
        assert found["said"][-1].strip() == "Good morning, Ada."
        told = [(one["role"], one["content"]) for one in mind.replies[-1]["messages"]]
        assert told[:4] == [("system", "Be brief."), *history]
        assert [role for role, _ in told[4:]] == ["assistant", "tool", "assistant", "user"]


@pytest.mark.parametrize("model", ["gpt-4o-mini-transcribe", "gpt-realtime-whisper"])
def test_livekit_transcription_goes_on_after_the_service_restarted(
    python_client: Any, tmp_path: Path, studio: Studio, model: str
) -> None:
    """Of the first the service ends turns; of the second the client's own VAD does."""
    with (
        restarting(tmp_path) as (port, first),
        python_client.start("livekit_stt.py", port, studio.voice, model) as client,
    ):
        found = line(client)
        assert (bool(found["said"]), found["errors"]) == (True, [])
        end(first)
        while not found["errors"]:
            found = line(client)
        assert found["said"]
        assert all(one.startswith("True") for one in found["errors"]), "it could go on"
