"""VibeVoice-ASR on ggml, as `VibeVoiceTranscription` uses a model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sidecar.audio import VIBEVOICE_SAMPLE_RATE, Block
from sidecar.engines.vibevoice.vibevoice_generation import (
    MAX_DRAFT_TOKENS,
    SEED,
    DraftedGeneration,
    NonFiniteLogits,
    PromptContinuation,
    WindowGeneration,
    segment_template_of,
)
from sidecar.engines.vibevoice.vibevoice_prompt import (
    DURATION_MARK,
    HOP_SAMPLES,
    loudness_factor,
    token_count,
    without_marks,
)
from sidecar.engines.vibevoice.vibevoice_transcription import (
    MIN_ANSWER_TOKENS,
    TOKENS_PER_SECOND,
)
from sidecar.errors import EngineFailed, ModelLoadFailed
from sidecar.interfaces.engine_interface import EngineSpec, MemoryPlan, Precision
from sidecar.transcripts.loop_guard import SamplingOptions
from vibevoice_asr_ggml.gguf_file import GgufFile, damaged
from vibevoice_asr_ggml.layout import (
    AUDIO_MARK,
    CONTEXT_MARK,
    CONTEXT_PROMPT,
    PROJECTORS,
    PROMPT,
    TOKENIZER,
    VibeVoiceLayout,
)
from vibevoice_asr_ggml.library import Device
from vibevoice_asr_ggml.networks import AudioEncoder, Floats, KeyValueCache, LanguageModel, Weights

TRIAL_S, TRIAL_TOKENS = 2.0, 4


def cache_positions(prompt_tokens: int, seconds: float) -> int:
    """Return the positions for a prompt and the longest answer to ``seconds`` of audio."""
    answer = ceil(TOKENS_PER_SECOND * seconds) + MIN_ANSWER_TOKENS
    return prompt_tokens + answer + MAX_DRAFT_TOKENS + 1


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """What a transcript says of the model; ``device`` has a ``type``."""

    precision: Precision
    device: Device


@dataclass
class GgmlModel:
    """Loaded model, for one thread at a time."""

    spec: EngineSpec
    loaded: LoadedFile
    layout: VibeVoiceLayout
    language: LanguageModel
    encoders: dict[str, AudioEncoder]
    tokenizer: Tokenizer
    prompts: tuple[str, str]
    """Without and with a context."""
    pace: tuple[float, float] = (0.0, 0.0)
    """Of `run_trial`."""
    narrow: bool = False
    out_of_memory: type[Exception] = MemoryError

    def __post_init__(self) -> None:
        self.template = segment_template_of(self.tokenizer)
        self._marks = {one.content for one in self.tokenizer.get_added_tokens_decoder().values()}
        self._audio = self.tokenizer.id_to_token(self.layout.audio_token) or AUDIO_MARK

    @classmethod
    def load(
        cls, file: GgufFile, spec: EngineSpec, precision: Precision, device: Device
    ) -> Iterator[float | GgmlModel]:
        """Load a file; yield the share that is loaded, then the model.

        Raises:
            errors.BadCheckpoint: the file is not usable.
            errors.ModelLoadFailed: it does not fit, or its values are not finite.
        """
        layout = VibeVoiceLayout.of(file)
        try:
            tokenizer = Tokenizer.from_str(file.fields[TOKENIZER])
        except Exception:  # a library in Rust, which raises only this
            raise damaged(file.path, "has a damaged tokenizer") from None
        if tokenizer.id_to_token(layout.audio_token) is None:
            raise damaged(file.path, "has a tokenizer without the mark of audio")
        weights = Weights(file, layout, device)
        try:
            for share in weights.load():
                yield share * 0.99
            encoders = {at: AudioEncoder(at, weights, layout, device) for at in PROJECTORS}
            model = cls(
                spec,
                LoadedFile(precision, device),
                layout,
                LanguageModel(weights, layout, device),
                encoders,
                tokenizer,
                (file.fields[PROMPT], file.fields[CONTEXT_PROMPT]),
            )
            model.pace = model.run_trial()
        except MemoryError:
            raise ModelLoadFailed.out_of_memory(precision) from None
        except NonFiniteLogits:
            raise damaged(file.path, "has values that are not finite") from None
        yield model

    def run_trial(self) -> tuple[float, float]:
        """Run two seconds of silence and some tokens through all of it; return the seconds that a
        second of audio took, and a token.

        Raises:
            NonFiniteLogits: a result is not finite.
        """
        silence = np.zeros(round(TRIAL_S * VIBEVOICE_SAMPLE_RATE), np.float32)
        marks = [time.perf_counter()]
        for _ in self.encoded(silence, TRIAL_S, drawn=False):
            marks.append(time.perf_counter())
        answer = self._begin_answer(silence, MemoryPlan(), "", drawn=False)
        marks.append(time.perf_counter())
        prompt_tokens = answer.cache.length
        for _ in range(TRIAL_TOKENS):
            answer.append([self.layout.audio_token])
        marks.append(time.perf_counter())
        encoders_s, both_s, tokens_s = (after - mark for mark, after in pairwise(marks))
        prefill_s = max(both_s - encoders_s, 0.0) / prompt_tokens * token_count(len(silence))
        return (encoders_s + prefill_s) / TRIAL_S, tokens_s / TRIAL_TOKENS

    def inference(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which it computes, which needs nothing."""
        return contextlib.nullcontext()

    def own_error(self, error: Exception) -> Exception:
        """Return an error of ggml as ours."""
        if isinstance(error, RuntimeError):
            return EngineFailed(f"{error}.")
        return error

    def free_memory(self) -> None:
        """Do nothing: caches are freed as they end."""

    def widen(self) -> None:
        """Do nothing: sums are fp32."""

    def decoding(self, plan: MemoryPlan) -> None:
        """Return nothing: there is one decoder."""

    def answers(
        self,
        windows: Sequence[Block],
        plan: MemoryPlan,
        check: Callable[[], None],
        planned_decoder: None,
        context: str = "",
        drawn: bool = False,
    ) -> Sequence[WindowGeneration]:
        """Encode windows and begin to answer, as `WindowModel.answers`."""
        device = self.loaded.device
        device.check = check
        try:
            return [
                WindowGeneration(
                    self._begin_answer(samples, plan, context, drawn=drawn),
                    self.tokenizer,
                    self.layout.ends,
                    len(samples) / VIBEVOICE_SAMPLE_RATE,
                )
                for samples in windows
            ]
        finally:
            device.check = None

    def prompt_ids(self, samples: int, context: str) -> list[int]:
        """Return the token ids of the prompt for a recording of ``samples`` at 24 kHz."""
        context = without_marks(context, {*self._marks, CONTEXT_MARK, AUDIO_MARK})
        text = self.prompts[bool(context)]
        text = text.replace(DURATION_MARK, f"{samples / VIBEVOICE_SAMPLE_RATE:.2f}")
        text = text.replace(AUDIO_MARK, self._audio * token_count(samples))
        text = text.replace(CONTEXT_MARK, context)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _begin_answer(
        self, samples: Block, plan: MemoryPlan, context: str, *, drawn: bool
    ) -> GgmlGeneration:
        check, tokens = self.loaded.device.check, token_count(len(samples))
        ids = self.prompt_ids(len(samples), context)
        if ids.count(self.layout.audio_token) != tokens:
            raise EngineFailed("The tokenizer of the checkpoint does not keep the marks of audio.")
        embeddings = self.language.embed(ids)
        first = ids.index(self.layout.audio_token)
        for at, heard in self.encoded(samples, plan.encoder_chunk_s, drawn=drawn):
            embeddings[first + at : first + at + len(heard)] = heard
        seconds = len(samples) / VIBEVOICE_SAMPLE_RATE
        cache = KeyValueCache(self.layout, self.loaded.device, cache_positions(len(ids), seconds))
        logits = embeddings[:0]
        for at in range(0, len(ids), plan.prefill_tile):
            if check is not None:
                check()
            logits = self.language.add(cache, embeddings[at : at + plan.prefill_tile], last=True)
        if not np.isfinite(logits).all():
            raise NonFiniteLogits
        return GgmlGeneration(self, cache, logits)

    def encoded(
        self, samples: Block, chunk_s: float, *, drawn: bool
    ) -> Iterator[tuple[int, Floats]]:
        """Yield the embeddings of chunks, each with the number of its first token."""
        layout, random = self.layout, np.random.default_rng(SEED)
        loud = layout.loudness
        factor = np.float32(loudness_factor(samples, *loud) if loud is not None else 1.0)
        chunk = max(1, round(chunk_s * VIBEVOICE_SAMPLE_RATE / HOP_SAMPLES)) * HOP_SAMPLES
        for encoder in self.encoders.values():
            encoder.begin()
        for at in range(0, len(samples), chunk):
            part = samples[at : at + chunk] * factor
            part = np.pad(part, (0, -len(part) % HOP_SAMPLES)).astype(np.float32)
            noise = None
            if drawn:
                shape = token_count(len(part)), layout.latents["at"]
                noise = (layout.noise * random.standard_normal(shape)).astype(np.float32)
            heard = self.encoders["at"].feed(part, noise)
            yield at // HOP_SAMPLES, heard + self.encoders["st"].feed(part)


