"""Voxtral Realtime live engine: loading, tokenizer, streams, delay of its words.

It recognizes only live audio, in thirteen languages, with one token per 80 ms. Each speech segment
is a stream of its own, so that silence costs nothing and caches stay small. Turns, speakers and
sessions are those of all live engines (`live.runtime.live_scheduler`).

`generate` of transformers keeps the end of a stream on the model, and blocks its thread until more
audio comes, so it serves one stream. Here the state of a stream is its three caches and its last
token. Each step is one call of the model for 80 ms of audio. The spectra need 12.5 ms of audio
after a step's end.
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

from sidecar.checkpoints.installed_checkpoints import TEKKEN_FILE
from sidecar.engines.live_sessions import LiveSessions
from sidecar.errors import EngineUnavailable, ModelLoadFailed, cause_of
from sidecar.interfaces import engine_interface
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    import torch

    from sidecar.audio import Block
    from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
    from sidecar.live.runtime.live_scheduler import LiveScheduler

SPEC = engine_interface.EngineSpec(
    name="voxtral",
    factory="sidecar.engines.voxtral:VoxtralEngine",
    title="Voxtral Realtime (live only)",
    sample_rate=LIVE_RATE,
    precisions=(engine_interface.Precision.BF16, engine_interface.Precision.FP32),
    languages=("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "zh"),
    diarizes=True,
    requires=("torch", "transformers"),
    # an upper limit: `gpu_memory.memory_footprint` reduces it to what fits in memory, and
    sessions=100,
    # `live.runtime.load_shedding` admits only what the engine recognizes without delay
)
DTYPES = {engine_interface.Precision.BF16: "bfloat16", engine_interface.Precision.FP32: "float32"}
STEP_S, MAX_DELAY_TOKENS = 0.08, 30
"""Duration of a token in seconds, and the maximum delay of words in tokens."""
STREAM_MEMORY_S = 60.0
"""Seconds of speech that memory is planned for in each stream; utterances are cut shorter."""
SLICE_SAMPLES = LIVE_RATE
"""Samples between two checks for cancellation."""

SPECIAL_TOKENS = 1000
"""Number of special tokens before those of text if the file does not say it."""
BUFFER_TOKENS = 10
"""Tokens of silence after a stream in which the longest word is completed (mistral-common's
OFFLINE_STREAMING_BUFFER_TOKENS)."""
BEGIN, PAD = "<s>", "[STREAMING_PAD]"
HOP_SAMPLES, WINDOW_SAMPLES = 160, 400
"""Samples between the starts of two spectra, and in each of them."""


class VoxtralEngine(LiveSessions):
    """Voxtral Realtime with many streams on one model."""

    sample_rate = SPEC.sample_rate

    def __init__(self) -> None:
        self._voxtral: VoxtralModel | None = None
        self._precision = engine_interface.Precision.FP32

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the checkpoint onto its device.

        Raises:
            errors.ModelLoadFailed: it is missing or invalid, or does not fit.
        """
        if options.checkpoint is None:
            raise ModelLoadFailed("No Voxtral Realtime checkpoint is set.")
        yield 0.0
        wanted = options.precision
        self._precision = wanted if wanted in DTYPES else engine_interface.Precision.BF16
        folder, dtype = Path(options.checkpoint), DTYPES[self._precision]
        self._voxtral = load_voxtral(folder, options.device, dtype)
        yield 0.9
        from sidecar.diarization.speaker_models import load_models

        self._speaker_models = load_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Reject the request: the engine has no recognition of files.

        Raises:
            errors.EngineUnavailable: always.
        """
        raise EngineUnavailable("The engine 'voxtral' transcribes live audio only.")

    def _start_scheduler(self) -> LiveScheduler:
        from sidecar.interfaces.recognition import PartialSchedule

        return self._schedule(
            SPEC,
            self._precision,
            self.recognize,
            self.glimpse,
            threads=1,  # there is one model, and the rest holds Python's lock
            schedule=PartialSchedule(first_s=2 * STEP_S, step_s=2 * STEP_S, grows=True),
        )

    def recognize(self, request: SegmentRequest) -> RecognitionHypothesis | None:
        """Recognize the audio after the draft, and the end; all of it if the draft is not its
        beginning."""
        found = self.glimpse(request)
        if request.cancelled():
            return None
        stream: Any = found.draft
        stream.end()
        return _hypothesis(stream)

    def glimpse(self, request: SegmentRequest) -> RecognitionHypothesis:
        """Recognize the audio after the draft, as far as the latency allows."""
        assert self._voxtral is not None
        audio, draft = request.audio, request.draft_hypothesis
        delay = delay_tokens(request.options.delay_s, self._voxtral.tekken.delay)
        stream: Any = draft.draft if draft is not None else None
        if stream is None or not stream.goes_on(len(audio)):
            stream = VoxtralStream(self._voxtral, delay)
        for at in range(stream.fed, len(audio), SLICE_SAMPLES):
            if request.cancelled():
                break
            stream.feed(audio[at : at + SLICE_SAMPLES])
        return _hypothesis(stream)


def delay_tokens(wanted_s: float | None, usual: int) -> int:
    """Return the delay of words in tokens, the nearest to ``wanted_s``."""
    if wanted_s is None:
        return usual
    return min(MAX_DELAY_TOKENS, max(1, round(wanted_s / STEP_S)))


def _hypothesis(stream: Any) -> RecognitionHypothesis:
    from sidecar.interfaces.recognition import RecognitionHypothesis

    return RecognitionHypothesis(stream.text.strip(), draft=stream)


@dataclass(frozen=True, slots=True)
class TekkenTokenizer:
    """Tokenizer of the checkpoint.

    ``texts``: bytes of each token after the first ``special`` ones. ``step``: samples per token.
    ``left``: tokens of silence before a stream. ``delay``: default delay of words in tokens.
    """

    texts: tuple[bytes, ...]
    special: int
    begin: int
    pad: int
    step: int
    left: int
    delay: int

    def prompt(self, delay: int) -> list[int]:
        """Return the tokens at the start of a stream."""
        return [self.begin, *[self.pad] * (self.left + delay)]

    def right(self, delay: int) -> int:
        """Return the tokens of silence after a stream, in which its last words are generated."""
        return delay + 1 + BUFFER_TOKENS

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, without a character whose last bytes have not come."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        known = (at - self.special for at in tokens)
        return decoder.decode(b"".join(self.texts[at] for at in known if 0 <= at < len(self.texts)))


def read_tekken(folder: Path) -> TekkenTokenizer:
    """Read the tokenizer of a checkpoint.

    Raises:
        errors.ModelLoadFailed: it is missing or invalid.
    """
    try:
        return _parse_tekken(json.loads((folder / TEKKEN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadFailed(
            f"{TEKKEN_FILE} of the Voxtral model cannot be read: {type(error).__name__}."
        ) from None


def _parse_tekken(tekken: dict[str, Any]) -> TekkenTokenizer:
    special = int(tekken["config"].get("default_num_special_tokens", SPECIAL_TOKENS))
    size = int(tekken["config"]["default_vocab_size"])
    rows = sorted(tekken["vocab"], key=lambda row: row["rank"])[: size - special]
    named = {row["token_str"]: int(row["rank"]) for row in tekken["special_tokens"]}
    audio = tekken["audio"]
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


class VoxtralModel:
    """Loaded model with its feature extractor and tokenizer; several threads may run its
    streams."""

    def __init__(self, model: Any, extractor: Any, tekken: TekkenTokenizer) -> None:
        self.model, self.tekken = model, tekken
        self._extractor = extractor

    def spectra(self, samples: Block, *, whole: bool) -> torch.Tensor:
        """Return log mel energies, shape (1, bands, frames). ``whole``: frames are centred on their
        samples from the first on; else they begin after the first half window."""
        found = self._extractor(
            samples, sampling_rate=LIVE_RATE, center=whole, padding=True, return_tensors="pt"
        )
        features: torch.Tensor = found["input_features"]
        return features.to(self.model.device, self.model.dtype)


class VoxtralStream:
    """Incremental recognition of one speech segment. ``delay``: delay of its words in tokens."""

    def __init__(self, voxtral: VoxtralModel, delay: int) -> None:
        import numpy as np

        self._voxtral, self._delay = voxtral, delay
        self.fed = 0
        """Number of samples so far."""
        self.tokens: list[int] = []
        self.ended = False
        self._whole = True
        self._step = voxtral.tekken.step
        self.caches: dict[str, Any] = {}
        """What the model keeps of the stream, by the names of its arguments."""
        self._rest: Block = np.zeros(voxtral.tekken.left * self._step, np.float32)

    @property
    def text(self) -> str:
        """Return the text so far."""
        return self._voxtral.tekken.text(self.tokens)

    def goes_on(self, samples: int) -> bool:
        """Return whether it can go on with the segment, which has ``samples`` now. If not, the
        segment has to be recognized anew: audio cannot be taken back, and a failed step leaves no
        usable state.
        """
        return not self.ended and self._whole and self.fed <= samples

    def feed(self, samples: Block) -> None:
        """Add audio, shape (samples,); run the steps that it suffices for."""
        self.fed += len(samples)
        self._go(samples)

    def end(self) -> None:
        """End the audio: the last words are generated from added silence."""
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
            # The next window begins half a window before the first spectrum that was not used.
            taken = prompt * self._step - WINDOW_SAMPLES // 2 if first else self._step
            needed = taken + WINDOW_SAMPLES - (HOP_SAMPLES if first else 0)
            if len(self._rest) < needed:
                return
            spectra = self._voxtral.spectra(self._rest[:needed], whole=first)
            self._rest = self._rest[taken:]
            self.tokens.append(self._next(spectra, first))

    def _next(self, spectra: torch.Tensor, first: bool) -> int:
        import torch

        from sidecar.engines.torch_inference import inference

        model, tekken = self._voxtral.model, self._voxtral.tekken
        ids = tekken.prompt(self._delay) if first else self.tokens[-1:]
        with inference():
            found = model(
                input_ids=torch.tensor([ids], device=model.device),
                input_features=spectra,
                num_delay_tokens=torch.tensor(self._delay, device=model.device),
                use_cache=True,
                logits_to_keep=1,
                **self.caches,
            )
            token = int(found.logits[0, -1].argmax())  # waits for the device, which may fail
        self.caches = {
            "cache": found.cache,
            "encoder_cache": found.encoder_cache,
            "padding_cache": found.padding_cache,
        }
        return token


def load_voxtral(folder: Path, device: str, dtype: str) -> VoxtralModel:
    """Load the model. ``device``: 'auto', 'cuda' or 'cpu'; ``dtype``: torch's name.

    Raises:
        errors.ModelLoadFailed: it is invalid, or does not fit.
    """
    import torch
    from transformers import (
        VoxtralRealtimeFeatureExtractor,
        VoxtralRealtimeForConditionalGeneration,
    )

    from sidecar.engines.torch_inference import device_name

    torch_device = device_name(device)
    text = read_tekken(folder)
    try:
        model = VoxtralRealtimeForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
        extractor = VoxtralRealtimeFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model.eval().to(torch_device)
    except torch.OutOfMemoryError:
        raise ModelLoadFailed.out_of_memory(dtype) from None
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelLoadFailed(f"The Voxtral model cannot be loaded: {cause_of(error)}.") from None
    return VoxtralModel(model, extractor, text)
