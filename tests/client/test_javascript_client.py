"""The JavaScript client under Node: its decisions, and all of it against a real service."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from network_faults import network
from service_process import PATIENCE_S, Server, StartServer
from vibevoice_asr_client import FORMATS

from sidecar.config.settings import Settings
from sidecar.server.app import create_app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients/js"
WEBSOCKET = ("--experimental-websocket",)
"""What node 20 wants to be told; from 22 on it changes nothing."""


def run(node: str, *arguments: str, **environment: str) -> str:
    """What it writes."""
    result = subprocess.run(
        [node, *arguments],
        cwd=PACKAGE,
        env={**os.environ, "FORCE_COLOR": "0", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def node() -> str:
    """Node 20 or newer: of 18 the flag for WebSockets is not known. The test is skipped, loudly,
    where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is missing: the JavaScript client is not tested (20 or newer is needed)")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(
            f"node is {version}: the JavaScript client is not tested (20 or newer is needed)"
        )
    return found


@pytest.fixture(scope="module")
def websockets(node: str) -> None:
    """Skip the test, loudly, where node has none, not even behind a flag (20)."""
    found = subprocess.run(
        [node, *WEBSOCKET, "--eval", "new WebSocket"], capture_output=True, text=True
    )
    if "WebSocket is not defined" in found.stderr:
        pytest.skip("node has no WebSocket: live audio in JavaScript is not tested")


@pytest.fixture
def case(node: str, server: Server, studio: Any) -> Callable[..., Any]:
    """Runs a case of `live.js`; what it came to."""

    def came_to(name: str, port: int = server.port, **more: str) -> Any:
        usual = {"DIRECT": server.url, "RECORDING": str(studio.voice)}
        there = {"SERVICE_URL": f"http://127.0.0.1:{port}", **usual, **more}
        return json.loads(run(node, *WEBSOCKET, "tests/live.js", name, **there))

    return came_to


def test_javascript_client_passes_its_own_tests(node: str) -> None:
    run(node, "--test", "tests/deciding.test.js", "tests/client.test.js")


def test_javascript_client_returns_the_transcript_with_progress_and_leaves_no_job(
    case: Callable[..., Any], server: Server, studio: Any
) -> None:
    before = {job["id"] for job in server.jobs()}
    found = case("transcribe")
    transcript, told = found["transcript"], found["told"]
    assert transcript["segments"] == found["again"]
    assert transcript["segments"][0]["speaker"] == "Speaker_0"
    assert transcript["metadata"]["language"] == "de"
    size = studio.voice.stat().st_size
    sent = [(at["done"], at["fraction"]) for at in told if at["stage"] == "uploading"]
    assert sent == [(0, 0), (size, 1)]
    assert {at["stage"] for at in told} <= {"uploading", "queued", "running"}
    assert told[-1]["stage"] == "running"
    assert {job["id"] for job in server.jobs()} <= before


def test_job_with_a_key_is_submitted_once_listed_fetched_edited_and_deleted(
    case: Callable[..., Any], server: Server
) -> None:
    found = case("jobs")
    assert found["one"]["id"] == found["other"]["id"]
    assert found["ended"]["state"] == "done"
    assert found["one"]["id"] in found["listed"]
    assert list(found["formats"]) == list(FORMATS)
    assert all(text.strip() for text in found["formats"].values())
    edited, refused, not_kept, not_deleted = found["edits"]
    assert not_kept == "diarization_not_kept", "the engine of tests keeps nothing"
    assert (edited["revision"], edited["speakers"][0]["name"]) == (1, "Nell")
    assert refused == not_deleted == "transcript_changed"
    assert found["health"]["engine"] == "scripted"
    assert found["one"]["id"] not in {job["id"] for job in server.jobs()}


