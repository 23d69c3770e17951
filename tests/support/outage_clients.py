"""Clients of services that share their jobs, and what they observe during an outage.

Only the wires and the processes are observed, so this holds for any implementation behind them.
"""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import psutil
from service_process import PATIENCE_S

from bench import serving
from bench.deployment import Deployment
from bench.queue_clients import FORM, Connection, Event, Recording
from bench.serving import Server

ENDED = ("done", "failed", "cancelled")
REQUEST_LIMIT_S = 30.0  # six times what the service promises: then it counts as no answer
POLL_S = 0.1
SETTLES = 2  # segments between two checkpoints of the engine
NUMBERS = itertools.count(random.randrange(1 << 30))  # no two recordings are alike


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request; ``status`` 0 is none within `REQUEST_LIMIT_S`."""

    request: str
    status: int
    took_s: float
    retry_after: str | None = None
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """That of the problem, or an empty one."""
        return str(self.body.get("code", ""))

    @property
    def refused(self) -> bool:
        """Whether it says that the database is away, and when to ask again."""
        said = self.status, self.code
        return said == (503, "journal_unreachable") and int(self.retry_after or 0) > 0

    def __str__(self) -> str:
        return f"{self.request}: {self.status} {self.code} in {self.took_s:.1f} s"


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
        port, said = self.served.ports[service], f"{method} {path}"
        begun = time.monotonic()  # real time: only printed
        try:
            async with asyncio.timeout(REQUEST_LIMIT_S):
                url = f"http://127.0.0.1:{port}{path}"
                async with self._http.stream(method, url, **more) as response:
                    if "event-stream" not in response.headers.get("content-type", ""):
                        await response.aread()
        except (TimeoutError, httpx.TimeoutException):
            return Answer(said, 0, REQUEST_LIMIT_S)
        took_s, body = time.monotonic() - begun, {}  # real time: only printed
        with contextlib.suppress(ValueError, httpx.ResponseNotRead):
            body = response.json()
        retry_after = response.headers.get("retry-after")
        return Answer(said, response.status_code, took_s, retry_after, body)

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

    async def shown(self, jobs: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return these jobs, or all, as a front lists them; an empty one for each that it does
        not."""
        answer = await self.ask(0, "GET", "/v1/jobs?limit=500")
        listed = {job["id"]: job for job in answer.body.get("jobs", [])}
        return {job_id: listed.get(job_id, {}) for job_id in (self.jobs if jobs is None else jobs)}

    async def all_ended(self, jobs: Iterable[str] | None = None) -> bool:
        """Return whether these jobs, or all, have ended."""
        return all(job.get("state") in ENDED for job in (await self.shown(jobs)).values())

    async def wait_for_ends(self, jobs: Iterable[str] | None = None) -> None:
        """Wait until these jobs, or all, have ended; raise with their states if they do not."""
        if not await eventually(lambda: self.all_ended(jobs), PATIENCE_S):
            shown = (await self.shown(jobs)).values()
            states = Counter((job.get("state"), job.get("attempts")) for job in shown)
            raise AssertionError(f"not all ended within {PATIENCE_S} s: {dict(states)}")

    async def said(self, job_id: str) -> list[str]:
        """Return the lines of a transcript."""
        answer = await self.ask(0, "GET", f"/v1/jobs/{job_id}/transcript")
        return [segment["text"] for segment in answer.body.get("segments", [])]

    async def listed(self, front: int = 0) -> set[str]:
        """Return the ids of all jobs that a front lists."""
        answer = await self.ask(front, "GET", "/v1/jobs?limit=500")
        return {job["id"] for job in answer.body.get("jobs", [])}

    async def check_ended(self, jobs: Iterable[str] | None = None) -> Counter[int]:
        """Raise if one of the jobs is not done once with its own words; how many attempts each
        had."""
        attempts: Counter[int] = Counter()
        for job_id, job in (await self.shown(jobs)).items():
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

        server = await eventually(found, PATIENCE_S, "a node works")
        assert isinstance(server, Server)
        return server


@dataclass
class Heard:
    """The events of a job that came on one connection."""

    events: list[Event] = field(default_factory=list)
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
            async for event in connection.events():
                heard.events.append(event)
    except (OSError, EOFError, ValueError) as error:
        heard.broken = repr(error)


async def eventually(
    condition: Callable[[], Awaitable[Any]], limit_s: float, what: str = ""
) -> Any:
    """Poll until ``condition`` is true; its value. At the limit fail with ``what``, or return None
    if it is empty."""
    # real time: a limit after which the test is given up
    deadline = time.monotonic() + limit_s
    while not (value := await condition()):
        if time.monotonic() > deadline:  # real time: as above
            assert not what, f"not within {limit_s} s: {what}"
            return None
        await asyncio.sleep(POLL_S)  # real time: only how often is asked
    return value


