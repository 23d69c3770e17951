"""A front without a live engine: what a client of each live wire is told, and where it is to go."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_client import Client
from postgres import KEY, Cluster
from service_process import Server
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

CODE = "not_here"
DETAIL = "This front has no live engine: nodes transcribe live audio."
HINT = "Send live requests to a node with a live engine (docs/scale.md, Live audio)."
OPENAI = {"message": f"{DETAIL} {HINT}", "type": "invalid_request_error", "code": CODE}


@pytest.fixture(scope="module")
def front(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    journal, home = postgres_cluster.new_database(), tmp_path_factory.mktemp("front")
    shared = {"journal": journal, "journal_key": KEY, "uploads": home / "uploads"}
    own = {"role": "front", "live_engine": "none", "grpc_port": 0, "voice_engine": "scripted"}
    with Server(home, **shared, **own) as running:  # type: ignore[arg-type]
        assert running.health()["live_engine"] is None
        yield running
    postgres_cluster.drop(journal)


async def told(front: Server, path: str, first: dict[str, Any] | None) -> tuple[Any, int | None]:
    """The only message that comes, and how the connection is closed behind it."""
    async with connect(f"ws://127.0.0.1:{front.port}{path}", proxy=None) as socket:
        if first is not None:
            await socket.send(json.dumps(first))
        only = json.loads(await socket.recv())
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    return only, socket.close_code


@pytest.mark.parametrize(
    ("path", "first", "within", "said"),
    [
        ("/v1/live", {"type": "begin"}, (), {"code": CODE, "message": DETAIL, "hint": HINT}),
        ("/v1/realtime?intent=transcription", None, ("error",), OPENAI),
        ("/v1/realtime?model=gpt-realtime", None, ("error",), OPENAI),
        ("/stream", None, (), {"code": CODE, "message": f"{DETAIL} ({CODE})"}),
        ("/api/asr-streaming", None, ("payload",), {"reason_code": CODE}),
        ("/api/asr-streaming", None, ("payload", "details"), {"hint": HINT}),
    ],
)
async def test_each_websocket_refuses_live_audio_at_a_front_in_its_own_protocol(
    front: Server,
    path: str,
    first: dict[str, Any] | None,
    within: tuple[str, ...],
    said: dict[str, str],
) -> None:
    only, closed = await told(front, path, first)
    assert (only["type"], closed) == ("error", 1003)
    for name in within:
        only = only[name]
    assert {name: only[name] for name in said} == said


@pytest.mark.parametrize("what", ["client_secrets", "transcription_sessions"])
def test_client_secret_for_live_session_at_a_front_returns_415(front: Server, what: str) -> None:
    answer = front.client.post(f"/v1/realtime/{what}", json={})
    assert answer.status_code == 415
    assert answer.json()["error"] | OPENAI == answer.json()["error"]


def test_grpc_session_at_a_front_is_refused_with_failed_precondition(front: Server) -> None:
    with Client(front.health()["grpc_port"]) as client:
        refused = client.refused()
    assert refused.status is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.details == f"ERR2002 {DETAIL}"
