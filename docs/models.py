"""The page about the models, and its plot: figures from the planner, none by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil

from sidecar.checkpoints.installed_checkpoints import VOXTRAL_REPOSITORY
from sidecar.checkpoints.whisper_checkpoints import BEST_FIRST, WHISPER_MODELS
from sidecar.engines.voxtral import SPEC as VOXTRAL
from sidecar.gpu_memory.memory_footprint import (
    CONTEXT_BYTES,
    FRAGMENTATION,
    TOKENS_PER_SECOND,
    VIBEVOICE_7B_SHAPE,
    RecordingWork,
    StreamShape,
    memory_phases,
    peak_bytes,
    weights_bytes,
)
from sidecar.gpu_memory.memory_plan import (
    GB,
    PREFERRED_PRECISIONS,
    estimated_seconds,
    max_audio_s,
    plan_job,
    plan_ladder,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]

CARDS = (6, 8, 10, 11, 12, 16, 24, 32)
"""Gigabytes of memory that cards are sold with."""
DESKTOP_GB = 0.7
"""What a desktop that is drawn by the same card takes, about."""
BANDWIDTHS = (
    ("8 GB, RTX 4060", 272e9),
    ("8 GB, RTX 3070", 448e9),
    ("12 GB, RTX 3060", 360e9),
    ("16 GB, RTX 4080", 717e9),
    ("24 GB, RTX 4090", 1008e9),
)
"""Bytes a second, from the data sheets."""
PCIE = 25e9
"""Bytes a second to a card in a full PCIe 4.0 slot."""
COLORS = {Precision.BF16: "#0072b2", Precision.INT8: "#d55e00", Precision.INT4: "#009e73"}


WHISPER_MEASURED = """\
By random weights of the real sizes, because released ones cannot be had where this is
measured, so it is about cost and nothing else; `int8`, one thread, five beams, 80 tokens a
window, on a machine with two cores and six times the work for them (`python -m
bench.whisper`; CPU-seconds for each second of 90 s of audio, three windows on either side; in
brackets the peak of memory):

| Size | faster-whisper alone | `whisper`, no speakers | with speakers |
|---|---|---|---|
| `tiny` | 0.075 (296 MB) | 0.075 (462 MB) | 0.162 (525 MB) |
| `base` | 0.148 (413 MB) | 0.144 (532 MB) | 0.228 (603 MB) |
| `small` (`--runs 1`, another day) | 0.163 (670 MB) | 0.169 (812 MB) | 0.205 (900 MB) |

Speakers add what `diarization/` takes, whatever the size; it is heard on another core. The first
column cuts at every thirtieth second, in mid-word: of exactly sixty seconds it makes two
windows where cuts at pauses make three, which is 1.9 times the work (`--seconds 60`). faster-
whisper's own search for speech made three of the ninety seconds, at 0.066 CPU-s for `tiny`;
with four windows at a time 0.064, which is not worth the wait: here they go one by one.
Larger sizes go by their encoder: thirty seconds took that of `tiny` 0.52 CPU-s, of `base`
1.16, of `small` 3.8 on a busy machine. Beside the model, packages and `diarization/` take some 400
MB at their peak. On the disk the extra adds 290 MB to an install of some 500 (`du -sm` of its
packages: av 104, ctranslate2 146, the rest 40); the base stays as it is."""
"""By hand: it takes a quarter of an hour."""


WHISPER_LIVE_MEASURED = """\
Random weights of the real sizes again, so it is about cost alone: `int8`, a thread for each of two
cores, four tokens a second, people who all talk in real time with the pauses of the clips, while
others worked on the machine (its load in the last column; two are its cores). Finals: seconds from
the end of a piece that is known to its words, p50 / p95 (`python -m bench.whisper_live --sizes tiny
base --sessions 1 2 4 6 --seconds 15`, and with `--short`).

