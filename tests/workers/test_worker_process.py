"""Real worker processes: they answer, they are cancelled, they die, and nothing stays behind."""

import asyncio
import errno
import logging
import os
import queue
import select
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from instrumented_slot import model_of
from job_fixtures import Hold
from job_fixtures import hold as hold
from moonshine_voice import get_assets_path
from service_process import PATIENCE_S, halt, runs, until, wait_until, worker_pids

from sidecar import errors
from sidecar.engines import engine_spec
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions
from sidecar.workers import channel, worker_main, worker_process
from sidecar.workers.engine import Engine
from sidecar.workers.rpc_server import RpcRequest, RpcSender
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_operations import WorkerOperations
from sidecar.workers.worker_process import HUNG_NOTE, WorkerDied, WorkerProcess

CLIP = Path(get_assets_path()) / "beckett.wav"
OTHER_CLIP = Path(get_assets_path()) / "two_cities.wav"
FACTS = {"container": "wav", "decoder": "sndfile", "total_s": 9.96}
REQUEST = {"facts": FACTS, "options": TranscribeOptions().to_wire(), "max_s": 1e5}
PATIENT = WorkerOptions(cancel_grace_s=PATIENCE_S, ping_timeout_s=PATIENCE_S)
"""A busy machine is no hang."""


async def transcribe(worker: WorkerProcess, fd: int) -> AsyncGenerator[dict[str, Any], None]:
    async with worker.calling("transcribe", [fd], **REQUEST) as call:
        async for answer, _ in call.answers():
            yield answer


@asynccontextmanager
async def running(
    engine: str = "scripted", options: WorkerOptions | None = None
) -> AsyncIterator[WorkerProcess]:
    """A worker that closes in the end: an engine's is loaded, "audio_probe" looks at files."""
    worker = WorkerProcess(engine, options=options)
    try:
        if engine != "audio_probe":
            factory = engine_spec(engine).factory
            await worker.ask("load", engine=factory, options=LoadOptions().to_wire())
        yield worker
    finally:
        await worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="packets: each write is read alone")
def test_final_transcript_is_sent_in_one_write_with_the_end_of_its_call() -> None:
    """Otherwise the service serves the clients of a job before it starts the next one."""
    operations = WorkerOperations()
    load = {"engine": engine_spec("scripted").factory, "options": LoadOptions().to_wire()}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for operation, values in ("load", load), ("transcribe", REQUEST):
            message = {"operation": operation, **values}
            fd = os.open(CLIP, os.O_RDONLY)
            request = RpcRequest(1, message, [fd], RpcSender(ours))
            worker_main.serve_call(operations, request)
        ours.shutdown(socket.SHUT_WR)
        *_, last = iter(lambda: bytearray(theirs.recv(1 << 16)), b"")
    transcript, end = channel.take_frame(last), channel.take_frame(last)
    assert transcript is not None
    assert transcript.message["answer"]["event"]["event"] == "Finished"
    assert end is not None
    assert end.message == {"call": 1, "done": True}


async def test_worker_outlives_thread_that_started_it() -> None:
    started: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
    over = threading.Event()
    thread = threading.Thread(
        target=lambda: (started.put(WorkerProcess("audio_probe")), over.wait())
    )
    thread.start()
    worker = started.get()
    try:
        with CLIP.open("rb") as file:
            assert await worker.ask("probe", [file.fileno()], max_s=1e5)
            over.set()
            ours = psutil.Process()
            await until(lambda: thread.native_id not in [one.id for one in ours.threads()])
            assert await worker.ask("probe", [file.fileno()], max_s=1e5)
    finally:
        over.set()
        await worker.close()


async def test_worker_answers_the_next_call_after_one_that_was_cancelled_at_its_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def cancelled_after(turns: int) -> None:
        async with running("audio_probe", PATIENT) as worker:
            with CLIP.open("rb") as file:
                call = asyncio.ensure_future(worker.ask("probe", [file.fileno()], max_s=1e5))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert worker.alive
            with OTHER_CLIP.open("rb") as file:
                facts = await worker.ask("probe", [file.fileno()], max_s=1e5)
            assert facts["total_s"] > 20, "the answer to this call, not to the last"

    await asyncio.gather(*(cancelled_after(turns) for turns in range(0, 14, 2)))
    assert "Traceback" not in caplog.text
    assert not [one for one in caplog.records if one.name == "asyncio"]


