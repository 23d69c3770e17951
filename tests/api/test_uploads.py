"""Uploads on their way: how many, how much, and on whose threads."""

import asyncio
import json
import os
import select
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from recordings import Studio
from service_process import MB, PATIENCE_S, StartServer, read_answer, wait_until

from sidecar.audio import audio_source, upload_spool
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config.settings import Settings
from sidecar.server.app import create_app, create_service
from sidecar.workers import audio_probe

HEAD = "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=f\r\n"
FORM = b'--f\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
END = b"\r\n--f--\r\n"


def head(size: int, path: str = "/transcribe") -> bytes:
    return f"{HEAD.format(path)}Content-Length: {size}\r\n\r\n".encode()


def test_uploads_over_the_queue_limit_get_503_unread_and_those_begun_are_transcribed(
    start_server: StartServer, voice: bytes
) -> None:
    server = start_server(queue_limit=2, limits={"upload_stall": PATIENCE_S})
    server.post(voice)
    audio = voice + bytes(1_900_000)
    body = FORM + audio + END
    service = psutil.Process(server.process.pid)
    before = service.memory_info().rss
    begun = [server.raw() for _ in range(3)]  # one would run, two would wait
    for sock in begun:
        sock.sendall(head(len(body)) + body[:-1])
    wait_until(lambda: service.memory_info().rss > before + MB, "they are on their way")
    for _ in range(100):
        with server.raw() as sock:
            sock.sendall(head(len(body)))  # not a byte of it is asked for
            status, headers, content = read_answer(sock)
            assert (status, json.loads(content)["code"]) == (503, "queue_full")
            assert int(headers["retry-after"]) >= 1
            assert headers["connection"] == "close"
    assert service.memory_info().rss - before < 40 * MB
    for sock in begun:
        sock.sendall(body[-1:])
        assert read_answer(sock)[0] == 200
        sock.close()
    assert server.post(voice).status_code == 200


def test_owner_can_upload_while_another_fills_the_upload_room_whose_upload_is_then_refused(
    start_server: StartServer, voice: bytes, tmp_path: Path
) -> None:
    issuer = TokenIssuer(tmp_path / "tokens")
    ada, bob = (f"Authorization: Bearer {issuer.create(name)[0]}" for name in ("ada", "bob"))
    server = start_server(
        queue_limit=8,
        upload_room_mb=6,
        limits={"upload_stall": PATIENCE_S},
        token_keys=issuer.keys.public,
    )

    def begun(size: int) -> socket.socket:
        sock = server.raw()
        said = head(size, "/v1/estimate").replace(b"\r\n", f"\r\n{ada}\r\n".encode(), 1)
        sock.sendall(said + FORM + voice)
        return sock

    first = begun(64 * MB)
    first.sendall(bytes(8 * MB))  # one alone may have more
    wait_until(lambda: server.disk() >= 6 * MB, "the room is full")
    with begun(1000) as second:
        status, headers, content = read_answer(second)
        assert (status, json.loads(content)["code"]) == (503, "uploads_full")
        assert headers["connection"] == "close"
    name, _, value = bob.partition(": ")
    for path in ("/v1/estimate", "/v1/jobs"):
        answer = server.client.post(path, files={"audio": voice}, headers={name: value})
        assert answer.is_success, answer.text
    with server.raw() as other:
        said = head(4 * MB, "/v1/estimate").replace(b"\r\n", f"\r\n{bob}\r\n".encode(), 1)
        other.sendall(said + FORM + voice + bytes(2 * MB))
        while not select.select([first], [], [], 0.01)[0]:
            first.sendall(bytes(1000))  # it has more than an equal share of what is full
        status, _, content = read_answer(first)
        assert (status, json.loads(content)["code"]) == (503, "uploads_full")
    first.close()
    wait_until(lambda: server.disk() == 0, "nothing is left")


async def post(app: FastAPI, kind: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Send a body in pieces, in this process."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    headers = {"Content-Type": kind, "Content-Length": str(len(body))}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/transcribe", content=pieces(), headers=headers)
    return answer.status_code, answer.json()


@pytest.mark.posix("files of POSIX")
async def test_audio_paths_on_a_hanging_disk_do_not_block_an_upload(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, studio: Studio
) -> None:
    release, hanging = threading.Event(), threading.Semaphore(0)
    really_open = os.open

    def hang(path: str, *rest: Any) -> int:
        if str(path).startswith("/dead-mount"):
            hanging.release()
            release.wait()
        return really_open(path, *rest)

    monkeypatch.setattr(audio_source.os, "open", hang)
    service = create_service(Settings(engine="scripted", data_dir=tmp_path, spool_dir=tmp_path))
    service.audio_probe.open_s = PATIENCE_S  # none is given up meanwhile
    app = create_app(service.settings, service)
    large = FORM + studio.voice.read_bytes() + bytes(4 * MB) + END
    named = json.dumps({"audio_path": "/dead-mount/a.wav"}).encode()
    async with app.router.lifespan_context(app):
        try:
            hung = [asyncio.ensure_future(post(app, "application/json", named)) for _ in range(40)]
            for _ in range(audio_probe.PARALLEL_OPENS):
                assert await asyncio.to_thread(hanging.acquire, True, PATIENCE_S)
            status, _ = await post(app, "multipart/form-data; boundary=f", large)
            assert status == 200
            assert not any(one.done() for one in hung)
        finally:
            release.set()
        assert {status for status, _ in await asyncio.gather(*hung)} == {404}


async def test_audio_path_on_a_hanging_disk_returns_404(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = threading.Event()
    monkeypatch.setattr(audio_probe, "open_recording_file", lambda *_: release.wait())
    service = create_service(Settings(engine="scripted", data_dir=tmp_path))
    service.audio_probe.open_s = 0.05
    app = create_app(service.settings, service)
    async with app.router.lifespan_context(app):
        try:
            status, body = await post(app, "application/json", b'{"audio_path": "/dead/a.wav"}')
        finally:
            release.set()
    assert (status, body["code"]) == (404, "audio_path_not_found")
    assert "does not answer" in body["detail"]


async def test_large_upload_is_not_written_in_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, studio: Studio
) -> None:
    writers = []
    really_write = upload_spool.write_all

    def write(file: Any, data: bytearray) -> None:
        writers.append((threading.current_thread() is threading.main_thread(), len(data)))
        really_write(file, data)

    monkeypatch.setattr(upload_spool, "write_all", write)
    app = create_app(Settings(engine="scripted", data_dir=tmp_path, spool_dir=tmp_path))
    async with app.router.lifespan_context(app):
        for more in (0, 5 * MB):  # in memory, and on the disk
            form = FORM + studio.voice.read_bytes() + bytes(more) + END
            assert (await post(app, "multipart/form-data; boundary=f", form))[0] == 200
    (_, small), *large = writers
    assert small < 2 * MB
    assert sum(size for _, size in large) > 5 * MB
    assert not any(in_loop for in_loop, _ in large)
