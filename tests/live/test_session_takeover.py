"""Sessions that a service takes up from others, over a real PostgreSQL: by two connections at once,
by one that goes away meanwhile, and by names that are used again."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest
from postgres import KEY
from service_process import PATIENCE_S, until
from shared_job_services import stop

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.cluster.membership import Membership
from sidecar.cluster.postgres_live_sessions import PostgresSessionStore
from sidecar.engines import engine_spec
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions import session_handover
from sidecar.live.sessions.session_checkpoint import ResumedSession, SessionCheckpoint, SessionName
from sidecar.live.sessions.session_limits import SessionBounds, SessionLimits
from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.storage.postgres_database import PostgresDatabase, migrate_postgres


class Front:
    """A service's sessions, and the database that it has in common with others."""

    def __init__(self, journal: str) -> None:
        seal = migrate_postgres(journal, KEY)
        self.database = PostgresDatabase(journal)
        self.member = Membership(self.database, secrets.token_hex(8), works=False)
        self.shared = PostgresSessionStore(self.database, seal, self.member)
        spec, room = engine_spec("scripted"), SessionLimits()
        self.sessions = SessionRegistry(
            spec, _nobody_hears, room, SessionBounds(), store=self.shared
        )

    async def __aenter__(self) -> Self:
        await self.database.open()
        await self.member.register()
        forever = self.shared.run(), self.member.send_heartbeat()
        self._tasks = [asyncio.create_task(one) for one in forever]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.sessions.close()
        await stop(self._tasks)
        await self.database.close()


@contextlib.asynccontextmanager
async def _nobody_hears() -> AsyncIterator[Any]:
    await asyncio.Event().wait()
    yield


@pytest.fixture
async def fronts(journal: str) -> AsyncIterator[tuple[Front, Front]]:
    """Two; the first has a session `talk`."""
    async with Front(journal) as one, Front(journal) as other:
        await one.sessions.move(one.sessions.open(ANONYMOUS, LiveOptions(), "talk"))
        yield one, other


async def test_two_connections_that_take_up_one_session_have_the_same(
    fronts: tuple[Front, Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, front = fronts
    goes_on = threading.Event()
    read = session_handover.parse_checkpoint

    def slowly(data: bytes, story: Sequence[bytes]) -> SessionCheckpoint:
        goes_on.wait(PATIENCE_S)
        return read(data, story)

    monkeypatch.setattr(session_handover, "parse_checkpoint", slowly)
    both = [
        asyncio.create_task(front.sessions.find_or_take_over(ANONYMOUS, "talk")) for _ in range(2)
    ]
    await asyncio.wait(both, timeout=0.3, return_when=asyncio.FIRST_COMPLETED)
    goes_on.set()
    one, again = await asyncio.gather(*both)
    assert one is again
    assert one.moves
    assert len(front.sessions) == 1


@pytest.mark.parametrize("again", [0, 1])
async def test_who_goes_away_while_a_session_is_taken_up_leaves_it_to_whoever_comes_next(
    fronts: tuple[Front, Front], again: int
) -> None:
    _, front = fronts
    take, reached = front.shared.take, asyncio.Event()

    async def slowly(name: SessionName) -> ResumedSession | bool:
        found = await take(name)
        if isinstance(found, ResumedSession):
            reached.set()
            await asyncio.sleep(PATIENCE_S)
        return found

    front.shared.take = slowly  # type: ignore[method-assign]
    coming = asyncio.create_task(front.sessions.find_or_take_over(ANONYMOUS, "talk"))
    await reached.wait()
    coming.cancel()
    await asyncio.wait({coming})
    assert coming.cancelled()
    front.shared.take = take  # type: ignore[method-assign]
    session = await fronts[again].sessions.find_or_take_over(ANONYMOUS, "talk")
    assert not session.over
    assert [len(each.sessions) for each in fronts] == [not again, again]


async def test_who_is_refused_by_the_database_for_a_while_says_again_that_it_is_there(
    fronts: tuple[Front, Front], journal: str, caplog: pytest.LogCaptureFixture
) -> None:
    front, _ = fronts
    count = "SELECT count(*) FROM vibevoice.services WHERE id = %s"
    with psycopg.connect(journal, autocommit=True) as look:
        look.execute("ALTER TABLE vibevoice.services RENAME beat TO heard")
        await until(lambda: "the database rejects" in caplog.text)
        look.execute("ALTER TABLE vibevoice.services RENAME heard TO beat")
        look.execute("SELECT vibevoice.expire_1(%s, %s)", ([front.member.id], [None]))
        there = [front.member.id]
        await until(lambda: look.execute(count, there).fetchone() == (1,), "it is there again")


async def test_a_fault_in_saving_sessions_is_none_of_the_next_time(
    fronts: tuple[Front, Front], journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, _ = fronts
    save = front.shared.save

    async def broken(*_: Any) -> Any:
        monkeypatch.setattr(front.shared, "save", save)
        raise RuntimeError("a fault")

    monkeypatch.setattr(front.shared, "save", broken)
    await front.sessions.move(front.sessions.open(ANONYMOUS, LiveOptions(), "another"))
    with psycopg.connect(journal, autocommit=True) as look:
        count = "SELECT count(*) FROM vibevoice.sessions"
        await until(lambda: look.execute(count).fetchone() == (2,), "both lie there")


async def test_a_name_that_is_used_again_at_once_is_that_of_a_service_that_lives(
    fronts: tuple[Front, Front],
) -> None:
    front, other = fronts
    front.sessions.end(front.sessions.find(ANONYMOUS, "talk"))
    again = front.sessions.open(ANONYMOUS, LiveOptions(), "talk")
    await front.sessions.move(again)
    taken = await other.sessions.find_or_take_over(ANONYMOUS, "talk")
    assert again.over, "its service was asked for it, and left it"
    assert not taken.over
    assert [len(each.sessions) for each in fronts] == [0, 1]


async def test_a_session_that_reached_a_time_limit_is_nobodys_to_go_on_with(
    fronts: tuple[Front, Front], journal: str
) -> None:
    front, other = fronts
    session = front.sessions.find(ANONYMOUS, "talk")
    session.bounds = replace(session.bounds, longest_s=0.0)
    await until(lambda: session.over)
    with psycopg.connect(journal, autocommit=True) as look:
        count = "SELECT count(*) FROM vibevoice.sessions"
        await until(lambda: look.execute(count).fetchone() == (0,), "it is not saved any more")
    with pytest.raises(errors.SessionNotFound):
        await other.sessions.find_or_take_over(ANONYMOUS, "talk")
    assert front.sessions.find(ANONYMOUS, "talk") is session, "its client gets the error here"


async def test_a_service_that_stands_still_while_it_deletes_expired_sessions_holds_up_no_other(
    fronts: tuple[Front, Front], journal: str
) -> None:
    front, other = fronts
    await front.sessions.move(front.sessions.open(ANONYMOUS, LiveOptions(), "expired"))
    with psycopg.connect(journal) as still:
        still.execute("UPDATE vibevoice.sessions SET until = '-infinity' WHERE id = 'expired'")
        still.commit()
        still.execute("DELETE FROM vibevoice.sessions WHERE until < clock_timestamp()")
        await front.sessions.move(front.sessions.open(ANONYMOUS, LiveOptions(), "fresh"))
        assert await other.shared.take((ANONYMOUS.owner, "talk")) is True, "it is asked for"
        fresh = "SELECT count(*) FROM vibevoice.sessions WHERE id = 'fresh'"
        assert await front.database.fetch(fresh) == [(1,)]
