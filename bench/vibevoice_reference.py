"""The VibeVoice-ASR engine beside Microsoft's own class, with the same random weights.

Their source is not part of this project: SOURCE is a checkout of github.com/microsoft/VibeVoice,
PYTHON one in which its package runs (transformers 4), TOKENIZER a folder with Qwen2.5's:

    python -m bench.vibevoice_reference SOURCE TOKENIZER --python PYTHON [--dtype bfloat16]

Their class writes its checkpoint in the released layout; the engine loads that folder in place.
For each clip: the ids of the prompt, the normalized audio, the features of the encoders (in chunks
of 7 and 60 s), and, behind the reference's own features, the logits of an answer that is fed in
passes of changing width, as drafts are; then the engine's whole way, token by token. In bfloat16
both sides are compared with the engine in fp32 on the same weights: whose error is larger.

It exits with 1 where ids differ, where fp32 differs by more than its rounding, or where the
engine's error in bfloat16 is more than the reference's by a fifth.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import moonshine_voice
import numpy as np
import soundfile
import soxr
import torch

from bench import serving
from sidecar.engines.vibevoice import vibevoice_model
from sidecar.engines.vibevoice.vibevoice_generation import PromptContinuation
from sidecar.engines.vibevoice.vibevoice_prompt import loudness_factor, token_count
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

RATE, HOP = 24_000, 3_200
VOCABULARY = 152_064
"""Rows of the released token table."""
CONTEXT = "Tea Brew\nAiden Host\nThe property is near Meter Street."
ANSWER = (
    '<|im_start|>assistant\n[{"Start":0,"End":5.86,"Speaker":0,"Content":"Mr. Quilter is the '
    'apostle of the middle classes."},{"Start":5.86,"End":9.1,"Speaker":1,"Content":"d\u00e9j\u00e0'
    ' vu \u55ef"}]<|im_end|>\n<|endoftext|>'
)
PLAN = MemoryPlan(encoder_chunk_s=7.0, prefill_tile=100, cache_tokens=64, cache_step=64)
FP32_BOUND = 1e-4
"""What fp32 may differ by, of logits and features of about 1: rounding of sums in another order."""
BF16_SHARE = 1.2
TOKENIZER_FILES = "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"


def clips(every: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Return clips at 24 kHz by name: a last hop that is cut, whole hops, then longer than the
    reference's chunk of 60 s, clipped, and quiet with peaks."""

    def read(name: str) -> np.ndarray[Any, Any]:
        folder = Path(moonshine_voice.__file__).parent / "assets"
        samples, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
        return np.asarray(soxr.resample(samples.mean(1), rate, RATE), np.float32)

    beckett, cities = read("beckett.wav"), read("two_cities.wav")
    odd = beckett[: round(5.8614 * RATE)]
    found = {"odd": odd, "odd+context": odd, "exact": beckett[: 60 * HOP]}
    if every:
        peaks = np.arange(len(beckett)) % 48_000 == 0
        found |= {
            "long": np.concatenate([cities, beckett, cities])[: round(83.307 * RATE)],
            "loud": np.clip(beckett * 40, -1, 1)[: 70 * HOP + 17],
            "peaks": np.where(peaks, 1.0, beckett * 0.02).astype(np.float32),
        }
    return found


