"""Two hundred clients at one queue: ``python -m bench.load``.

The scripted engine works at a known speed and takes hardly any processor, so what is measured is
the service. Recordings of 1 to 20 s, no two alike, go over all wires (`/v1/jobs` with its events,
the vvv wire, `/transcribe`) in the names of five owners, one of whom has most of the clients.

throughput  seconds of audio a second, beside what the engine is told to hear, beside the engine's
            process alone with the same recordings (each opened, decoded, told of and slept through,
            no service anywhere).
right       every recording is answered once, with its own words; who is not stops the run.
CPU         of a recording, in the service, in the engine's process, and in all clients, which have
            one process on the same machine; `/health` and the cancelled jobs below included.
fair        Jain's index of the work that each owner had while all of them had something waiting.
/health     asked every 50 ms meanwhile, by somebody without a token.
event       from DELETE of a job that waits to `cancelled` at who follows it, twice a second.
memory      of the API process after the round that is thrown away, and at the end.

All of it without and with `--keep-jobs`, in turns: a service each. ``--memory`` looks only at the
memory of the API process, over ``--jobs`` recordings that are heard at once, of a second each.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from bench import serving
from bench.queue_clients import LONGEST_S, OWNERS, Seen, Sendable, crowd, evenness, high, recordings
from bench.serving import KEY, ours, table, verdict
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.engines import scripted_engine
from sidecar.interfaces.engine_interface import LoadOptions, Precision, TranscribeOptions
from sidecar.transcripts.transcript import Finished
from sidecar.workers.engine_lease import EngineLease, RecordingRequest
from sidecar.workers.worker_process import WorkerProcess

HOUR_S = 3600.0
GOALS = {"in memory": 0.95, "kept": 0.85}
"""Of the engine's own speed."""


async def engine_alone(work: Sequence[Sendable], speed: int) -> float:
    """Seconds that the engine's process takes, for one recording after the other."""
    with mock.patch.dict(os.environ, VIBEVOICE_SCRIPTED_SPEED=str(speed)):
        worker = WorkerProcess("alone")
    try:
        await worker.ask(
            "load", engine=scripted_engine.SPEC.factory, options=LoadOptions().to_wire()
        )
        engine = EngineLease(worker, Precision.FP32, lambda memory: None)

        async def heard(sent: Sendable) -> None:
            with tempfile.TemporaryFile() as file:
                file.write(sent.file)
                file.flush()
                facts = AudioInfo("wav", "sndfile", float(sent.seconds))
                options = TranscribeOptions()
                source = AudioSource(file.fileno(), spooled=True)
                recording = RecordingRequest(source, facts, options)
                last = [event async for event in engine.transcribe(recording, HOUR_S)][-1]
                assert isinstance(last, Finished), last
                assert [one.text for one in last.transcript.segments] == sent.lines

        await heard(work[0])  # which brings libraries in
        begun = time.perf_counter()
        for sent in work:
            await heard(sent)
        return time.perf_counter() - begun
    finally:
        await worker.close()


class Side:
    """A service, and what its clients saw in all rounds; ``keep``: its jobs outlive it."""

    def __init__(
        self, folder: Path, work: Sequence[Sendable], clients: int, speed: int, keep: bool
    ) -> None:
        issuer = TokenIssuer(folder / f"tokens-{keep}")
        self._tokens = {owner: issuer.create(owner)[0] for owner in OWNERS}
        self._work, self._clients = work, clients
        self.seen: list[Seen] = []
        self.cpu_ms: list[tuple[float, ...]] = []
        """Of each round, for a recording: of the service, the engine, the clients."""
        kept = {"keep_jobs": "1", "data_dir": str(folder), "journal_key": KEY}
        self.server = ours(
            folder,
            engine="scripted",
            keep_alive="-1",
            scripted_speed=str(speed),
            queue_limit=str(len(work) + clients),
            job_retention="10s",
            token_keys=str(issuer.keys.public),
            **(kept if keep else {}),
        )

    def by_all(self) -> float:
        """The same of all clients; each answer was looked at."""
        before, begun = self._cpu_s(), time.perf_counter()
        seen = asyncio.run(crowd(self.server, self._tokens, self._work, self._clients))
        taken_s = time.perf_counter() - begun
        assert len(seen.ids) == sum(seen.ids.values()) == len(self._work)
        self.seen.append(seen)
        spent = (after - was for was, after in zip(before, self._cpu_s(), strict=True))
        self.cpu_ms.append(tuple(1e3 * one / len(self._work) for one in spent))
        return _audio_s(self._work) / taken_s

    def cpu(self) -> str:
        """Milliseconds of the rounds that count."""
        return ", ".join(
            f"{statistics.median(one):.1f}" for one in zip(*self.cpu_ms[1:], strict=True)
        )

    def rest(self) -> list[str]:
        """Of the rounds that count: how even, `/health`, events, memory."""
        after, counted = self.seen[0].rss[-1], self.seen[1:]
        health_s = [one for seen in counted for one in seen.health_s]
        event_s = [one for seen in counted for one in seen.event_s]
        end = counted[-1].rss[-1]
        return [
            f"{statistics.median(evenness(seen) for seen in counted):.3f}",
            f"{high(health_s, 0.5) * 1e3:.1f}, {high(health_s) * 1e3:.1f}",
            f"{high(event_s, 0.5) * 1e3:.1f}, {high(event_s) * 1e3:.1f}",
            f"{after:.1f}, {end:.1f}; {verdict(end / after, 1.1)}",
        ]

    def _cpu_s(self) -> tuple[float, ...]:
        service, *below = self.server.tree()
        return serving.cpu_s([service]), serving.cpu_s(below), time.process_time()


