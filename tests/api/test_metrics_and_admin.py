"""What operators see of a real service: that its numbers are true, and who may read them."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import tiny_whisper
from grpc_client import Client, chunks_of, sound
from live_wire import heard
from prometheus_client.parser import text_string_to_metric_families
from recordings import long
from service_process import REPOSITORY, Server, check_problem, wait_until, web
from tiny_vibevoice import clip
from websockets.asyncio.client import connect

from sidecar.api.metrics_routes import machine_facts
from sidecar.auth.identity import Scope
from sidecar.auth.token_issuing import TokenIssuer

TOKEN = "a token that nobody guesses"
MINE = {"Authorization": f"Bearer {TOKEN}"}
SPEECH = sound((0.3, 1.0), (0, 1.0), (0.3, 1.0), (0, 1.0))
Numbers = dict[tuple[str, ...], float]
ENDS = {
    "vibevoice_live_sessions_ended_total",
    "vibevoice_websockets_closed_total",
    "vibevoice_grpc_calls_total",
}


def numbers(page: str) -> Numbers:
    """Every sample by its name and the values of its labels, in their order."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


DAY: dict[str, Any] = {
    "grpc_port": 0, "token": TOKEN, "scripted_fails": "int8", "scripted_speed": 3,
    "limits": {"health_min_events": 6, "health_min_success_ratio": 0.8}, "metrics": "owners",
    "live_sessions": 3,
}  # fmt: skip
"""Settings of a service with a token, gRPC, and a precision that does not load."""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Such a service, which works."""
    with Server(tmp_path_factory.mktemp("day"), **DAY) as server:
        server.client.headers.update(MINE)
        yield server


def test_metrics_count_all_requests_jobs_and_sessions(day: Server, voice: bytes) -> None:
    before = numbers(day.client.get("/metrics").text)
    assert [day.post(voice).status_code for _ in range(2)] == [200, 200]
    assert day.post(voice, precision="int8").json()["code"] == "model_load_failed"
    running = day.submit(voice)
    cancelled = day.submit(long(600))  # nobody is so slow that it could be done by then
    day.cancel(cancelled)
    assert day.post(b"").status_code == 400
    assert day.client.get("/nothing/of/mine").status_code == 404
    assert web.get(f"http://127.0.0.1:{day.port}/v1/jobs").status_code == 401
    for _ in range(2):
        asyncio.run(heard(day, SPEECH, MINE, session="a-name-of-somebody"))
    asyncio.run(knock(day))
    with Client(day.health()["grpc_port"], authorization=f"Bearer {TOKEN}") as client:
        for name in ("one", "two", "three"):
            client.create(name)
        with pytest.raises(grpc.RpcError) as full:
            client.create("four")
        assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        now = day.client.get("/metrics.json").json()
        assert now["active_sessions"] == 3
        assert now["active_sessions_by_api"] == {"token:host": 3}
        for name in ("one", "two", "three"):
            assert client.stream(chunks_of(name, SPEECH), name).status is grpc.StatusCode.OK
        assert client.stream(chunks_of("none", SPEECH), "none").number == "ERR1004"
    wait_until(lambda: day.job(running)["state"] == "done", "it is done")
    after: Numbers = {}

    def has_ended() -> bool:
        """Some of it ends a moment after its client was told: 5 sessions, 3 sockets, 8 calls."""
        after.update(numbers(day.client.get("/metrics").text))
        return sum(more(*key) for key in after if key[0] in ENDS) >= 5 + 3 + 8

    def more(*name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    wait_until(has_ended, "all has ended")
    assert more("vibevoice_jobs_submitted_total") == 5
    ended = [more("vibevoice_jobs_ended_total", one) for one in ("done", "failed", "cancelled")]
    assert ended == [3, 1, 1]
    assert more("vibevoice_jobs_failed_total", "model_load_failed") == 1
    assert more("vibevoice_jobs_audio_seconds_total") == pytest.approx(9, abs=0.01)
    assert more("vibevoice_job_realtime_ratio_count") == 3
    requests = {key[1:]: more(*key) for key in after if key[0] == "vibevoice_http_requests_total"}
    assert requests["POST", "/transcribe", "200"] == 2
    assert requests["POST", "/transcribe", "202"] == 2
    assert requests["POST", "/transcribe", "400"] == 1
    assert requests["GET", "(none)", "404"] == 1
    assert requests["GET", "(none)", "401"] == 1
    sockets = {
        key[1:]: more(*key) for key in after if key[0] == "vibevoice_websockets_closed_total"
    }
    assert {code: many for (code, _), many in sockets.items()} == {"client": 2, "4001": 1}
    for wire, many in (("live", 2), ("grpc", 3)):
        assert more("vibevoice_live_sessions_opened_total", wire) == many
        assert more("vibevoice_live_sessions_ended_total", "done", wire) == many
        assert more("vibevoice_live_finals_total", wire) == 2 * many
        assert more("vibevoice_live_utterances_total", wire) == 2 * many
        assert more("vibevoice_live_audio_seconds_total", wire) == pytest.approx(4 * many)
    assert more("vibevoice_live_sessions_refused_total", "live_full", "grpc") == 1
    stream, create = "/stt.STTBackend/StreamingRecognize", "/stt.STTBackend/CreateSession"
    assert more("vibevoice_grpc_calls_total", stream, "OK") == 3
    assert more("vibevoice_grpc_calls_total", stream, "UNAUTHENTICATED") == 1
    assert more("vibevoice_grpc_calls_total", create, "RESOURCE_EXHAUSTED") == 1
    assert more("stt_error_counts_UNAUTHENTICATED") == 1
    assert more("stt_vad_triggers_total") == more("stt_decode_latency_count") == 10
    assert more("stt_decode_response_emit_count") == 6
    assert after["stt_active_sessions",] == after["vibevoice_live_speaking",] == 0
    assert after["vibevoice_healthy",] == 1


async def knock(server: Server) -> None:
    """Come with a wrong key, and be sent away."""
    address = f"ws://127.0.0.1:{server.port}/api/asr-streaming?api_key=wrong"
    async with connect(address, proxy=None) as socket:
        await socket.wait_closed()


def test_metrics_labels_contain_no_job_ids_addresses_or_tokens_of_clients(day: Server) -> None:
    for number in range(200):
        day.client.get(f"/v1/jobs/job-of-somebody-{number}")
        day.client.get(f"/somebody/{number}", headers={"User-Agent": f"somebody {number}"})
        day.client.request(("MKCOL", "PROPFIND", "LOCK")[number % 3], "/health")
    day.client.get("/metrics")  # which is counted, too
    page = day.client.get("/metrics").text
    lines = len(page.splitlines())
    day.client.get("/v1/jobs/job-of-somebody-else")
    assert len(day.client.get("/metrics").text.splitlines()) == lines
    assert not re.search("somebody|mkcol|propfind", page.lower())
    assert TOKEN not in page
    assert ("vibevoice_http_requests_total", "GET", "/v1/jobs/{job_id}", "404") in numbers(page)
    assert ("vibevoice_http_requests_total", "other", "/health", "405") in numbers(page)


def test_many_failures_with_grpc_on_make_readiness_503_and_health_500_but_liveness_200(
    start_server: Any, voice: bytes
) -> None:
    # one is many here: more within the minute that counts, only a fast machine has
    day = start_server(**DAY | {"limits": {"health_min_events": 1}})
    day.client.headers.update(MINE)
    assert day.client.get("/healthz/ready").json() == {"status": "ok"}
    assert day.post(voice, precision="int8").status_code == 503
    ready = day.client.get("/healthz/ready")
    assert day.client.get("/healthz/live").status_code == 200
    assert (ready.status_code, ready.json()["reason"]) == (503, "too_many_failures")
    health = day.client.get("/health")
    assert health.status_code == 500
    assert (health.json()["status"], health.json()["model_pool_healthy"]) == ("error", False)
    assert health.json()["grpc_running"] is True
    assert numbers(day.client.get("/metrics").text)["vibevoice_healthy",] == 0


def test_dashboard_queries_only_metrics_that_exist(day: Server) -> None:
    board = json.loads((REPOSITORY / "deploy/grafana/vibevoice-asr.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    page = day.client.get("/metrics").text
    known = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count")}
    known |= {"vibevoice_gpu_memory_used_bytes", "vibevoice_gpu_memory_bytes"}  # with a GPU
    named = {word for one in asked for word in names_in(one)}
    assert len(asked) > 15
    assert named <= known, named - known
    wanted = {name for name in known if name.startswith("vibevoice_") and name.endswith("_total")}
    assert len(named & wanted) > 10


def test_counters_of_alerts_exist_with_0_before_the_first_event(start_server: Any) -> None:
    """`increase` and `rate` see no rise of a series that begins above 0."""
    alerts = (REPOSITORY / "deploy/prometheus/alerts.yaml").read_text("utf-8")
    risen = re.findall(r"(?:increase|rate)\((\w+)(?:\{(\w+)=\"(\w+)\"\})?\[", alerts)
    assert len(risen) >= 5
    server = start_server(metrics="open")
    samples = [
        sample
        for family in text_string_to_metric_families(server.client.get("/metrics").text)
        for sample in family.samples
    ]
    for name, label, value in risen:
        found = [one for one in samples if one.name == name]
        watched = [one for one in found if not label or one.labels[label] == value]
        assert watched, (name, label, value)
        assert {one.value for one in watched} == {0}, name
    refused = {one.labels["wire"] for one in samples if "sessions_refused_total" in one.name}
    assert refused == {"live", "streaming", "realtime", "grpc", "talk"}


def names_in(expression: str) -> set[str]:
    """The metrics of an expression of Prometheus."""
    return set(re.findall(r"\b(?:vibevoice|process|stt)_[a-z_]+", expression))


def test_system_has_the_fields_of_the_original_server(day: Server) -> None:
    body = day.client.get("/system").json()
    assert set(body) == {
        *("timestamp", "platform", "python", "cpu_count", "load_avg", "process", "system", "gpus")
    }
    assert set(body["process"]) == {"pid", "cpu_percent", "rss_bytes", "vms_bytes", "threads"}
    assert body["process"]["pid"] == day.process.pid
    assert body["process"]["rss_bytes"] > 1 << 20
    assert 0 < body["system"]["memory_available_bytes"] < body["system"]["memory_total_bytes"]


def test_machine_without_performance_counters_has_no_load_averages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def disabled() -> None:
        raise RuntimeError("PdhAddEnglishCounterW failed. Performance counters may be disabled.")

    monkeypatch.setattr(psutil, "getloadavg", disabled)
    assert machine_facts()["load_avg"] == []


# --- who may


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> TokenIssuer:
    return TokenIssuer(tmp_path_factory.mktemp("issuer") / "tokens")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, issuer: TokenIssuer) -> Iterator[Server]:
    """One with signed tokens, an administrators' API, and an engine that takes its time to load."""
    issuer.create("first", None)
    with Server(
        tmp_path_factory.mktemp("strict"),
        token_keys=issuer.keys.public,
        admin=1,
        preload=1,
        scripted_load=3,
        limits={"health_min_events": 1},
    ) as server:
        yield server


