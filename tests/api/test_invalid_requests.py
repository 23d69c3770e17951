"""Requests that no good client sends: each is told what was wrong with it, and costs little."""

import contextlib
import errno
import gzip
import itertools
import json
import re
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from module_services import service_of_module
from service_process import (
    MB,
    PATIENCE_S,
    Peak,
    Server,
    check_discreet,
    check_problem,
    read_answer,
    wait_until,
)

from sidecar.api.http import error_responses
from sidecar.api.http.middleware import RequestMetrics
from sidecar.observability.metrics import ProtocolMetrics

JSON_TYPE = {"Content-Type": "application/json"}
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=frontier"}


def part(name: str, content: bytes, file_name: str | None = None) -> bytes:
    """One part of a form with the boundary 'frontier'."""
    disposition = f'form-data; name="{name}"' + (f'; filename="{file_name}"' if file_name else "")
    head = f"--frontier\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    return head + content + b"\r\n"


END = b"--frontier--\r\n"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "audio/wav", "application/jsonp", ""],
)
@pytest.mark.parametrize("path", ["/transcribe", "/reload-model"])
def test_body_of_another_content_type_is_refused(
    content_type: str, path: str, server: Server
) -> None:
    response = server.client.post(
        path,
        content=b'{"audio_path": "/etc/hostname", "precision": "int8"}',
        headers={"Content-Type": content_type},
    )
    check_problem(response, 415, "content_type_unsupported")


NO_JSON = {
    "empty": b"",
    "cut": b'{"audio_path": ',
    "single-quotes": b"{'audio_path': '/a'}",
    "array": b'["/a"]',
    "string": b'"/a"',
    "null": b"null",
    "nan": b'{"audio_path": NaN}',
    "infinity": b'{"audio_path": "/a", "x": -Infinity}',
    "deep": b"[" * 60_000,
    "bad-utf-8": b'{"audio_path": "/\xff"}',
    "utf-16": '{"audio_path": "/a"}'.encode("utf-16"),
    "half-a-pair": b'{"audio_path": "/a", "prompt": "\\ud800"}',
    "huge-number": b'{"audio_path": "/a", "x": 1' + b"0" * 9000 + b"}",
}
DEEP_OBJECTS = b'{"a":' * 12_000 + b"1" + b"}" * 12_000


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        *(pytest.param(body, 400, "json_invalid", id=name) for name, body in NO_JSON.items()),
        *(
            pytest.param(
                b'{"audio_path": "%s"}' % (b"a" * size), 413, "json_too_large", id=f"{size}-bytes"
            )
            for size in (70_000, 10_000_000)
        ),
        pytest.param(DEEP_OBJECTS, {400, 413}, {"json_invalid", "json_too_large"}, id="objects"),
    ],
)
def test_invalid_json_body_is_refused(body: bytes, status: int, code: str, server: Server) -> None:
    check_problem(server.client.post("/transcribe", content=body, headers=JSON_TYPE), status, code)


