"""What a service says of itself at one moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.cli.backends import Where

if TYPE_CHECKING:
    import httpx

JOBS = 10
"""How many of the latest are shown."""
Answer = Mapping[str, Any]
NOTHING: Answer = {}


@dataclass(frozen=True, slots=True)
class Picture:
    """The answers of one moment; ``at`` by a clock that only goes on. What did not answer is empty,
    and ``wrong`` says why, by its name."""

    address: str = ""
    at: float = 0.0
    health: Answer = field(default_factory=dict)
    metrics: Answer = field(default_factory=dict)
    system: Answer = field(default_factory=dict)
    jobs: Answer = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether anybody is there."""
        return bool(self.health or self.metrics or self.system)


class Camera:
    """Asks one service; ``addresses``: of each answer, by its name in `Picture`."""

    def __init__(self, http: httpx.AsyncClient, address: str, addresses: Mapping[str, str]) -> None:
        self._http, self._address, self._addresses = http, address, addresses

    async def picture(self) -> Picture:
        """The answers of now; never an exception because of the service."""
        names = list(self._addresses)
        found = await asyncio.gather(*(self._ask(self._addresses[name]) for name in names))
        answers = dict(zip(names, found, strict=True))
        return Picture(
            address=self._address,
            at=time.monotonic(),
            wrong={name: body for name, body in answers.items() if isinstance(body, str)},
            **{name: body for name, body in answers.items() if not isinstance(body, str)},
        )

    async def _ask(self, url: str) -> Answer | str:
        """The JSON object there, or why there is none."""
        import httpx

        try:
            answer = await self._http.get(url)
        except httpx.TimeoutException:
            return "no answer in time"
        except httpx.HTTPError as error:
            return f"no answer ({type(error).__name__})"
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return f"no JSON ({answer.status_code})"
        if answer.is_success or body.get("status") in (
            "error",
            "unavailable",
        ):  # not well, but there
            return body
        return str(body.get("code") or answer.status_code)


@asynccontextmanager
async def camera(
    where: Where, metrics_url: str | None, system_url: str | None, timeout_s: float
) -> AsyncGenerator[Camera, None]:
    """For the service of ``where``; metrics and system may be asked for elsewhere.

    Raises:
        errors.SidecarError: an address is none, or its certificate is not believed.
    """
    import httpx

    from sidecar.cli.remote import in_our_words, warn_of

    base = (where.server or "").rstrip("/")
    addresses = {
        "health": f"{base}/health",
        "metrics": metrics_url or f"{base}/metrics.json",
        "system": system_url or f"{base}/system",
        "jobs": f"{base}/v1/jobs?limit={JOBS}",
    }
    for address in addresses.values():
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.FieldInvalid(
                f"'{address}' is no address.", hint="One begins http:// or https://."
            )
    context = None
    warn_of(where.trust)
    if where.trust is not None and where.trust.given:
        with in_our_words():
            context = await asyncio.to_thread(where.trust.context, base)
    token = where.token

    async def authorize(request: httpx.Request) -> None:
        # Nobody else is to see it.
        if token and str(request.url).startswith(f"{base}/"):
            request.headers["Authorization"] = f"Bearer {token}"

    async with httpx.AsyncClient(
        timeout=timeout_s,
        trust_env=False,
        verify=True if context is None else context,
        event_hooks={"request": [authorize]},
    ) as http:
        yield Camera(http, base, addresses)
