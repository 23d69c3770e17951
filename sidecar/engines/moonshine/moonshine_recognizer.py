"""Moonshine recognizer: text of one speech segment, with its confidence and words.

The library's streaming is not used. It decodes an unfinished line anew at every update. It cuts
long speech after ten seconds in the middle of a word, and repeats the words around the cut. Here a
segment is recognized once, when it has ended, and a long one is cut where it is quietest.

The wheel's model runs in onnxruntime, which takes a quarter of the library's processor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.moonshine.moonshine_decoder import (
    FRAME_SAMPLES,
    SAMPLE_RATE,
    TOKENS_PER_S,
    DecodedTokens,
    MoonshineDecoder,
    MoonshineTokenizer,
)
from sidecar.engines.moonshine.moonshine_word_timing import align_words, frame_silence, token_spans
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.transcript import Word, collapse_commas

REINSTALL_COMMAND = "pip install --force-reinstall onnxruntime moonshine-voice==0.0.73"
_MIN_SAMPLES = 4096
"""Minimum number of samples; the encoder's first layers need 895."""
_MARKS = ".,;:?!"
_TAIL_SAMPLES = SAMPLE_RATE // 10
"""Samples of silence that are added to a segment: without it more words are lost (word error rate
4.5 instead of 4.2 %)."""


def _never_cancelled() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class MoonshineHypothesis:
    """Recognized text of a segment; ``tokens`` are a draft for a longer part of the segment.

    ``words``: in seconds from the start of the segment; empty if they were not requested or there
    are none. ``confidence``: of the tokens.
    """

    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()
    confidence: Confidence = field(default_factory=Confidence)


class MoonshineRecognizer:
    """The wheel's model in onnxruntime: it can be cancelled between tokens and takes drafts. Any
    number of threads may use it at once.

    Raises:
        errors.ModelLoadFailed: onnxruntime is missing, or does not run the model.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = MoonshineTokenizer.read(folder / "tokenizer.bin")
        self._decoder = MoonshineDecoder(folder)

    def hear(
        self,
        audio: Block,
        draft: MoonshineHypothesis | None = None,
        cancelled: CancelCheck = _never_cancelled,
        *,
        words: bool = False,
    ) -> MoonshineHypothesis | None:
        """Recognize ``audio``, shape (samples,): one utterance. Return `None` if it was cancelled.

        ``draft`` is the result of a beginning of it. ``words``: return words with times, too.
        """
        said = () if draft is None else draft.tokens
        return self._heard(audio, 0, (), said, cancelled, words)

    def recognize_with_context(
        self,
        audio: Block,
        given: Sequence[Sequence[int]],
        samples: int,
        cancelled: CancelCheck = _never_cancelled,
        *,
        words: bool = False,
    ) -> MoonshineHypothesis | None:
        """Recognize ``audio`` after its first ``samples``, which have the tokens ``given``, segment
        by segment. Times count from there. Return `None` if it was cancelled."""
        tokens = tuple(token for one in given for token in one)
        if len(tokens) >= samples / SAMPLE_RATE * TOKENS_PER_S:  # a repetition loop
            return self.hear(audio[samples:], None, cancelled, words=words)
        return self._heard(audio, samples, tokens, (), cancelled, words)

    def _heard(
        self,
        audio: Block,
        begin: int,
        given: tuple[int, ...],
        draft: tuple[int, ...],
        cancelled: CancelCheck,
        words: bool,
    ) -> MoonshineHypothesis | None:
        sound = _pad_samples(audio, max(len(audio) + _TAIL_SAMPLES, _MIN_SAMPLES))
        if not words:
            decoded = self._decoder.tokens(sound, draft, cancelled, given)
            if decoded is None:
                return None
            tokens = decoded.ids[self._marks(decoded.ids) :]
            text = collapse_commas(self._tokenizer.text(tokens))
            return MoonshineHypothesis(text, tokens, confidence=_confidence(decoded))
        aligned = self._decoder.aligned(sound, draft, cancelled, given)
        if aligned is None:
            return None
        decoded, attention = aligned
        tokens, marks = decoded.ids, self._marks(decoded.ids)
        tokens, attention = tokens[marks:], attention[:, marks:, begin // FRAME_SAMPLES :]
        if not tokens:
            return MoonshineHypothesis("")
        pieces = self._tokenizer.pieces(tokens)
        text = collapse_commas("".join(pieces).strip())
        behind = audio[begin:]
        silent = frame_silence(behind, FRAME_SAMPLES, attention.shape[2])
        begins = [piece.startswith(" ") for piece in pieces]
        at = [
            (
                first * FRAME_SAMPLES / SAMPLE_RATE,
                min(end * FRAME_SAMPLES, len(behind)) / SAMPLE_RATE,
            )
            for first, end in token_spans(attention, silent, begins)
        ]
        words_at = tuple(align_words(text, pieces, at))
        return MoonshineHypothesis(text, tokens, words_at, _confidence(decoded))

    def _marks(self, tokens: tuple[int, ...]) -> int:
        """Return the number of leading tokens that only punctuate the sentence before."""
        said = (self._tokenizer.text([token]) for token in tokens)
        return next((at for at, text in enumerate(said) if text.strip(_MARKS)), len(tokens))

    def text(self, audio: Block, cancelled: CancelCheck = _never_cancelled) -> str:
        """Return only the text of ``audio``; '' if it was cancelled."""
        found = self.hear(audio, None, cancelled)
        return "" if found is None else found.text

    def close(self) -> None:
        """Free the model."""
        del self._decoder


def _confidence(decoded: DecodedTokens) -> Confidence:
    """Return the confidence of the model. A repeated pair of tokens counts once: in a repetition
    loop the model is confident whatever the audio is."""
    pairs = zip((-1, *decoded.ids), decoded.ids, strict=False)
    once = dict(zip(reversed([*pairs]), reversed(decoded.likely), strict=True))
    return Confidence(sum(once.values()), len(once))


def load_recognizer() -> MoonshineRecognizer:
    """Load the recognition model of the wheel.

    Raises:
        errors.ModelLoadFailed: it is missing, or onnxruntime does not run it.
    """
    return MoonshineRecognizer(model_folder())


def model_folder() -> Path:
    """Return the folder of the recognition model in the wheel, without loading the wheel's library.

    Raises:
        errors.ModelLoadFailed: the wheel is not installed.
    """
    spec = find_spec("moonshine_voice")
    if spec is None or not spec.submodule_search_locations:
        raise errors.ModelLoadFailed("moonshine-voice is not installed.", hint=REINSTALL_COMMAND)
    return Path(spec.submodule_search_locations[0]) / "assets" / "tiny-en"


def _pad_samples(audio: Block, least: int) -> Block:
    """Return ``audio`` with silence added up to ``least`` samples."""
    padded: Block = np.pad(audio, (0, max(0, least - len(audio))))
    return padded
