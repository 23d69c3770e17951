"""A long recording over several nodes, speakers and all: ``python -m bench.hour_over_nodes``.

A front of ours (``engine=upstream``, a real one, with its own process for the work) before nodes
that are scripted: each answers after the length of its piece by ``--speed``, one piece after the
other, and takes no processor for it. What a node says is cut out of a script that is made first, of
the whole recording by this machine alone: the real windows and vectors of `voices`, what
`diarization.diarizer` makes of them, and a made-up word each 0.4 s that somebody speaks. Three
ways:

- one node, which hears all of it as one piece;
- ``--nodes`` that say what the voices of their pieces are like, pieces as the front chooses them;
- as many that do not (an older build), where the front hears the voices itself, as it did before.

Told are wall times, CPU-seconds of the front, and whether words and speakers are those of the one.

``--real MINUTES`` besides: two real nodes with the engine of ``--engine`` and real vectors, against
the same engine alone: CPU-seconds at both ends, and cpWER and DER with the words and turns of the
one alone for references.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import soundfile
import uvicorn
from fastapi import FastAPI, Request

from bench import serving
from bench.metrics import Clip, Piece, score
from bench.serving import Server
from sidecar.audio.audio_decoder import open_audio, probe_audio
from sidecar.diarization.diarizer import STEP_S, Diarizer
from sidecar.diarization.speaker_models import load_models
from sidecar.diarization.window_embeddings import (
    DiarizationWindow,
    embed_windows,
    encode_windows,
    window_starts,
)
from sidecar.diarization.word_attribution import dominant_turns
from sidecar.transcripts.speaker_embeddings import (
    LOCAL_VOICES_FIELD,
    WINDOW_FORMAT,
    WindowEmbeddingsRequest,
    embeddings_request_of,
)
from sidecar.transcripts.speaker_turns import SpeakerTurn

RATE = 16_000
GRID = RATE // 100
"""Pieces begin at its multiples."""
CLIPS = ("endgame_nagg_nell.wav", "two_cities.wav", "beckett.wav")
WORD_S = 0.4
SEED = 16
Word = tuple[str, float, float, int]
"""Text, start, end, speaker in order of appearance."""


def conversation(folder: Path, seconds: float) -> Path:
    """Stretches of 4 to 15 s out of the wheel's clips, four voices in any order, with pauses and
    a noise of one step of 16 bits: no second is like another."""
    dice = np.random.default_rng(SEED)
    sources = []
    for name in CLIPS:
        with serving.clip(name).open("rb") as file:
            facts = probe_audio(file.fileno(), 3600.0)
            with open_audio(file.fileno(), facts, rate=RATE, max_s=3600.0) as audio:
                sources.append(np.concatenate(list(audio)))
    parts, length = [], 0
    while length < seconds * RATE:
        source = sources[dice.integers(len(sources))]
        count = min(len(source), round(dice.uniform(4, 15) * RATE))
        begin = dice.integers(len(source) - count + 1)
        pause = np.zeros(round(dice.uniform(0.2, 1.2) * RATE), np.float32)
        parts += [source[begin : begin + count], pause]
        length += count + len(pause)
    sound = np.concatenate(parts)[: round(seconds * RATE)] * 32_000
    samples = np.rint(sound + dice.integers(-1, 2, len(sound))).clip(-32768, 32767)
    path = folder / "conversation.wav"
    soundfile.write(path, samples.astype(np.int16), RATE, subtype="PCM_16")
    return path


@dataclass(frozen=True)
class Script:
    """What is in the recording, as one machine hears it; ``places``: where each sound begins."""

    words: Sequence[Word]
    windows: dict[int, DiarizationWindow]
    places: dict[bytes, int]
    vectors_s: float
    """CPU-seconds that the windows took."""
    turns_s: float
    """And all that comes of them."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Hear all of it, once."""
        samples, _ = soundfile.read(path, dtype="int16")
        models, asked = load_models(), WindowEmbeddingsRequest(len(samples) / RATE, begins=True)
        sound = samples.astype(np.float32) / np.float32(32_768)
        begun = time.process_time()
        windows = embed_windows(models, np.array_split(sound, len(sound) // RATE), asked, STEP_S)
        heard = time.process_time()
        diarizer = Diarizer(models)
        diarizer.take(windows, len(sound), len(sound))
        diarizer.finish()
        words = _words(diarizer.turns)
        told = time.process_time()
        begins = window_starts(asked, len(samples), STEP_S)
        return cls(
            words,
            dict(zip(begins, windows, strict=True)),
            {_print(samples[at:]): at for at in range(0, len(samples), GRID)},
            heard - begun,
            told - heard,
        )

    def answer(
        self, samples: npt.NDArray[np.int16], asked: WindowEmbeddingsRequest | None
    ) -> dict[str, Any]:
        """What a node says of a piece."""
        at = self.places[_print(samples)]
        begin_s = at / RATE
        end_s = begin_s + (asked.words_s if asked is not None else len(samples) / RATE)
        words = [one for one in self.words if begin_s <= (one[1] + one[2]) / 2 < end_s]
        body = _body(words, begin_s, end_s)
        if asked is not None:
            begins = [at + one for one in window_starts(asked, len(samples), STEP_S)]
            # The last window of a recording begins where it must, which is in the script as well.
            found = encode_windows([self.windows[one] for one in begins])
            body[LOCAL_VOICES_FIELD] = {"form": found.form, "windows": found.windows}
        return body


def _print(samples: npt.NDArray[np.int16]) -> bytes:
    return samples[:RATE].tobytes()[: 4 * GRID]


def _words(turns: Sequence[SpeakerTurn]) -> list[Word]:
    """A word each 0.4 s that somebody has the floor."""
    numbers: dict[int, int] = {}
    found: list[Word] = []
    for line in dominant_turns(turns):
        speaker = numbers.setdefault(line.label, len(numbers))
        for at in np.arange(line.start, line.end - WORD_S, WORD_S):
            start = round(float(at), 3)
            found.append((f"w{len(found)}", start, round(start + WORD_S - 0.05, 3), speaker))
    return found


def _body(words: Sequence[Word], begin_s: float, end_s: float) -> dict[str, Any]:
    """As ``POST /transcribe`` answers; speakers are numbered within the piece."""
    segments: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    for text, start, end, speaker in words:
        name = f"Speaker_{numbers.setdefault(speaker, len(numbers))}"
        word = {"text": text, "start_time": start - begin_s, "end_time": end - begin_s}
        last = segments[-1] if segments else None
        if last is not None and last["speaker"] == name and start - begin_s - last["end_time"] < 1:
            last["words"].append(word)
            last["end_time"] = end - begin_s
        else:
            segments.append({**word, "speaker": name, "words": [word], "words_by": "attention"})
    for one in segments:
        one["text"] = " ".join(word["text"] for word in one["words"])
    about = {"duration": end_s - begin_s, "language": "en", "diarized": True, "warnings": []}
    return {"status": "success", "segments": segments, "metadata": about}


class Node:
    """A scripted one: one piece after the other, at its speed."""

    def __init__(self, script: Script, speed: float, *, offers: bool) -> None:
        self._turn = threading.Lock()
        self._waiting = 0
        self.heard_s: list[float] = []
        app = FastAPI()

        @app.get("/health")
        def health() -> dict[str, Any]:
            busy = self._turn.locked()
            state = {
                "contract": 1,
                "engine": "scripted",
                "engine_state": "busy" if busy else "ready",
            }
            waiting = {"jobs_waiting": max(0, self._waiting - busy)}
            return state | waiting | ({LOCAL_VOICES_FIELD: WINDOW_FORMAT} if offers else {})

        @app.post("/transcribe")
        async def transcribe(request: Request) -> Any:
            form = await request.form()
            file: Any = form["audio"]
            sound = await file.read()
            return await _in_thread(lambda: self._hear(sound, form.get(LOCAL_VOICES_FIELD)))

        self._script, self._speed = script, speed
        self.port = serving.free_port()
        config = uvicorn.Config(app, port=self.port, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def _hear(self, sound: bytes, asked: object) -> dict[str, Any]:
        self._waiting += 1
        try:
            with self._turn:
                begun = time.monotonic()
                samples, _ = soundfile.read(io.BytesIO(sound), dtype="int16")
                wanted = embeddings_request_of(asked)
                length_s = len(samples) / RATE if wanted is None else wanted.words_s
                answer = self._script.answer(samples, wanted)
                time.sleep(max(0.0, begun + length_s / self._speed - time.monotonic()))
                self.heard_s.append(length_s)
                return answer
        finally:
            self._waiting -= 1

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)


async def _in_thread(work: Callable[[], Any]) -> Any:
    import asyncio

    return await asyncio.to_thread(work)


@contextmanager
def front(folder: Path, ports: Sequence[int]) -> Iterator[Server]:
    """A service of ours before them, warm."""
    urls = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    with serving.ours(folder, engine="upstream", upstream=urls, preload="true") as here:
        while here.request("GET", "/health")["engine_state"] != "ready":
            time.sleep(0.05)
        yield here


@dataclass(frozen=True)
class Run:
    """One way of hearing it: seconds, CPU-seconds of the front, what came of it."""

    wall_s: float
    cpu_s: float
    words: list[Word]
    body: dict[str, Any]


def heard(here: Server, recording: Path) -> Run:
    """The whole transcript."""
    sound = recording.read_bytes()
    before, begun = serving.cpu_s(here.tree()), time.perf_counter()
    body = here.transcribe(sound, words="true")
    wall_s = time.perf_counter() - begun
    cpu_s = serving.cpu_s(here.tree()) - before
    words = [
        (one["text"], round(one["start_time"], 2), round(one["end_time"], 2), segment["speaker"])
        for segment in body["segments"]
        for one in segment.get("words", ())
    ]
    return Run(wall_s, cpu_s, words, body)


def scripted(folder: Path, recording: Path, nodes: int, speed: float) -> bool:
    """The three ways; whether words and speakers are the same."""
    script = Script.of(recording)
    length_s = soundfile.info(recording).duration
    print(
        f"{length_s / 60:.0f} min, {len(script.words)} words, "
        f"{len({one[3] for one in script.words})} speakers; by this machine alone: vectors "
        f"{script.vectors_s:.1f} CPU-s ({length_s / script.vectors_s:.0f} times the pace), "
        f"whose they are {script.turns_s:.1f} CPU-s",
        flush=True,
    )
    runs, rows = {}, []
    for name, count, offers in (
        ("one node", 1, True),
        (f"{nodes} that say what voices are like", nodes, True),
        (f"{nodes} that do not", nodes, False),
    ):
        with ExitStack() as all_:
            there = [all_.enter_context(Node(script, speed, offers=offers)) for _ in range(count)]
            here = all_.enter_context(front(folder, [one.port for one in there]))
            run = runs[name] = heard(here, recording)
        one = next(iter(runs.values()))
        sent = [piece for node in there for piece in node.heard_s]
        alike = ("the same" if run.words == one.words else "DIFFER") if run is not one else "–"
        rows.append(
            (
                name,
                f"{len(sent)} of {np.mean(sent):.0f} s",
                f"{run.wall_s:.1f} s",
                f"{run.wall_s / one.wall_s:.3f}",
                f"{run.cpu_s:.1f} s",
                alike,
                str(len(run.words)),
            )
        )
        print(rows[-1], flush=True)
    headers = ("", "pieces", "wall", "ratio", "CPU in front", "words and speakers", "words")
    serving.table(f"{serving.machine()}; nodes at {speed:g} times the pace", headers, rows)
    return all(run.words == one.words for run in runs.values())


def real(folder: Path, recording: Path, engine: str, speed: float) -> None:
    """Two real nodes against the engine alone."""
    settings = {"engine": engine, "preload": "true"}
    if engine == "scripted":
        settings["scripted_speed"] = str(speed)
    with serving.ours(folder, **settings) as alone:
        one = heard(alone, recording)
    print(f"{engine} alone: {one.wall_s:.1f} s, {one.cpu_s:.1f} CPU-s", flush=True)
    with ExitStack() as all_:
        there = [all_.enter_context(serving.ours(folder, **settings)) for _ in range(2)]
        here = all_.enter_context(front(folder, [node.port for node in there]))
        before = [serving.cpu_s(node.tree()) for node in there]
        many = heard(here, recording)
        nodes_s = [
            serving.cpu_s(node.tree()) - was for node, was in zip(there, before, strict=True)
        ]
    length_s = soundfile.info(recording).duration
    reference = Clip(
        name="alone",
        path=recording,
        duration_s=length_s,
        language="en",
        text=" ".join(one["text"] for one in one.body["segments"]),
        turns=[(s["start_time"], s["end_time"], s["speaker"]) for s in one.body["segments"]],
        utterances=[
            (s["start_time"], s["end_time"], s["speaker"], s["text"]) for s in one.body["segments"]
        ],
    )
    pieces = [
        Piece(s["start_time"], s["end_time"], s["speaker"], s["text"])
        for s in many.body["segments"]
    ]
    rates = score(reference, pieces)
    print(
        f"over two nodes: {many.wall_s:.1f} s, CPU-s in front {many.cpu_s:.1f}, at the nodes "
        f"{', '.join(f'{s:.1f}' for s in nodes_s)}; speakers "
        f"{one.body['metadata']['num_speakers']} and {many.body['metadata']['num_speakers']}; "
        f"against it alone WER | DER | cpWER in %: {rates.row()}",
        flush=True,
    )


def main() -> int:
    """Run it; 1 where words or speakers differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--speed", type=float, default=9.0, help="seconds of audio a second")
    parser.add_argument("--real", type=float, default=0.0, help="minutes over two real nodes")
    parser.add_argument("--engine", default="moonshine", help="of the real nodes")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    right = True
    with serving.workshop() as folder:
        if given.minutes:
            recording = conversation(folder, given.minutes * 60)
            right = scripted(folder, recording, given.nodes, given.speed)
        if given.real:
            recording = conversation(folder, given.real * 60)
            real(folder, recording, given.engine, given.speed)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