def test_too_large_json_body_without_content_length_returns_413(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"audio_path": "'
        for _ in range(100):
            yield b"a" * 10_000
        yield b'"}'

    response = server.client.post("/transcribe", content=pieces(), headers=JSON_TYPE)
    check_problem(response, 413, "json_too_large")


@pytest.mark.parametrize(
    ("field", "value", "code", "hint"),
    [
        ("precision", "int9", "precision_unknown", "fp16"),
        ("language", "no language", "language_invalid", "'de-CH'"),
        ("diarize", "perhaps", "field_invalid", "true"),
        ("diarization", "best", "field_invalid", "balanced"),
        ("words", "perhaps", "field_invalid", "true"),
    ],
)
def test_invalid_option_is_refused_with_valid_values(
    field: str, value: str, code: str, hint: str, server: Server, voice: bytes
) -> None:
    response = server.post(voice, **{field: value})
    check_problem(response, 422, code)
    assert hint in response.json()["hint"]


@pytest.mark.parametrize(
    ("path", "sent", "hint"),
    [
        ("/transcribe", "audiopath", "Did you mean 'audio_path' by 'audiopath'?"),
        ("/reload-model", "precison", "Did you mean 'precision' by 'precison'?"),
        ("/transcribe", "unlike", "The fields of this request are listed at /docs."),
    ],
)
def test_missing_field_error_suggests_the_right_name_for_a_misspelled_one(
    path: str, sent: str, hint: str, server: Server
) -> None:
    response = server.client.post(path, json={sent: "x"})
    check_problem(response, 422, "field_missing")
    assert response.json()["hint"].startswith(hint)


FILE = part("audio", b"RIFF", "a.wav")
HEADERS = b"".join(b"X-%d: y\r\n" % number for number in range(500))
NO_FORM = {
    "empty": b"",
    "garbage": b"no form at all",
    "other-boundary": b"--elsewhere\r\n\r\n",
    "no-end": FILE,
    "cut": FILE[:-6],
    "cut-head": FILE[:40],
    "bad-header": b"--frontier\r\nno colon\r\n\r\nx\r\n" + END,
    "500-headers": b"--frontier\r\n%b\r\nx\r\n" % HEADERS + END,
}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        *(pytest.param(body, 400, "multipart_invalid", id=name) for name, body in NO_FORM.items()),
        pytest.param(END, 400, {"multipart_invalid", "file_missing"}, id="no-parts"),
        pytest.param(part("precision", b"fp16") + END, 400, "file_missing", id="no-file"),
        pytest.param(FILE * 2 + END, 400, "multiple_files", id="two-files"),
        pytest.param(
            FILE + part("other", b"b", "b.wav") + END, 400, "multiple_files", id="two-names"
        ),
        pytest.param(part("language", b"a" * 20_000) + END, 400, "field_too_long", id="long-field"),
        pytest.param(
            part("a" * 5000, b"a") + END, 400, {"field_too_long", "multipart_invalid"}, id="name"
        ),
        pytest.param(part("f", b"1") * 100 + END, 400, "multipart_too_many_parts", id="100-parts"),
        pytest.param(part("audio", b"", "a.wav") + END, 400, "audio_empty", id="empty-file"),
        pytest.param(part("prompt", b"Z\xfcrich") + END, 422, "field_invalid", id="latin-1"),
    ],
)
def test_broken_form_is_refused_with_the_code_of_its_fault_and_leaves_no_file(
    body: bytes, status: int, code: str, server: Server
) -> None:
    check_problem(server.client.post("/transcribe", content=body, headers=FORM_TYPE), status, code)
    assert not server.leftovers()


WHOLE = part("audio", b"RIFF", "a.wav") + END
BASE64 = WHOLE.replace(b"Content-Disp", b"Content-Transfer-Encoding: base64\r\nContent-Disp")


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (WHOLE.replace(b"\r\n", b"\n"), FORM_TYPE, 400, "LF instead of CRLF"),
        (BASE64, FORM_TYPE, 400, "Content-Transfer-Encoding"),
        (b"x" * 5000, FORM_TYPE, 400, "does not begin with the boundary"),
        (gzip.compress(WHOLE), {**FORM_TYPE, "Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        (gzip.compress(b"{}"), {**JSON_TYPE, "Content-Encoding": "gzip"}, 415, "Content-Encoding"),
        (gzip.compress(b"{}"), {**JSON_TYPE, "Content-Encoding": "br"}, 415, "Content-Encoding"),
    ],
    ids=["lf", "base64", "long-preamble", "gzip-form", "gzip-json", "brotli-json"],
)
def test_form_or_json_in_an_unsupported_encoding_is_refused_naming_the_fault(
    body: bytes, headers: dict[str, str], status: int, said: str, server: Server
) -> None:
    response = server.client.post("/transcribe", content=body, headers=headers)
    check_problem(response, status, {"multipart_invalid", "content_type_unsupported"})
    assert said in response.json()["detail"]


