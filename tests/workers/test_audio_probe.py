"""The first look at a file, on a machine that has much else to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from open_descriptors import opened
from recordings import Studio
from service_process import PATIENCE_S, settle, until

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, OwnerLimits
from sidecar.workers import audio_probe
from sidecar.workers.audio_probe import AudioProbe
from sidecar.workers.worker_process import WorkerProcess

pytestmark = pytest.mark.skipif(os.name == "nt", reason="stops with POSIX signals")


class Late(AudioProbe):
    """Its processes do not begin before they are told to."""

    def __init__(self) -> None:
        super().__init__(3600.0)
        self.late: list[WorkerProcess] = []

    def _started(self) -> WorkerProcess:
        worker = super()._started()
        os.kill(worker.pid, signal.SIGSTOP)
        self.late.append(worker)
        return worker

    @property
    def asked(self) -> bool:
        """Whether the file was sent to a process."""
        return any(worker._calls._in_turn for worker in self.late)

    def begin(self) -> None:
        for worker in self.late:
            os.kill(worker.pid, signal.SIGCONT)


@pytest.fixture
async def late() -> AsyncIterator[Late]:
    looks = Late()
    yield looks
    await looks.close()


@pytest.fixture
def source(studio: Studio) -> AudioSource:
    """One that a process looks at."""
    return AudioSource(os.open(studio.path("aiff"), os.O_RDONLY), spooled=True)


async def test_probe_timeout_does_not_include_start_of_process(
    late: Late, source: AudioSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(audio_probe.OPERATION_TIMEOUTS_S, "probe", 0.0)
    with source:
        looking = asyncio.ensure_future(late.probe(ANONYMOUS, source))
        await until(lambda: late.asked or looking.done())
        await settle()
        assert not looking.done()
        monkeypatch.setitem(audio_probe.OPERATION_TIMEOUTS_S, "probe", PATIENCE_S)
        late.begin()
        assert (await looking).container == "aiff"


async def test_owner_with_most_probe_slots_leaves_one_to_other_owners(
    late: Late, source: AudioSource
) -> None:
    ada, bob = (
        Identity(name, AuthMethod.JWT, limits=OwnerLimits(shares=True)) for name in ("ada", "bob")
    )
    with source:
        hers = [asyncio.ensure_future(late.probe(ada, source)) for _ in range(12)]
        await until(lambda: len(late.late) == audio_probe.PARALLEL_PROBES - 1)
        his = asyncio.ensure_future(late.probe(bob, source))
        await until(lambda: len(late.late) == audio_probe.PARALLEL_PROBES)
        os.kill(late.late[-1].pid, signal.SIGCONT)
        assert (await his).container == "aiff"
        assert not any(one.done() for one in hers)
        for one in hers:
            one.cancel()
        await asyncio.gather(*hers, return_exceptions=True)


async def test_probe_process_that_does_not_start_is_machine_busy_and_replaced(
    late: Late, source: AudioSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_probe, "START_TIMEOUT_S", 0.05)
    with source:
        with pytest.raises(errors.MachineBusy):
            await late.probe(ANONYMOUS, source)
        assert not late.late.pop().alive
        monkeypatch.setattr(audio_probe, "START_TIMEOUT_S", PATIENCE_S)
        looking = asyncio.ensure_future(late.probe(ANONYMOUS, source))
        await until(lambda: late.late)
        late.begin()
        assert (await looking).container == "aiff"


async def test_probe_that_takes_too_long_is_decode_timeout(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, hangs = studio.path("mov"), tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(hangs))
    monkeypatch.setitem(audio_probe.OPERATION_TIMEOUTS_S, "probe", 0.2)
    looks = AudioProbe(3600.0)
    try:
        with (
            AudioSource(os.open(recording, os.O_RDONLY), spooled=True) as source,
            pytest.raises(errors.AudioDecodeTimeout),
        ):
            await looks.probe(ANONYMOUS, source)
    finally:
        await looks.close()


async def test_probes_on_hanging_disk_time_out_and_leave_no_descriptor(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(audio_probe, "probe_plain_wav", lambda fd, max_s: hangs.wait(PATIENCE_S))
    monkeypatch.setattr(audio_probe, "PROBE_TIMEOUT_S", 0.02)
    looks, before = AudioProbe(3600.0), opened()
    for _ in range(3 * audio_probe.PARALLEL_PROBES):
        with (
            AudioSource(os.open(studio.path("wav-s16"), os.O_RDONLY), spooled=False) as named,
            pytest.raises(errors.AudioDecodeTimeout),
        ):
            await looks.probe(ANONYMOUS, named)
    hangs.set()
    await until(lambda: "look" not in [one.name for one in threading.enumerate()])
    assert opened() - before == set()


async def test_idle_timeout_of_probes_starts_after_last_concurrent_file(
    late: Late, studio: Studio
) -> None:
    loop = asyncio.get_running_loop()
    timers = list[asyncio.TimerHandle]()
    call_later = loop.call_later

    def noted(delay: float, callback: Any, *arguments: Any, **named: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, callback, *arguments, **named)
        if callback == late._drop:
            timers.append(timer)
        return timer

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as sources:
        patch.setattr(loop, "call_later", noted)
        files = [
            AudioSource(os.open(studio.path("aiff"), os.O_RDONLY), spooled=True) for _ in range(2)
        ]
        looking = [late.probe(ANONYMOUS, sources.enter_context(one)) for one in files]
        both = asyncio.gather(*looking)
        await until(lambda: len(late.late) == 2)
        late.begin()
        await both
        assert [timer.cancelled() for timer in timers] == [True, False]
        await late.close()
        assert all(timer.cancelled() for timer in timers)