@pytest.mark.parametrize("buffer", [4096, None])
async def test_prompt_larger_than_socket_buffer_reaches_worker_that_reads_late(
    buffer: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, sizes, socks = channel.spawn_worker, list[int](), list[socket.socket]()

    def spawned(*arguments: Any) -> Any:
        process, sock = spawn(*arguments)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        socks.append(sock)
        return process, sock

    monkeypatch.setattr(channel, "spawn_worker", spawned)
    async with running() as worker:
        with CLIP.open("rb") as file:
            halt(worker.pid)
            count = max(65_536, *sizes)  # of characters with four bytes
            options = TranscribeOptions(prompt="😀" * count).to_wire()
            one = {"facts": FACTS, "options": options, "max_s": 1e5}
            call = worker.calling("transcribe", [file.fileno()], **one)
            async with call as begun:
                if os.name == "posix":  # Windows takes one that is larger, and is full then
                    assert not select.select([], socks, [], 0)[1], "the socket is full"
                psutil.Process(worker.pid).resume()
                answers = [answer async for answer, _ in begun.answers()]
        ended = [answer for answer in answers if answer["event"]["event"] == "Finished"]
        assert len(ended) == 1
        assert worker.alive


async def test_call_left_early_is_cancelled_and_the_same_worker_answers_the_next(
    hold: Hold,
) -> None:
    async with running(options=PATIENT) as worker:
        with CLIP.open("rb") as file:
            async with aclosing(transcribe(worker, file.fileno())) as frames:
                first = await anext(frames)
            assert first["event"]["event"] == "SegmentReady"
            assert worker.alive
            hold.release()
            again = [frame async for frame in transcribe(worker, file.fileno())]
        assert again[-1]["event"]["event"] == "Finished"


async def test_worker_that_does_not_answer_cancel_is_killed_as_hung() -> None:
    async with running(options=WorkerOptions(cancel_grace_s=0.05, ping_timeout_s=0.05)) as worker:
        with CLIP.open("rb") as file:
            halt(worker.pid)  # as deaf as native code can be
            asked = asyncio.Event()

            async def wait_for_answers() -> None:
                async with worker.calling("transcribe", [file.fileno()], **REQUEST) as call:
                    asked.set()
                    async for _ in call.answers():
                        pass

            waiting = asyncio.ensure_future(wait_for_answers())
            await until(lambda: asked.is_set() or waiting.done(), "it was asked")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert not worker.alive
        assert await worker.crashed()
        assert worker.last_lines[-1] == HUNG_NOTE
    assert not runs(worker.pid)


async def test_note_of_a_hang_stands_behind_lines_that_were_read_after_the_kill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks = "import os, time; os.write(2, b'first\\nsecond\\n'); time.sleep(3600)"
    monkeypatch.setattr(worker_process, "worker_command", lambda: [sys.executable, "-c", talks])
    logged, killed = threading.Event(), threading.Event()

    class Held(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "first":
                logged.set()
                killed.wait(PATIENCE_S)

    relay, held = logging.getLogger(f"{worker_process.__name__}.late"), Held()
    relay.addHandler(held)
    monkeypatch.setattr(relay, "level", logging.INFO)
    try:
        worker = WorkerProcess("late")
        await until(logged.is_set, "a line of it is read")
        worker.kill(hung=True)
        killed.set()
        await until(lambda: "second" in worker.last_lines, "the next is read")
        assert worker.last_lines == ["first", "second", HUNG_NOTE]
        await worker.close()
    finally:
        relay.removeHandler(held)


@pytest.mark.usefixtures("hold")
async def test_killed_worker_raises_worker_died_and_leaves_no_zombie() -> None:
    async with running() as worker:
        with CLIP.open("rb") as file:
            frames = transcribe(worker, file.fileno())
            await anext(frames)
            psutil.Process(worker.pid).kill()
            with pytest.raises(WorkerDied):
                async for _ in frames:
                    pass
    assert not psutil.pid_exists(worker.pid)


@pytest.mark.posix("signals")
@pytest.mark.parametrize("of_memory", [True, False])
async def test_killed_worker_is_out_of_memory_and_no_crash_only_if_the_kernel_counts_such_a_kill(
    of_memory: bool,
) -> None:
    kills = [0]
    worker = WorkerProcess("scripted", memory_kills=lambda: kills[0])
    try:
        factory = engine_spec("scripted").factory
        await worker.ask("load", engine=factory, options=LoadOptions().to_wire())
        kills[0] += of_memory
        psutil.Process(worker.pid).kill()
        with pytest.raises(errors.OutOfMemory if of_memory else WorkerDied):
            await worker.ask("load", engine=factory, options=LoadOptions().to_wire())
        assert await worker.crashed() is not of_memory
    finally:
        await worker.close()


@pytest.mark.parametrize("at_work", [False, True])
def test_worker_dies_with_process_that_started_it(at_work: bool, tmp_path: Path) -> None:
    """Also while it still imports."""
    answer = (
        f"    await worker.ask('load', engine={engine_spec('scripted').factory!r}, "
        "options=LoadOptions().to_wire())\n"
    )
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "import psutil\n"
        "from sidecar.interfaces.engine_interface import LoadOptions\n"
        "from sidecar.workers.worker_process import WorkerProcess\n"
        "async def main():\n"
        "    worker = WorkerProcess('scripted')\n"
        "    Path(sys.argv[1]).write_text(str(worker.pid))\n"
        + (answer if at_work else "")
        + "    psutil.Process().kill()\n"
        "asyncio.run(main())\n"
    )
    # Not through pipes: the worker would have them too, and be waited for.
    subprocess.run([sys.executable, "-c", script, tmp_path / "pid"], stdout=subprocess.DEVNULL)
    pid = int((tmp_path / "pid").read_text("utf-8"))
    wait_until(lambda: not runs(pid), "the worker is gone")


async def test_closed_engine_leaves_no_worker_and_no_model_memory_in_service() -> None:
    before, others = psutil.Process().memory_info().rss, worker_pids()
    slot = Engine(model_of("moonshine"), keep_alive_s=-1)
    async with slot.lease():
        assert slot.worker_pid is not None
        assert psutil.Process(slot.worker_pid).memory_info().rss > 80 << 20
    await slot.close()
    assert worker_pids() <= others
    assert psutil.Process().memory_info().rss - before < 20 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_idle_worker_returns_free_memory_to_kernel() -> None:
    script = (
        "import ctypes, socket, threading, time\n"
        "import psutil\n"
        "from sidecar.engines import vibevoice as heap\n"
        "from sidecar.workers import worker_main as inside\n"
        "def held(): return psutil.Process().memory_info().rss >> 20\n"
        "if not hasattr(ctypes.CDLL(None), 'gnu_get_libc_version'): raise SystemExit(77)\n"
        "heap.keep_freed_memory()\n"
        "blocks = [bytearray(b'x') * (1 << 20) for _ in range(100)]\n"
        "pin, full = bytearray(1 << 20), held()\n"
        "del blocks\n"
        "kept, end = held(), time.monotonic() + 300\n"
        "ours, theirs = socket.socketpair()\n"
        "threading.Thread(target=inside.serve_calls, args=(theirs, 0.01), daemon=True).start()\n"
        "while held() > full - 90 and time.monotonic() < end: time.sleep(0.05)\n"
        "print(full - kept, full - held(), flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    if done.returncode == 77:
        pytest.skip("another C library")
    at_once, when_idle = map(int, done.stdout.split())
    assert at_once < 50
    assert when_idle >= 90


def test_worker_keeps_memory_between_recordings_until_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(worker_main, "trim_heap", lambda: given.append("back"))
    voice = RpcSender(socket.socket())
    waiting: queue.SimpleQueue[RpcRequest] = queue.SimpleQueue()
    first, late = (RpcRequest(number, {}, [], voice) for number in range(2))
    waiting.put(first)
    assert worker_main.next_call(waiting, PATIENCE_S) is first
    assert given == []

    monkeypatch.setattr(worker_main, "trim_heap", lambda: (given.append("back"), waiting.put(late)))
    assert worker_main.next_call(waiting, 0.01) is late
    assert given == ["back"]


def unreadable_vocabulary(number: int) -> errors.ModelLoadFailed:
    """What an engine makes of an error of the disk."""
    try:
        raise OSError(number, os.strerror(number))
    except OSError as error:
        failed = errors.ModelLoadFailed(f"The vocabulary cannot be read: {error.strerror}.")
        failed.__context__ = error
        return failed


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (OSError(errno.ENOSPC, "full"), "machine_busy"),
        (OSError(errno.EROFS, "read-only"), "machine_busy"),
        (OSError(errno.EIO, "input/output error"), "machine_busy"),
        (RuntimeError("can't start new thread"), "machine_busy"),
        (unreadable_vocabulary(errno.EMFILE), "machine_busy"),
        (unreadable_vocabulary(errno.ESTALE), "machine_busy"),
        (unreadable_vocabulary(errno.ENOENT), "model_load_failed"),
        (errors.ModelLoadFailed(), "model_load_failed"),
        (errors.CheckpointNotFound(), "checkpoint_not_found"),
        (OSError("not a folder with a model"), "engine_failed"),
        (RuntimeError("a bug"), "engine_failed"),
    ],
)
def test_load_error_is_machine_busy_for_lack_of_resources_and_else_keeps_its_code(
    raised: Exception, code: str
) -> None:
    def refuse(factory: str) -> None:
        raise raised

    ours, theirs = socket.socketpair()
    with ours, theirs:
        asked = {"operation": "load", "engine": "any", "options": LoadOptions().to_wire()}
        request = RpcRequest(1, asked, [], RpcSender(theirs))
        worker_main.serve_call(WorkerOperations(refuse), request)
        frame, _ = channel.ChannelReader(ours).receive()
    assert frame.message["error"]["code"] == code


