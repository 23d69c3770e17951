"""VibeVoice-ASR against its peers. Run ``python -m bench.vibevoice [--only P1 P3 ...]``.

The same checkpoint and the same audio, all sides in turns in one run, the same text asserted: our
engine / plain processor and ``model.generate(sample=False)`` / ``transformers serve`` (its chat
endpoint). Medians after a warm-up, one thread a side. On small checkpoints that the tests train:

P1   our engine / plain generate, wall time from the file to the segments.
P3   our server / transformers serve.
P9   from a cancel at a random moment to the engine's end, in each phase.
P11  load and first transcript / from_pretrained and its first transcript.

With ``--random-weights``, on a checkpoint of the released architecture with random weights, written
here (``--size full``: 16.7 GB, a GPU is needed), by `bench.vibevoice_card`:

P4   decoding: tokens per second / what the measured copy rate allows / plain generate.
P5   an hour end to end: encode and prefill measured, decode measured at both ends and scaled.
P16  the same in int8 and int4 / plain bf16 generate.
P17  requests a second: eight that are decoded in step / one at a time.

Sides that are plain processes (``--side``) keep their model and take one JSON line per operation on
stdin; `Child` is the other end of that.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bench import serving
from bench.serving import interleaved, median, table, verdict

if TYPE_CHECKING:
    from sidecar.interfaces.engine_interface import Precision, TranscribeOptions

SMALL = ("P1", "P3", "P9", "P11")
CARD = ("P4", "P5", "P16", "P17")
CANCEL_MINUTES, CANCEL_GOAL_MS = 4.0, 50.0
PHASES = ("encode", "prefill", "decode")
RATE = 24_000
_MAX_S = 5 * 3600.0
_LONG_S = 20.0
"""Clips beyond this have the goals of 28 and 30 s."""
_SERVE = "from transformers.cli.transformers import main; main()"
TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
Planned = Callable[[float | None, "TranscribeOptions"], "TranscribeOptions"]
Segments = list[list[Any]]
"""Rows of (start, end, speaker by appearance or None, text): what sides are compared by."""
Run = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """What all sides load."""

    checkpoint: Path
    precision: str
    device: str


class Child:
    """A side in a process of its own."""

    def __init__(self, side: str, model: Model) -> None:
        command = [sys.executable, "-m", "bench.vibevoice", "--side", side]
        self._process = subprocess.Popen(
            [*command, str(model.checkpoint), model.precision, model.device],
            cwd=serving.ROOT,
            env=serving.child_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one operation.

        Raises:
            RuntimeError: the process ended; what it said is on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([operation, arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{operation}: the process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class EngineSide:
    """Ours: `VibeVoiceEngine` over `probe_audio` and `open_audio`, with the memory plan that the
    server would give to each recording."""

    def __init__(self, model: Model) -> None:
        from sidecar.interfaces.engine_interface import LoadOptions, Precision

        precision = Precision(model.precision)
        self._options = LoadOptions(precision, str(model.checkpoint), model.device)
        self._planned = planning(model.checkpoint, precision, model.device)
        self._engine: Any = None

    def load(self) -> None:
        """Read the checkpoint with the product's own loader, anew where it was read before."""
        from sidecar.engines.vibevoice import VibeVoiceEngine

        self._engine = None
        gc.collect()
        self._engine = VibeVoiceEngine()
        list(self._engine.load(self._options))

    def transcribe(self, path: str) -> dict[str, Any]:
        """One recording."""
        from sidecar.audio.audio_decoder import open_audio, probe_audio
        from sidecar.interfaces.engine_interface import TranscribeOptions, TranscriptionRequest
        from sidecar.transcripts.transcript import Finished

        with open(path, "rb", buffering=0) as file:
            facts = probe_audio(file.fileno(), _MAX_S)
            options = self._planned(facts.total_s, TranscribeOptions())
            with open_audio(file.fileno(), facts, rate=RATE, max_s=_MAX_S) as audio:
                request = TranscriptionRequest(audio, options, lambda: False)
                *_, last = self._engine.transcribe(request)
        assert isinstance(last, Finished)
        said = last.transcript.segments
        return {"segments": normal([(s.start, s.end, s.speaker, s.text) for s in said])}

    def cancel(self, wav: str, known: str, times: int) -> dict[str, Any]:
        """How long a cancelled request goes on (ms) and how many tokens, for each phase.

        Encode and prefill are those of ``wav``, a long one; decode is that of ``known``, which the
        checkpoint knows, for its answer to unknown audio may end at once. After whole runs of both,
        which say how long each phase takes, every round cancels at a random moment of one phase.
        The moment is on the clock that the engine's own question is answered by, so no thread is in
        between; what is measured is from that moment to the end of the engine's generator.
        """
        from sidecar.audio.audio_decoder import decode_audio_file
        from sidecar.interfaces.engine_interface import TranscribeOptions, TranscriptionRequest
        from sidecar.transcripts.transcript import Finished
        from tests.support.engine_requests import SampleStream

        watches: list[Watch] = [Watch()]
        watching(watches)
        long, short = (SampleStream(decode_audio_file(path, RATE), RATE) for path in (wav, known))

        def run(watch: Watch, phase: str, **options: Any) -> tuple[float, bool]:
            watches.append(watch)
            recording = short if phase == "decode" else long
            asked = self._planned(recording.total_s, TranscribeOptions(**options))
            request = TranscriptionRequest(recording, asked, watch.cancelled)
            events = self._engine.transcribe(request)
            finished = any(isinstance(event, Finished) for event in events)
            return time.perf_counter(), finished

        lasts = {}
        for phase in ("encode", "decode"):
            whole = Watch()
            ended, finished = run(whole, phase, max_tokens=400)
            assert finished
            marks = {**whole.begun, "end": ended}
            for one, after in pairwise((*PHASES, "end")):
                if phase == "encode" or one == "decode":
                    lasts[one] = marks[after] - marks[one]
        assert whole.tokens > 20, "the checkpoint does not know this recording"
        chance = random.Random(20)
        found: dict[str, Any] = {phase: {"ms": [], "tokens": []} for phase in PHASES}
        for _ in range(times):
            for phase in PHASES:
                finished = True
                while finished:  # a phase that was shorter this time: another moment
                    watch = Watch()
                    if phase == "decode":
                        at = chance.randrange(1, whole.tokens - 3)
                        watch.cancel_in(phase, chance.random() * lasts[phase] / whole.tokens, at)
                    else:
                        watch.cancel_in(phase, chance.random() * 0.95 * lasts[phase])
                    ended, finished = run(watch, phase)
                found[phase]["ms"].append((ended - watch.moment) * 1e3)
                found[phase]["tokens"].append(watch.tokens_after)
        return {"phases": found, "lasts": lasts}


