"""Live sessions of services that end: others go on with them, and their clients notice nothing.

All are real processes over a real PostgreSQL; clients reach them through a proxy that gives each
connection to the next of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import moonshine_voice
import pytest
from postgres import KEY, Cluster
from proxies import RoundRobin
from recordings import run_ffmpeg
from serving import PATIENCE_S, Server
from vibevoice_asr_client import Client, Final, Retry, SpeechStarted, Summary

SOON = Retry(attempts=40, first_s=0.01, longest_s=0.2)
PACE = 2.0
"""Seconds of the recording that go up in a second."""


class Fronts:
    """Services that hear live and share a database, and the proxy before them."""

    def __init__(self, start: Callable[[], Server], count: int, journal: str) -> None:
        self.journal = journal
        self.running = [start() for _ in range(count)]
        self.proxy = RoundRobin(*(one.port for one in self.running))
        self.url = f"http://127.0.0.1:{self.proxy.port}"

    def end_of_who_has_it(self) -> Server:
        """Tell the one that has the only session to end."""
        there = [one for one in self.running if one.process.is_running()]
        one = next(one for one in there if one.health()["active_sessions"])
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
            home = folder / f"server-{len(list(folder.glob('server-*')))}"
            shared = {"journal": journal, "journal_key": KEY, "jobs_dir": folder / "shared"}
            more = {"live_engine": "moonshine", "shutdown_grace": 5}
            return stack.enter_context(Server(home, **shared, **more))

        there = Fronts(start, 5, journal)
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


def test_a_session_goes_on_at_another_service_word_for_word(fronts: Fronts, spoken: Path) -> None:
    with Client(fronts.url, retry=SOON) as client:
        whole = list(client.live_file(spoken, pace=PACE, partials=False))
        events: list[Any] = []
        ended: list[Server] = []
        for event in client.live_file(spoken, pace=PACE, partials=False):
            events.append(event)
            if isinstance(event, SpeechStarted) and event.turn in (1, 3):
                ended.append(fronts.end_of_who_has_it())
    print(finals(whole), finals(events))
    assert len(ended) == 2
    assert finals(events) == finals(whole)
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert len({event.piece for event in events if isinstance(event, Final)}) == len(finals(whole))
    summary = events[-1]
    assert isinstance(summary, Summary)
    said = [segment.text for segment in summary.transcript.segments]
    assert said == [text for *_, text in finals(whole)]
    assert left_between(fronts.journal) == 0
    for one in ended:
        assert one.process.wait(PATIENCE_S) == 0
