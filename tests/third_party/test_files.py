"""Clients for files and speech, with their defaults."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from module_services import service_of_module
from service_process import REPOSITORY, Server, new_file

RunClient = Callable[..., Any]
MP3 = ("fff3", "fffb")
"""How one begins."""


speaking = service_of_module(voice_engine="scripted")
"""A service that hears and speaks, scripted."""


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


def test_openai_package_for_python_transcribes_streams_and_speaks(
    python_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    check_package(python_client("openai_files.py", speaking.port, clip), text)


def test_openai_package_for_javascript_transcribes_streams_and_speaks(
    node_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    check_package(node_client("openai_files.mjs", speaking.port, clip), text)


def test_example_of_the_docs_for_openais_javascript_client_prints_who_said_what_when(
    node_client: Any, speaking: Server, clip: Path, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs/openai.md").read_text("utf-8")
    (example,) = re.findall(r"```js\n(.+?)```", page, re.DOTALL)
    here = example.replace("http://127.0.0.1:8765", f"http://127.0.0.1:{speaking.port}")
    assert here != example
    program = new_file(tmp_path / "example.mjs", here.replace("meeting.wav", str(clip)))
    (tmp_path / "node_modules").symlink_to(
        node_client.packages / "node_modules", target_is_directory=True
    )
    with node_client.start(str(program)) as process:
        said, _ = process.communicate()
    assert re.fullmatch(r"A 0 1 \w{8}\nB 1 2 \w{8}\nA 2 3 \w{8}\n", said)


def test_ai_sdk_gets_text_length_segments_and_speech(
    node_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    found = node_client("ai_sdk.mjs", speaking.port, clip)
    assert {found[name]["text"] for name in ("whisper-1", "gpt-4o-transcribe")} == {text}
    assert found["whisper-1"]["seconds"] == 3
    assert found["whisper-1"]["segments"] > 0
    assert found["speech"]["format"] == "mp3"
    assert found["speech"]["bytes"] > 1000


def test_litellm_gets_the_same_text_by_all_its_calls_and_speech(
    python_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    found = python_client("litellm_files.py", speaking.port, clip)
    assert found.pop("mp3") in MP3
    assert set(found.values()) == {text}


def test_litellm_as_a_proxy_passes_text_and_speech_on(
    older_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    found = older_client("litellm_proxy.py", speaking.port, clip)
    assert found["text"] == text
    assert found["mp3"] in MP3


@pytest.mark.parametrize("name", ["langchain", "haystack", "speech_recognition"])
def test_reader_of_a_framework_gets_the_words_of_a_recording(
    name: str, python_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    found = python_client("readers.py", name, speaking.port, clip)
    assert len(found.split()) in (3, 4), "an MP3 is a little longer"
    if name != "langchain":
        assert found == text


def test_reader_of_llama_index_gets_the_words_of_a_recording(
    older_client: RunClient, speaking: Server, clip: Path, text: str
) -> None:
    assert older_client("readers.py", "llama_index", speaking.port, clip) == text