| Size | sessions | finals | partials a second | CPU-s a second, each | load |
|---|---|---|---|---|---|
| `tiny` | 1 | 0.34 / 0.50 | 0.53 | 0.451 | 1.6 |
| `tiny` | 4 | 0.39 / 0.77 | 0.63 | 0.372 | 2.2 |
| `tiny` | 6 | 0.48 / 2.29 | 0.27 | 0.250 | 2.3 |
| `tiny`, short windows | 4 | 0.35 / 0.64 | 0.90 | 0.217 | 2.4 |
| `base` | 1 | 0.80 / 0.98 | 0.07 | 0.943 | 2.1 |
| `base` | 2 | 2.57 / 3.67 | 0.10 | 0.548 | 2.2 |

So four sessions are what it takes (`EngineSpec.sessions`): that is `tiny` on two such cores, and
`base` hears one there. Beside other work it falls behind sooner: at a load of four, `base` took 5 s
for a final of one session. Of `small` and larger each window is several times as much; they want
a GPU, where this was not measured."""
"""By hand."""


def models_page(mark: str, table: Table) -> str:
    """Which card takes what, and what there is to know about the weights."""
    everything = weights_bytes(VIBEVOICE_7B_SHAPE, Precision.INT8, MemoryPlan())
    least = weights_bytes(
        VIBEVOICE_7B_SHAPE, Precision.INT8, MemoryPlan(evict_encoders=True, host_token_table=True)
    )
    layers, slower = _offload(600.0, 8)
    alone = _minutes(Precision.INT4, 8)
    shared = _minutes(Precision.INT4, 8 - DESKTOP_GB)
    ten_s, minute = (round(StreamShape.from_config({}).peak_bytes(s) / 1e6) for s in (10, 60))
    return f"""{mark}
# Models

Three engines share every endpoint, and a fourth hears live audio only. `engine = "auto"` takes
VibeVoice-ASR where a GPU and a checkpoint are there, Whisper where `language` is set to one that is
not English and a model of it is there, the embedded engine otherwise, and says which and why.

| You have | and speak | take |
|---|---|---|
| a laptop | English | the embedded engine: nothing to do |
| a laptop | another language | `whisper:small`; `whisper:base` where that is too slow |
| a quick processor, time | another language | `whisper:large-v3-turbo` or `medium` |
| an NVIDIA GPU from 4 GB | any language | `whisper:large-v3-turbo` |
| an NVIDIA GPU from 8 GB | any language, long meetings | `vibevoice` |

## The embedded engine

