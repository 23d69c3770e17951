"""P1, P2, P3, P8: wall time and time to the first segment, all sides in turns per clip."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import serving
from bench.serving import median, table, verdict
from bench.vibevoice_sides import HEAP_KEPT, Child, Segments, normal
from bench.vibevoice_transformers_serve import chat, chat_stream, transformers_serve

GOALS = ("P1", "P2", "P3", "P8")
_POLL_S = 0.002
_LONG_S = 20.0
"""Clips beyond this have the goals of 28 and 30 s."""
Run = Callable[[Path], dict[str, Any]]


@dataclass
class Taken:
    """What one side took for one clip, per round."""

    seconds: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    same: int = 0
    """Rounds in which it said what our engine says."""


def speed(
    folder: Path,
    checkpoint: Path,
    clips: Mapping[str, tuple[Path, float]],
    wanted: Collection[str],
    *,
    precision: str,
    device: str,
    rounds: int,
) -> None:
    """Run the sides that the wanted goals need; ``clips``: name -> (wav, seconds)."""
    with ExitStack() as stack:
        common = (checkpoint, precision, device)
        engine = stack.enter_context(Child("engine", *common))
        sides: dict[str, Run] = {"engine": lambda path: _ask(engine, path)}
        if "P1" in wanted:
            plain = stack.enter_context(Child("plain", *common))
            kept = stack.enter_context(Child("plain", *common, **HEAP_KEPT))
            sides["plain"] = lambda path: _ask(plain, path)
            sides["plain, heap kept"] = lambda path: _ask(kept, path)
        if {"P2", "P3", "P8"} & set(wanted):
            settings = {"model_path": str(checkpoint), "precision": precision, "device": device}
            server = stack.enter_context(
                serving.ours(folder, engine="vibevoice", keep_alive="-1", **settings)
            )
            sides["server"] = lambda path: _upload(server, path)
            if "P8" in wanted:
                sides["server, polled"] = lambda path: _submit(server, path)
        if {"P3", "P8"} & set(wanted):
            peer = stack.enter_context(transformers_serve(folder, *common))
            sides["serve"] = lambda path: chat(peer, checkpoint, path.read_bytes())
            if "P8" in wanted:
                sides["serve, stream"] = lambda path: chat_stream(
                    peer, checkpoint, path.read_bytes()
                )
        for child in (engine, *((plain, kept) if "P1" in wanted else ())):
            child.ask("load")
        taken = {name: in_turns(rounds, sides, path, name) for name, (path, _) in clips.items()}
    lengths = {name: seconds for name, (_, seconds) in clips.items()}
    for goal, show in (("P1", _p1), ("P2", _p2), ("P3", _p3), ("P8", _p8)):
        if goal in wanted:
            show(taken, lengths, rounds)


def in_turns(rounds: int, sides: Mapping[str, Run], path: Path, clip: str) -> dict[str, Taken]:
    """Each side once per round, after a round that is thrown away; what they say is compared.

    Every round begins with another side: none always comes behind the same.

    Raises:
        RuntimeError: a side says something else than our engine. Only `transformers serve` may,
            for it adds noise; its table says how often it did not.
    """
    taken = {name: Taken() for name in sides}
    expected: Segments = []
    for number in range(rounds + 1):
        order = list(sides)
        shift = number % len(order)
        for name in order[shift:] + order[:shift]:
            answer = sides[name](path)
            expected = expected or answer["segments"]
            same = answer["segments"] == expected
            if not same and not name.startswith("serve,") and name != "serve":
                raise RuntimeError(f"{clip}: {name} says\n{answer['segments']}\nnot\n{expected}")
            if number:
                taken[name].same += same
                taken[name].seconds.append(answer["seconds"])
                if answer.get("first_s"):
                    taken[name].first_s.append(answer["first_s"])
    return taken


def _ask(child: Child, path: Path) -> dict[str, Any]:
    return child.ask("transcribe", path=str(path), limit=None)


def _upload(server: serving.Server, path: Path) -> dict[str, Any]:
    audio = path.read_bytes()
    begun = time.perf_counter()
    answer = server.transcribe(audio)
    return {"seconds": time.perf_counter() - begun, "segments": said_by_us(answer)}


def _submit(server: serving.Server, path: Path) -> dict[str, Any]:
    """``Prefer: respond-async``, then ``GET /jobs/{id}`` until it is done."""
    body = serving.form(path.read_bytes())
    headers = {"Content-Type": serving.FORM_TYPE, "Prefer": "respond-async"}
    begun, first_s = time.perf_counter(), None
    job = server.request("POST", "/transcribe", body, headers)
    while "result" not in job:
        if "error" in job:
            raise RuntimeError(json.dumps(job["error"]))
        time.sleep(_POLL_S)
        job = server.request("GET", f"/jobs/{job['id']}")
        if first_s is None and job["segments"]:
            first_s = time.perf_counter() - begun
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "first_s": first_s, "segments": said_by_us(job["result"])}


def said_by_us(answer: Mapping[str, Any]) -> Segments:
    """The segments of our wire; a tag has no speaker there either, whatever it is called."""
    rows = []
    for one in answer["segments"]:
        speaker = None if "non_speech" in one.get("flags", ()) else one["speaker"]
        rows.append((one["start_time"], one["end_time"], speaker, one["text"]))
    return normal(rows)


def _goal(length_s: float, long: float) -> float:
    return long if length_s > _LONG_S else 1.0


Table = Mapping[str, Mapping[str, Taken]]


def _ratio_rows(
    taken: Table, lengths: Mapping[str, float], ours: str, peer: str, long: float
) -> list[tuple[str, ...]]:
    rows = []
    for name, sides in taken.items():
        our, their = median(sides[ours].seconds), median(sides[peer].seconds)
        same = f"{sides[peer].same}/{len(sides[peer].seconds)}"
        goal = verdict(our / their, _goal(lengths[name], long))
        clip = f"{name} {lengths[name]:.0f} s"
        rows.append((clip, f"{our:.3f}", f"{their:.3f}", f"{our / their:.2f}", same, goal))
    return rows


def _p1(taken: Table, lengths: Mapping[str, float], rounds: int) -> None:
    headers = ("clip", "engine s", "plain s", "ratio", "same text", "goal")
    rows = _ratio_rows(taken, lengths, "engine", "plain", 0.70)
    table(f"P1: engine / plain generate, median of {rounds}", headers, rows)
    rows = [
        (*row[:-1], "told only")
        for row in _ratio_rows(taken, lengths, "engine", "plain, heap kept", 0.70)
    ]
    table("P1 beside it: plain generate with glibc told to keep what torch frees", headers, rows)


def _p2(taken: Table, lengths: Mapping[str, float], rounds: int) -> None:
    rows = []
    for name, sides in taken.items():
        pairs = zip(sides["server"].seconds, sides["engine"].seconds, strict=True)
        extra = median([server - engine for server, engine in pairs])
        whole = median(sides["engine"].seconds)
        rows.append(
            (
                f"{name} {lengths[name]:.0f} s",
                f"{median(sides['server'].seconds):.3f}",
                f"{whole:.3f}",
                f"{extra * 1e3:+.1f}",
                f"{extra / whole:+.1%}",
                verdict(round(extra * 1e3, 1), 15),
            )
        )
    headers = ("clip", "server s", "engine s", "difference ms (p50)", "share", "goal")
    table(f"P2: over HTTP / in the engine, median of {rounds} pairs", headers, rows)


def _p3(taken: Table, lengths: Mapping[str, float], rounds: int) -> None:
    headers = ("clip", "server s", "serve s", "ratio", "same text", "goal")
    rows = _ratio_rows(taken, lengths, "server", "serve", 0.65)
    table(f"P3: our server / transformers serve, median of {rounds}", headers, rows)


def _p8(taken: Table, lengths: Mapping[str, float], rounds: int) -> None:
    rows = []
    for name, sides in taken.items():
        their = median(sides["serve, stream"].first_s)
        for ours in ("engine", "server, polled"):
            our = median(sides[ours].first_s)
            rows.append(
                (
                    f"{name} {lengths[name]:.0f} s",
                    ours,
                    f"{our:.3f}",
                    f"{their:.3f}",
                    f"{our / their:.2f}",
                    f"{median(sides[ours].seconds):.3f}",
                    verdict(our / their, 0.9),
                )
            )
    headers = ("clip", "ours", "first segment s", "serve stream s", "ratio", "end s", "goal")
    table(f"P8: time to the first segment, median of {rounds}", headers, rows)
