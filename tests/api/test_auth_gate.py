"""Only the host gets in: names, pages and tokens, on every address that the service has."""

import functools
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from many_cases import for_each
from module_services import service_of_module
from pydantic import SecretStr
from service_process import Server, check_discreet, check_problem

from sidecar.api.http.auth_gate import PROBES
from sidecar.auth.authentication import AccessControl
from sidecar.config.server_settings import is_loopback_address
from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher
from sidecar.server.app import create_access_control, create_app

HOSTILE = (
    *("evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example"),
    *("127.0.0.1@evil.example", "169.254.169.254", "0.0.0.0", "[::ffff:7f00:1]", "2130706433"),
    *("localhost.", ":8765", ""),
)
FOREIGN = (
    *("https://evil.example", "http://evil.example:8765", "null", "file://"),
    *("http://localhost:3000", "http://127.0.0.1.evil.example", "tauri://localhost.evil.example"),
    *("app:", "apps://obsidian.md", "http://obsidian.md", "https://app.example"),
    "chrome-extension://abcdefghijklmnop",
)
ALLOWED = (
    *("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"),
    *("app://obsidian.md", "app://-", "capacitor://localhost"),
)
TOKEN = "correct-horse-battery-staple"
OPENAI = ("/v1/audio/", "/v1/models", "/v1/realtime/", "/inference")
"""How the addresses begin whose errors have OpenAI's shape."""


