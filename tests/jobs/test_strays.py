"""Jobs that fit no node: they are told so, wait for one that can, and end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from eventsource import events_of
from histories import submitted
from hypothesis import given
from hypothesis import strategies as st
from postgres import KEY, Cluster
from serving import PATIENCE_S, Server, until, wait_until
from shared_memory import Shared, SharedMemory

from sidecar import errors
from sidecar.jobs import surveying
from sidecar.jobs.events import Begun, Failure
from sidecar.jobs.postgres.store import PostgresStore
from sidecar.jobs.record import JobRecord, JobState
from sidecar.jobs.strays import ALIVE_S, Verdict, told, verdict
from sidecar.jobs.surveying import Survey

LONG = Failure.of(errors.AudioTooLong("It has 9.0 h.", hint="Cut it."))
GREEK = Failure.of(errors.LanguageUnsupported("It knows no 'el'.", hint="It knows: en."))
NEVER = 1e9
nodes = st.sets(st.sampled_from("abcd"))
seconds = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("alive", "refused_by", "for_s", "becomes"),
    [
        ("", "", 1e6, Verdict.OPEN),
        ("", "a", 1e6, Verdict.OPEN),
        ("a", "", 1e6, Verdict.OPEN),
        ("ab", "a", 1e6, Verdict.OPEN),
        ("ab", "abc", 0.0, Verdict.REFUSED),
        ("ab", "abc", 599.0, Verdict.REFUSED),
        ("ab", "abc", 600.0, Verdict.ENDS),
    ],
)
def test_what_becomes_of_a_job_by_table(
    alive: str, refused_by: str, for_s: float, becomes: Verdict
) -> None:
    assert verdict(alive, refused_by, for_s, 600.0) is becomes


@given(nodes, nodes, seconds, seconds)
def test_nothing_ends_that_somebody_may_take_or_while_nobody_is_there(
    alive: Collection[str], refused_by: Collection[str], for_s: float, patience_s: float
) -> None:
    found = verdict(alive, refused_by, for_s, patience_s)
    if not alive or any(one not in refused_by for one in alive):
        assert found is Verdict.OPEN
    else:
        assert found is (Verdict.ENDS if for_s >= patience_s else Verdict.REFUSED)


def test_it_is_said_what_the_nodes_said_and_what_to_do() -> None:
    error = told([LONG, GREEK, LONG])
    assert error.code == "unschedulable"
    assert "None of 3 nodes" in error.detail
    assert "2 × audio_too_long (It has 9.0 h), 1 × language_unsupported" in error.detail
    assert error.hint.startswith("Cut it.")
    assert "The only node" in told([GREEK]).detail


class Node(PostgresStore):
    """A node's store, each of whose looks is a heartbeat and says what it refuses."""

    def __init__(self, journal: str, folder: Path, name: str) -> None:
        super().__init__(journal, KEY, folder)
        self._is = name

    async def says(
        self, refused: dict[str, Failure], able: Collection[str], patience_s: float = NEVER
    ) -> None:
        await self.look(self._is, refused, able, patience_s)

    async def known(self) -> set[str]:
        alive = "SELECT id FROM vibevoice.nodes WHERE vibevoice.there(seen, %s)"
        return {
            name for (name,) in await self.ask(lambda c: c.execute(alive, [ALIVE_S]).fetchall())
        }


@pytest.fixture
def opened(journal: str, tmp_path: Path) -> Iterator[Callable[[], Node]]:
    """Nodes of one database."""
    with ExitStack() as stack:
        names = itertools.count()

        def opened() -> Node:
            store = Node(journal, tmp_path, f"node-{next(names)}")
            stack.callback(store.close)
            return store

        yield opened


async def added(store: PostgresStore) -> str:
    record = submitted(durable=True)
    store.add(record)
    await store.written(record.id)
    return record.id


