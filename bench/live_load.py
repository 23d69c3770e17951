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
import wave
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from vibevoice_asr_load_test.clients import open_file_client, open_live_client
from vibevoice_asr_load_test.run import LoadTestRow, LoadTestTempo, at_once
from vibevoice_asr_load_test.speech import LoadTestAudio, LoadTestRecording, LoadTestScript
from vibevoice_asr_load_test.statistics import LoadTestSession
from vibevoice_asr_load_test.target import LoadTestFileWire, LoadTestLiveWire, LoadTestTarget

from bench.serving import Server, cpu_s, ours, workshop

RATE = 16_000
SPEECH = np.full(RATE * 3 // 2, 9000, "<i2").tobytes()
TURN = SPEECH + bytes(len(SPEECH))
"""A second and a half of speech, and as much of silence."""
TURN_S = 3.0
REAL_TIME_S = 20.0
REAL_TIME = LoadTestTempo()
SPEED = 10.0
MOMENTS = 5
"""At which memory is looked at, from one to the next as long as to the end."""
JOBS, JOB_S, ENGINE_SPEED = 12, 20, 40
"""Recordings of so many seconds, on an engine that hears so many in one."""

open_quiet_client = partial(open_live_client, partials=False)
"""Finals alone, on the wire that can leave partials out."""


def side_of(
    server: Server, wire: LoadTestLiveWire | LoadTestFileWire, grpc_port: int = 0
) -> LoadTestTarget:
    """A service of this machine, by a wire."""
    url, process = f"http://127.0.0.1:{server.port}", psutil.Process(server.pid)
    return LoadTestTarget(wire, wire, url, target=f"127.0.0.1:{grpc_port}", process=process)


def turns_of(count: int) -> LoadTestScript:
    """So many turns."""
    return LoadTestScript(
        (LoadTestAudio(SPEECH, speech=True), LoadTestAudio(bytes(len(SPEECH)), speech=False))
        * count
    )


def one_utterance(count: int) -> LoadTestScript:
    """The sound of so many turns as an utterance: then every wire carries the silence too."""
    return LoadTestScript((LoadTestAudio(TURN * count, speech=True),))


async def rehearsed(
    side: LoadTestTarget, course: LoadTestScript, count: int
) -> tuple[LoadTestRow, float]:
    """So many sessions of the same course in real time, once the engine is there.

    With them the seconds of a processor that the service's own process took.
    """
    assert side.process is not None
    async with open_quiet_client(side, REAL_TIME) as client:
        await client.visit("first", one_utterance(1))
        await asyncio.sleep(1.0)  # and who asked for it is gone
        before = cpu_s([side.process])
        row = await at_once(side, client, [course] * count)
        return row, cpu_s([side.process]) - before


def failed(visits: Sequence[LoadTestSession]) -> list[str]:
    """Codes of the sessions that did not end well."""
    return [one.error_code for one in visits if one.error_code]


async def real_time(server: Server, count: int) -> None:
    """The share of a core that each wire takes."""
    course = one_utterance(round(REAL_TIME_S / TURN_S))
    print("| wire | connections | service, of a core | turns | errors |\n|---|---|---|---|---|")
    for name, wire in (
        ("/v1/live", LoadTestLiveWire.LIVE),
        ("/api/asr-streaming", LoadTestLiveWire.STREAMING),
    ):
        row, _ = await rehearsed(side_of(server, wire), course, count)
        told = sum(one.finals for one in row.visits)
        share, wrong = row.figures["service_cpu"], len(failed(row.visits))
        print(f"| {name} | {count} | {share:.3f} | {told} | {wrong} |")


async def files(server: Server, recording: Path) -> float:
    """Seconds of recordings that are transcribed in a second."""
    side, each = side_of(server, LoadTestFileWire.TRANSCRIBE), [LoadTestRecording(recording, JOB_S)]
    async with open_file_client(side, each, JOBS) as client:
        visit = await client.visit("0", LoadTestScript())
    if visit.error_code:
        raise RuntimeError(f"a recording failed with {visit.error_code}")
    return visit.sound_s / (visit.ended - visit.begun)


def written(path: Path, seconds: int) -> Path:
    """A recording of so much silence."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(bytes(2 * RATE * seconds))
    return path


async def long_run(server: Server, count: int, minutes: float, recording: Path) -> None:
    """Ten times as fast as people speak, for so many minutes of sound each."""
    service = psutil.Process(server.pid)
    alone = await files(server, recording)
    turns = round(minutes * 60 / TURN_S)
    lasts_s = minutes * 60 / SPEED
    side, memory = side_of(server, LoadTestLiveWire.LIVE), list[float]()

    async def watch() -> None:
        for _ in range(MOMENTS):
            await asyncio.sleep(lasts_s / (MOMENTS + 1))
            memory.append(service.memory_info().rss / 2**20)

    async with open_quiet_client(side, LoadTestTempo(TURN_S / 3, SPEED)) as client:
        work = asyncio.create_task(at_once(side, client, [turns_of(turns)] * count))
        watching = asyncio.create_task(watch())
        await asyncio.sleep(lasts_s / 10)
        refused = await client.visit("one more", LoadTestScript())
        beside = await files(server, recording)
        visits = (await work).visits
        await watching
    told = [len(one.turns) - one.lost for one in visits]
    print(f"\n{count} connections, {minutes:g} minutes of sound each at {SPEED:g} times real time")
    print(f"turns told: {min(told)} to {max(told)} of {turns}; errors {failed(visits)}")
    print(f"one more: {failed([refused])}")
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
    with workshop() as folder, ours(folder, **settings) as server:
        asyncio.run(real_time(server, arguments.connections))
        recording = written(folder / "silence.wav", JOB_S)
        asyncio.run(long_run(server, arguments.connections, arguments.minutes, recording))


if __name__ == "__main__":
    main()