`moonshine`: recognition and speaker identification on the CPU, from the `moonshine-voice` wheel
with its weights inside (MIT). English; no GPU, no account, no download. It takes whatever it hears
for English. Where it is unsure of most words, `metadata.warnings` of the transcript has
`{{"code": "language_doubtful", "message": "…"}}` ([how it was
chosen](decisions/recognition-parameters.md)); the message says how to get an engine for another
language. The executable of `make exe` has neither Whisper nor torch inside: an app that
ships it offers another language by an [upstream](upstream.md), or ships
[a build of its own](building.md#another-language) with them.

## Whisper

`whisper`: OpenAI's models as faster-whisper runs them (CTranslate2). A hundred languages; how good
it is in one depends on the size, and is known from OpenAI's paper, not from here. Weights: MIT.

    pip install '.[whisper]'
    vibevoice-asr pull whisper:small           # Systran/faster-whisper-small, 0.48 GB, resumes
    vibevoice-asr --language de                # or --engine whisper; another folder: --model-path

{table(("Name", "Download", "Languages"), _whispers())}
`VIBEVOICE_WHISPER_MODEL` says which, where several are there; else it is the first of them in this
order: {", ".join(BEST_FIRST[:8])},
then those that know English only.

- **Precisions**: `int8` (CTranslate2's `int8` on a CPU, `int8_float16` on a GPU), `fp16` (on a GPU;
  a CPU has none, and gets `fp32`, which the answer says), `fp32`.
- **Speakers** come from `diarization/`, like those of the embedded engine: words are cut where the
voice
  changes. One window of thirty seconds is heard at a time; silence is not heard at all.
- **Language**: told by the client, or found in each window; `metadata.language` is the one that is
  heard longest, and the warning `several_languages` says which others were.
- **Threads**: half of the cores; `OMP_NUM_THREADS` overrules it.
- **Cancel** is answered at once; the window that is being heard ends by itself, which takes `small`
  on one core some seconds.
- **Live**: where it is the engine for files it hears live as well, or with `--live-engine whisper`.
  Each stretch of speech is a window of thirty seconds, which costs as much as if it were full.
  Where windows take more than a second there are finals only, and the notice `partials_off` says
  so. `accurate` follows five hypotheses for finals instead of one.

### What it takes

{WHISPER_MEASURED}

### What it takes live

{WHISPER_LIVE_MEASURED}

## Voxtral Realtime

`voxtral`: Mistral's Voxtral-Mini-4B-Realtime, for live audio only. It writes while people speak and
takes nothing back, in thirteen languages that it tells apart by itself:
{", ".join(VOXTRAL.languages)}.

    pip install '.[voxtral]'
    vibevoice-asr pull voxtral                 # {VOXTRAL_REPOSITORY}, resumes
    vibevoice-asr --live-engine voxtral

- **Delay**: how far its words are behind, 80 to 2400 ms in steps of 80, as the session asks; 480
  where it does not say. What more of it is worth is not known here.
- **Sessions** share the model, and each has caches beside it
(`sidecar/gpu_memory/memory_footprint.py`, 16 bit):
  at most {ten_s} MB for ten seconds of speech without a pause, {minute} MB for a minute, with which
  memory is counted. Each reserves it as long as it goes on, and there are {VOXTRAL.sessions}
  at most: for how many of them the card is quick enough is measured (`live_delay`).
- **How sure this is**: the steps are held to `transformers`' own, token for token, with a tiny
  model. The released one was not run here: how fast and how good it is has to be seen. On a CPU
  it is not to be expected to keep up.
- **Licence of the weights**: read the card of the checkpoint that you download.

## VibeVoice-ASR

`vibevoice`: Microsoft's VibeVoice-ASR-7B,
{VIBEVOICE_7B_SHAPE.parameters / 1e9:.2f} billion parameters. It hears up to an hour
at once and writes who said what and when; longer recordings go through in windows.

- **Languages**: more than 50, within one recording too, and it need not be told which. The
  model's page has error rates for Chinese, English, French, German, Italian, Japanese, Korean,
  Portuguese, Russian, Spanish, Thai and Vietnamese; how good it is in others is not known here.
- **Licence of the weights**: MIT, by Microsoft's page on VibeVoice-ASR. What holds is the card of
  the checkpoint that you download: read it.
- **Several GPUs**: it takes the first that `CUDA_VISIBLE_DEVICES` leaves (numbers as `nvidia-smi`
  has them, UUIDs, MIG), and plans with that one's memory.
- **Not for** live captions: the first words come when the whole recording has been heard. Live
  audio goes to the embedded engine beside it; `--live-engine vibevoice` ends the start
  (`engine_unavailable`).

### Getting the checkpoint

    pip install '.[vibevoice]'
    vibevoice-asr pull vibevoice               # microsoft/VibeVoice-ASR-HF, 16.7 GB, resumes

`pull` says the commit it brought. A later one without a revision stays at that commit, and says so
where the hub has a newer one:

    vibevoice-asr pull vibevoice@COMMIT        # or --revision COMMIT: the same files everywhere
    vibevoice-asr pull vibevoice --revision main   # the newest

The commit is that of `refs/main` in the cache, or the newest one there that is whole; `pulled.json`
has that of a folder of `--to`. `doctor` says it.

`vibevoice-asr list` shows what is here, `vibevoice-asr rm NAME` deletes it.

For a machine without a network, pull on another one and copy the folder (`pull` prints this on a
terminal where it reaches no hub, for each model):

    vibevoice-asr pull vibevoice --to /media/stick/vibevoice-asr
    export VIBEVOICE_MODEL_PATH=/data/vibevoice-asr HF_HUB_OFFLINE=1
    vibevoice-asr --engine vibevoice

`VIBEVOICE_MODEL_PATH` is that folder, or a Hugging Face cache that has the checkpoint. Only
safetensors are read; code and pickles inside a checkpoint are never run. A checkpoint that you
fine-tuned is such a folder, too: what `save_pretrained` of the model and of its processor write.
`list`, `doctor`, `estimate` and the service go by the same setting; `VIBEVOICE_ENGINE=vibevoice
vibevoice-asr estimate talk.m4a` needs the checkpoint's `config.json`. Another precision while it
runs: [embedding.md](embedding.md#change-the-precision); two checkpoints compared on your
recordings: [bench.md](bench.md).

### Which card takes what

The longest recording at once, by the planner (`sidecar/gpu_memory/memory_plan.py`), on a card that
does nothing else; in brackets, on one that draws a desktop as well ({DESKTOP_GB:g} GB). An hour is
the model's own limit.

{table(("Card", "bf16, fp16", "int8", "int4", "A whole hour"), _rows())}
![Memory against length](models.svg)

At the top of a band everything stays on the card. At its bottom the encoders leave after encoding,
the cache grows as it is needed, and the token table stays on the host; where there is no room for
these parts they are loaded there in the first place, so no card ever needs room for all weights.
The planner takes the fastest plan that fits and refuses (`wont_fit`) what fits in none.

It counts on {TOKENS_PER_SECOND:g} tokens of text for a second of audio, which is dense speech.
To what tensors take it adds {CONTEXT_BYTES / 1e6:.0f} MB for the CUDA context, and
{FRAGMENTATION:.0%} for what the allocator wastes.

**How sure this is**: tensors are held to a simulation of the full-size model that runs the
engine's own code (`python -m bench.memory`; never low, at most 5 % high). Context and waste are
assumptions: they are not measured on a GPU yet.

### int8 does not fit on 8 GB

- Audio encoders, projector and head stay in 16 bit, so the weights take {everything / GB:.1f} GB
  in int8 ({everything / 1e9:.1f} · 10⁹ bytes).
- With encoders and token table on the host, {least / GB:.1f} GB remain: no room for a cache, nor
  for the encoders while they work.
- **int4** is what fits: {alone} minutes at once, {shared} with a desktop.
- Layers left on the host would make room: {layers} of {VIBEVOICE_7B_SHAPE.layers}, for ten
  minutes of audio. They would cross the bus for each token, which adds {slower / 60:.0f} minutes
  in a full PCIe 4.0 slot and twice that on eight lanes, as many of these cards have. It is not
  built, since int4 takes more on the same card in less time.

### How long an hour takes

Roughly, from the cards' bandwidths and an assumed efficiency of the kernels; unmeasured.

{table(("Card", "bf16", "int8", "int4"), _times())}"""


def models_plot() -> str:
    """An SVG: gigabytes against minutes, a band for each precision, a line for each card."""
    width, height, left, right, top, bottom = 760, 420, 56, 64, 24, 48
    most_gb, most_minutes = 26.0, 60.0

    def x(minutes: float) -> float:
        return left + (width - left - right) * minutes / most_minutes

    def y(gigabytes: float) -> float:
        return height - bottom - (height - top - bottom) * gigabytes / most_gb

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13" fill="#333">',
        "<title>Memory that VibeVoice-ASR takes, by length of the recording</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for card in (8, 12, 16, 24):
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(card):.1f}" y2="{y(card):.1f}" '
            'stroke="#999" stroke-dasharray="4 4"/>'
            f'<text x="{left - 8}" y="{y(card) + 4:.1f}" text-anchor="end">{card} GB</text>'
        )
    for minutes in range(0, 61, 10):
        parts.append(
            f'<text x="{x(minutes):.1f}" y="{height - bottom + 18}" text-anchor="middle">'
            f"{minutes}</text>"
        )
    parts.append(
        f'<line x1="{left}" x2="{width - right}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="#333"/>'
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        "minutes of audio at once</text>"
    )
    for precision in PREFERRED_PRECISIONS:
        color = COLORS[precision]
        steps = [
            RecordingWork.of(VIBEVOICE_7B_SHAPE, max(1.0, 60.0 * minutes))
            for minutes in range(0, 61, 2)
        ]
        upper = [(work, _gigabytes(precision, work, 0)) for work in steps]
        lower = [(work, _gigabytes(precision, work, -1)) for work in steps]
        outline = [*upper, *reversed(lower)]
        points = " ".join(f"{x(work.audio_s / 60):.1f},{y(gb):.1f}" for work, gb in outline)
        parts.append(
            f'<polygon points="{points}" fill="{color}" fill-opacity="0.25" stroke="{color}"/>'
        )
        middle = (upper[-1][1] + lower[-1][1]) / 2
        parts.append(
            f'<text x="{width - right + 8}" y="{y(middle) + 4:.1f}" fill="{color}" '
            f'font-weight="bold">{precision.value}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rows() -> Iterable[tuple[str, ...]]:
    for card in CARDS:
        cells = []
        for precision in PREFERRED_PRECISIONS:
            free, shared = _minutes(precision, card), _minutes(precision, card - DESKTOP_GB)
            cells.append(f"{free} min ({shared})" if free != "–" else "–")
        hour = RecordingWork.of(VIBEVOICE_7B_SHAPE, 3600.0)
        fitting = [
            one
            for one in PREFERRED_PRECISIONS
            if plan_job(VIBEVOICE_7B_SHAPE, one, hour, int(card * GB)).fits
        ]
        some = any(cell != "–" for cell in cells)
        whole = f"in {fitting[0].value}" if fitting else "in windows"
        yield f"{card} GB", *cells, whole if some else "–"


def _minutes(precision: Precision, gigabytes: float) -> str:
    longest = max_audio_s(VIBEVOICE_7B_SHAPE, precision, int(gigabytes * GB))
    return f"{longest // 60:.0f}" if longest >= 60 else "–"


def _gigabytes(precision: Precision, work: RecordingWork, step: int) -> float:
    """What a step of the ladder takes; no step takes more than one before it."""
    plans = plan_ladder(work)[: step + 1] if step >= 0 else plan_ladder(work)
    return min(peak_bytes(VIBEVOICE_7B_SHAPE, precision, plan, work).total for plan in plans) / GB


def _times() -> Iterable[tuple[str, ...]]:
    hour = RecordingWork.of(VIBEVOICE_7B_SHAPE, 3600.0)
    for name, bandwidth in BANDWIDTHS:
        available = int(float(name.split()[0]) * GB)
        yield (
            name,
            *(
                f"{estimated_seconds(VIBEVOICE_7B_SHAPE, one, hour, bandwidth) / 60:.0f} min"
                if max_audio_s(VIBEVOICE_7B_SHAPE, one, available) >= 600
                else "–"
                for one in PREFERRED_PRECISIONS
            ),
        )


def _offload(audio_s: float, card: float) -> tuple[int, float]:
    """Layers of int8 that must stay on the host, and what moving them for each token takes."""
    work = RecordingWork.of(VIBEVOICE_7B_SHAPE, audio_s)
    least = plan_ladder(work)[-1]
    working = [
        one.total for one in memory_phases(VIBEVOICE_7B_SHAPE, Precision.INT8, least, work)[1:]
    ]
    layer = VIBEVOICE_7B_SHAPE.linear_parameters / VIBEVOICE_7B_SHAPE.layers
    layers = ceil((max(working) - card * GB) / (layer * (1 + FRAGMENTATION)))
    return layers, 6.0 * audio_s * layers * layer / PCIE


def _whispers() -> Iterable[Sequence[str]]:
    for name, one in WHISPER_MODELS.items():
        english = name.endswith(".en") or name.startswith("distil")
        yield f"`{name}`", f"{one.gb:g} GB", "English" if english else "all"
