"""Recognizers that give each token its frames: CTC and transducers (RNN-T, TDT).

`generate` of transformers asks a transducer for one frame at a time. Between two tokens its
prediction network stands still, so here many frames are decoded at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers.models.parakeet.generation_parakeet import ParakeetRNNTDecoderCache

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.interfaces.engine_interface import AUTO, CancelCheck
from sidecar.interfaces.language_tags import language_code
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.plugins.transformers_asr.recognizer import (
    RecognitionOptions,
    Recognizer,
    UtteranceCancelled,
    hypothesis,
)
from sidecar.transcripts.word_timing import words_of_tokens

_LANGUAGE_TAG = re.compile(r"<([a-z]{2,3})-[A-Z]{2}>")
FRAMES_AT_ONCE = 16
"""Frames of one step of a transducer: about the distance of two tokens."""


@dataclass(frozen=True, slots=True)
class TimedToken:
    """Token with its first frame, the frame after its last, and the logarithm of its likelihood."""

    token: int
    start: int
    end: int
    likely: float


class FrameRecognizer(Recognizer):
    """Recognizer whose tokens have frames."""

    @property
    def _frame_s(self) -> float:
        """Seconds of a frame of the encoder."""
        hop = self.processor.feature_extractor.hop_length / SAMPLE_RATE
        return float(hop * self.model.config.encoder_config.subsampling_factor)

    def _recognize(
        self, audio: Block, options: RecognitionOptions, cancelled: CancelCheck
    ) -> RecognitionHypothesis:
        return self.hypothesis([*self._tokens(self.inputs(audio, options), cancelled)])

    def _tokens(self, inputs: Any, cancelled: CancelCheck) -> Iterator[TimedToken]:
        """Yield the tokens of an utterance."""
        raise NotImplementedError

    def hypothesis(self, tokens: Sequence[TimedToken]) -> RecognitionHypothesis:
        """Return the tokens as text and words."""
        stream, backend = DecodeStream(skip_special_tokens=True), self.processor.tokenizer
        # A piece is None until the bytes of its character are complete.
        pieces = [stream.step(backend.backend_tokenizer, one.token) or "" for one in tokens]
        text, frame_s = "".join(pieces).strip(), self._frame_s
        at = [(one.start * frame_s, one.end * frame_s, one.likely) for one in tokens]
        words = tuple(words_of_tokens(text, pieces, at))
        return hypothesis(text, [one.likely for one in tokens], words)


class CtcRecognizer(FrameRecognizer):
    """CTC: one pass, with a token or a blank for each frame."""

    def _tokens(self, inputs: Any, cancelled: CancelCheck) -> Iterator[TimedToken]:
        if cancelled():
            raise UtteranceCancelled
        output = self.model.generate(**inputs, return_dict_in_generate=True)
        sure = output.logits[0].float().log_softmax(-1).amax(-1).tolist()
        found = output.sequences[0].tolist()
        blank, before, start = self.model.config.pad_token_id, None, 0
        for frame, token in enumerate([*found, blank]):
            if token == before:
                continue
            if before not in (None, blank):
                yield TimedToken(before, start, frame, max(sure[start:frame]))
            before, start = token, frame


class TransducerRecognizer(FrameRecognizer):
    """RNN-T, and TDT, which also says how many frames each token lasts."""

    def _tokens(self, inputs: Any, cancelled: CancelCheck) -> Iterator[TimedToken]:
        encoded = self.model.get_audio_features(**inputs)
        frames, mask = encoded.pooler_output, getattr(encoded, "attention_mask", None)
        if mask is not None:
            frames = frames[:, : int(mask.sum())]
        yield from Transducer(self.model).tokens(frames, cancelled)


class NemotronRecognizer(TransducerRecognizer):
    """Nemotron 3.5: it is told the language, or writes it as a tag behind the text."""

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        known = self.processor.prompt_dictionary
        wanted = options.language, language_code(options.language)
        return self._inputs(audio, language=next((one for one in wanted if one in known), AUTO))

    def hypothesis(self, tokens: Sequence[TimedToken]) -> RecognitionHypothesis:
        """Return the tokens as text and words, and the language of their tag."""
        names = self.processor.tokenizer.convert_ids_to_tokens([one.token for one in tokens])
        tags = [_LANGUAGE_TAG.fullmatch(name) for name in names]
        spoken = [one for one, tag in zip(tokens, tags, strict=True) if tag is None]
        language = next((tag[1] for tag in reversed(tags) if tag is not None), "")
        return replace(super().hypothesis(spoken), language=language)


class Transducer:
    """Greedy decoding of one stream of frames, which may come in parts."""

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.config
        self._vocabulary, self._blank = config.vocab_size, config.blank_token_id
        self._durations = getattr(config, "durations", None)
        self._cache = ParakeetRNNTDecoderCache(config)
        self._hidden: torch.Tensor | None = None
        self._seen = 0
        """Frames before the current part."""
        self._at = 0
        """Frame that is decoded next; it may be in the next part."""
        self._symbols = 0
        """Tokens at that frame so far."""

    def tokens(self, frames: torch.Tensor, cancelled: CancelCheck) -> Iterator[TimedToken]:
        """Yield the tokens of the next ``frames``, shape (1, frames, width)."""
        end = self._seen + frames.shape[1]
        while self._at < end:
            if cancelled():
                raise UtteranceCancelled
            hidden = self._predict(self._blank) if self._hidden is None else self._hidden
            begin = self._at - self._seen
            yield from self._decode(frames[:, begin : begin + FRAMES_AT_ONCE], hidden)
        self._seen = end

    def _decode(self, frames: torch.Tensor, hidden: torch.Tensor) -> Iterator[TimedToken]:
        """Yield the next token of ``frames``, if they have one, and go on behind it. ``hidden``:
        what the prediction network says, shape (1, 1, width)."""
        joined = self._model.joint(
            encoder_hidden_states=frames[:, :, None, :],
            decoder_hidden_states=hidden[:, None, :, :],
        )[0, :, 0]
        likely, best = joined[:, : self._vocabulary].float().log_softmax(-1).max(-1)
        tokens, sure, steps = best.tolist(), likely.tolist(), [1] * len(best)
        if self._durations is not None:
            lengths = joined[:, self._vocabulary :].argmax(-1).tolist()
            steps = [int(self._durations[length]) for length in lengths]
        first = self._at
        while self._at - first < len(tokens):
            offset = self._at - first
            token, step = tokens[offset], steps[offset]
            if token == self._blank:
                self._advance(max(1, step))
                continue
            yield TimedToken(token, self._at, self._at + max(1, step), sure[offset])
            self._symbols += 1
            if self._durations is not None and step:
                self._advance(step)
            elif self._symbols >= self._model.config.max_symbols_per_step:
                self._advance(1)
            self._predict(token)
            return

    def _advance(self, frames: int) -> None:
        self._at += frames
        self._symbols = 0

    def _predict(self, token: int) -> torch.Tensor:
        """Run the prediction network on the last token."""
        ids = torch.tensor([[token]], device=self._model.device)
        hidden: torch.Tensor = self._model.decoder(ids, cache=self._cache)
        self._hidden = hidden
        return hidden
