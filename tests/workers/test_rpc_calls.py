"""Several calls on one line: each at its own pace, each with an end of its own."""

import asyncio
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from moonshine_voice import get_assets_path
from service_process import PATIENCE_S, settle, stand_still, until, wait_until

from sidecar import errors
from sidecar.engines import scripted_engine
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions
from sidecar.workers import channel
from sidecar.workers.channel import (
    CREDIT_WINDOW_BYTES,
    FRAME_OVERHEAD_BYTES,
    Credit,
    encode_frame,
)
from sidecar.workers.rpc_client import MAX_UNREAD_BYTES, RpcCall, RpcCallEnded, RpcConnection
from sidecar.workers.rpc_server import CallCancelled, RpcRequest, RpcSender
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerProcess

CLIP = Path(get_assets_path()) / "beckett.wav"
PIECE = b"s" * (1 << 16)


class Peer:
    """The other end of a line: what is asked there, for tests to answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.reader = sock, channel.ChannelReader(sock)
        self.voice = RpcSender(sock)
        self.asked: dict[int, RpcRequest] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(channel.ChannelClosed):
            while True:
                frame, _ = self.reader.receive()
                if "ping" in frame.message:
                    self.voice.send({"pong": True, "reading_s": 0.0})
                    continue
                number = frame.message["call"]
                if "operation" in frame.message:
                    self.asked[number] = RpcRequest(number, frame.message, [], self.voice)
                else:
                    self.asked[number].receive(frame)

    def begun(self, number: int) -> RpcRequest:
        wait_until(lambda: number in self.asked, "it is asked")
        return self.asked[number]


class Ends:
    """Both ends of a line, and calls that were begun on it."""

    def __init__(self, line: RpcConnection, ours: socket.socket, peer: Peer) -> None:
        self.line, self.ours, self.peer = line, ours, peer

    async def begun(self, operation: str = "anything") -> tuple[RpcCall, RpcRequest]:
        call = await self.line.begin(operation, (), {})
        return call, await in_thread(self.peer.begun, call.number)


@pytest.fixture
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair()
    most = getattr(request, "param", MAX_UNREAD_BYTES)
    line = RpcConnection(ours, os.getpid(), lambda: None, max_unread_bytes=most)
    await line.connect()
    yield Ends(line, ours, Peer(theirs))
    line.close()
    theirs.close()


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


async def read(call: RpcCall) -> list[Any]:
    return [answer["n"] async for answer, _ in call.answers()]


def answer_all_but_the_end(asked: RpcRequest, count: int) -> None:
    for number in range(count):
        asked.answer({"n": number}, PIECE)


def answer_all(asked: RpcRequest, count: int) -> None:
    answer_all_but_the_end(asked, count)
    asked.end(done=True)


async def test_concurrent_calls_get_their_own_answers_in_order(ends: Ends) -> None:
    begun = [await ends.begun() for _ in range(3)]
    for number in range(20):
        for _, asked in begun:
            asked.answer({"n": [asked.number, number]})
    for call, asked in reversed(begun):
        asked.end(done=True)
        assert await read(call) == [[call.number, number] for number in range(20)]


async def test_unread_call_is_held_back_and_blocks_no_other_call(ends: Ends) -> None:
    (unread, much), (call, asked) = await ends.begun(), await ends.begun()
    flood = asyncio.ensure_future(in_thread(answer_all, much, 100))
    others = asyncio.ensure_future(in_thread(answer_all, asked, 100))
    assert await read(call) == list(range(100)), "six windows of it"
    await others
    assert not flood.done()
    assert unread.unread_bytes <= CREDIT_WINDOW_BYTES
    assert await read(unread) == list(range(100))
    await flood


@pytest.mark.parametrize(
    ("text", "raw"), [("", PIECE), ("", b"12"), ("x" * (1 << 20), b"")], ids=["64K", "tiny", "text"]
)
async def test_input_is_sent_no_faster_than_worker_reads(ends: Ends, text: str, raw: bytes) -> None:
    """Fields and memory of frames count, too."""
    call, asked = await ends.begun()
    frame = encode_frame({"call": 1, "told": {"n": 1000, "text": text}}, raw)
    window = max(1, CREDIT_WINDOW_BYTES // (len(frame) + FRAME_OVERHEAD_BYTES))
    sent, count = 0, 2 * window + 2

    async def speak() -> None:
        nonlocal sent
        for number in range(1000, 1000 + count):
            await call.send({"n": number, "text": text}, raw)
            sent += 1

    speaking = asyncio.ensure_future(speak())
    await until(lambda: sent >= window)
    await ends.begun()  # sent and heard behind what was sent
    assert sent == window
    heard: list[tuple[int, int]] = []

    def takes_all() -> bool:
        heard.extend((message["n"], len(raw)) for message, raw in asked.received())
        asked.acknowledge()
        return len(heard) == count

    await until(takes_all)
    assert heard == [(number, len(raw)) for number in range(1000, 1000 + count)]
    await speaking


async def test_cancelled_call_ends_and_others_go_on(ends: Ends) -> None:
    (one, cancelled), (other, asked) = await ends.begun(), await ends.begun()
    waits_for_a_reader = asyncio.ensure_future(in_thread(answer_all, cancelled, 100))
    await until(lambda: one.unread_bytes > CREDIT_WINDOW_BYTES - 2 * len(PIECE), "there is no room")
    one.cancel()
    with pytest.raises(CallCancelled):
        await waits_for_a_reader
    assert cancelled.is_cancelled()
    assert not asked.is_cancelled()
    answering = asyncio.ensure_future(in_thread(answer_all, asked, 40))
    assert await read(other) == list(range(40))
    await answering


async def test_answers_of_forgotten_call_are_dropped(ends: Ends) -> None:
    call, asked = await ends.begun()
    ends.line.forget(call)
    asked.answer({"n": 1})
    asked.end(done=True)
    other, answering = await ends.begun()
    answering.end(done=True)
    assert await read(other) == []


async def test_closed_connection_ends_calls_after_received_answers(ends: Ends) -> None:
    (one, first), (_, _) = await ends.begun(), await ends.begun()
    first.answer({"n": 1})
    with suppress(OSError):
        ends.peer.sock.shutdown(socket.SHUT_RDWR)
    answers = one.answers()
    assert (await anext(answers))[0] == {"n": 1}
    with pytest.raises(channel.ChannelClosed):
        await anext(answers)
    with pytest.raises(channel.ChannelClosed):
        await one.send({}, PIECE)
    assert not await ends.line.answers_ping(PATIENCE_S)


@pytest.mark.parametrize("ends", [2 * CREDIT_WINDOW_BYTES], indirect=True, ids=["two windows"])
async def test_worker_that_exceeds_its_credit_is_disconnected(ends: Ends) -> None:
    call, asked = await ends.begun()

    def flood() -> None:
        while True:
            ends.peer.voice.send({"call": asked.number, "answer": {"n": 0}}, PIECE)

    with pytest.raises(channel.ChannelClosed):
        await in_thread(flood)
    assert isinstance(ends.line.closed, channel.ChannelClosed)
    assert call.unread_bytes <= 2 * CREDIT_WINDOW_BYTES + 2 * len(PIECE)


def test_frame_larger_than_window_is_sent_if_nothing_is_unread() -> None:
    outgoing, incoming = Credit(100), Credit(100)
    assert outgoing.allows(1000)
    outgoing.sent(1000)
    assert not outgoing.allows(1)
    assert incoming.read(49) == 0
    assert incoming.read(951) == 1000
    outgoing.granted(1000)
    assert outgoing.allows(60)
    outgoing.sent(60)
    assert outgoing.allows(40)
    assert not outgoing.allows(41)
    outgoing.granted(10)
    assert outgoing.allows(50)
    assert not outgoing.allows(51)
    outgoing.granted(1)
    assert outgoing.allows(1000), "the other side may owe us all of the 49"


class Stuck:
    """What the engine reads instead of a recording: a pipe, as native code that nobody can
    interrupt, until `go_on`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path, self.fd = folder / "pipe", -1
        os.mkfifo(self._path)
        monkeypatch.setenv("VIBEVOICE_SCRIPTED_EVENTS", str(self._path))

    async def begun(self) -> None:
        """Wait until the engine reads."""
        await until(self._has_reader)

    def _has_reader(self) -> bool:
        with suppress(OSError):
            self.fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self.fd >= 0

    def go_on(self) -> None:
        os.write(self.fd, b"[]")
        os.close(self.fd)
        self.fd = -1


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    made = Stuck(tmp_path, monkeypatch)
    yield made
    if made.fd >= 0:
        os.close(made.fd)


