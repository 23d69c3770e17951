"""Loading of a checkpoint with the classes of its architecture."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from sidecar import errors
from sidecar.checkpoints.checkpoint import read_config
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.plugins.transformers_asr.architectures import architecture_of
from sidecar.plugins.transformers_asr.frame_recognizers import (
    CtcRecognizer,
    NemotronRecognizer,
    TransducerRecognizer,
)
from sidecar.plugins.transformers_asr.kyutai_recognizer import KyutaiRecognizer
from sidecar.plugins.transformers_asr.prompted_recognizers import (
    CanaryRecognizer,
    CohereRecognizer,
    GraniteRecognizer,
    QwenRecognizer,
)
from sidecar.plugins.transformers_asr.recognizer import Recognizer
from sidecar.plugins.transformers_asr.text_recognizers import TextRecognizer

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
RECOGNIZERS: dict[str, type[Recognizer]] = {
    one.__name__: one
    for one in (
        CanaryRecognizer,
        CohereRecognizer,
        CtcRecognizer,
        GraniteRecognizer,
        KyutaiRecognizer,
        NemotronRecognizer,
        QwenRecognizer,
        TextRecognizer,
        TransducerRecognizer,
    )
}


def load_recognizer(options: LoadOptions) -> tuple[Recognizer, Precision]:
    """Load the checkpoint onto its device; return it with its precision.

    Raises:
        errors.ModelLoadFailed: it is invalid, or does not fit.
    """
    assert options.checkpoint is not None
    if options.device == "cuda" and not torch.cuda.is_available():
        raise errors.ModelLoadFailed("torch finds no NVIDIA GPU.")
    place = "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"
    usual = Precision.BF16 if place == "cuda" else Precision.FP32
    precision = options.precision if options.precision in DTYPES else usual
    folder = Path(options.checkpoint)
    architecture = architecture_of(read_config(folder, ""))
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        model_class = getattr(transformers, architecture.model)
        model = model_class.from_pretrained(
            folder, dtype=DTYPES[precision], use_safetensors=True, **local
        )
        processor = transformers.AutoProcessor.from_pretrained(folder, **local)
        model.eval().to(place)
        recognizer = RECOGNIZERS[architecture.recognizer](model, processor, architecture)
    except (RuntimeError, ValueError, OSError, ImportError, AttributeError) as error:
        raise errors.ModelLoadFailed(
            f"The {architecture.title} model cannot be loaded: {errors.cause_of(error)}."
        ) from None
    return recognizer, precision
