"""Models over HTTP: list, download from a hub on this machine, deletion."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sse_reader
import tiny_whisper
from model_hub import COMMIT, SHARDS, Hub, hub_service, write_checkpoint
from service_process import PATIENCE_S, Server, wait_until
from vibevoice_asr_client import Client, codes

from sidecar.auth.identity import Scope
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.checkpoints.checkpoint import cache_folder
from sidecar.checkpoints.model_repositories import VIBEVOICE_REPOSITORY, WHISPER_MODELS

pytest.importorskip("huggingface_hub")
WHISPER = "whisper:small"
ODD_REVISIONS = ("a\0b", "/etc/x", "../x", "a/../../x", "C:\\x", "-x")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    published = {
        VIBEVOICE_REPOSITORY: write_checkpoint(tmp_path / "published"),
        WHISPER_MODELS["small"].repository: tiny_whisper.write_like(tmp_path / "small"),
    }
    with Hub(published, trickle=True) as hub:
        yield hub


@pytest.fixture
def server(tmp_path: Path, hub: Hub) -> Iterator[Server]:
    with hub_service(tmp_path / "home", hub) as server:
        yield server


def pull(server: Server, name: str, **more: str) -> list[sse_reader.Event]:
    """All events of a download."""
    with server.client.stream("POST", "/v1/models/pull", json={"name": name, **more}) as answer:
        assert answer.status_code == 200, answer.read()
        return list(sse_reader.parse(answer))


def listed(server: Server) -> dict[str, dict[str, Any]]:
    """The models by their names, once the disk answers in time: a busy machine may not."""
    get = server.client.get
    models = wait_until(
        lambda: get("/v1/models").raise_for_status().json().get("models"), "the list of models"
    )
    return {model["name"]: model for model in models}


def check_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_pulled_model_is_listed_as_installed_until_it_is_deleted(server: Server, hub: Hub) -> None:
    assert listed(server)[WHISPER]["installed"] is False
    *told, last = pull(server, WHISPER)
    whole = sum(hub.sent.values())
    done = [one.data for one in told if one.name == "progress"]
    assert done[0] == {"bytes_done": 0, "bytes_total": whole}
    assert done[-1] == {"bytes_done": whole, "bytes_total": whole}
    assert (last.name, last.data) == ("done", {"name": WHISPER, "commit": COMMIT})
    model = listed(server)[WHISPER]
    assert (model["installed"], model["commit"]) == (True, COMMIT)
    assert model["bytes"] >= whole
    address = f"/v1/models/{WHISPER}"
    assert server.client.delete(address).status_code == 204
    assert listed(server)[WHISPER]["installed"] is False
    check_problem(server.client.delete(address), 404, "model_not_found")


def test_model_list_has_languages_capabilities_and_memory_of_each_model(server: Server) -> None:
    models = listed(server)
    assert models["moonshine"]["installed"] is not bool(models["moonshine"]["lacking"])
    assert models["moonshine"]["languages"] == ["en"]
    assert models["whisper:tiny.en"]["languages"] == ["en"]
    assert "de" in models[WHISPER]["languages"]
    assert (models["voxtral"]["recordings"], models["voxtral"]["live"]) == (False, True)
    assert (models["vibevoice"]["recordings"], models["vibevoice"]["live"]) == (True, False)
    assert models["vibevoice"]["languages"] == []
    for name, one in models.items():
        assert name == "moonshine" or 0 < one["memory_bytes"] <= one["download_bytes"], name


def test_running_pull_excludes_others_of_its_model_ends_with_its_client_and_is_resumed(
    server: Server, hub: Hub
) -> None:
    hub.stall = {SHARDS[0]: 200_000}
    with server.client.stream("POST", "/v1/models/pull", json={"name": "vibevoice"}) as answer:
        events = sse_reader.parse(answer)
        assert next(events).name == "progress"
        assert hub.stalled.wait(PATIENCE_S)
        (refused,) = [one for one in pull(server, "vibevoice") if one.name == "failed"]
        assert refused.data["error"]["code"] == "pull_running"
        check_problem(server.client.delete("/v1/models/vibevoice"), 409, "pull_running")
        refused_one_ended = lambda: len(server.processes("pull")) == 1  # noqa: E731
        wait_until(refused_one_ended, "the process of the refused download has ended")
    wait_until(lambda: not server.processes("pull"), "the download has ended")
    hub.stall = {}
    assert pull(server, "vibevoice")[-1].name == "done"
    assert hub.begins[SHARDS[0]][-1] > 0
    assert listed(server)["vibevoice"]["commit"] == COMMIT


def test_python_client_pulls_lists_and_deletes_a_model_and_raises_refusals(
    server: Server, hub: Hub
) -> None:
    with Client(server.url) as client:
        *told, last = client.pull_model(WHISPER)
        assert told[0].data["bytes_done"] == 0
        assert (last.kind, last.data["commit"]) == ("done", COMMIT)
        assert WHISPER in [one["name"] for one in client.models() if one["installed"]]
        client.delete_model(WHISPER)
        hub.refuse = (503, "")
        with pytest.raises(codes.HubUnreachable):
            list(client.pull_model(WHISPER))
        with pytest.raises(codes.RepositoryNotFound):
            next(client.pull_model("nothing"))


def test_third_simultaneous_download_is_refused(server: Server, hub: Hub) -> None:
    hub.stall = {SHARDS[0]: 200_000, "model.bin": 200_000}
    body = [{"name": name} for name in ("vibevoice", WHISPER, "whisper:tiny")]
    with (
        server.client.stream("POST", "/v1/models/pull", json=body[0]),
        server.client.stream("POST", "/v1/models/pull", json=body[1]),
    ):
        check_problem(server.client.post("/v1/models/pull", json=body[2]), 409, "pull_running")


def test_pull_that_fails_says_why_in_its_last_event(server: Server, hub: Hub) -> None:
    hub.refuse = (503, "")
    (failed,) = pull(server, WHISPER)
    assert (failed.name, failed.data["error"]["code"]) == ("failed", "hub_unreachable")
    hub.refuse = None
    (failed,) = pull(server, WHISPER, revision="v9")
    assert failed.data["error"]["code"] == "repository_not_found"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "nothing"}, 404, "repository_not_found"),
        ({"name": "--help"}, 404, "repository_not_found"),
        ({"nam": WHISPER}, 422, "field_missing"),
        ({"name": 1}, 422, "field_invalid"),
        *(({"name": WHISPER, "revision": one}, 422, "field_invalid") for one in ODD_REVISIONS),
    ],
)
def test_pull_of_an_unknown_model_or_invalid_field_is_refused_without_asking_the_hub(
    body: dict[str, object], status: int, code: str, server: Server, hub: Hub
) -> None:
    check_problem(server.client.post("/v1/models/pull", json=body), status, code)
    assert hub.tokens == []


def test_pull_deletion_and_details_of_models_need_the_scope_admin(tmp_path: Path, hub: Hub) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    lacking, having = (
        {"Authorization": f"Bearer {issuer.create('somebody', None, scopes)[0]}"}
        for scopes in ((Scope.RELOAD,), (Scope.ADMIN,))
    )
    with hub_service(tmp_path / "home", hub, token_keys=issuer.keys.public) as server:
        for bearing, status, code in (
            (lacking, 403, "scope_missing"),
            (having, 404, "model_not_found"),
        ):
            answer = server.client.delete(f"/v1/models/{WHISPER}", headers=bearing)
            check_problem(answer, status, code)
        body = {"name": "vibevoice"}
        refused = server.client.post("/v1/models/pull", json=body, headers=lacking)
        check_problem(refused, 403, "scope_missing")
        refused = server.client.post("/v1/models/pull", json=body)
        check_problem(refused, 401, "token_missing")
        assert "models" in server.client.get("/v1/models", headers=having).json()
        names = server.client.get("/v1/models", headers=lacking).json()
        assert names["data"]
        assert "models" not in names
    assert hub.tokens == []


@pytest.mark.posix("pipes of POSIX")
@pytest.mark.parametrize(("plugins", "status"), [("", 200), ("-openai", 503)])
def test_model_list_on_a_hanging_disk_has_openai_names_or_without_plugin_returns_503(
    tmp_path: Path, hub: Hub, plugins: str, status: int
) -> None:
    silent = cache_folder(VIBEVOICE_REPOSITORY, tmp_path / "home" / "hub" / "hub") / "refs"
    silent.mkdir(parents=True)
    os.mkfifo(silent / "main")
    with hub_service(tmp_path / "home", hub, **({"plugins": plugins} if plugins else {})) as server:
        answer = server.client.get("/v1/models")
        assert answer.status_code == status
        body = answer.json()
        assert "models" not in body
        assert body["data"] if status == 200 else body["code"] == "storage_unreachable"


def test_model_list_is_served_without_the_openai_plugin(tmp_path: Path, hub: Hub) -> None:
    with hub_service(tmp_path / "home", hub, plugins="-openai") as server:
        answer = server.client.get("/v1/models").json()
        assert (answer["object"], answer["data"]) == ("list", [])
        assert WHISPER in [one["name"] for one in answer["models"]]
