"""Models that are downloaded while the service runs, and used by it at once."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import soundfile
import sse_reader
import tiny_whisper
from espeak_speech import GERMAN, RATE, spoken
from model_hub import Hub
from recordings import Studio
from service_process import Server, check_problem, wait_until
from tiny_vibevoice import clip
from tiny_whisper import PROSE

from sidecar.audio import Block
from sidecar.checkpoints.model_repositories import WHISPER_MODELS

pytest.importorskip("huggingface_hub")
TINY, DAMAGED = "whisper:tiny", "whisper:small"
RELOAD = "/reload-model"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    published = {
        WHISPER_MODELS["tiny"].repository: tiny_whisper.model(),
        WHISPER_MODELS["small"].repository: tiny_whisper.write_like(tmp_path / "small"),
    }
    with Hub(published) as hub:
        yield hub


@pytest.fixture
def server(tmp_path: Path, hub: Hub) -> Server:
    """A service that downloads from the hub into a cache of its own; it is not started yet."""
    home = tmp_path / "home"
    server = Server(home, engine="auto", precision="fp32", scripted_hold=home / "hold")
    server.env |= {"HF_HOME": str(home / "hub"), "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    return server


def pull(server: Server, name: str) -> None:
    with server.client.stream("POST", "/v1/models/pull", json={"name": name}) as answer:
        assert [*sse_reader.parse(answer)][-1].name == "done"


def use(server: Server, name: str) -> None:
    answer = server.client.post(RELOAD, json={"model": name})
    assert answer.json()["status"] == "success", answer.text
    live = server.health()["live_engine"]
    assert f"live audio stays with the engine {live}" in answer.json()["message"]


def used(server: Server) -> dict[str, list[str]]:
    """What is transcribed with each model."""
    models = server.client.get("/v1/models").json()["models"]
    return {one["name"]: one["used_for"] for one in models if one["used_for"]}


def test_pulled_model_serves_once_requested_without_restart_and_then_the_former_one(
    server: Server,
) -> None:
    german = clip(PROSE).read_bytes()
    with server:
        check_problem(server.client.post(RELOAD, json={"model": TINY}), 404, "model_not_found")
        pull(server, TINY)
        refused = server.post(german, language="de")
        check_problem(refused, 422, "language_unsupported")
        assert RELOAD in refused.json()["hint"]
        assert server.health()["engine"] == "moonshine"
        assert used(server) == {"moonshine": ["recordings", "live"]}

        use(server, TINY)
        assert used(server) == {"moonshine": ["live"], TINY: ["recordings"]}
        env = {**os.environ, **server.env, "VIBEVOICE_PORT": str(server.port)}
        command = [sys.executable, "-m", "sidecar.main", "list"]
        listed = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert listed.stdout.endswith("in use: recordings\n"), listed
        body = server.post(german, language="de").json()
        assert " ".join(one["text"] for one in body["segments"]) == tiny_whisper.text(PROSE)
        assert body["metadata"]["engine"] == server.health()["engine"] == "whisper"
        assert server.health()["live_engine"] == "moonshine"
        address = f"/v1/models/{TINY}"
        check_problem(server.client.delete(address), 409, "model_in_use")

        use(server, "moonshine")
        assert used(server) == {"moonshine": ["recordings", "live"]}
        assert server.post(german).json()["metadata"]["engine"] == "moonshine"
        assert server.client.delete(address).status_code == 204


def wav(samples: Block) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def test_moonshine_whisper_once_selected_picks_its_engine_by_language_also_after_restart(
    server: Server, studio: Studio
) -> None:
    german, english = wav(spoken(GERMAN, "de")), studio.voice.read_bytes()

    def engine_of(audio: bytes, **fields: str) -> str:
        return str(server.post(audio, **fields).json()["metadata"]["engine"])

    with server:
        pull(server, TINY)
        warnings = server.post(german).json()["metadata"]["warnings"]
        assert [one["code"] for one in warnings] == ["language_doubtful"]
        use(server, "moonshine-whisper")
        assert (engine_of(german), engine_of(english)) == ("whisper", "moonshine")
        check_problem(server.client.delete(f"/v1/models/{TINY}"), 409, "model_in_use")
        assert used(server) == {"moonshine": ["recordings", "live"], TINY: ["recordings"]}
        env = server.env
    server = Server(server.home)
    server.env |= {name: value for name, value in env.items() if name != "VIBEVOICE_PORT"}
    with server:
        assert server.health()["engine"] == "moonshine-whisper"
        assert server.health()["live_engine"] == "moonshine"
        assert (engine_of(german), engine_of(english)) == ("whisper", "moonshine")
        assert engine_of(english, language="de") == "whisper"
        assert engine_of(german, language="en") == "moonshine"
        steered = server.post(english, prompt="A meeting").json()["metadata"]["warnings"]
        assert [one["code"] for one in steered] == ["option_ignored"]
        assert "'moonshine'" in steered[0]["message"]
        assert server.post(german, prompt="A meeting").json()["metadata"]["warnings"] == []


def test_pulled_model_that_does_not_load_returns_503_and_leaves_the_engine_in_use(
    server: Server, studio: Studio
) -> None:
    with server:
        pull(server, DAMAGED)
        check_problem(server.client.post(RELOAD, json={"model": DAMAGED}), 503, "model_load_failed")
        body = server.post(studio.voice.read_bytes()).json()
        assert body["metadata"]["engine"] == server.health()["engine"] == "moonshine"
        assert server.client.delete(f"/v1/models/{DAMAGED}").status_code == 204


def test_running_job_ends_on_its_engine_and_waiting_ones_are_checked_against_a_new_model(
    server: Server, studio: Studio
) -> None:
    hold = server.home / "hold"
    hold.write_text("", "utf-8")
    server.env["VIBEVOICE_ENGINE"] = "scripted"
    audio = studio.voice.read_bytes()
    with server, ThreadPoolExecutor() as pool:
        running = server.submit(audio)
        server.wait_state(running, "running")
        german, english = server.submit(audio, language="de"), server.submit(audio, language="en")
        using = pool.submit(use, server, "moonshine")
        wait_until(lambda: "moonshine is loaded after the running job" in server.log(), "it waits")
        assert server.client.get("/health").json()["jobs_waiting"] == 2
        assert not using.done()
        hold.unlink()
        using.result()
        assert server.wait_state(running, "done")["id"] == running
        assert server.transcript(running)["metadata"]["engine"] == "scripted"
        server.wait_state(english, "done")
        assert server.transcript(english)["metadata"]["engine"] == "moonshine"
        assert server.wait_state(german, "queued")["refused"]["code"] == "language_unsupported"
        pull(server, TINY)
        use(server, TINY)
        server.wait_state(german, "done")
        assert server.transcript(german)["metadata"]["engine"] == "whisper"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": 1}, "field_invalid"),
        ({"model": ""}, "field_missing"),
        ({"model": "x" * 201}, "field_invalid"),
        ({"model": "moonshine", "precision": "int9"}, "precision_unknown"),
        ({"model": "moonshine", "precision": 8}, "field_invalid"),
        ({"model": "moonshine", "precision": "int4"}, "precision_unavailable"),
    ],
)
def test_reload_request_for_a_model_with_invalid_fields_is_refused(
    body: dict[str, object], code: str, server: Server
) -> None:
    with server:
        answer = server.client.post(RELOAD, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
