"""Memory against the plan, and CPU seconds beside torch's in one run, at the widths of 7B.

    python plugins/vibevoice-asr-ggml/measure.py [SECONDS] [FOLDER]

Weights are random, and of 28 layers there are two: a layer takes what it takes. One thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, VOCABULARY, TOKENS = 2, 1_024, 20


def run(file: str, seconds: float) -> dict[str, float]:
    """Return what a process with the file takes."""
    from vibevoice_asr_ggml import SPEC
    from vibevoice_asr_ggml.files import ENCODER_CHUNK_S, PREFILL_TILE, footprint_of
    from vibevoice_asr_ggml.gguf_file import read_header
    from vibevoice_asr_ggml.library import Device, Library
    from vibevoice_asr_ggml.model import GgmlModel

    from sidecar.diarization.speaker_models import load_models
    from sidecar.interfaces.engine_interface import MemoryPlan, Precision

    load_models()
    before, header = peak_bytes(), read_header(Path(file))
    device = Device(Library(), "cpu", 1)
    *_, model = GgmlModel.load(header, SPEC, Precision.INT4, device)
    assert isinstance(model, GgmlModel)
    random = np.random.default_rng(0)
    samples = (random.standard_normal(round(seconds * 24_000)) * 0.05).astype(np.float32)
    plan = MemoryPlan(encoder_chunk_s=ENCODER_CHUNK_S, prefill_tile=PREFILL_TILE)
    marks = [time.process_time()]
    for _ in model.encoded(samples, plan.encoder_chunk_s, drawn=False):
        pass
    marks.append(time.process_time())
    answer = model.answers([samples], plan, lambda: None, None)[0].generation
    marks.append(time.process_time())
    for _ in range(TOKENS):
        answer.append([5])
    marks.append(time.process_time())
    encoders, both, tokens = (after - at for at, after in pairwise(marks))
    own, positions = footprint_of(header, Precision.INT4), len(model.prompt_ids(len(samples), ""))
    return {
        "bytes of the process before": before,
        "bytes of the process, highest": peak_bytes(),
        "bytes planned": own.loaded_bytes + own.window_bytes(seconds),
        "bytes of weights": own.weights_bytes,
        "bytes of results, counted": own.working_bytes,
        "bytes of results, by ggml": device.working_bytes,
        "encoders on ggml, CPU s for a second": encoders / seconds,
        "prefill, CPU s for a position and layer": (both - encoders) / positions / LAYERS,
        "token, CPU s for a layer": tokens / TOKENS / LAYERS,
    }


def peak_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_torch(seconds: float) -> dict[str, float]:
    """Return what the encoders take in torch."""
    import torch
    from transformers.models import vibevoice_acoustic_tokenizer as parts

    torch.set_num_threads(1)
    wave, found = torch.randn(1, 1, round(seconds * 24_000) // 3_200 * 3_200) * 0.05, {}
    for kind in (torch.float32, torch.bfloat16):
        for size in (64, 128):
            config = parts.VibeVoiceAcousticTokenizerEncoderConfig(hidden_size=size)
            encoder = parts.VibeVoiceAcousticTokenizerEncoderModel(config).to(kind).eval()
            with torch.inference_mode():
                begin = time.process_time()
                encoder(wave.to(kind))
                name = f"encoder of {size} in {kind}, CPU s for a second"
                found[name] = (time.process_time() - begin) / seconds
    return found


def layout() -> Any:
    """Return the layout of 7B with fewer layers and tokens."""
    from vibevoice_asr_ggml.layout import VibeVoiceLayout

    return VibeVoiceLayout(
        3584, LAYERS, 28, 4, 128, 18944, VOCABULARY, 1e6, {"at": 64, "st": 128}, 32,
        (2, 2, 4, 5, 5, 8), (3, 3, 3, 3, 3, 3, 8), 1e-6, 1e-5, 0.625, (-25.0, 1e-6),
        frozenset([0]), 1,
    )  # fmt: skip


def write(target: Path) -> None:
    """Write a file in 4 bit with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from vibevoice_asr_ggml.converter import encoded, kind_of, write_gguf
    from vibevoice_asr_ggml.gguf_file import KINDS
    from vibevoice_asr_ggml.layout import AUDIO_MARK, CONTEXT_PROMPT, PROMPT, TOKENIZER
    from vibevoice_asr_ggml.library import Library

    library, shape = Library(), layout()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({one: at + 2 for at, one in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(["<|audio|>"])
    audio = tokenizer.token_to_id("<|audio|>")
    fields = {
        "general.architecture": "vibevoice-asr", TOKENIZER: tokenizer.to_str(),
        PROMPT: f"Hear: {AUDIO_MARK}", CONTEXT_PROMPT: f"Hear: {AUDIO_MARK}",
        "vibevoice.eos_token_ids": [0], "vibevoice.audio_token_ids": [audio],
        "vibevoice.encoder_ratios": [*shape.ratios][::-1],
        "vibevoice.encoder_depths": [*shape.depths],
        "vibevoice.rope_theta": shape.rope_theta, "vibevoice.d_lm": shape.hidden,
        "vibevoice.n_lm_layers": shape.layers, "vibevoice.n_heads": shape.heads,
        "vibevoice.n_kv_heads": shape.kv_heads, "vibevoice.head_dim": shape.head_dim,
        "vibevoice.d_ffn": shape.mlp, "vibevoice.vocab_size": shape.vocabulary,
        "vibevoice.vae_dim_acoustic": 64, "vibevoice.vae_dim_semantic": 128,
        "vibevoice.n_filters": shape.filters,
    }  # fmt: skip
    listed = [
        (name, kind_of(name, [*sizes[::-1]], "q4_k"), sizes) for name, sizes in shape.tensors()
    ]

    def data() -> Iterator[Any]:
        random = np.random.default_rng(0)
        for _, kind, sizes in listed:
            rows = [*sizes[::-1]]
            values = random.standard_normal(rows, np.float32) * np.float32(sizes[0] ** -0.5)
            yield encoded(values, kind, rows, library)

    tensors = [(name, KINDS[kind][0], sizes) for name, kind, sizes in listed]
    write_gguf(target, fields, tensors, data())


def main() -> None:
    """Measure, each part in a process of its own."""
    if sys.argv[1:2] == ["--part"]:
        seconds = float(sys.argv[2])
        print(json.dumps(run(sys.argv[3], seconds) if sys.argv[3:] else run_torch(seconds)))
        return
    seconds_text = sys.argv[1] if len(sys.argv) > 1 else "8"
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        target = Path(folder) / "random-q4_k.gguf"
        write(target)
        for more in ([str(target)], []):
            command = [sys.executable, __file__, "--part", seconds_text, *more]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                print(f"{name:45} {value:,.4f}" if value < 1e3 else f"{name:45} {value:,}")


if __name__ == "__main__":
    main()
