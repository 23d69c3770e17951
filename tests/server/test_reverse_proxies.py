"""nginx and Caddy with the files of deploy/: live audio, events and uploads go through. Before
several services nginx brings clients back to the one that has their session."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc_client import Client as GrpcClient
from network_faults import network
from not_tested import missing
from recordings import wav
from scripted_speech import pieces, talk
from service_process import PATIENCE_S, REPOSITORY, Server, free_port, wait_until
from sse_reader import parse
from vibevoice_asr_client import Client, Retry, Summary, Trust
from websockets.sync.client import ClientConnection, connect

from sidecar.auth.tls import ensure_certificate

NAME = "speech.example"
TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HEADERS = {"Host": NAME, **BEARER}
BEHIND: dict[str, Any] = {
    "token": TOKEN, "allowed_hosts": NAME, "forwarded_allow_ips": "127.0.0.1"
}  # fmt: skip
"""Settings of a service that a proxy stands in front of."""
UPLOAD_MB = 24  # far beyond what either proxy takes or stores unless it is told to


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs. ``folder`` has all that it writes."""

    port: int
    certificate: Path
    folder: Path

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self) -> httpx.Client:
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, verify=self.trust, timeout=PATIENCE_S, headers=HEADERS)

    def sent(self, method: str, path: str, **more: Any) -> httpx.Response:
        with self.client() as client:
            return client.request(method, path, extensions={"sni_hostname": NAME}, **more)

    def raw(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        return self.trust.wrap_socket(plain, server_hostname=NAME)

    def live(self, host: str = "", path: str = "/v1/live") -> ClientConnection:
        """A connection for live audio, from an address of this machine."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, (host, 0))
        return connect(
            f"wss://{NAME}{path}",
            sock=plain,
            ssl=self.trust,
            additional_headers=BEARER,
            open_timeout=PATIENCE_S,
        )


def nginx_file(name: str) -> str:
    """A file of nginx, as somebody would copy it."""
    return (REPOSITORY / "deploy/nginx" / name).read_text("utf-8")


def replaced(block: str, changes: dict[str, str]) -> str:
    """The configuration where the tests run: other ports and other files, and nothing else."""
    for old, new in changes.items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    return block


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("behind")
    with Server(home, scripted_speed=20, scripted_hold=home / "hold", **BEHIND) as running:
        yield running


def nginx(service: Server, folder: Path, port: int) -> tuple[list[str], Path]:
    address = {"http://127.0.0.1:8765": f"http://127.0.0.1:{service.port}"}
    return nginx_with(folder, {"443": port}, replaced(nginx_file("vibevoice-asr.conf"), address))


def nginx_with(folder: Path, ports: dict[str, int], block: str) -> tuple[list[str], Path]:
    pair = ensure_certificate(folder, frozenset({NAME, "localhost"}))
    block = replaced(
        block, {f"listen {one} ssl": f"listen 127.0.0.1:{ports[one]} ssl" for one in ports}
    )
    block = block.replace(f"/etc/ssl/{NAME}/fullchain.pem", str(pair.certificate))
    block = block.replace(f"/etc/ssl/{NAME}/privkey.pem", str(pair.key))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = "".join(f"{kind}_temp_path {folder}/temp-{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;"
        f"events {{}} http {{ access_log off; {temp}\n{block}\n}}",
        "utf-8",
    )
    command = ["nginx", "-p", str(folder), "-e", f"{folder}/log", "-c", f"{folder}/nginx.conf"]
    return command, pair.certificate


def caddy(service: Server, folder: Path, port: int) -> tuple[list[str], Path]:
    block = (REPOSITORY / "deploy/caddy/Caddyfile").read_text("utf-8")
    block = replaced(block, {"127.0.0.1:8765": f"127.0.0.1:{service.port}"})
    (folder / "Caddyfile").write_text(
        "{\n admin off\n auto_https disable_redirects\n local_certs\n skip_install_trust\n"
        f" https_port {port}\n storage file_system {folder}/storage\n}}\n{block}",
        "utf-8",
    )
    command = ["caddy", "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"]
    return command, folder / "storage/pki/authorities/local/root.crt"


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest, service: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    name = request.param.__name__
    skip_without(name)
    folder, port = tmp_path_factory.mktemp(name), free_port()
    command, certificate = request.param(service, folder, port)
    with running(command, certificate, folder, port) as there:
        yield there


def skip_without(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(missing(name, name))


@contextlib.contextmanager
def running(command: list[str], certificate: Path, folder: Path, port: int) -> Iterator[Proxy]:
    """A proxy, from its first answer on."""
    env = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said)
    try:

        def answers() -> Proxy | None:
            told = (folder / "said").read_text("utf-8")
            assert process.poll() is None, f"{command[0]} ended at its start\n{told}"
            if not certificate.exists():
                return None
            there = Proxy(port, certificate, folder)
            try:
                return there if there.sent("GET", "/health").status_code == 200 else None
            except httpx.TransportError:
                return None

        yield wait_until(answers, f"{command[0]} passes a request on")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def dense(megabytes: int) -> bytes:
    """Silence, 16 bit stereo at 96 kHz: many bytes for few seconds."""
    return wav(bytes(megabytes << 20), channels=2, rate=96_000)


def test_live_audio_passes_reverse_proxy(proxy: Proxy) -> None:
    with proxy.live() as live:
        live.send(json.dumps({"type": "begin", "encoding": "pcm16", "rate": 16000}))
        assert json.loads(live.recv(PATIENCE_S))["type"] == "began"
        live.send(bytes(32_000))
        live.send(json.dumps({"type": "finish"}))
        kinds = [""]
        while kinds[-1] != "summary":
            kinds.append(json.loads(live.recv(PATIENCE_S))["type"])


def test_events_of_job_pass_reverse_proxy_while_it_runs(proxy: Proxy, service: Server) -> None:
    hold = service.home / "hold"
    hold.touch()
    job = proxy.sent("POST", "/v1/jobs", files={"audio": dense(1)}).json()["id"]
    with (
        proxy.client() as client,
        client.stream(
            "GET", f"/v1/jobs/{job}/events", extensions={"sni_hostname": NAME}
        ) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        events = parse(response)
        first = next(events)
        state = proxy.sent("GET", f"/v1/jobs/{job}").json()["state"]
        assert state in ("queued", "running"), "an event is held back by nothing"
        hold.unlink()
        names = [first.name, *(event.name for event in events)]
    assert names[-1] == "done"


def test_large_upload_passes_reverse_proxy_without_being_stored(proxy: Proxy) -> None:
    before = {path for path in proxy.folder.rglob("*") if path.is_file()}
    sent = proxy.sent("POST", "/v1/jobs", files={"audio": dense(UPLOAD_MB)})
    assert sent.status_code == 202, sent.text
    after = {path for path in proxy.folder.rglob("*") if path.is_file()}
    assert after == before
    assert proxy.sent("DELETE", f"/v1/jobs/{sent.json()['id']}").status_code < 300


def test_refusal_passes_reverse_proxy_before_upload_ends(proxy: Proxy) -> None:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: audio/wav\r\n"
    answer = b""
    with proxy.raw() as sock:
        sock.sendall(f"{head}Content-Length: {1 << 30}\r\n\r\n".encode())
        for _ in range(1000):  # 16 MB of 1 GB at most; Caddy says it once more has come
            sock.settimeout(PATIENCE_S)
            sock.sendall(bytes(1 << 14))
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(64)
                break
    assert answer.startswith(b"HTTP/1.1 401")


def test_address_that_client_claims_to_a_proxy_gives_it_no_local_rights(proxy: Proxy) -> None:
    local = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}
    sent = proxy.sent("POST", "/transcribe", json={"audio_path": "/etc/hostname"}, headers=local)
    assert (sent.status_code, sent.json()["code"]) == (403, "audio_path_forbidden")


def test_page_behind_reverse_proxy_is_allowed_and_a_foreign_one_is_refused(proxy: Proxy) -> None:
    for origin, status in ((f"https://{NAME}", 200), ("https://evil.example", 403)):
        assert proxy.sent("GET", "/v1/jobs", headers={"Origin": origin}).status_code == status


def test_page_behind_reverse_proxy_at_other_port_is_allowed(proxy: Proxy) -> None:
    name = f"{NAME}:{proxy.port}"
    there = {"Host": name, "Origin": f"https://{name}"}
    sent = proxy.sent("GET", "/v1/jobs", headers=there)
    assert sent.status_code == 200, sent.text


def test_refusal_of_page_hints_at_a_proxy_that_drops_the_port_of_host(service: Server) -> None:
    sent = {"Host": NAME, "Origin": f"https://{NAME}:8443", "X-Forwarded-Proto": "https"}
    refused = service.client.get("/v1/jobs", headers=BEARER | sent)
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_not_allowed")
    assert "Host with its port" in refused.json()["hint"]


@pytest.mark.parametrize("path", ["/v1/live", "/v1/realtime", "/api/asr-streaming", "/stream"])
def test_request_without_websocket_upgrade_gets_426_with_a_hint_at_the_proxy(
    path: str, service: Server
) -> None:
    answer = service.client.get(path, headers=BEARER)
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    body = answer.json().get("error", answer.json())
    assert body["code"] == "upgrade_required"
    assert "Upgrade" in answer.text
    assert "nginx" in answer.text


@dataclass(frozen=True)
class Balancer:
    """nginx before two services, with the files of deploy/."""

    proxy: Proxy
    grpc_port: int
    services: Sequence[Server]

    def sessions(self) -> list[int]:
        """How many each service has."""
        return [
            one.client.get("/health", headers=BEARER).json()["active_sessions"]
            for one in self.services
        ]


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    skip_without("nginx")
    folder, port, grpc_port = tmp_path_factory.mktemp("balancer"), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        services = [
            stack.enter_context(
                Server(tmp_path_factory.mktemp("one of two"), grpc_port=0, live_grace=60, **BEHIND)
            )
            for _ in range(2)
        ]
        upstream, grpc = nginx_file("sticky.conf"), nginx_file("grpc.conf")
        for number, one in enumerate(services, start=1):
            there = one.client.get("/health", headers=BEARER).json()["grpc_port"]
            upstream = replaced(upstream, {f"10.0.0.{number}:8765": f"127.0.0.1:{one.port}"})
            grpc = replaced(grpc, {f"10.0.0.{number}:50051": f"127.0.0.1:{there}"})
        server = nginx_file("vibevoice-asr.conf")
        server = replaced(server, {"http://127.0.0.1:8765": "http://vibevoice"})
        ports = {"443": port, "50051": grpc_port}
        command, certificate = nginx_with(folder, ports, "\n".join((upstream, server, grpc)))
        proxy = stack.enter_context(running(command, certificate, folder, port))
        yield Balancer(proxy, grpc_port, services)


def test_balanced_clients_resume_their_session_after_disconnect(balancer: Balancer) -> None:
    left = dict[str, int]()
    for number in range(2, 100):
        host = f"127.0.0.{number}"
        with balancer.proxy.live(host) as live:
            live.send(json.dumps({"type": "begin", "session": f"from-{number}"}))
            assert json.loads(live.recv(PATIENCE_S))["type"] == "began"
            live.send(bytes(3200 * number))
            while json.loads(live.recv(PATIENCE_S)).get("received_samples") != 1600 * number:
                pass
            live.socket.shutdown(socket.SHUT_RDWR)
        left[host] = number
        if number > 5 and all(balancer.sessions()):
            break
    assert all(balancer.sessions())
    assert sum(balancer.sessions()) == len(left)
    for host, number in left.items():
        with balancer.proxy.live(host) as live:
            live.send(json.dumps({"type": "begin", "session": f"from-{number}", "after": 0}))
            assert json.loads(live.recv(PATIENCE_S))["received_samples"] == 1600 * number
    wait_until(lambda: not sum(balancer.sessions()), "all were given back")


def test_python_client_resumes_session_over_balancer_without_loss_of_a_segment(
    balancer: Balancer,
) -> None:
    retry, trust = Retry(attempts=100, first_s=0.01), Trust(balancer.proxy.certificate)
    with network(balancer.proxy.port, 0, *[2600] * 8) as between:
        url = f"https://localhost:{between.port}"
        with (
            Client(url, TOKEN, trust=trust, retry=retry) as client,
            client.live(partials=False, diarize=False) as live,
        ):
            for piece in pieces(talk(*[0.3, 0.2, 0.35] * 3)):
                live.send(piece)
            live.finish()
            events = list(live)
        assert between.connections >= 5
    assert isinstance(events[-1], Summary)
    assert len(events[-1].transcript.segments) == 9


def test_grpc_call_over_balancer_finds_session_that_other_call_created(balancer: Balancer) -> None:
    trust, bearer = balancer.proxy.certificate.read_bytes(), BEARER["Authorization"]
    for number in range(4):
        with GrpcClient(balancer.grpc_port, trust, authorization=bearer) as first:
            first.create(f"call-{number}")
        with GrpcClient(balancer.grpc_port, trust, authorization=bearer) as second:
            said = second.say(f"call-{number}", talk(0.3))
        assert (said.number, len(said.finals)) == ("", 1)


def test_proxy_sends_live_requests_to_live_services_and_rest_to_fronts(
    service: Server, tmp_path: Path
) -> None:
    skip_without("nginx")
    with Server(tmp_path / "front", live_engine="none", **BEHIND) as front:
        block = "\n".join(
            (
                nginx_file("sticky.conf"),
                nginx_file("live-services.conf"),
                replaced(
                    nginx_file("vibevoice-asr.conf"), {"http://127.0.0.1:8765": "http://$service"}
                ),
            )
        )
        there = (("10.0.0.1", service), ("10.0.0.2", service))
        for host, one in (*there, ("10.0.0.11", front), ("10.0.0.12", front)):
            block = replaced(block, {f"{host}:8765": f"127.0.0.1:{one.port}"})
        port = free_port()
        command, certificate = nginx_with(tmp_path, {"443": port}, block)
        with running(command, certificate, tmp_path, port) as proxy:
            test_live_audio_passes_reverse_proxy(proxy)
            for path in ("/v1/realtime?intent=transcription", "/api/asr-streaming"):
                with proxy.live(path=path) as live:
                    assert json.loads(live.recv(PATIENCE_S))["type"] != "error"
            assert proxy.sent("POST", "/v1/live/ticket").status_code == 201
            assert proxy.sent("GET", "/v1/live-not").json()["code"] == "not_found"
            assert proxy.sent("GET", "/v1/talk").json()["hears"]["name"] == "scripted"
            answered = proxy.sent("GET", "/health").json()["instance"]
            assert answered == front.client.get("/health", headers=BEARER).json()["instance"]
