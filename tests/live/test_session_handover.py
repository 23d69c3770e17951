"""Live sessions of services that end: others go on with them, and their clients notice nothing.

All are real processes over a real PostgreSQL; clients reach them through a proxy that gives each
connection to the next of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import moonshine_voice
import pytest
from node_javascript import WEBSOCKET, check_websockets, node_here, run
from postgres import KEY, Cluster, cluster
from proxies import RoundRobin
from recordings import run_ffmpeg
from scripted_speech import pieces, talk
from service_process import PATIENCE_S, Server, wait_until
from vibevoice_asr_client import Client, Final, Retry, SpeechStarted, Summary
from websockets.asyncio.client import connect

SOON = Retry(attempts=1000, first_s=0.01, longest_s=0.2)
PACE = 2.0
"""Seconds of the recording that go up in a second."""


class Fronts:
    """Services that hear live and share a database, and the proxy before them."""

    def __init__(self, start: Callable[[], Server], count: int, journal: str) -> None:
        self.journal = journal
        with ThreadPoolExecutor() as threads:
            self.running = list(threads.map(lambda _: start(), range(count)))
        self.proxy = RoundRobin(*(one.port for one in self.running))
        self.url = f"http://127.0.0.1:{self.proxy.port}"

    def hears(self) -> bool:
        """Whether one hears somebody speak."""
        numbers = [one.client.get("/metrics.json").json() for one in self.running]
        return any(one["active_vad_utterances"] for one in numbers)

    def end_of_who_has_it(self) -> Server:
        """Tell the one that has the only session to end; between two of them nobody has it."""

        def has_it() -> Server | None:
            there = [one for one in self.running if one.process.is_running()]
            return next((one for one in there if one.health()["active_sessions"]), None)

        one: Server = wait_until(has_it, PATIENCE_S, "somebody has the session")
        one.process.terminate()
        self.running.remove(one)
        return one


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds that somebody says."""
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    clip = Path(moonshine_voice.get_assets_path()) / "beckett.wav"
    run_ffmpeg("-i", clip, "-ar", 16_000, "-ac", 1, path)
    return path


@pytest.fixture(scope="module")
def fronts(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    folder = tmp_path_factory.mktemp("fronts")
    journal = postgres_cluster.new_database()
    with contextlib.ExitStack() as stack:

        def start() -> Server:
            home = tmp_path_factory.mktemp("server")
            shared = {"journal": journal, "journal_key": KEY, "uploads": folder / "shared"}
            more = {"live_engine": "moonshine", "shutdown_grace": 60}
            return stack.enter_context(Server(home, **shared, **more))

        there = Fronts(start, 4, journal)
        yield there
        there.proxy.close()
    postgres_cluster.drop(journal)


def finals(events: list[Any]) -> list[tuple[float, float, str]]:
    """All that was told: from when to when, and what."""
    return [
        (round(one.segment.start, 2), round(one.segment.end, 2), one.segment.text)
        for one in events
        if isinstance(one, Final)
    ]


def left_between(journal: str) -> int:
    """Sessions that no service has."""
    import psycopg

    with psycopg.connect(journal) as connection:
        return int(connection.execute("SELECT count(*) FROM vibevoice.sessions").fetchone()[0])


@pytest.fixture(scope="module")
def whole(fronts: Fronts, spoken: Path) -> list[tuple[float, float, str]]:
    """What is told where nothing happens."""
    with Client(fronts.url) as client:
        return finals(list(client.live_file(spoken, pace=PACE, partials=False)))


@pytest.mark.slow
def test_a_session_goes_on_at_another_service_word_for_word(
    fronts: Fronts, spoken: Path, whole: list[tuple[float, float, str]]
) -> None:
    with Client(fronts.url, retry=SOON) as client:
        events: list[Any] = []
        ended: list[Server] = []
        for event in client.live_file(spoken, pace=PACE, partials=False):
            events.append(event)
            if isinstance(event, SpeechStarted) and event.turn in (1, 3):
                ended.append(fronts.end_of_who_has_it())
    assert len(ended) == 2
    assert finals(events) == whole
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert len({event.piece for event in events if isinstance(event, Final)}) == len(whole)
    summary = events[-1]
    assert isinstance(summary, Summary)
    said = [segment.text for segment in summary.transcript.segments]
    assert said == [text for *_, text in whole]
    wait_until(lambda: not left_between(fronts.journal), PATIENCE_S, "nothing of it is kept")
    for one in ended:
        assert one.process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_the_javascript_client_goes_on_there_as_well(
    fronts: Fronts, spoken: Path, whole: list[tuple[float, float, str]]
) -> None:
    node = node_here()
    check_websockets(node)

    def told() -> list[tuple[float, float, str]]:
        """What the client heard."""
        urls = {"SERVICE_URL": fronts.url, "RECORDING": str(spoken)}
        events = json.loads(run(node, *WEBSOCKET, "tests/live.js", "pace", **urls))["events"]
        pieces = [one["segment"] for one in events if one["type"] == "final"]
        assert events[-1]["transcript"]["segments"] == pieces
        return [
            (round(one["start_time"], 2), round(one["end_time"], 2), one["text"]) for one in pieces
        ]

    with ThreadPoolExecutor(1) as threads:
        telling = threads.submit(told)
        wait_until(fronts.hears, PATIENCE_S, "it is heard")
        fronts.end_of_who_has_it()
        assert telling.result() == whole
    wait_until(lambda: not left_between(fronts.journal), PATIENCE_S, "nothing of it is kept")


async def test_who_does_not_come_again_is_told_the_rest(fronts: Fronts, spoken: Path) -> None:
    address = f"ws://127.0.0.1:{fronts.running[-1].port}/v1/live"
    async with connect(address, proxy=None) as socket:
        await socket.send(json.dumps({"type": "begin", "session": "stays"}))
        with wave.open(str(spoken)) as recording:
            await socket.send(recording.readframes(2 * 16_000))
        async with asyncio.timeout(PATIENCE_S):
            while json.loads(await socket.recv())["type"] != "speech_started":
                pass
            fronts.end_of_who_has_it()
            said = [{"type": "speech_started"}]
            while said[-1]["type"] != "summary":
                said.append(json.loads(await socket.recv()))
    kinds = {one["type"] for one in said}
    assert "final" in kinds
    assert "error" not in kinds


@pytest.mark.slow
def test_where_the_database_is_away_a_session_ends_where_it_is(tmp_path: Path) -> None:
    with cluster() as own:
        shared = {"journal": own.new_database(), "journal_key": KEY, "uploads": tmp_path / "jobs"}
        with (
            Server(tmp_path / "server", **shared, shutdown_grace=60) as server,
            Client(f"http://127.0.0.1:{server.port}", retry=SOON) as client,
            client.live(partials=False) as live,
        ):
            for piece in pieces(talk(0.3)):
                live.send(piece)
            first = next(event for event in live if isinstance(event, Final))
            own.stop("immediate")
            server.process.terminate()
            rest = list(live)
    assert isinstance(rest[-1], Summary)
    assert [one.text for one in rest[-1].transcript.segments] == [first.segment.text]
