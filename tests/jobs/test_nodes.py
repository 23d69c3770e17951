"""What all nodes are to have: said once to a front, and each of them brings itself there."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from postgres import KEY, Cluster
from serving import PATIENCE_S, REPOSITORY, Server, until, wait_until

from sidecar.jobs import steering
from sidecar.jobs.postgres.nodes import PostgresNodes
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.jobs.steering import Steering
from sidecar.speech.engine import Precision
from sidecar.transports.control.admin import wish_for_nodes
from sidecar.workers.desired import Desired, NodeStanding, Reached
from sidecar.workers.models import DEFAULT, Wish

TOKEN = "a-token-of-a-test-and-of-nobody-else"
INT8, FP32 = (Wish(DEFAULT, precision=one) for one in (Precision.INT8, Precision.FP32))


@pytest.fixture
def nodes(journal: str, tmp_path: Path) -> Iterator[PostgresNodes]:
    store = PostgresStore(journal, KEY, tmp_path)
    yield PostgresNodes(store)
    store.close()


def standing(name: str, state: Reached = Reached.WAITING, generation: int = 0) -> NodeStanding:
    return NodeStanding(name, name, generation, state, "", DEFAULT, "fp32")


async def test_so_many_have_a_turn_as_may_and_only_for_the_last_wish(nodes: PostgresNodes) -> None:
    assert await nodes.desired() is None
    first = await nodes.want(INT8, 2)
    for name in "abc":
        await nodes.here(standing(name))
    had = [await nodes.take_turn(name, f"turn-{name}", first.generation) for name in "abc"]
    assert had == [True, True, False]
    assert await nodes.end_turn("turn-a", standing("a", Reached.REACHED, first.generation))
    assert await nodes.take_turn("c", "turn-c", first.generation)
    assert await nodes.end_turn("turn-c", standing("c", Reached.FAILED, first.generation))
    second = await nodes.want(FP32, 1)
    assert await nodes.desired() == second
    assert second.generation > first.generation
    assert not await nodes.take_turn("a", "again", first.generation), "that is no more the last"
    assert not await nodes.take_turn("a", "again", second.generation), "b has the only one"
    assert await nodes.end_turn("turn-b", standing("b", Reached.REACHED, first.generation))
    assert await nodes.take_turn("a", "again", second.generation)


async def test_a_turn_whose_node_is_silent_is_free_and_what_it_says_later_does_not_count(
    nodes: PostgresNodes, journal: str
) -> None:
    wanted = await nodes.want(INT8, 1)
    for name in "ab":
        await nodes.here(standing(name))
    assert await nodes.take_turn("a", "lost", wanted.generation)
    assert await nodes.go_on("lost")
    import psycopg

    with psycopg.connect(journal, autocommit=True) as connection:  # instead of waiting
        connection.execute("UPDATE vibevoice.nodes SET turn_until = now() - interval '1 s'")
    for _ in range(100):  # the database may have started a second ago
        if await nodes.take_turn("b", "other", wanted.generation):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the turn is not free")
    await nodes.here(standing("a"))  # it comes back, and has no turn
    assert not await nodes.go_on("lost")
    assert not await nodes.end_turn("lost", standing("a", Reached.REACHED, wanted.generation))
    assert {one.id: one.generation for one in await nodes.all()} == {"a": 0, "b": 0}


async def test_a_node_says_that_it_is_there_while_it_loads_even_if_its_turn_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steering, "BEAT_S", 0.01)
    loading, ready = asyncio.Event(), asyncio.Event()
    nodes = AsyncMock(spec=PostgresNodes)
    nodes.desired.return_value = Desired(1, INT8)
    nodes.go_on.return_value = False

    async def become(wish: Wish) -> None:
        loading.set()
        await ready.wait()

    works = Mock(become=become, standing=lambda: (DEFAULT, "fp32"))
    node = Steering(nodes, "a", "a", works, contextlib.nullcontext)
    node.open()
    await loading.wait()
    before = nodes.here.await_count
    await until(lambda: nodes.here.await_count >= before + 3)
    assert nodes.go_on.await_count == 1
    assert nodes.here.await_args.args[0].state is Reached.LOADING
    ready.set()
    await node.close()


class Fleet:
    """A front with an administrator, and nodes that take a second to load."""

    def __init__(self, start: Callable[..., Server], journal: str, folder: Path) -> None:
        shared = {
            "journal": journal,
            "journal_key": KEY,
            "jobs_dir": folder / "shared",
            "scripted_load": 1,
            "shutdown_grace": 5,
        }
        self._start = lambda **more: start(**{**shared, **more})
        self.front = self._start(role="front", admin=1, token=TOKEN)
        self.front.client.headers["Authorization"] = f"Bearer {TOKEN}"
        with ThreadPoolExecutor() as threads:
            more = ({}, {}, {"scripted_fails": "int8"})
            self.nodes = list(threads.map(lambda one: self.add(**one), more))

    def add(self, **more: object) -> Server:
        return self._start(role="node", **more)

    def want(self, **wish: Any) -> int:
        answer = self.front.client.put("/admin/nodes", json=wish)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["generation"])

    def standing(self) -> dict[str, dict[str, Any]]:
        answer = self.front.client.get("/admin/nodes")
        assert answer.status_code == 200, answer.text
        return {one["id"]: one for one in answer.json()["nodes"]}

    def loading(self) -> list[str]:
        return [one for one, at in self.standing().items() if at["state"] == "loading"]

    def dealt_with(self, generation: int) -> bool:
        there = {one.health()["instance"] for one in self.nodes}
        found = self.standing()
        return there <= {one for one, at in found.items() if at["generation"] == generation}


@pytest.fixture(scope="module")
def fleet(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    journal = postgres_cluster.new_database()
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> Server:
            home = tmp_path_factory.mktemp("server")
            return stack.enter_context(Server(home, **settings))

        yield Fleet(start, journal, folder)
    postgres_cluster.drop(journal)


def test_one_after_the_other_brings_itself_there_and_work_goes_on(
    fleet: Fleet, voice: bytes
) -> None:
    job = fleet.front.submit(voice)
    fleet.front.wait_state(job, "done")
    failing = fleet.nodes[2].health()["instance"]
    generation = fleet.want(compute_type="int8")
    jobs, most, deadline = [], 0, time.monotonic() + PATIENCE_S
    while not fleet.dealt_with(generation):
        assert time.monotonic() < deadline, "not all have it"
        most = max(most, len(fleet.loading()))
        jobs.append(fleet.front.submit(voice))
        fleet.front.wait_state(jobs[-1], "done")
    assert most == 1
    assert jobs, "there was work, and it was done"
    found = fleet.standing()
    ends = {at["state"] for one, at in found.items() if one != failing}
    assert ends == {"reached"}
    assert (found[failing]["state"], found[failing]["code"]) == ("failed", "model_load_failed")
    assert found[failing]["precision"] == "fp32", "it has what it had"
    precisions = [one.health()["precision"] for one in fleet.nodes]
    assert precisions == ["int8", "int8", "fp32"]


def test_a_node_that_dies_in_its_turn_frees_it_and_one_that_starts_has_what_all_have(
    fleet: Fleet,
) -> None:
    generation = fleet.want(compute_type="fp32")
    instances = {one.health()["instance"]: one for one in fleet.nodes}
    (dying,) = wait_until(fleet.loading, PATIENCE_S, "one has its turn")
    instances[dying].process.kill()
    instances[dying].process.wait()
    fleet.nodes.remove(instances[dying])
    later = fleet.want(compute_type="int8")
    assert later > generation
    fleet.nodes.append(fleet.add())
    wait_until(lambda: fleet.dealt_with(later), PATIENCE_S, "all have the last wish")
    assert fleet.nodes[-1].health()["precision"] == "int8"


def test_it_is_shown_and_wished_for_on_the_command_line(fleet: Fleet) -> None:
    command = [sys.executable, "-m", "sidecar.main", "nodes", "--token", TOKEN]
    server = f"http://127.0.0.1:{fleet.front.port}"
    shown = subprocess.run(
        [*command, "--precision", "fp32", "--at-once", "3", "--server", server],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert shown.returncode == 0, shown.stderr
    first, *rest = shown.stdout.splitlines()
    assert "default fp32, 3 at once" in first
    assert len(rest) >= len(fleet.nodes)
    generation = int(first.split(":")[0].split()[1])
    wait_until(lambda: fleet.dealt_with(generation), PATIENCE_S, "all have it")
    wait_until(
        lambda: f"generation {float(generation)}" in fleet.front.client.get("/metrics").text,
        PATIENCE_S,
        "the numbers have it",
    )


@pytest.mark.parametrize(
    "values",
    [
        {"at_once": 0},
        {"at_once": True},
        {"model_id": "x"},
        {"model_path": "/x"},
        {"model_id": "default", "model_path": "/x"},
        {"compute_type": "int3"},
    ],
)
def test_what_cannot_be_wished_for_is_refused(fleet: Fleet, values: dict[str, Any]) -> None:
    answer = fleet.front.client.put("/admin/nodes", json=values)
    assert (answer.status_code, answer.json()["error"]) == (400, "field_invalid")


def test_a_wish_is_for_the_model_of_the_start_or_for_one_by_name() -> None:
    assert wish_for_nodes({}) == (Wish(DEFAULT), 1)
    named = {"model_id": "medical", "model_path": "/m", "compute_type": "int8", "at_once": 2}
    assert wish_for_nodes(named) == (Wish("medical", Path("/m"), precision=Precision.INT8), 2)