def planning(checkpoint: Path, precision: Precision, device: str) -> Planned:
    """(seconds, options) -> options with the memory plan that the server would give them."""
    from sidecar.engines import engine_spec
    from sidecar.gpu_memory.gpu_devices import host_free_bytes
    from sidecar.gpu_memory.memory_admission import MemoryAdmission, MemoryState
    from sidecar.gpu_memory.memory_footprint import ModelShape

    shape = ModelShape.from_config(json.loads((checkpoint / "config.json").read_text("utf-8")))
    admission = MemoryAdmission(shape, engine_spec("vibevoice").precisions, None)

    def planned(audio_s: float | None, options: TranscribeOptions) -> TranscribeOptions:
        now = MemoryState(host_free_bytes(), precision, on_gpu=False)
        if device == "cuda":
            import torch

            free, _ = torch.cuda.mem_get_info()
            now = MemoryState(free, precision, on_gpu=True, own_bytes=torch.cuda.memory_reserved())
        return admission.planned(precision, audio_s, options, now)

    return planned


class PlainSide:
    """The library by itself, as the model's page shows it: processor, ``generate``, and
    ``decode(return_format="parsed")``, with samples from the same decoder as ours."""

    def __init__(self, model: Model) -> None:
        self._of = model
        self._model: Any = None

    def load(self) -> None:
        """Read it with ``from_pretrained``."""
        from transformers import AutoProcessor, VibeVoiceAsrForConditionalGeneration
        from transformers.utils import logging

        self._model = None
        gc.collect()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._processor = AutoProcessor.from_pretrained(self._of.checkpoint)
        self._model = VibeVoiceAsrForConditionalGeneration.from_pretrained(
            self._of.checkpoint, dtype=TORCH_NAMES[self._of.precision], device_map=self._of.device
        )

    def transcribe(self, path: str) -> dict[str, Any]:
        """One ``generate``."""
        import torch

        from sidecar.audio.audio_decoder import decode_audio_file

        inputs = self._processor.apply_transcription_request(audio=decode_audio_file(path, RATE))
        inputs = inputs.to(self._model.device, self._model.dtype)
        with torch.inference_mode():
            ids = self._model.generate(**inputs, sample=False)
        said = self._processor.decode(
            ids[:, inputs["input_ids"].shape[1] :], return_format="parsed"
        )
        return {"segments": parsed(said[0])}


