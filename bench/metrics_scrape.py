"""What it takes to be looked at: `/metrics` beside `/health`, in turns, while nothing happens and
under load: live sessions in real time and clients that send one recording after the other.

    python -m bench.metrics_scrape [--sessions 50] [--clients 4] [--seconds 30]

Goal: p99 of `/metrics` under load ≤ 20 ms. The share of it that is the machine's is what `/health`
takes in the same turns.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable

import httpx
import psutil
from vibevoice_asr_load_test.run import at_once
from vibevoice_asr_load_test.target import LoadTestLiveWire

from bench.live_load import REAL_TIME, TURN_S, open_quiet_client, side_of, turns_of
from bench.serving import FORM_TYPE, Server, form, ours, workshop
from bench.serving import clip as clip_of

PATHS = ("/health", "/metrics", "/metrics.json")
EVERY_S = 0.05
GOAL_MS = 20.0


async def looks(server: Server, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each look, at every path in turn."""
    found: dict[str, list[float]] = {path: [] for path in PATHS}
    end = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        while time.monotonic() < end:
            for path in PATHS:
                begun = time.perf_counter()
                (await client.get(path)).raise_for_status()
                found[path].append(1000 * (time.perf_counter() - begun))
                await asyncio.sleep(EVERY_S)
    return found


async def uploads(server: Server, body: bytes) -> None:
    """One recording after the other, until cancelled."""
    headers = {"Content-Type": FORM_TYPE}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{server.port}", timeout=600, headers=headers
    ) as client:
        while True:
            (await client.post("/transcribe", content=body)).raise_for_status()


async def under_load(
    server: Server, sessions: int, clients: int, seconds: float
) -> tuple[dict[str, list[float]], int]:
    """The same while others work, and how many sessions heard all their turns."""
    side, course = (
        side_of(server, LoadTestLiveWire.LIVE),
        turns_of(max(1, round(seconds / TURN_S) + 1)),
    )
    body = form(clip_of("endgame_nagg_nell.wav").read_bytes())
    sending = [asyncio.create_task(uploads(server, body)) for _ in range(clients)]
    async with open_quiet_client(side, REAL_TIME) as client:
        live = asyncio.create_task(at_once(side, client, [course] * sessions))
        await asyncio.sleep(1.0)
        found = await looks(server, seconds)
        visits = (await live).visits
    for one in sending:
        one.cancel()
    await _ended(*sending)
    return found, sum(not one.lost and not one.error_code for one in visits)


async def _ended(*tasks: Awaitable[None]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


async def cost(server: Server, path: str, count: int = 200) -> float:
    """Milliseconds of a processor that the service takes for a look."""
    process = psutil.Process(server.pid)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        before = sum(process.cpu_times()[:2])
        for _ in range(count):
            (await client.get(path)).raise_for_status()
    return 1000 * (sum(process.cpu_times()[:2]) - before) / count


def at(values: list[float], part: float) -> float:
    """The value that so great a part of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with workshop() as folder, ours(folder, engine="scripted", live_sessions="200") as server:
        await looks(server, 1.0)  # what is imported at the first look
        idle = await looks(server, options.seconds / 3)
        busy, heard = await under_load(server, options.sessions, options.clients, options.seconds)
        costs = {path: await cost(server, path) for path in PATHS}
    print(f"{options.sessions} sessions ({heard} heard all), {options.clients} clients, ", end="")
    print(f"load {psutil.getloadavg()[0]:.1f}")
    print("| ms | idle p50 | p99 | under load p50 | p99 | looks | processor |")
    print("|---|---|---|---|---|---|---|")
    for path in PATHS:
        parts = [at(one[path], part) for one in (idle, busy) for part in (0.5, 0.99)]
        row = " | ".join(f"{part:.1f}" for part in parts)
        print(f"| `{path}` | {row} | {len(busy[path])} | {costs[path]:.2f} |")
    p99 = at(busy["/metrics"], 0.99)
    print(f"p99 of /metrics under load {p99:.1f} ms, goal {GOAL_MS:g}: {p99 <= GOAL_MS}")


if __name__ == "__main__":
    asyncio.run(main())
