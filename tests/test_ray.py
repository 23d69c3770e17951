"""The application for Ray, as `serve run` starts it, on a cluster of this machine, two replicas."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from serving import PATIENCE_S, wait_until

from bench import serving
from bench.arrangements import RAY_PORT, REPLICAS, SPEED, TOKEN, Arrangement, on_ray, ray_is_here
from bench.crowd import Recording

pytestmark = pytest.mark.skipif(
    not ray_is_here(), reason="NO RAY HERE: pip install 'ray[serve]' (500 MB); NOT TESTED"
)
LONG_S = 4 * SPEED
"""Four seconds of work."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Arrangement]:
    with serving.workshop() as folder, on_ray(folder) as running:
        yield running


@pytest.fixture
def client(cluster: Arrangement) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"http://127.0.0.1:{RAY_PORT}"
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as one:
        yield one


def submitted(client: httpx.Client, number: int = 0) -> str:
    files = {"audio": Recording(number, LONG_S).wav()}
    return str(client.post("/v1/jobs", files=files).raise_for_status().json()["id"])


def job(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return dict(client.get(f"/v1/jobs/{job_id}").raise_for_status().json())


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    over = ("done", "failed", "cancelled")
    wait_until(lambda: job(client, job_id)["state"] in over, PATIENCE_S, "it ends")
    return job(client, job_id)


def a_replica(cluster: Arrangement) -> psutil.Process:
    (all_,) = cluster.parts.values()
    named = "ServeReplica:default:Replica"
    alive = (one for one in all_ if one.is_running())
    return next(one for one in alive if any(named in word for word in one.cmdline()))


def test_lines_come_as_they_are_heard_and_a_transcript_in_the_end(client: httpx.Client) -> None:
    job_id, late, last = submitted(client), [], ""
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as told:
        for line in told.iter_lines():
            if line.startswith("event: "):
                last = line
                late += [time.monotonic()] if last == "event: segment" else []
    assert last == "event: done"
    assert len(late) == LONG_S
    segments = client.get(f"/v1/jobs/{job_id}/transcript").json()["segments"]
    said = [float(one["text"]) for one in segments]
    assert late[0] < said[-1], "the first was told while the last was not yet heard"


def test_a_job_that_is_cancelled_frees_its_replica(client: httpx.Client) -> None:
    ids = [submitted(client, number) for number in range(REPLICAS + 1)]
    wait_until(lambda: job(client, ids[0])["state"] == "running", PATIENCE_S, "it runs")
    assert job(client, ids[-1])["state"] == "queued"
    client.delete(f"/jobs/{ids[0]}").raise_for_status()
    assert ended(client, ids[0])["state"] == "cancelled"
    assert [ended(client, one)["state"] for one in ids[1:]] == ["done"] * REPLICAS


def test_a_replica_that_is_killed_costs_its_job_one_attempt(
    cluster: Arrangement, client: httpx.Client
) -> None:
    ids = [submitted(client, number) for number in range(REPLICAS)]
    for one in ids:
        wait_until(lambda one=one: job(client, one)["state"] == "running", PATIENCE_S, "all run")
    a_replica(cluster).kill()
    told = sorted((one["state"], one["attempts"]) for one in (ended(client, one) for one in ids))
    assert told == [*[("done", 1)] * (REPLICAS - 1), ("done", 2)]
