"""What it costs a word that it is heard at another machine: a live place that a front leases.

Two services hear; the same sessions go to them directly, in halves, and then by a front that hears
nothing itself, in real time and so in turns. Of each final: how long after the end of what was said
in it (by the clock at which that was sent) it came. What is compared is the one against the other:
pauses that are waited for and the engine are the same in both. Processor: of the service that is
asked, its own process alone, for each second of a session's sound.

    python -m bench.remote_live_engine [--sessions 8] [--rounds 5] [--engine scripted]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from websockets.asyncio.client import connect

from bench.live_load import RATE
from bench.serving import ours, table, verdict, workshop

CHUNK_S = 0.05
MOST_S = 0.030
"""What the 95th of a hundred finals may be later; more is a failure."""
ROOM_S = 1.5
"""Sessions begin one after the other within so many seconds, so that their pauses are not one."""


async def session(port: int, sound: bytes, after_s: float) -> list[float]:
    """How late each final is, in seconds."""
    await asyncio.sleep(after_s)
    step, late = round(RATE * CHUNK_S) * 2, list[float]()
    async with connect(f"ws://127.0.0.1:{port}/v1/live", proxy=None, max_size=None) as socket:
        await socket.send(json.dumps({"type": "begin", "partials": True}))
        await socket.recv()
        begun = time.monotonic()

        async def listen() -> None:
            async for message in socket:
                said = json.loads(message)
                if said["type"] == "final":
                    late.append(time.monotonic() - begun - said["segment"]["end_time"])
                if said["type"] in ("summary", "error"):
                    return

        listening = asyncio.create_task(listen())
        for at in range(0, len(sound), step):
            end_s = (at + step) / 2 / RATE
            await asyncio.sleep(max(0.0, begun + end_s - time.monotonic()))
            await socket.send(sound[at : at + step])
        await socket.send(json.dumps({"type": "finish"}))
        await listening
    return late


async def together(ports: Sequence[int], count: int, sound: bytes) -> list[float]:
    """So many at once, each at the next of these."""
    each = [
        session(ports[number % len(ports)], sound, number * ROOM_S / count)
        for number in range(count)
    ]
    return [late for found in await asyncio.gather(*each) for late in found]


def spoken(turns: int) -> bytes:
    """Somebody who says something loud for 1.2 s, and pauses for 0.9 s."""
    loud, quiet = (RATE * 6 // 5, 8_000), (RATE * 9 // 10, 0)
    turn = b"".join(value.to_bytes(2, "little") * count for count, value in (loud, quiet))
    return turn * turns


def at(values: Sequence[float], share: float) -> float:
    """The value that so many lie below, in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, round(share * len(ordered)))]


def of_own(port_of: psutil.Process) -> float:
    """Seconds of a processor that this process took."""
    return sum(port_of.cpu_times()[:2])


def main() -> None:
    """The two ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--engine", default="scripted")
    parser.add_argument("--recording", type=Path, help="16 kHz, mono, 16 bit, without a head")
    asked = parser.parse_args()
    sound = asked.recording.read_bytes() if asked.recording else spoken(asked.turns)
    with workshop() as folder, ExitStack() as stack:
        shared = {"engine": "scripted", "live_delay": "0"}
        ears = [
            stack.enter_context(ours(folder, **shared, live_engine=asked.engine)) for _ in range(2)
        ]
        names = ",".join(f"http://127.0.0.1:{one.port}" for one in ears)
        front = stack.enter_context(ours(folder, **shared, live_engine="upstream", upstream=names))
        ways = {"directly": [one.port for one in ears], "by a front": [front.port]}
        late: dict[str, list[float]] = {name: [] for name in ways}
        own = psutil.Process(front.pid)
        asyncio.run(together(ways["by a front"], 2, sound[: len(sound) // 4]))  # all is loaded
        took_s = 0.0
        for _ in range(asked.rounds):
            for name, ports in ways.items():
                before = of_own(own)
                late[name] += asyncio.run(together(ports, asked.sessions, sound))
                took_s += of_own(own) - before if name == "by a front" else 0.0
    rows = [
        [name, str(len(found)), *(f"{at(found, share):.0f} ms" for share in (0.5, 0.95, 0.99))]
        for name, found in late.items()
    ]
    table(
        f"{asked.sessions} sessions at once, {asked.engine}: from the end of speech to its final",
        ["", "finals", "p50", "p95", "p99"],
        rows,
    )
    heard_s = asked.rounds * asked.sessions * len(sound) / 2 / RATE
    print(f"the front's own process: {took_s / heard_s:.2%} of a core for each session")
    more_s = (at(late["by a front"], 0.95) - at(late["directly"], 0.95)) / 1000
    print(f"p95 later by {1000 * more_s:.0f} ms; {verdict(more_s, MOST_S)}")


if __name__ == "__main__":
    main()
