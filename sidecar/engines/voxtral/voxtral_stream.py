"""Voxtral Realtime streams: model loading, tokenizer, steps.

`generate` keeps on the model where a stream ends, and blocks its thread until more sound comes: so
it hears one. Here the state of a stream is its three caches and its last token, and each step is
one call of the model for 80 ms of sound. The spectra look 12.5 ms beyond what a step is for.
"""

from __future__ import annotations

import base64
import codecs
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sidecar import errors
from sidecar.audio import Block

if TYPE_CHECKING:
    import torch


TEKKEN_FILE = "tekken.json"
SPECIAL_TOKENS = 1000
"""Tokens before those of text, where the file does not say it."""
BUFFER_TOKENS = 10
"""Silence behind a stream in which the longest word is written out (mistral-common's
OFFLINE_STREAMING_BUFFER_TOKENS)."""
BEGIN, PAD = "<s>", "[STREAMING_PAD]"


@dataclass(frozen=True, slots=True)
class TekkenTokenizer:
    """``texts``: the bytes of each token behind the ``special`` first ones. ``step``: samples that
    a token is written for. ``left``: tokens of silence before a stream. ``delay``: tokens that the
    words are behind, where nobody asks for another."""

    texts: tuple[bytes, ...]
    special: int
    begin: int
    pad: int
    step: int
    left: int
    delay: int

    def prompt(self, delay: int) -> list[int]:
        """Return the tokens at the begin of a stream."""
        return [self.begin, *[self.pad] * (self.left + delay)]

    def right(self, delay: int) -> int:
        """Tokens of silence behind a stream, in which its last words are written."""
        return delay + 1 + BUFFER_TOKENS

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; a character whose last bytes have not come is left out."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        known = (at - self.special for at in tokens)
        return decoder.decode(b"".join(self.texts[at] for at in known if 0 <= at < len(self.texts)))


def read_tekken(folder: Path) -> TekkenTokenizer:
    """The one of a checkpoint.

    Raises:
        errors.ModelLoadFailed: it is not there, or no good.
    """
    try:
        return _parse_tekken(json.loads((folder / TEKKEN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ModelLoadFailed(
            f"{TEKKEN_FILE} of the Voxtral model cannot be read: {type(error).__name__}."
        ) from None


def _parse_tekken(said: dict[str, Any]) -> TekkenTokenizer:
    special = int(said["config"].get("default_num_special_tokens", SPECIAL_TOKENS))
    size = int(said["config"]["default_vocab_size"])
    rows = sorted(said["vocab"], key=lambda row: row["rank"])[: size - special]
    named = {row["token_str"]: int(row["rank"]) for row in said["special_tokens"]}
    audio = said["audio"]
    step = int(audio["sampling_rate"] / audio["frame_rate"])
    return TekkenTokenizer(
        tuple(base64.b64decode(row["token_bytes"]) for row in rows),
        special,
        named[BEGIN],
        named[PAD],
        step,
        int(audio["streaming_n_left_pad_tokens"]),
        math.ceil(audio["transcription_delay_ms"] / 1000 * audio["sampling_rate"] / step),
    )


SAMPLE_RATE = 16_000
HOP_SAMPLES, WINDOW_SAMPLES = 160, 400
"""Samples from one spectrum to the next, and under one."""


class VoxtralModel:
    """A loaded model, with what it needs around it; several threads may step streams of it."""

    def __init__(self, model: Any, extractor: Any, tekken: TekkenTokenizer) -> None:
        self.model, self.tekken = model, tekken
        self._extractor = extractor

    def spectra(self, samples: Block, *, whole: bool) -> torch.Tensor:
        """Log mel energies, shape (1, bands, frames). ``whole``: frames lie around their samples,
        from the first on; else behind the first half window."""
        found = self._extractor(
            samples, sampling_rate=SAMPLE_RATE, center=whole, padding=True, return_tensors="pt"
        )
        features: torch.Tensor = found["input_features"]
        return features.to(self.model.device, self.model.dtype)


class VoxtralStream:
    """One stretch of speech as it comes. ``delay``: tokens that its words are behind its sound."""

    def __init__(self, voxtral: VoxtralModel, delay: int) -> None:
        self._voxtral, self._delay = voxtral, delay
        self.fed = 0
        """Samples that came."""
        self.tokens: list[int] = []
        """Generated tokens."""
        self.ended = False
        self._whole = True
        self._step = voxtral.tekken.step
        self._caches: dict[str, Any] = {}
        self._rest: Block = np.zeros(voxtral.tekken.left * self._step, np.float32)

    @property
    def text(self) -> str:
        """Return the text so far."""
        return self._voxtral.tekken.text(self.tokens)

    def goes_on(self, samples: int) -> bool:
        """Return whether so many samples are those that it heard, and perhaps more; else the
        segment has to be recognized anew: audio cannot be taken back, and a failed step is of no
        use."""
        return not self.ended and self._whole and self.fed <= samples

    def feed(self, samples: Block) -> None:
        """More sound, shape (samples,); steps as far as it goes."""
        self.fed += len(samples)
        self._go(samples)

    def end(self) -> None:
        """No more of it: what is behind comes out in the silence that is added."""
        if self.ended:
            return
        self.ended = True
        step, tekken = self._step, self._voxtral.tekken
        tokens = -(-self.fed // step) + tekken.right(self._delay)
        most = tekken.left + tokens - len(tekken.prompt(self._delay))
        silence = tokens * step - self.fed + WINDOW_SAMPLES
        self._go(np.zeros(silence, np.float32), most)

    def _go(self, samples: Block, most: int | None = None) -> None:
        self._rest = np.concatenate([self._rest, samples])
        self._whole = False
        self._steps(most)
        self._whole = True

    def _steps(self, most: int | None) -> None:
        while most is None or len(self.tokens) < most:
            first = not self.tokens
            prompt = len(self._voxtral.tekken.prompt(self._delay))
            needed = (
                (prompt * self._step - HOP_SAMPLES + WINDOW_SAMPLES // 2)
                if first
                else self._step + WINDOW_SAMPLES
            )
            if len(self._rest) < needed:
                return
            spectra = self._voxtral.spectra(self._rest[:needed], whole=first)
            # The next window begins half a window before the first spectrum that was not seen.
            taken = prompt * self._step - WINDOW_SAMPLES // 2 if first else self._step
            self._rest = self._rest[taken:]
            self.tokens.append(self._next(spectra, first))

    def _next(self, spectra: torch.Tensor, first: bool) -> int:
        import torch

        model, tekken = self._voxtral.model, self._voxtral.tekken
        ids = tekken.prompt(self._delay) if first else self.tokens[-1:]
        with torch.inference_mode():
            found = model(
                input_ids=torch.tensor([ids], device=model.device),
                input_features=spectra,
                num_delay_tokens=torch.tensor(self._delay, device=model.device),
                use_cache=True,
                logits_to_keep=1,
                **self._caches,
            )
        self._caches = {
            "past_key_values": found.past_key_values,
            "encoder_past_key_values": found.encoder_past_key_values,
            "padding_cache": found.padding_cache,
        }
        return int(found.logits[0, -1].argmax())


def load_voxtral(folder: Path, device: str, dtype: str) -> VoxtralModel:
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
    text = read_tekken(folder)
    try:
        model = VoxtralRealtimeForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
        extractor = VoxtralRealtimeFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model.eval().to(place)
    except (RuntimeError, ValueError, OSError) as error:
        raise errors.ModelLoadFailed(f"The Voxtral model cannot be loaded: {error}.") from None
    return VoxtralModel(model, extractor, text)
