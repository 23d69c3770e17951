"""The first look at a file, on a machine that has much else to do."""

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from open_descriptors import opened
from recordings import Studio
from service_process import PATIENCE_S, settle, until
from virtual_time import virtual_time

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, OwnerLimits
from sidecar.transcripts.transcript import Transcript
from sidecar.workers import audio_probe
from sidecar.workers.audio_probe import AudioProbe, start_probe_process
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerDied, WorkerProcess

IDLE_S = 123.0
NOBODY = Transcript((), "en", 0.0, "moonshine", "int8", diarized=True)


def start_impatient_process() -> WorkerProcess:
    """A probe process that is killed soon after a cancel that it does not hear."""
    options = WorkerOptions(cancel_grace_s=0.05, ping_timeout_s=0.05)
    return WorkerProcess("audio_probe", options, least=True)


class LateProcesses:
    """Probe processes that do not begin before they are told to."""

    def __init__(self) -> None:
        self.started: list[WorkerProcess] = []

    def start(self) -> WorkerProcess:
        process = start_impatient_process()
        psutil.Process(process.pid).suspend()
        self.started.append(process)
        return process

    def begin(self) -> None:
        for process in self.started:
            psutil.Process(process.pid).resume()


@pytest.fixture
def late() -> LateProcesses:
    return LateProcesses()


@contextlib.asynccontextmanager
async def probing(
    start: Callable[[], WorkerProcess] = start_probe_process, **timeouts: float
) -> AsyncIterator[AudioProbe]:
    """A probe with these timeouts; the others are ample."""
    ample = dict.fromkeys(("start_s", "probe_s", "embedding_s", "open_s", "idle_s"), PATIENCE_S)
    probe = AudioProbe(3600.0, start)
    for name, value in (ample | timeouts).items():
        setattr(probe, name, value)
    yield probe
    await probe.close()


@pytest.fixture
def source(studio: Studio) -> AudioSource:
    """One that a process looks at."""
    return AudioSource(os.open(studio.path("aiff"), os.O_RDONLY), spooled=True)


async def test_probe_timeout_does_not_include_start_of_process(
    late: LateProcesses, source: AudioSource
) -> None:
    async with probing(late.start, probe_s=0.0) as probe:
        with source:
            looking = asyncio.ensure_future(probe.probe(ANONYMOUS, source))
            await until(lambda: late.started or looking.done())
            await settle()
            assert not looking.done()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def test_owner_with_most_probe_slots_leaves_one_to_other_owners(
    late: LateProcesses, source: AudioSource
) -> None:
    ada, bob = (
        Identity(name, AuthMethod.JWT, limits=OwnerLimits(shares=True)) for name in ("ada", "bob")
    )
    async with probing(late.start) as probe:
        with source:
            hers = [asyncio.ensure_future(probe.probe(ada, source)) for _ in range(12)]
            await until(lambda: len(late.started) == audio_probe.PARALLEL_PROBES - 1)
            his = asyncio.ensure_future(probe.probe(bob, source))
            await until(lambda: len(late.started) == audio_probe.PARALLEL_PROBES)
            psutil.Process(late.started[-1].pid).resume()
            assert (await his).container == "aiff"
            assert not any(one.done() for one in hers)
            for one in hers:
                one.cancel()
            await asyncio.gather(*hers, return_exceptions=True)


async def test_probe_process_that_does_not_start_is_machine_busy_and_stopped(
    late: LateProcesses, source: AudioSource
) -> None:
    async with probing(late.start, start_s=0.05) as probe:
        with source, pytest.raises(errors.MachineBusy):
            await probe.probe(ANONYMOUS, source)
        assert not late.started[0].alive


@pytest.mark.posix("programs for Linux")
async def test_probe_that_takes_too_long_is_decode_timeout(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, hangs = studio.path("mov"), tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n", "utf-8")
    hangs.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(hangs))
    async with probing(start_impatient_process, probe_s=0.2) as probe:
        with (
            AudioSource(os.open(recording, os.O_RDONLY), spooled=True) as source,
            pytest.raises(errors.AudioDecodeTimeout),
        ):
            await probe.probe(ANONYMOUS, source)


