"""What it costs that live sessions survive their service: finals with a database and without.

    .venv/bin/python -m bench.session_survival [--sessions 48] [--seconds 20] [--rounds 3] [--engine
    NAME]

The same people talk in real time, finals only, to a service that shares its sessions by PostgreSQL
and to one that does not, one after the other, so many times. Of every turn that a pause ended: how
long after its end it was told, the pause that has to be waited for left out. Of the database: how
many writes, with how many sessions each, and how long one took. It is started for this, with its
disk in earnest. The processor time is this process's, which feeds them, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from postgres import KEY, cluster
from scripted_speech import talk as spoken

from bench.live import LIVE_RATE, QUIET_S, Measured, follow, pcm16, quantiles, talk
from bench.metrics import clips
from sidecar.auth.identity import ANONYMOUS
from sidecar.config.settings import load_settings
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.session_checkpoint import SaveOutcome, SessionName, SessionSave
from sidecar.server.app import create_service
from sidecar.service.facade import Service


class Writes:
    """Every write of a service, as it passes."""

    def __init__(self, service: Service) -> None:
        assert service.live._saver is not None
        self._elsewhere = service.live._saver._elsewhere
        service.live._saver._elsewhere = self  # type: ignore[assignment]
        self.took: list[float] = []
        self.sessions = self.bytes = 0

    async def save(
        self, sessions: Sequence[SessionSave], over: Sequence[SessionName], grace_s: float
    ) -> Any:
        """As it is, and measured."""
        begun = time.perf_counter()
        fates = await self._elsewhere.save(sessions, over, grace_s)
        self.took.append(time.perf_counter() - begun)
        self.sessions += sum(fate is SaveOutcome.SAVED for fate in fates.values())
        self.bytes += sum(len(one.session) + len(one.story or b"") for one in sessions)
        return fates


async def row(service: Service, count: int, seconds: float, sound: bytes, found: Measured) -> float:
    """So many sessions at once; the share of a core that this process took."""
    options = LiveOptions(partials=False, diarize=False)
    sessions = [service.live.open(ANONYMOUS, options) for _ in range(count)]
    if service.live._saver is not None:
        await asyncio.gather(*map(service.live.move, sessions))
    for session in sessions:
        await session.send(bytes(round(QUIET_S * LIVE_RATE) * 2))
    while not all(session.told.last for session in sessions):  # noqa: ASYNC110 - what is told
        await asyncio.sleep(0.05)
    own, begun, work = psutil.Process(), time.monotonic(), []
    before = sum(own.cpu_times()[:2])
    for number, session in enumerate(sessions):
        shift, offset = round(number / count * len(sound) / 2) * 2, number / count
        turned = sound[shift:] + sound[:shift]
        work.append(talk(session, turned, seconds, begun + offset))
        work.append(follow(session, begun + offset - QUIET_S, options, found))
    await asyncio.gather(*work)
    for session in sessions:
        service.live.end(session)
    return (sum(own.cpu_times()[:2]) - before) / (time.monotonic() - begun)


async def measure(arguments: Any, folder: Path, journal: str) -> None:
    """Both services, in turns."""
    os.environ["VIBEVOICE_JOURNAL_KEY"] = KEY
    shared = {"journal": journal.replace(":not-for-logs", ""), "uploads": folder / "jobs"}
    plain = {"engine": "scripted", "live_engine": arguments.engine, "data_dir": folder}
    services = [
        create_service(load_settings(**plain)),
        create_service(load_settings(**plain, **shared)),
    ]
    for service in services:
        await service.open()
    sound = spoken(0.3, 0.2, 0.35, 0.25)
    if arguments.engine != "scripted":
        sound = b"".join(pcm16(clip) for clip in clips(True))
    writes = Writes(services[1])
    found = [Measured(), Measured()]
    shares: list[list[float]] = [[], []]
    for _ in range(arguments.rounds):
        for number, service in enumerate(services):
            shares[number].append(
                await row(service, arguments.sessions, arguments.seconds, sound, found[number])
            )
    for name, one, share in zip(("without", "with"), found, shares, strict=True):
        ends = [1000 * end for end in one.ends]
        mean = sum(share) / len(share)
        print(f"{name:8} {len(ends):5} turns, ms: {quantiles(ends):24} of a core: {mean:.2f}")
    lasted = arguments.rounds * arguments.seconds
    took = [1000 * one for one in writes.took]
    print(
        f"writes: {len(took) / lasted:.1f} a second of {writes.sessions / len(took):.1f} sessions "
        f"and {writes.bytes / max(1, writes.sessions):.0f} bytes each; ms: {quantiles(took)}"
    )
    for service in services:
        await service.close()


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=48)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="scripted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster(quick=False) as server:
        asyncio.run(measure(arguments, Path(folder), server.new_database()))


if __name__ == "__main__":
    main()
