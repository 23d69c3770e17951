"""Loading of a checkpoint with the classes of its architecture."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import transformers

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.checkpoints.checkpoint import read_config
from sidecar.engines.torch_inference import device_name, silence_libraries
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
    abbreviate_names,
)
from sidecar.plugins.transformers_asr.architectures import Architecture, architecture_of
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

log = logging.getLogger(__name__)

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
    device = device_name(options.device)
    usual = Precision.BF16 if device == "cuda" else Precision.FP32
    precision = options.precision if options.precision in DTYPES else usual
    folder = Path(options.checkpoint)
    architecture = architecture_of(read_config(folder, ""))
    try:
        recognizer = _loaded(folder, architecture, DTYPES[precision], device)
    except (torch.OutOfMemoryError, errors.GpuOutOfMemory):
        raise errors.ModelLoadFailed.out_of_memory(precision) from None
    except (errors.SidecarError, MemoryError):
        raise
    except Exception as error:  # the libraries raise anything: the checkpoint is invalid
        log.exception("the checkpoint could not be loaded")
        reason = errors.cause_of(error).replace(str(folder), folder.name)
        raise errors.ModelLoadFailed(
            f"The {architecture.title} model cannot be loaded: {reason or type(error).__name__}."
        ) from None
    return recognizer, precision


def _loaded(
    folder: Path, architecture: Architecture, dtype: torch.dtype, device: str
) -> Recognizer:
    """Load the checkpoint, and recognize a second of noise on trial.

    Raises:
        errors.ModelLoadFailed: weights are missing.
        errors.GpuOutOfMemory, errors.DeviceLost: see `torch_inference.inference`.
    """
    silence_libraries()
    local = {"local_files_only": True, "trust_remote_code": False}
    model, found = getattr(transformers, architecture.model).from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
    )
    if missing := found["missing_keys"]:
        raise errors.ModelLoadFailed(
            f"The {architecture.title} model cannot be loaded: it lacks the weights "
            f"{abbreviate_names(sorted(missing), 3)}.",
            hint="Download it again.",
        )
    processor = transformers.AutoProcessor.from_pretrained(folder, **local)
    model.eval().to(device)
    recognizer = RECOGNIZERS[architecture.recognizer](model, processor, architecture)
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    recognizer.recognize(noise, TranscribeOptions(), lambda: False)
    return recognizer
