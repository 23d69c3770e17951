"""Moonshine recognizer: text of one speech segment, its confidence, words and word times.

The library's streaming is not used. It decodes an unfinished line anew at every update. It cuts
long speech after ten seconds in the middle of a word, and repeats the words around the cut. Here a
segment is recognized once, when it has ended, and a long one is cut where it is quietest.

The wheel's model runs in onnxruntime, which takes a quarter of the library's processor time.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.diarization.speaker_models import REINSTALL_COMMAND
from sidecar.engines.moonshine import moonshine_decoder
from sidecar.engines.moonshine.moonshine_tokenizer import MoonshineTokenizer
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.transcript import Word, collapse_commas
from sidecar.transcripts.word_timing import words_of_tokens

_MIN_SAMPLES = 4096
"""Minimum number of samples; the encoder's first layers need 895."""
_MARKS = ".,;:?!"
_TAIL_SAMPLES = SAMPLE_RATE // 10
"""Samples of silence added to a segment: the word error rate is 4.2 % instead of 4.5 %."""

_DROP_DB = 30.0
"""Level below the loud parts (the 90th percentile of frames) from which a frame is silent ..."""
_NOISE_DB = 6.0
"""... or level above the quietest if there is noise, but at least 10 dB below the loud parts."""
_MIN_DROP_DB = 10.0
_SOFT_DB = 8.0
"""Level from the border of silence to certainty, in both directions."""
_SILENCE_WEIGHT = 5.0
"""Weight of loudness in standard deviations of attention; from 4 to 8 results are the same."""
Span = tuple[int, int]
"""First frame, and the frame after the last."""
_NEXT, _SHARED, _STAY, _NO_SILENCE = range(4)
"""Predecessors of a row: the row before, at the previous frame or the same; the row itself; the row
before the silence."""


def _never_cancelled() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class MoonshineHypothesis:
    """Recognized text of a segment; ``tokens`` are a draft for a longer part of the segment, unless
    there is a ``draft``: hotwords are tried anew.

    ``words``: in seconds from the start of the segment; empty if they were not requested or there
    are none. ``confidence``: of the tokens.
    """

    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()
    confidence: Confidence = field(default_factory=Confidence)
    draft: tuple[int, ...] | None = None


class MoonshineRecognizer:
    """The wheel's model in onnxruntime: it can be cancelled between tokens and takes drafts. Any
    number of threads may use it at once.

    Raises:
        errors.ModelLoadFailed: onnxruntime is missing, or does not run the model.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = tokenizer = MoonshineTokenizer.read(folder / "tokenizer.bin")
        self.decoder = moonshine_decoder.MoonshineDecoder(
            folder, tokenizer.begins_word, tokenizer.continues_word
        )
        self._hotword_tokens = lru_cache(16)(self._encode_hotwords)

    def recognize(
        self,
        audio: Block,
        hypothesis: MoonshineHypothesis | None = None,
        cancelled: CancelCheck = _never_cancelled,
        *,
        words: bool = False,
        given: Sequence[int] = (),
        samples: int = 0,
        hotwords: tuple[str, ...] = (),
    ) -> MoonshineHypothesis | None:
        """Recognize ``audio``, shape (samples,): one utterance, after its first ``samples``, which
        have the tokens ``given``. Return `None` if it was cancelled.

        ``hypothesis`` is the result of a beginning of it. ``words``: return words with times, too,
        which count from the utterance's start. ``hotwords``: names and terms to expect.
        """
        if given and len(given) >= samples / SAMPLE_RATE * self.decoder.tokens_per_s:
            audio, given, samples = audio[samples:], (), 0  # a repetition loop
        draft: Sequence[int] = ()
        if hypothesis is not None:
            draft = hypothesis.tokens if hypothesis.draft is None else hypothesis.draft
        request = moonshine_decoder.DecodeRequest(
            audio, cancelled, draft, given, align=words, hotwords=self._hotword_tokens(hotwords)
        )
        return self._decoded(request, samples)

    def _decoded(
        self, request: moonshine_decoder.DecodeRequest, begin: int
    ) -> MoonshineHypothesis | None:
        """Recognize the audio from the sample ``begin`` on."""
        audio = request.audio
        if not audio[begin:].any():  # for digital silence the model invents words
            return MoonshineHypothesis("")
        padded = np.pad(audio, (0, max(_TAIL_SAMPLES, _MIN_SAMPLES - len(audio))))
        decoded = self.decoder.decode(replace(request, audio=padded))
        if decoded is None:
            return None
        marks = self._marks(decoded.ids)
        tokens = decoded.ids[marks:]
        draft = decoded.draft and decoded.draft[self._marks(decoded.draft) :]
        pieces = self._tokenizer.pieces(tokens)
        text = collapse_commas("".join(pieces).strip())
        if request.align and not tokens:
            return MoonshineHypothesis("")
        if decoded.attention is None:
            return MoonshineHypothesis(text, tokens, (), _confidence(decoded), draft)
        attention = decoded.attention[:, marks:, begin // moonshine_decoder.FRAME_SAMPLES :]
        behind = audio[begin:]
        silent = frame_silence(behind, moonshine_decoder.FRAME_SAMPLES, attention.shape[2])
        begins = [piece.startswith(" ") for piece in pieces]
        spans = token_spans(attention, silent, begins)
        at = [
            (
                first * moonshine_decoder.FRAME_SAMPLES / SAMPLE_RATE,
                min(end * moonshine_decoder.FRAME_SAMPLES, len(behind)) / SAMPLE_RATE,
                likely,
            )
            for (first, end), likely in zip(spans, decoded.likely[marks:], strict=True)
        ]
        words_at = tuple(words_of_tokens(text, pieces, at))
        return MoonshineHypothesis(text, tokens, words_at, _confidence(decoded), draft)

    def _encode_hotwords(self, hotwords: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of each hotword, as in the middle of a sentence."""
        return tuple(tuple(self._tokenizer.encode(f" {word}")) for word in hotwords)

    def _marks(self, tokens: tuple[int, ...]) -> int:
        """Return the number of leading tokens that only punctuate the sentence before."""
        texts = (self._tokenizer.text([token]) for token in tokens)
        return next((at for at, text in enumerate(texts) if text.strip(_MARKS)), len(tokens))


