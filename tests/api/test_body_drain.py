"""How long a connection with an unread body stays open after its response."""

import asyncio
from typing import Any

import pytest
from starlette.responses import Response
from virtual_time import virtual_time

from sidecar.api.http.middleware import IDLE_LINGER_S, LINGER_S, BodyDrain

pytestmark = virtual_time


@pytest.mark.parametrize(
    ("content_type", "lasts_s"),
    [("application/json", IDLE_LINGER_S), ("multipart/form-data; boundary=x", LINGER_S)],
)
async def test_refused_upload_of_an_idle_client_is_closed_after_the_timeout_of_its_content_type(
    content_type: str, lasts_s: float
) -> None:
    """Some clients read to the end. One that builds a form is silent meanwhile."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append({**message, "at": loop.time() - begun})

    headers = [(b"content-length", b"10000000"), (b"content-type", content_type.encode())]
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await BodyDrain(Response("no", 413))({"type": "http", "headers": headers}, receive, send)
    assert [one.get("body") for one in sent[1:]] == [b"no", b""]
    assert [one["at"] for one in sent[1:]] == pytest.approx([0, lasts_s], abs=1e-3)