@functools.cache
def routes() -> list[tuple[str, str]]:
    """Every method and address of the service, and one that it has not."""
    paths = create_app(Settings(engine="scripted")).openapi()["paths"]
    known = [
        (method.upper(), path.replace("{job_id}", "x").replace("{model}", "x"))
        for path, methods in paths.items()
        for method in methods
    ]
    return [*known, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/no-such-address")]


def check_refused(response: httpx.Response, status: int, code: str) -> None:
    """As a problem, or at the addresses of OpenAI's API and of administrators in their shape."""
    if response.request.url.path.startswith("/admin/"):
        assert (response.status_code, response.json()["error"]) == (status, code)
        assert response.json()["code"].startswith("ERR4")
        check_discreet(response.text)
        return
    asked = response.request
    ours = asked.method == "DELETE" or asked.url.path.endswith("/pull")
    if ours or not asked.url.path.startswith(OPENAI):
        check_problem(response, status, code)
        return
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"
    check_discreet(response.text)


@pytest.mark.parametrize(("method", "path"), routes())
def test_request_with_a_foreign_host_name_is_refused_at_every_address(
    method: str, path: str, server: Server
) -> None:
    for host in HOSTILE:
        response = server.client.request(method, path, headers={"Host": host})
        status, text = response.status_code, response.text
        assert status in (400, 403), (host, text)  # 400: the parser refuses what is no name
        assert status == 400 or '"host_not_allowed"' in text
        assert "instance" not in text


@pytest.mark.parametrize(("method", "path"), routes())
@for_each("origin", FOREIGN)
def test_request_with_a_foreign_origin_is_refused_at_every_address_and_method(
    method: str, path: str, origin: str, server: Server
) -> None:
    response = server.client.request(method, path, headers={"Origin": origin})
    check_refused(response, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", FOREIGN)
def test_preflight_of_a_foreign_page_returns_403_without_cors_headers(
    origin: str, server: Server
) -> None:
    response = server.client.options(
        "/transcribe", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
    )
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_form_post_of_a_cross_site_or_same_site_page_is_refused(site: str, server: Server) -> None:
    form = {"Content-Type": "text/plain", "Sec-Fetch-Site": site}
    body = b'{"audio_path": "/etc/hostname"}'
    response = server.client.post("/transcribe", content=body, headers=form)
    check_problem(response, 403, "origin_not_allowed")


@pytest.mark.parametrize("origin", ALLOWED)
def test_allowed_app_origin_gets_cors_headers_on_preflight_answer_and_error(
    origin: str, server: Server, voice: bytes
) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
        "Access-Control-Request-Private-Network": "true",
    }
    preflight = server.client.options("/transcribe", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert preflight.headers["access-control-allow-private-network"] == "true"
    response = server.client.post("/transcribe", files={"audio": voice}, headers={"Origin": origin})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    wrong = server.client.post("/transcribe", headers={"Origin": origin})
    assert wrong.headers["access-control-allow-origin"] == origin, "a page sees its errors too"


def test_same_origin_page_and_cross_site_link_are_served_but_cross_site_post_is_refused(
    server: Server,
) -> None:
    own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
    assert server.client.get("/v1/jobs", headers=own).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert server.client.get("/docs", headers=link).status_code == 200
    assert server.client.post("/transcribe", headers=link).status_code == 403


guarded = service_of_module(token=TOKEN, admin="true", allowed_origins="localhost")


def test_wildcard_origin_is_honoured_for_an_app_scheme_but_not_for_http_https_or_file() -> None:
    access = AccessControl(origins=frozenset({"app://*", "https://*", "http://*", "file://*"}))
    assert access.admits_origin("app://obsidian.md")
    for origin in ("https://evil.example", "http://evil.example", "file://", "null"):
        assert not access.admits_origin(origin)


OPEN = {"/health": 200, "/healthz": 200, "/v1/page/sessions": 415, **dict.fromkeys(PROBES, 200)}
"""What answers without a token, and how: the latter wants a word that counts once instead."""


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_but_health_and_sign_in_returns_401_without_the_right_token(
    method: str, path: str, guarded: Server
) -> None:
    if path in OPEN:
        assert guarded.client.request(method, path).status_code == OPEN[path]
        return
    check_refused(guarded.client.request(method, path), 401, "token_missing")
    for wrong in (
        *("Bearer", "Bearer wrong", "Bearer \u00e4", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"),
        *(TOKEN, f"Basic {TOKEN}"),
    ):
        response = guarded.client.request(
            method, path, headers={"Authorization": wrong.encode("latin-1")}
        )
        check_refused(response, 401, "token_invalid")
        assert response.headers["www-authenticate"] == "Bearer"
    right = guarded.client.request(method, path, headers={"Authorization": f"bearer {TOKEN}"})
    assert right.status_code != 401
    assert right.status_code != 403 or right.json()["code"] == "people_off"


def test_right_and_wrong_tokens_are_not_logged(guarded: Server) -> None:
    guarded.client.get("/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"})
    guarded.client.get("/v1/jobs", headers={"Authorization": "Bearer somebody-elses-secret"})
    assert TOKEN not in guarded.log()
    assert "somebody-elses-secret" not in guarded.log()


def test_allowed_origin_gets_cors_headers_also_on_401_and_a_similar_one_gets_403(
    guarded: Server,
) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for origin in ("http://localhost:3000", "https://127.0.0.1:5173", "http://[::1]"):
        response = guarded.client.get("/v1/jobs", headers={**bearer, "Origin": origin})
        assert response.headers["access-control-allow-origin"] == origin
        refused = guarded.client.get("/v1/jobs", headers={"Origin": origin})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == origin
    foreign = guarded.client.get("/v1/jobs", headers={"Origin": "http://localhost.evil"})
    assert foreign.status_code == 403


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True),
     ("::ffff:127.0.0.1", True), ("::ffff:192.168.1.5", False), ("", False),
     ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("my-box.lan", False)],
)  # fmt: skip
def test_loopback_addresses_are_told_from_network_addresses(address: str, loopback: bool) -> None:
    assert is_loopback_address(address) is loopback


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0", "tls": "self-signed"}, False),
        ({"host": "0.0.0.0", "forwarded_allow_ips": "10.0.0.1"}, False),
        ({"host": "127.0.0.1"}, False),
    ],
)
def test_token_on_a_network_address_without_tls_or_proxy_is_warned_of_at_the_start(
    settings: dict[str, Any], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    create_access_control(Settings(token=SecretStr(TOKEN), **settings), FileWatcher())
    assert ("cross the network unencrypted" in caplog.text) is warns


# Who is at the other end of the connection. The app is served by another server than ours, which
# may listen anywhere (`uvicorn sidecar.main:app --host 0.0.0.0`): what it says of the peer counts.

STRANGERS: dict[str, tuple[tuple[str, int] | None, dict[str, str]]] = {
    "internet": (("203.0.113.7", 40_000), {}),
    "lan": (("192.168.1.5", 40_000), {}),
    "lan-6": (("fd00::5", 40_000), {}),
    "lan-6-mapped": (("::ffff:192.168.1.5", 40_000), {}),
    "link-local": (("fe80::1%eth0", 40_000), {}),
    "unknown": (None, {}),
    "socket-file": (("", 0), {}),
    "proxy": (("127.0.0.1", 40_000), {"X-Forwarded-For": "203.0.113.7"}),
    "proxy-that-lies": (("127.0.0.1", 40_000), {"X-Forwarded-For": "127.0.0.1"}),
    "proxy-by-the-book": (("127.0.0.1", 40_000), {"Forwarded": "for=203.0.113.7"}),
    "proxy-of-another-kind": (("127.0.0.1", 40_000), {"X-Real-IP": "203.0.113.7"}),
    "proxy-for-a-name": (("127.0.0.1", 40_000), {"X-Forwarded-Host": "my-box.lan"}),
}


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    peer: tuple[str, int] | None,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> tuple[int, str]:
    """Send a request as a server would that has this peer; the status and the problem's code."""
    transport = httpx.ASGITransport(app, client=peer)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.request(method, path, headers=headers, content=body)
    if answer.is_success:
        return answer.status_code, ""
    said = answer.json()
    code = said["error"] if "error" in said else said["code"]
    return answer.status_code, code if isinstance(code, str) else code["code"]


@pytest.fixture(scope="module")
def open_app() -> FastAPI:
    return create_app(Settings(engine="scripted"))


@pytest.mark.parametrize("name", STRANGERS)
async def test_service_without_token_refuses_other_machines_over_http_and_websocket(
    name: str, open_app: FastAPI
) -> None:
    peer, headers = STRANGERS[name]
    for method, path in routes():
        answer = await ask(open_app, method, path, peer, headers)
        assert answer == (403, "peer_not_allowed"), (method, path)
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "localhost", **headers}
    scope = {
        "type": "websocket",
        "path": "/live",
        "client": peer,
        "headers": [(key.lower().encode(), value.encode()) for key, value in given.items()],
    }
    await open_app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "peer_not_allowed"}]


