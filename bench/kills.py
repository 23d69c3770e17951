"""Services, engines and both killed at random: ``python -m bench.kills --kills 200``.

One folder of kept jobs (`--keep-jobs`) over many lives of a service: killed while it works, while
it starts, with its engine or without.
Clients come back after each kill and send again what was not answered, with the same key.

Every accepted job has to end with its own words, once: one job for each key, one end in its events,
ids that never mean two things. What is told: how many ended, how many were given up because their
engine was killed twice before it had settled anything, and how much audio was heard twice, by what
a client had read before the kill and where the job went on.
"""

import asyncio
import contextlib
import random
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import serving
from bench.queue_clients import FORM, Connection, Recording
from bench.serving import COMMAND, KEY, ROOT, Server

SECONDS = 40
SPEED = 40
SETTLES = 5
WAYS = ("service", "service", "engine", "both", "start")
ENDED = ("done", "failed", "cancelled")
PATIENCE_S = 300.0


@dataclass
class Told:
    """What the clients of all lives know."""

    keys: dict[str, Recording] = field(default_factory=dict)
    """Requests that were sent, by their key."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Those that were accepted: the key → the job's id."""
    heard_s: dict[str, float] = field(default_factory=dict)
    """Seconds that a client had read of a job when it was killed."""
    again_s: list[float] = field(default_factory=list)
    """Of those, how many were heard again, for each kill."""
    last_id: dict[str, int] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)


