"""A tiny real VibeVoice that speaks, with random weights that are loud, made here once and kept.

What it says means nothing, but every part has its share in it: the text, the sound so far, what the
head makes of noise. Nothing here imports torch unless it is run (`python tiny_vibevoice_tts.py
FOLDER`).
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__)
TEXTS = ("Good morning, Ada.", "It is half past three, and the train is late again.")
TEMPLATE = (
    " Transform the text provided by various speakers into speech output, utilizing the distinct "
    "voice of each respective speaker.\n"
    "{% set heard = namespace(any=false) %}"
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}"
    "{% if not heard.any %}{% set heard.any = true %} Voice input:\n{% endif %}"
    " Speaker {{ message['role'] }}:<|vision_start|><|vision_pad|><|vision_end|>\n"
    "{% endif %}{% endfor %}{% endfor %}"
    " Text input:\n"
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %} Speaker {{ message['role'] }}: {{ part['text'] }}\n"
    "{% endif %}{% endfor %}{% endfor %}"
    " Speech output:\n<|vision_start|>"
)
"""As the released processor puts it."""
SEED, LIKED = 6, 0.35
"""With these it says all there is: sound, its end, its beginning anew, and no more."""
MARKS = ["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]


def model() -> Path:
    """The folder of the checkpoint; some ten seconds when it is first asked for."""
    from tiny_vibevoice import written_by

    return written_by(HERE, "speaking", "vibevoice")


def build(folder: Path) -> None:
    """Write it."""
    import torch
    from miniature_vibevoice import END, build_tokenizer
    from torch import nn
    from transformers import (
        Qwen2Config,
        VibeVoiceAcousticTokenizerFeatureExtractor,
        VibeVoiceConfig,
        VibeVoiceForConditionalGeneration,
        VibeVoiceProcessor,
    )
    from transformers.models.vibevoice.configuration_vibevoice import VibeVoiceDiffusionHeadConfig
    from transformers.models.vibevoice_acoustic_tokenizer import (
        VibeVoiceAcousticTokenizerConfig,
        VibeVoiceAcousticTokenizerEncoderConfig,
    )

    torch.manual_seed(SEED)
    tokenizer = build_tokenizer([TEMPLATE, *TEXTS])
    tokenizer.add_special_tokens({"extra_special_tokens": MARKS})
    begin, end, sound = tokenizer.convert_tokens_to_ids(MARKS)
    last = tokenizer.convert_tokens_to_ids(END)
    small = {"num_filters": 4, "depths": [1] * 7, "layer_scale_init_value": 0.1}
    config = VibeVoiceConfig(
        audio_config=VibeVoiceAcousticTokenizerConfig(**small),
        semantic_model_config=VibeVoiceAcousticTokenizerEncoderConfig(hidden_size=128, **small),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=65_536,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=False,
        ),
        diffusion_head_config=VibeVoiceDiffusionHeadConfig(intermediate_size=288),
        pad_token_id=last,
        eos_token_id=last,
        audio_bos_token_id=begin,
        audio_eos_token_id=end,
        audio_token_id=sound,
    )
    model = VibeVoiceForConditionalGeneration(config).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.Linear):
            # The default, 0.01, makes all sound silence.
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    with torch.no_grad():
        # All that it hears and reads has something in common, after which mostly sound follows.
        common = torch.randn(96)
        model.model.language_model.embed_tokens.weight.normal_().add_(common)
        model.model.multi_modal_projector.linear_2.bias.copy_(common)
        model.lm_head.weight[sound].add_(LIKED * common / 96**0.5)
    model.save_pretrained(folder)
    VibeVoiceProcessor(
        VibeVoiceAcousticTokenizerFeatureExtractor(), tokenizer, chat_template=TEMPLATE
    ).save_pretrained(folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
