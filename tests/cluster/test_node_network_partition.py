"""A node on the other end of a line that is cut, hangs, or is slow, in a network namespace of its
own: nobody there is told that a connection is dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from service_process import PATIENCE_S, wait_until

from bench.deployment import COMMAND, NODE, Deployment, deployment, postgres_is_here
from bench.queue_clients import FORM, Recording
from bench.serving import ROOT
from sidecar.cluster.membership import HEARTBEAT_INTERVAL_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not postgres_is_here(), reason="NO POSTGRESQL HERE: NOT TESTED"),
]
HERE, THERE = "10.251.7.1", "10.251.7.2"
SETTINGS = {"scripted_speed": 5, "scripted_settles": 5}


class Line:
    """Between us and a network of its own, in which programs can be started."""

    def __init__(self) -> None:
        mark = uuid.uuid4().hex[:6]
        self._name, self._end, self._other = f"vv-{mark}", f"vva{mark}", f"vvb{mark}"
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._end, "type", "veth", "peer", "name", self._other)
            _ip("link", "set", self._other, "netns", self._name)
            _ip("addr", "add", f"{HERE}/24", "dev", self._end)
            _ip("link", "set", self._end, "up")
            for words in (
                ("addr", "add", f"{THERE}/24", "dev", self._other),
                ("link", "set", self._other, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", self._name, *words)
            with socket.create_server((HERE, 0)) as server:
                reach = f"import socket; socket.create_connection({server.getsockname()[:2]}, 5)"
                _ip("netns", "exec", self._name, sys.executable, "-c", reach)
        except BaseException:
            self.close()
            raise

    def started(self, env: dict[str, str], log: Path) -> psutil.Popen:
        """A service at the other end."""
        with log.open("wb") as written:
            command = ["ip", "netns", "exec", self._name, *COMMAND]
            return psutil.Popen(command, cwd=ROOT, env=env, stdout=written, stderr=written)

    def cut(self) -> None:
        """What is sent is lost, and nobody hears of it."""
        _ip("-n", self._name, "link", "set", self._other, "down")

    def mend(self) -> None:
        """As before."""
        _ip("-n", self._name, "link", "set", self._other, "up")

    def close(self) -> None:
        """The line goes with the network."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self._name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def line() -> Iterator[Line]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("NO NETWORK NAMESPACES (root and iproute2): cut lines are not tested")
    try:
        made = Line()
    except (subprocess.CalledProcessError, OSError) as error:
        why = getattr(error, "stderr", b"") or error
        pytest.skip(f"NO NETWORK NAMESPACES ({why!r}): cut lines are not tested")
    yield made
    made.close()


@contextmanager
def node(served: Deployment, line: Line, journal: str) -> Iterator[psutil.Popen]:
    """One at the other end, which finds the database at this address."""
    home = served.folder / "far"
    process = line.started(
        served.environment(home, role=NODE, port=0, journal=journal), home / "log"
    )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in [process, *process.children(recursive=True)]:
                one.kill()
        process.wait()


class Job:
    """As the front tells of it."""

    def __init__(self, served: Deployment, number: int, seconds: int) -> None:
        front = served.servers[0]
        assert front is not None
        self._front, self._recording = front, Recording(number, seconds)
        told = front.request("POST", "/v1/jobs", self._recording.form(), FORM)
        self._path = f"/v1/jobs/{told['id']}"

    def __getitem__(self, name: str) -> Any:
        return self._front.request("GET", self._path)[name]

    @property
    def done_s(self) -> float:
        """How much of it was heard."""
        return float(self["progress"]["audio_seconds_done"])

    def ends(self) -> None:
        """It is done, with its own words, each once."""
        wait_until(lambda: self["state"] in ("done", "failed"), PATIENCE_S, "it ends")
        said = self._front.request("GET", f"{self._path}/transcript")["segments"]
        assert [segment["text"] for segment in said] == self._recording.said()


def nodes_in(journal: str) -> int:
    """Number of nodes that have not expired."""
    with psycopg.connect(journal) as connection:
        row = connection.execute("SELECT count(*) FROM vibevoice.services WHERE works").fetchone()
    assert row is not None
    return int(row[0])


def test_a_node_whose_line_is_cut_loses_its_job_and_is_refused_and_works_again(
    tmp_path: Path, line: Line
) -> None:
    with deployment(tmp_path, 1, 1, HERE, **SETTINGS) as served:
        (near,) = served.nodes
        served.kill(near)
        there = served.journal.replace("127.0.0.1", HERE)
        with node(served, line, there) as far:
            job = Job(served, 1, 45)
            wait_until(lambda: job.done_s > 6, PATIENCE_S, "the far one hears it")
            line.cut()
            served.start(near)
            wait_until(lambda: job["attempts"] == 2, PATIENCE_S, "the near one has it")
            heard_s = job.done_s
            wait_until(lambda: job.done_s > heard_s + 1, PATIENCE_S, "it goes on")
            line.mend()
            job.ends()
            assert job["attempts"] == 2, "what the far one says is refused"
            served.kill(near)
            # Until it expires, a job may be given to it.
            wait_until(lambda: nodes_in(served.journal) == 1, PATIENCE_S, "the near one expired")
            again = Job(served, 2, 5)
            again.ends()
            assert again["attempts"] == 1
            assert far.is_running()


def test_a_slow_line_costs_nobody_a_job(tmp_path: Path, line: Line) -> None:
    with (
        deployment(tmp_path, 1, 0, HERE, **SETTINGS) as served,
        slowly(served.cluster.port, HEARTBEAT_INTERVAL_S / 20) as port,
    ):
        database = served.journal.rsplit("/", 1)[1]
        with node(served, line, f"postgresql://vibevoice@{HERE}:{port}/{database}"):
            job = Job(served, 3, 15)
            job.ends()
            assert job["attempts"] == 1


@contextmanager
def slowly(port: int, delay_s: float) -> Iterator[int]:
    """A port at this end; each piece takes its time from there to ``port``, and back."""

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loop: asyncio.AbstractEventLoop
    ) -> None:
        while piece := await reader.read(1 << 16):
            loop.call_later(delay_s, writer.write, piece)
        loop.call_later(delay_s, writer.close)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(
            pump(reader, forth, loop), pump(back, writer, loop), return_exceptions=True
        )

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(relay, HERE, 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