def test_request_with_transfer_encoding_gzip_returns_415(server: Server) -> None:
    with server.raw() as sock:
        sock.sendall((FORM_HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n").encode())
        status, _, body = read_answer(sock)
    assert (status, b"Transfer-Encoding" in body) == (415, True)


@pytest.mark.parametrize("size", [1, 4000])
def test_text_before_the_first_boundary_is_ignored(size: int, server: Server, voice: bytes) -> None:
    """RFC 2046, 5.1.1; and a boundary may arrive in pieces."""
    body = b"-" * size + b"\r\n" + part("audio", voice, "a.wav") + END
    pieces = (body[at : at + 999] for at in range(0, len(body), 999)) if size > 1 else (body,)
    response = server.client.post("/transcribe", content=pieces, headers=FORM_TYPE)
    assert response.status_code == 200, response.text[:500]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; charset=utf-8",
        "multipart/form-data; boundary=" + "b" * 900,
    ],
    ids=["none", "empty", "other-parameter", "endless"],
)
def test_form_without_usable_boundary_is_refused(content_type: str, server: Server) -> None:
    body = part("audio", b"RIFF", "a.wav") + END
    response = server.client.post(
        "/transcribe", content=body, headers={"Content-Type": content_type}
    )
    check_problem(response, 400, "multipart_invalid")


def test_audio_part_of_a_form_may_be_in_any_place_and_without_file_name(
    server: Server, voice: bytes
) -> None:
    option = part("diarize", b"false")
    for body in (
        part("audio", voice, "a.wav") + option + END,
        option + part("audio", voice, "a.wav") + END,
        option + part("audio", voice) + END,
    ):
        response = server.client.post("/transcribe", content=body, headers=FORM_TYPE)
        assert response.status_code == 200, response.text[:500]
        assert response.json()["metadata"]["diarized"] is False


def test_form_field_is_decoded_in_the_charset_of_its_part(server: Server, voice: bytes) -> None:
    text = part("language", "Español".encode("latin-1")).replace(
        b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n\r\n"
    )
    body = text + part("audio", voice, "a.wav") + END
    response = server.client.post("/transcribe", content=body, headers=FORM_TYPE)
    assert response.json()["metadata"]["language"] == "es"


# Uploads beyond the limit, and those that never end.


small_server = service_of_module(max_upload_mb=1, limits={"upload_stall": PATIENCE_S})
"""Takes 1 MB, and waits as long for the rest of it as the test does."""


impatient_server = service_of_module(
    max_upload_mb=1, limits={"upload_stall": 0.2, "body_drain": 0.2}
)
"""Takes 1 MB, and waits a fifth of a second."""


HEAD = "POST /transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\n"
FORM_HEAD = HEAD + "Content-Type: multipart/form-data; boundary=frontier\r\n"


def test_too_large_chunked_upload_is_refused_while_it_is_sent(small_server: Server) -> None:
    """The client sends on until it is answered, however much the kernel's buffers take."""
    small_server.post(b"warm")
    head = part("audio", b"", "a.wav")[:-2]
    begin = (FORM_HEAD + "Transfer-Encoding: chunked\r\n\r\n").encode()
    rest = begin + b"%x\r\n" % len(head) + head + b"\r\n"
    sent = 0
    with Peak(small_server) as peak, small_server.raw() as sock:
        while sock not in select.select([sock], [sock], [])[0]:
            assert sent < 400 * MB
            rest = rest or b"10000\r\n" + bytes(65_536) + b"\r\n"
            count = sock.send(rest)
            rest, sent = rest[count:], sent + count
        status, headers, body = read_answer(sock)
    assert (status, json.loads(body)["code"]) == (413, "upload_too_large")
    assert headers["connection"] == "close"
    assert peak.rss <= 50 * MB
    wait_until(lambda: not small_server.leftovers(), "its spool is gone")


def test_upload_over_limit_returns_413_to_an_http_library(small_server: Server) -> None:
    with Peak(small_server) as peak:
        for size in (1 * MB + 1, 2 * MB, 3 * MB, 8 * MB):
            response = small_server.post(bytes(size))
            check_problem(response, 413, "upload_too_large")
            if size >= 2 * MB:  # refused by what was declared, and unread; else it is counted
                assert response.headers.get("connection") == "close"
    assert peak.rss <= 50 * MB
    assert peak.disk <= 20 * MB
    assert not small_server.leftovers()


def test_upload_of_exactly_the_limit_is_not_refused_as_too_large(small_server: Server) -> None:
    check_problem(small_server.post(b"x" * MB), 415, "audio_format_unsupported")


