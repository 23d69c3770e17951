"""Clients of services that share their jobs, and what they observe during an outage.

Only the wires and the processes are observed, so this holds for any implementation behind them.
"""

import asyncio
import contextlib
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from service_process import PATIENCE_S, new_file
from shared_job_services import until_told

from bench.deployment import Deployment
from bench.queue_clients import FORM, Connection, Event, Recording
from bench.serving import Server

ENDED = ("done", "failed", "cancelled")
REQUEST_LIMIT_S = 30.0  # six times what the service promises: then it counts as no answer
POLL_S = 0.1
SETTLES = 2  # segments between two resume points of the engine
LENGTH = 20  # seconds of a recording
NUMBERS = itertools.count(random.randrange(1 << 30))  # no two recordings are alike


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request; ``status`` 0 is none within `REQUEST_LIMIT_S`."""

    request: str
    status: int = 0
    retry_after: int = 0
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """That of the problem, or an empty one."""
        return str(self.body.get("code", ""))

    @property
    def refused(self) -> bool:
        """Whether it says that the database is away, and when to ask again."""
        return (self.status, self.code) == (503, "journal_unreachable") and self.retry_after > 0


class Clients:
    """Clients of all fronts, and the jobs that were accepted from them."""

    def __init__(self, served: Deployment) -> None:
        self.served = served
        self.jobs: dict[str, Recording] = {}
        self.keys: dict[str, str] = {}  # of a request: the job that it was answered with

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=REQUEST_LIMIT_S, limits=limits, verify=False)
        return self

    async def __aexit__(self, *of: object) -> None:
        await self._http.aclose()

    async def ask(self, service: int, method: str, path: str, **more: Any) -> Answer:
        """Send a request to one of the services."""
        said, body = f"{method} {path}", {}
        url = f"http://127.0.0.1:{self.served.ports[service]}{path}"
        try:
            async with (
                asyncio.timeout(REQUEST_LIMIT_S),
                self._http.stream(method, url, **more) as response,
            ):
                if "event-stream" not in response.headers.get("content-type", ""):
                    await response.aread()
        except (TimeoutError, httpx.TimeoutException):
            return Answer(said)
        with contextlib.suppress(ValueError, httpx.ResponseNotRead):
            body = response.json()
        return Answer(said, response.status_code, int(response.headers.get("retry-after", 0)), body)

    async def submit(self, front: int, recording: Recording, key: str = "") -> Answer:
        """Send a recording; if it is accepted, it is among `jobs`."""
        headers = {**FORM, **({"Idempotency-Key": key} if key else {})}
        content = recording.form(diarize="false")
        answer = await self.ask(front, "POST", "/v1/jobs", content=content, headers=headers)
        if answer.status == 202:
            job_id = str(answer.body["id"])
            self.jobs[job_id] = recording
            if key:
                assert self.keys.setdefault(key, job_id) == job_id, "two jobs for one key"
        return answer

    async def submit_many(self, count: int, seconds: int) -> list[str]:
        """Send so many recordings of this length, to the fronts in turn; the jobs' ids."""
        fronts = itertools.cycle(self.served.fronts)
        before = set(self.jobs)
        for number in itertools.islice(NUMBERS, count):
            answer = await self.submit(next(fronts), Recording(number, seconds), f"key-{number}")
            assert answer.status == 202, answer
        return [job_id for job_id in self.jobs if job_id not in before]

    async def insist(self, front: int, recording: Recording, key: str) -> list[Answer]:
        """Send a recording again and again under its key until it is accepted; all answers."""
        answers = [await self.submit(front, recording, key)]
        while answers[-1].status != 202:
            assert answers[-1].refused, answers[-1]
            await asyncio.sleep(POLL_S)  # real time: only how often is asked
            answers.append(await self.submit(front, recording, key))
        return answers

    async def job(self, job_id: str, front: int = 0) -> dict[str, Any]:
        """Return the job as a front shows it; an empty one while there is no answer."""
        answer = await self.ask(front, "GET", f"/v1/jobs/{job_id}")
        return answer.body if answer.status == 200 else {}

    async def shown(self) -> dict[str, dict[str, Any]]:
        """Return all jobs as a front lists them; an empty one for each that it does not."""
        answer = await self.ask(0, "GET", "/v1/jobs?limit=500")
        listed = {job["id"]: job for job in answer.body.get("jobs", [])}
        return {job_id: listed.get(job_id, {}) for job_id in self.jobs}

    async def all_ended(self) -> bool:
        """Return whether all jobs have ended."""
        return all(job.get("state") in ENDED for job in (await self.shown()).values())

    async def wait_for_ends(self) -> None:
        """Wait until all jobs have ended; raise with their states if they do not."""
        try:
            await until_told(self.all_ended, POLL_S)
        except TimeoutError:
            raise AssertionError(f"not all ended: {await self.shown()}") from None

    async def said(self, job_id: str) -> list[str]:
        """Return the lines of a transcript."""
        answer = await self.ask(0, "GET", f"/v1/jobs/{job_id}/transcript")
        return [segment["text"] for segment in answer.body.get("segments", [])]

    async def listed(self, front: int = 0) -> set[str]:
        """Return the ids of all jobs that a front lists."""
        answer = await self.ask(front, "GET", "/v1/jobs?limit=500")
        return {job["id"] for job in answer.body.get("jobs", [])}

    async def check_ended(self) -> Counter[int]:
        """Raise if one of the jobs is not done once with its own words; how many attempts each
        had."""
        attempts: Counter[int] = Counter()
        for job_id, job in (await self.shown()).items():
            assert job.get("state") == "done", job
            assert await self.said(job_id) == self.jobs[job_id].said(), "other words"
            heard = Heard()
            await follow(self.served.ports[0], job_id, heard)
            heard.check(self.jobs[job_id])
            attempts[job["attempts"]] += 1
        return attempts

    async def node_at_work(self) -> Server:
        """Return the first node that is seen working on something."""

        async def found() -> Server | None:
            for node in self.served.nodes:
                answer = await self.ask(node, "GET", "/health")
                if answer.body.get("engine_state") == "busy":
                    return self.served.servers[node]
            return None

        server = await until_told(found, POLL_S)
        assert server is not None
        return server


