"""A text on its way to being heard: a frame of sound after the other, each as soon as it is made.

`generate` gives the sound of a whole text once the last of it is made. This does the same
arithmetic with the same parts and gives the same sound
(tests/tts/test_vibevoice_tts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sidecar.tts.vibevoice_denoiser import Check, Denoiser
from sidecar.tts.vibevoice_language import Branch, Language

GUIDANCE = 1.3
"""How far a frame is led away from what would be said without a text; transformers' documentation
has it so."""
STEPS = 10
"""From noise to a latent; transformers' own choice."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is to be said: the ``ids`` of the tokens, and what stands for the sound among them.

    ``heard`` ``(n, hidden)``: the embeddings of a sample of the voice, in the places of the ``n``
    audio tokens; None where there is none.
    """

    ids: Sequence[int]
    heard: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """``frames``: no more than so many, whatever the model wants. ``seed``: of the noise."""

    frames: int
    guidance: float = GUIDANCE
    seed: int = 0


class Speaker:
    """The parts of a model that speak, one text at a time; `torch.inference_mode` is the caller's.

    ``steps``: from noise to a latent.
    """

    def __init__(self, model: Any, steps: int = STEPS) -> None:
        config, inner = model.config, model.model
        self._begin, self._sound = config.audio_bos_token_id, config.audio_token_id
        ends = model.generation_config.eos_token_id
        ends = config.eos_token_id if ends is None else ends
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        words = {self._begin, self._sound, config.audio_eos_token_id, config.eos_token_id}
        self._language = Language(model, tuple(words))
        self._denoiser = Denoiser(inner.diffusion_head, steps)
        self._inner = inner
        self._channels: int = config.audio_config.hidden_size

    def frames(self, prompt: Prompt, manner: Manner, check: Check) -> Iterator[Tensor]:
        """The sound, each of shape ``(samples,)``, float; ``check`` may raise to stop it.

        What follows from a frame is worked out when the next one is asked for.
        """
        language = self._language
        noise = torch.Generator().manual_seed(manner.seed)
        asked = [self._embedded(prompt), *self._beginnings(prompt, manner)]
        branches = [language.branch(len(one) + manner.frames) for one in asked]
        sound, meaning = Chunks(self._inner.audio_tower.decode), Chunks(self._encode)
        for _ in range(manner.frames):
            outputs = language.run(list(zip(asked, branches, strict=True)), check)
            word = language.word(outputs[::2], manner.guidance)
            if word in self._ends:
                return
            embedding = written = language.embed([word])
            if word == self._sound:
                noisy = torch.randn(2, self._channels, generator=noise)[:1].to(outputs)
                latent = self._denoiser.latent(outputs[:2], noisy, manner.guidance, check)
                inner = self._inner
                scaled = latent / inner.latent_scaling_factor - inner.latent_bias_factor
                audio = sound.next(scaled[:, None]).audio
                yield audio.view(-1).float()
                check()
                features = meaning.next(audio).latents
                embedding = inner.multi_modal_projector(latent)
                embedding = embedding + inner.semantic_connector(features)[0]
            elif len(branches) > 1:
                _forget(branches[1], everything=word == self._begin)
            asked = [embedding, embedding, written][: len(branches)]

    def _beginnings(self, prompt: Prompt, manner: Manner) -> list[Tensor]:
        """Of the branches without a text: one hears the sound, from which a latent is led away; the
        other reads the words only, from which the next word is. None where nothing leads."""
        if manner.guidance == 1:
            return []
        return [self._language.embed([self._begin]), self._language.embed(prompt.ids[-1:])]

    def _embedded(self, prompt: Prompt) -> Tensor:
        embedded = self._language.embed(prompt.ids)
        if prompt.heard is not None:
            places = torch.tensor(prompt.ids).to(embedded.device) == self._sound
            embedded[places] = prompt.heard.to(embedded)
        return embedded

    def _encode(self, audio: Tensor, **cache: Any) -> Any:
        return self._inner.semantic_tokenizer_encoder(audio, **cache)


def _forget(branch: Branch, *, everything: bool) -> None:
    """A branch that hears the sound goes on where a frame is made, and takes in nothing else; where
    sound begins anew, it knows nothing of what was before."""
    branch.length = 0 if everything else branch.length - 1


class Chunks:
    """A part of the codec that goes on where it was: it keeps the ends of what its convolutions
    have seen."""

    def __init__(self, part: Callable[..., Any]) -> None:
        self._part = part
        self._cache: Any = None

    def next(self, chunk: Tensor) -> Any:
        """Its output of the next frame."""
        output = self._part(chunk, padding_cache=self._cache, use_cache=True)
        self._cache = output.padding_cache
        return output
