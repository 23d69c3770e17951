"""Live session in a worker: its input, its credit, its end."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from sidecar.interfaces.engine_interface import LoadOptions
from sidecar.interfaces.live_events import (
    InputProcessed,
    LiveEventCallback,
    LiveSessionStart,
    Summary,
)
from sidecar.interfaces.live_options import LiveOptions
from sidecar.transcripts.transcript import Transcript
from sidecar.workers import channel, worker_main
from sidecar.workers.rpc_server import RpcRequest, RpcSender
from sidecar.workers.worker_live_session import MAX_BACKLOG_S
from sidecar.workers.worker_operations import WorkerOperations

SECOND = bytes(2 * 16_000)


class Engine:
    """An engine whose only session is the engine itself, and recognizes when it is let."""

    sample_rate = 16_000
    tell: LiveEventCallback

    def __init__(self) -> None:
        self.backlog_s, self.closed = 0.0, False

    def load(self, options: LoadOptions) -> Iterator[float]:
        return iter(())

    def open(self, options: LiveOptions, start: LiveSessionStart, tell: LiveEventCallback) -> Any:
        self.tell = tell
        return self

    def push(self, what: Any, *, ahead: bool = False) -> None:
        self.backlog_s += len(what) / 16_000

    def close(self) -> None:
        self.closed = True


class Call:
    """The call of a live session that was begun in a worker."""

    def __init__(self) -> None:
        self.engine = Engine()
        begin, options = LiveSessionStart().to_wire(), LiveOptions().to_wire()
        message = {"operation": "live", "begin": begin, "options": options}
        self.ours, self.theirs = socket.socketpair()
        sender, operations = RpcSender(self.theirs), WorkerOperations(lambda _: self.engine)
        load = {"operation": "load", "engine": "", "options": LoadOptions().to_wire()}
        assert not [*operations.run(RpcRequest(0, load, [], sender))]
        self.request = RpcRequest(1, message, [], sender)
        worker_main.serve_call(operations, self.request)

    def receive(self, raw: bytes = b"", **fields: Any) -> None:
        """As the listener's thread."""
        frame = bytearray(channel.encode_frame({"call": 1, **fields}, raw))
        received = channel.take_frame(frame)
        assert received is not None
        self.request.receive(received)

    def sent(self) -> list[dict[str, Any]]:
        """All that the worker has sent."""
        found, reader = [], channel.ChannelReader(self.ours)
        self.ours.setblocking(False)
        with suppress(channel.ChannelClosed):
            while True:
                found.append(reader.receive()[0].message)
        return found


@pytest.fixture
def call() -> Iterator[Call]:
    one = Call()
    yield one
    one.ours.close()
    one.theirs.close()


def test_live_session_in_worker_ends_once_at_its_summary_despite_a_later_cancel(call: Call) -> None:
    ended: list[None] = []
    call.request.on_end = lambda: ended.append(None)
    call.engine.tell(InputProcessed(1.0, 1.0))
    assert not ended, "it goes on"
    call.engine.tell(Summary(Transcript((), "en", 0.0, "made-up", "fp32")))
    call.receive(cancel=True)
    assert [one.keys() - {"call"} for one in call.sent()] == [{"answer"}, {"answer"}, {"done"}]
    assert (ended, call.engine.closed) == ([None], True)


def test_cancelled_live_session_in_worker_is_done_and_closes_its_engine(call: Call) -> None:
    call.receive(cancel=True)
    assert call.sent() == [{"call": 1, "done": True}]
    assert call.engine.closed


def test_service_gets_credit_only_while_little_audio_waits_for_the_live_engine(call: Call) -> None:
    seconds = 0
    while call.engine.backlog_s <= MAX_BACKLOG_S:
        call.receive(SECOND, told={"sound": "pcm16", "rate": 16_000})
        seconds += 1
        assert not call.engine.closed, "or its input is dropped, for ever"
    before = call.sent()
    while seconds * len(SECOND) < channel.CREDIT_WINDOW_BYTES:
        call.receive(SECOND, told={"sound": "pcm16", "rate": 16_000})
        seconds += 1
    call.engine.tell(InputProcessed(1.0, 1.0))
    assert not [one for one in call.sent() if "granted" in one], "too much waits"
    call.engine.backlog_s = MAX_BACKLOG_S
    call.engine.tell(InputProcessed(30.0, 30.0))
    granted = sum(one.get("granted", 0) for one in [*before, *call.sent()])
    assert granted >= seconds * len(SECOND)


def test_audio_of_unknown_encoding_ends_session_with_engine_failed(call: Call) -> None:
    call.receive(b"", told={"sound": "mp3", "rate": 16_000})
    [end] = call.sent()
    assert end["error"]["code"] == "engine_failed"
    assert call.engine.closed


def test_input_behind_the_end_of_a_session_is_dropped(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        call.receive(b"", told={"sound": "mp3", "rate": 16_000})
    call.receive(SECOND, told={"sound": "pcm16", "rate": 16_000})
    assert (len(caplog.records), len(call.sent()), call.engine.backlog_s) == (1, 1, 0.0)
