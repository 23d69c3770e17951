"""Layout of a VibeVoice-ASR-Streaming checkpoint: configuration, names of weights, tokens.

The checkpoint is in the original layout (`model_type: vibevoice`), of which the decoder half of the
acoustic tokenizer and the diffusion head are not needed. Its encoders, connectors and language
model are those of VibeVoice-ASR, so the class of transformers for that model loads it once the
configuration and the names are translated as the conversion of VibeVoice-ASR does (transformers,
`convert_vibevoice_asr_to_hf.py`). Nothing here imports torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sidecar import errors

ENCODERS = ("acoustic", "semantic")
_PROMPT = (
    "You are a helpful assistant that transcribes audio input into text output. "
    "Please transcribe the following audios streamingly with these keys: speaker, content"
)
CHUNK_END, TEXT_END = "<|text_chunk_end|>", "<|endoftext|>"
SPEECH_BEGIN, SPEECH_END = "<|object_ref_start|>", "<|object_ref_end|>"
"""Marks around the audio of a chunk: the tokenizer of the original code names them so."""


def transformers_config(original: Mapping[str, Any]) -> dict[str, Any]:
    """Return `VibeVoiceAsrConfig` as plain values, from the ``config.json`` of the checkpoint.

    Raises:
        KeyError, ValueError: a part is missing or has another form.
    """
    parts = {
        f"{name}_tokenizer_encoder_config": _encoder_config(original[f"{name}_tokenizer_config"])
        for name in ENCODERS
    }
    return {**parts, "text_config": {"model_type": "qwen2", **original["decoder_config"]}}


def _encoder_config(original: Mapping[str, Any]) -> dict[str, Any]:
    depths = original["encoder_depths"]
    if isinstance(depths, str):
        depths = [int(depth) for depth in depths.split("-")]
    return {
        "model_type": "vibevoice_acoustic_tokenizer_encoder",
        "hidden_size": original["vae_dim"],
        "num_filters": original["encoder_n_filters"],
        "downsampling_ratios": [*reversed(original["encoder_ratios"])],
        "depths": depths,
        "rms_norm_eps": original["layernorm_eps"],
        "layer_scale_init_value": original["layer_scale_init_value"],
    }


def weight_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return regular expressions for the original names of weights and their replacements, which
    `from_pretrained` applies. Weights that no expression places are not read.

    ``config``: from `transformers_config`.
    """
    names = {r"\.mixer\.conv\.conv\.conv\.": ".mixer.conv."}
    for encoder in ENCODERS:
        old = rf"^model\.{encoder}_tokenizer\.encoder\."
        new = f"model.{encoder}_tokenizer_encoder."
        stages = len(config[f"{encoder}_tokenizer_encoder_config"]["depths"])
        for stage in range(stages):  # the first is the stem, so the others move down by one
            prefix = f"conv_layers.{stage - 1}." if stage else "stem."
            names[rf"{old}downsample_layers\.{stage}\.0\.conv\.conv\."] = f"{new}{prefix}conv.conv."
            names[rf"{old}stages\.{stage}\."] = f"{new}{prefix}stage."
        names[rf"{old}head\.conv\.conv\."] = f"{new}head.conv."
        connector = rf"^model\.{encoder}_connector\."
        projector = f"model.multi_modal_projector.{encoder}_"
        names[rf"{connector}fc1\."] = f"{projector}linear_1."
        names[rf"{connector}fc2\."] = f"{projector}linear_2."
        names[rf"{connector}norm\."] = f"{projector}norm."
    return names


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
        try:
            values = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
            sizes = [
                int(values[name])
                for name in (
                    "target_sample_rate",
                    "speech_tok_compress_ratio",
                    "chunk_frames",
                    "lookahead_frames",
                )
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise errors.CheckpointDamaged(
                f"preprocessor_config.json cannot be read: {errors.cause_of(error)}."
            ) from None
        marks = []
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


def prompt_text(context: str) -> str:
    """Return the text before the audio; ``context``: names and terms, without marks."""
    return f"{_PROMPT} and extra info: {context}\n" if context else f"{_PROMPT}\n"
