"""Every number and status that a call over gRPC can end with, provoked, and the table of them."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_client import Ended, sound
from grpc_in_process import Caller, Inside, Named, access_control, ended
from service_process import REPOSITORY

from sidecar import errors
from sidecar.auth.authentication import Authenticator
from sidecar.errors import ErrorKind, all_errors
from sidecar.plugins.grpc_stt import statuses
from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk
from sidecar.service.facade import Service

Status = grpc.StatusCode
Case = tuple[str, Status, Ended]
TOKEN = "a token that nobody guesses"
HOUR_S = 3600.0
CODES = {error.code for error in all_errors()}
NOT_HERE = {("ERR1011", "RESOURCE_EXHAUSTED"), ("ERR2001", "DEADLINE_EXCEEDED")}
"""Errors of other wires; docs/grpc-wire.md says why none of them comes here."""


async def of_requests(caller: Caller) -> AsyncIterator[Case]:
    """What a request for a session can be refused for."""
    yield "ERR1001", Status.INVALID_ARGUMENT, await caller.create("")
    await caller.create("there")
    yield "ERR1002", Status.ALREADY_EXISTS, await caller.create("there")
    for field, value in (
        ("vad_threshold", -0.1),
        ("vad_threshold_override", 1.5),
        ("vad_threshold", float("nan")),
    ):
        yield "ERR1003", Status.INVALID_ARGUMENT, await caller.create(**{field: value})
    keyless = await caller.create(attributes={"api-key-required": "yes"})
    yield "ERR1009", Status.UNAUTHENTICATED, keyless
    yield "ERR1010", Status.INVALID_ARGUMENT, await caller.create(vad_silence=float("inf"))
    yield "ERR1010", Status.INVALID_ARGUMENT, await caller.create(attributes={"a": "x" * 70_000})
    yield "ERR1010", Status.INVALID_ARGUMENT, await caller.create("x" * 300)


async def of_chunks(caller: Caller) -> AsyncIterator[Case]:
    """What a stream can be refused for."""
    yield "ERR1004", Status.UNAUTHENTICATED, await caller.stream(session_id="nobody")
    yield "ERR1004", Status.UNAUTHENTICATED, await caller.stream()
    await caller.create("secret", require_token=True)
    guess = AudioChunk(session_id="secret", session_token="guess")
    yield "ERR1005", Status.PERMISSION_DENIED, await caller.stream(guess)
    for number, fields in (
        ("ERR1007", {"pcm16": bytes(400_000)}),
        ("ERR3002", {"pcm16": bytes(4), "sample_rate": 5}),
    ):
        await caller.create("wrong")
        wrong = await caller.stream(AudioChunk(**fields), session_id="wrong")  # type: ignore[arg-type]
        yield number, Status.INVALID_ARGUMENT, wrong
    await caller.create("large")
    large = AudioChunk(pcm16=bytes(9 << 20), is_final=True)
    yield "", Status.RESOURCE_EXHAUSTED, await caller.stream(large, session_id="large")


async def of_callers(inside: Inside) -> AsyncIterator[Case]:
    """What a caller can be sent away for."""
    by_token = access_control(Authenticator(TOKEN))
    yield "ERR1009", Status.UNAUTHENTICATED, await (await inside.caller(by_token)).create()
    wrong = await inside.caller(by_token, authorization="Bearer guess")
    yield "ERR1014", Status.UNAUTHENTICATED, await wrong.create()
    often = await inside.caller(access_control(Named(), per_minute=1), authorization="Bearer me")
    await often.create("often")
    yield "ERR1012", Status.RESOURCE_EXHAUSTED, await often.create("often")
    for name, value in (("origin", "https://else.where"), ("x_forwarded_for", "192.0.2.1")):
        yield (
            "ERR4008",
            Status.PERMISSION_DENIED,
            await (await inside.caller(**{name: value})).create(),
        )


async def of_time(caller: Caller, service: Service) -> AsyncIterator[Case]:
    """What a stream ends with by the clock, which is set forward."""
    ends = asyncio.Event()

    async def then_nothing(*chunks: AudioChunk) -> AsyncIterator[AudioChunk]:
        for chunk in chunks:
            yield chunk
        await ends.wait()

    for ahead_s in (0.1 * HOUR_S, 2 * HOUR_S):
        await caller.create("idle")
        stream = caller.open(then_nothing(AudioChunk(pcm16=sound((0.3, 1.0)))), "idle")
        await anext(aiter(stream))
        with pytest.MonkeyPatch.context() as patch:
            # real time: what this machine takes is little beside the hours that are added
            patch.setattr(service.live, "now", lambda ahead_s=ahead_s: time.monotonic() + ahead_s)
            yield "ERR1006", Status.DEADLINE_EXCEEDED, await ended(stream)
    ends.set()


async def of_ours(caller: Caller, inside: Inside) -> AsyncIterator[Case]:
    """What is a fault of ours, or lacks here."""

    service = inside.service

    def broken(*_: object) -> None:
        raise RuntimeError("broken for a test")

    def failed(*_: object) -> None:
        raise errors.EngineFailed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service.live, "open", broken)
        yield "ERR3001", Status.UNKNOWN, await caller.create()
    await caller.create("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sidecar.plugins.grpc_stt.session.GrpcStream.run", broken)
        yield "ERR3002", Status.UNKNOWN, await caller.stream(AudioChunk(), session_id="broken")
    await caller.create("failed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sidecar.plugins.grpc_stt.session.GrpcStream.run", failed)
        yield "ERR2002", Status.INTERNAL, await caller.stream(AudioChunk(), session_id="failed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service.live, "spec", None)
        yield "ERR2002", Status.FAILED_PRECONDITION, await caller.create()
    await caller.create("late")
    for listener in inside.listeners:
        listener.stop_accepting()
    yield "ERR1013", Status.UNAVAILABLE, await caller.create()
    yield "ERR1013", Status.UNAVAILABLE, await caller.stream(AudioChunk(), session_id="late")


async def of_little_room(caller: Caller) -> AsyncIterator[Case]:
    """Where an owner may have one session, and the engine does not load."""
    await caller.create("loads")
    more = await caller.create("more")
    assert more.trailing["error-code"] == "live_limited"
    yield "ERR1008", Status.RESOURCE_EXHAUSTED, more
    failed = await caller.stream(AudioChunk(pcm16=sound((0.3, 1.0))), session_id="loads")
    yield "ERR2002", Status.UNAVAILABLE, failed


def documented() -> Iterator[tuple[str, str]]:
    """The table of docs/grpc-wire.md."""
    for line in (REPOSITORY / "docs/grpc-wire.md").read_text("utf-8").splitlines():
        if row := re.match(r"\| (ERR\d{4}) \| ([A-Z_; ]+) \|", line):
            for status in row[2].split(";"):
                yield row[1], status.strip()


async def test_every_error_has_the_number_and_status_of_the_docs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: set[tuple[str, str]] = set()

    async def check(cases: AsyncIterator[Case]) -> None:
        async for number, status, found in cases:
            assert (found.number, found.status) == (number, status), (number, found)
            if number:
                seen.add((number, status.name))
                assert found.trailing["error-code"] in CODES, found
                assert found.trailing["error-hint"], found
            if number == "ERR1012":
                assert int(found.trailing["retry-after"]) > 0

    async with Inside(tmp_path / "one") as inside:
        caller = await inside.caller()
        await check(of_requests(caller))
        await check(of_chunks(caller))
        await check(of_callers(inside))
        nothing = caller.channel.unary_unary("/stt.STTBackend/Nothing")(b"")
        assert await nothing.code() is Status.UNIMPLEMENTED
        await check(of_time(caller, inside.service))
        assert "internal error" not in caplog.text
        await check(of_ours(caller, inside))
        assert caplog.text.count("internal error") == 2
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "fp32")
    async with Inside(tmp_path / "two", live_sessions_per_owner=1) as inside:
        await check(of_little_room(await inside.caller()))
    assert seen == set(documented())
    said = [statuses.error_status(error()) for error in all_errors()]
    assert {(one.number, one.status.name) for one in said} - seen == NOT_HERE


def test_temporary_errors_have_a_status_that_clients_retry() -> None:
    assert set(statuses.STATUS_BY_KIND) == set(ErrorKind)
    may_pass = Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED
    for error in all_errors():
        said = statuses.error_status(error())
        status = said.status
        assert said.number.startswith("ERR")
        assert said.message
        if error.kind in (
            ErrorKind.BUSY,
            ErrorKind.LIMITED,
            ErrorKind.STORAGE_FULL,
            ErrorKind.WONT_FIT,
        ):
            assert status in may_pass, error.code
        else:
            assert status not in may_pass, error.code
        assert (status is Status.INTERNAL) <= (
            error.kind in (ErrorKind.FAILED, ErrorKind.CANCELLED)
        )