def _audio_s(work: Sequence[Sendable]) -> int:
    return sum(one.seconds for one in work)


def under_load(folder: Path, given: argparse.Namespace) -> None:
    """Print how fast, how fair and how prompt."""
    work = [*map(Sendable.of, recordings(given.jobs, given.longest))]
    with ExitStack() as stack:
        sides = {
            name: Side(folder, work, given.clients, given.speed, keep)
            for name, keep in zip(GOALS, (False, True), strict=True)
        }
        for side in sides.values():
            stack.enter_context(side.server)

        def by_engine() -> float:
            return _audio_s(work) / asyncio.run(engine_alone(work, given.speed))

        measures = {"engine": by_engine}
        for name, side in sides.items():
            measures[f"{name}, all"] = side.by_all
        taken = serving.interleaved(given.rounds, measures)
        told = [f"{given.speed}"] * given.rounds

        def part(of: str, by: Sequence[float]) -> float:
            return statistics.median(a / b for a, b in zip(taken[of], by, strict=True))

        fast, prompt = [], []
        for name, side in sides.items():
            every = f"{name}, all"
            of_told = part(every, [*map(float, told)])
            of_engine = part(every, taken["engine"])
            of_memory = part(every, taken["in memory, all"])
            fast.append(
                [
                    name,
                    f"{statistics.median(taken[every]):.1f}",
                    f"{of_told:.3f}",
                    f"{of_engine:.3f}; {verdict(of_engine, GOALS[name], at_least=True)}",
                    f"{of_memory:.3f}",
                    side.cpu(),
                ]
            )
            prompt.append([name, *side.rest()])
        own = statistics.median(taken["engine"])
    title = (
        f"{given.clients} clients, {given.rounds} x {given.jobs} recordings, medians, "
        f"{serving.load()} at the end"
    )
    headers: tuple[str, ...] = (
        *("jobs", "audio s/s", f"of the {given.speed} it is told", f"of the engine's {own:.1f}"),
        *("of that in memory", "CPU ms: service, engine, clients"),
    )
    table(title, headers, fast)
    headers = (
        *("jobs", "Jain's index", "/health p50, p99 ms", "event p50, p99 ms"),
        "MB after one round, all",
    )
    table("The same", headers, prompt)


def over_many(folder: Path, given: argparse.Namespace) -> None:
    """Print what becomes of the memory of the API process."""
    work, rows = [*map(Sendable.of, recordings(given.jobs, given.longest))], []
    for name, keep in zip(GOALS, (False, True), strict=True):
        side = Side(folder, work, given.clients, 0, keep)
        with side.server:
            begun = time.perf_counter()
            side.by_all()
            taken_s = time.perf_counter() - begun
        rss = side.seen[0].rss
        at = [rss[len(rss) * tenths // 10] for tenths in (1, 3, 5, 7)] + [rss[-1]]
        rows.append(
            [
                name,
                f"{rss[0]:.1f}",
                ", ".join(f"{one:.1f}" for one in at),
                f"{at[-1] / at[0]:.3f}; {verdict(at[-1] / at[0], 1.1)}",
                f"{taken_s:.0f}",
            ]
        )
    headers = (
        *("jobs", "MB at the first", "after 1, 3, 5, 7 and 10 tenths", "the last by the first"),
        "s",
    )
    title = f"{given.jobs} recordings of up to {given.longest} s by {given.clients} clients"
    table(title, headers, rows)


def main() -> None:
    """Print tables."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, help="of each side in each round: 400, or 5000")
    parser.add_argument("--longest", type=int, help="seconds of a recording: 20, or 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed", type=int, default=100, help="of the engine: audio a second")
    parser.add_argument("--memory", action="store_true", help="only that, over many recordings")
    given = parser.parse_args()
    given.jobs = given.jobs or (5000 if given.memory else 400)
    given.longest = given.longest or (1 if given.memory else LONGEST_S)
    print(serving.machine())
    with serving.workshop() as folder:
        (over_many if given.memory else under_load)(folder, given)


if __name__ == "__main__":
    main()
