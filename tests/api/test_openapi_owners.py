"""Another owner's token wherever a job can be named: every operation of the OpenAPI page."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from greedy_owner import Operation, operations
from many_cases import for_each
from recordings import long
from service_process import Server, wait_until

from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config.settings import Settings
from sidecar.server.app import create_app

KEY, FILE, WORD = "the-key-of-ada", "minutes-of-ada.wav", "adalovelace"
RENAME = {"op": "rename", "speaker": "Speaker_0", "name": "Bob"}


@functools.cache
def page() -> dict[str, Any]:
    """The service's OpenAPI page."""
    return create_app(Settings(engine="scripted")).openapi()


def those_with_jobs() -> list[Operation]:
    """Operations whose address has to do with jobs."""
    return [one for one in operations(page()) if re.search("job|queue", one.path)]


@dataclass
class House:
    """A service of two owners; one has jobs, the other asks."""

    server: Server
    ada: dict[str, str]
    bob: dict[str, str]
    ids: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    """What only the one owner may read."""
    transcript: dict[str, Any] = field(default_factory=dict)
    """That of the job that is done."""

    def as_ada(self, path: str) -> httpx.Response:
        return self.server.client.get(path, headers=self.ada)

    def states(self) -> dict[str, str]:
        return {job["id"]: job["state"] for job in self.as_ada("/v1/jobs").json()["jobs"]}

    def submit(self, seconds: int, **headers: str) -> str:
        files = {"audio": (FILE, long(seconds))}
        answer = self.server.client.post(
            "/v1/jobs", files=files, data={"hotwords": WORD}, headers={**self.ada, **headers}
        )
        return str(answer.raise_for_status().json()["id"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One job is done, one runs, one waits."""
    home = tmp_path_factory.mktemp("house")
    issuer = TokenIssuer(home / "tokens")
    ada, bob = ({"Authorization": f"Bearer {issuer.create(name)[0]}"} for name in ("ada", "bob"))
    settings = {"token_keys": issuer.keys.public, "limit_requests": 0, "scripted_speed": 4}
    with Server(home / "server", **settings) as server:
        made = House(server, ada, bob)
        made.ids.append(made.submit(2, **{"Idempotency-Key": KEY}))
        wait_until(lambda: made.states()[made.ids[0]] == "done", "one is done")
        made.ids += [made.submit(3600), made.submit(1)]
        wait_until(lambda: made.states()[made.ids[1]] == "running", "one runs")
        said = made.as_ada(f"/v1/jobs/{made.ids[0]}/transcript").json()
        made.transcript = said
        texts = {segment["text"] for segment in said["segments"]}
        assert texts
        made.secrets = [*made.ids, *texts, KEY, FILE, WORD]
        yield made


def test_operations_checked_for_owners_cover_every_openapi_path_of_jobs() -> None:
    paths, taken = set(page()["paths"]), {one.path for one in those_with_jobs()}
    others = {"/v1/models/{model}", "/v1/people/{person_id}"}
    assert {path for path in paths if "{" in path} <= taken | others
    assert {"/v1/jobs", "/v1/queue/status"} <= taken
    for path in paths - taken:  # the rest have none, or only the one that they make
        assert "/v1/jobs" not in path


@for_each("operation", those_with_jobs)
def test_no_operation_reads_changes_or_ends_a_job_of_another_owner(
    operation: Operation, house: House
) -> None:
    in_path = "{job_id}" in operation.path
    body: dict[str, Any] = {}
    if operation.part:
        body = {"files": {operation.part: ("a.wav", long(1))}}
    elif operation.json:
        body = {"json": {"operations": [RENAME]}}
    for job_id in house.ids if in_path else (None, *house.ids):
        query = {} if in_path or job_id is None else {"after": job_id}
        path = operation.path.replace("{job_id}", job_id or "")
        sent = {**body, "params": query, "headers": {**house.bob, "Idempotency-Key": KEY}}
        with house.server.client.stream(operation.method, path, **sent) as answer:
            assert not in_path or answer.status_code == 404, "before an endless stream is read"
            answer.read()
        assert answer.status_code < 500, answer.text
        seen = answer.text + json.dumps(dict(answer.headers))
        assert [secret for secret in house.secrets if secret in seen] == []
    assert list(house.states().values()) == ["done", "running", "queued"], "nobody ended them"
    assert house.as_ada(f"/v1/jobs/{house.ids[0]}/transcript").json() == house.transcript


def test_owner_of_the_jobs_reads_their_ids_and_a_transcript(house: House) -> None:
    """Or nothing above would have been hidden."""
    read = [house.as_ada(path).text for path in ("/v1/jobs", f"/v1/jobs/{house.ids[0]}/transcript")]
    assert all(one in read[0] for one in house.ids)
    assert any(secret in read[1] for secret in house.secrets[len(house.ids) :])