@dataclass
class Heard:
    """The events of a job that came on one connection."""

    events: list[Event] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    broken: str = ""

    def check(self, recording: Recording) -> None:
        """Raise if an event is missing or came twice; an attempt that continues an earlier one may
        repeat `SETTLES` segments."""
        assert not self.broken, self.broken
        ids = [event.id for event in self.events]
        assert ids == sorted(set(ids)), "numbers do not ascend"
        ends = [event.name for event in self.events if event.name in ENDED]
        assert ends == ["done"], ends
        texts: list[str] = []
        for attempt in self._attempts():
            first = attempt[0].data["index"] if attempt else len(texts)
            assert len(texts) - SETTLES <= first <= len(texts), "segments are missing or came twice"
            indices = [event.data["index"] for event in attempt]
            assert indices == [*range(first, first + len(attempt))], indices
            texts[first:] = [event.data["segment"]["text"] for event in attempt]
        assert texts == recording.said(), "other words"

    def _attempts(self) -> list[list[Event]]:
        attempts: list[list[Event]] = [[]]
        for event in self.events:
            if event.name == "begun":
                attempts.append([])
            elif event.name == "segment":
                attempts[-1].append(event)
        return attempts


async def follow(port: int, job_id: str, heard: Heard) -> None:
    """Read the events of a job on one connection, to its end."""
    try:
        async with Connection(port) as connection:
            await connection.ask("GET", f"/v1/jobs/{job_id}/events")
            heard.answered.set()
            async for event in connection.events():
                heard.events.append(event)
    except (OSError, EOFError, ValueError) as error:
        heard.broken = repr(error)


