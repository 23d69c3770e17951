"""Another owner's token wherever a job can be named, by requests that schemathesis makes up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from recordings import long
from service_process import PATIENCE_S, Server, wait_until

from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config.settings import Settings
from sidecar.server.app import create_app

NAMES_A_JOB = r"job|queue"
KEY, FILE, WORD = "the-key-of-ada", "minutes-of-ada.wav", "adalovelace"


@pytest.fixture(scope="module")
def page() -> Any:
    """The service's OpenAPI page."""
    return schemathesis.openapi.from_dict(create_app(Settings(engine="scripted")).openapi())


@pytest.fixture(autouse=True)
def _has_an_older_name(request: pytest.FixtureRequest) -> None:
    """By which schemathesis knows a test, as pytest before 9.1 did."""
    if not hasattr(request.node, "_nodeid"):
        request.node._nodeid = request.node.nodeid


EXAMPLES = max(1, settings.default.max_examples // 50)  # two, or one in `make test`
SELDOM = [Phase.explicit] if EXAMPLES > 1 else []
"""The hundreds of requests that schemathesis writes down for an operation, one odd value in each:
`make test` has a job's id in all places by one request."""
operations = schemathesis.pytest.from_fixture("page").include(path_regex=NAMES_A_JOB)
"""Requests are made up by the process that sends them, not by all that collect the tests."""


@dataclass
class House:
    """A service of two owners; one has jobs, the other asks."""

    server: Server
    ada: dict[str, str]
    bob: dict[str, str]
    ids: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    """What only the one owner may read."""

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
    settings = {"token_keys": issuer.keys.public, "limit_requests": 0, "scripted_speed": 1}
    with Server(home / "server", **settings) as server:
        made = House(server, ada, bob)
        made.ids.append(made.submit(2, **{"Idempotency-Key": KEY}))
        wait_until(lambda: made.states()[made.ids[0]] == "done", PATIENCE_S, "one is done")
        made.ids += [made.submit(3600), made.submit(1)]
        wait_until(lambda: made.states()[made.ids[1]] == "running", PATIENCE_S, "one runs")
        said = made.as_ada(f"/v1/jobs/{made.ids[0]}/transcript").json()
        texts = {segment["text"] for segment in said["segments"]}
        assert texts
        made.secrets = [*made.ids, *texts, KEY, FILE, WORD]
        yield made


def test_list_of_operations_with_a_job_id_is_complete(page: Any) -> None:
    paths = set(page.raw_schema["paths"])
    named = page.include(path_regex=NAMES_A_JOB)
    taken = {operation.ok().path for operation in named.get_all_operations()}
    others = {"/v1/models/{model}", "/v1/people/{person_id}"}
    assert {path for path in paths if "{" in path} <= taken | others
    assert {"/v1/jobs", "/v1/queue/status"} <= taken
    for path in paths - taken:  # the rest have none, or only the one that they make
        assert "/v1/jobs" not in path


@operations.parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=[*SELDOM, Phase.generate],
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_no_operation_returns_anything_of_another_owners_jobs(case: Any, house: House) -> None:
    url = str(house.server.client.base_url).rstrip("/")
    in_path = "job_id" in case.path_parameters
    for job_id in (None, *(house.ids if in_path or case.method == "GET" else ())):
        if job_id is not None and in_path:
            case.path_parameters["job_id"] = job_id
            known = {one.name for one in case.operation.query}  # others are refused before the job
            case.query = {
                name: value for name, value in (case.query or {}).items() if name in known
            }
        elif job_id is not None:
            case.query = {**case.query, "after": job_id}
        headers = {**house.bob, "Idempotency-Key": KEY}
        answer = case.call(base_url=url, headers=headers, timeout=PATIENCE_S)
        assert answer.status_code < 500, answer.text
        if job_id is not None and in_path:
            assert answer.status_code in (404, 405), answer.text
        seen = answer.text + json.dumps(dict(answer.headers), default=str)
        assert [secret for secret in house.secrets if secret in seen] == []
    assert list(house.states().values()) == ["done", "running", "queued"], "nobody ended them"


def test_every_operation_serves_the_owner_of_the_job(house: House) -> None:
    """Or nothing above would have been hidden."""
    read = [house.as_ada(path).text for path in ("/v1/jobs", f"/v1/jobs/{house.ids[0]}/transcript")]
    assert all(one in read[0] for one in house.ids)
    assert any(secret in read[1] for secret in house.secrets[len(house.ids) :])


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