async def test_only_reads_that_a_disk_does_not_answer_time_out_and_leave_no_descriptor(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, begun, limits = threading.Event(), threading.Semaphore(0), list[asyncio.Timeout]()
    limit = asyncio.timeout

    def read(fd: int, max_s: float) -> None:
        begun.release()
        hangs.wait(PATIENCE_S)

    def noted(delay: float | None) -> asyncio.Timeout:
        limits.append(limit(delay))
        return limits[-1]

    def named() -> AudioSource:
        return AudioSource(os.open(studio.path("wav-s16"), os.O_RDONLY), spooled=False)

    monkeypatch.setattr(audio_probe, "probe_plain_wav", read)
    before = opened()
    async with probing() as probe:
        for _ in range(audio_probe.PARALLEL_PROBES):
            with monkeypatch.context() as patch, named() as source:
                patch.setattr(asyncio, "timeout", noted)
                looking = asyncio.ensure_future(probe.probe(ANONYMOUS, source))
                assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_S)
                limits[-1].reschedule(0.0)
                with pytest.raises(errors.AudioDecodeTimeout):
                    await looking
        probe.probe_s = 0.02
        for _ in range(3):
            with named() as source, pytest.raises(errors.MachineBusy, match="named before"):
                await probe.probe(ANONYMOUS, source)
    hangs.set()
    await until(lambda: "probe" not in [one.name for one in threading.enumerate()])
    assert opened() - before == set()


async def test_paths_on_a_hanging_share_refuse_only_their_owners_next_path_until_it_answers(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = (Identity(name, AuthMethod.JWT) for name in ("ada", "bob"))
    answers, begun = threading.Event(), threading.Semaphore(0)
    opened_file = audio_probe.open_recording_file

    def open_once_it_answers(path: str, roots: Sequence[Path]) -> AudioSource:
        if path == "/dead":
            begun.release()
            answers.wait()
        return opened_file(path, roots)

    monkeypatch.setattr(audio_probe, "open_recording_file", open_once_it_answers)
    async with probing() as probe:
        try:
            hers = [
                asyncio.ensure_future(probe.open(ada, "/dead", ()))
                for _ in range(audio_probe.PARALLEL_OPENS)
            ]
            for one in hers:
                assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_S)
                one.cancel()  # as at its timeout
            probe.open_s = 0.1
            path = str(studio.path("wav-s16"))
            with pytest.raises(errors.MachineBusy, match="you named before"):
                await probe.open(ada, path, ())
            probe.open_s = PATIENCE_S
            (await probe.open(bob, path, ())).close()
        finally:
            answers.set()
        (await probe.open(ada, path, ())).close()


async def test_idle_timeout_of_probes_starts_after_last_concurrent_file(
    late: LateProcesses, studio: Studio
) -> None:
    loop = asyncio.get_running_loop()
    timers = list[asyncio.TimerHandle]()
    call_later = loop.call_later

    def noted(delay: float, callback: Any, *arguments: Any, **named: Any) -> asyncio.TimerHandle:
        timer = call_later(delay, callback, *arguments, **named)
        if delay == IDLE_S:
            timers.append(timer)
        return timer

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as sources:
        patch.setattr(loop, "call_later", noted)
        files = [
            AudioSource(os.open(studio.path("aiff"), os.O_RDONLY), spooled=True) for _ in range(2)
        ]
        async with probing(late.start, idle_s=IDLE_S) as probe:
            looking = [probe.probe(ANONYMOUS, sources.enter_context(one)) for one in files]
            both = asyncio.gather(*looking)
            await until(lambda: len(late.started) == 2)
            late.begin()
            await both
            assert [timer.cancelled() for timer in timers] == [True, False]
        assert all(timer.cancelled() for timer in timers)


async def test_probe_process_that_cannot_be_started_raises_machine_busy(
    source: AudioSource,
) -> None:
    def start() -> WorkerProcess:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    async with probing(start) as probe:
        with source, pytest.raises(errors.MachineBusy, match="allocate memory"):
            await probe.probe(ANONYMOUS, source)