@contextlib.contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Stop a service and its children meanwhile, as on a machine that is suspended."""
    processes = server.tree()
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


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
    before its return. ``probes``: a service, whether the database was back, and the status.
    ``last_end_s``: seconds after its return; None if not all jobs ended."""

    seconds: float
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    recordings: dict[str, Recording] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    all_answered: bool = False
    again: list[Answer] = field(default_factory=list)
    streams: dict[str, Heard] = field(default_factory=dict)
    probes: list[tuple[int, bool, int]] = field(default_factory=list)
    last_end_s: float | None = None
    listed: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        ends = "not all jobs ended" if self.last_end_s is None else f"{self.last_end_s:.1f} s"
        states = Counter(job.get("state", "?") for job in self.after.values())
        attempts = Counter(job.get("attempts", "?") for job in self.after.values())
        kinds = Counter((one.status, one.code) for one in self.answers)
        longest_s = max((one.took_s for one in self.answers), default=0.0)
        return (
            f"outage of {self.seconds:g} s: last end after it: {ends}; {dict(states)}; "
            f"attempts {dict(attempts)}; {len(self.answers)} requests meanwhile: {dict(kinds)}, "
            f"the longest {longest_s:.1f} s"
        )


class Experiment:
    """Jobs that run and wait while the database stands still."""

    def __init__(self, clients: Clients, seconds: float) -> None:
        self._clients, self._served = clients, clients.served
        self.seen = Outage(seconds)
        self._back = False
        self._unsure: dict[str, tuple[int, Recording]] = {}

    async def run(self, jobs: int, seconds: int) -> Outage:
        """Send so many recordings of this length, and let the database stand still in the middle
        of their work."""
        clients, seen = self._clients, self.seen
        ids = await clients.submit_many(jobs, seconds)
        follows = [asyncio.create_task(self._follow(one, at)) for at, one in enumerate(ids)]

        async def some_are_done() -> bool:
            states = [job.get("state") for job in (await clients.shown(ids)).values()]
            return "done" in states and "running" in states

        await eventually(some_are_done, PATIENCE_S, "the first are done")
        seen.before = await clients.shown(ids)
        with self._served.cluster.frozen():
            probing = asyncio.create_task(self._probe())
            asking = asyncio.create_task(self._ask_meanwhile(ids[-1]))
            await asyncio.sleep(seen.seconds)  # real time: the outage; a longer one is as good
            seen.all_answered = asking.done()
        self._back = True
        await asking
        await self._end()
        await asyncio.wait(follows, timeout=PATIENCE_S)
        for task in (*follows, probing):
            task.cancel()
        return seen

    async def _end(self) -> None:
        clients, seen = self._clients, self.seen
        begun = time.monotonic()  # real time: only printed
        for key, (front, recording) in self._unsure.items():
            seen.again += await clients.insist(front, recording, key)
        if await eventually(clients.all_ended, PATIENCE_S):
            seen.last_end_s = time.monotonic() - begun  # real time: only printed
        seen.after, seen.recordings = await clients.shown(), dict(clients.jobs)
        seen.said = {job_id: await clients.said(job_id) for job_id in clients.jobs}

        async def only_accepted_ones() -> bool:
            seen.listed = await clients.listed(1)
            return seen.listed == {*clients.jobs}

        await eventually(only_accepted_ones, PATIENCE_S)

    async def _follow(self, job_id: str, at: int) -> None:
        fronts, heard = self._served.fronts, Heard()
        self.seen.streams[job_id] = heard
        await follow(self._served.ports[fronts[(at + 1) % len(fronts)]], job_id, heard)

    async def _probe(self) -> None:
        """Ask every service whether it is ready, for as long as this runs."""
        while True:
            for number in range(len(self._served.roles)):
                answer = await self._clients.ask(number, "GET", "/healthz/ready")
                self.seen.probes.append((number, self._back, answer.status))
            await asyncio.sleep(0.2)  # real time: only how often is asked

    async def _ask_meanwhile(self, job_id: str) -> None:
        """Send many requests at once; in a long outage once more in its middle."""
        bursts = [0.2, self.seen.seconds / 2] if self.seen.seconds > 20 else [0.2]
        await asyncio.gather(*(self._burst(job_id, at_s) for at_s in bursts))

    async def _burst(self, job_id: str, at_s: float) -> None:
        await asyncio.sleep(at_s)  # real time: any moment of the outage will do
        path = f"/v1/jobs/{job_id}"
        reads = [path] * 8 + [f"{path}/transcript", f"{path}/events", "/v1/jobs"]
        for_each = [(front, read) for front in self._served.fronts for read in reads]
        asked = [self._clients.ask(front, "GET", read) for front, read in for_each]
        sent = [self._send(front, key) for front in self._served.fronts for key in (True, False)]
        self.seen.answers += await asyncio.gather(*asked, *sent)

    async def _send(self, front: int, named: bool) -> Answer:
        recording = Recording(next(NUMBERS), 1)
        key = f"key-{recording.number}" if named else ""
        answer = await self._clients.submit(front, recording, key)
        if named and answer.status != 202:
            self._unsure[key] = front, recording
        return answer


def observed(served: Deployment, seconds: float, jobs: int) -> Outage:
    """Run the experiment with so many jobs of two seconds of work each, and print what came of
    it."""

    async def run() -> Outage:
        async with cleared(served) as clients:
            return await Experiment(clients, seconds).run(jobs, 20)

    outage = asyncio.run(run())
    print(f"\n{outage}; {serving.machine()}")
    return outage


def plainly(answers: Iterable[Answer]) -> str:
    """Answers as text, for a failure."""
    return json.dumps([str(one) for one in answers], indent=1)
