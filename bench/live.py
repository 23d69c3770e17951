"""Live sessions of people who all talk without a pause between clips, on the engine's real process.

Each row: so many sessions in real time, each with clips one behind the other from another place on
(the English ones of `bench.metrics`), with partials or finals only. Of every turn that a pause
ended: how long after the end of speech its final was there, the pause that has to be waited for
left out; of pieces that were cut because they grew long: how long after the cut. Of partials: how
many of those due by `interfaces.recognition.PARTIAL_STEP_S` came. First words: from the first
sample of a turn. CPU: of the engine's process and of this one (the service, its sessions and those
that feed them).

Then the same clips once each: words of the live path beside those of the file path, and words that
were shown and taken back. Then the engine's process is killed while somebody speaks, and how long
it is until there are words again. More sessions, and other wires: `vibevoice-asr bench live`.

    python -m bench.live [--sessions 1 16 32 40 48] [--seconds 40] [--engine moonshine] [--short]
    python -m bench.live --engine vibevoice-streaming --random-weights   # `bench.streaming`
"""

import argparse
import asyncio
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.metrics import Clip, Piece, Scores, check_packages, clips, score
from bench.serving import load
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.auth.identity import ANONYMOUS
from sidecar.interfaces.live_events import Final, Partial, SpeechStarted, SpeechStopped, TurnEnded
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.interfaces.recognition import FIRST_PARTIAL_S, PARTIAL_STEP_S
from sidecar.live.sessions.session import Session
from sidecar.plugins import load_settings
from sidecar.server.app import create_service
from sidecar.service.facade import Service

CHUNK_S = 0.1
QUIET_S = 1.0
"""Of silence in front, while the engine is loaded."""
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
KILLS, BETWEEN_KILLS_S = 10, 7.0


@dataclass
class Measured:
    """What came of all sessions of a row; seconds."""

    ends: list[float] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    due: int = 0
    came: int = 0
    shown: int = 0
    taken_back: int = 0
    words: int = 0


def pcm16(clip: Clip) -> bytes:
    """A clip as clients send it."""
    samples = decode_audio_file(clip.path, LIVE_RATE)
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


async def talk(session: Session, sound: bytes, seconds: float, begun: float) -> None:
    """Send in real time, from ``begun`` (`time.monotonic`) on."""
    step = round(CHUNK_S * LIVE_RATE) * 2
    for number in range(round(seconds / CHUNK_S)):
        await asyncio.sleep(max(0.0, begun + (number + 1) * CHUNK_S - time.monotonic()))
        at = number * step % len(sound)
        await session.send(sound[at : at + step])
    session.finish()


async def follow(session: Session, begun: float, options: LiveOptions, found: Measured) -> None:
    """Read a session's story, and when each of it came."""
    ends = options.endpointing
    stopped: dict[int, float] = {}
    started: dict[int, float] = {}
    seen: dict[int, int] = {}
    shown: dict[int, str] = {}
    last_end = 0.0
    async for one in session.events():
        now = time.monotonic() - begun
        match one.event:
            case SpeechStarted(turn, at):
                started[turn] = at + ends.pre_roll_s
            case SpeechStopped(turn, at):
                stopped[turn] = at - ends.post_roll_s
            case Partial() as partial:
                if partial.turn in started and (partial.text or partial.tail):
                    found.first.append(now - started.pop(partial.turn))
                seen[partial.segment_number] = seen.get(partial.segment_number, 0) + 1
                _shown(partial.text, shown.get(partial.segment_number, ""), found)
                shown[partial.segment_number] = partial.text
            case Final() as final:
                segment = final.segment
                length = segment.end - segment.start
                steps = math.floor(max(0.0, length - FIRST_PARTIAL_S) / PARTIAL_STEP_S) + (
                    length > FIRST_PARTIAL_S
                )
                found.due += steps
                found.came += min(steps, seen.pop(final.segment_number, 0))
                found.words += len(segment.text.split())
                _shown(segment.text, shown.pop(final.segment_number, ""), found)
                last_end = segment.end
                if final.turn not in stopped:
                    found.cuts.append(final.wait_s + final.work_s)
            case TurnEnded(turn) if turn in stopped:
                if last_end <= stopped[turn] + 1.0:
                    found.ends.append(now - stopped.pop(turn) - ends.silence_s)


def _shown(text: str, before: str, found: Measured) -> None:
    """Words that were shown and are no more."""
    words, old = text.split(), before.split()
    same = 0
    for one, other in zip(words, old, strict=False):
        if one.strip(".,?!").casefold() != other.strip(".,?!").casefold():
            break
        same += 1
    found.taken_back += len(old) - same


def engine_process() -> psutil.Process:
    """The process that hears live: the child that has worked most."""
    children = psutil.Process().children(recursive=True)
    return max(children, key=lambda one: sum(one.cpu_times()[:2]))


