"""The request to the model: the checkpoint's own chat template around the audio's tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from sidecar.engines.vibevoice.listening import SAMPLE_RATE, token_count


def request_ids(processor: Any, samples: int, context: str) -> Tensor:
    """Token ids ``(n,)`` of the prompt for a recording of ``samples`` at 24 kHz.

    ``context`` is the client's text. What in it looks like one of the model's own marks is taken
    apart, or a client could end its turn and speak as the model.
    """
    audio = np.zeros(1, np.float32)
    text = processor.apply_transcription_request(
        audio=audio, prompt=plain(processor, context) or None, tokenize=False
    )[0]
    text = text.replace(processor.audio_duration_token, f"{samples / SAMPLE_RATE:.2f}")
    text = text.replace(processor.audio_token, processor.audio_token * token_count(samples))
    ids: Tensor = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")[
        "input_ids"
    ][0]
    return ids


def plain(processor: Any, context: str) -> str:
    """``context`` without anything that the tokenizer or the template would take for a mark."""
    marks = {*processor.tokenizer.all_special_tokens, processor.audio_duration_token}
    marks |= set(processor.tokenizer.get_added_vocab())
    before = None
    while before != context:  # taking one away may put another together
        before = context
        for mark in marks:
            context = context.replace(mark, " ")
    return " ".join(context.split())