def bearing(issuer: TokenIssuer, *scopes: Scope) -> dict[str, str]:
    token, _ = issuer.create("somebody", None, scopes)
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.slow
def test_startup_probe_succeeds_once_the_engine_is_loaded(strict: Server) -> None:
    starting = strict.client.get("/healthz/startup")
    if strict.health()["engine_state"] == "loading":  # asked later: it was so before, too
        assert (starting.status_code, starting.json()["reason"]) == (503, "starting")
    assert strict.client.get("/healthz/live").json() == {"status": "ok"}

    def started() -> bool:
        return strict.client.get("/healthz/startup").status_code == 200

    wait_until(started, "it has started")
    assert strict.client.get("/healthz/ready").status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics.json", "/system"])
def test_metrics_and_system_need_the_scope_metrics_for_which_admin_is_not_enough(
    path: str, strict: Server, issuer: TokenIssuer
) -> None:
    check_problem(strict.client.get(path), 401, "token_missing")
    refused = strict.client.get(path, headers=bearing(issuer, Scope.ADMIN))
    check_problem(refused, 403, "scope_missing")
    assert strict.client.get(path, headers=bearing(issuer, Scope.METRICS)).status_code == 200


def test_open_metrics_need_no_token_and_health_without_grpc_is_200_if_failing_or_stopping(
    start_server: Any, voice: bytes
) -> None:
    server = start_server(
        token=TOKEN, metrics="open", scripted_fails="int8", limits={"health_min_events": 1},
        shutdown_grace=20, scripted_speed=1,
    )  # fmt: skip
    for path in ("/metrics", "/metrics.json", "/system"):
        assert server.client.get(path).status_code == 200
    check_problem(server.client.get("/v1/jobs"), 401, "token_missing")
    server.client.headers.update(MINE)
    assert server.post(voice, precision="int8").status_code == 503
    health = server.health()
    assert (health["status"], health["model_pool_healthy"]) == ("ok", False)
    server.submit(long(600))
    wait_until(lambda: server.health()["engine_state"] == "busy", "it works")
    server.process.stop()
    wait_until(lambda: server.health()["status"] == "stopping", "it stops")
    ready = server.client.get("/healthz/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "stopping")
    assert server.client.get("/healthz/live").status_code == 200


# --- the administrators' API


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_admin_routes_without_their_setting_return_501(server: Server, day: Server) -> None:
    for one in (server, day):
        for method, path in (
            *(("POST", "/admin/load_model"), ("POST", "/admin/unload_model")),
            ("GET", "/admin/list_models"),
        ):
            answer = one.client.request(method, path)
            assert said(answer) == (501, "ERR4001")
            assert answer.json()["message"] == "Admin API not enabled"
            assert answer.json()["title"] == "Not Implemented"
    nobody = web.get(f"http://127.0.0.1:{day.port}/admin/list_models")
    assert said(nobody) == (501, "ERR4001")  # that comes before who asks


def test_admin_routes_return_401_without_the_scope_admin(
    strict: Server, issuer: TokenIssuer
) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        bearing(issuer, *(set(Scope) - {Scope.ADMIN})),
    ):
        answer = strict.client.get("/admin/list_models", headers=headers)
        assert said(answer) == (401, "ERR4004")
    allowed = bearing(issuer, Scope.ADMIN)
    assert strict.client.get("/admin/list_models", headers=allowed).json()["models"] == ["default"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "ERR1010"),
        ({"model_id": 7}, 400, "ERR1010"),
        ({"model_id": "x" * 101}, 400, "ERR1010"),
        ({"model_id": "x", "compute_type": "int3"}, 400, "ERR1010"),
        ({"model_id": "x", "device": "tpu"}, 400, "ERR1010"),
        ({"model_id": "default", "model_path": "/etc"}, 409, "ERR4002"),
        ({"model_id": "x", "model_path": "/etc"}, 403, "ERR4005"),
        ({"model_id": "x", "compute_type": "int4"}, 400, "ERR4003"),
        ({"model_id": "x", "model_size": "small"}, 400, "ERR4003"),
    ],
)
def test_invalid_admin_load_model_request_returns_its_error_number(
    body: dict[str, Any], status: int, code: str, strict: Server, issuer: TokenIssuer
) -> None:
    answer = strict.client.post(
        "/admin/load_model", json=body, headers=bearing(issuer, Scope.ADMIN)
    )
    assert said(answer) == (status, code), answer.text
    assert answer.json()["message"]