async def row(
    service: Service, count: int, seconds: float, partials: bool, sounds: Sequence[bytes]
) -> list[str]:
    """So many sessions at once."""
    options = LiveOptions(partials=partials, diarize=False)
    sessions = [service.live.open(ANONYMOUS, options) for _ in range(count)]
    for session in sessions:
        await session.send(bytes(round(QUIET_S * LIVE_RATE) * 2))
    while not all(session.event_log.last for session in sessions):  # noqa: ASYNC110 - what is told
        await asyncio.sleep(0.05)
    found = Measured()
    whole = b"".join(sounds)
    worker, own = engine_process(), psutil.Process()
    before = [sum(one.cpu_times()[:2]) for one in (worker, own)]
    begun = time.monotonic()
    work = []
    for number, session in enumerate(sessions):
        shift = round(number / count * len(whole) / 2) * 2
        offset = number / count  # nobody begins in the same instant
        sound = whole[shift:] + whole[:shift]
        start = begun + offset - QUIET_S
        work.append(talk(session, sound, seconds, begun + offset))
        work.append(follow(session, start, options, found))
    await asyncio.gather(*work)
    for session in sessions:
        service.live.leave(session)
    lasted = time.monotonic() - begun
    spent = [
        (sum(one.cpu_times()[:2]) - earlier) / lasted
        for one, earlier in zip((worker, own), before, strict=True)
    ]
    dropped = 1 - found.came / found.due if partials and found.due else None
    return [
        str(count),
        "partials" if partials else "finals only",
        quantiles(found.ends),
        quantiles(found.cuts),
        quantiles(found.first) if partials else "–",
        "–" if dropped is None else f"{100 * dropped:.0f} %",
        f"{spent[0]:.2f}",
        f"{spent[1]:.2f}",
    ]


def quantiles(values: Sequence[float]) -> str:
    """The median, the 95th percentile, and the longest; seconds."""
    if not values:
        return "–"
    ordered = sorted(values)
    late = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    return f"{statistics.median(ordered):.2f} / {late:.2f} / {ordered[-1]:.2f}"


async def accuracy(service: Service, chosen: Sequence[tuple[Clip, bytes]]) -> tuple[Scores, float]:
    """Errors of the live path over clips in real time, all at once; words taken back for a word."""
    found = Measured()
    scores = Scores()
    begun = time.monotonic()

    async def one(clip: Clip, sound: bytes) -> None:
        options = LiveOptions(diarize=False)
        session = service.live.open(ANONYMOUS, options)
        reading = asyncio.create_task(follow(session, begun, options, found))
        await talk(session, sound, len(sound) / 2 / LIVE_RATE, begun)
        await reading
        said = [
            one.event.segment.text for one in session.event_log.kept if isinstance(one.event, Final)
        ]
        service.live.leave(session)
        nonlocal scores
        scores += score(clip, [Piece(0, 0, "-", text) for text in said])

    for first in range(0, len(chosen), 4):
        begun = time.monotonic()
        await asyncio.gather(*(one(clip, sound) for clip, sound in chosen[first : first + 4]))
    return scores, found.taken_back / max(1, found.words)


async def file_path(service: Service, chosen: Sequence[tuple[Clip, bytes]]) -> Scores:
    """Errors of the same clips as files."""
    from sidecar.audio.audio_source import open_recording_file
    from sidecar.interfaces.engine_interface import TranscribeOptions

    scores = Scores()
    for clip, _ in chosen:
        job = await service.submissions.submit(
            ANONYMOUS, open_recording_file(str(clip.path)), TranscribeOptions(diarize=False)
        )
        transcript = await job.result()
        scores += score(clip, [Piece(0, 0, "-", one.text) for one in transcript.segments])
    return scores


async def recovery(service: Service, sound: bytes, kills: int) -> list[float]:
    """From the death of the engine's process, while somebody speaks, to the next words; seconds."""
    session = service.live.open(ANONYMOUS, LiveOptions(diarize=False))
    begun = time.monotonic()
    talking = asyncio.create_task(talk(session, sound, (kills + 1) * BETWEEN_KILLS_S, begun))
    killed_at, found = 0.0, []

    async def kill() -> None:
        nonlocal killed_at
        for number in range(kills):
            wait_s = begun + (number + 1) * BETWEEN_KILLS_S - time.monotonic()
            await asyncio.sleep(max(0.0, wait_s))
            killed_at = time.monotonic()
            engine_process().kill()

    killing = asyncio.create_task(kill())
    async for one in session.events():
        if isinstance(one.event, Final | Partial) and killed_at:
            found.append(time.monotonic() - killed_at)
            killed_at = 0.0
    await asyncio.gather(talking, killing)
    service.live.leave(session)
    return found


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """All of it."""
    settings = load_settings(
        engine=arguments.engine,
        data_dir=folder,
        live_sessions=500,
        live_delay=0,  # whoever is too many is what is measured
    )
    service = create_service(settings)
    await service.open()
    chosen = [(clip, pcm16(clip)) for clip in clips() if clip.text and clip.duration_s < 120]
    sounds = [sound for _, sound in chosen]
    print(f"\n{CPUS} cores, {load()}, {arguments.seconds:g} s a row\n")
    print(
        "| sessions | | end → final p50 / p95 / max | cut → final | first words | dropped ", end=""
    )
    print("| engine's cores | this process's |\n|---|---|---|---|---|---|---|---|")
    for partials in (False, True):
        for count in arguments.sessions:
            cells = await row(service, count, arguments.seconds, partials, sounds)
            print(f"| {' | '.join(cells)} |", flush=True)
    if not arguments.short:
        live, back = await accuracy(service, chosen)
        plain = await file_path(service, chosen)
        print(f"\nWER live {live.wer:.2f} %, of files {plain.wer:.2f} %; ", end="")
        print(f"words taken back for each word {back:.3f}")
        found = await recovery(service, b"".join(sounds), KILLS)
        print(f"killed {KILLS} times, {len(found)} went on: words again after {quantiles(found)} s")
    await service.close()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 16, 32, 40, 48])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--engine", default="moonshine")
    parser.add_argument("--short", action="store_true", help="only the sessions")
    parser.add_argument("--random-weights", action="store_true", help="what needs no checkpoint")
    arguments: Any = parser.parse_args()
    if arguments.random_weights:
        from bench import streaming

        streaming.report()
        return
    if not arguments.short:
        check_packages()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
