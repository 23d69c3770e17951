"""OpenAI's own package for JavaScript, as npm has it, against a real service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from openai.types.audio import TranscriptionStreamEvent
from pydantic import TypeAdapter
from recordings import wav
from service_process import PATIENCE_S, REPOSITORY, Server

PACKAGE, SOCKETS = "openai@6.49.0", "ws@8.23.0"
FETCHED_S = 120.0
"""Longer it is not waited for a network that may not be there."""
HERE = Path(__file__).parent / "openai_js"
GOLDEN = json.loads((REPOSITORY / "tests/golden/openai.json").read_text("utf-8"))
SECOND = b"\1\0" * 16_000
Case = Callable[..., Any]


@pytest.fixture(scope="session")
def package() -> Path:
    """Where it lies, fetched once a machine."""
    missing = "OPENAI'S JAVASCRIPT PACKAGE IS NOT TESTED: "
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip(f"{missing}there is no node and npm here")
    folder = platformdirs.user_cache_path("vibevoice-asr-tests") / PACKAGE
    parts = (folder / f"node_modules/{name}/package.json" for name in ("openai", "ws"))
    if not all(part.is_file() for part in parts):
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", PACKAGE, SOCKETS]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=FETCHED_S, check=True)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{missing}npm did not fetch it within {FETCHED_S:.0f} s")
        except subprocess.CalledProcessError as failed:
            pytest.skip(f"{missing}npm cannot fetch it: {failed.stderr.strip()[-200:]}")
    return folder


@pytest.fixture
def case(package: Path, tmp_path: Path) -> Case:
    """Runs a case of `live.mjs` with a recording of so many seconds; what it came to."""

    def came_to(name: str, server: Server, seconds: int = 3) -> Any:
        recording = tmp_path / "clip.wav"
        recording.write_bytes(wav(SECOND * seconds))
        result = subprocess.run(
            ["node", HERE / "live.mjs", name],
            env={
                **os.environ,
                "OPENAI_PACKAGE": str(package),
                "SERVICE": f"http://127.0.0.1:{server.port}",
                "RECORDING": str(recording),
            },
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout)

    return came_to


def test_every_format_is_the_golden_one(case: Case, server: Server) -> None:
    found = case("formats", server)
    again = found.pop("again")
    assert {name: found[name] for name in found} == {name: GOLDEN[name] for name in found}
    assert again == GOLDEN["json"]


def test_a_stream_is_read_to_its_end(case: Case, server: Server) -> None:
    events = case("stream", server)
    assert events == GOLDEN["stream"]
    for event in events:
        TypeAdapter(TranscriptionStreamEvent).validate_python(event, strict=True)


def test_errors_are_known_by_their_classes_and_codes(case: Case, server: Server) -> None:
    found = case("errors", server)
    assert all(error["requestID"] for error in found)
    assert [(one["kind"], one["status"], one["code"], one["param"]) for one in found] == [
        ("BadRequestError", 400, "audio_empty", "file"),
        ("NotFoundError", 404, "model_not_found", "model"),
        ("UnprocessableEntityError", 422, "translation_unavailable", None),
        ("NotFoundError", 404, "model_not_found", "model"),
    ]


def test_models_are_listed(case: Case, server: Server) -> None:
    assert {"scripted", "whisper-1", "gpt-4o-transcribe-diarize"} <= set(case("models", server))


@pytest.mark.slow
def test_a_retry_takes_its_job_over_and_who_aborts_ends_it(
    case: Case, start_server: Callable[..., Server]
) -> None:
    """Four seconds of work, three of patience; then minutes of work that nobody waits for."""
    slow = start_server(scripted_speed=4, batch=1)
    assert slow.post(wav(SECOND)).status_code == 200  # its engine is there: patience is for work
    assert len(case("retried", slow, 16).split()) == 16
    assert case("abort", slow, 600) == "APIUserAbortError"


@pytest.mark.parametrize("kind", ["ws", "websocket"])
def test_its_realtime_clients_hear_what_is_said(
    kind: str, package: Path, server: Server, tmp_path: Path
) -> None:
    """That for Node, whose key is in a header, and that for browsers, who offer it."""
    result = subprocess.run(
        ["node", "--experimental-websocket", HERE / "realtime.mjs", kind, "sk-whatever"],
        env={
            **os.environ,
            "OPENAI_PACKAGE": str(package),
            "SERVICE": f"http://127.0.0.1:{server.port}",
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["errors"] == ["event_unsupported"]
    assert found["model"] == "gpt-4o-transcribe"
    assert [text.split()[-1][:2] for text in found["texts"]] == ["w9", "w1"]
    assert "conversation.item.added" in found["events"]


def test_the_example_of_the_documents_runs(package: Path, server: Server, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/openai.md").read_text("utf-8")
    (example,) = re.findall(r"```js\n(.+?)```", page, re.DOTALL)
    (tmp_path / "meeting.wav").write_bytes(wav(SECOND * 3))
    (tmp_path / "node_modules").symlink_to(package / "node_modules", target_is_directory=True)
    here = example.replace("http://127.0.0.1:8765", f"http://127.0.0.1:{server.port}")
    assert here != example
    (tmp_path / "example.mjs").write_text(here)
    result = subprocess.run(
        ["node", "example.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert result.returncode == 0, result.stderr
    assert re.match(r"A 0 1 \w{8}\nB 1 2 \w{8}\nA 2 3 \w{8}\n", result.stdout)