SIDES: dict[str, Callable[[Model], EngineSide | PlainSide]] = {
    "engine": EngineSide,
    "plain": PlainSide,
}


def serve(name: str, checkpoint: str, precision: str, device: str) -> None:
    """Answer operations until stdin ends; each answer has its ``seconds``."""
    side = SIDES[name](Model(Path(checkpoint), precision, device))
    for line in sys.stdin:
        operation, arguments = json.loads(line)
        begun = time.perf_counter()
        answer = getattr(side, operation)(**arguments) or {}
        print(json.dumps({"seconds": time.perf_counter() - begun, **answer}), flush=True)


def normal(rows: list[tuple[Any, Any, Any, str]]) -> Segments:
    """Segments in a form in which equal ones are equal: numbers, speakers by appearance."""
    seen: dict[Any, int] = {}
    return [
        [
            round(float(start), 3),
            round(float(end), 3),
            None if speaker is None else seen.setdefault(speaker, len(seen)),
            text.strip(),
        ]
        for start, end, speaker, text in rows
    ]


def parsed(said: list[dict[str, Any]]) -> Segments:
    """The segments of the model's own answer."""
    return normal([(s["Start"], s["End"], s.get("Speaker"), s["Content"]) for s in said])


class Watch:
    """The clock of a run: when phases begin and when it is to be cancelled."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.tokens = self.tokens_after = 0
        self.moment = float("inf")
        self._phase, self._after_s, self._after_tokens = "", 0.0, 0

    def cancel_in(self, phase: str, after_s: float, after_tokens: int = 0) -> None:
        """Cancel the run ``after_s`` into a phase, or behind some token of it."""
        self._phase, self._after_s, self._after_tokens = phase, after_s, after_tokens

    def begin(self, phase: str) -> None:
        """A phase begins."""
        self.begun[phase] = time.perf_counter()
        if phase == self._phase and not self._after_tokens:
            self.moment = self.begun[phase] + self._after_s

    def took_token(self) -> None:
        """A token was chosen."""
        self.tokens += 1
        self.tokens_after += self.cancelled()
        if self.tokens == self._after_tokens:
            self.moment = time.perf_counter() + self._after_s

    def cancelled(self) -> bool:
        """What the engine asks."""
        return time.perf_counter() >= self.moment


def watching(current: list[Watch]) -> None:
    """Have the engine's parts tell the last of ``current`` what they begin."""
    from sidecar.engines.vibevoice.torch_generation import TokenGeneration
    from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceAudioEncoder

    encode, begin = VibeVoiceAudioEncoder.encode, TokenGeneration.__init__
    token = TokenGeneration.token

    def encoding(*arguments: Any) -> None:
        current[-1].begin("encode")
        encode(*arguments)
        current[-1].begin("prefill")

    def beginning(*arguments: Any, **named: Any) -> None:
        begin(*arguments, **named)
        current[-1].begin("decode")

    def choosing(*arguments: Any) -> int:
        chosen = token(*arguments)
        current[-1].took_token()
        return chosen

    VibeVoiceAudioEncoder.encode = encoding  # type: ignore[assignment, method-assign]
    TokenGeneration.__init__ = beginning  # type: ignore[method-assign]
    TokenGeneration.token = choosing  # type: ignore[method-assign, assignment]


@dataclass
class Taken:
    """What one side took for one clip, per round."""

    seconds: list[float] = field(default_factory=list)
    same: int = 0
    """Rounds in which it said what our engine says."""