@pytest.mark.slow_except("application/json")
@pytest.mark.parametrize("head", [FORM_HEAD, HEAD + "Content-Type: application/json\r\n"])
def test_upload_that_stops_sending_returns_408(head: str, impatient_server: Server) -> None:
    with impatient_server.raw() as sock:
        sock.sendall((head + "Content-Length: 1000\r\n\r\n--front").encode())
        status, headers, body = read_answer(sock)
        assert status == 408
        assert json.loads(body)["code"] == "upload_stalled"
        assert headers["connection"] == "close"
    assert not impatient_server.leftovers()


def test_disconnect_during_upload_leaves_no_open_file_or_spool(
    small_server: Server, voice: bytes
) -> None:
    before = small_server.process.num_fds()
    for _ in range(20):
        with small_server.raw() as sock:
            sock.sendall((FORM_HEAD + "Content-Length: 900000\r\n\r\n").encode())
            sock.sendall(part("audio", voice, "a.wav"))
    wait_until(lambda: small_server.process.num_fds() <= before, "the descriptors are closed")
    assert not small_server.leftovers()
    assert small_server.post(voice).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data"])
def test_early_refusal_reaches_a_client_that_still_sends_its_body(
    content_type: str, server: Server
) -> None:
    response = server.client.post(
        "/transcribe", content=bytes(8 * MB), headers={"Content-Type": content_type}
    )
    assert response.status_code in (400, 415), response.text[:500]


UNREAD = {
    "too-large": (HEAD + "Content-Type: multipart/form-data; boundary=frontier\r\n", 413),
    "no-form": (HEAD + "Content-Type: text/plain\r\n", 415),
    "json-too-large": (HEAD + "Content-Type: application/json\r\n", 413),
    "stranger": ("POST /transcribe HTTP/1.1\r\nHost: evil.example\r\n", 403),
    "no-such-address": ("POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n", 404),
    "no-such-method": ("PUT /transcribe HTTP/1.1\r\nHost: 127.0.0.1\r\n", 405),
    "nobody-asked": ("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", 200),
}


def test_body_of_a_refused_request_or_of_a_get_is_not_read_to_its_end(
    impatient_server: Server,
) -> None:
    def send(name: str) -> None:
        head, expected = UNREAD[name]
        sent, size = 0, 400 * MB
        with impatient_server.raw() as sock:
            sock.sendall((head + f"Content-Length: {size}\r\n\r\n").encode())
            status, headers, _ = read_answer(sock)
            assert status == expected
            assert headers["connection"] == "close"
            with contextlib.suppress(OSError):
                while sent < size:
                    sock.sendall(bytes(1 << 16))
                    sent += 1 << 16
        assert sent < 40 * MB

    with ThreadPoolExecutor(len(UNREAD)) as pool:
        sent = {name: pool.submit(send, name) for name in UNREAD}
    assert {name: fault for name in UNREAD if (fault := sent[name].exception())} == {}


@pytest.mark.parametrize("name", UNREAD)
def test_expect_continue_of_a_refused_request_gets_no_100(name: str, small_server: Server) -> None:
    head, expected = UNREAD[name]
    with small_server.raw() as sock:
        sock.sendall((head + f"Expect: 100-continue\r\nContent-Length: {64 * MB}\r\n\r\n").encode())
        status, headers, _ = read_answer(sock)
        assert status == expected
        assert headers["connection"] == "close"
        assert sock.recv(1) == b""


def test_expect_continue_of_a_valid_upload_gets_100_and_then_200(
    small_server: Server, voice: bytes
) -> None:
    body = part("audio", voice, "a.wav") + END
    with small_server.raw() as sock:
        expect = f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall((FORM_HEAD + expect).encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        status, headers, _ = read_answer(sock)
        assert status == 200
        assert "connection" not in headers


# Addresses and methods.

PAGES = "/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/"


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/jobs/x/y", "/..%2f..%2fetc/passwd", "/health/x", "/" + "a" * 5000]
)
def test_unknown_address_returns_404_as_problem(path: str, server: Server) -> None:
    response = server.client.get(path, follow_redirects=False)
    check_problem(response, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/transcribe", "POST"),
        ("PUT", "/transcribe", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("GET", "/reload-model", "POST"),
        ("PUT", "/v1/jobs", "GET"),
        ("PATCH", "/v1/jobs/nothing", "DELETE"),
        ("TRACE", "/health", "GET"),
        *itertools.product(("POST", "OPTIONS", "DELETE"), PAGES, ("GET, HEAD",)),
    ],
)
def test_wrong_method_returns_405_with_the_allowed_ones(
    method: str, path: str, allowed: str, server: Server
) -> None:
    response = server.client.request(method, path)
    check_problem(response, 405, "method_not_allowed")
    assert allowed in response.headers["allow"]


