"""A loaded checkpoint as one thing: hear a window of audio, answer it, mind the memory plan."""

from __future__ import annotations

import dataclasses
import logging
from math import ceil
from typing import Any

import torch

from sidecar.audio import Block
from sidecar.engines.vibevoice.answer import Answer
from sidecar.engines.vibevoice.decoder import Check, Decoder
from sidecar.engines.vibevoice.decoding import Decoding
from sidecar.engines.vibevoice.frame import Frame
from sidecar.engines.vibevoice.generation import Generation
from sidecar.engines.vibevoice.listening import SAMPLE_RATE, AudioEncoder, token_count
from sidecar.engines.vibevoice.loading import Loaded
from sidecar.engines.vibevoice.prompt import request_ids
from sidecar.interfaces.engine import AUTO, MemoryPlan, Precision, TranscribeOptions

log = logging.getLogger(__name__)

TOKENS_PER_SECOND, FEWEST_TOKENS = 12, 256
"""An answer may have this many tokens; the model page's dense sample has 8.5 a second."""


class NotFinite(Exception):
    """The first logits hold a NaN or an infinity: 16-bit floats overflowed (QwenLM/Qwen3#761)."""


class Model:
    """One request at a time; `torch.inference_mode` is the caller's."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._encoder = AudioEncoder(loaded.model, loaded.processor.feature_extractor)
        ends = loaded.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        self.frame = frame_of(loaded.processor.tokenizer.backend_tokenizer)

    def decoding(self, plan: MemoryPlan) -> Decoding:
        """Passes of the decoder for one answer or several."""
        return Decoding(Decoder(self.loaded.model), plan)

    def answer(
        self, samples: Block, options: TranscribeOptions, check: Check, decoding: Decoding
    ) -> Answer:
        """Hear a window (24 kHz mono) and begin to answer; ``check`` may raise to stop it.

        Raises:
            NotFinite: the weights' type is too narrow for this checkpoint.
            torch.OutOfMemoryError: the plan took more than there is.
        """
        plan, processor = options.memory, self.loaded.processor
        self._place(plan)
        decoder = decoding.decoder
        ids = request_ids(processor, len(samples), context(options))
        embeddings = decoder.embed(ids)
        first = int((ids == processor.audio_token_id).int().argmax())
        heard = embeddings[first : first + token_count(len(samples))]
        self._encoder.encode(samples, plan.encoder_chunk_s, heard, check)
        if plan.evict_encoders:
            self._move_encoders(torch.device("cpu"))
        cache = decoder.new_cache(plan, len(ids))
        logits = decoding.prefill(embeddings, cache, check)
        if not bool(torch.isfinite(logits).all()):
            raise NotFinite
        generation = Generation(decoding, cache, logits, self.frame)
        tokenizer = processor.tokenizer.backend_tokenizer
        return Answer(generation, tokenizer, self._ends, len(samples) / SAMPLE_RATE)

    def widen(self) -> None:
        """From fp16 to bf16, which has the range of fp32; the weights stay what they are."""
        self.loaded.model.to(torch.bfloat16)
        self.loaded = dataclasses.replace(self.loaded, precision=Precision.BF16)

    def _place(self, plan: MemoryPlan) -> None:
        """The token table where the plan wants it, then the encoders on the device.

        In this order: what leaves makes room for what comes. What is in its place stays there.
        """
        table = self.loaded.model.get_input_embeddings()
        table.to("cpu" if plan.host_token_table else self.loaded.device)
        self._move_encoders(self.loaded.device)

    def _move_encoders(self, device: torch.device) -> None:
        inner = self.loaded.model.model
        inner.acoustic_tokenizer_encoder.to(device)
        inner.semantic_tokenizer_encoder.to(device)
        inner.multi_modal_projector.to(device)


def frame_of(tokenizer: Any) -> Frame | None:
    """What a checkpoint's tokenizer makes of the format; None, and no proposals, if it differs."""
    try:
        return Frame(tokenizer)
    except ValueError as error:
        log.info("every token is decoded on its own: %s", error)
        return None


def context(options: TranscribeOptions) -> str:
    """What the model is told beside the audio: the client's words, the language, how many speak."""
    parts = [options.prompt] if options.prompt else []
    if options.language != AUTO:
        parts.append(f"Language: {options.language}")
    if options.num_speakers is not None:
        parts.append(f"Speakers: {options.num_speakers}")
    return ". ".join(parts)


def token_limit(seconds: float, options: TranscribeOptions) -> int:
    """The longest answer to so much audio."""
    return options.max_tokens or ceil(TOKENS_PER_SECOND * seconds) + FEWEST_TOKENS
