"""A real server of another house: `transformers serve`, which knows words and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from faulty_proxy import FaultyProxy
from service_process import PATIENCE_S, free_port, wait_until, web
from upstream_engine_samples import Engine, Sound

pytest.importorskip("openai")
pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The port of a running server, and the name of its model."""
    home = tmp_path_factory.mktemp("whisper")
    port, folder = free_port(), str(home / "checkpoint")
    script = Path(__file__).parents[2] / "support/serve_transformers_whisper.py"
    outer = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), str(port), folder], env=outer, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: answers(process, port, home / "log"), "transformers serves")
        yield port, folder
    finally:
        process.kill()
        process.wait()


def answers(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text(encoding="utf-8")
    try:
        return web.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_words_of_a_transformers_upstream_are_those_of_one_request_and_are_aligned(
    whisper: tuple[int, str], two_voices: Sound
) -> None:
    port, model = whisper
    with FaultyProxy(port) as proxy:
        transcript = Engine(proxy.url, model=model).transcript(two_voices)
    *probes, plain = proxy.posts
    assert [b"verbose_json" in one for one in probes] == [True, True], (
        "one refused, one without times"
    )
    assert b"verbose_json" not in plain
    assert transcript.text.split() == ask(port, plain).split()
    assert all(one.words for one in transcript.segments)


def ask(port: int, body: bytes) -> str:
    """What the server says to a form that it was sent."""
    boundary = body[2 : body.index(b"\r\n")].decode()
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/audio/transcriptions",
        content=body,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
        timeout=PATIENCE_S,
    )
    return str(answer.raise_for_status().json()["text"]).strip()