def test_events_over_cut_connections_are_complete(case: Callable[..., Any], server: Server) -> None:
    with network(server.port, 0, 700) as between:
        found = case("resume", between.port)
        assert between.connections >= 3  # one more for each "not now" of a busy service
        assert b"last-event-id: " in between.sent.lower()
    assert found["resumed"] == found["whole"]
    assert found["whole"][-1]["kind"] == "done"
    assert found["rest"] == [[], found["whole"][-1:]]


def test_abort_cancels_the_job_and_leaving_its_events_does_not(
    case: Callable[..., Any], start_server: StartServer
) -> None:
    slow = start_server(scripted_speed=4)
    found = case("abort", slow.port)
    assert found["reason"] is True
    assert len(found["events"]) == 1
    assert found["state"] in ("running", "done"), "not cancelled"
    assert found["left"] == []


def test_cut_connections_of_a_live_session_lose_and_double_no_event(
    case: Callable[..., Any], server: Server, websockets: None
) -> None:
    with network(server.port, 0, 400, 600, 800, 1000, 1200) as between:
        found = case("live", between.port)
        assert between.connections >= 5
    cut, whole = ([one for one in found[way] if one["type"] == "final"] for way in ("cut", "whole"))
    assert [one["segment"] for one in cut] == [one["segment"] for one in whole]
    assert len(whole) == 4
    assert found["cut"][-1]["transcript"]["segments"] == [one["segment"] for one in whole]
    numbers = [one["number"] for one in found["cut"]]
    assert numbers == sorted(set(numbers))


@pytest.mark.slow
def test_wav_file_streamed_live_gives_its_finals_and_a_kept_job(
    case: Callable[..., Any], websockets: None
) -> None:
    found = case("file")
    finals = [one["segment"] for one in found["events"] if one["type"] == "final"]
    summary = found["events"][-1]
    assert summary["transcript"]["segments"] == finals
    assert finals
    assert (found["kept"]["state"], found["kept"]["id"]) == ("done", summary["job"])


def test_live_file_that_is_no_wav_or_has_other_channels_is_a_type_error(
    case: Callable[..., Any],
) -> None:
    assert case("unfit") == ["TypeError", "TypeError"], "no wav, and a mono one as stereo"


def test_live_session_ends_when_closed_or_aborted_and_refusals_have_errors_of_their_own(
    case: Callable[..., Any], websockets: None
) -> None:
    found = case("left")
    assert all(event.get("code") == "engine_loading" for event in found.pop("events"))
    assert found == {
        "empty": "TypeError",
        "reason": True,
        "refused": "field_invalid",
        "nobody": "ServiceUnreachable",
    }


def test_live_token_is_sent_as_subprotocol_and_one_with_a_slash_as_ticket_instead(
    case: Callable[..., Any], start_server: StartServer, websockets: None
) -> None:
    token = "with/slashes+and=such"
    server = start_server(token=token)
    with network(server.port) as between:
        assert case("tokens", between.port, TOKEN=token) == {
            token: "opened",
            "x" * 20: "token_invalid",  # another one than none at all: it was seen
            "/" * 20: "token_invalid",
        }
        sent = between.sent
    queries = re.findall(rb"GET /v1/live(\S*) HTTP", sent)
    assert [re.fullmatch(rb"\?ticket=[\w%-]+", one) is not None for one in queries] == [True, False]
    protocols = re.findall(rb"(?i)sec-websocket-protocol: ([^\r\n]*)", sent)
    assert [b"x" * 20 in one for one in protocols] == [False, True]
    assert token not in unquote_to_bytes(queries[0]).decode(), "its ticket is another text"


def test_page_without_token_opens_each_connection_with_a_ticket_that_opens_only_one(
    case: Callable[..., Any], start_server: StartServer, websockets: None
) -> None:
    server = start_server(token="a token of the page's own server")
    with network(server.port, 300, 600, 900) as between:
        token = "a token of the page's own server"
        came = case("tickets", between.port, DIRECT=server.url, TOKEN=token)
        assert came["asked"] == between.connections + 1, "one for each, and one that failed"
        assert between.connections >= 3
    assert came["events"][-1]["type"] == "summary"
    assert came["once"] == ["opened", "ticket_invalid"]


