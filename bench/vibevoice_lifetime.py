"""P9, P11, P12, P15: cancelling, loading, memory over a life, and a model that repeats itself."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import serving
from bench.serving import interleaved, median, table, verdict
from bench.vibevoice_sides import Child, Segments

MIB = float(1 << 20)
CANCEL_GOAL_MS = 50.0
LOOP_LIMIT = 4096
_SETTLE_S = 0.3


def cancelling(
    folder: Path,
    checkpoint: Path,
    clips: list[Path],
    *,
    precision: str,
    device: str,
    minutes: float,
    times: int,
) -> None:
    """P9: ``clips`` one after the other until ``minutes``, cancelled ``times`` times per phase.

    Decode is cancelled in the second clip alone.
    """
    wav = _repeated(folder, clips, minutes * 60)
    command = [sys.executable, "-m", "bench.vibevoice_cancel"]
    command += [str(checkpoint), str(wav), str(clips[1])]
    command += ["--precision", precision, "--device", device, "--times", str(times)]
    done = subprocess.run(
        command, cwd=serving.ROOT, env=serving.child_env(), stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout)
    rows = []
    for phase, taken in found["phases"].items():
        late, tokens = sorted(taken["ms"]), max(taken["tokens"])
        p95 = late[min(len(late) - 1, round(0.95 * len(late)) - 1)]
        goal = verdict(round(p95, 1), CANCEL_GOAL_MS)
        if phase == "decode":
            goal = verdict(tokens, 2) + " (tokens)"
        rows.append(
            (
                phase,
                f"{found['lasts'][phase]:.2f}",
                f"{median(late):.1f}",
                f"{p95:.1f}",
                f"{late[-1]:.1f}",
                str(tokens) if phase == "decode" else "–",
                goal,
            )
        )
    headers = ("phase", "lasts s", "p50 ms", "p95 ms", "worst ms", "tokens after, most", "goal")
    table(f"P9: cancel, {minutes:g} min of audio, {times} random moments a phase", headers, rows)
    kinds = ("living tensors", "process" if device == "cpu" else "reserved")
    memory = [
        (kind, *(f"{found[when][index] / MIB:.1f}" for when in ("loaded", "warm", "after")))
        for index, kind in enumerate(kinds)
    ]
    headers = ("memory, MiB", "loaded", "after two whole runs", "after all the cancels")
    table("P9: memory", headers, memory)


def _repeated(folder: Path, clips: list[Path], seconds: float) -> Path:
    """24 kHz mono, the clips over and over."""
    import numpy as np
    import soundfile

    once = np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in clips])
    target = folder / f"repeated-{seconds:.0f}.wav"
    soundfile.write(target, np.resize(once, round(seconds * 24_000)), 24_000, subtype="PCM_16")
    return target


def loading(checkpoint: Path, clip: Path, *, precision: str, device: str, rounds: int) -> None:
    """P11: load and first transcript, in warm processes and in fresh ones."""
    rows = []
    common = (checkpoint, precision, device)
    with Child("engine", *common) as engine, Child("plain", *common) as plain:

        def load(side: Child) -> tuple[float, float]:
            loaded = side.ask("load")["seconds"]
            first = side.ask("transcribe", path=str(clip), limit=None)["seconds"]
            return loaded, loaded + first

        taken: dict[str, list[tuple[float, float]]] = {"engine": [], "plain": []}
        for number in range(rounds + 1):
            for name, side in (("engine", engine), ("plain", plain)):
                value = load(side)
                if number:
                    taken[name].append(value)
    for index, what in enumerate(("load", "load + first transcript")):
        our, their = (median([one[index] for one in taken[n]]) for n in ("engine", "plain"))
        goal = verdict(round(our / their, 2), 1.1) if index else ""
        rows.append((what, f"{our:.3f}", f"{their:.3f}", f"{our / their:.2f}", goal))

    def fresh(side: str) -> float:
        begun = time.perf_counter()
        with Child(side, *common) as child:
            child.ask("load")
            child.ask("transcribe", path=str(clip), limit=None)
            return time.perf_counter() - begun

    cold = interleaved(
        max(3, rounds // 2), {n: (lambda n=n: fresh(n)) for n in ("engine", "plain")}
    )
    our, their = median(cold["engine"]), median(cold["plain"])
    goal = verdict(round(our / their, 2), 1.1)
    rows.append(
        (
            "fresh process, imports included",
            f"{our:.3f}",
            f"{their:.3f}",
            f"{our / their:.2f}",
            goal,
        )
    )
    headers = ("what", "engine s", "plain s", "ratio", "goal")
    table(f"P11: from_pretrained and ours, median of {rounds}", headers, rows)


def memory_of_a_life(
    folder: Path, checkpoint: Path, clip: Path, *, precision: str, device: str, rounds: int
) -> None:
    """P12: the service before its first load, and after ``rounds`` loads and unloads."""
    settings = {"model_path": str(checkpoint), "precision": precision, "device": device}
    audio = clip.read_bytes()
    idle: list[tuple[float, float]] = []
    with serving.ours(folder, engine="vibevoice", keep_alive="0", **settings) as server:
        time.sleep(1.0)
        before = _held(server)
        torch_mapped = any("libtorch" in m.path for p in server.tree() for m in p.memory_maps())
        for _ in range(rounds + 1):
            server.transcribe(audio)
            while server.request("GET", "/health")["worker_pid"] is not None:
                time.sleep(0.02)
            time.sleep(_SETTLE_S)
            idle.append(_held(server))
    with serving.ours(folder, engine="vibevoice", keep_alive="-1", **settings) as server:
        server.transcribe(audio)
        time.sleep(_SETTLE_S)
        loaded = _held(server)
    growth = (idle[-1][1] - idle[0][1]) / rounds
    rows = [
        ("before the first load", *_cells(before), verdict(round(before[1], 1), 80)),
        ("with the model loaded", *_cells(loaded), ""),
        ("after the last unload", *_cells(idle[-1]), verdict(round(idle[-1][1], 1), 450)),
        (f"growth per round, {rounds} rounds", "", f"{growth:+.2f}", verdict(round(growth, 2), 5)),
    ]
    headers = ("state", "API process MiB", "whole tree MiB", "goal (tree)")
    table("P12: resident memory of the service", headers, rows)
    print(f"\ntorch mapped before the first request: {'yes: MISSED' if torch_mapped else 'no'}")


def _held(server: serving.Server) -> tuple[float, float]:
    """RSS of the API process and of all, MiB."""
    tree = server.tree()
    return serving.rss(tree[:1]) * 1e6 / MIB, serving.rss(tree) * 1e6 / MIB


def _cells(held: tuple[float, float]) -> tuple[str, str]:
    return f"{held[0]:.1f}", f"{held[1]:.1f}"


def repeating(
    checkpoint: Path, clip: Path, whole: Segments, *, precision: str, device: str
) -> None:
    """P15: a checkpoint that repeats the last of the segments in ``whole`` for ever."""
    with (
        Child("engine", checkpoint, precision, device) as engine,
        Child("plain", checkpoint, precision, device) as plain,
    ):
        engine.ask("load")
        plain.ask("load")
        ours = engine.ask("transcribe", path=str(clip), limit=LOOP_LIMIT)
        theirs = plain.ask("transcribe", path=str(clip), limit=LOOP_LIMIT)
    sound = len(whole)
    kept = [one for one in ours["segments"] if one in whole]
    repeats = ours["shown"] - sound + 1
    rows = [
        ("tokens", str(ours["tokens"]), str(theirs["tokens"]), ""),
        ("seconds", f"{ours['seconds']:.2f}", f"{theirs['seconds']:.2f}", ""),
        ("segments", str(len(ours["segments"])), str(len(theirs["segments"])), ""),
        ("of the sound ones, kept", f"{len(kept)} of {sound}", "", _met(kept == whole)),
        ("times the last one was shown", str(repeats), "", verdict(repeats, 3)),
        ("said of it", _said_of_it(ours), "nothing", _met(bool(ours["notices"]))),
    ]
    headers = ("a model that repeats itself", "engine", "plain", "goal")
    table(f"P15: the loop guard, limit {LOOP_LIMIT} tokens", headers, rows)


def _said_of_it(answer: dict[str, Any]) -> str:
    """Warnings, and flags of segments that stand for a stretch that was given up."""
    flags = {flag for flags in answer["flags"] for flag in flags}
    return ", ".join([*answer["notices"], *(f"flag '{flag}'" for flag in sorted(flags))])


def _met(true: bool) -> str:
    return "met" if true else "MISSED"
