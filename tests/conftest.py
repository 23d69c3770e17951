"""The service as a real process, and real recordings to send to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recordings import Studio
from serving import Server


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Recordings in every format, made when first asked for."""
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="session")
def voice(studio: Studio) -> bytes:
    """Three seconds of speech, 16-bit mono wav at 16 kHz."""
    return studio.voice.read_bytes()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with its defaults (and the scripted engine), shared by all tests."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a service with other settings, for one test."""
    with contextlib.ExitStack() as stack:

        def start(**settings: object) -> Server:
            home = tmp_path / f"server-{len(list(tmp_path.glob('server-*')))}"
            return stack.enter_context(Server(home, **settings))  # type: ignore[arg-type]

        yield start
