"""Messages that no client makes: an answer to each, never as a fault of ours, and nothing kept."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import open_descriptors
import psutil
import pytest
from byte_accidents import mutated
from grpc_client import RATE, Client, Ended, ended, sound
from grpc_in_process import Inside
from service_process import MB, until

from sidecar.live.sessions.session import Session
from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk, SessionRequest
from sidecar.service.facade import Service

MESSAGES = int(os.environ.get("VIBEVOICE_FUZZ", "600"))
"""How many are made up; CONTRIBUTING.md says when more of them are."""
GROWTH_MB = 8
"""More than that is not what an allocator keeps for the next message."""
Status = grpc.StatusCode
MAY_BE = {
    Status.OK,
    Status.INVALID_ARGUMENT,
    Status.UNAUTHENTICATED,
    Status.PERMISSION_DENIED,
    Status.ALREADY_EXISTS,
}
WHOLE = SessionRequest(
    session_id="fuzz", attributes={"api_key": "k", "model": "m"}, vad_mode=1, vad_silence=0.4,
    vad_threshold=0.3, require_token=True, language_code="de", task=2, decode_profile=2,
    vad_threshold_override=0.2,
).SerializeToString()  # fmt: skip
NASTY = (
    b"",
    b"\x00",
    b"\x0a\xff\xff\xff\xff\x0f",  # 4 GB follow, it says
    b"\x0b" * 5000,  # groups in groups, and none ends
    b"\xff" * 64,
    b"\x0a\x02\xc3\x28",  # no UTF-8
    b"\x0a" + b"\x80" * 20 + b"\x01",  # a number longer than any
)
"""For either kind of message."""


def wild_request(chance: random.Random) -> bytes:
    """One that can be read, with any values."""
    number = [0.0, -0.0, 0.5, 1.0, 5e-324, 1e308, -1.0, float("nan"), float("inf"), -float("inf")]
    pick = chance.choice
    request = SessionRequest(
        session_id=pick(["", "a", "\x00", "ü" * 256, "a/../b", "x" * 100_000]),
        attributes={
            pick(["decode_profile", "api_key", "", "x"]): pick(
                ["", "accurate", "\n" * 99, "x" * 1000]
            )
        },
        vad_silence=pick(number),
        vad_threshold=pick(number),
        language_code=pick(["", "EN", "zz", "de-AT", "\x00", "-" * 99]),
        require_token=pick([False, True]),
    )
    for field, values in (("vad_mode", 4), ("task", 5), ("decode_profile", 5)):
        beyond = pick([chance.randrange(values), values - 1, 2**31 - 1, -(2**31)])
        setattr(request, field, beyond)
    if pick([False, True]):
        request.vad_threshold_override = pick(number)
    return request.SerializeToString()


def request_of(chance: random.Random) -> bytes:
    """One of any kind."""
    match chance.randrange(10):
        case 0:
            return chance.choice(NASTY)
        case 1 | 2:
            return wild_request(chance)
        case _:
            return mutated(WHOLE, chance)


def chunks_of(session_id: str, token: str, chance: random.Random) -> Iterator[bytes]:
    """Some for a stream, most of them not as they should be, and a last one."""
    for _ in range(chance.randint(1, 3)):
        rate = chance.choice([RATE, RATE, RATE, 0, -1, 7999, 192_000, 2**31 - 1, -(2**31)])
        chunk = AudioChunk(
            pcm16=sound((0.3, chance.choice([0, 0.02, 0.3]))),
            sample_rate=rate,
            session_id=session_id,
            session_token=token,
        ).SerializeToString()
        yield chance.choice([chunk, mutated(chunk, chance), mutated(chunk, chance)])
    if chance.randrange(8) == 0:
        yield chance.choice(NASTY)
    yield AudioChunk(is_final=True, session_id=session_id, session_token=token).SerializeToString()


class Held(NamedTuple):
    """What this process holds, the service in it."""

    tasks: int
    files: int
    sessions: int
    sound: int

    @classmethod
    def by(cls, service: Service, opened: weakref.WeakSet[Session]) -> Held:
        """As it is now, of the sessions that were opened; sound in bytes."""
        gc.collect()
        files = len(open_descriptors.opened())
        return cls(len(asyncio.all_tasks()), files, len(opened), service.live.held.bytes)

    def within(self, before: Held) -> bool:
        """Whether that is no more of anything."""
        return all(now <= then for now, then in zip(self, before, strict=True))


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with Inside(tmp_path, live_delay=0) as inside:
        yield inside


@pytest.fixture
async def client(inside: Inside) -> AsyncIterator[Client]:
    """One of a server that soon forgets who does not come, and of another thread: grpc.aio's own
    says INTERNAL where a stream ends before it has sent all."""
    with Client(await inside.listen(unused_s=1.0)) as client:
        yield client


def talk(client: Client, chance: random.Random, least: int) -> set[Any]:
    """Send that many messages, at least, and tell what came of them."""
    statuses = set()
    sent = 0
    while sent < least:
        sent += 1
        raw = request_of(chance)
        try:
            token = client.call(raw).token
        except grpc.RpcError as error:
            statuses.add(error.code())
            continue
        chunks = list(chunks_of(SessionRequest.FromString(raw).session_id, token, chance))
        statuses.add(ended(client.open(iter(chunks))).status)
        # what was mutated may have been for another session, or for none: then this one still waits
        statuses.add(ended(client.open(iter(chunks[-1:]))).status)
        sent += len(chunks) + 1
    return statuses


def spoken(client: Client) -> Ended:
    """A session as it should be."""
    client.create("after")
    return client.say("after", sound((0.3, 1.0)))


async def at_rest(service: Service, opened: weakref.WeakSet[Session], before: Held) -> Held:
    """What is held once that is no more than ``before``."""
    held = list[Held]()

    def rests() -> bool:
        held[:] = [Held.by(service, opened)]
        return held[0].within(before)

    await until(rests, f"no more is held than {before}")
    return held[0]


@pytest.mark.posix("file descriptors by number")
async def test_random_messages_cause_no_internal_error_and_leave_no_session_task_file_or_audio(
    inside: Inside,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, opened = inside.service, weakref.WeakSet[Session]()
    open_session, ids = service.live.open, set[str]()

    def noted(*arguments: Any, **options: Any) -> Session:
        opened.add(session := open_session(*arguments, **options))
        ids.add(session.id)
        return session

    monkeypatch.setattr(service.live, "open", noted)
    chance = random.Random(14)
    statuses = await asyncio.to_thread(talk, client, chance, MESSAGES // 4)
    most = Held(sys.maxsize, sys.maxsize, 0, 0)
    assert ids, "the sessions of the calls are noted"
    before = await at_rest(service, opened, most)  # all that comes once has come
    memory = psutil.Process().memory_info().rss
    statuses |= await asyncio.to_thread(talk, client, chance, MESSAGES - MESSAGES // 4)
    assert statuses <= MAY_BE
    assert {Status.OK, Status.INVALID_ARGUMENT, Status.UNAUTHENTICATED} <= statuses
    await at_rest(service, opened, before)
    assert (psutil.Process().memory_info().rss - memory) / MB < GROWTH_MB
    while (said := await asyncio.to_thread(spoken, client)).number == "ERR1004":
        pass  # this machine was slower than who is waited for
    assert len(said.finals) == 1
    assert "internal error" not in caplog.text
