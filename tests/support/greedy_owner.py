"""One owner of a service opens everything that it can: half-sent bodies at every route that reads
one, event streams of a running job, live sessions, and sockets without a request."""

import contextlib
import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx
from service_process import PATIENCE_S
from websockets.sync.client import connect

BODIES, SOCKETS, MOST = 16, 64, 4000
"""Half-sent bodies at each route, sockets without a request, and all of them at the most."""
_FORM = b'--f\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n'


@dataclass(frozen=True, slots=True)
class Operation:
    """A route of the OpenAPI page. ``part``: the recording's part of its form, '' without one;
    ``json``: whether it reads JSON."""

    method: str
    path: str
    part: str = ""
    json: bool = False

    def half_sent(self, authorization: str, job: str = "") -> bytes:
        """A request whose body never ends, or one whose answer nobody reads."""
        path = self.path.replace("{job_id}", job)
        head = f"{self.method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: {authorization}\r\n"
        if self.part:
            head += "Content-Type: multipart/form-data; boundary=f\r\n"
            head += "Content-Length: 1000000\r\n\r\n"
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
    """Opens everything that ``owner`` can, and closes it at the end. ``job``: one of the
    owner's."""

    def __init__(self, owner: Owner, page: Mapping[str, Any], job: str) -> None:
        self._owner, self._page, self._job = owner, page, job
        self._sockets: list[socket.socket] = []
        self._held = contextlib.ExitStack()
        self.refusals = Counter[str]()
        """Codes of what the service did not let it open."""

    def open(self) -> None:
        """All that costs the service nothing but to hold it."""
        reading = [one for one in operations(self._page) if one.part]
        others = [one for one in operations(self._page) if not one.part and one.method != "DELETE"]
        for operation in (*reading, *others):
            for _ in range(BODIES):
                self._send(operation.half_sent(self._owner.authorization, self._job))
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
            for _ in range(4):
                self._send(fields)
        self._read_refusals()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()
        self._held.close()

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