def later(journal: str, seconds: float, *tables: str) -> None:
    """As if what is noted there had been noted so much earlier."""
    columns = {"nodes": ("seen",), "strays": ("since", "seen"), "jobs": ("leased_until",)}
    with psycopg.connect(journal) as connection:
        for table in tables:
            shifts = ", ".join(
                f"{column} = {column} - make_interval(secs => {seconds})"
                for column in columns[table]
            )
            connection.execute(f"UPDATE vibevoice.{table} SET {shifts}")  # type: ignore[call-overload]


def waited(journal: str, seconds: float) -> None:
    """As if those that all refuse had been waiting for so much longer."""
    with psycopg.connect(journal) as connection:
        connection.execute(
            "UPDATE vibevoice.strays SET since = since - make_interval(secs => %s)", (seconds,)
        )


async def test_what_all_refuse_is_told_and_ends_and_what_one_can_is_not(
    opened: Callable[[], Node], journal: str
) -> None:
    one, other = opened(), opened()
    job_id = await added(one)

    def known() -> JobRecord:
        return other.get(job_id)

    await other.says({}, [job_id])
    await one.says({job_id: LONG}, [])
    assert one.get(job_id).refused is None, "the other can do it"
    await other.says({job_id: GREEK}, [])
    refused = known().refused
    assert refused is not None
    assert "audio_too_long" in refused.detail
    assert "language_unsupported" in refused.detail
    assert known().state is JobState.QUEUED
    count = len(other.events(job_id))
    await other.says({job_id: GREEK}, [])
    assert len(other.events(job_id)) == count, "it was said again"
    await other.says({}, [job_id])
    assert known().refused is None
    await other.says({job_id: GREEK}, [])
    waited(journal, 60)
    await other.says({job_id: GREEK}, [], 59.0)
    error = known().error
    assert known().state is JobState.FAILED
    assert error is not None
    assert error.code == "unschedulable"


async def test_time_without_a_node_does_not_count_and_who_is_gone_has_no_say(
    opened: Callable[[], Node], journal: str
) -> None:
    gone, one = opened(), opened()
    job_id = await added(gone)
    await gone.says({}, [job_id])
    later(journal, ALIVE_S + 1, "nodes")
    await one.says({job_id: LONG}, [], 5.0)
    assert one.get(job_id).refused is not None, "one that is gone could have done it"
    later(journal, 3600.0, "nodes", "strays")  # and nobody looked for an hour
    await one.says({job_id: LONG}, [], 5.0)
    assert one.get(job_id).state is JobState.QUEUED
    waited(journal, 6)
    await one.says({job_id: LONG}, [], 5.0)
    assert one.get(job_id).state is JobState.FAILED


async def test_who_is_there_is_so_for_all_rules_and_who_has_not_looked_yet_decides_nothing(
    opened: Callable[[], Node], journal: str
) -> None:
    one, other = opened(), opened()
    job_id = await added(one)
    assert await one.known() == set()
    await other.says({job_id: LONG}, [])
    refused = other.get(job_id).refused
    assert refused is not None
    assert "only node" in refused.detail, "one was asked that has not looked"
    await one.catch_up()
    assert one.get(job_id).refused is not None
    await one.says({}, [job_id])
    assert one.get(job_id).refused is None
    assert await one.known() == {"node-0", "node-1"}
    later(journal, ALIVE_S + 1, "nodes")
    await other.catch_up()
    assert other.get(job_id).refused is None
    await other.says({job_id: LONG}, [])
    assert await other.known() == {"node-1"}
    assert other.get(job_id).refused is not None
    await other.leave("node-1")
    assert await one.known() == set(), "a node that ends is gone at once"


