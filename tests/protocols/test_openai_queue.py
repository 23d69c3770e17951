"""A full queue and clients that give up, by OpenAI's API: its package with its defaults."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from recordings import long, wav
from service_process import PATIENCE_S, Server, wait_until

SECOND = b"\1\0" * 16_000
CLIENTS, QUEUE = 32, 6


def sdk(server: Server, **settings: Any) -> openai.OpenAI:
    """OpenAI's client with its defaults: it sends twice more what fails."""
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", **settings)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service at eight times real time, in whose queue few find a place."""
    home = tmp_path_factory.mktemp("busy")
    with Server(home, scripted_speed=8, queue_limit=QUEUE, batch=1) as running:
        yield running


def filled(server: Server, audio: bytes) -> list[str]:
    """Jobs that fill the queue behind one that runs."""
    first = server.submit(audio)
    server.wait_state(first, "running", "done")
    return [first, *(server.submit(audio) for _ in range(QUEUE))]


@pytest.mark.slow
def test_all_of_a_crowd_succeed_who_wait_as_they_are_told(busy: Server) -> None:
    """Five times what the queue takes, at once: half a second of work each. With five seconds for
    everybody, those who came too often were lost."""
    clip = ("clip.wav", wav(SECOND * 4))

    def ask(_: int) -> str:
        return sdk(busy).audio.transcriptions.create(file=clip, model="whisper-1").text

    with ThreadPoolExecutor(CLIENTS) as threads:
        said = list(threads.map(ask, range(CLIENTS)))
    assert all(len(text.split()) == 4 for text in said)


def test_each_that_is_refused_is_told_a_later_time_and_none_more_than_a_minute(
    busy: Server,
) -> None:
    ids = filled(busy, long(160))
    try:
        answers = [busy.client.post("/v1/audio/transcriptions", content=b"x") for _ in range(30)]
    finally:
        for one in ids:
            busy.cancel(one)
    assert {answer.status_code for answer in answers} == {429}
    told = [int(answer.headers["retry-after"]) for answer in answers]
    assert told == sorted(told)
    assert told[0] < told[-1] == 60


def test_a_client_that_comes_again_as_it_was_told_waits_for_its_place(busy: Server) -> None:
    """And is not refused once more, if there is one before long."""
    ids = filled(busy, wav(SECOND * 8))
    answer = busy.client.post(
        "/v1/audio/transcriptions",
        files={"file": ("clip.wav", wav(SECOND))},
        headers={"x-stainless-retry-count": "1"},
    )
    assert answer.status_code == 200, answer.text
    for one in ids:
        busy.wait_state(one, "done")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of it behind unread bytes")
def test_a_client_that_hangs_up_while_it_waits_for_a_place_waits_no_more(
    start_server: Callable[..., Server],
) -> None:
    """Four wait, whose recordings are not read; once they have gone, another may wait."""
    held = {"openai_held": 3600}
    server = start_server(scripted_speed=1, queue_limit=QUEUE, batch=1, limits=held)
    filled(server, long(600))
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        "x-stainless-retry-count: 1\r\nContent-Length: 100000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )

    def waits() -> bool:
        try:
            answer = server.client.post(
                "/v1/audio/transcriptions",
                files={"file": ("clip.wav", wav(SECOND))},
                headers={"x-stainless-retry-count": "1"},
                timeout=2.0,
            )
        except httpx.TimeoutException:
            return True
        assert answer.status_code == 429
        return False

    def one_more() -> None:
        client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        client.sendall(head.encode())
        # More than the server reads ahead, and less than its socket holds: behind a full one
        # the end of the connection does not arrive.
        client.sendall(bytes(100_000))

    with ExitStack() as clients:
        for _ in range(4):
            one_more()
        # If it came before the last of them, that one was refused.
        wait_until(lambda: not waits() or one_more(), PATIENCE_S, "as many wait as may")
    wait_until(waits, PATIENCE_S, "there is room for one that waits")


def test_a_job_whose_client_gave_up_has_not_the_engine_that_others_wait_for(
    start_server: Callable[..., Server],
) -> None:
    """Its retry may take it over for half a minute (here an hour), unless others wait."""
    server = start_server(scripted_speed=1, batch=1, limits={"openai_retry_grace": 3600})
    with pytest.raises(openai.APITimeoutError):
        sdk(server, timeout=2.0, max_retries=0).audio.transcriptions.create(
            file=("clip.wav", long(3600)), model="whisper-1"
        )
    time.sleep(5)
    assert server.health()["engine_state"] == "busy", "it is kept where nobody waits"
    assert server.post(wav(SECOND)).status_code == 200
