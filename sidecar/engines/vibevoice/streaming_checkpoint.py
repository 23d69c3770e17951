"""Windows and marks of a VibeVoice-ASR-Streaming checkpoint. Nothing here imports torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sidecar import errors
from sidecar.checkpoints.original_layout import transformers_config, weight_names

__all__ = ["StreamingFormat", "prompt_text", "transformers_config", "weight_names", "window_sizes"]
_PROMPT = (
    "You are a helpful assistant that transcribes audio input into text output. "
    "Please transcribe the following audios streamingly with these keys: speaker, content"
)
_SIZES = "target_sample_rate", "speech_tok_compress_ratio", "chunk_frames", "lookahead_frames"
CHUNK_END, TEXT_END = "<|text_chunk_end|>", "<|endoftext|>"
SPEECH_BEGIN, SPEECH_END = "<|object_ref_start|>", "<|object_ref_end|>"
"""Marks around the audio of a chunk: the tokenizer of the original code names them so."""


@dataclass(frozen=True, slots=True)
class StreamingFormat:
    """Windows and marks of a streaming checkpoint.

    A window has ``chunk_frames`` new frames and ``lookahead_frames`` after them, of
    ``frame_samples`` samples at ``rate`` each; the next begins ``chunk_frames`` later.
    """

    rate: int
    frame_samples: int
    chunk_frames: int
    lookahead_frames: int
    speech_begin: int
    speech_end: int
    chunk_end: int
    text_end: int

    @classmethod
    def read(cls, folder: Path, tokenizer: Any) -> Self:
        """Read the format of a checkpoint; ``tokenizer``: a `tokenizers.Tokenizer`.

        Raises:
            errors.CheckpointDamaged: a value or a mark is missing.
        """
        sizes, marks = window_sizes(folder), []
        for mark in (SPEECH_BEGIN, SPEECH_END, CHUNK_END, TEXT_END):
            id_ = tokenizer.token_to_id(mark)
            if id_ is None:
                raise errors.CheckpointDamaged(f"The tokenizer of the checkpoint has no {mark}.")
            marks.append(id_)
        return cls(*sizes, *marks)

    @property
    def chunk_samples(self) -> int:
        """Return the samples from one window to the next."""
        return self.chunk_frames * self.frame_samples

    @property
    def window_frames(self) -> int:
        """Return the frames of a window."""
        return self.chunk_frames + self.lookahead_frames

    @property
    def window_samples(self) -> int:
        """Return the samples of a window."""
        return self.window_frames * self.frame_samples


def window_sizes(folder: Path) -> Sequence[int]:
    """Return the first four fields of the `StreamingFormat` of a checkpoint.

    Raises:
        errors.CheckpointDamaged: a value is missing or too small.
    """
    try:
        values = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
        sizes = [int(values[name]) for name in _SIZES]
        if min(sizes[:-1]) < 1 or sizes[-1] < 0:
            raise ValueError(f"{dict(zip(_SIZES, sizes, strict=True))} has no audio")
        return sizes
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.CheckpointDamaged(
            f"preprocessor_config.json cannot be read: {errors.cause_of(error)}."
        ) from None


def prompt_text(context: str) -> str:
    """Return the text before the audio; ``context``: names and terms, without marks."""
    return f"{_PROMPT} and extra info: {context}\n" if context else f"{_PROMPT}\n"