def test_websocket_error_with_status_403_is_not_retried_and_hint_names_allowed_origins(
    case: Callable[..., Any],
) -> None:
    came = case("refused")
    assert (came["made"], came["status"]) == (1, 403)
    assert "allowed_origins" in came["hint"]


def test_javascript_errors_have_code_status_detail_hint_and_request_id(
    case: Callable[..., Any],
) -> None:
    said = case("errors")
    assert all(error["whole"] for error in said)
    assert [(error["code"], error["status"]) for error in said] == [
        *(("audio_empty", 400), ("audio_format_unsupported", 415), ("not_found", 404)),
        *(("job_not_found", 404), ("field_invalid", 422)),
        *[("job_not_found", 404)] * 2,
    ]


def test_upload_over_limit_is_refused_with_its_code(node: str, start_server: StartServer) -> None:
    """Node takes a while to make 40 MB a form, and sees the answer only then."""
    server = start_server(max_upload_mb=1)
    program = f"""
        import {{ NEVER, VibevoiceClient }} from "./src/index.js";
        const url = "http://127.0.0.1:{server.port}";
        const client = new VibevoiceClient({{ url, retry: NEVER }});
        const large = new Blob([new Uint8Array(40 << 20)]);
        const refused = [];
        for (let count = 0; count < 3; count += 1)
          await client.submit(large).catch((error) => refused.push(error.code));
        console.log(JSON.stringify(refused));
    """
    said = run(node, "--input-type=module", "--eval", program)
    assert json.loads(said) == ["upload_too_large"] * 3


def test_javascript_example_of_the_clients_page_runs_and_prints_the_transcript(
    node: str, server: Server, studio: Any
) -> None:
    page = (ROOT / "docs/clients.md").read_text("utf-8")
    (example,) = re.findall(r"```js\n(.+?)```", page, re.DOTALL)
    assert "http://127.0.0.1:8765" in example
    names = f"""
        import {{ readFile }} from "node:fs/promises";
        const token = undefined;
        const file = new Blob([await readFile({json.dumps(str(studio.voice))})]);
    """
    here = example.replace("http://127.0.0.1:8765", server.url)
    said = run(node, "--input-type=module", "--eval", names + here)
    assert "uploading 1\n" in said
    assert "Speaker_0" in said


def test_types_have_the_field_names_of_the_openapi_of_the_service() -> None:
    text = (PACKAGE / "types/wire.d.ts").read_text("utf-8")
    types = {
        name: set(re.findall(r"^    (\w+)\??:", body, re.MULTILINE))
        for name, body in re.findall(r"export type (\w+) = \{\n(.+?)^\};", text, re.DOTALL | re.M)
    }
    page = create_app(Settings(engine="scripted")).openapi()
    schemas = page["components"]["schemas"]
    form = page["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert types["Options"] == set(form["schema"]["properties"]) - {"audio"}
    job = schemas["JobAnswer"]
    for name, schema in {
        "Job": job,
        "JobPage": schemas["JobPage"],
        "Segment": schemas["TranscribeSegment"],
        "Word": schemas["TranscribeWord"],
        "Metadata": schemas["TranscribeMetadata"],
        "AudioProgress": schemas["JobProgress"],
        "Health": schemas["HealthAnswer"],
        "LocalModel": schemas["LocalModel"],
    }.items():
        assert types[name] == set(schema["properties"]), name


def test_package_is_named_like_the_python_client_and_has_no_dependency() -> None:
    package = json.loads((PACKAGE / "package.json").read_text("utf-8"))
    python = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text("utf-8"))["project"]
    assert package["name"] == python["name"]
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & set(package)
    assert (PACKAGE / package["exports"]["."]["default"]).is_file()
    assert (PACKAGE / package["types"]).is_file()
