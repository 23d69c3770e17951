"""The released VibeVoice-ASR in small: its own classes, fewer layers, a vocabulary of hundreds."""

import json
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import (
    Qwen2Config,
    Qwen2TokenizerFast,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceAsrConfig,
    VibeVoiceAsrForConditionalGeneration,
    VibeVoiceAsrProcessor,
)
from transformers.models.vibevoice_acoustic_tokenizer import VibeVoiceAcousticTokenizerEncoderConfig

END, IMAGE_PAD, AUDIO = "<|endoftext|>", "<|image_pad|>", "<|box_start|>"
MARKS = ["<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", AUDIO]
"""The processor finds its audio tokens by these names."""
DURATION = "<|AUDIO_DURATION|>"
"""No token: the processor puts the seconds here."""
SYSTEM = "You are a helpful assistant that transcribes audio input into text output in JSON format."
KEYS = "these keys: Start time, End time, Speaker ID, Content"
CHAT_TEMPLATE = (
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n<|im_start|>user\n"
    "{% set said = namespace(text='') %}"
    "{% for part in messages[-1]['content'] %}"
    "{% if part['type'] == 'text' %}{% set said.text = part['text'] %}{% endif %}"
    "{% endfor %}<|object_ref_start|>" + AUDIO + "<|object_ref_end|>\n"
    "This is a " + DURATION + " seconds audio, "
    "{% if said.text %}with extra info: {{ said.text }}\n\nPlease{% else %}please{% endif %}"
    " transcribe it with " + KEYS + "<|im_end|>{{ '\n' }}"
)
ANSWER_HEAD, ANSWER_TAIL = "<|im_start|>assistant\n", "<|im_end|>\n" + END
"""The model writes both itself."""


@dataclass(frozen=True)
class Shape:
    """Of the language model."""

    hidden: int
    layers: int
    mlp: int


def answer_text(row: dict[str, Any]) -> str:
    """What the model writes for a row; an endless one never closes its list."""
    text = json.dumps(row["segments"], ensure_ascii=False, separators=(",", ":"))
    return ANSWER_HEAD + (text[:-1] + "," if row["endless"] else text + ANSWER_TAIL)


def build_tokenizer(texts: list[str], marks: list[str] = MARKS) -> Qwen2TokenizerFast:
    """Byte-level BPE over just these texts; every other text is spelled in bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    start = Qwen2TokenizerFast(vocab={END: 0}, merges=[], unk_token=END)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = start.backend_tokenizer.pre_tokenizer
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(bpe.to_str())["model"]
    return Qwen2TokenizerFast(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        unk_token=END,
        eos_token=END,
        pad_token=IMAGE_PAD,
        extra_special_tokens=marks,
    )


def build_processor(rows: list[dict[str, Any]]) -> VibeVoiceAsrProcessor:
    """The released processor's parts around a small vocabulary."""
    answers = [answer_text(row) for row in rows if not row["endless"]]
    question = f"{SYSTEM}\nuser\nThis is a 0.00 seconds audio, please transcribe it with {KEYS}"
    return VibeVoiceAsrProcessor(
        VibeVoiceAcousticTokenizerFeatureExtractor(),
        build_tokenizer([*answers, *[question] * 3, *[row["prompt"] or "" for row in rows]]),
        chat_template=CHAT_TEMPLATE,
    )


def encoders_of(model: Any) -> list[Any]:
    """The two that are never trained, acoustic and semantic."""
    return [model.model.acoustic_tokenizer_encoder, model.model.semantic_tokenizer_encoder]


def build_model(shape: Shape, tokenizer: Qwen2TokenizerFast) -> Any:
    """A random model: the released shapes with fewer layers and channels."""
    begin, end, audio = tokenizer.convert_tokens_to_ids(MARKS[2:])

    def encoder(hidden_size: int) -> VibeVoiceAcousticTokenizerEncoderConfig:
        # The default layer scale, 1e-6, would make random blocks the identity.
        return VibeVoiceAcousticTokenizerEncoderConfig(
            hidden_size=hidden_size, num_filters=4, depths=[1] * 7, layer_scale_init_value=0.1
        )

    config = VibeVoiceAsrConfig(
        acoustic_tokenizer_encoder_config=encoder(64),
        semantic_tokenizer_encoder_config=encoder(128),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=131_072,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=False,
        ),
        audio_token_id=audio,
        audio_bos_token_id=begin,
        audio_eos_token_id=end,
    )
    model = VibeVoiceAsrForConditionalGeneration(config)
    for module in nn.ModuleList(encoders_of(model)).modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            # The default, 0.01, makes all sound the same to seven digits.
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    model.generation_config.update(
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(IMAGE_PAD),
        do_sample=False,
        max_new_tokens=32_768,
    )
    return model
