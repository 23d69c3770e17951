"""Services that share their jobs, killed and cut off; `python -m bench.shared_kills` is the long
run of it."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from service_process import PATIENCE_S, wait_until

from bench.deployment import deployment, postgres_is_here
from bench.queue_clients import FORM, Recording
from bench.serving import Server
from bench.shared_kills import SETTLES, tried
from sidecar.cluster.membership import EXPIRY_HEARTBEATS, HEARTBEAT_INTERVAL_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not postgres_is_here(), reason="NO POSTGRESQL HERE: NOT TESTED"),
]


async def test_whoever_is_killed_every_job_ends_once_and_with_its_own_words(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    told = await tried(tmp_path, 8, 3, 1, seed, poison=1)
    assert told.states.total() == len(told.jobs) == len(told.keys) == 8
    assert dict(told.states) == {"done": 7, "failed (poison)": 1}
    assert told.cost[0] <= 2 + told.kills.total(), "it cost more than two engines"
    assert max(told.again, default=0) <= SETTLES


def test_what_a_node_says_that_was_cut_off_meanwhile_is_refused(tmp_path: Path) -> None:
    recording = Recording(1, 40)
    with deployment(tmp_path, 1, 2, scripted_speed=5, scripted_settles=5) as served:
        front, *nodes = served.servers
        assert front is not None
        assert all(nodes)
        job = front.request("POST", "/v1/jobs", recording.form(), FORM)
        path = f"/v1/jobs/{job['id']}"

        def done_s() -> float:
            return float(front.request("GET", path)["progress"]["audio_seconds_done"])

        wait_until(lambda: done_s() > 6, PATIENCE_S, "it is heard")
        busy = next(node for node in nodes if node is not None and _works(node))
        for process in busy.tree():
            process.send_signal(signal.SIGSTOP)
        time.sleep(HEARTBEAT_INTERVAL_S * EXPIRY_HEARTBEATS)
        wait_until(lambda: _of(front, path)["attempts"] == 2, PATIENCE_S, "another has it")
        for process in busy.tree():
            process.send_signal(signal.SIGCONT)
        wait_until(lambda: _of(front, path)["state"] == "done", PATIENCE_S, "it is done")
        assert _of(front, path)["attempts"] == 2
        said = front.request("GET", f"{path}/transcript")["segments"]
        assert [segment["text"] for segment in said] == recording.said()
        assert busy.request("GET", "/health")["status"] == "ok"


def _works(node: Server) -> bool:
    return node.request("GET", "/health")["worker_pid"] is not None


def _of(front: Server, path: str) -> dict[str, object]:
    return dict(front.request("GET", path))
