"""What is asked of the model: a text, and the sample of a voice that it is to be said with.

Voices are recordings that whoever runs the service has put into the folder `voices` of the
checkpoint. Nobody who asks can bring one: this engine clones no voice of theirs.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from sidecar import errors
from sidecar.audio.audio_decoder import decode_file
from sidecar.gpu_memory.speaking import LONGEST_SAMPLE_S, RATE, SAMPLE_CHUNK_S, SAMPLES_KEPT
from sidecar.tts.vibevoice_loading import Loaded
from sidecar.tts.vibevoice_tts import samples
from sidecar.tts.vibevoice_utterance import Chunks

log = logging.getLogger(__name__)

OWN = "own"
"""The voice where there is no sample: the model's, another one with every text."""
_NAME = re.compile(r"[\w][\w .-]{0,63}")


class Voices:
    """The samples beside a checkpoint, each taken in when it is first spoken with."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        found = samples(loaded.folder)
        self._files = {file.stem: file for file in found if _NAME.fullmatch(file.stem)}
        self.names = tuple(self._files)
        self._heard = lru_cache(maxsize=SAMPLES_KEPT)(self._hear)

    def heard(self, name: str) -> Tensor | None:
        """Embeddings ``(n, hidden)`` of a sample; None for the model's own voice.

        Raises:
            errors.VoiceUnknown: the sample cannot be read.
        """
        return self._heard(name) if name in self._files else None

    def _hear(self, name: str) -> Tensor:
        model = self._loaded.model
        try:
            sound = decode_file(self._files[name], RATE)[: round(LONGEST_SAMPLE_S * RATE)]
        except (errors.SidecarError, OSError) as error:
            log.error("the sample of the voice %s cannot be read: %s", name, error)
            raise errors.VoiceUnknown(
                f"The sample of the voice '{name}' cannot be read.", hint="Replace its file."
            ) from None
        inputs = self._loaded.processor.feature_extractor(
            sound, sampling_rate=RATE, return_tensors="pt"
        )
        return embeddings(model.model, inputs["input_values"].view(-1))


def embeddings(inner: Any, sound: Tensor) -> Tensor:
    """What the language model gets of a sample, ``(n, hidden)``: of ``sound``, ``(samples,)`` of
    whole frames, taken in a few seconds at a time.

    As `VibeVoiceModel.get_audio_features`, which takes them all at once, and without its noise: a
    voice is to sound the same every time.
    """
    like = inner.multi_modal_projector.linear_1.weight
    chunks = Chunks(partial(inner.audio_tower.encode, sample=False))
    parts = sound.split(round(SAMPLE_CHUNK_S * RATE))
    latents = torch.cat([chunks.next(part.to(like)[None, None]).latents[0] for part in parts])
    scaled = (latents + inner.latent_bias_factor) * inner.latent_scaling_factor
    heard: Tensor = inner.multi_modal_projector(scaled)
    return heard


def request(processor: Any, words: str, audio_tokens: int) -> list[int]:
    """The ids of a request; ``audio_tokens`` of them stand for the sample."""
    parts: list[dict[str, str]] = [{"type": "text", "text": words}]
    if audio_tokens:
        parts.append({"type": "audio", "audio": ""})  # the template only says where it goes
    rendered = processor.apply_chat_template([{"role": "0", "content": parts}], tokenize=False)
    pad = processor.audio_token
    ids: list[int] = processor.tokenizer(
        rendered.replace(pad, pad * audio_tokens), add_special_tokens=False
    )["input_ids"]
    return ids


def sayable(text: str, tokenizer: Any) -> str:
    """The text without what the model takes for more than words: a line would be another speaker's,
    and some tokens begin and end sound."""
    marks = "|".join(map(re.escape, tokenizer.get_added_vocab()))
    return " ".join(re.sub(marks, " ", text).split()) if marks else " ".join(text.split())
