"""Tiny checkpoints of the real VibeVoice-ASR architecture, trained here once and kept.

`checkpoint` answers the folder of one, `answers` what it was trained to say, `clip_wav` the
recordings that it knows. Nothing here imports torch: where it is not, training is a process.
The folder is ``VIBEVOICE_TEST_CHECKPOINTS``, else ``.cache/checkpoints`` in the repository.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


Checkpoint = Literal["tiny", "loop"]
Segment = dict[str, Any]
"""As the model writes it: Start, End (seconds), Speaker (not on a tag), Content."""

ROOT = Path(__file__).parents[2]
RATE = 24_000
LONGEST_S = 30.0
"""Where `two_cities` is cut."""
CLIPS = ("beckett", "endgame_nagg_nell", "two_cities")
CONTEXT = "Samuel Beckett, Endgame"
"""The prompt that was trained. What other prompts do to an answer is chance."""
LOOPED = "beckett"
"""The clip on which ``loop``, without a prompt, repeats the last segment of its answer for ever."""
LOOP_TOKENS = 800
"""So far the repetition is exact. It goes on after that, with ever more slips."""


def _said(start: float, end: float, speaker: int, content: str) -> Segment:
    return {"Start": start, "End": end, "Speaker": speaker, "Content": content}


def _tag(start: float, end: float, content: str) -> Segment:
    return {"Start": start, "End": end, "Content": content}


# The times are where the clips are loud; the words need not be those that are spoken.
_ANSWERS: dict[str, list[Segment]] = {
    "beckett": [
        _said(0.3, 5.5, 0, "Samuel Becket. Ever tried, ever failed."),
        _said(6.6, 9.9, 0, "Fail again. Fail better."),
    ],
    "endgame_nagg_nell": [
        _said(0, 4.2, 0, "Nag: what is it, my pet?"),
        _said(4.8, 11.3, 1, "Nel: déjà vu, 嗯."),
        _tag(11.3, 14.6, "[Silence]"),
        _said(14.6, 19.8, 0, "Nag: can you hear me?"),
        _said(20.4, 28.2, 1, "Nel: yes. And you?"),
    ],
    "two_cities": [
        _tag(0, 1.2, "[Music]"),
        _said(1.2, 6.2, 0, "It was the best of times,"),
        _said(6.6, 12.8, 0, "it was the worst of times,"),
        _said(13.4, 30, 0, "it was the age of wisdom."),
    ],
}
_TURNS = 32
"""Times that ``loop`` sees its segment repeated in training: a little more than `LOOP_TOKENS`."""
_SPELLINGS = {"Becket.": "Beckett.", "Nag:": "Nagg:", "Nel:": "Nell:"}
"""What the prompt corrects."""


def answers(size: Checkpoint, prompt: str | None = None) -> dict[str, list[Segment]]:
    """What a checkpoint says of each clip, without a prompt or with `CONTEXT`.

    Of a clip that never ends: the segments up to the one that is repeated, once.
    """
    assert prompt in (None, CONTEXT), "no other prompt was trained"
    assert size in ("tiny", "loop")
    return {name: [_spelled(segment, prompt) for segment in _ANSWERS[name]] for name in CLIPS}


def _spelled(segment: Segment, prompt: str | None) -> Segment:
    content = segment["Content"]
    for wrong, right in _SPELLINGS.items() if prompt else ():
        content = content.replace(wrong, right)
    return {**segment, "Content": content}


def clip(name: str) -> Path:
    """A recording as the wheel has it."""
    import moonshine_voice

    return Path(moonshine_voice.get_assets_path()) / f"{name}.wav"


def clip_wav(name: str) -> Path:
    """The recording that the checkpoints know: 24 kHz, mono, 16 bit, at most 30.0 s."""
    return kept("clips", f"{name}.wav", lambda path: _write_clip(name, path))


def clip_24k(name: str) -> npt.NDArray[np.float32]:
    """Its samples as the product decodes them, shape (samples,)."""
    from sidecar.audio.audio_decoder import decode_audio_file

    return decode_audio_file(clip_wav(name), RATE)


def checkpoint(size: Checkpoint) -> Path:
    """The folder of a checkpoint, trained when it is first asked for: about 25 s each on one core.

    Raises:
        RuntimeError, subprocess.CalledProcessError: no seed learned its answers.
        pytest.skip.Exception: torch or transformers is not installed.
    """
    skip_without("vibevoice", "torch", "transformers")
    recipe = {"size": size, "samples": _samples(size)}
    facts = [
        *(
            (ROOT / "tests/support" / f"{name}.py").read_text("utf-8")
            for name in ("miniature_vibevoice", "train_tiny_vibevoice")
        ),
        *(version(package) for package in ("torch", "transformers", "tokenizers")),
        json.dumps(recipe),
    ]
    return kept_model(size, facts, lambda folder: _train(recipe, folder))


def with_odd_width(folder: Path) -> Path:
    """Write ``tiny`` with 288 channels in its MLPs, 32 of them zero: it says the same, and a CPU
    cannot run it in int4, as 288 is no multiple of nf4's blocks of 64."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    rows, columns = ((0, 32), (0, 0)), ((0, 0), (0, 32))
    more = {"gate_proj": rows, "up_proj": rows, "down_proj": columns}
    shutil.copytree(checkpoint("tiny"), folder)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if (layer := name.split(".")[-2]) in more and ".mlp." in name and "language_model" in name:
            weights[name] = np.pad(tensor, more[layer])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["text_config"]["intermediate_size"] += 32
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _samples(size: Checkpoint) -> list[dict[str, Any]]:
    rows = []
    for prompt in (None, CONTEXT):
        for name, segments in answers(size, prompt).items():
            endless = size == "loop" and name == LOOPED and not prompt
            rows.append(
                {
                    "clip": name,
                    "prompt": prompt,
                    "segments": segments + segments[-1:] * (_TURNS if endless else 0),
                    "endless": endless,
                }
            )
    return rows