@pytest.mark.parametrize("path", ["/transcribe", "/v1/estimate"])
async def test_other_machine_with_token_is_served_but_its_audio_path_is_refused(
    path: str, tmp_path: Path
) -> None:
    """All in one service: each that looks at a recording has a process for it."""
    app = create_app(Settings(engine="scripted", token=SecretStr(TOKEN)))
    (tmp_path / "text.wav").write_text("no audio", "utf-8")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    post = bearer | {"Content-Type": "application/json"}
    body = json.dumps({"audio_path": str(tmp_path / "text.wav")}).encode()
    for name, (peer, headers) in STRANGERS.items():
        assert await ask(app, "GET", "/v1/jobs", peer, headers | bearer) == (200, ""), name
        assert await ask(app, "GET", "/v1/jobs", peer, headers) == (401, "token_missing"), name
        answer = await ask(app, "POST", path, peer, headers | post, body)
        assert answer == (403, "audio_path_forbidden"), name
    answer = await ask(app, "POST", path, ("127.0.0.1", 40_000), post, body)
    assert answer == (415, "audio_format_unsupported")


def test_forwarded_request_to_a_service_without_token_is_refused(server: Server) -> None:
    for headers in ({"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=127.0.0.1"}):
        check_problem(server.client.get("/v1/jobs", headers=headers), 403, "peer_not_allowed")
