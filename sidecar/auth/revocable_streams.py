"""Streams that end when their token is revoked.

A client is identified once, when its request arrives, but the events of a job may be streamed for
hours after that. All open requests are counted here, by owner: uploads, waiting responses, event
streams, connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar import errors
from sidecar.auth.identity import Identity, SignedCredential
from sidecar.auth.rate_limits import counted, is_within_fair_share
from sidecar.file_watcher import WATCH_INTERVAL_S

log = logging.getLogger(__name__)

MAX_OPEN_STREAMS = 512
"""Maximum of open requests and connections of all owners that share, beside jobs and sessions."""
RevocationCheck = Callable[[SignedCredential], str | None]
"""Check of a credential: returns the reason why it is not valid any more, or `None` while it is."""


class RevocableStreams:
    """Open streams; their credentials are checked at intervals."""

    def __init__(
        self,
        refusal: RevocationCheck = lambda credential: None,
        every_s: float = WATCH_INTERVAL_S,
        most: int = MAX_OPEN_STREAMS,
    ) -> None:
        """``most``: the maximum of open streams of all owners that share (`OwnerLimits.shares`)."""
        self._refusal = refusal
        self._every_s = every_s
        self._most = most
        self._open = Counter[str]()
        self._here: dict[Callable[[], None], SignedCredential] = {}

    @contextmanager
    def lasting(self, caller: Identity, sent_away: Callable[[], None]) -> Iterator[None]:
        """Call ``sent_away`` once if the caller's credential is revoked within this context. A
        caller without a credential is never disconnected."""
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
        """Count a request or connection as the caller's within this context.

        Each owner may have one; more only if they leave others a fair share.

        Raises:
            errors.ConnectionsLimited: the caller's share is used up.
        """
        if not caller.limits.shares:
            yield
            return
        has = self._open[caller.owner]
        if has and not is_within_fair_share(has, 1, self._most - self._open.total()):
            raise errors.ConnectionsLimited()
        with counted(self._open, caller.owner):
            yield

    def look(self) -> None:
        """Close the streams with a credential that is not valid any more."""
        ended: Counter[tuple[str, str]] = Counter()
        for sent_away, credential in list(self._here.items()):
            if (why := self._refusal(credential)) is not None:
                del self._here[sent_away]
                ended[credential.token_id, why] += 1
                sent_away()
        for (token_id, why), count in ended.items():
            log.info("token %s %s: %d open streams closed", token_id, why, count)

    async def run(self) -> None:
        """Check the credentials at intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            self.look()