async def loaded(grace_s: float) -> WorkerProcess:
    worker = WorkerProcess("scripted", options=WorkerOptions(cancel_grace_s=grace_s))
    await worker.ask("load", engine=scripted_engine.SPEC.factory, options=LoadOptions().to_wire())
    worker.patience_s = 0.0
    return worker


def transcribing(at: WorkerProcess, fd: int) -> Any:
    facts = {"container": "wav", "decoder": "sndfile", "total_s": 9.96}
    options = TranscribeOptions().to_wire()
    request = {"facts": facts, "options": options, "max_s": 1e5}
    return at.calling("transcribe", [fd], **request)


@pytest.mark.posix("pipes of POSIX")
@pytest.mark.parametrize("survives", [False, True])
async def test_worker_whose_cancelled_call_does_not_stop_within_the_grace_is_killed_and_else_lives(
    stuck: Stuck, survives: bool
) -> None:
    slow = await loaded(PATIENCE_S if survives else 0.05)
    try:
        with CLIP.open("rb") as file:
            async with transcribing(slow, file.fileno()):
                await stuck.begun()
                if survives:
                    asyncio.get_running_loop().call_soon(stuck.go_on)  # once it is cancelled
        assert slow.alive == survives
    finally:
        await slow.close()


@pytest.mark.posix("pipes of POSIX")
async def test_busy_worker_answers_pings_and_a_closed_one_does_not(stuck: Stuck) -> None:
    slow = await loaded(0.05)
    with CLIP.open("rb") as file:
        async with transcribing(slow, file.fileno()) as call:
            await stuck.begun()
            assert await slow.answers_ping(PATIENCE_S)
            assert not call.unread_bytes, "it did not look up for that"
    await slow.close()
    assert not await slow.answers_ping(PATIENCE_S)


