"""Voxtral Realtime stepped by hand: a stretch of speech is a stream, many share one model.

`generate` keeps on the model where a stream ends, and blocks its thread until more sound comes: so
it hears one. Here the state of a stream is its three caches and its last token, and each step is
one call of the model for 80 ms of sound. The spectra look 12.5 ms beyond what a step is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sidecar.audio import Block
from sidecar.engines.voxtral.tekken import Tekken

if TYPE_CHECKING:
    import torch

RATE = 16_000
HOP, WINDOW = 160, 400
"""Samples from one spectrum to the next, and under one."""


class Voxtral:
    """A loaded model, with what it needs around it; several threads may step streams of it."""

    def __init__(self, model: Any, extractor: Any, tekken: Tekken) -> None:
        self.model, self.tekken = model, tekken
        self._extractor = extractor

    def spectra(self, samples: Block, *, whole: bool) -> torch.Tensor:
        """Log mel energies, shape (1, bands, frames). ``whole``: frames lie around their samples,
        from the first on; else behind the first half window."""
        found = self._extractor(
            samples, sampling_rate=RATE, center=whole, padding=True, return_tensors="pt"
        )
        features: torch.Tensor = found["input_features"]
        return features.to(self.model.device, self.model.dtype)


class Stream:
    """One stretch of speech as it comes. ``delay``: tokens that its words are behind its sound."""

    def __init__(self, voxtral: Voxtral, delay: int) -> None:
        self._voxtral, self._delay = voxtral, delay
        self.fed = 0
        """Samples that came."""
        self.tokens: list[int] = []
        """What it wrote."""
        self.ended = False
        self._whole = True
        self._step = voxtral.tekken.step
        self._caches: dict[str, Any] = {}
        self._rest: Block = np.zeros(voxtral.tekken.left * self._step, np.float32)

    @property
    def text(self) -> str:
        """What was said so far."""
        return self._voxtral.tekken.text(self.tokens)

    def goes_on(self, samples: int) -> bool:
        """Whether so many samples are what it heard, and perhaps more; else it has to be heard
        anew: sound cannot be unheard, and what failed within a step is of no use."""
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
        silence = tokens * step - self.fed + WINDOW
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
            needed = (prompt * self._step - HOP + WINDOW // 2) if first else self._step + WINDOW
            if len(self._rest) < needed:
                return
            spectra = self._voxtral.spectra(self._rest[:needed], whole=first)
            # The next window begins half a window before the first spectrum that was not seen.
            taken = prompt * self._step - WINDOW // 2 if first else self._step
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
