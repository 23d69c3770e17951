"""A tiny VibeVoice-ASR-Streaming checkpoint in the released layout, trained here once and kept.

`checkpoint` is its folder, `texts` what it was trained to say of the windows of two recordings.
Nothing here imports torch.
"""

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tiny_vibevoice import CONTEXT, ROOT, clip, kept, kept_model, loaded_torch, skip_without

TEXTS = {
    "beckett": [
        "Speaker 0: Ever tried,",
        " ever failed. Fail again.",
        " Fail better.",
        " No matter.",
    ],
    "endgame_nagg_nell": [
        "Speaker 0: Nag: what is it,",
        " my pet?\nSpeaker 1: Nel:",
        " déjà vu,",
        " 嗯. Time",
        " to go.",
        "\nSpeaker 0: Can you",
    ],
}
"""What it says of each window of a recording, whatever came before; of the second recording the
first 17.6 s are known. The words need not be those that are spoken. No window is without words, so
it has some for other audio, too."""
_SPELLINGS = {"Nag:": "Nagg:", "Nel:": "Nell:"}
"""What `tiny_vibevoice.CONTEXT` as a prompt corrects."""
CHUNK_S = 70_400 / 24_000


def named(text: str) -> str:
    """A text as it is with the names of `tiny_vibevoice.CONTEXT`."""
    for wrong, right in _SPELLINGS.items():
        text = text.replace(wrong, right)
    return text


def clip_16k(name: str) -> Path:
    """A recording at 16 kHz, the rate of live audio; of the second one what is known."""
    return kept("clips-16k", f"{name}.wav", lambda path: _write_clip(name, path))


def _write_clip(name: str, path: Path) -> None:
    import soundfile

    from sidecar.audio.audio_decoder import decode_audio_file

    samples = decode_audio_file(clip(name), 16_000)[: round(len(TEXTS[name]) * CHUNK_S * 16_000)]
    soundfile.write(path, samples, 16_000, subtype="PCM_16", format="WAV")


def checkpoint() -> Path:
    """The folder of the checkpoint, trained when it is first asked for."""
    skip_without("vibevoice", "torch", "transformers")
    clips = [
        {"path": str(clip_16k(name)), "texts": texts, "named": [*map(named, texts)]}
        for name, texts in TEXTS.items()
    ]
    task = {"clips": clips, "context": CONTEXT}
    facts = [
        *(
            (ROOT / "tests/support" / f"{name}.py").read_text("utf-8")
            for name in ("miniature_vibevoice", "train_tiny_streaming")
        ),
        *(version(package) for package in ("torch", "transformers", "tokenizers")),
        json.dumps([TEXTS, _SPELLINGS]),
    ]
    return kept_model("streaming", facts, lambda folder: _train(task, folder))


def _train(task: dict[str, Any], folder: Path) -> None:
    if torch := loaded_torch():
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            importlib.import_module("train_tiny_streaming").train_with_any_seed(task, str(folder))
        return
    subprocess.run(
        [sys.executable, ROOT / "tests/support/train_tiny_streaming.py", folder],
        input=json.dumps(task).encode(),
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=True,
    )