def speed(
    folder: Path, model: Model, clips: Mapping[str, Path], wanted: tuple[str, ...], rounds: int
) -> None:
    """P1 and P3, each in turns."""
    import soundfile

    with ExitStack() as stack:
        engine = stack.enter_context(Child("engine", model))
        engine.ask("load")
        sides: dict[str, Run] = {"engine": lambda path: engine.ask("transcribe", path=str(path))}
        if "P1" in wanted:
            plain = stack.enter_context(Child("plain", model))
            plain.ask("load")
            sides["plain"] = lambda path: plain.ask("transcribe", path=str(path))
        if "P3" in wanted:
            settings = {"model_path": str(model.checkpoint), "keep_alive": "-1"}
            settings |= {"precision": model.precision, "device": model.device}
            server = stack.enter_context(serving.ours(folder, engine="vibevoice", **settings))
            peer = stack.enter_context(transformers_serve(folder, model))
            sides["server"] = lambda path: upload(server, path)
            sides["serve"] = lambda path: chat(peer, model, path)
        taken = {name: in_turns(rounds, sides, path, name) for name, path in clips.items()}
    headers = ("clip", "ours s", "peer's s", "ratio", "same text", "goal")
    for goal, ours, theirs, long in (
        ("P1", "engine", "plain", 0.70),
        ("P3", "server", "serve", 0.65),
    ):
        rows = []
        for name, by in taken.items() if goal in wanted else ():
            our, their = median(by[ours].seconds), median(by[theirs].seconds)
            length_s = soundfile.info(clips[name]).duration
            cells = f"{our:.3f}", f"{their:.3f}", f"{our / their:.2f}"
            judged = verdict(our / their, long if length_s > _LONG_S else 1.0)
            same = f"{by[theirs].same}/{rounds}"
            rows.append((f"{name} {length_s:.0f} s", *cells, same, judged))
        if rows:
            table(f"{goal}: {ours} / {theirs}, median of {rounds}", headers, rows)


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
            if not same and name != "serve":
                raise RuntimeError(f"{clip}: {name} says\n{answer['segments']}\nnot\n{expected}")
            if number:
                taken[name].same += same
                taken[name].seconds.append(answer["seconds"])
    return taken


def upload(server: serving.Server, path: Path) -> dict[str, Any]:
    """One recording over our wire; a tag has no speaker there either, whatever it is called."""
    audio = path.read_bytes()
    begun = time.perf_counter()
    answer = server.transcribe(audio)
    seconds, rows = time.perf_counter() - begun, []
    for one in answer["segments"]:
        speaker = None if "non_speech" in one.get("flags", ()) else one["speaker"]
        rows.append((one["start_time"], one["end_time"], speaker, one["text"]))
    return {"seconds": seconds, "segments": normal(rows)}


def transformers_serve(folder: Path, model: Model) -> serving.Server:
    """`transformers serve`, with the model loaded before it is up."""
    port = serving.free_port()
    options: tuple[str, ...] = ("--port", str(port), "--device", model.device)
    options += ("--dtype", TORCH_NAMES[model.precision])
    return serving.Server(
        [sys.executable, "-c", _SERVE, "serve", str(model.checkpoint), *options],
        folder,
        serving.child_env(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error"),
        port,
        folder / f"serve-{port}.log",
    )


def chat(server: serving.Server, model: Model, path: Path) -> dict[str, Any]:
    """One recording over its chat endpoint, for its transcription endpoint answers 500 for this
    model. The answer is the model's raw text; it encodes with noise (``sample=True`` cannot be
    turned off there)."""
    audio = path.read_bytes()
    begun = time.perf_counter()
    data = base64.b64encode(audio).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    body = {"model": str(model.checkpoint), "messages": [{"role": "user", "content": [part]}]}
    headers = {"Content-Type": "application/json"}
    answer = server.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
    seconds = time.perf_counter() - begun
    text = answer["choices"][0]["message"]["content"]
    segments = parsed(json.loads(text.removeprefix("assistant").strip()))
    return {"seconds": seconds, "segments": segments}


def cancelling(folder: Path, model: Model, clips: list[Path], times: int) -> None:
    """P9: ``clips`` one after the other, cancelled ``times`` times per phase; decode is cancelled
    in the second clip alone."""
    import soundfile

    once = np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in clips])
    wav = folder / "repeated.wav"
    samples = np.resize(once, round(60 * CANCEL_MINUTES * RATE))
    soundfile.write(wav, samples, RATE, subtype="PCM_16")
    with Child("engine", model) as engine:
        engine.ask("load")
        found = engine.ask("cancel", wav=str(wav), known=str(clips[1]), times=times)
    rows = []
    for phase, taken in found["phases"].items():
        late, tokens = sorted(taken["ms"]), max(taken["tokens"])
        p95 = late[min(len(late) - 1, round(0.95 * len(late)) - 1)]
        goal = verdict(round(p95, 1), CANCEL_GOAL_MS)
        if phase == "decode":
            goal = verdict(tokens, 2) + " (tokens)"
        cells = (f"{ms:.1f}" for ms in (median(late), p95, late[-1]))
        after = str(tokens) if phase == "decode" else "–"
        rows.append((phase, f"{found['lasts'][phase]:.2f}", *cells, after, goal))
    headers = ("phase", "lasts s", "p50 ms", "p95 ms", "worst ms", "tokens after, most", "goal")
    title = f"P9: cancel, {CANCEL_MINUTES:g} min of audio, {times} random moments a phase"
    table(title, headers, rows)


