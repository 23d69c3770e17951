"""Ray replicas as places: ``python -m bench.replicas --replicas 2`` (needs ``ray[serve]``).

The application of ``deploy/ray`` on a cluster of this machine, with the scripted engine of known
speed: overhead of a job, memory and CPU at rest, how far apart events are, twice as many jobs as
there are replicas, a job that is cancelled, and a replica that is killed in the middle.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import serving

TOKEN = "bench-of-replicas-" + "0" * 32
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
URL = "http://127.0.0.1:8000"
RAY = serving.ROOT / "deploy" / "ray"


def prepared(speed: float, folder: Path) -> None:
    """What the front and the replicas find in the environment."""
    os.environ.update(
        VIBEVOICE_ENGINE="scripted",
        VIBEVOICE_SCRIPTED_SPEED=str(speed),
        VIBEVOICE_TOKEN=TOKEN,
        VIBEVOICE_CONFIG=str(folder / "config.toml"),
        VIBEVOICE_DATA_DIR=str(folder / "data"),
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        PYTHONPATH=os.pathsep.join([str(serving.ROOT), str(RAY)]),
    )
    sys.path.insert(0, str(RAY))


def started(replicas: int) -> float:
    """Seconds until the application answers."""
    import ray
    from ray import serve

    begun = time.perf_counter()
    ray.init(num_cpus=2 * replicas + 4, include_dashboard=False, log_to_driver=False)
    from application import build

    serve.run(build({"replicas": str(replicas)}), route_prefix="/")
    return time.perf_counter() - begun


def processes() -> list[psutil.Process]:
    """All of the cluster: what this process started, and what that did; of nobody else's any."""
    return psutil.Process().children(recursive=True)


def a_replica() -> psutil.Process:
    """A replica of ours."""
    named = "ServeReplica:default:Replica"
    return next(one for one in processes() if any(named in word for word in one.cmdline()))


def at_rest(span_s: float = 10.0) -> str:
    """Memory (PSS) and share of a core of the cluster."""
    all_ = processes()
    pss = sum(one.memory_full_info().pss for one in all_) / 1e6
    begun, before = time.perf_counter(), serving.cpu_s(all_)
    time.sleep(span_s)
    share = (serving.cpu_s(all_) - before) / (time.perf_counter() - begun)
    return f"{len(all_)} processes, {pss:.0f} MB PSS, {100 * share:.1f} % of a core"


def transcribed_s(client: httpx.Client, sound: bytes) -> float:
    """Seconds of one recording."""
    begun = time.perf_counter()
    client.post("/transcribe", files={"audio": sound}).raise_for_status()
    return time.perf_counter() - begun


def submitted(client: httpx.Client, sound: bytes) -> str:
    """The id of a job."""
    answer = client.post("/v1/jobs", files={"audio": sound})
    answer.raise_for_status()
    return str(answer.json()["id"])


def job(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """How it is."""
    return dict(client.get(f"/v1/jobs/{job_id}").json())


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """How it ended."""
    while (now := job(client, job_id))["state"] not in ("done", "failed", "cancelled"):
        time.sleep(0.05)
    return now


def gaps_s(client: httpx.Client, job_id: str) -> list[float]:
    """Seconds between segments as they come."""
    at: list[float] = []
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: segment"):
                at.append(time.perf_counter())
    return [later - one for one, later in pairwise(at)]


def main() -> int:
    """Run it; 1 where a job did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--speed", type=float, default=10.0)
    given = parser.parse_args()
    with serving.workshop() as folder:
        prepared(given.speed, folder)
        short = serving.looped(folder, 1.0, "wav").read_bytes()
        long = serving.looped(folder, 40.0, "wav").read_bytes()
        print(f"start: {started(given.replicas):.1f} s", flush=True)
        try:
            right = measure(given.replicas, given.speed, short, long)
        finally:
            import ray

            ray.shutdown()
    return int(not right)


def measure(replicas: int, speed: float, short: bytes, long: bytes) -> bool:
    """All of it, on a cluster that runs; whether every job ended as it should."""
    with httpx.Client(base_url=URL, headers=HEADERS, timeout=300) as client:
        with ThreadPoolExecutor(replicas) as at_once:  # all engines are loaded
            list(at_once.map(lambda _: transcribed_s(client, long), range(replicas)))
        print("at rest:", at_rest(), flush=True)
        over = [1000 * (transcribed_s(client, short) - 1 / speed) for _ in range(30)]
        print(f"overhead of a job: median {statistics.median(over):.0f} ms, most {max(over):.0f}")
        gaps = gaps_s(client, submitted(client, long))
        late = [1000 * abs(gap - 1 / speed) for gap in gaps]
        print(f"segments: {len(gaps) + 1}, off by {statistics.median(late):.0f} ms (median)")
        begun = time.perf_counter()
        ids = [submitted(client, long) for _ in range(2 * replicas)]
        states = [ended(client, one)["state"] for one in ids]
        ideal_s = 2 * 40 / speed
        print(f"{len(ids)} jobs: {time.perf_counter() - begun:.1f} s of {ideal_s:.1f}, {states}")
        cancel(client, long)
        return kill(client, long, replicas) and set(states) == {"done"}


def cancel(client: httpx.Client, long: bytes) -> None:
    """A job that is cancelled frees its replica."""
    one = submitted(client, long)
    while not job(client, one).get("segments") and job(client, one)["state"] != "running":
        time.sleep(0.05)
    time.sleep(0.5)
    begun = time.perf_counter()
    client.delete(f"/v1/jobs/{one}")
    took = [transcribed_s(client, long) for _ in range(1)]
    print(f"after a cancel: {time.perf_counter() - begun:.1f} s for the next ({took[0]:.1f})")


def kill(client: httpx.Client, long: bytes, replicas: int) -> bool:
    """A replica is killed while all work: its job is done all the same, at its second attempt."""
    ids = [submitted(client, long) for _ in range(replicas)]
    time.sleep(1.5)
    os.kill(a_replica().pid, signal.SIGKILL)
    begun = time.perf_counter()
    found = [ended(client, one) for one in ids]
    told = [(one["state"], one.get("attempts")) for one in found]
    print(f"a replica killed: {json.dumps(told)} after {time.perf_counter() - begun:.1f} s")
    return sorted(told) == [*[("done", 1)] * (replicas - 1), ("done", 2)]


if __name__ == "__main__":
    sys.exit(main())
