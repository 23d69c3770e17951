"""One owner opens everything it can; what another owner's requests take with and without that. Run
``python -m bench.greedy_owner``.

A fresh service with the scripted engine knows two owners by signed tokens. The greedy one holds
half-sent bodies at every route that reads one, event streams of a running job, live sessions and
sockets without a request, and sends probes that take seconds of a core and edits that take tenths.
The other one sends requests of a few kinds, in rounds, before that and meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
import soundfile
from websockets.sync.client import connect

from bench.serving import machine, median, ours, table, workshop
from sidecar.auth.token_issuing import TokenIssuer

PATIENCE_S = 300.0
BODIES, SOCKETS, MOST = 4, 64, 4000
"""Half-sent bodies at each route, sockets without a request, and all of them at the most."""
PROBES, EDITS = 6, 4
"""Requests that cost much, side by side."""
REFUSED_S = 0.5
"""After a refusal it tries again."""
_FORM = b'--f\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n'


@dataclass(frozen=True, slots=True)
class Operation:
    """A route of the OpenAPI page. ``part``: the recording's part of its form, '' without one;
    ``json``: whether it reads JSON."""

    method: str
    path: str
    part: str = ""
    json: bool = False

    def half_sent(self, authorization: str, job: str = "", size: int = 1_000_000) -> bytes:
        """A request whose body of ``size`` never ends, or one whose answer nobody reads."""
        path = self.path.replace("{job_id}", job)
        head = f"{self.method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: {authorization}\r\n"
        if self.part:
            head += "Content-Type: multipart/form-data; boundary=f\r\n"
            head += f"Content-Length: {size}\r\n\r\n"
            return head.encode() + _FORM % self.part.encode() + bytes(1000)
        if self.json:
            head += "Content-Type: application/json\r\nContent-Length: 60000\r\n"
            return f'{head}\r\n{{"a": "'.encode()
        return f"{head}\r\n".encode()


def operations(page: Mapping[str, Any]) -> Iterator[Operation]:
    """All of an OpenAPI page."""
    for path, methods in page["paths"].items():
        for method, said in methods.items():
            content = said.get("requestBody", {}).get("content", {})
            form = content.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
            part = next((name for name in ("audio", "file") if name in form), "")
            yield Operation(method.upper(), path, part, "application/json" in content)


class Owner:
    """A client with a token, at a service on this machine."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.authorization = port, f"Bearer {token}"
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": self.authorization},
            timeout=PATIENCE_S,
            trust_env=False,
        )

    def submit(self, audio: bytes) -> str:
        """The id of a job."""
        answer = self.http.post("/v1/jobs", files={"audio": ("a", audio)})
        return str(answer.raise_for_status().json()["id"])

    @contextlib.contextmanager
    def live(self) -> Iterator[dict[str, Any]]:
        """A live session, as long as this lasts: what came first, that it began, or why not."""
        with connect(
            f"ws://127.0.0.1:{self.port}/v1/live",
            additional_headers={"Authorization": self.authorization},
            proxy=None,
            open_timeout=PATIENCE_S,
            ping_interval=None,
        ) as link:
            link.send('{"type": "begin"}')
            yield json.loads(link.recv(PATIENCE_S))