def _confidence(decoded: moonshine_decoder.DecodedTokens) -> Confidence:
    """Return the confidence of the model. A repeated pair of tokens counts once: in a repetition
    loop the model is confident whatever the audio is."""
    pairs = zip((-1, *decoded.ids), decoded.ids, strict=False)
    once = dict(zip(reversed([*pairs]), reversed(decoded.likely), strict=True))
    return Confidence(sum(once.values()), len(once))


def model_folder() -> Path:
    """Return the folder of the recognition model in the wheel, without loading the wheel's library.

    Raises:
        errors.ModelLoadFailed: the wheel is not installed.
    """
    spec = find_spec("moonshine_voice")
    if spec is None or not spec.submodule_search_locations:
        raise errors.ModelLoadFailed("moonshine-voice is not installed.", hint=REINSTALL_COMMAND)
    return Path(spec.submodule_search_locations[0]) / "assets" / "tiny-en"


def warm_up_audio() -> Block | None:
    """Return four seconds of speech from the wheel, a usual utterance, with which a live engine is
    warmed up; `None` if it has none."""
    rate = SAMPLE_RATE
    try:
        with wave.open(str(model_folder().parent / "beckett.wav")) as file:
            file.setpos(rate)
            raw = file.readframes(4 * rate)
    except (OSError, EOFError, wave.Error, errors.ModelLoadFailed):
        return None
    return np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)


def frame_silence(samples: Block, frame: int, frames: int) -> npt.NDArray[np.float32]:
    """Return the certainty that each frame is silent, shape (frames,): from -1 (speech) to 1.

    ``samples``: shape (samples,). ``frame``: samples per frame.
    """
    size = frames * frame
    padded = np.pad(samples[:size], (0, max(0, size - len(samples)))).reshape(frames, frame)
    level = 10 * np.log10(np.square(padded).mean(axis=1) + 1e-9)
    loud, least = np.percentile(level, 90), np.percentile(level, 3)
    border = max(loud - _DROP_DB, min(least + _NOISE_DB, loud - _MIN_DROP_DB))
    sure: npt.NDArray[np.float32] = np.clip((border - level) / _SOFT_DB, -1, 1).astype(np.float32)
    return sure


def token_spans(
    attention: npt.NDArray[np.float32], silent: npt.NDArray[np.float32], begins: Sequence[bool]
) -> list[Span]:
    """Return the frames of each token, in order; tokens overlap only if they share a frame.

    ``attention``: shape (heads, tokens, frames). ``silent``: shape (frames,), from `frame_silence`.
    ``begins``: whether each token begins a word; there may be silence before such tokens, and after
    the last.
    """
    if not attention.shape[1]:
        return []
    spread = attention.std(axis=1, keepdims=True) + 1e-9
    likely = ((attention - attention.mean(axis=1, keepdims=True)) / spread).mean(axis=0)
    rows: list[npt.NDArray[np.float32]] = []
    of_token: list[int] = []
    for token, row in enumerate(likely):
        if begins[token] or not token:
            rows.append(_SILENCE_WEIGHT * silent)
            of_token.append(-1)
        rows.append(row - _SILENCE_WEIGHT * silent)
        of_token.append(token)
    rows.append(_SILENCE_WEIGHT * silent)
    of_token.append(-1)
    path = _viterbi_path(np.stack(rows), of_token)
    if path is None:
        edges = [token * likely.shape[1] // len(likely) for token in range(len(likely) + 1)]
        return list(pairwise(edges))
    return [span for token, span in zip(of_token, path, strict=True) if token >= 0]


def _viterbi_path(rows: npt.NDArray[np.float32], of_token: Sequence[int]) -> list[Span] | None:
    """Return each row's frames on the path through (rows, frames) with the greatest sum.

    Rows of silence (-1) may be left out. `None` if there are fewer frames than words.
    """
    count, frames = rows.shape
    best = np.full((count + 1, frames + 1), -np.inf)
    best[0, 0] = 0.0
    came = np.full((count + 1, frames + 1), _STAY, np.int8)
    for row in range(1, count + 1):
        before = best[row - 1, :-1]
        entered, how = before, np.full(frames, _NEXT, np.int8)
        if row > 1 and of_token[row - 1] >= 0:
            silent = of_token[row - 2] < 0
            other = best[row - 2, :-1] if silent else best[row - 1, 1:]
            how[other > entered] = _NO_SILENCE if silent else _SHARED
            entered = np.maximum(entered, other)
        # Sums accumulate: the best at a frame is the best entry before it plus all rows since.
        summed = np.cumsum(rows[row - 1])
        gained = entered + rows[row - 1] - summed
        most = np.maximum.accumulate(gained)
        best[row, 1:] = most + summed
        came[row, 1:] = np.where(gained >= most, how, _STAY)
    row = count if best[count, frames] >= best[count - 1, frames] else count - 1
    if best[row, frames] == -np.inf:
        return None
    found: list[Span] = [(0, 0)] * count
    at: int = frames
    end = at
    while row > 0:
        how_here = int(came[row, at])
        if how_here == _STAY:
            at -= 1
            continue
        found[row - 1] = at - 1, end
        at -= int(how_here != _SHARED)
        row -= 2 if how_here == _NO_SILENCE else 1
        end = at
    return found
