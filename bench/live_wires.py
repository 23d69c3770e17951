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
from dataclasses import replace

import httpx
from vibevoice_asr_load_test.target import LoadTestLiveWire

from bench.live_load import TURN_S, failed, one_utterance, rehearsed, side_of
from bench.serving import Server, ours, workshop
from sidecar.protocols.grpc_stt import stt_pb2

MOST = 1.3
"""Times what the WebSocket takes; more is a failure."""


async def in_turns(server: Server, count: int, rounds: int, seconds: float) -> float:
    """Each wire so often; how many times gRPC costs what the WebSocket does.

    By the clients' sound, and not by the clock, which goes on where clients are kept waiting.
    """
    port = _grpc_port(server)
    wires = {"/api/asr-streaming": LoadTestLiveWire.STREAMING, "gRPC": LoadTestLiveWire.GRPC}
    course = one_utterance(round(seconds / TURN_S))
    shares: dict[str, list[float]] = {name: [] for name in wires}
    print("| round | wire | clients | service, of a core | finals | errors |")
    print("|---|---|---|---|---|---|")
    for turn in range(1, rounds + 1):
        for name, wire in wires.items():
            row, took_s = await rehearsed(
                replace(side_of(server, wire, port), messages=stt_pb2), course, count
            )
            share = took_s / course.seconds
            shares[name].append(share)
            told, wrong = sum(one.finals for one in row.visits), len(failed(row.visits))
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
    with workshop() as folder, ours(folder, **settings) as server:
        times = asyncio.run(
            in_turns(server, arguments.connections, arguments.rounds, arguments.seconds)
        )
    print(f"\ngRPC takes {times:.2f} times what the WebSocket does")
    if times > MOST:
        raise SystemExit(f"more than {MOST} times")


if __name__ == "__main__":
    main()
