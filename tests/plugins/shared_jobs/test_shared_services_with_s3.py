"""Two fronts and a node over PostgreSQL and a bucket, with no folder that two of them see."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from object_storage import BUCKET, SECRET, ObjectStorage, keys
from postgres import Cluster
from recordings import wav
from service_process import Server, check_problem, wait_until
from two_fronts_and_node import Fronts

from bench.queue_clients import Recording

pytestmark = pytest.mark.slow
KEPT_MB = 50


@pytest.fixture
def place(storage_server: ObjectStorage) -> str:
    return storage_server.new_place()


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file; while it is there, the engine goes no further than the first second."""
    return tmp_path / "hold"


@pytest.fixture
def deployed(
    tmp_path: Path,
    hold: Path,
    postgres_cluster: Cluster,
    storage_server: ObjectStorage,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Fronts]:
    for name, value in keys().items():
        monkeypatch.setenv(name, value)
    settings: dict[str, Any] = {"scripted_speed": 10, "keep_recordings_mb": KEPT_MB}
    settings |= {"uploads": place, "scripted_hold": hold}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", storage_server.endpoint)
    journal = postgres_cluster.new_database()
    with Fronts(tmp_path, journal, **settings) as running:
        yield running
    assert not (tmp_path / "shared").exists(), "nobody had a folder"
    postgres_cluster.drop(journal)


def said(front: Server, job_id: str) -> list[str]:
    told = front.client.get(f"/v1/jobs/{job_id}/transcript").raise_for_status().json()
    return [segment["text"] for segment in told["segments"]]


def test_recording_goes_through_bucket_whose_outage_ends_no_job_and_no_service_keeps_a_file(
    deployed: Fronts, storage_server: ObjectStorage, place: str, hold: Path
) -> None:
    here, there = deployed.fronts
    client, prefix = storage_server.client(), place.removeprefix(f"s3://{BUCKET}/")

    def objects() -> list[str]:
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [one["Key"] for one in listed]

    # A large one, in parts: heard at the node, listened to at the other front.
    in_four = np.repeat(Recording(1, 80).samples(), 4)
    large, lines = wav(in_four.tobytes(), channels=4), Recording(1, 80).said()
    first = here.submit(large)
    there.wait_state(first, "done")
    assert said(there, first) == lines
    assert len(objects()) == 1
    heard = there.client.get(f"/v1/jobs/{first}/audio")
    assert heard.content == large
    assert (
        there.client.get(
            f"/v1/jobs/{first}/audio", headers={"Range": "bytes=2000000-2000099"}
        ).content
        == large[2000000:2000100]
    )
    assert there.client.delete(f"/v1/jobs/{first}").status_code == 204
    wait_until(lambda: not objects(), "its recording is gone")

    # One runs and one waits when the server dies.
    long, short = Recording(2, 30), Recording(3, 3)
    audio, small = long.wav(), short.wav()
    hold.touch()
    running = here.submit(audio)
    here.segments(running)
    waiting = here.submit(small)
    with storage_server.killed():
        refused = there.client.post("/v1/jobs", files={"audio": small})
        check_problem(refused, 503, "storage_unreachable")
        assert int(refused.headers["retry-after"]) > 0
        hold.unlink()
        here.wait_state(running, "done")
        assert said(there, running) == long.said(), "what was opened goes on"
        wait_until(
            lambda: "is left to other nodes: The storage of" in deployed.node.log(),
            "it was tried",
        )
        heard = there.client.get(f"/v1/jobs/{running}/audio")
        check_problem(heard, 503, "storage_unreachable")
        assert there.job(waiting)["state"] == "queued"
        assert {job["id"] for job in there.jobs()} == {running, waiting}, "nothing was accepted"
    there.wait_state(waiting, "done")
    assert said(here, waiting) == short.said()

    # A node that is killed while it hears one has left nothing of it on its disk.
    hold.touch()
    last = here.submit(audio)
    here.segments(last)
    deployed.node.process.kill()
    assert deployed.node.leftovers() == []
    for job_id in (running, waiting, last):
        assert here.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    wait_until(lambda: not objects(), "nothing is left")
    assert deployed.leftovers() == []
    assert SECRET not in deployed.log()
