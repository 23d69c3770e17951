"""Answers that last, and whom they are for: ended where what let somebody in counts no more.

Who it is, is asked once, at the door; events of a job may be told for hours after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidecar.access.identity import Credential, Identity
from sidecar.access.watched import LOOK_S

log = logging.getLogger(__name__)

Refusal = Callable[[Credential], str | None]
"""Why a credential counts no more, None while it does."""


class Visits:
    """Those who are being answered; they are looked at together, again and again."""

    def __init__(self, refusal: Refusal = lambda credential: None, every_s: float = LOOK_S) -> None:
        self._refusal = refusal
        self._every_s = every_s
        self._here: dict[Callable[[], None], Credential] = {}

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

    def look(self) -> None:
        """Send away whose credential counts no more."""
        ended: Counter[tuple[str, str]] = Counter()
        for sent_away, credential in list(self._here.items()):
            if (why := self._refusal(credential)) is not None:
                del self._here[sent_away]
                ended[credential.token_id, why] += 1
                sent_away()
        for (token_id, why), count in ended.items():
            log.info("the token %s %s: %d open answers to it were ended", token_id, why, count)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            self.look()
