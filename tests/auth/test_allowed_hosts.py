"""Host names under which the service answers: its own, those of containers and of settings."""

import pytest
from module_services import service_of_module
from service_process import Server, StartServer, check_problem, read_answer

from sidecar import errors
from sidecar.auth.allowed_hosts import CONTAINER_HOST_NAMES, AllowedHosts
from sidecar.auth.authentication import AccessControl, Authenticator
from sidecar.auth.identity import RequestOrigin
from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher
from sidecar.server.app import create_access_control

OURS = ("localhost", "127.0.0.1", "[::1]", "LocalHost")
TOKEN = "correct-horse-battery-staple"

guarded = service_of_module(token=TOKEN, allowed_hosts="my-box.lan, other.lan")


@pytest.mark.parametrize("host", OURS)
def test_loopback_host_names_are_accepted_with_and_without_port(host: str, server: Server) -> None:
    for name in (host, f"{host}:{server.port}"):
        assert server.client.get("/health", headers={"Host": name}).status_code == 200, name


def test_request_with_two_host_headers_is_refused(server: Server) -> None:
    with server.raw() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert read_answer(sock)[0] in (400, 403)


def host_named(name: str, **more: str) -> dict[str, str]:
    return {"Host": f"{name}:8765", **more}


@pytest.mark.parametrize("name", sorted(CONTAINER_HOST_NAMES))
def test_container_host_name_without_token_may_transcribe_but_read_no_jobs_or_pages(
    name: str, server: Server, voice: bytes
) -> None:
    ask, audio = server.client, {"file": voice}
    for path in ("/v1/audio/transcriptions", "/transcribe"):
        field = {"audio": voice} if path == "/transcribe" else audio
        sent = ask.post(path, files=field, data={"model": "whisper-1"}, headers=host_named(name))
        assert sent.status_code == 200, sent.text
    for path in ("/health", "/v1/models"):
        assert ask.get(path, headers=host_named(name)).status_code == 200
    assert "models" not in ask.get("/v1/models", headers=host_named(name)).json()
    assert "models" in ask.get("/v1/models").json()
    for path in ("/v1/jobs", "/", "/docs"):
        read = ask.get(path, headers=host_named(name))
        check_problem(read, 403, "host_not_allowed")
        assert "VIBEVOICE_TOKEN" in read.json()["hint"]
        assert f"--allowed-hosts {name}" in read.json()["hint"]
    for page in (f"http://{name}:8765", "null", "tauri://localhost"):
        sent = ask.post("/transcribe", files=field, headers=host_named(name, Origin=page))
        check_problem(sent, 403, "host_not_allowed")
    for other in (f"evil.{name}", f"{name}.evil.example", f"{name}."):
        check_problem(ask.get("/health", headers=host_named(other)), 403, "host_not_allowed")


def test_container_host_name_with_token_reads_jobs_but_not_from_a_page_of_that_name(
    guarded: Server,
) -> None:
    for name in sorted(CONTAINER_HOST_NAMES):
        key = {"Authorization": f"Bearer {TOKEN}"}
        assert guarded.client.get("/v1/jobs", headers=host_named(name, **key)).status_code == 200
        own = host_named(name, Origin=f"http://{name}:8765")
        check_problem(guarded.client.get("/v1/jobs", headers=own), 401, "token_missing")


def test_service_on_the_network_takes_any_host_name_but_no_foreign_page() -> None:
    access = AccessControl(AllowedHosts(anywhere=True), authenticator=Authenticator(TOKEN))
    access.check_origin(RequestOrigin(["my-box.lan:8765"], [], []))
    with pytest.raises(errors.OriginNotAllowed):
        access.check_origin(RequestOrigin(["my-box.lan:8765"], ["https://evil.example"], []))


@pytest.mark.parametrize("hosts", [[], [""]])
def test_request_without_a_host_is_answered_if_any_host_is_allowed_and_it_is_of_no_page(
    hosts: list[str],
) -> None:
    access = AccessControl(AllowedHosts(anywhere=True), authenticator=Authenticator(TOKEN))
    access.check_origin(RequestOrigin(hosts, [], []))
    with pytest.raises(errors.HostNotAllowed):
        access.check_origin(RequestOrigin(hosts, ["https://evil.example"], []))
    near = AccessControl(AllowedHosts(), authenticator=Authenticator(TOKEN))
    with pytest.raises(errors.HostNotAllowed):
        near.check_origin(RequestOrigin(hosts, [], []))


def test_health_check_of_http_1_0_without_a_host_is_answered_on_the_network(
    start_server: StartServer,
) -> None:
    server = start_server(host="0.0.0.0", token=TOKEN)
    for path in ("/healthz/ready", "/healthz/live", "/health"):
        with server.raw() as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert read_answer(sock)[0] == 200, path


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_listening_address_is_accepted_as_host_name_and_another_is_refused(host: str) -> None:
    access = create_access_control(Settings(host=host), FileWatcher())
    name = f"[{host}]" if ":" in host else host
    access.check_origin(RequestOrigin([f"{name}:8765"], [], [], peer="127.0.0.1"))
    with pytest.raises(errors.HostNotAllowed):
        access.check_origin(RequestOrigin(["127.0.0.3:8765"], [], [], peer="127.0.0.1"))


def test_host_names_of_the_setting_allowed_hosts_are_accepted(guarded: Server) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("my-box.lan", "OTHER.lan:8765"):
        assert guarded.client.get("/v1/jobs", headers={**bearer, "Host": host}).status_code == 200
