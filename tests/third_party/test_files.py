"""Clients for files and speech, with their defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_process import REPOSITORY, Server

RunClient = Callable[..., Any]
MP3 = ("fff3", "fffb")
"""How one begins."""


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that hears and speaks, scripted."""
    with Server(tmp_path_factory.mktemp("files"), voice_engine="scripted") as one:
        yield one


@pytest.fixture(scope="module")
def text(speaking: Server, clip: Path) -> str:
    """What is heard in it."""
    segments = speaking.post(clip.read_bytes()).json()["segments"]
    return " ".join(one["text"] for one in segments)


def check_package(found: dict[str, Any], text: str) -> None:
    assert found["json"] == found["text"].strip() == found["streamed"] == found["logprobs"] == text
    assert (found["words"], found["speakers"]) == (3, ["A", "B"])
    assert {"scripted", "whisper-1", "gpt-realtime"} <= set(found["models"])
    assert found["mp3"] in MP3


def test_the_package_for_python(
    python_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    check_package(python_client("openai_files.py", speaking.port, clip), text)


def test_the_package_for_javascript(
    node_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    check_package(node_client("openai_files.mjs", speaking.port, clip), text)


def test_the_example_of_the_documents_for_javascript(
    node_client: Any, speaking: Server, clip: Path, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs/openai.md").read_text("utf-8")
    (example,) = re.findall(r"```js\n(.+?)```", page, re.DOTALL)
    here = example.replace("http://127.0.0.1:8765", f"http://127.0.0.1:{speaking.port}")
    assert here != example
    program = tmp_path / "example.mjs"
    program.write_text(here.replace("meeting.wav", str(clip)), "utf-8")
    (tmp_path / "node_modules").symlink_to(
        node_client.packages / "node_modules", target_is_directory=True
    )
    with node_client.start(str(program)) as process:
        said, _ = process.communicate()
    assert re.fullmatch(r"A 0 1 \w{8}\nB 1 2 \w{8}\nA 2 3 \w{8}\n", said)


def test_the_ai_sdk(node_client: RunClient, speaking: Server, clip: Path, text: str) -> None:
    found = node_client("ai_sdk.mjs", speaking.port, clip)
    assert {found[name]["text"] for name in ("whisper-1", "gpt-4o-transcribe")} == {text}
    assert found["whisper-1"]["seconds"] == 3
    assert found["whisper-1"]["segments"] > 0
    assert found["speech"]["format"] == "mp3"
    assert found["speech"]["bytes"] > 1000


def test_litellm(python_client: RunClient, speaking: Server, clip: Path, text: str) -> None:
    found = python_client("litellm_files.py", speaking.port, clip)
    assert found.pop("mp3") in MP3
    assert set(found.values()) == {text}


def test_litellm_as_a_proxy(
    older_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    found = older_client("litellm_proxy.py", speaking.port, clip)
    assert found["text"] == text
    assert found["mp3"] in MP3


@pytest.mark.parametrize("name", ["langchain", "haystack", "speech_recognition"])
def test_readers_of_frameworks(
    name: str, python_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    found = python_client("readers.py", name, speaking.port, clip)
    assert len(found.split()) in (3, 4), "an MP3 is a little longer"
    if name != "langchain":
        assert found == text


def test_the_reader_of_llama_index(
    older_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    assert older_client("readers.py", "llama_index", speaking.port, clip) == text
