"""A hundred live connections on a scripted engine: what the service takes, and what it holds.

1. In real time, 0.1 s a message: how much of a core the service's own process takes (the engine has
   a process of its own) on our wire (bytes) and on the streaming one (JSON and base64).
2. Ten times as fast, until each has heard so many minutes: every turn told, none lost; memory of
   the service from the first minute to the last; the next connection refused with its code; and
   recordings that are transcribed meanwhile, beside how quickly they are alone.

    python -m bench.live_load [--connections 100] [--minutes 10]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.serving import FORM_TYPE as FORM
from bench.serving import Server, form, ours, workshop

RATE = 16_000
TURN = np.concatenate(
    [np.full(RATE * 3 // 2, 9000, "<i2"), np.zeros(RATE * 3 // 2, "<i2")]
).tobytes()
"""A second and a half of speech, and as much of silence."""
TURN_S = 3.0
REAL_TIME_S = 20.0
SPEED = 10.0
MOMENTS = 5
"""At which memory is looked at, from one to the next as long as to the end."""
JOBS, JOB_S, ENGINE_SPEED = 12, 20, 40
"""Recordings of so many seconds, on an engine that hears so many in one."""


@dataclass
class Heard:
    """What came back on one connection."""

    turns: int = 0
    errors: list[str] = field(default_factory=list)


async def ours_live(url: str, sound: bytes, step: int, pace_s: float) -> Heard:
    """Over our own wire: begin, bytes, finish, until the summary."""
    heard = Heard()
    async with connect(f"{url}/v1/live", max_size=None, compression=None) as socket:
        await socket.send(json.dumps({"type": "begin", "partials": False, "diarize": False}))
        reading = asyncio.create_task(_events(socket, heard, "turn_ended", "summary"))
        await _paced(
            socket.send, [sound[at : at + step] for at in range(0, len(sound), step)], pace_s
        )
        await socket.send(json.dumps({"type": "finish"}))
        await reading
    return heard


async def streaming(url: str, sound: bytes, step: int, pace_s: float) -> Heard:
    """Over the streaming wire: one utterance."""
    heard = Heard()
    url = f"{url}/api/asr-streaming"
    async with connect(url, max_size=None, compression=None) as socket:

        def said(kind: str, **payload: Any) -> str:
            ids = {"session_id": "s", "request_id": "r"}
            return json.dumps({"type": kind, **ids, "payload": payload})

        reading = asyncio.create_task(_events(socket, heard, "transcription.done", "session_end"))
        await socket.send(said("input_audio_buffer.commit", final=False))
        chunks = [
            said(
                "input_audio_buffer.append", audio=base64.b64encode(sound[at : at + step]).decode()
            )
            for at in range(0, len(sound), step)
        ]
        await _paced(socket.send, chunks, pace_s)
        await socket.send(said("input_audio_buffer.commit", final=True))
        while not heard.turns and not reading.done():  # noqa: ASYNC110 - it is what is measured
            await asyncio.sleep(0.05)
        await socket.send(said("end"))
        await reading
    return heard


async def _paced(send: Callable[[Any], Any], messages: list[Any], pace_s: float) -> None:
    begun = time.monotonic()
    for number, message in enumerate(messages):
        await asyncio.sleep(max(0.0, begun + number * pace_s - time.monotonic()))
        await send(message)


async def _events(socket: ClientConnection, heard: Heard, counted: str, last: str) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            event = json.loads(message)
            heard.turns += event["type"] == counted
            if event["type"] == "error":
                heard.errors.append(event.get("code") or event["payload"]["code"])
            if event["type"] == last:
                return


async def real_time(server: Server, count: int) -> None:
    """The share of a core that each wire takes."""
    url = f"ws://127.0.0.1:{server.port}"
    service = psutil.Process(server.pid)
    sound = TURN * round(REAL_TIME_S / TURN_S)
    print("| wire | connections | service, of a core | turns | errors |\n|---|---|---|---|---|")
    for name, wire in (("/v1/live", ours_live), ("/api/asr-streaming", streaming)):
        await wire(url, TURN, 3200, 0.0)  # the engine is there
        await asyncio.sleep(1.0)  # and who asked for it is gone
        before, begun = sum(service.cpu_times()[:2]), time.monotonic()
        found = await asyncio.gather(*(wire(url, sound, 3200, 0.1) for _ in range(count)))
        share = (sum(service.cpu_times()[:2]) - before) / (time.monotonic() - begun)
        wrong = sum(len(one.errors) for one in found)
        print(f"| {name} | {count} | {share:.3f} | {sum(one.turns for one in found)} | {wrong} |")


async def files(server: Server) -> float:
    """Seconds of recordings that are transcribed in a second."""
    body = form(_wav(JOB_S))
    begun = time.monotonic()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=600) as client:
        for _ in range(JOBS):
            answer = await client.post("/transcribe", content=body, headers={"Content-Type": FORM})
            answer.raise_for_status()
    return JOBS * JOB_S / (time.monotonic() - begun)


def _wav(seconds: int) -> bytes:
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(bytes(2 * RATE * seconds))
    return file.getvalue()


async def long_run(server: Server, count: int, minutes: float) -> None:
    """Ten times as fast as people speak, for so many minutes of sound each."""
    url = f"ws://127.0.0.1:{server.port}"
    service = psutil.Process(server.pid)
    alone = await files(server)
    turns = round(minutes * 60 / TURN_S)
    lasts_s = minutes * 60 / SPEED
    work = [
        asyncio.create_task(ours_live(url, TURN * turns, len(TURN) // 3, TURN_S / 3 / SPEED))
        for _ in range(count)
    ]
    memory: list[float] = []

    async def watch() -> None:
        for _ in range(MOMENTS):
            await asyncio.sleep(lasts_s / (MOMENTS + 1))
            memory.append(service.memory_info().rss / 2**20)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(lasts_s / 10)
    refused = await ours_live(url, b"", 2, 0.0)
    beside = await files(server)
    found = await asyncio.gather(*work)
    await watching
    told = [one.turns for one in found]
    print(f"\n{count} connections, {minutes:g} minutes of sound each at {SPEED:g} times real time")
    wrong = [code for one in found for code in one.errors]
    print(f"turns told: {min(told)} to {max(told)} of {turns}; errors {wrong}")
    print(f"one more: {refused.errors}")
    print(f"memory of the service, MB: {', '.join(f'{one:.0f}' for one in memory)}")
    print(f"recordings: {alone:.1f} s/s alone, {beside:.1f} beside ({beside / alone:.2f})")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    settings = {
        "engine": "scripted",
        "live_sessions": str(arguments.connections),
        "scripted_speed": str(ENGINE_SPEED),
    }
    with workshop() as folder, ours(Path(folder), **settings) as server:
        asyncio.run(real_time(server, arguments.connections))
        asyncio.run(long_run(server, arguments.connections, arguments.minutes))


if __name__ == "__main__":
    main()
