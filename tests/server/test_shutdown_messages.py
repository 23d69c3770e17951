"""What clients of every kind hear of a service that is told to stop while they speak or send."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from s2s_client import Page
from scripted_speech import tone
from service_process import PATIENCE_S, StartServer, check_end, read_answer, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

KEY = "0123456789abcdef0123456789abcdef"
HALF = (
    b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    b"Content-Type: multipart/form-data; boundary=X\r\n\r\n--X\r\nContent-Disposition: form-data; "
)


async def speak_on(live: ClientConnection, heard: list[dict[str, Any]]) -> None:
    """Like a microphone, which knows of no end; ``heard`` is what came meanwhile."""

    async def read() -> None:
        with suppress(ConnectionClosed):
            async for message in live:
                if isinstance(message, str):
                    heard.append(json.loads(message))

    reading = asyncio.ensure_future(read())
    while not reading.done():
        try:
            await live.send(tone(0.1))
        except ConnectionClosed:
            break
        await asyncio.sleep(0.1)  # real time: the pace of speech, until the service ends it
    await asyncio.wait({reading}, timeout=PATIENCE_S)


async def test_realtime_clients_get_a_shutdown_close_and_new_ones_503_with_retry_after(
    start_server: StartServer, voice: bytes
) -> None:
    """An event says that something is wrong with them, and is the end to most: the close code says
    what it is, and a status those who come while the service is on its way out."""
    server = start_server(voice_engine="scripted", shutdown_grace=60, scripted_speed=0.02)
    url = f"ws://127.0.0.1:{server.port}/v1/realtime"
    job = server.client.post("/v1/jobs", files={"audio": voice}).json()["id"]
    server.wait_state(job, "running")
    heard: list[list[dict[str, Any]]] = [[], []]
    async with connect(f"{url}?model=gpt-realtime") as talk, connect(url) as transcription:
        await talk.recv()
        await transcription.recv()
        await asyncio.to_thread(server.process.stop)
        for live, said in zip((talk, transcription), heard, strict=True):
            with suppress(ConnectionClosed):
                async for message in live:
                    said.append(json.loads(message))
            assert (live.close_code, live.close_reason) == (1001, "shutting_down")
    assert not [one for said in heard for one in said if one["type"] == "error"]
    for query in ("", "?model=gpt-realtime"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url + query)
        answer = refused.value.response
        assert answer.status_code == 503
        assert json.loads(answer.body)["error"]["code"] == "shutting_down"
        assert int(answer.headers["retry-after"]) > 0
    assert "Traceback" not in server.log()


async def test_clients_get_shutdown_reason_and_live_session_its_summary(
    start_server: StartServer,
) -> None:
    server = start_server(
        fresh=True,  # what is heard at its very end, too
        voice_engine="scripted",
        shutdown_grace="20m",
        limits={"upload_stall": PATIENCE_S},
    )
    url = f"ws://127.0.0.1:{server.port}"
    with server.raw() as upload, server.raw() as openai:
        upload.sendall(HALF % b"/v1/jobs")
        openai.sendall(HALF % b"/v1/audio/transcriptions")
        async with connect(f"{url}/v1/live") as live, Page(server) as page:
            await live.send(json.dumps({"type": "begin"}))
            await page.until("status", state="ready")
            said: list[dict[str, Any]] = []
            listening = asyncio.gather(
                speak_on(live, said), speak_on(page.live, []), return_exceptions=True
            )
            await until(lambda: any(one["type"] == "partial" for one in said))
            await asyncio.to_thread(server.process.stop)
            await listening
            assert said[-1]["type"] == "summary", said[-1]
            assert "shutting_down" in [one["code"] for one in said if one["type"] == "notice"]
            assert said[-1]["transcript"]["segments"]
            assert (page.live.close_code, page.live.close_reason) == (1001, "shutting_down")
        status, _, body = await asyncio.to_thread(read_answer, upload)
        assert (status, json.loads(body)["code"]) == (503, "shutting_down")
        status, _, body = await asyncio.to_thread(read_answer, openai)
        assert (status, json.loads(body)["error"]["code"]) == (503, "shutting_down")
    check_end(await asyncio.to_thread(server.process.wait, PATIENCE_S), server.log())
    assert "ASGI" not in server.log()


async def test_event_stream_of_kept_job_ends_cleanly_at_shutdown(
    start_server: StartServer, voice: bytes, tmp_path: Path
) -> None:
    folders = {"data_dir": tmp_path, "journal_key": KEY, "keep_jobs": "true"}
    server = start_server(shutdown_grace=0.2, scripted_speed=0.01, **folders)
    job = server.client.post("/v1/jobs", files={"audio": voice}).json()["id"]
    server.wait_state(job, "running")
    url = f"{server.client.base_url}/v1/jobs/{job}/events"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client, client.stream("GET", url) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await asyncio.to_thread(server.process.stop)
        assert [line async for line in lines][-1] == ""
    check_end(await asyncio.to_thread(server.process.wait, PATIENCE_S), server.log())


async def test_uploads_of_no_form_get_415_although_a_shutdown_begins_and_no_error_is_logged(
    start_server: StartServer,
) -> None:
    server = start_server(engine="scripted")
    head = b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
    with server.raw() as first, server.raw() as second:
        for upload in (first, second):
            upload.sendall(head + b"Content-Length: 99999999\r\n\r\nand so on")
        await until(lambda: server.log().count("answered content_type_unsupported") == 2)
        await asyncio.to_thread(server.process.stop)
        for upload in (first, second):
            status, _, body = await asyncio.to_thread(read_answer, upload)
            assert (status, json.loads(body)["code"]) == (415, "content_type_unsupported")
        await asyncio.to_thread(server.process.wait, PATIENCE_S)
    assert "ERROR" not in server.log()


async def test_refused_websocket_handshake_logs_its_code_and_no_error(
    start_server: StartServer,
) -> None:
    server = start_server(engine="scripted", token="a-token-of-sixteen")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{server.port}/v1/realtime?intent=transcription")
    assert refused.value.response.status_code == 401
    await asyncio.to_thread(server.process.stop)
    await asyncio.to_thread(server.process.wait, PATIENCE_S)
    assert "token_missing" in server.log()
    assert "ERROR" not in server.log()