class Greedy:
    """Opens everything that ``owner`` can, and closes it at the end. ``done``: a job with a
    transcript; ``running``: one that goes on."""

    def __init__(
        self,
        owner: Owner,
        page: Mapping[str, Any],
        done: str,
        running: str,
        bodies: int = BODIES,
    ) -> None:
        self._owner, self._page, self._bodies = owner, page, bodies
        self._done, self._running = done, running
        self._sockets: list[socket.socket] = []
        self._held = contextlib.ExitStack()
        self._threads: list[threading.Thread] = []
        self._enough = threading.Event()
        self.refusals = Counter[str]()
        """Codes of what the service did not let it open."""
        self.finished = Counter[str]()
        """What it worked on for it, by kind."""

    def open(self) -> None:
        """All that costs the service nothing but to hold it."""
        reading = [one for one in operations(self._page) if one.part]
        others = [one for one in operations(self._page) if not one.part and one.method != "DELETE"]
        for operation in (*reading, *others):
            for _ in range(self._bodies):
                self._send(operation.half_sent(self._owner.authorization, self._running))
        for _ in range(SOCKETS):
            self._send(b"GET /health HTTP/1.1\r\nHost: localh")
        begun = {"type": "began"}
        while begun["type"] == "began":
            begun = self._held.enter_context(self._owner.live())
        self.refusals[str(begun["code"])] += 1
        fields = Operation("POST", "/v1/estimate", json=True).half_sent(self._owner.authorization)
        while len(self._sockets) < MOST:
            answer = self._owner.http.get("/v1/jobs")
            if not answer.is_success:  # of the last bodies, none may have been refused yet
                self.refusals[_code(answer.text)] += 1
                break
            for _ in range(BODIES):
                self._send(fields)
        self._read_refusals()

    def work(self, slow: bytes) -> None:
        """Have it work, again and again; ``slow`` is a recording that takes long to look at."""
        for _ in range(PROBES):
            self._again("estimate", lambda: self._post_estimate(slow))
        for _ in range(EDITS):
            self._again("edit", self._patch)

    def close(self) -> None:
        """Let go of everything."""
        self._enough.set()
        for sock in self._sockets:
            sock.close()
        self._held.close()
        for thread in self._threads:
            thread.join()

    def _send(self, said: bytes) -> None:
        sock = socket.create_connection(("127.0.0.1", self._owner.port), PATIENCE_S)
        sock.sendall(said)
        self._sockets.append(sock)

    def _read_refusals(self) -> None:
        kept = []
        for sock in self._sockets:
            code = _refusal(sock)
            if code is None:
                kept.append(sock)
            else:
                sock.close()
                self.refusals[code] += 1
        self._sockets = kept

    def _again(self, kind: str, work: Callable[[], httpx.Response]) -> None:
        def run() -> None:
            while not self._enough.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    went_well = work().is_success
                    self.finished[kind] += went_well
                    self._enough.wait(0 if went_well else REFUSED_S)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _post_estimate(self, slow: bytes) -> httpx.Response:
        return self._owner.http.post("/v1/estimate", files={"audio": ("a", slow)})

    def _patch(self) -> httpx.Response:
        return self._owner.http.patch(
            f"/v1/jobs/{self._done}/transcript", json={"operations": hard_edit()}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _refusal(sock: socket.socket) -> str | None:
    """The code of a refusal that has come, None while nothing has; '' for an answer that is none,
    after which the connection holds nothing."""
    sock.setblocking(False)
    try:
        begins = sock.recv(12, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except ConnectionError:
        return ""
    if begins == b"HTTP/1.1 200":
        return None  # a stream that goes on, or a connection that is kept
    sock.settimeout(PATIENCE_S)
    response = http.client.HTTPResponse(sock)
    response.begin()
    return _code(response.read().decode()) if response.status >= 400 else ""


def _code(body: str) -> str:
    """The code in the body of an error; '' without one."""
    said = re.search(r'"code": ?"(\w+)"', body)
    return said[1] if said is not None else ""


def hard_edit() -> list[dict[str, Any]]:
    """Operations that take as long as any of their size: lines whose words are alike."""

    def line(other: str) -> str:
        return " ".join(other if at % 2 else "a" for at in range(199))

    texts = (f"x {line('b')} y", f"z {line('c')} w")
    return [{"op": "text", "segment": 0, "text": texts[at % 2]} for at in range(100)]


def slow_flac(hours: float = 4.5) -> bytes:
    """A small recording that takes seconds to look at: silence at 2 kHz."""
    out = io.BytesIO()
    block = np.zeros(1 << 20, np.int16)
    with soundfile.SoundFile(out, "w", 2000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(int(hours * 3600 * 2000 / len(block))):
            file.write(block)
    return out.getvalue()


def wav(seconds: float) -> bytes:
    """A recording, as the scripted engine takes any."""
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(-9000, 9000, int(16_000 * seconds), np.int16)
    soundfile.write(out, noise, 16_000, "PCM_16", format="WAV")
    return out.getvalue()


def flac(seconds: float) -> bytes:
    """A recording that a process has to look at."""
    out = io.BytesIO()
    soundfile.write(out, np.zeros(int(16_000 * seconds), np.int16), 16_000, format="FLAC")
    return out.getvalue()


def kinds(owner: Owner) -> dict[str, Callable[[], bool]]:
    """What the other owner does; each says whether it went well."""
    voice, small = wav(1), flac(1)

    def job() -> bool:
        answer = owner.http.post("/v1/jobs", files={"audio": ("a", voice)})
        if answer.status_code == 202:
            owner.http.delete(f"/v1/jobs/{answer.json()['id']}")
        return answer.status_code == 202

    def live() -> bool:
        with owner.live() as said:
            return bool(said["type"] == "began")

    return {
        "GET /health": lambda: owner.http.get("/health").is_success,
        "GET /v1/jobs": lambda: owner.http.get("/v1/jobs").is_success,
        "POST /v1/jobs": job,
        "POST /v1/estimate (flac)": lambda: (
            owner.http.post("/v1/estimate", files={"audio": ("a", small)}).is_success
        ),
        "/v1/live": live,
    }


def timed(does: Mapping[str, Callable[[], bool]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in rounds; infinity where it was refused."""
    taken: dict[str, list[float]] = {name: [] for name in does}
    for _ in range(rounds):
        for name, do in does.items():
            begun = time.perf_counter()
            went_well = do()
            taken[name].append(time.perf_counter() - begun if went_well else float("inf"))
    return taken


def settings(issuer: TokenIssuer) -> dict[str, str]:
    """Of a service that others reach, but for how often one may ask."""
    assert issuer.keys.public.is_dir()
    return {
        "engine": "scripted",
        "token_keys": str(issuer.keys.public),
        "forwarded_allow_ips": "127.0.0.1",
        "limit_requests": "0",
        "test_limits": json.dumps({"upload_stall": PATIENCE_S, "request_deadline": PATIENCE_S}),
        "live_delay": "0",
    }


def main() -> None:
    """Measure it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="of requests in each phase")
    parser.add_argument("--phases", type=int, default=3, help="without and with the greedy one")
    given = parser.parse_args()
    print(machine())
    with workshop() as folder:
        issuer = TokenIssuer(folder / "tokens")
        tokens = [issuer.create(name)[0] for name in ("greedy", "other")]
        env = {"SCRIPTED_SPEED": "1"}
        with ours(folder, **settings(issuer), **env) as server:
            greedy, other = (Owner(server.port, token) for token in tokens)
            report(greedy, other, given.rounds, given.phases)


def report(greedy: Owner, other: Owner, rounds: int, phases: int) -> None:
    """Print the table: both sides in turns."""
    page = greedy.http.get("/openapi.json").raise_for_status().json()
    done = greedy.submit(wav(2))
    while greedy.http.get(f"/v1/jobs/{done}").json()["state"] != "done":
        time.sleep(0.1)
    running = greedy.submit(wav(1800))
    does, slow = kinds(other), slow_flac()
    timed(does, 2)  # processes start
    alone, beside = ({name: list[float]() for name in does} for _ in range(2))
    for _ in range(phases):
        _add(alone, timed(does, rounds))
        with Greedy(greedy, page, done, running) as load:
            load.work(slow)
            load.open()
            _add(beside, timed(does, rounds))
            said = f"refused: {dict(load.refusals)}; worked on meanwhile: {dict(load.finished)}"
    print(said)
    rows = [
        (name, *(f"{1000 * one:.1f}" for one in _figures(alone[name], beside[name])))
        for name in does
    ]
    headers = ("ms", "alone p50", "alone p95", "beside p50", "beside p95")
    table(f"another owner's requests, {phases} x {rounds}", headers, rows)


def _add(to: dict[str, list[float]], taken: Mapping[str, list[float]]) -> None:
    for name, seconds in taken.items():
        to[name] += seconds


def _figures(*sides: list[float]) -> Iterator[float]:
    for taken in sides:
        yield median(taken)
        yield sorted(taken)[int(0.95 * (len(taken) - 1))]


if __name__ == "__main__":
    main()
