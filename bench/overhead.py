"""What the service costs on top of what it serves. Run ``python -m bench.overhead [--only ...]``.

Every figure stands beside its bare counterpart, taken in turns in the same run:

start     from the spawn to an answer of ``/health`` / the same of a bare FastAPI app.
memory    resident memory of the API process, idle and after an upload / a bare FastAPI app's. RSS
          counts shared pages whole, PSS their share, USS only what is nobody else's.
requests  uploads per second, scripted engine, four keep-alive clients, each in a process of its own
          / a bare multipart app that reads the file and says its size; with the audio decoded, and
          without (the service alone).
health    latency of ``/health`` under 50 keep-alive pollers while real recordings are being
          transcribed / the same while nothing happens. A bare app's latency beside the same
          transcription tells what the machine's busy cores account for.
"""

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from bench import serving
from bench.serving import Server, bare, clip, interleaved, median, ours, table, verdict
from sidecar.audio.audio_format import wav_head

CLIENTS = 4
POLLERS = 50
SECTIONS = ("start", "memory", "requests", "health")


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """``count`` processes that are up and have imported this."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(time.sleep, 0.5) for _ in range(count)]:
            future.result()
        yield pool


def post_for(
    port: int, path: str, body: bytes, content_type: str, begin: float, seconds: float
) -> int:
    """Post one request after the other on one connection; how many were answered in time.

    ``begin`` is a moment of `time.time`, the same for all clients.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": content_type}
    time.sleep(max(0.0, begin - time.time()))
    deadline, count = begin + seconds, 0
    while True:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {text[:300]!r}")
        if time.time() > deadline:
            connection.close()
            return count
        count += 1


def poll_for(port: int, pollers: int, pause_s: float, seconds: float) -> list[float]:
    """``pollers`` keep-alive connections asking ``/health``; every answer's latency in seconds.

    ``pause_s`` lies between two questions of one poller; 0 asks again at once.
    """
    return asyncio.run(_poll_all(port, pollers, pause_s, seconds))


async def _poll_all(port: int, pollers: int, pause_s: float, seconds: float) -> list[float]:
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def poll(number: int) -> None:
        await asyncio.sleep(pause_s * number / pollers)  # spread, as strangers' polls are
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        question = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        while (asked := time.perf_counter()) < deadline:
            writer.write(question)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - asked)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            await asyncio.sleep(pause_s)
        writer.close()

    await asyncio.gather(*(poll(number) for number in range(pollers)))
    return latencies


def start(folder: Path, rounds: int) -> None:
    """From the spawn to ``/health``."""

    def started(spawn: Callable[[Path], Server]) -> float:
        with spawn(folder) as server:
            return server.started_s

    taken = interleaved(
        rounds, {"ours": lambda: started(ours), "bare FastAPI": lambda: started(bare)}
    )
    title = f"start: spawn to /health, {rounds} each"
    ratio = _compared(title, ("app", "median s", "best", "worst"), taken, digits=3)
    print(f"\nratio of medians: {ratio:.2f} (goal {verdict(ratio, 1.6)})")


def _compared(
    title: str, headers: tuple[str, ...], taken: dict[str, list[float]], digits: int
) -> float:
    """Print what was taken of both sides; the ratio of their medians."""
    rows = [
        (name, *(f"{of(values):.{digits}f}" for of in (median, min, max)))
        for name, values in taken.items()
    ]
    table(title, headers, rows)
    return median(taken["ours"]) / median(taken["bare FastAPI"])


def memory(folder: Path, rounds: int) -> None:
    """The API process, idle and after one upload."""
    body = serving.form(_wav(1))
    taken: dict[tuple[str, str], list[serving.Memory]] = {}
    for _ in range(rounds):
        for name, spawn, path in (
            ("ours", partial(ours, folder, engine="scripted"), "/transcribe"),
            ("bare", partial(bare, folder, "echo_main"), "/echo"),
        ):
            with spawn() as server:
                time.sleep(1.0)
                taken.setdefault(("idle", name), []).append(serving.memory(server.pid))
                server.request("POST", path, body, {"Content-Type": serving.FORM_TYPE})
                time.sleep(1.0)
                after = serving.memory(server.pid)
                taken.setdefault(("after an upload", name), []).append(after)
    rows = []
    for when in ("idle", "after an upload"):
        for kind in ("rss", "pss", "uss"):
            values = {name: _kind(taken[when, name], kind) for name in ("ours", "bare")}
            our, their = values["ours"], values["bare"]
            if our is None or their is None:
                continue
            goal = verdict(our / their, 1.6) if kind == "rss" else ""
            rows.append(
                (when, kind.upper(), f"{our:.1f}", f"{their:.1f}", f"{our / their:.2f}", goal)
            )
    headers = ("state", "memory", "ours MB", "bare MB", "ratio", "goal")
    table(f"memory: the API process, median of {rounds}", headers, rows)


def _kind(samples: list[serving.Memory], kind: str) -> float | None:
    values = [getattr(sample, kind) for sample in samples]
    return None if None in values else median(values)


