"""Live sessions of services that are killed, or that their client's next connection does not reach:
another goes on with them, and no word is told twice or lost.

All are real processes over a real PostgreSQL; clients reach them through a proxy that gives each
connection to the next of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import wave
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from node_javascript import WEBSOCKET, check_websockets, node_here, run
from postgres import KEY, Cluster, cluster
from proxies import RoundRobin
from scripted_speech import RATE, pieces, sound, talk
from service_process import PATIENCE_S, Server, wait_until
from vibevoice_asr_client import (
    Client,
    Final,
    Retry,
    SpeechStarted,
    SpeechStopped,
    Summary,
    TurnEnded,
    codes,
)
from websockets.asyncio.client import ClientConnection, connect

from sidecar.auth.token_issuing import TokenIssuer

SOON = Retry(attempts=1000, first_s=0.01, longest_s=0.2)
PARTS = (
    sound((0.5, 0.0), (1.0, 0.3)),
    sound((0.5, 0.3), (0.8, 0.0), (1.5, 0.2), (3.0, 0.0)),
    sound((3.0, 0.0), (1.5, 0.35), (0.8, 0.0)),
    talk(0.25, 0.3),
)
"""Five turns, and a long pause in the middle."""
DEATHS = (
    (SpeechStarted, 0),  # in the middle of an utterance
    (TurnEnded, 1),  # in the middle of a pause
    (Final, 2),  # between a final and what is acknowledged of it
)
"""What is waited for behind each part but the last, before the service dies."""
CUTS = (0, round(1.5 * RATE), round(3.5 * RATE), round(11.3 * RATE), sum(map(len, PARTS)) // 2)
"""In the middle of the first three utterances."""
Story = list[tuple[float, float, str]]


class Fronts:
    """Two services that share a database, each of which is there again soon after it was killed."""

    def __init__(
        self, start: Callable[[int | None], Server], journal: str, ada: str = "", bob: str = ""
    ) -> None:
        self._start, self.journal, self.ada, self.bob = start, journal, ada, bob
        self._threads = ThreadPoolExecutor(2)
        self.running = list(self._threads.map(start, [None, None]))
        self.proxy = RoundRobin(*(one.port for one in self.running))
        self.url = f"http://127.0.0.1:{self.proxy.port}"
        self._coming: list[Future[Server]] = []

    def owner(self) -> Server | None:
        """Who has the only session."""
        return next((one for one in self.running if one.health()["active_sessions"]), None)

    def client(self) -> Client:
        """Comes again by the proxy, and soon."""
        return Client(self.url, token=self.ada or None, retry=SOON)

    def doomed(self) -> Server:
        """Who has the only session, once both are there."""
        self.all()
        owner: Server = wait_until(self.owner, PATIENCE_S, "one has the session")
        return owner

    def kill(
        self, one: Server | None = None, before_another: Callable[[], object] = lambda: None
    ) -> None:
        """Who has the only session is no more; another takes its place, in a while."""
        one = one or self.doomed()
        one.process.kill()
        self.running.remove(one)
        before_another()
        self._coming.append(self._threads.submit(self._again, one))

    def all(self) -> list[Server]:
        """Both, once both are there."""
        while self._coming:
            self.running.append(self._coming.pop().result())
        return self.running

    def close(self) -> None:
        """No more are started."""
        self.all()
        self._threads.shutdown()
        self.proxy.close()

    def left(self) -> int:
        """Sessions of which something lies in the database."""
        import psycopg

        with psycopg.connect(self.journal) as connection:
            query = """SELECT (SELECT count(*) FROM vibevoice.sessions)
                + (SELECT count(*) FROM vibevoice.stories)"""
            return int(connection.execute(query).fetchone()[0])

    def lies(self) -> bytes:
        """All that is there of them."""
        import psycopg

        with psycopg.connect(self.journal) as connection:
            query = """SELECT session FROM vibevoice.sessions
                UNION ALL SELECT said FROM vibevoice.stories"""
            return b"".join(bytes(row[0]) for row in connection.execute(query))

    def _again(self, killed: Server) -> Server:
        killed.process.wait(PATIENCE_S)
        return self._start(killed.port)


More = Callable[..., Fronts]
Death = tuple[type[Any], int, Sequence[Fronts]]
"""Behind what, of which turn, and of which two who has the session."""


@pytest.fixture(scope="module")
def more(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[More]:
    """Starts two that share one database with all others, by settings of their own."""
    folder = tmp_path_factory.mktemp("fronts")
    journal = postgres_cluster.new_database()
    with contextlib.ExitStack() as stack:
        issuer = TokenIssuer(folder / "tokens")
        ada, bob = (issuer.create(name)[0] for name in ("ada", "bob"))
        key = issuer.create("fronts", scopes=["lease"])[0]

        def two(**settings: object) -> Fronts:
            shared = {"journal": journal, "journal_key": KEY, "uploads": folder / "shared"}
            shared |= {"token_keys": issuer.keys.public, "upstream_key": key, **settings}

            def start(port: int | None) -> Server:
                home = tmp_path_factory.mktemp("server")
                server = stack.enter_context(Server(home, port=port, **shared))
                server.client.headers["Authorization"] = f"Bearer {ada}"
                return server

            there = Fronts(start, journal, ada, bob)
            stack.callback(there.close)
            return there

        yield two
    postgres_cluster.drop(journal)


@pytest.fixture(scope="module")
def fronts(more: More) -> Fronts:
    return more(live_engine="scripted")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five turns."""
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    with wave.open(str(path), "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes(b"".join(PARTS))
    return path


def finals(events: list[Any]) -> Story:
    """All that was told: from when to when, and what."""
    return [
        (round(one.segment.start, 2), round(one.segment.end, 2), one.segment.text)
        for one in events
        if isinstance(one, Final)
    ]


@pytest.fixture(scope="module")
def whole(fronts: Fronts, spoken: Path) -> Story:
    """What is told where nothing happens."""
    with fronts.client() as client:
        return finals(list(client.live_file(spoken, pace=0, partials=False)))


def told(fronts: Fronts, parts: Sequence[bytes], deaths: Sequence[Death]) -> list[Any]:
    """All that a client is told, behind each of whose parts but the last somebody dies."""
    events: list[Any] = []

    def heard(kind: type[Any], turn: int) -> None:
        """What is told up to that."""
        for event in live:
            events.append(event)
            if isinstance(event, kind) and event.turn == turn:
                return

    with fronts.client() as client, client.live() as live:
        for part, (kind, turn, dying) in zip(parts, deaths, strict=False):
            for piece in pieces(part):
                live.send(piece)
            heard(kind, turn)
            doomed = [(two, two.doomed()) for two in dying]
            for two, one in doomed:
                two.kill(one)
        for piece in pieces(parts[-1]):
            live.send(piece)
        live.finish()
        events += live
    return events


def unharmed(events: list[Any], whole: Story) -> None:
    """Five turns, with every word once, and one behind the other."""
    assert len(whole) == 5
    assert finals(events) == whole
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    for kind in (SpeechStarted, SpeechStopped, TurnEnded):
        assert [one.turn for one in events if isinstance(one, kind)] == [0, 1, 2, 3, 4]
    assert isinstance(events[-1], Summary)
    said = [segment.text for segment in events[-1].transcript.segments]
    assert said == [text for *_, text in whole]


@pytest.mark.slow
def test_a_session_survives_the_death_of_its_service_wherever_that_comes(
    fronts: Fronts, whole: Story
) -> None:
    unharmed(told(fronts, PARTS, [(*when, [fronts]) for when in DEATHS]), whole)
    wait_until(lambda: not fronts.left(), PATIENCE_S, "nothing of it is kept")


@pytest.mark.slow
def test_where_fronts_hear_nothing_a_front_may_die_and_who_hears_for_it_and_both_at_once(
    fronts: Fronts, more: More, whole: Story
) -> None:
    names = ",".join(f"http://127.0.0.1:{one.port}" for one in fronts.all())
    deaf = more(live_engine="upstream", upstream=names)
    recording = b"".join(PARTS)
    parts = [recording[2 * begin : 2 * end] for begin, end in pairwise(CUTS)]
    deaths: list[Death] = [
        (SpeechStarted, 0, [deaf]),
        (SpeechStarted, 1, [fronts]),
        (SpeechStarted, 2, [deaf, fronts]),
    ]
    unharmed(told(deaf, parts, deaths), whole)
    wait_until(lambda: not (deaf.left() or fronts.owner()), PATIENCE_S, "nothing of it is kept")


@pytest.mark.slow
def test_the_javascript_client_survives_it_as_well(
    fronts: Fronts, spoken: Path, whole: Story
) -> None:
    node = node_here()
    check_websockets(node)
    fronts.all()

    def told_there() -> list[dict[str, Any]]:
        urls = {"SERVICE_URL": fronts.url, "RECORDING": str(spoken), "KNOWN_BY": fronts.ada}
        said = run(node, *WEBSOCKET, "tests/live.js", "pace", **urls)
        return list(json.loads(said)["events"])

    with ThreadPoolExecutor(1) as threads:
        telling = threads.submit(told_there)
        wait_until(lambda: fronts.left() > 1, PATIENCE_S, "something was said")
        fronts.kill()
        events = telling.result()
    heard = [one["segment"] for one in events if one["type"] == "final"]
    story = [(round(one["start_time"], 2), round(one["end_time"], 2), one["text"]) for one in heard]
    assert story == whole
    assert [one["turn"] for one in events if one["type"] == "speech_started"] == [0, 1, 2, 3, 4]
    summed_up = [one["text"] for one in events[-1]["transcript"]["segments"]]
    assert summed_up == [text for *_, text in whole]


@contextlib.asynccontextmanager
async def at(server: Server, token: str, **begin: Any) -> AsyncIterator[Wire]:
    """A connection to one of them, and what it was told first."""
    address = f"ws://127.0.0.1:{server.port}/v1/live"
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(address, proxy=None, additional_headers=headers) as socket:
        wire = Wire(socket)
        await wire.say(type="begin", moves=True, diarize=False, partials=False, **begin)
        await wire.hear()
        yield wire


class Wire:
    """A connection, and all that it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []

    async def say(self, **order: Any) -> None:
        await self.socket.send(json.dumps(order))

    async def hear(self, *, until: str = "") -> dict[str, Any]:
        """What comes next, or the next of a type."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.told.append(json.loads(await self.socket.recv()))
                if until in ("", self.told[-1]["type"]):
                    return self.told[-1]

    @property
    def last(self) -> int:
        """The number of the last event."""
        return max((one.get("number", 0) for one in self.told), default=0)


async def test_a_line_that_leads_elsewhere_finds_its_session_there_and_nobody_else_s(
    fronts: Fronts,
) -> None:
    one, other = fronts.all()
    said = talk(0.3, 0.2, 0.35)
    async with at(one, fronts.ada, session="elsewhere") as first:
        for piece in pieces(said[: 2 * 16_000 * 4]):
            await first.socket.send(piece)
        await first.hear(until="turn_ended")
        lies = fronts.lies()
        assert len(lies) > 500
        for word in ("w299", "elsewhere", "Final", "pcm16"):
            assert word.encode() not in lies
        before, again = list(first.told), {"session": "elsewhere", "after": first.last}
        async with at(other, fronts.bob, **again) as stranger:
            assert stranger.told[0]["code"] == "session_not_found"
        assert one.health()["active_sessions"] == 1, "who is nobody's is asked for nothing"
        async with at(other, fronts.ada, **again) as second:  # the first one's line is still there
            began = second.told[0]
            assert began["type"] == "began"
            assert (await first.hear(until="error"))["code"] == "session_moved"
            assert 0 < began["received_samples"] < 16_000 * 4
            await second.say(type="commit")
            for piece in pieces(said[2 * began["received_samples"] :]):
                await second.socket.send(piece)
            await second.say(type="finish")
            summary = await second.hear(until="summary")
    told = [*before, *second.told]
    texts = [event["segment"]["text"] for event in told if event["type"] == "final"]
    assert texts == [segment["text"] for segment in summary["transcript"]["segments"]]
    numbers = [event["number"] for event in told if "number" in event]
    assert numbers == sorted(set(numbers))
    assert summary["transcript"]["metadata"]["duration"] == pytest.approx(7.4, abs=0.05)


async def test_the_last_word_is_told_elsewhere_as_well(fronts: Fronts) -> None:
    one, other = fronts.all()
    async with at(one, fronts.ada, session="last") as first:
        for piece in pieces(talk(0.3)):
            await first.socket.send(piece)
        await first.say(type="finish")
        summary = await first.hear(until="summary")
        before = summary["number"] - 1
        async with at(other, fronts.ada, session="last", after=before) as second:
            assert await second.hear(until="summary") == summary
            assert [one["type"] for one in second.told] == ["began", "summary"]
    wait_until(lambda: not fronts.left(), PATIENCE_S, "nothing of it is kept")


async def test_a_name_that_a_session_has_is_taken_at_every_service(fronts: Fronts) -> None:
    one, other = fronts.all()
    async with at(one, fronts.ada, session="once"):
        async with at(other, fronts.ada, session="once") as second:
            assert second.told[0]["code"] == "session_taken"
        async with at(other, fronts.bob, session="once") as third:
            assert third.told[0]["type"] == "began"


@pytest.mark.slow
def test_where_the_database_was_away_a_death_is_survived_or_told(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with cluster() as own, contextlib.ExitStack() as stack:
        journal = own.new_database()
        shared = {"journal": journal, "journal_key": KEY, "uploads": tmp_path / "jobs"}

        def start(port: int | None) -> Server:
            home = tmp_path_factory.mktemp("server")
            return stack.enter_context(Server(home, port=port, live_grace=60, **shared))

        fronts = Fronts(start, journal)
        stack.callback(fronts.close)
        with fronts.client() as client, client.live(partials=False, diarize=False) as live:
            for piece in pieces(talk(0.3)):
                live.send(piece)
            first = next(event for event in live if isinstance(event, TurnEnded))
            own.stop("immediate")
            fronts.kill(before_another=own.start)  # none begins without a database
            for piece in pieces(talk(0.2)):
                live.send(piece)
            second = next(event for event in live if isinstance(event, TurnEnded))
            assert (first.turn, second.turn) == (0, 1), "nothing was told that was not saved"
            fronts.all()
            own.stop("immediate")
            for piece in pieces(talk(0.35)):
                live.send(piece)
            third = next(event for event in live if isinstance(event, TurnEnded))
            assert third.turn == 2, "it goes on all the same"
            fronts.kill(before_another=own.start)
            with pytest.raises(
                codes.SessionNotFound, match="died while the database did not answer"
            ):
                list(live)
