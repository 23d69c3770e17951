"""VibeVoice-ASR-Streaming: loading, cold windows, one growing cache for a session.

The algorithm is that of the released code (microsoft/VibeVoice at 1541f590, greedy): each window
goes through both encoders from a cold state, its frames behind the cache of all before it, and the
model writes the text of the chunk until it closes it. The acoustic latents are the encoder's mean;
the released code adds noise, so that its words vary from run to run.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer, VibeVoiceAsrConfig

from sidecar.audio import Block
from sidecar.engines.torch_inference import silence_libraries
from sidecar.engines.vibevoice import vibevoice_model
from sidecar.engines.vibevoice.streamed_segment import ChunkText
from sidecar.engines.vibevoice.streaming_checkpoint import (
    StreamingFormat,
    prompt_text,
    transformers_config,
    weight_names,
)
from sidecar.engines.vibevoice.torch_generation import log_likelihoods
from sidecar.engines.vibevoice.vibevoice_decoder import (
    KeyValueCache,
    PlannedDecoder,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_generation import PromptContinuation
from sidecar.gpu_memory.streaming_memory import REMEMBERED_CHUNKS
from sidecar.interfaces.engine_interface import MemoryPlan, Precision
from sidecar.transcripts.loop_guard import TokenRepetition

MAX_CHUNK_TOKENS = 256
"""Tokens of a chunk of 2.93 s at most, as in the released code."""


@dataclass(frozen=True, slots=True)
class LoadedStreamingModel(vibevoice_model.LoadedVibeVoice):
    """Loaded model with the format of its windows; its processor is a tokenizer."""

    format: StreamingFormat


def load_streaming_model(
    folder: Path, precision: Precision, device: torch.device, kept: Sequence[str] = ()
) -> LoadedStreamingModel:
    """Load the weights that are needed, once and directly to the device, and check that they run.
    No modules are ``kept`` on the host.

    Raises:
        OSError, KeyError, ValueError, RuntimeError: the checkpoint is invalid.
        errors.CheckpointDamaged: its format cannot be read.
        errors.ModelLoadFailed: it loads, but this machine cannot run it at this precision.
    """
    original = json.loads((folder / "config.json").read_text("utf-8"))
    values = transformers_config(original)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    found = StreamingFormat.read(folder, tokenizer.backend_tokenizer)
    silence_libraries()
    dtype = vibevoice_model.float_type(precision, device)
    model = vibevoice_model.with_all_weights(
        folder,
        "vibevoice-streaming",
        config=VibeVoiceAsrConfig(**values),
        key_mapping=weight_names(values),
        quantization_config=vibevoice_model.quantization(precision, dtype, parted=False),
        dtype=dtype,
        device_map={"": device},
    )
    model.eval().requires_grad_(False)
    vibevoice_model.run_trial_token(model, precision)
    return LoadedStreamingModel(model, tokenizer, device, precision, found)


class StreamingModel:
    """Loaded model for many sessions; the caller provides `torch.inference_mode` and runs one call
    at a time."""

    def __init__(self, loaded: LoadedStreamingModel, plan: MemoryPlan) -> None:
        self.loaded, self.format = loaded, loaded.format
        self._plan = plan
        inner = loaded.model.model
        self._encoders = inner.acoustic_tokenizer_encoder, inner.semantic_tokenizer_encoder
        self._projector = inner.multi_modal_projector
        self._decoder = VibeVoiceDecoder(loaded.model)
        self._decoding = PlannedDecoder(self._decoder, plan)
        self._last: Callable[[], StreamingSession | None] = lambda: None
        """Return the session of the last call, if that was one alone and goes on."""

    def open(self, context: str = "") -> "StreamingSession":
        """Begin a session; ``context``: names and terms."""
        tokenizer = self.loaded.processor
        text = prompt_text(vibevoice_model.sanitize_context(tokenizer, context))
        ids = tokenizer.encode(text, add_special_tokens=False)
        if self._last() is None:  # its graph would keep the cache of a session that has ended
            self._decoding = PlannedDecoder(self._decoder, self._plan)
        cache = self._decoder.new_cache(self._plan, len(ids))
        self._decoding.prefill(self._decoder.embed(torch.tensor(ids)), cache)
        return StreamingSession(cache)

    @property
    def renewed_at(self) -> int:
        """Return the positions of a cache after which it begins again."""
        return self._plan.cache_tokens - self.format.window_frames - MAX_CHUNK_TOKENS - 3

    def encode(self, windows: Sequence[Block]) -> Tensor:
        """Return the embeddings ``(windows, frames, hidden)`` of windows of at most
        `StreamingFormat.window_samples` samples; shorter ones are padded with zeros."""
        like = self._decoder
        waves = torch.zeros(len(windows), 1, self.format.window_samples)
        for row, samples in zip(waves, windows, strict=True):
            row[0, : len(samples)] = torch.from_numpy(samples)
        waves = waves.to(like.device, like.dtype)
        acoustic, semantic = (encoder(waves).latents for encoder in self._encoders)
        embeddings: Tensor = self._projector(acoustic, semantic)
        return embeddings

    def transcribe(
        self, sessions: Sequence["StreamingSession"], windows: Sequence[Block]
    ) -> list[ChunkText]:
        """Add a window to each of the sessions; return the texts of their chunks, decoded in
        step."""
        renewed = [one for one in sessions if one.cache.length >= self.renewed_at]
        for session in renewed:
            self._renew(session)
        for session, frames in zip(sessions, self.encode(windows), strict=True):
            session.begin(frames, self._add(session.cache, frames, first=not session.chunks))
        # A graph is of one set of caches, and its capture costs some passes.
        alone = len(sessions) == 1
        step = self._decoding.step if alone and self._last() is sessions[0] else self._decoder.step
        self._last = ref(sessions[0]) if alone else lambda: None
        open_ = [*sessions]
        while open_ := [one for one in open_ if one.takes(self.format)]:
            passes = [PromptContinuation([one.ids[-1]], one.cache) for one in open_]
            for session, logits in zip(open_, step(passes), strict=True):
                session.logits = logits[-1]
        return [
            ChunkText(
                self.loaded.processor.decode(one.ids, skip_special_tokens=True),
                tuple(one.likelihoods),
                one.looped,
                one in renewed,
                one.forget_text,
            )
            for one in sessions
        ]

    def _add(self, cache: KeyValueCache, frames: Tensor, *, first: bool) -> Tensor:
        """Add the audio of a chunk behind the mark that closes the one before it; return the
        logits ``(vocabulary,)`` after it."""
        form = self.format
        marks = self._decoder.embed(
            torch.tensor([form.chunk_end, form.speech_begin, form.speech_end])
        )
        return self._decoding.prefill(
            torch.cat([marks[1 if first else 0 : 2], frames, marks[2:]]), cache
        )

    def _renew(self, session: "StreamingSession") -> None:
        """Begin the cache again with the prompt and the last chunks, whose texts are known, so
        that the numbers of their speakers stay."""
        session.cache.length = session.prompt_tokens
        session.remember(max(0, self.renewed_at - session.prompt_tokens) // 2)
        for number, (frames, ids) in enumerate(session.remembered):
            self._add(session.cache, frames, first=not number)
            if ids:
                self._decoding.prefill(self._decoder.embed(torch.tensor(ids)), session.cache)


class SessionMark(NamedTuple):
    """State of a session between two chunks: the positions of its cache, and its last chunks."""

    positions: int
    chunks: int
    remembered: list[tuple[Tensor, list[int]]]


class StreamingSession:
    """One session: its cache, and the text of the current chunk.

    The cache begins with the prompt. Each chunk adds its frames between their marks, its text, and,
    once the next one comes, the mark that closes it.
    """

    def __init__(self, cache: KeyValueCache) -> None:
        self.cache, self.prompt_tokens = cache, cache.length
        self.remembered: deque[tuple[Tensor, list[int]]] = deque(maxlen=REMEMBERED_CHUNKS)
        """Embeddings ``(frames, hidden)`` and text of the last chunks."""
        self.chunks = 0
        self.logits = torch.empty(0)
        self.ids: list[int] = []
        self.likelihoods: list[float] = []
        self.looped = False
        self._repetition = TokenRepetition()

    def mark(self) -> SessionMark:
        """Return the state between two chunks."""
        return SessionMark(self.cache.length, self.chunks, [*self.remembered])

    def go_back(self, mark: SessionMark) -> None:
        """Forget what was added since ``mark``."""
        self.cache.length, self.chunks = mark.positions, mark.chunks
        self.remembered.clear()
        self.remembered.extend(mark.remembered)

    def begin(self, frames: Tensor, logits: Tensor) -> None:
        """Begin the text of a chunk, given its audio and the logits ``(vocabulary,)`` after it."""
        self.chunks += 1
        self.logits = logits
        self.ids, self.likelihoods, self.looped = [], [], False
        self._repetition = TokenRepetition()
        self.remembered.append((frames.clone(), self.ids))  # not a view of the whole batch

    def remember(self, most: int) -> None:
        """Forget the earliest chunks until the others take at most ``most`` positions."""
        while sum(len(frames) + len(ids) + 3 for frames, ids in self.remembered) > most:
            self.remembered.popleft()

    def takes(self, stream_format: StreamingFormat) -> bool:
        """Choose the next token of the chunk; return whether a pass over it is needed."""
        if len(self.ids) == MAX_CHUNK_TOKENS:
            self.looped = True
            return False
        best = self.logits.argmax()
        token = int(best)
        if token in (stream_format.chunk_end, stream_format.text_end):
            return False
        self.likelihoods.append(float(log_likelihoods(self.logits[None], best[None])))
        self.ids.append(token)
        self._repetition.add(token)
        copied = self._repetition.copied()
        if not copied:
            return True
        self._cut(copied)
        self.cache.length += 1  # the last token was not in it
        return False

    def forget_text(self) -> None:
        """Go on as if nothing was said in the last chunk: its text is a loop."""
        self._cut(len(self.ids))

    def _cut(self, tokens: int) -> None:
        """Forget the last tokens of the chunk, which repeat others."""
        self.looped = True
        self.cache.length -= tokens
        del self.ids[len(self.ids) - tokens :], self.likelihoods[len(self.ids) :]
