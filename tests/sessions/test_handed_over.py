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
from serving import Server
from vibevoice_asr_client import Client, Final, Partial, Retry

SOON = Retry(attempts=40, first_s=0.01, longest_s=0.2)
PACE = 2.0
"""Seconds of the recording that go up in a second."""


class Fronts:
    """Services that hear live and share a database, and the proxy before them."""

    def __init__(self, start: Callable[[], Server], count: int) -> None:
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

        there = Fronts(start, 4)
        yield there
        there.proxy.close()
    postgres_cluster.drop(journal)


def words(events: list[Any]) -> list[list[str]]:
    return [one.segment.text.split() for one in events if isinstance(one, Final)]


def test_a_session_goes_on_at_another_service_word_for_word(fronts: Fronts, spoken: Path) -> None:
    with Client(fronts.url, retry=SOON) as client:
        whole = list(client.live_file(spoken, pace=PACE))
        events: list[Any] = []
        ended: list[Server] = []
        told = 0
        for event in client.live_file(spoken, pace=PACE):
            events.append(event)
            told += isinstance(event, Partial)
            if told in (2, 6) and len(ended) < told // 2 and isinstance(event, Partial):
                ended.append(fronts.end_of_who_has_it())
    print([type(e).__name__ + str(getattr(e, "number", "")) for e in events])
    print(words(whole))
    print(words(events))
    for e in events:
        if isinstance(e, Partial):
            print(e.text)
    for s in ended:
        print(s.log())
    assert len(ended) == 2
    assert words(events) == words(whole)
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