def requests(folder: Path, rounds: int, seconds: float) -> None:
    """Uploads per second: of 1.4 MB, as a host sends, and of 32 kB, where all is overhead."""
    for audio_s in (45, 1):
        body = serving.form(_wav(audio_s))
        for deaf, goal in ((True, 0.6), (False, 0.35)):
            what = f"{audio_s} s, {len(body) >> 10} KiB, {'not decoded' if deaf else 'decoded'}"
            _uploads(folder, rounds, seconds, what, body, deaf, goal)


def _uploads(
    folder: Path, rounds: int, seconds: float, what: str, body: bytes, deaf: bool, goal: float
) -> None:
    with (
        ours(folder, engine="scripted", keep_alive="-1", scripted_deaf=str(int(deaf))) as server,
        bare(folder, "echo_main") as echo,
        processes(CLIENTS) as pool,
    ):

        def rate(port: int, path: str) -> float:
            begin = time.time() + 0.2
            work = (port, path, body, serving.FORM_TYPE, begin, seconds)
            futures = [pool.submit(post_for, *work) for _ in range(CLIENTS)]
            return sum(future.result() for future in futures) / seconds

        taken = interleaved(
            rounds,
            {
                "ours": lambda: rate(server.port, "/transcribe"),
                "bare FastAPI": lambda: rate(echo.port, "/echo"),
            },
        )
    title = f"requests: {what} per upload, {CLIENTS} clients, {rounds} x {seconds:g} s"
    ratio = _compared(title, ("app", "median /s", "least", "most"), taken, digits=0)
    print(f"\nratio of medians: {ratio:.2f} (goal {verdict(ratio, goal, at_least=True)})")


def health(folder: Path, rounds: int, seconds: float) -> None:
    """``/health`` while a transcription runs."""
    rows = []
    with (
        ours(folder, engine="moonshine", keep_alive="-1") as server,
        bare(folder) as hello,
        processes(1) as pool,
    ):
        for pause_s in (0.1, 0.0):
            sides = {"ours": server.port, "bare FastAPI": hello.port}
            taken: dict[tuple[str, bool], list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for name, port in sides.items():
                    taken.setdefault((name, False), []).append(
                        _latency(pool, port, pause_s, seconds)
                    )
                    with _transcribing(server):
                        taken.setdefault((name, True), []).append(
                            _latency(pool, port, pause_s, seconds)
                        )
            for name in sides:
                for index, percentile in enumerate(("p50", "p99")):
                    idle = median([one[index] for one in taken[name, False]])
                    busy = median([one[index] for one in taken[name, True]])
                    rows.append(
                        (
                            f"every {pause_s:g} s" if pause_s else "again at once",
                            name,
                            percentile,
                            f"{idle * 1e3:.2f}",
                            f"{busy * 1e3:.2f}",
                            f"{busy / idle:.2f}",
                            verdict(busy / idle, 3.0) if name == "ours" else "",
                        )
                    )
    headers = ("each asks", "app", "", "idle ms", "transcribing ms", "ratio", "goal")
    table(
        f"health: {POLLERS} pollers, median of {rounds} x {seconds:g} s, one recording at a time",
        headers,
        rows,
    )


def _latency(
    pool: ProcessPoolExecutor, port: int, pause_s: float, seconds: float
) -> tuple[float, float]:
    """p50 and p99 in seconds."""
    latencies = sorted(pool.submit(poll_for, port, POLLERS, pause_s, seconds).result())
    assert latencies, "no poll was answered"
    return latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]


@contextmanager
def _transcribing(server: Server) -> Iterator[None]:
    """Somebody uploads one recording after the other for as long as this lasts."""
    audio = clip("two_cities.wav").read_bytes()
    enough = threading.Event()
    wrong: list[BaseException] = []

    def upload() -> None:
        try:
            while not enough.is_set():
                server.transcribe(audio, diarize="true")
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    while server.request("GET", "/health")["engine_state"] != "busy" and not wrong:
        time.sleep(0.02)
    try:
        yield
    finally:
        enough.set()
        thread.join()
    if wrong:
        raise wrong[0]


def _wav(seconds: int) -> bytes:
    """16 kHz mono, 16 bit: what the scripted engine takes as it is."""
    samples = bytes(range(256)) * 125 * seconds
    return wav_head(16_000, 2, len(samples)) + samples


def main() -> None:
    """Run the sections that were asked for."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="may be repeated")
    parser.add_argument("--rounds", type=int, help="of each section; its own number if not given")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round under load")
    given = parser.parse_args()
    wanted = given.only or SECTIONS
    print(serving.machine())
    with serving.workshop() as folder:
        if "start" in wanted:
            start(folder, given.rounds or 10)
        if "memory" in wanted:
            memory(folder, given.rounds or 3)
        if "requests" in wanted:
            requests(folder, given.rounds or 5, given.seconds)
        if "health" in wanted:
            health(folder, given.rounds or 3, given.seconds)


if __name__ == "__main__":
    main()
