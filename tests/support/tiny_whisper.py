"""A tiny real Whisper in CTranslate2's layout, trained here once and kept.

`model` answers its folder, `ADMIN_ERRORS` what it knows: of each clip the language, and who says
what when. Nothing here imports torch: `train_tiny_whisper` runs in a process of its own.
"""

import json
import random
import struct
from importlib.metadata import version
from pathlib import Path

from tiny_vibevoice import ROOT, clip, kept_model, run_script, skip_without

PLAY, PROSE = "endgame_nagg_nell", "beckett"
LANGUAGES = {PLAY: "en", PROSE: "de"}
Said = tuple[float, float, str]
SAID: dict[str, list[Said]] = {
    PLAY: [
        (0.0, 0.95, "My pet?"),
        (2.45, 3.35, "What is it?"),
        (4.82, 8.07, "Can you hear me?"),
        (8.7, 11.36, "Yes. And you?"),
        (11.95, 14.05, "Yes. Our hearing is good."),
        (14.62, 16.97, "Our what?"),
        (17.57, 18.84, "Our hearing."),
        (20.37, 21.88, "Not now."),
        (23.72, 27.46, "Have you anything else to say?"),
    ],
    PROSE: [
        (0.3, 4.4, "Immer versucht, immer gescheitert."),
        (4.6, 8.8, "Wieder scheitern, besser scheitern."),
    ],
}
"""Times are where the clips are loud; the words need not be those that are spoken. A turn of a
second without any would be heard once more."""


def text(name: str) -> str:
    """All that is said in a clip."""
    return " ".join(words for _, _, words in SAID[name])


def needed() -> None:
    """Skip, loudly, where the extra is not installed."""
    skip_without("whisper", "faster_whisper", "ctranslate2")


def write_like(
    folder: Path, words: int = 51_865, floats: int = 100_000, layers: tuple[int, int] = (6, 6)
) -> Path:
    """A folder like that of a model, with tensors that mean nothing: one, and of each of so many
    ``layers`` of the encoder and the decoder."""
    folder.mkdir(parents=True)
    named = zip(("encoder", "decoder"), layers, strict=True)
    names = [f"{part}/layer_{at}/weight" for part, count in named for at in range(count)]
    whole = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + struct.pack("<II", 3, 1 + len(names))
    for name, count in {**dict.fromkeys(names, 2), "weight": floats}.items():
        data = random.Random(0).randbytes(4 * count)
        whole += struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
        whole += struct.pack("<BIBI", 1, count, 0, len(data)) + data
    (folder / "model.bin").write_bytes(whole + struct.pack("<I", 0))
    for name, content in {
        "config.json": {"suppress_ids": [], "alignment_heads": []},
        "vocabulary.json": [str(word) for word in range(words)],
        "tokenizer.json": {"version": "1.0"},
        "preprocessor_config.json": {"feature_size": 80},
    }.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    (folder / "README.md").write_text("not fetched", "utf-8")
    return folder


def model() -> Path:
    """The folder of the model, trained when it is first asked for: about 20 s on one core.

    Raises:
        subprocess.CalledProcessError: no seed learned the clips; the training says why.
    """
    needed()
    skip_without("vibevoice", "torch", "transformers")  # train it
    task = [
        {"path": str(clip(name)), "language": LANGUAGES[name], "said": SAID[name]} for name in SAID
    ]
    script = ROOT / "tests/support/train_tiny_whisper.py"
    facts = [
        script.read_text("utf-8"),
        *(version(package) for package in ("torch", "transformers", "ctranslate2")),
        json.dumps(task),
    ]
    # Otherwise glibc gives pages back and fetches them again at every step.
    keeps = {
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    }

    def train(folder: Path) -> None:
        run_script(script, folder, task, **keeps)

    return kept_model("whisper", facts, train)