@pytest.mark.parametrize("name", ["", "default", "unknown"])
def test_unload_of_the_last_or_an_unknown_model_is_refused(
    name: str, strict: Server, issuer: TokenIssuer
) -> None:
    answer = strict.client.post(
        f"/admin/unload_model?model_id={name}", headers=bearing(issuer, Scope.ADMIN)
    )
    assert said(answer) == (400, "ERR4003")


def test_unload_with_an_invalid_drain_timeout_returns_its_error_number(
    strict: Server, issuer: TokenIssuer
) -> None:
    wrong = strict.client.post(
        "/admin/unload_model?model_id=x&drain_timeout_sec=soon",
        headers=bearing(issuer, Scope.ADMIN),
    )
    assert said(wrong) == (400, "ERR1010")


@pytest.mark.slow
def test_model_loaded_by_an_administrator_takes_jobs_until_unloaded_and_none_is_lost(
    start_server: Any, tmp_path: Path
) -> None:
    first, models = tiny_whisper.model(), tmp_path / "models"
    shutil.copytree(first, models / "second")
    tiny_whisper.write_like(models / "broken")  # looks like one, and does not load
    shutil.copytree(first, tmp_path / "elsewhere")
    server = start_server(
        engine="whisper", model_path=first, live_engine="scripted", keep_alive=-1, token=TOKEN,
        admin=1, admin_model_roots=models,
    )  # fmt: skip
    server.client.headers.update(MINE)
    audio = clip(tiny_whisper.PLAY).read_bytes()

    def load(name: str, folder: Path) -> httpx.Response:
        body = {"model_id": name, "model_path": str(folder), "compute_type": "int8"}
        return server.client.post("/admin/load_model", json=body)

    def listed() -> dict[str, Any]:
        return dict(server.client.get("/admin/list_models").raise_for_status().json())

    def settled() -> bool:
        return not listed()["loading"]

    def heard_by(job: str) -> str:
        wait_until(lambda: server.job(job)["state"] == "done", "it is done")
        return str(server.transcript(job)["metadata"]["model"])

    assert server.post(audio).json()["metadata"]["model"] == first.name
    assert said(load("x", tmp_path / "elsewhere")) == (403, "ERR4005")
    assert said(load("x", models / ".." / "elsewhere")) == (403, "ERR4005")
    assert said(load("x", models / "nothing")) == (400, "ERR4003")
    jobs = [server.submit(audio) for _ in range(2)]
    wait_until(lambda: server.job(jobs[0])["state"] != "queued", "it runs, or ran")
    assert load("second", models / "second").json()["status"] == "loading_started"
    assert said(load("second", models / "second")) == (409, "ERR4002")
    assert heard_by(jobs[0]) == first.name
    assert heard_by(jobs[1]) in (first.name, "second")  # who is next is not told by the wire
    wait_until(settled, "it is there")
    assert listed()["models"] == ["second", "default"]  # that for live audio is another's
    assert server.post(audio).json()["metadata"]["model"] == "second"

    assert load("broken", models / "broken").status_code == 200
    wait_until(settled, "it is given up")
    assert listed()["failed"] == {"broken": "model_load_failed"}
    assert server.post(audio).json()["metadata"]["model"] == "second"

    gone = server.client.post("/admin/unload_model?model_id=second&drain_timeout_sec=300")
    assert (gone.status_code, gone.json()) == (200, {"status": "unloaded", "model_id": "second"})
    assert listed()["models"] == ["default"]
    assert server.post(audio).json()["metadata"]["model"] == first.name


def test_health_and_metrics_name_what_does_not_work_until_a_job_shows_that_it_does(
    tmp_path: Path, voice: bytes
) -> None:
    with Server(tmp_path, scripted_fails="int8") as server:
        assert server.post(voice, precision="int8").json()["code"] == "model_load_failed"
        assert server.client.get("/health").json()["faults"] == {"engine": "model_load_failed"}
        shown = numbers(server.client.get("/metrics").text)
        assert shown["vibevoice_faults", "model_load_failed", "engine"] == 1
        assert server.post(voice).status_code == 200
        assert server.client.get("/health").json()["faults"] == {}
        assert not any(
            "vibevoice_faults" in name for name in numbers(server.client.get("/metrics").text)
        )
