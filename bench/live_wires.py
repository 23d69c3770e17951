"""What live audio over gRPC costs the service, beside the same sound over a WebSocket.

A hundred clients send to one service with the scripted engine, a chunk each 100 ms, in real time,
every one over a connection of its own: over the streaming wire (`/api/asr-streaming`: JSON and
base64), then over gRPC, and so in turns. What counts is the processor time of the service's own
process, all of its threads (the engine has a process of its own, and so do the clients), for each
second of a client's sound. It wants a quiet machine: on a busy one a WebSocket's messages come to
a starved service several at a time, which makes them cheaper, and gRPC's do not.

    python -m bench.live_wires [--connections 100] [--rounds 3] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import httpx
import psutil

from bench.live_load import RATE, TURN, TURN_S, Heard, streaming
from bench.serving import Server, ours, workshop
from sidecar.protocols.grpc_stt.stt_pb2 import (
    AudioChunk,
    SessionRequest,
    SessionResponse,
    STTResult,
)

SERVICE = "/stt.STTBackend"
CHUNK_S = 0.1
STEP = round(RATE * CHUNK_S) * 2
MOST = 1.3
"""Times what the WebSocket takes; more is a failure."""

Wire = Callable[[int, bytes, float, int], Awaitable[Heard]]
"""Sends sound to a port, a chunk every so many seconds, as the client with that number."""


async def over_grpc(port: int, sound: bytes, pace_s: float, number: int) -> Heard:
    """As clients of the package `stt` do: a session, its id in every chunk, an empty last one."""
    heard = Heard()
    name = f"client-{number}-{time.monotonic_ns()}"
    own = [("grpc.use_local_subchannel_pool", 1)]  # or all channels share a connection
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
        create = channel.unary_unary(
            f"{SERVICE}/CreateSession",
            SessionRequest.SerializeToString,
            SessionResponse.FromString,
        )
        await create(SessionRequest(session_id=name))
        call = channel.stream_stream(
            f"{SERVICE}/StreamingRecognize", AudioChunk.SerializeToString, STTResult.FromString
        )(metadata=[("session-id", name)])

        async def listen() -> None:
            async for result in call:
                heard.turns += result.is_final

        reading = asyncio.create_task(listen())
        begun = time.monotonic()
        try:
            for count, at in enumerate(range(0, len(sound), STEP)):
                await asyncio.sleep(max(0.0, begun + count * pace_s - time.monotonic()))
                raw = sound[at : at + STEP]
                await call.write(AudioChunk(pcm16=raw, sample_rate=RATE, session_id=name))
            await call.write(AudioChunk(is_final=True, session_id=name))
            await reading
        except grpc.aio.AioRpcError as error:
            heard.errors.append(error.details() or error.code().name)
    return heard


async def over_websocket(port: int, sound: bytes, pace_s: float, number: int) -> Heard:
    """As clients of the streaming wire do: one utterance of it all."""
    return await streaming(f"ws://127.0.0.1:{port}", sound, STEP, pace_s)


async def share_of_a_core(
    service: psutil.Process, wire: Wire, port: int, sound: bytes, count: int
) -> tuple[float, list[Heard]]:
    """What the service takes of one while so many clients are heard: by their sound, and not by the
    clock, which goes on where clients are kept waiting."""
    await wire(port, TURN, 0.0, 0)  # the engine is there
    await asyncio.sleep(1.0)  # and who asked for it is gone
    before = sum(service.cpu_times()[:2])
    found = await asyncio.gather(*(wire(port, sound, CHUNK_S, number) for number in range(count)))
    took_s = sum(service.cpu_times()[:2]) - before
    return took_s / (len(sound) / 2 / RATE), found


async def in_turns(server: Server, count: int, rounds: int, seconds: float) -> float:
    """Each wire so often; how many times gRPC costs what the WebSocket does."""
    wires: dict[str, tuple[Wire, int]] = {
        "/api/asr-streaming": (over_websocket, server.port),
        "gRPC": (over_grpc, _grpc_port(server)),
    }
    sound = TURN * round(seconds / TURN_S)
    shares: dict[str, list[float]] = {name: [] for name in wires}
    service = psutil.Process(server.pid)
    print("| round | wire | clients | service, of a core | finals | errors |")
    print("|---|---|---|---|---|---|")
    for turn in range(1, rounds + 1):
        for name, (wire, port) in wires.items():
            share, found = await share_of_a_core(service, wire, port, sound, count)
            shares[name].append(share)
            told = sum(one.turns for one in found)
            wrong = sum(len(one.errors) for one in found)
            print(f"| {turn} | {name} | {count} | {share:.3f} | {told} | {wrong} |", flush=True)
    there, here = (statistics.median(each) for each in shares.values())
    return here / there


def _grpc_port(server: Server) -> int:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/health").json()
    return int(answer["grpc_port"])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    settings = {
        "engine": "scripted",
        "grpc_port": "0",
        "live_sessions": str(arguments.connections),
        "live_sessions_per_owner": str(arguments.connections),
    }
    with workshop() as folder, ours(Path(folder), **settings) as server:
        times = asyncio.run(
            in_turns(server, arguments.connections, arguments.rounds, arguments.seconds)
        )
    print(f"\ngRPC takes {times:.2f} times what the WebSocket does")
    if times > MOST:
        raise SystemExit(f"more than {MOST} times")


if __name__ == "__main__":
    main()
