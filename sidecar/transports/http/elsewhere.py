"""Jobs that a client was told of by another service than the one that it asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from sidecar.service import Service


def sought(service: Service) -> Callable[[HTTPConnection], Awaitable[None]]:
    """What looks for the job that an address names before anybody says there is none: news of it
    may be on its way."""

    async def seek(request: HTTPConnection) -> None:
        if job_id := request.path_params.get("job_id"):
            await service.seek(job_id)

    return seek