@pytest.mark.parametrize(
    "path", [*PAGES, "/health", "/v1/jobs", "/v1/jobs/x", "/transcribe", "/nothing"]
)
def test_head_answers_like_get_without_a_body(path: str, server: Server) -> None:
    with server.raw() as sock:
        lengths = set()
        for method in ("GET", "HEAD", "HEAD", "GET"):  # on one connection: nothing is left on it
            ask = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            sock.sendall(ask.encode())
            if method == "HEAD":
                raw = sock.recv(1 << 16)
                assert raw.endswith(b"\r\n\r\n")
            else:
                status, headers, _ = read_answer(sock)
                lengths.add(int(headers["content-length"]))
    assert raw.startswith(b"HTTP/1.1 %d " % status)
    said = dict(line.split(": ", 1) for line in raw.decode().lower().split("\r\n")[1:] if line)
    assert said["content-type"] == headers["content-type"]
    if status == 200:
        assert int(said["content-length"]) in lengths  # what is told may have changed
        assert 0 not in lengths


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [(400, 400, "request_invalid"), (404, 404, "not_found"), (408, 408, "upload_stalled"),
     (413, 413, "upload_too_large"), (415, 415, "content_type_unsupported"),
     (418, 400, "request_invalid"), (500, 500, "internal"), (501, 500, "internal")],
)  # fmt: skip
async def test_http_exception_of_the_framework_becomes_a_problem_with_a_stable_code(
    status: int, answered: int, code: str
) -> None:
    app = FastAPI()
    error_responses.install_error_handlers(app)

    @app.get("/")
    async def refused() -> None:
        raise HTTPException(status, "the framework's own words")

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        response = await client.get("/")
    check_problem(response, answered, code)
    assert "the framework's own words" not in response.text


@pytest.mark.parametrize(
    ("method", "error", "status", "code"),
    [
        ("GET", OSError(errno.EMFILE, "too many", "/secret"), 503, "machine_busy"),
        ("GET", RuntimeError("can't start new thread"), 503, "machine_busy"),
        ("POST", OSError(errno.EMFILE, "too many", "/secret"), 500, "internal"),
        ("GET", OSError(errno.EIO, "a disk", "/secret"), 500, "internal"),
        ("GET", ValueError("a bug"), 500, "internal"),
    ],
    ids=["descriptors", "threads", "not_repeatable", "disk", "bug"],
)
async def test_unexpected_error_is_500_internal_or_503_if_a_get_lacks_threads_or_descriptors(
    method: str, error: Exception, status: int, code: str
) -> None:
    app = FastAPI()
    metrics = ProtocolMetrics()
    app.add_middleware(RequestMetrics, metrics=metrics)
    error_responses.install_error_handlers(app)

    @app.api_route("/", methods=["GET", "POST"])
    async def failed() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        check_problem(await client.request(method, "/"), status, code)
    assert metrics.requests.by("status").get(str(status)) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["garbage", "http-0.9", "tls", "200-kB-header", "negative", "smuggling"],
)
def test_bytes_that_are_no_valid_http_get_a_4xx_or_a_closed_connection(
    request_bytes: bytes, server: Server
) -> None:
    with server.raw() as sock:
        answer = b""
        # It may hang up in the middle of what it does not want to hear.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request_bytes)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65_536):
                answer += data
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d ", answer), answer[:200]
    check_discreet(answer.decode("latin-1"))
    assert server.health()["status"] == "ok"


# What gets into the log.


def test_error_response_is_logged_once_with_its_request_id_and_code(server: Server) -> None:
    told = [server.post(b"text"), server.client.get("/nothing"), server.post_path("relative")]
    told.append(server.client.get("/health", headers={"Host": "evil.example"}))
    for answer in told:
        number, code = answer.json()["request_id"], answer.json()["code"]
        lines = wait_until(
            lambda number=number: [line for line in server.log().splitlines() if number in line],
            "it is logged",
        )
        assert len(lines) == 1
        assert code in lines[0]
        assert " - INFO - " in lines[0]