class Lives:
    """A service over all its lives, on one port and one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.port = folder, serving.free_port()
        self.told, self.chance = Told(), random.Random(seed)
        (folder / "spool").mkdir()
        (folder / "config.toml").touch()
        values = {
            "port": self.port,
            "config": folder / "config.toml",
            "spool_dir": folder / "spool",
            "engine": "scripted",
            "scripted_speed": SPEED,
            "scripted_settles": SETTLES,
            "keep_jobs": 1,
            "data_dir": folder,
            "journal_key": KEY,
            "job_retention": "1h",
            "queue_limit": 1000,
            "log_level": "warning",
        }
        self._env = serving.service_env(values)

    def start(self) -> Server:
        """One that is up."""
        return Server(COMMAND, ROOT, self._env, self.port, self.folder / "log")

    async def life(self) -> None:
        """One more, and its end."""
        way = self.chance.choice(WAYS)
        self.told.kills[way] += 1
        if way == "start":
            self._killed_while_it_starts()
            return
        server = self.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._lived(server, way)
        finally:
            below = server.tree()
            end(below if way == "both" else below[:1])
            server.stop()

    async def _lived(self, server: Server, way: str) -> None:
        async with Connection(self.port) as client:
            found = await self._found(client)
            waits = [asyncio.create_task(self._follow(key)) for key in self._open(found)]
            if sum(job["state"] not in ENDED for job in found.values()) < 3:
                waits.append(asyncio.create_task(self._send()))
            await asyncio.sleep(self.chance.uniform(0.0, 1.5))
            if way in ("engine", "both"):
                pid = (await client.json("GET", "/health"))["worker_pid"]
                with contextlib.suppress(psutil.NoSuchProcess):
                    end([psutil.Process(pid)] if pid else [])
            if way == "engine":  # the service lives on for a moment, and goes in an orderly way
                await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        end(server.tree()[:1] if way != "engine" else [])
        for wait in waits:
            wait.cancel()
        for ended in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(ended, AssertionError):
                raise ended

    async def _found(self, client: Connection) -> dict[str, Any]:
        """What the service knows, by ids; all that was accepted is among it."""
        page = await client.json("GET", "/v1/jobs?limit=500")
        found = {job["id"]: job for job in page["jobs"]}
        assert {*self.told.jobs.values()} <= {*found}, "an accepted job is lost"
        assert len(found) <= len(self.told.keys), "a request has two jobs"
        for key, heard_s in self.told.heard_s.items():
            job = found[self.told.jobs[key]]
            if job["state"] not in ENDED:
                on_s = job["progress"]["audio_seconds_done"]
                self.told.again_s.append(max(0.0, heard_s - on_s))
        self.told.heard_s.clear()
        return found

    def _open(self, found: dict[str, Any]) -> list[str]:
        known = self.told.jobs.items()
        return [key for key, job_id in known if found[job_id]["state"] not in ENDED]

    async def _send(self) -> None:
        """A new request, or one that was not answered."""
        missing = [key for key in self.told.keys if key not in self.told.jobs]
        key = missing[0] if missing else f"request-{len(self.told.keys)}"
        self.told.keys.setdefault(key, Recording(self.chance.randrange(4), SECONDS))
        async with Connection(self.port) as client:
            headers = {**FORM, "Idempotency-Key": key}
            job = await client.json("POST", "/v1/jobs", self.told.keys[key].form(), headers)
        self.told.jobs[key] = job["id"]
        await self._follow(key)

    async def _follow(self, key: str) -> None:
        """Read a job's events from where the last life ended, until this one does."""
        job_id, told = self.told.jobs[key], self.told
        last = {"Last-Event-ID": str(told.last_id[job_id])} if job_id in told.last_id else {}
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            async with Connection(self.port) as client:
                await client.ask("GET", f"/v1/jobs/{job_id}/events", headers=last)
                async for event in client.events():
                    assert event.id > told.last_id.get(job_id, 0), "a number came twice"
                    told.last_id[job_id] = event.id
                    if event.name == "segment":
                        told.heard_s[key] = event.data["segment"]["end_time"]
                    elif event.name in ENDED:
                        told.ends[job_id] += 1
                        told.heard_s.pop(key, None)

    async def over(self) -> Counter[str]:
        """Let all jobs come to their ends, and look at each; the states that they ended in."""
        server = self.start()
        try:
            async with asyncio.timeout(PATIENCE_S), Connection(self.port) as client:
                while any(key not in self.told.jobs for key in self.told.keys):
                    await self._send()
                await asyncio.gather(
                    *(self._follow(k) for k in self._open(await self._found(client)))
                )
                found = await self._found(client)
                assert len(found) == len(self.told.keys), "not one job for each request"
                for key, job_id in self.told.jobs.items():
                    await self._check(client, self.told.keys[key], found[job_id])
        finally:
            server.stop()
        return Counter(found[job_id]["state"] for job_id in self.told.jobs.values())

    async def _check(self, client: Connection, recording: Recording, job: dict[str, Any]) -> None:
        path = f"/v1/jobs/{job['id']}"
        await client.ask("GET", f"{path}/events")
        names = Counter([event.name async for event in client.events()])
        assert sum(names[end] for end in ENDED) == 1, f"{names}: not one end"
        assert self.told.ends[job["id"]] <= 1, "a client got two ends"
        if job["state"] == "done":
            said = await client.json("GET", f"{path}/transcript")
            assert [one["text"] for one in said["segments"]] == recording.said(), "other words"
        else:
            assert job["error"]["code"] == "engine_crashed", job

    def _killed_while_it_starts(self) -> None:
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                COMMAND, cwd=ROOT, env=self._env, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        time.sleep(self.chance.uniform(0.2, 0.7))
        end([psutil.Process(process.pid)])
        process.communicate()


def end(processes: list[psutil.Process]) -> None:
    """Kill them, and wait until they are gone; whose parent does not ask after them stay behind as
    names, and are gone all the same."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.005)


async def killed(folder: Path, kills: int, seed: int) -> tuple[Told, Counter[str]]:
    """So many lives; what was told in them, and how the jobs ended."""
    lives = Lives(folder, seed)
    for _ in range(kills):
        await lives.life()
    return lives.told, await lives.over()


def main() -> None:
    """Print what came of it."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    given = parser.parse_args()
    print(f"{serving.machine()}; seed {given.seed}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vibevoice-kills-") as folder:
        told, ends = asyncio.run(killed(Path(folder), given.kills, given.seed))
    again = told.again_s or [0.0]
    kills = ", ".join(f"{way} {count}" for way, count in sorted(told.kills.items()))
    print(f"{given.kills} kills ({kills}) in {time.monotonic() - begun:.0f} s")
    print(f"{len(told.jobs)} jobs accepted: {', '.join(f'{n} {how}' for how, n in ends.items())}")
    print(
        f"recognized twice: {max(again):.1f} s at most, {statistics.mean(again):.1f} s for each of "
        f"{len(again)} jobs that were hit, {sum(again) / len(told.jobs) / SECONDS:.0%} of all audio"
    )


if __name__ == "__main__":
    main()
