"""Files of clients whose share answers no more: nothing but their own threads waits for it."""

import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from service_process import new_file

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.plugins import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import Service


@pytest.fixture(params=[True, False], ids=["kept", "request"])
def kept(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = create_service(
        load_settings(engine="scripted", data_dir=tmp_path, keep_jobs=True, journal_key="k" * 32)
    )
    await service.open()
    yield service
    await service.close()


def note_calls_of_event_loop(patch: pytest.MonkeyPatch, path: Path) -> list[str]:
    """The calls of this thread, from now on, that wait for the disk of an open file."""
    calls, file, status_of = list[str](), path.stat(), os.fstat

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def work(fd: int, *more: Any, **named: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                try:
                    if os.path.samestat(status_of(fd), file):
                        calls.append(name)
                except OSError:  # not open
                    pass
            return call(fd, *more, **named)

        return work

    for name in ("close", "fstat", "fdopen", "pread"):
        if hasattr(os, name):
            patch.setattr(os, name, noted(name, getattr(os, name)))
    return calls


async def test_event_loop_waits_for_no_disk_of_a_clients_file_from_its_open_to_the_end_of_its_job(
    kept: bool, service: Service, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = note_calls_of_event_loop(monkeypatch, recording)
    source = await service.submissions.open_path(ANONYMOUS, str(recording))
    job = await service.submissions.submit(ANONYMOUS, source, TranscribeOptions(), kept=kept)
    assert (await job.result()).text
    assert calls == []


async def test_event_loop_waits_for_no_disk_of_a_clients_file_that_is_refused(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_file(tmp_path / "no.wav", b"no audio")
    calls = note_calls_of_event_loop(monkeypatch, path)
    source = await service.submissions.open_path(ANONYMOUS, str(path))
    with pytest.raises(errors.AudioFormatUnsupported):
        await service.submissions.submit(ANONYMOUS, source, TranscribeOptions())
    assert calls == []
