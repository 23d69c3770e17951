"""Processor of VibeVoice-ASR for checkpoints in the original layout, which have none.

Microsoft's code makes its prompt of Qwen2.5's tokenizer and of texts of its own. These are the
texts, as a template: its token ids are those of the released processor.
"""

from pathlib import Path
from typing import Any

from transformers import (
    Qwen2Tokenizer,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceAsrProcessor,
)

_BEGIN, _AUDIO, _END = "<|object_ref_start|>", "<|box_start|>", "<|object_ref_end|>"
"""Marks of Qwen2.5 that stand for audio."""
_TEXT_END, _PADDING = "<|endoftext|>", "<|image_pad|>"
_KEYS = "Start time, End time, Speaker ID, Content"
_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant that transcribes audio input into text output "
    "in JSON format.<|im_end|>\n<|im_start|>user\n" + _BEGIN + _AUDIO + _END + "\n"
    "This is a <|AUDIO_DURATION|> seconds audio, "
    "{% set context = messages[-1].content | selectattr('type', 'equalto', 'text') | list %}"
    "{% if context %}with extra info: {{ context[-1].text }}\n\nPlease{% else %}please{% endif %} "
    "transcribe it with these keys: " + _KEYS + "<|im_end|>{{ '\\n' }}"
)


def original_processor(folder: Path) -> Any:
    """Return the processor with the tokenizer in a folder.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.eos_token, tokenizer.pad_token = _TEXT_END, _PADDING
    extractor = VibeVoiceAcousticTokenizerFeatureExtractor()
    return VibeVoiceAsrProcessor(extractor, tokenizer, chat_template=_TEMPLATE)


def audio_token_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the ids of the marks of audio, by their names in `VibeVoiceAsrConfig`."""
    names = "audio_bos_token_id", "audio_token_id", "audio_eos_token_id"
    ids = tokenizer.convert_tokens_to_ids([_BEGIN, _AUDIO, _END])
    return dict(zip(names, ids, strict=True))