def main() -> None:
    """Run the reference, load its checkpoint, print the differences."""
    parser = serving.argument_parser(__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        folder = Path(temporary)
        samples = clips(every=asked.dtype == "float32")
        np.savez(folder / "clips.npz", allow_pickle=False, **samples)
        request = {
            "dtype": asked.dtype, "vocabulary": VOCABULARY, "context": CONTEXT, "answer": ANSWER
        }  # fmt: skip
        (folder / "request.json").write_text(json.dumps(request), "utf-8")
        # The class wants a folder whose name says which tokenizer it is.
        named = shutil.copytree(asked.tokenizer, folder / "qwen")
        program = Path(__file__).with_name("microsoft_reference.py")
        subprocess.run([asked.python, program, asked.source, named, folder], check=True)
        for name in TOKENIZER_FILES:
            if (asked.tokenizer / name).exists():
                shutil.copy(asked.tokenizer / name, folder / "original")
        found = dict(np.load(folder / "reference.npz"))
        if asked.dtype == "float32":
            model = load(folder, Precision.FP32)
            right = min([compared(model, name, clip, found) for name, clip in samples.items()])
        else:
            right = min([*errors_in_bf16(folder, samples, found)])
    raise SystemExit(0 if right else 1)


def load(folder: Path, precision: Precision) -> vibevoice_model.VibeVoiceModel:
    """Return the reference's checkpoint, loaded in place."""
    device = torch.device("cpu")
    loaded = vibevoice_model.load_vibevoice(folder / "original", precision, device)
    return vibevoice_model.VibeVoiceModel(loaded)


def compared(
    model: vibevoice_model.VibeVoiceModel,
    name: str,
    clip: np.ndarray[Any, Any],
    reference: dict[str, np.ndarray[Any, Any]],
) -> bool:
    """Print what differs in fp32 and return whether it is rounding alone."""
    processor = model.loaded.processor
    extractor = processor.feature_extractor
    factor = loudness_factor(clip, extractor.target_dB_FS, extractor.eps)
    encoder = vibevoice_model.VibeVoiceAudioEncoder(model.loaded.model, extractor)
    gaps = {"audio": np.abs(clip * np.float32(factor) - reference[f"{name}/speech"]).max()}
    theirs = reference[f"{name}/features"]
    whole = len(clip) // HOP  # the frame of a cut hop: see docs/decisions/vibevoice-engine.md
    for chunk_s in (7.0, 60.0):
        own = torch.empty(token_count(len(clip)), theirs.shape[-1])
        encoder.encode(clip, chunk_s, own, lambda: None)
        gap = np.abs(own.numpy()[:whole] - theirs[:whole]).max()
        gaps[f"features, chunks of {chunk_s:g} s"] = gap
    context = CONTEXT if name.endswith("+context") else ""
    ids = vibevoice_model.build_prompt_ids(processor, len(clip), context)
    same_ids = ids.tolist() == reference[f"{name}/ids"].tolist()
    mine = logits_of(model, name, reference)
    likeliest = np.mean(mine.argmax(-1) == reference[f"{name}/logits"].argmax(-1))
    gaps["logits"] = np.abs(mine - reference[f"{name}/logits"]).max()
    generation = model.answers([clip], PLAN, lambda: None, model.decoding(PLAN), context)[0]
    wanted = reference[f"{name}/greedy"].tolist()
    said = [generation.generation.token() for _ in wanted]
    equal = next(
        (i for i, (a, b) in enumerate(zip(said, wanted, strict=True)) if a != b), len(said)
    )
    print(
        f"{name}: prompt ids {'the same' if same_ids else 'DIFFER'}; "
        + "; ".join(f"{what} {gap:.1e}" for what, gap in gaps.items())
        + f"; likeliest token the same at {likeliest:.1%}; first {equal} of {len(said)} tokens",
        flush=True,
    )
    return bool(same_ids and likeliest == 1 and np.max([*gaps.values()]) < FP32_BOUND)


def logits_of(
    model: vibevoice_model.VibeVoiceModel, name: str, reference: dict[str, np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """Return the logits ``(answer + 1, vocabulary)`` behind the reference's own features."""
    decoding = model.decoding(PLAN)
    ids = torch.from_numpy(reference[f"{name}/ids"])
    embeddings = decoding.decoder.embed(ids)
    first = int((ids == model.loaded.processor.audio_token_id).int().argmax())
    features = torch.from_numpy(reference[f"{name}/features"]).to(embeddings.dtype)
    embeddings[first : first + len(features)] = features
    cache = decoding.decoder.new_cache(PLAN, len(ids))
    rows = [decoding.prefill(embeddings, cache)[None]]
    answer, at, width = reference["answer"].tolist(), 0, 1
    while at < len(answer):
        continuation = PromptContinuation(answer[at : at + width], cache)
        rows.append(decoding.step([continuation])[0].clone())
        at, width = at + width, width % 12 + 1
    return torch.cat(rows).float().numpy()


def errors_in_bf16(
    folder: Path,
    samples: dict[str, np.ndarray[Any, Any]],
    reference: dict[str, np.ndarray[Any, Any]],
) -> Iterator[bool]:
    """Print both sides' distance to fp32 on the same weights; yield whether the engine's is as
    small."""
    exact, narrow = load(folder, Precision.FP32), load(folder, Precision.BF16)
    for name in samples:
        truth = logits_of(exact, name, reference)
        theirs = np.abs(reference[f"{name}/logits"] - truth).mean()
        mine = np.abs(logits_of(narrow, name, reference) - truth).mean()
        print(f"{name}: mean error of logits in bf16: engine {mine:.4f}, reference {theirs:.4f}")
        yield bool(mine <= BF16_SHARE * theirs)


if __name__ == "__main__":
    main()