def loading(model: Model, clip: Path, rounds: int) -> None:
    """P11: load and first transcript, in warm processes and in fresh ones."""
    rows: list[tuple[str, ...]] = []

    def compare(what: str, our: float, their: float, goal: float | None) -> None:
        cells = f"{our:.3f}", f"{their:.3f}", f"{our / their:.2f}"
        rows.append((what, *cells, "" if goal is None else verdict(round(our / their, 2), goal)))

    def load(side: Child) -> tuple[float, float]:
        loaded = side.ask("load")["seconds"]
        return loaded, loaded + side.ask("transcribe", path=str(clip))["seconds"]

    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    with Child("engine", model) as engine, Child("plain", model) as plain:
        for number in range(rounds + 1):
            for name, side in (("engine", engine), ("plain", plain)):
                value = load(side)
                taken[name] += [value] * bool(number)
    for index, what in enumerate(("load", "load + first transcript")):
        our, their = (median([one[index] for one in taken[name]]) for name in SIDES)
        compare(what, our, their, 1.1 if index else None)

    def fresh(side: str) -> float:
        begun = time.perf_counter()
        with Child(side, model) as child:
            load(child)
            return time.perf_counter() - begun

    cold = interleaved(
        max(3, rounds // 2), {"engine": lambda: fresh("engine"), "plain": lambda: fresh("plain")}
    )
    compare("fresh process, imports included", median(cold["engine"]), median(cold["plain"]), 1.1)
    headers = ("what", "engine s", "plain s", "ratio", "goal")
    table(f"P11: from_pretrained and ours, median of {rounds}", headers, rows)


def small(folder: Path, wanted: tuple[str, ...], given: argparse.Namespace) -> None:
    """The figures that a trained checkpoint gives."""
    from tests.support import tiny_vibevoice

    wavs = {name: tiny_vibevoice.clip_wav(name) for name in tiny_vibevoice.CLIPS}
    model = Model(tiny_vibevoice.checkpoint("tiny"), given.precision, given.device)
    if {"P1", "P3"} & {*wanted}:
        speed(folder, model, wavs, wanted, given.rounds)
    if "P9" in wanted:
        cancelling(folder, model, list(wavs.values()), given.cancels)
    if "P11" in wanted:
        loading(model, wavs[tiny_vibevoice.CLIPS[0]], given.rounds)


def main() -> None:
    """Measure what is asked for."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=(*SMALL, *CARD), metavar="P")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=TORCH_NAMES, help="of all sides")
    parser.add_argument("--cancels", type=int, default=20, help="P9: moments per phase")
    parser.add_argument("--random-weights", action="store_true", help="P4 to P17 instead")
    parser.add_argument("--size", choices=("tiny", "mid", "full"), help="of the random weights")
    parser.add_argument("--minutes", type=float, nargs="+", help="of audio with random weights")
    parser.add_argument("--tokens", type=int, default=128, help="P4, P17: tokens decoded")
    parser.add_argument("--weights", type=Path, help="folder to keep the random weights in")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        serve(*given.side)
        return
    choices = CARD if given.random_weights else SMALL
    wanted = tuple(given.only or choices)
    if not {*wanted} <= {*choices}:
        parser.error(f"{', '.join(CARD)} are measured with --random-weights, nothing else is")
    if given.size == "full" and given.device == "cpu":
        parser.error("of the full size a token takes seconds on a CPU; --size mid runs the same")
    given.precision = given.precision or ("fp32" if given.device == "cpu" else "bf16")
    os.environ["OMP_NUM_THREADS"] = "1" if given.device == "cpu" else "8"
    print(serving.machine())
    with serving.workshop() as folder:
        if given.random_weights:
            from bench import vibevoice_card

            vibevoice_card.card(folder, wanted, given)
        else:
            small(folder, wanted, given)


if __name__ == "__main__":
    main()
