"""The example of examples/grpc with the stubs that its commands make, against a real service."""

import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from scripted_speech import RATE, talk
from service_process import PATIENCE_S, REPOSITORY, StartServer

EXAMPLE = REPOSITORY / "examples/grpc/captions.py"
TOKEN = "a token that nobody guesses"


def test_grpc_example_prints_words_and_without_a_key_the_error(
    start_server: StartServer, tmp_path: Path
) -> None:
    pytest.importorskip("grpc_tools")
    path = tmp_path / "talk.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(talk(0.3))
    lines = EXAMPLE.read_text("utf-8").replace("\\\n", "").splitlines()
    (stubs,) = (line.split() for line in lines if "protoc" in line)
    assert stubs[:3] == ["python3", "-m", "grpc_tools.protoc"]
    words = [str(REPOSITORY / one) if one.startswith("sidecar/") else one for one in stubs[1:]]
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    server = start_server(grpc_port=0, token=TOKEN)
    address = f"127.0.0.1:{server.health()['grpc_port']}"

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(EXAMPLE), address, str(path), *more],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    said = run(TOKEN)
    assert said.returncode == 0, said.stderr
    assert "w299" in said.stdout
    refused = run()
    assert refused.returncode == 1
    assert refused.stderr.startswith("ERR1009 API key is required")