async def test_transcription_that_reports_nothing_for_too_many_pings_is_silent(
    ends: Ends,
) -> None:
    ends.line.max_silent_pings = 3
    await ends.begun("live")  # which may be silent for hours
    for _ in range(8):
        assert await ends.line.answers_ping(PATIENCE_S)
    call, asked = await ends.begun("transcribe")
    answers = call.answers()
    for number in range(3):
        for _ in range(3):
            assert await ends.line.answers_ping(PATIENCE_S)
        asked.answer({"n": number})
        await anext(answers)
        assert not ends.line.silent
    for silent in (False, False, False, True):
        assert await ends.line.answers_ping(PATIENCE_S)
        assert ends.line.silent is silent


async def test_transcription_that_reports_nothing_is_silent_although_another_beside_it_reports(
    ends: Ends,
) -> None:
    ends.line.max_silent_pings = 3
    await ends.begun("transcribe")
    for count in range(5):
        assert await ends.line.answers_ping(PATIENCE_S)
        assert ends.line.silent is (count > 2)
        call, asked = await ends.begun("transcribe")
        asked.answer({"n": count})
        await anext(call.answers())


@pytest.mark.posix("select of pipes")
async def test_blocked_service_does_not_take_worker_for_hung(ends: Ends) -> None:
    asked = asyncio.ensure_future(ends.line.answers_ping(0.05))
    await asyncio.sleep(0)
    assert select.select([ends.ours], [], [], PATIENCE_S)[0], "it has answered"
    stand_still(0.1)
    assert await asked


@pytest.mark.posix("pipes of POSIX")
async def test_call_is_sent_once_the_call_before_it_has_ended(stuck: Stuck) -> None:
    worker = await loaded(PATIENCE_S)
    try:
        with CLIP.open("rb") as file:
            async with transcribing(worker, file.fileno()) as first:
                await stuck.begun()
                second = asyncio.ensure_future(worker.ask("unknown"))
                await settle()
                stuck.go_on()
                assert await read(first) == []
                assert not second.done()
            with pytest.raises(errors.EngineFailed):
                await second
    finally:
        await worker.close()


async def test_call_takes_input_until_it_ends_then_send_raises(ends: Ends) -> None:
    call, asked = await ends.begun()
    await call.send({"leave": 1})
    await ends.begun()  # behind it on the line
    assert [message for message, _ in asked.received()] == [{"leave": 1}]
    asked.end(done=True)
    assert await read(call) == []
    call.cancel()
    with pytest.raises(RpcCallEnded):
        await call.send({}, PIECE)
    await ends.begun()
    assert [*asked.received()] == []
    assert not asked.is_cancelled()


async def test_worker_waits_for_input_that_it_takes_and_stops_waiting_if_its_call_is_cancelled(
    ends: Ends,
) -> None:
    call, asked = await ends.begun()
    taken = list[dict[str, Any]]()
    taking = asyncio.ensure_future(in_thread(lambda: taken.extend(asked.take(2))))
    await call.send_all([{"n": 0, "long": "s" * 3 * CREDIT_WINDOW_BYTES}, {"n": 1}])
    await taking
    assert [one["n"] for one in taken] == [0, 1]
    taking = asyncio.ensure_future(in_thread(lambda: taken.extend(asked.take(1))))
    call.cancel()
    with pytest.raises(CallCancelled):
        await taking
    asked.end(done=True)
    await call.over.wait()
    await call.send_all([{"n": 2}])  # it has ended: the answers say why


async def test_frame_larger_than_window_arrives_behind_read_ungranted_frames(ends: Ends) -> None:
    call, asked = await ends.begun()

    def say() -> None:
        answer_all_but_the_end(asked, 3)
        asked.answer({"n": 3}, b"s" * (2 * CREDIT_WINDOW_BYTES))
        asked.end(done=True)

    said = asyncio.ensure_future(in_thread(say))
    assert await read(call) == [0, 1, 2, 3]
    await said
