"""Two owners of one service: what one of them holds or sends costs the other nothing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from greedy_owner import Greedy, Operation, Owner, operations
from recordings import silence
from service_process import PATIENCE_S, Server, wait_until

from sidecar.auth.token_issuing import TokenIssuer

HELD_S = 2 * PATIENCE_S
"""How long the service waits for half-sent requests: longer than the other owner waits for an
answer, so that no answer comes only because what was held has ended."""
TOO_MANY = {"jobs_limited", "uploads_full", "live_limited", "connections_limited"}


@dataclass
class Two:
    """The service and its owners."""

    server: Server
    ada: Owner
    bob: Owner
    page: dict[str, Any]

    def done(self, owner: Owner) -> str:
        """A job with a transcript."""
        job = owner.submit(silence(1))
        wait_until(lambda: owner.http.get(f"/v1/jobs/{job}").json()["state"] == "done", "done")
        return job


@pytest.fixture
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """With few of everything, so that all of it is soon had."""
    home = tmp_path_factory.mktemp("two")
    issuer = TokenIssuer(home / "tokens")
    tokens = [issuer.create(name)[0] for name in ("ada", "bob")]
    settings: dict[str, Any] = {
        "queue_limit": 16,
        "live_sessions": 4,
        "max_upload_mb": 64,
        "upload_room_mb": 256,
        "token_keys": issuer.keys.public,
        "forwarded_allow_ips": "127.0.0.1",
        "limit_requests": 0,
        "limits": {"upload_stall": HELD_S, "request_deadline": HELD_S},
    }
    with Server(home / "server", **settings) as server:
        ada, bob = (Owner(server.port, token) for token in tokens)
        yield Two(server, ada, bob, ada.http.get("/openapi.json").json())


def status_of(owner: Owner, operation: Operation, voice: bytes) -> int:
    """What an owner is answered who asks for something small."""
    path = operation.path.partition("{")
    body: dict[str, Any] = {}
    if operation.part:
        body = {"files": {operation.part: ("a", voice)}}
    elif operation.json:
        body = {"json": {"duration": 1}}
    address = f"{path[0]}none{path[2].partition('}')[2]}" if path[1] else operation.path
    return owner.http.request(operation.method, address, **body).status_code


def statuses(owner: Owner, page: dict[str, Any], voice: bytes) -> dict[Operation, int]:
    return {one: status_of(owner, one, voice) for one in operations(page)}


def test_every_route_answers_an_owner_as_before_while_another_has_reached_all_its_limits(
    two: Two, voice: bytes
) -> None:
    job = two.done(two.ada)
    before = statuses(two.bob, two.page, voice)
    assert Counter(one < 300 for one in before.values())[True] >= 20, before
    with Greedy(two.ada, two.page, job) as greedy:
        greedy.open()
        assert set(greedy.refusals) >= TOO_MANY, greedy.refusals
        assert statuses(two.bob, two.page, voice) == before
        with two.bob.live() as said:
            assert said["type"] == "began"
        assert two.server.health()["status"] == "ok"
    assert statuses(two.ada, two.page, voice).keys() == before.keys()