class GgmlGeneration(DraftedGeneration):
    """Answer to one prompt, decoded by ggml."""

    cache: KeyValueCache

    def __init__(self, model: GgmlModel, cache: KeyValueCache, prompt_logits: Floats) -> None:
        self._model = model
        self._random = np.random.default_rng(SEED)
        super().__init__(cache, prompt_logits, model.template)

    @property
    def step(self) -> Callable[[Sequence[PromptContinuation]], Sequence[Any]]:
        """Return the function that adds tokens to each cache."""
        add = self._model.language.add
        return lambda wanted: [add(one.cache, one.ids) for one in wanted]

    def append(self, ids: Sequence[int]) -> Floats:
        """Add tokens to the cache; return the logits after the last."""
        return self._model.language.add(self.cache, ids, last=True)

    def likeliest(self, logits: Floats) -> Sequence[tuple[int, float]]:
        """Return the likeliest token of each row, and its log-likelihood."""
        best = logits.argmax(axis=-1)
        return [
            (int(token), _log_likelihood(row, int(token)))
            for row, token in zip(logits, best, strict=True)
        ]

    def draw(self, logits: Floats, sampling: SamplingOptions) -> tuple[int, float]:
        """Sample a token among the likeliest that make up ``top_p``."""
        scaled = (logits.astype(np.float64) - logits.max()) / sampling.temperature
        shares = np.exp(scaled) / np.exp(scaled).sum()
        order = np.argsort(-shares, kind="stable")
        before = np.cumsum(shares[order]) - shares[order]
        kept = order[before < sampling.top_p]
        token = int(self._random.choice(kept, p=shares[kept] / shares[kept].sum()))
        return token, _log_likelihood(logits, token)


def _log_likelihood(logits: Floats, token: int) -> float:
    highest = float(logits.max())
    return float(logits[token]) - highest - float(np.log(np.exp(logits - highest).sum()))
