"""A front that hears nothing itself, and the services that hear live for it."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from service_process import PATIENCE_S, Server, wait_until


class Ears(Server):
    """As `Server`, and to a test the same: its sessions are heard by one of ``ears``, or by another
    that `begins` later."""

    def __init__(
        self, home: Path, count: int = 2, ears: dict[str, object] | None = None, **settings: object
    ) -> None:
        self._settings = ears or {}
        self.ears = [Server(home / f"ear-{number}", **self._settings) for number in range(count)]
        names = ",".join(f"http://127.0.0.1:{one.port}" for one in self.ears)
        self._stack = contextlib.ExitStack()
        super().__init__(home, **{"live_engine": "upstream", "upstream": names, **settings})

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor() as at_once:
                starts = [at_once.submit(self._stack.enter_context, one) for one in self.ears]
                starts.append(at_once.submit(super().__enter__))
                for start in starts:
                    start.result()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._stack.__exit__(kind, error, trace)

    def begins(self, ear: Server) -> Server:
        """One that has ended is there again, at the same port."""
        again = Server(ear.home, port=ear.port, **self._settings)  # type: ignore[arg-type]
        self.ears[self.ears.index(ear)] = again
        return self._stack.enter_context(again)

    def who_hears(self) -> Server:
        """The one that has the only session, once there is one."""

        def found() -> Server | None:
            here = [one for one in self.ears if one.process.is_running() and sessions_of(one)]
            return here[0] if here else None

        ear: Server = wait_until(found, PATIENCE_S, "somebody hears the session")
        return ear


def sessions_of(server: Server) -> int:
    """How many live sessions go on there."""
    return int(server.health()["active_sessions"])