async def test_transcripts_to_diarize_are_packed_in_threads_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed, go_on = list[bool](), threading.Event()

    def pack(value: Any) -> Any:
        packed.append(threading.current_thread() is threading.main_thread())
        if not packed[-1]:
            go_on.wait()
        return {}

    def no_process() -> WorkerProcess:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(audio_probe, "to_plain", pack)
    limits = OwnerLimits(shares=True)
    owners = [Identity(name, AuthMethod.JWT, limits=limits) for name in ("ada", "bob")]
    async with probing(no_process) as probe:
        asked = [asyncio.ensure_future(probe.diarized(one, "", NOBODY, None, {})) for one in owners]
        await until(lambda: packed)
        await settle()
        assert packed == [False]
        go_on.set()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in results] == [errors.MachineBusy] * 2
        assert packed == [False] * 2


class BusyProcess:
    """A process that is ready, and never ends what it is asked."""

    alive, stuck = True, False

    async def ask(self, operation: str, *asked: Any, **given: Any) -> None:
        if operation != "ready":
            await asyncio.Event().wait()

    def kill(self) -> None:
        self.alive = False

    async def crashed(self) -> bool:
        return False

    async def close(self) -> None:
        assert not self.alive


class MortalProcess(BusyProcess):
    """A process that dies of one of its operations."""

    def __init__(self, dies_at: str) -> None:
        self._dies_at = dies_at

    async def ask(self, operation: str, *asked: Any, **given: Any) -> None:
        if operation == self._dies_at:
            self.alive = False
            raise WorkerDied("it is gone")


@virtual_time
@pytest.mark.parametrize(("hours", "limit_s"), [(0, PATIENCE_S), (9, PATIENCE_S + 1080.0)])
async def test_diarization_beyond_a_limit_that_grows_with_the_audio_raises_machine_busy(
    hours: int, limit_s: float
) -> None:
    """One for each probe: the idle time of its process would pass while a thread works."""
    long = replace(NOBODY, duration=hours * 3600.0)
    async with probing(lambda: cast(WorkerProcess, BusyProcess())) as probe:
        began = time.monotonic()
        with pytest.raises(errors.MachineBusy):
            await probe.diarized(ANONYMOUS, "", long, None, {})
        assert time.monotonic() - began == pytest.approx(limit_s, abs=1e-3)


@virtual_time
async def test_split_of_a_speaker_that_takes_too_long_raises_machine_busy() -> None:
    async with probing(lambda: cast(WorkerProcess, BusyProcess())) as probe:
        with pytest.raises(errors.MachineBusy):
            await probe.parted(ANONYMOUS, [], None)


async def test_idle_probe_process_that_died_is_replaced(studio: Studio) -> None:
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        started.append(start_probe_process())
        return started[-1]

    async with probing(start) as probe:
        for _ in range(2):
            with AudioSource(os.open(studio.path("flac"), os.O_RDONLY), spooled=True) as source:
                assert (await probe.probe(ANONYMOUS, source)).container == "flac"
            psutil.Process(started[-1].pid).kill()
    assert len(started) == 2


@pytest.mark.parametrize(
    ("dies_at", "error"),
    [("ready", errors.MachineBusy), ("probe", errors.AudioUndecodable)],
)
async def test_recording_is_at_fault_only_if_the_last_process_died_after_it_was_ready(
    dies_at: str, error: type[errors.SidecarError], source: AudioSource
) -> None:
    async with probing(lambda: cast(WorkerProcess, MortalProcess(dies_at))) as probe:
        with source, pytest.raises(error):
            await probe.probe(ANONYMOUS, source)


async def test_split_of_a_speaker_for_which_no_process_starts_raises_machine_busy() -> None:
    async with probing(lambda: cast(WorkerProcess, MortalProcess("ready"))) as probe:
        with pytest.raises(errors.MachineBusy):
            await probe.parted(ANONYMOUS, [], None)


class FullProcess(BusyProcess):
    """A process that gets no memory for what it is asked."""

    async def ask(self, operation: str, *asked: Any, **given: Any) -> None:
        if operation != "ready":
            raise errors.unexpected_engine_error(MemoryError())


async def test_process_that_gets_no_memory_ends_and_rests_for_no_other_recording() -> None:
    started: list[FullProcess] = []

    def start() -> WorkerProcess:
        started.append(FullProcess())
        return cast(WorkerProcess, started[-1])

    async with probing(start) as probe:
        for _ in range(2):
            with pytest.raises(errors.OutOfMemory):
                await probe.parted(ANONYMOUS, [], None)
    assert [one.alive for one in started] == [False, False]
