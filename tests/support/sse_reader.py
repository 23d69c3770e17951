"""Server-sent events, as httpx-sse reads them."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource
from service_process import Server

EVENT_STREAM = {"content-type": "text/event-stream"}


@dataclass(frozen=True)
class Event:
    """One event; ``id`` is the last that was named so far, None before that."""

    name: str
    data: Any
    id: int | None


def parse(response: httpx.Response | bytes) -> Iterator[Event]:
    """The events of a response, or in a body; those without data are none."""
    if isinstance(response, bytes):
        response = httpx.Response(200, headers=EVENT_STREAM, content=response)
    for told in EventSource(response).iter_sse():
        if told.data:
            yield Event(told.event, json.loads(told.data), int(told.id) if told.id else None)


@contextlib.contextmanager
def follow(server: Server, job_id: str, after: int | None = None) -> Iterator[Iterator[Event]]:
    """The events of a job as they come."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    url = f"/v1/jobs/{job_id}/events"
    with server.client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield parse(response)


def events_of(server: Server, job_id: str) -> list[Event]:
    """All events of a job, to its end."""
    with follow(server, job_id) as events:
        return list(events)


def read_until(events: Iterator[Event], name: str) -> Event:
    """The next event of this name."""
    return next(event for event in events if event.name == name)
