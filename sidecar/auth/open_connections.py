"""Streams that end when their token is revoked.

Who it is, is asked once, at the door; events of a job may be told for hours after that. All that is
open is counted here, by owner: uploads, answers that are waited for, event streams, connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar import errors
from sidecar.auth.identity import Identity, Scope, SignedCredential
from sidecar.auth.rate_limits import is_within_fair_share
from sidecar.files import WATCH_INTERVAL_S

log = logging.getLogger(__name__)

MAX_OPEN_STREAMS = 512
"""Requests and connections that those who share have open together, beside jobs and sessions."""
RevocationCheck = Callable[[SignedCredential], str | None]
"""Check of a credential: the reason why it is not valid any more, None while it is."""


class RevocableStreams:
    """Open streams, whose credentials are checked together and repeatedly."""

    def __init__(
        self,
        refusal: RevocationCheck = lambda credential: None,
        every_s: float = WATCH_INTERVAL_S,
        most: int = MAX_OPEN_STREAMS,
    ) -> None:
        """``most``: of what those have open together who share (`Limits.shares`)."""
        self._refusal = refusal
        self._every_s = every_s
        self._most = most
        self._open = Counter[str]()
        self._here: dict[Callable[[], None], SignedCredential] = {}

    @contextmanager
    def lasting(self, caller: Identity, sent_away: Callable[[], None]) -> Iterator[None]:
        """While this lasts, ``sent_away`` is called, once, if the caller's credential counts no
        more. Who has none stays as long as it likes."""
        if caller.credential is None:
            yield
            return
        self._here[sent_away] = caller.credential
        try:
            yield
        finally:
            self._here.pop(sent_away, None)

    @contextmanager
    def opened(self, caller: Identity) -> Iterator[None]:
        """While this lasts a request or connection counts as the caller's. Each owner may have one,
        and beyond that leaves others some; a token with the scope 'lease' is of a service that
        counts its own owners.

        Raises:
            errors.ConnectionsLimited: it would leave them too few.
        """
        if not caller.limits.shares or Scope.LEASE in caller.scopes:
            yield
            return
        has = self._open[caller.owner]
        if has and not is_within_fair_share(has, 1, self._most - self._open.total()):
            raise errors.ConnectionsLimited()
        self._open[caller.owner] += 1
        try:
            yield
        finally:
            self._open[caller.owner] -= 1
            self._open += Counter()  # those without any are forgotten

    def look(self) -> None:
        """Send away whose credential counts no more."""
        ended: Counter[tuple[str, str]] = Counter()
        for sent_away, credential in list(self._here.items()):
            if (why := self._refusal(credential)) is not None:
                del self._here[sent_away]
                ended[credential.token_id, why] += 1
                sent_away()
        for (token_id, why), count in ended.items():
            log.info("token %s %s: %d open streams closed", token_id, why, count)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            self.look()