async def test_what_ran_where_nobody_is_any_more_is_told_as_well(
    opened: Callable[[], Node], journal: str
) -> None:
    gone, one = opened(), opened()
    job_id = await added(gone)
    assert await gone.claim(lambda record: True)
    gone.append(job_id, Begun())
    await gone.written(job_id)
    await one.says({job_id: LONG}, [])
    with psycopg.connect(journal) as connection:
        (at,) = connection.execute("SELECT state FROM vibevoice.jobs").fetchone() or ("",)
    assert at == "running", "somebody has it"
    with psycopg.connect(journal) as connection:  # a server that was just started waits for all
        connection.execute(
            "SELECT pg_sleep(extract(epoch FROM pg_postmaster_start_time() - now()) + 3.1)"
        )
    later(journal, 60.0, "jobs")
    await one.says({job_id: LONG}, [])
    record = one.get(job_id)
    assert (record.state, record.interruptions) == (JobState.QUEUED, 1)
    assert record.refused is not None


def test_nodes_that_are_services_refuse_one_after_another_and_a_later_one_takes_it(
    postgres_cluster: Cluster, tmp_path: Path, voice: bytes
) -> None:
    journal = postgres_cluster.new_database()
    shared = {"journal": journal, "journal_key": KEY, "jobs_dir": tmp_path / "shared"}
    with ExitStack() as stack:

        def start(name: str, role: str = "node", **more: Any) -> Server:
            settings = {**shared, "role": role, "unschedulable_after": "10m", **more}
            return stack.enter_context(Server(tmp_path / name, **settings))

        front = start("front", "front")
        jobs = [sent(front, voice)]
        start("short", max_audio_hours=0.0005)
        english = start("english", engine="moonshine")
        path = f"/v1/jobs/{jobs[0]}"

        def refused() -> str:
            return str(front.client.get(path).json().get("refused"))

        said = "audio_too_long", "language_unsupported"
        wait_until(lambda: all(one in refused() for one in said), PATIENCE_S, "both refuse it")
        assert front.client.get(path).json()["state"] == "queued"

        def ended() -> bool:
            waited(journal, 601)  # again: time in which no node was seen does not count
            return bool(front.job(jobs[0])["state"] == "failed")

        wait_until(ended, PATIENCE_S, "it ends")
        error = front.client.get(path).json()["error"]
        assert error["code"] == "unschedulable"
        assert all(one in error["detail"] for one in said)
        assert "start a node" in error["hint"]
        names = [event.name for event in events_of(front, jobs[0])]
        assert names[-1] == "failed"
        assert "refused" in names
        assert english.health()["worker_pid"] is None, "it was tried all the same"

        jobs.append(sent(front, voice))
        path = f"/v1/jobs/{jobs[1]}"
        wait_until(lambda: said[0] in refused(), PATIENCE_S, "it is refused as well")
        start("any")
        wait_until(lambda: front.job(jobs[1])["state"] in ("done", "failed"), PATIENCE_S, "its end")
        assert front.job(jobs[1])["state"] == "done", front.client.get(path).text
        assert "refused" not in front.client.get(path).json()
    postgres_cluster.drop(journal)


def sent(front: Server, voice: bytes) -> str:
    answer = front.client.post("/v1/jobs", files={"audio": voice}, data={"language": "de"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_a_node_thinks_about_a_few_at_a_time_and_about_all_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surveying, "LOOK_S", 0.0)
    store, asked = SharedMemory(Shared()), []
    for _ in range(3 * surveying.MOST):
        store.add(submitted(durable=True))

    def refusal(record: JobRecord) -> errors.SidecarError | None:
        asked.append(record.id)
        return errors.WontFit() if len(asked) % 2 else None

    looks: list[int] = []
    monkeypatch.setattr(store, "look", lookout(looks, asked))
    survey = Survey(store, store, refusal, NEVER, "a")
    survey.open()
    await until(lambda: len(looks) >= 4)
    await survey.close()
    assert looks[:4] == [20, 40, 60, 60]
    assert len({*asked}) == 60


def lookout(looks: list[int], asked: list[str]) -> Callable[..., Any]:
    """Notes how many had been thought about at each look, all of which are told."""

    async def look(
        node_id: str, refused: dict[str, Failure], able: list[str], patience_s: float
    ) -> None:
        assert len(refused) + len(able) == len(asked)
        looks.append(len(asked))

    return look
