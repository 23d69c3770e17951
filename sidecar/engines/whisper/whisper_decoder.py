"""Decoder of Whisper: loading, device choice, temperatures, hallucination guard.

Features, prompt and word times are faster-whisper's. Its loop over a recording is not used: it
needs all of the recording in memory, and cannot be cancelled.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.checkpoints.installed_checkpoints import whisper_model_name
from sidecar.concurrency import usable_cpu_cores
from sidecar.errors import LanguageUnsupported, ModelLoadFailed, cause_of
from sidecar.interfaces.engine_interface import AUTO, LoadOptions, Precision
from sidecar.transcripts import loop_guard
from sidecar.transcripts.transcript import MIN_CONFIDENCE, Word, mean_confidence

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer


TEMPERATURES = (0.2, 0.4, 0.6)
"""Temperatures of the retries of a stuck window; the first of those of Whisper's authors."""
NO_SPEECH_PROBABILITY = 0.6
MIN_LOG_PROBABILITY = -1.0
"""If the probability of no speech is above the first and the mean log probability of a token below
the second, there is no speech. These are the values of Whisper's authors, too."""
REPETITIVE_RATIO = 2.4
"""Ratio of a text's bytes to those compressed above which it repeats itself; the value of Whisper's
authors, too."""


def is_silence(no_speech: float, log_probability: float) -> bool:
    """Return whether the words are hallucinated over silence."""
    return no_speech > NO_SPEECH_PROBABILITY and log_probability < MIN_LOG_PROBABILITY


def is_repetitive(text: str) -> bool:
    """Return whether a text repeats itself. A loop of the model does, and now and then a person."""
    plain = text.encode()
    return len(plain) > REPETITIVE_RATIO * len(zlib.compress(plain))


COMPUTE_TYPES = {Precision.INT8: "int8", Precision.FP16: "float16", Precision.FP32: "float32"}
"""CTranslate2's names of the precisions; int8 on a GPU has activations of 16 bit."""
GPU_COMPUTE_TYPES = {**COMPUTE_TYPES, Precision.INT8: "int8_float16"}
MAX_THREADS = 8
"""Maximum number of CPU threads. More gain little: decoding is bound by memory."""


def choose_device(wanted: str, gpus: int) -> str:
    """Return 'cuda' or 'cpu'.

    Raises:
        errors.ModelLoadFailed: a GPU is wanted, and there is none.
    """
    if wanted == "cuda" and not gpus:
        raise ModelLoadFailed(
            "CTranslate2 finds no NVIDIA GPU.", hint="Set VIBEVOICE_DEVICE to 'auto' or 'cpu'."
        )
    return "cuda" if gpus and wanted in (AUTO, "cuda") else "cpu"


def compute_type_of(
    precision: Precision, device: str, supported: Set[str]
) -> tuple[Precision, str]:
    """Return the precision to use, and CTranslate2's name for it.

    ``supported``: compute types of the device. If it does not support the wanted one, fp32 is used,
    which every device supports.
    """
    names = GPU_COMPUTE_TYPES if device == "cuda" else COMPUTE_TYPES
    wanted = Precision.INT8 if precision not in names else precision
    name = names[wanted]
    return (wanted, name) if name in supported else (Precision.FP32, "float32")


def live_workers(device: str) -> int:
    """Return the number of live windows that are recognized at once, each on a thread of its own:
    one per usable core; two are enough for a GPU."""
    return usable_cpu_cores() if device == "cpu" else 2


