"""Recognizers whose model is told in a prompt what to do: language, context, translation."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

from sidecar.audio import Block
from sidecar.interfaces.language_tags import language_code
from sidecar.plugins.transformers_asr.architectures import Architecture
from sidecar.plugins.transformers_asr.recognizer import RecognitionOptions
from sidecar.plugins.transformers_asr.text_recognizers import TextRecognizer

LANGUAGE_CODES = {name: code for code, name in LANGUAGE_CODE_TO_NAME.items()}
"""Codes of the languages of Qwen3-ASR."""
TRANSCRIPTION_WISH = "can you transcribe the speech into a written format?"
TRANSLATION_WISH = "can you translate the speech to English?"


class CanaryRecognizer(TextRecognizer):
    """Canary, which does not detect the language."""

    usual_language = "en"

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        source = language_code(options.language) or self.usual_language
        target = "en" if options.translate else source
        request = self.processor.apply_transcription_request
        return self._placed(request(audio, source_language=source, target_language=target))


class CohereRecognizer(TextRecognizer):
    """Cohere Transcribe, which does not detect the language."""

    usual_language = "en"

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        language = language_code(options.language) or self.usual_language
        return self._inputs(audio, language=language)


class QwenRecognizer(TextRecognizer):
    """Qwen3-ASR: it takes a context, and says the language unless it is told it."""

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        return self._placed(
            self.processor.apply_transcription_request(
                audio,
                language=language_code(options.language),
                prompt=options.prompt_with_hotwords or None,
            )
        )

    def _parse(self, text: str) -> tuple[str, str]:
        found = self.processor.parse_output(text)
        return found["transcription"], LANGUAGE_CODES.get(found["language"], "")


class GraniteRecognizer(TextRecognizer):
    """Granite Speech, a language model that is asked in words."""

    def __init__(self, model: Any, processor: Any, architecture: Architecture) -> None:
        if model.config.has_lora_adapter and find_spec("peft") is None:
            raise ImportError("its adapter needs the package peft")
        super().__init__(model, processor, architecture)

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        wish = TRANSLATION_WISH if options.translate else TRANSCRIPTION_WISH
        content = f"{self.processor.audio_token}{wish}"
        prompt = self.processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        samples = torch.from_numpy(audio)[None]
        return self._placed(self.processor(prompt, samples, return_tensors="pt"))
