"""Voxtral Realtime live engine: loading, tokenizer, streams, delay of its words.

It hears live audio and nothing else: thirteen languages, a token each 80 ms. Every stretch of
speech is a stream of its own, so that silence costs nothing and caches stay small. Turns, voices
and sessions are those of all live engines (`live.runtime.live_scheduler`).

`generate` of transformers keeps on the model where a stream ends, and blocks its thread until more
sound comes: so it hears one. Here the state of a stream is its three caches and its last token, and
each step is one call of the model for 80 ms of sound. The spectra look 12.5 ms beyond what a step
is for.
"""

from __future__ import annotations

import base64
import codecs
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.checkpoints.installed_checkpoints import TEKKEN_FILE
from sidecar.interfaces import engine_interface
from sidecar.interfaces.live_engine import LiveSession, LiveSessionStart
from sidecar.interfaces.live_events import LiveEventCallback
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    import torch

    from sidecar.audio import Block
    from sidecar.diarization.speaker_models import SpeakerModels
    from sidecar.live.runtime.live_scheduler import LiveScheduler
    from sidecar.live.runtime.partial_results import RecognitionHypothesis

SPEC = engine_interface.EngineSpec(
    name="voxtral",
    title="Voxtral Realtime (live only)",
    sample_rate=LIVE_RATE,
    precisions=(engine_interface.Precision.BF16, engine_interface.Precision.FP32),
    languages=("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "zh"),
    diarizes=True,
    requires=("torch", "transformers"),
    # of which `gpu_memory.memory_footprint` leaves as many as there is room for, and those who
    sessions=100,
    # are there let in as many as they do not have to wait for (`live.runtime.load_shedding`)
)
DTYPES = {engine_interface.Precision.BF16: "bfloat16", engine_interface.Precision.FP32: "float32"}
STEP_S, MAX_DELAY_TOKENS = 0.08, 30
"""Seconds of a token, and how many of them the words may be behind at most."""
STREAM_MEMORY_S = 60.0
"""Seconds of speech that a stream is counted with; what is cut out of it is shorter."""
SLICE_SAMPLES = LIVE_RATE
"""Samples between two looks at whether anybody still wants it."""


class VoxtralEngine:
    """One model, many streams."""

    def __init__(self) -> None:
        self._voxtral: VoxtralModel | None = None
        self._voices: SpeakerModels | None = None
        self._scheduler: LiveScheduler | None = None
        self._precision = engine_interface.Precision.FP32

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Read the checkpoint onto its device.

        Raises:
            errors.ModelLoadFailed: it is not there, or no good, or does not fit.
        """
        if options.checkpoint is None:
            raise errors.ModelLoadFailed("No Voxtral Realtime checkpoint is set.")
        yield 0.0
        wanted = options.precision
        self._precision = wanted if wanted in DTYPES else engine_interface.Precision.BF16
        folder, dtype = Path(options.checkpoint), DTYPES[self._precision]
        self._voxtral = load_voxtral(folder, options.device, dtype)
        yield 0.9
        from sidecar.diarization.speaker_models import shared_speaker_models

        self._voices = shared_speaker_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Files are not for it.

        Raises:
            errors.EngineUnavailable: always.
        """
        raise errors.EngineUnavailable("The engine 'voxtral' transcribes live audio only.")

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: LiveEventCallback
    ) -> LiveSession:
        """A session among others.

        Raises:
            errors.LiveUnavailable: the detector is not to be had here.
        """
        if self._scheduler is None:
            self._scheduler = self._opened()
        return self._scheduler.open(options, begin, tell)

    def _opened(self) -> LiveScheduler:
        from sidecar.diarization.speaker_models import SpeakerEncoder
        from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler
        from sidecar.live.runtime.partial_results import PartialSchedule
        from sidecar.live.runtime.vad import load_vad

        encoder = None if self._voices is None else SpeakerEncoder(self._voices)
        return LiveScheduler(
            LiveRecognizers(self._hear, self._glimpse, encoder=encoder),
            load_vad(),
            SPEC.name,
            self._precision.value,
            threads=1,  # the model is one, and what is not in it holds Python's lock
            manner=PartialSchedule(first_s=2 * STEP_S, step_s=2 * STEP_S, grows=True),
        )

    def _hear(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> RecognitionHypothesis | None:
        """Recognize the audio behind the draft, and the end; all of it if the draft is not its
        beginning."""
        found = self._glimpse(audio, draft, options, cancelled)
        if cancelled():
            return None
        stream: Any = found.draft
        stream.end()
        return _hypothesis(stream)

    def _glimpse(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> RecognitionHypothesis:
        assert self._voxtral is not None
        delay = delay_tokens(options.delay_s, self._voxtral.tekken.delay)
        stream: Any = draft.draft if draft is not None else None
        if stream is None or not stream.goes_on(len(audio)):
            stream = VoxtralStream(self._voxtral, delay)
        for at in range(stream.fed, len(audio), SLICE_SAMPLES):
            if cancelled():
                break
            stream.feed(audio[at : at + SLICE_SAMPLES])
        return _hypothesis(stream)


def delay_tokens(wanted_s: float | None, usual: int) -> int:
    """Tokens that words are behind: the nearest that there is to what is wanted."""
    if wanted_s is None:
        return usual
    return min(MAX_DELAY_TOKENS, max(1, round(wanted_s / STEP_S)))


def _hypothesis(stream: Any) -> RecognitionHypothesis:
    from sidecar.live.runtime.partial_results import RecognitionHypothesis

    return RecognitionHypothesis(stream.text.strip(), draft=stream)


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
            samples, sampling_rate=LIVE_RATE, center=whole, padding=True, return_tensors="pt"
        )
        features: torch.Tensor = found["input_features"]
        return features.to(self.model.device, self.model.dtype)


class VoxtralStream:
    """One stretch of speech as it comes. ``delay``: tokens that its words are behind its sound."""

    def __init__(self, voxtral: VoxtralModel, delay: int) -> None:
        import numpy as np

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
        import numpy as np

        if self.ended:
            return
        self.ended = True
        step, tekken = self._step, self._voxtral.tekken
        tokens = -(-self.fed // step) + tekken.right(self._delay)
        most = tekken.left + tokens - len(tekken.prompt(self._delay))
        silence = tokens * step - self.fed + WINDOW_SAMPLES
        self._go(np.zeros(silence, np.float32), most)

    def _go(self, samples: Block, most: int | None = None) -> None:
        import numpy as np

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