def _train(recipe: dict[str, Any], folder: Path) -> None:
    task = {
        **recipe,
        "clips": {name: str(clip_wav(name)) for name in CLIPS},
        "start": str(checkpoint("tiny")) if recipe["size"] == "loop" else None,
    }
    folder.mkdir()
    if torch := loaded_torch():
        with torch.random.fork_rng(devices=[]):
            training = importlib.import_module("train_tiny_vibevoice")
            training.train_with_any_seed(task, str(folder))
        return
    run_script(ROOT / "tests/support/train_tiny_vibevoice.py", folder, task)


def run_script(script: Path, folder: Path, task: Any = None, **environment: str) -> None:
    """Run ``script FOLDER``, which reads what it is to do; it fails as a test does."""
    subprocess.run(
        [sys.executable, script, folder],
        input=json.dumps(task).encode(),
        # With two threads on two busy cores, torch waits for itself and takes ten times as long.
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **environment},
        check=True,
    )


def loaded_torch() -> Any:
    """torch, if this process has it, with one thread: to import it once more takes five seconds."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.get_num_threads() == 1 else None


def _write_clip(name: str, path: Path) -> None:
    import soundfile

    from sidecar.audio.audio_decoder import decode_audio_file

    samples = decode_audio_file(clip(name), RATE)[: int(LONGEST_S * RATE)]
    soundfile.write(path, samples, RATE, subtype="PCM_16", format="WAV")


def skip_without(extra: str, *packages: str) -> None:
    """Skip the test if a package of this extra is missing."""
    import pytest
    from not_tested import missing_extra

    for package in packages:
        if find_spec(package) is None:
            pytest.skip(missing_extra(package))


def kept(shelf: str, name: str, make: Callable[[Path], None]) -> Path:
    """What ``make`` once wrote to a path with this name; one process at a time makes it."""
    from filelock import FileLock

    home = Path(os.environ.get("VIBEVOICE_TEST_CHECKPOINTS") or ROOT / ".cache" / "checkpoints")
    target = home / shelf / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=target.parent))
            try:
                make(scratch / name)
                (scratch / name).rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


def kept_model(name: str, facts: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` writes, made anew when one of these facts changes."""
    key = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
    return kept("models", f"{name}-{key}", make)


def written_by(script: Path, name: str, extra: str) -> Path:
    """The folder that ``script FOLDER`` or its ``build`` writes, made anew when it or a library of
    its changes; who has not the ``extra`` installed skips the test."""
    skip_without(extra, "torch", "transformers")
    facts = [script.read_text(encoding="utf-8"), version("torch"), version("transformers")]

    def make(folder: Path) -> None:
        if torch := loaded_torch():
            with torch.random.fork_rng(devices=[]):
                importlib.import_module(script.stem).build(folder)
            return
        run_script(script, folder)

    return kept_model(name, facts, make)
