"""A checkpoint's folder → the model on its device; safetensors only, none of its code."""

from __future__ import annotations

from pathlib import Path

from sidecar import errors
from sidecar.engines.voxtral import tekken
from sidecar.engines.voxtral.stream import Voxtral


def load(folder: Path, device: str, dtype: str) -> Voxtral:
    """Read it. ``device``: 'auto', 'cuda' or 'cpu'; ``dtype`` as torch calls it.

    Raises:
        errors.ModelLoadFailed: it is no good, or does not fit.
    """
    import torch
    from transformers import (
        VoxtralRealtimeFeatureExtractor,
        VoxtralRealtimeForConditionalGeneration,
    )

    if device == "cuda" and not torch.cuda.is_available():
        raise errors.ModelLoadFailed("torch finds no NVIDIA GPU.")
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    text = tekken.read(folder)
    try:
        model = VoxtralRealtimeForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
        extractor = VoxtralRealtimeFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model.eval().to(place)
    except (RuntimeError, ValueError, OSError) as error:
        raise errors.ModelLoadFailed(f"The Voxtral model does not load: {error}.") from None
    return Voxtral(model, extractor, text)