@contextlib.asynccontextmanager
async def cleared(served: Deployment) -> AsyncIterator[Clients]:
    """Clients that leave no jobs behind; services that do not end theirs are replaced."""
    async with Clients(served) as clients:
        try:
            yield clients
        finally:
            if not await clients.all_ended():
                every = range(len(served.roles))
                served.kill(*every)
                await asyncio.to_thread(served.start, *every)
            for job_id in await clients.listed():
                await clients.ask(0, "DELETE", f"/v1/jobs/{job_id}")


@dataclass
class Outage:
    """What clients observed of a database that stood still. ``all_answered``: all `answers` came
    before its return. ``again``: those to requests that were refused, sent again after it.
    ``probes``: a service, whether the database was back, and the status."""

    seconds: float
    recordings: dict[str, Recording]
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    all_answered: bool = False
    again: list[Answer] = field(default_factory=list)
    streams: dict[str, Heard] = field(default_factory=dict)
    probes: list[tuple[int, bool, int]] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)


async def observe_outage(served: Deployment, seconds: float, jobs: int, hold: Path) -> Outage:
    """Send a short recording and so many longer ones, let the database stand still in the middle of
    these, and send many requests meanwhile; in a long outage once more in its middle. ``hold``: the
    file by which the engines stop there until the outage has begun."""
    fronts, is_back = served.fronts, False
    refused: dict[str, tuple[int, Recording]] = {}
    async with cleared(served) as clients:
        new_file(hold, str(LENGTH // 2))
        await clients.submit_many(1, LENGTH // 4)
        ids = await clients.submit_many(jobs, LENGTH)
        seen = Outage(seconds, clients.jobs, streams={job_id: Heard() for job_id in ids})

        async def some_are_done() -> bool:
            states = [job.get("state") for job in (await clients.shown()).values()]
            return "done" in states and "running" in states

        async def probe() -> None:
            while True:
                for number in range(len(served.roles)):
                    answer = await clients.ask(number, "GET", "/healthz/ready")
                    seen.probes.append((number, is_back, answer.status))
                await asyncio.sleep(0.2)  # real time: only how often is asked

        async def send(front: int, *, named: bool) -> Answer:
            recording = Recording(next(NUMBERS), 1)
            key = f"key-{recording.number}" if named else ""
            answer = await clients.submit(front, recording, key)
            if named and answer.status != 202:
                refused[key] = front, recording
            return answer

        async def ask_much(at_s: float) -> None:
            await asyncio.sleep(at_s)  # real time: any moment of the outage will do
            path = f"/v1/jobs/{ids[-1]}"
            reads = [path] * 8 + [f"{path}/transcript", f"{path}/events", "/v1/jobs"]
            asked = [clients.ask(front, "GET", read) for front in fronts for read in reads]
            sent = [send(front, named=named) for front in fronts for named in (True, False)]
            seen.answers += await asyncio.gather(*asked, *sent)

        async def only_accepted_ones() -> bool:
            seen.listed = await clients.listed(1)
            return seen.listed == {*clients.jobs}

        others = itertools.cycle(served.ports[front] for front in reversed(fronts))
        following = asyncio.gather(*(follow(next(others), *one) for one in seen.streams.items()))
        async with asyncio.timeout(PATIENCE_S):
            for heard in seen.streams.values():  # an outage refuses a stream that is not open yet
                await heard.answered.wait()
        await until_told(some_are_done)
        seen.before = await clients.shown()
        with served.cluster.frozen():
            os.unlink(hold)
            probing = asyncio.create_task(probe())
            bursts = [0.2, seconds / 2] if seconds > 20 else [0.2]
            asking = asyncio.gather(*map(ask_much, bursts))
            await asyncio.sleep(seconds)  # real time: the outage; a longer one is as good
            seen.all_answered = asking.done()
        is_back = True
        await asking
        for key, (front, recording) in refused.items():
            seen.again += await clients.insist(front, recording, key)
        await clients.wait_for_ends()
        seen.after = await clients.shown()
        seen.said = {job_id: await clients.said(job_id) for job_id in clients.jobs}
        with contextlib.suppress(TimeoutError):  # a test compares them
            await until_told(only_accepted_ones)
        async with asyncio.timeout(PATIENCE_S):
            await following
        probing.cancel()
    return seen
