"""A client of the live wire over gRPC, from its proto alone."""

import contextlib
import math
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
from service_process import PATIENCE_S

from sidecar.plugins.grpc_stt.stt_pb2 import (
    AudioChunk,
    SessionRequest,
    SessionResponse,
    STTResult,
)

RATE = 16_000
CREATE, RECOGNIZE = "/stt.STTBackend/CreateSession", "/stt.STTBackend/StreamingRecognize"


def sound(*stretches: tuple[float, float], rate: int = RATE) -> bytes:
    """PCM16 of a tone, loud for so many seconds each (0 is silence)."""
    parts = []
    for level, seconds in stretches:
        period = [round(level * 32767 * math.sin(2 * math.pi * n / 40)) for n in range(40)]
        raw = struct.pack("<40h", *period)
        parts.append((raw * (round(seconds * rate) // 40 + 1))[: 2 * round(seconds * rate)])
    return b"".join(parts)


@dataclass
class Ended:
    """What came of a call."""

    results: list[STTResult]
    status: grpc.StatusCode
    details: str
    trailing: dict[str, str]

    @property
    def number(self) -> str:
        """Such as ERR1004; "" where it went well."""
        return self.details.split()[0] if self.details.startswith("ERR") else ""

    @property
    def finals(self) -> list[STTResult]:
        """Those that stay."""
        return [result for result in self.results if result.is_final]


class Client:
    """Makes calls on a channel of its own; ``metadata`` goes with each. ``trust``: the certificate
    of TLS."""

    def __init__(self, port: int, trust: bytes | None = None, **metadata: str) -> None:
        options = [("grpc.max_send_message_length", -1)]
        if trust is None:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        else:
            believed = grpc.ssl_channel_credentials(trust)
            self.channel = grpc.secure_channel(f"localhost:{port}", believed, options)
        self._metadata = [(name.replace("_", "-"), text) for name, text in metadata.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def create(self, session_id: str, **fields: Any) -> SessionResponse:
        """CreateSession."""
        return self.call(SessionRequest(session_id=session_id, **fields).SerializeToString())

    def call(self, raw: bytes) -> SessionResponse:
        """CreateSession with whatever bytes."""
        make = self.channel.unary_unary(CREATE, _same, SessionResponse.FromString)
        answer: SessionResponse = make(raw, metadata=self._metadata, timeout=PATIENCE_S)
        return answer

    def refused(self, session_id: str = "refused", **fields: Any) -> Ended:
        """CreateSession that must fail."""
        try:
            self.create(session_id, **fields)
        except grpc.RpcError as error:
            return Ended([], error.code(), error.details(), _texts(error.trailing_metadata()))
        raise AssertionError("it was let in")

    def creates(self, session_id: str) -> bool:
        """Whether the id is free; the session is there then."""
        try:
            self.create(session_id)
        except grpc.RpcError:
            return False
        return True

    def open(self, chunks: Iterator[bytes], session_id: str | None = None, **metadata: str) -> Any:
        """StreamingRecognize of chunks as bytes; a call that goes on."""
        make = self.channel.stream_stream(RECOGNIZE, _same, STTResult.FromString)
        given = [*self._metadata, *((name.replace("_", "-"), v) for name, v in metadata.items())]
        if session_id is not None:
            given.append(("session-id", session_id))
        return make(chunks, metadata=given, timeout=PATIENCE_S)

    def stream(
        self, chunks: Sequence[AudioChunk] | Iterator[AudioChunk], session_id: str | None = None
    ) -> Ended:
        """StreamingRecognize to its end."""
        return ended(self.open((one.SerializeToString() for one in chunks), session_id))

    def say(self, session_id: str, raw: bytes, **fields: Any) -> Ended:
        """A stream as clients of files send it: 100 ms each, then an empty last chunk."""
        return self.stream(chunks_of(session_id, raw, **fields), session_id)


def chunks_of(
    session_id: str,
    raw: bytes,
    pace_s: float = 0.0,
    then: Callable[[], bool] | None = None,
    **fields: Any,
) -> Iterator[AudioChunk]:
    """100 ms each, one every ``pace_s``, and the last one; or silence while ``then`` says so."""
    step = RATE // 10 * 2
    for at in range(0, len(raw), step):
        yield AudioChunk(
            pcm16=raw[at : at + step], sample_rate=RATE, session_id=session_id, **fields
        )
        time.sleep(pace_s)  # real time: the pace of speech, or slower
    while then is not None and then():
        yield AudioChunk(pcm16=bytes(step), sample_rate=RATE, session_id=session_id, **fields)
        time.sleep(0.1)  # real time: as above
    yield AudioChunk(is_final=True, session_id=session_id, **fields)


def ended(call: Any, heard: Callable[[], object] = lambda: None) -> Ended:
    """Read a call to its end; ``heard`` is called after each result."""
    results = []
    with contextlib.suppress(grpc.RpcError):
        for result in call:
            results.append(result)
            heard()
    return Ended(results, call.code(), call.details() or "", _texts(call.trailing_metadata()))


def _texts(metadata: Any) -> dict[str, str]:
    return dict(metadata or ())


def _same(raw: bytes) -> bytes:
    return raw