def cpu_threads() -> int:
    """Return the number of CPU threads: half of the cores, so that the desktop and diarization have
    the rest.

    ``OMP_NUM_THREADS`` overrides it.
    """
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    return max(1, min(MAX_THREADS, (os.cpu_count() or 2) // 2))


BEAM_SIZE = 5
"""Number of hypotheses, the same as in Whisper and faster-whisper."""
MAX_POSITIONS = 448
"""Maximum number of the decoder's positions, prompt included."""
WINDOW_FRAMES = 3000
"""Frames of a window, a hundred per second: the half minute that the model was trained on."""
MIN_LANGUAGE_PROBABILITY = 0.5
"""Probability below which a detected language is not used."""
MIN_CHANGE_PROBABILITY = 0.9
"""Probability below which another language than that of the speech before is not used. A second of
German is English with up to 0.8 (base), two seconds hardly ever."""
SEED = 0
_LEADING_MARKS, _TRAILING_MARKS = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True, slots=True)
class WhisperRequest:
    """Options of windows. ``language``: a code of Whisper's; `None` to detect it.

    ``beams``: number of hypotheses. ``retries``: a stuck window is retried with random sampling.
    ``timed``: return words with times, which doubles the cost; without it there is only the text.
    """

    language: str | None
    prompt: str = ""
    temperature: float = 0.0
    max_tokens: int | None = None
    translate: bool = False
    beams: int = BEAM_SIZE
    retries: bool = True
    timed: bool = True


@dataclass(frozen=True, slots=True)
class WhisperResult:
    """Result of a window; times of words in seconds from its start, text with the space before.

    ``language``: `None` if there is no speech. ``tokens``: number of generated tokens.
    ``truncated``: by the limit of tokens. ``lost_s``: start of a repetition loop; `None` if there
    is none. ``retried``: the model looped, and recovered. ``text``: text of the whole window.
    ``confidence``: of its tokens; `None` if some were cut. ``no_speech``: the probability that it
    has no speech, and ``likely`` that of the ``language``; `None` if it was not detected.
    """

    words: tuple[Word, ...]
    language: str | None
    sure: bool = True
    tokens: int = 0
    truncated: bool = False
    lost_s: float | None = None
    retried: bool = False
    text: str = ""
    confidence: float | None = None
    no_speech: float | None = None
    likely: float | None = None


@dataclass(frozen=True, slots=True)
class WhisperAttempt:
    """What the model answers for a window at one temperature.

    ``likely``: mean log probability of a token. ``no_speech``: as of a `WhisperResult`. ``ended``:
    by the model. ``kept``: number of tokens before a repetition loop; `None` if there is none.
    """

    tokens: tuple[int, ...]
    text: str
    likely: float
    no_speech: float
    ended: bool
    kept: int | None = None

    @property
    def silent(self) -> bool:
        """Return whether nobody speaks."""
        return is_silence(self.no_speech, self.likely)

    @property
    def stuck(self) -> bool:
        """Return whether another temperature may do better."""
        return self.kept is not None or is_repetitive(self.text)


def chosen_attempt(attempts: Iterable[WhisperAttempt]) -> tuple[WhisperAttempt, bool]:
    """Return the first attempt that is not stuck, and whether others were before it.

    If all are, a person may repeat the words: the first of those that time allows is taken, else
    the last, cut before its loop. None is asked for that is not needed.
    """
    stuck: list[WhisperAttempt] = []
    for attempt in attempts:
        if attempt.silent or not attempt.stuck:
            break
        stuck.append(attempt)
    else:
        attempt = stuck[-1]
    if attempt.silent or attempt.stuck:
        attempt = next((one for one in stuck if one.kept is None), attempt)
    return attempt, bool(stuck) and attempt not in stuck


class WhisperRecognizer:
    """Loaded Whisper model. Use it from one thread at a time if it samples: there is one seed."""

    def __init__(self, whisper: WhisperModel, precision: Precision, name: str) -> None:
        self._whisper = whisper
        self.precision = precision
        self.name = name
        self.on_gpu = whisper.model.device == "cuda"

    @property
    def multilingual(self) -> bool:
        """Return whether the model supports languages other than English."""
        return bool(self._whisper.model.is_multilingual)

    def recognize(
        self, samples: Block, request: WhisperRequest, before: str | None = None
    ) -> WhisperResult:
        """Recognize a window of at most 30 s at 16 kHz, shape (samples,).

        ``before``: the language of the speech before, for speech whose language is unclear.
        """
        import ctranslate2
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer

        if request.retries or request.temperature:
            ctranslate2.set_random_seed(SEED)  # the same recording gets the same words
        whisper, seconds = self._whisper, len(samples) / SAMPLE_RATE
        features = whisper.feature_extractor(samples)[..., :-1]
        frames = features.shape[-1]
        encoded = whisper.encode(pad_or_trim(features, WINDOW_FRAMES))
        language, sure, likely_language = self._language(encoded, request, before)
        if not self.knows(language):
            raise LanguageUnsupported(
                f"This Whisper model does not support the language '{language}'.",
                hint=(
                    "large-v3 and large-v3-turbo support most: vibevoice-asr pull whisper:large-v3"
                ),
            )
        task = "translate" if request.translate else "transcribe"
        tokenizer = Tokenizer(whisper.hf_tokenizer, self.multilingual, task=task, language=language)
        prompt = whisper.get_prompt(
            tokenizer, [], without_timestamps=True, hotwords=request.prompt or None
        )
        room = min(MAX_POSITIONS // 2, MAX_POSITIONS - len(prompt))
        limit = room if request.max_tokens is None else max(1, min(room, request.max_tokens))
        answers = self._answers(encoded, prompt, tokenizer, limit, request)
        cut_short = request.max_tokens is not None and limit < room
        attempt, retried = chosen_attempt(
            _attempt(answer, tokenizer, seconds, limit, cut_short=cut_short) for answer in answers
        )
        if attempt.silent:
            return WhisperResult((), None, tokens=len(attempt.tokens))
        text_tokens = attempt.tokens[: attempt.kept]
        words = self._words(text_tokens, tokenizer, encoded, frames) if request.timed else ()
        looped = attempt.kept is not None
        return WhisperResult(
            words,
            language,
            sure,
            len(attempt.tokens),
            not (looped or attempt.ended),
            (words[-1].end if words else 0.0) if looped else None,
            retried,
            tokenizer.decode(text_tokens).strip(),
            None if looped else mean_confidence([attempt.likely]),
            round(attempt.no_speech, 3),
            likely_language,
        )

    def knows(self, language: str) -> bool:
        """Return whether the model has a token for a language code of Whisper's."""
        return self._whisper.hf_tokenizer.token_to_id(f"<|{language}|>") is not None

    def _language(
        self, encoded: Any, request: WhisperRequest, before: str | None
    ) -> tuple[str, bool, float | None]:
        """Return the language, whether it is certain, and its probability if it was detected."""
        if not self.multilingual:
            return "en", True, None
        if request.language is not None:
            return request.language, True, None
        found = {token[2:-2]: one for token, one in self._whisper.model.detect_language(encoded)[0]}
        language, likely = next(iter(found.items()))  # the most likely one comes first
        if before not in (None, language) and likely < MIN_CHANGE_PROBABILITY:
            return before, False, round(found.get(before, 0.0), 3)
        return language, likely >= MIN_LANGUAGE_PROBABILITY, round(likely, 3)

    def _answers(
        self,
        encoded: Any,
        prompt: list[int],
        tokenizer: Tokenizer,
        limit: int,
        request: WhisperRequest,
    ) -> Iterator[Any]:
        """Yield the answer at the temperature of a request, then at those of its retries."""
        from faster_whisper.transcribe import get_suppressed_tokens

        more = TEMPERATURES if request.retries else ()
        ladder = [request.temperature, *(one for one in more if one > request.temperature)]
        for temperature in ladder:
            how: dict[str, Any] = {"beam_size": request.beams}
            if temperature:
                how = {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": temperature}
            yield self._whisper.model.generate(
                encoded,
                [prompt],
                # The output has at most half of this, or what the prompt leaves of it.
                max_length=max(2 * limit, len(prompt) + limit),
                return_scores=True,
                return_no_speech_prob=True,
                suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
                **how,
            )[0]

    def _words(
        self, tokens: Sequence[int], tokenizer: Tokenizer, encoded: Any, frames: int
    ) -> tuple[Word, ...]:
        if not tokens:
            return ()
        segment: list[dict[str, Any]] = [
            {"seek": 0, "start": 0.0, "end": frames / 100, "tokens": list(tokens)}
        ]
        self._whisper.add_word_timestamps(
            [segment],
            tokenizer,
            encoded,
            frames,
            _LEADING_MARKS,
            _TRAILING_MARKS,
            last_speech_timestamp=0.0,
        )
        return tuple(
            Word(
                float(word["start"]),
                float(word["end"]),
                word["word"],
                mean_confidence([math.log(max(MIN_CONFIDENCE, word["probability"]))]),
            )
            for word in segment[0]["words"]
        )


def _attempt(
    answer: Any, tokenizer: Tokenizer, seconds: float, limit: int, *, cut_short: bool
) -> WhisperAttempt:
    """Return an answer of CTranslate2's, which a request may have cut short."""
    tokens = tuple(answer.sequences_ids[0])
    count, text = len(tokens), tokenizer.decode(list(tokens))
    ended = count < limit
    return WhisperAttempt(
        tokens,
        text,
        answer.scores[0] * count / (count + 1),
        answer.no_speech_prob,
        ended,
        loop_guard.tokens_before_loop(tokens, text, seconds, ended=ended or cut_short),
    )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether CTranslate2, which has no other error class, found no room on the GPU."""
    return isinstance(error, RuntimeError) and "out of memory" in str(error)


def load_whisper(options: LoadOptions) -> WhisperRecognizer:
    """Load a folder of CTranslate2's onto its device.

    Raises:
        errors.ModelLoadFailed: it is invalid, or does not fit.
    """
    import ctranslate2
    from faster_whisper import WhisperModel

    assert options.checkpoint is not None
    folder = Path(options.checkpoint)
    device = choose_device(options.device, ctranslate2.get_cuda_device_count())
    precision, name = compute_type_of(
        options.precision, device, ctranslate2.get_supported_compute_types(device)
    )
    try:
        whisper = WhisperModel(
            str(folder),
            device=device,
            compute_type=name,
            cpu_threads=1 if options.live else cpu_threads(),
            num_workers=live_workers(device) if options.live else 1,
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        if is_out_of_memory(error):
            raise ModelLoadFailed.out_of_memory(precision) from None
        raise ModelLoadFailed(f"The Whisper model cannot be loaded: {cause_of(error)}.") from None
    return WhisperRecognizer(whisper, precision, whisper_model_name(folder))