def test_worker_goes_on_while_the_close_of_a_recording_hangs_on_its_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, closed = threading.Event(), threading.Event()
    close, hung = os.close, os.open(CLIP, os.O_RDONLY)

    def close_once_it_answers(fd: int) -> None:
        if fd == hung:
            assert threading.current_thread() is not threading.main_thread()
            answers.wait(PATIENCE_S)
        close(fd)
        if fd == hung:
            closed.set()

    monkeypatch.setattr(os, "close", close_once_it_answers)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = RpcRequest(1, {"operation": "ready"}, [hung], RpcSender(theirs))
        worker_main.serve_call(WorkerOperations(), request)
        assert not closed.is_set()
        answers.set()
        assert closed.wait(PATIENCE_S)


@pytest.mark.system
def test_failed_thread_of_engine_ends_worker_with_traceback() -> None:
    code = (
        "import threading, time; from sidecar.workers import worker_main as inside;"
        "inside.serve_calls = lambda sock: (threading.Thread(target=lambda: 1 / 0).start(),"
        " time.sleep(600));"
        "inside.main()"
    )
    worker, ours = channel.spawn_worker([sys.executable, "-c", code], dict(os.environ))
    with ours, worker:
        _, said = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 1
    assert b"ZeroDivisionError" in said


def test_worker_without_a_thread_for_a_call_refuses_it_as_busy_and_answers_the_next() -> None:
    code = (
        "import threading; from sidecar.workers import worker_main as inside\n"
        "start, refused = threading.Thread.start, []\n"
        "def limited(thread):\n"
        "    if thread._target is inside.serve_call and not refused:\n"
        "        refused.append(thread)\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(thread)\n"
        "threading.Thread.start = limited\n"
        "inside.main()"
    )
    worker, ours = channel.spawn_worker([sys.executable, "-c", code], dict(os.environ))
    with ours, worker:
        ours.settimeout(PATIENCE_S)
        for number in (1, 2):
            asked = {"call": number, "operation": "none", "beside": True}
            ours.sendall(channel.encode_frame(asked))
        reader = channel.ChannelReader(ours)
        answers = [reader.receive()[0].message for _ in range(2)]
        codes = {answer["call"]: answer["error"]["code"] for answer in answers}
        assert codes == {1: "machine_busy", 2: "engine_failed"}
        ours.shutdown(socket.SHUT_RDWR)
        worker.wait(PATIENCE_S)
