"""A reader of server-sent events by the standard (WHATWG HTML, 9.2.6), as browsers have it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from service_process import Server


@dataclass(frozen=True)
class Event:
    """One event; ``id`` is the last that was named so far, None before that."""

    name: str
    data: Any
    id: int | None


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a body; those without data are none."""
    name, data, last = "", [], None
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                name = value
            case "data":
                data.append(value)
            case "id":
                last = int(value)
        if not line:
            if data:
                yield Event(name or "message", json.loads("\n".join(data)), last)
            name, data = "", []


@contextlib.contextmanager
def follow(server: Server, job_id: str, after: int | None = None) -> Iterator[Iterator[Event]]:
    """The events of a job as they come."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    url = f"/v1/jobs/{job_id}/events"
    with server.client.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield parse(response.iter_lines())


def events_of(server: Server, job_id: str) -> list[Event]:
    """All events of a job, to its end."""
    with follow(server, job_id) as events:
        return list(events)


def read_until(events: Iterator[Event], name: str) -> Event:
    """The next event of this name."""
    return next(event for event in events if event.name == name)
