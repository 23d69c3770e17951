"""Architectures that the engine runs: what each can, and the check of a checkpoint.

This module reads `config.json` and the headers of the weights. It imports nothing heavy, because
the process that answers requests uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.checkpoints import checkpoint
from sidecar.interfaces.engine_interface import EngineSpec, Precision
from sidecar.plugins.transformers_asr import SPEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Architecture of a checkpoint.

    ``model``: its class in transformers. ``recognizer``: the name of ours for it.
    ``languages``: empty if the checkpoint's are not known from its architecture. ``longest_s``: of
    an utterance, in seconds. ``words``: it says when each word was spoken. ``prompt``: it takes a
    context. ``told``: it can be told the language. ``translates``: into English. ``streams``: live
    speech is recognized chunk by chunk, and nothing of it again. ``packages``: those that it needs
    beside torch and transformers.
    """

    title: str
    model: str
    recognizer: str
    languages: tuple[str, ...] = ()
    longest_s: float = 30.0
    words: bool = False
    prompt: bool = False
    told: bool = False
    translates: bool = False
    streams: bool = False
    packages: tuple[str, ...] = ()


DOWNLOAD_COMMAND = "hf download OWNER/NAME --local-dir FOLDER"
REMEDY = f"Set VIBEVOICE_MODEL_PATH to its folder; '{DOWNLOAD_COMMAND}' downloads one."

CANARY = (
    *("bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "hr", "hu", "it", "lt", "lv"),
    *("mt", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "uk"),
)
COHERE = ("ar", "de", "el", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "vi", "zh")
QWEN = (
    *("ar", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "hi", "hu", "id", "it"),
    *("ja", "ko", "mk", "ms", "nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "vi", "yue", "zh"),
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "canary": Architecture(
        title="Canary",
        model="CanaryForConditionalGeneration",
        recognizer="CanaryRecognizer",
        told=True,
        languages=CANARY,
        translates=True,
    ),
    "cohere_asr": Architecture(
        title="Cohere Transcribe",
        model="CohereAsrForConditionalGeneration",
        recognizer="CohereRecognizer",
        told=True,
        languages=COHERE,
    ),
    "granite_speech": Architecture(
        title="Granite Speech",
        model="GraniteSpeechForConditionalGeneration",
        recognizer="GraniteRecognizer",
        translates=True,
        packages=("torchaudio", "peft"),
    ),
    "kyutai_speech_to_text": Architecture(
        title="Kyutai STT",
        model="KyutaiSpeechToTextForConditionalGeneration",
        recognizer="KyutaiRecognizer",
        words=True,
    ),
    "moonshine": Architecture(
        title="Moonshine",
        model="MoonshineForConditionalGeneration",
        recognizer="TextRecognizer",
        longest_s=12.0,
    ),
    "moonshine_streaming": Architecture(
        title="Moonshine streaming",
        model="MoonshineStreamingForConditionalGeneration",
        recognizer="TextRecognizer",
        longest_s=12.0,
    ),
    "nemotron3_5_asr": Architecture(
        title="Nemotron 3.5 ASR",
        model="Nemotron3_5AsrForRNNT",
        recognizer="NemotronRecognizer",
        told=True,
        words=True,
        streams=True,
    ),
    "nemotron_asr_streaming": Architecture(
        title="Nemotron Speech streaming",
        model="NemotronAsrStreamingForRNNT",
        recognizer="TransducerRecognizer",
        words=True,
        streams=True,
    ),
    "parakeet_ctc": Architecture(
        title="Parakeet CTC",
        model="ParakeetForCTC",
        recognizer="CtcRecognizer",
        words=True,
    ),
    "parakeet_rnnt": Architecture(
        title="Parakeet RNN-T",
        model="ParakeetForRNNT",
        recognizer="TransducerRecognizer",
        words=True,
    ),
    "parakeet_tdt": Architecture(
        title="Parakeet TDT",
        model="ParakeetForTDT",
        recognizer="TransducerRecognizer",
        words=True,
    ),
    "qwen3_asr": Architecture(
        title="Qwen3-ASR",
        model="Qwen3ASRForConditionalGeneration",
        recognizer="QwenRecognizer",
        told=True,
        languages=QWEN,
        prompt=True,
    ),
}
"""Architectures by the `model_type` of `config.json`."""


def find_checkpoint(model_path: Path | None) -> checkpoint.ModelCheckpoint:
    """Return the checkpoint in ``model_path``: its folder, or that of its repository in the cache.

    Raises:
        errors.BadCheckpoint: there is none, or it is not usable.
    """
    if model_path is None:
        raise errors.CheckpointNotFound(
            f"The engine '{SPEC.name}' needs the folder of a model.", hint=REMEDY
        )
    what = "model of transformers"
    return checkpoint.find_model(model_path, lambda _: (), read_checkpoint, what, REMEDY)


def read_checkpoint(folder: Path) -> checkpoint.ModelCheckpoint:
    """Check a folder without loading it, and return its checkpoint.

    Raises:
        errors.BadCheckpoint: there is none, it is incomplete, unsafe, or of another architecture.
    """
    with checkpoint.disk_errors_as_ours(), checkpoint.repaired_by(DOWNLOAD_COMMAND):
        config = checkpoint.read_config(folder, REMEDY)
        checkpoint.refuse_code(folder, config)
        if str(config.get("model_type")) not in ARCHITECTURES:
            known = ", ".join(sorted(ARCHITECTURES))
            raise errors.CheckpointUnsupported(
                f"The engine '{SPEC.name}' does not run the model_type "
                f"{str(config.get('model_type'))[:60]!r} of {folder}.",
                hint=f"It runs: {known}.",
            )
        if config.get("quantization_config") is not None:
            raise errors.CheckpointUnsupported(
                f"{folder} has quantized weights, which the engine '{SPEC.name}' does not run.",
                hint="Get the model that was not quantized.",
            )
        weights = checkpoint.weight_files(folder)
        if (folder / checkpoint.ADAPTER_FILE).is_file():  # else its pickled weights would be read
            checkpoint.require_files(folder, ["adapter_model.safetensors"])
        checkpoint.require_processor(folder)
        return checkpoint.ModelCheckpoint.of(folder, config, weights)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a checkpoint that was read."""
    return ARCHITECTURES[config["model_type"]]


def require_packages(config: Mapping[str, Any]) -> None:
    """Raise `errors.EngineUnavailable` if this installation lacks packages of an architecture."""
    found = architecture_of(config)
    if lacking := [package for package in found.packages if find_spec(package) is None]:
        raise errors.EngineUnavailable(
            f"{found.title} needs packages that are not installed: {', '.join(lacking)}.",
            hint=f"pip install {' '.join(lacking)}",
        )


def spec_of(config: Mapping[str, Any], *, on_gpu: bool = False) -> EngineSpec:
    """Return the spec of the engine with a checkpoint. On a GPU half the width is the default; a
    CPU computes faster in fp32."""
    found = architecture_of(config)
    narrow = Precision.BF16, Precision.FP16, Precision.FP32
    return replace(
        SPEC,
        title=f"{found.title} (transformers)",
        precisions=narrow if on_gpu else SPEC.precisions,
        languages=found.languages,
        words=found.words,
        steerable=found.prompt,
        prompt_only=found.prompt,
        translates=found.translates,
    )
