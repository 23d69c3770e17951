"""Tiny checkpoints of the real architectures that the engine `transformers` runs, with random
weights and real processors, each made here once and kept.

Their words mean nothing, but they hang on the sound. Nothing here imports torch unless it is run
(`python tiny_transformers.py FOLDER KIND`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__)
SYLLABLES = [f"{first}{last}" for first in "bdfgklmnprst" for last in "aeiou"]
PIECES = [*(f"▁{one}" for one in SYLLABLES), *SYLLABLES, "▁", ".", ","]


def model(kind: str) -> Path:
    """The folder of a checkpoint of ``kind``, its `model_type`; seconds when it is first asked
    for."""
    import pytest
    from tiny_vibevoice import kept_model, loaded_torch, run_script, skip_without

    skip_without("vibevoice", "torch", "transformers")
    if kind == "granite_speech":
        pytest.importorskip("torchaudio", reason="Granite Speech needs torchaudio")
    facts = [HERE.read_text(encoding="utf-8"), kind, version("torch"), version("transformers")]

    def make(folder: Path) -> None:
        if torch := loaded_torch():
            with torch.random.fork_rng(devices=[]):
                build(folder, kind)
        else:
            run_script(HERE, folder, kind)

    return kept_model(kind, facts, make)


def build(folder: Path, kind: str) -> None:
    """Write the checkpoint."""
    import torch

    torch.manual_seed(0)
    BUILDERS[kind](folder)


def _tokenizer(specials: Sequence[str], last: Sequence[str] = ()) -> Any:
    """A tokenizer with special tokens before its pieces, and others behind them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = [*specials, *PIECES, *last]
    found = Tokenizer(models.BPE({name: at for at, name in enumerate(names)}, []))
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    return found


def _sounding(model: Any) -> Any:
    """Random weights so large that the output hangs on the sound."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.normal_(0, 1.4 / weight[0].numel() ** 0.5)
    return model.eval()


def _often_blank(model: Any, blank: int, bias: float = 5.0) -> None:
    import torch

    with torch.no_grad():
        model.joint.head.bias[blank] += bias


def _parakeet_encoder() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "subsampling_conv_channels": 8,
    }


def _parakeet(kind: str, folder: Path) -> None:
    import transformers

    blank = "<pad>" if kind == "ctc" else "<blank>"
    specials = ["<unk>"] if kind == "ctc" else ["<unk>", "<pad>"]
    tokenizer = transformers.ParakeetTokenizer(
        tokenizer_object=_tokenizer(specials, [blank]), unk_token="<unk>", pad_token="<pad>"
    )
    if kind != "ctc":
        tokenizer.add_special_tokens({"additional_special_tokens": [blank]})
    size = len(tokenizer)
    sizes = {"vocab_size": size, "encoder_config": _parakeet_encoder()}
    if kind == "ctc":
        config = transformers.ParakeetCTCConfig(**sizes, pad_token_id=size - 1)
        model = _sounding(transformers.ParakeetForCTC(config))
    else:
        sizes |= {"decoder_hidden_size": 32, "pad_token_id": 1, "blank_token_id": size - 1}
        name = kind.upper()
        config = getattr(transformers, f"Parakeet{name}Config")(**sizes)
        model = _sounding(getattr(transformers, f"ParakeetFor{name}")(config))
        _often_blank(model, size - 1)
        model.generation_config.decoder_start_token_id = size - 1
        durations = len(getattr(config, "durations", ()))
        model.generation_config.suppress_tokens = [*range(size, size + durations)] or None
    model.save_pretrained(folder)
    transformers.ParakeetProcessor(
        transformers.ParakeetFeatureExtractor(), tokenizer, blank_token=blank, decoder_type=kind
    ).save_pretrained(folder)


def _moonshine(kind: str, folder: Path) -> None:
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(["<unk>", "<s>", "</s>"]),
        unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
    )  # fmt: skip
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64}
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    if kind == "moonshine":
        config = transformers.MoonshineConfig(
            **sizes, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2,
            encoder_num_attention_heads=4, decoder_num_attention_heads=4,
        )  # fmt: skip
        model = transformers.MoonshineForConditionalGeneration(config)
        processor = transformers.Wav2Vec2Processor(extractor, tokenizer)
    else:
        encoder = {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 4,
            "sliding_windows": [[16, 4], [16, 0]],
        }  # fmt: skip
        config = transformers.MoonshineStreamingConfig(
            **sizes, encoder_config=encoder, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, decoder_start_token_id=1,
        )  # fmt: skip
        model = transformers.MoonshineStreamingForConditionalGeneration(config)
        processor = transformers.MoonshineStreamingProcessor(extractor, tokenizer)
    _sounding(model).save_pretrained(folder)
    processor.save_pretrained(folder)


def _nemotron(kind: str, folder: Path) -> None:
    import transformers

    tags = ["<en-US>", "<de-DE>"] if kind == "nemotron3_5_asr" else []
    tokenizer = transformers.ParakeetTokenizer(
        tokenizer_object=_tokenizer(["<pad>", "<unk>"], [*tags, "<blank>"]),
        unk_token="<unk>", pad_token="<pad>", additional_special_tokens=["<blank>"],
    )  # fmt: skip
    size = len(tokenizer)
    sizes = {
        "vocab_size": size,
        "decoder_hidden_size": 32,
        "blank_token_id": size - 1,
        "encoder_config": {**_parakeet_encoder(), "sliding_window": 29},
    }
    extractor = transformers.NemotronAsrStreamingFeatureExtractor()
    if kind == "nemotron_asr_streaming":
        config = transformers.NemotronAsrStreamingConfig(**sizes)
        model = transformers.NemotronAsrStreamingForRNNT(config)
        processor = transformers.NemotronAsrStreamingProcessor(extractor, tokenizer)
    else:
        config = transformers.Nemotron3_5AsrConfig(**sizes, prompt_intermediate_size=64)
        model = transformers.Nemotron3_5AsrForRNNT(config)
        processor = transformers.Nemotron3_5AsrProcessor(extractor, tokenizer)
    _often_blank(_sounding(model), size - 1, 3.5 if kind == "nemotron_asr_streaming" else 0.5)
    model.generation_config.decoder_start_token_id = size - 1
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


CANARY_TEMPLATE = """{%- set asked = messages[0]["content"][1] -%}
<|startofcontext|><|startoftranscript|><|emo:undefined|><|{{ asked["source_language"] }}|>\
<|{{ asked["target_language"] }}|><|pnc|>"""
LANGUAGES = ["en", "de"]
CANARY_TOKENS = [
    "<unk>", "<pad>", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>",
    "<|endoftext|>", "<|pnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>",
    *(f"<|{language}|>" for language in LANGUAGES),
]  # fmt: skip


def _prompted_tokenizer() -> Any:
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(CANARY_TOKENS),
        unk_token="<unk>", pad_token="<pad>", eos_token="<|endoftext|>",
        bos_token="<|startoftranscript|>", additional_special_tokens=CANARY_TOKENS[2:],
    )  # fmt: skip


def _canary(folder: Path) -> None:
    import transformers

    tokenizer = _prompted_tokenizer()
    tokens = {"pad_token_id": 1, "bos_token_id": 3, "eos_token_id": 5}
    size = len(tokenizer)
    decoder = {
        "vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, **tokens,
    }  # fmt: skip
    config = transformers.CanaryConfig(
        vocab_size=size, encoder_config=_parakeet_encoder(), decoder_config=decoder,
        decoder_start_token_id=2, **tokens,
    )  # fmt: skip
    model = _sounding(transformers.CanaryForConditionalGeneration(config))
    model.save_pretrained(folder)
    transformers.CanaryProcessor(
        transformers.ParakeetFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=CANARY_TEMPLATE,
    ).save_pretrained(folder)


def _cohere(folder: Path) -> None:
    import transformers

    tokenizer = _prompted_tokenizer()
    size = len(tokenizer)
    config = transformers.CohereAsrConfig(
        encoder_config={**_parakeet_encoder(), "num_mel_bins": 128},
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        pad_token_id=1, bos_token_id=3, eos_token_id=5, decoder_start_token_id=2,
    )  # fmt: skip
    model = _sounding(transformers.CohereAsrForConditionalGeneration(config))
    model.save_pretrained(folder)
    transformers.CohereAsrProcessor(
        transformers.CohereAsrFeatureExtractor(), tokenizer
    ).save_pretrained(folder)


QWEN_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message["role"] }}{% for part in message["content"] -%}
{%- if part["type"] == "text" %}{{ part["text"] }}{% else %}<|audio_start|><|audio_pad|>\
<|audio_end|>{% endif %}{% endfor %}<|im_end|>
{%- endfor -%}"""
QWEN_AUDIO = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}


def _qwen(folder: Path) -> None:
    import transformers

    specials = ["<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", *QWEN_AUDIO.values()]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(specials),
        unk_token="<unk>", pad_token="<|endoftext|>", eos_token="<|im_end|>",
        extra_special_tokens=QWEN_AUDIO, additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    audio = {
        "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "d_model": 32,
        "output_dim": 32, "downsample_hidden_size": 8,
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "tie_word_embeddings": False,
    }  # fmt: skip
    config = transformers.Qwen3ASRConfig(
        audio_config=audio, text_config=text, audio_token_id=4, timestamp_token_id=0,
        pad_token_id=1, eos_token_id=3, tie_word_embeddings=False,
    )  # fmt: skip
    model = _sounding(transformers.Qwen3ASRForConditionalGeneration(config))
    model.generation_config.eos_token_id = 3
    model.save_pretrained(folder)
    transformers.Qwen3ASRProcessor(
        transformers.Qwen3ASRFeatureExtractor(), tokenizer, chat_template=QWEN_TEMPLATE
    ).save_pretrained(folder)


def _kyutai(folder: Path) -> None:
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(["<epad>", "<unk>", "<s>", "<pad>"]),
        unk_token="<unk>", bos_token="<s>", pad_token="<pad>",
        additional_special_tokens=["<epad>"],
    )  # fmt: skip
    size = len(tokenizer)
    codec = {
        "model_type": "mimi", "hidden_size": 32, "num_filters": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 64,
        "codebook_size": 64, "codebook_dim": 16, "vector_quantization_hidden_dimension": 16,
        "num_quantizers": 4, "upsample_groups": 32,
    }  # fmt: skip
    config = transformers.KyutaiSpeechToTextConfig(
        codebook_vocab_size=65, vocab_size=size, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, head_dim=16, ffn_dim=64, num_codebooks=4, audio_bos_token_id=64,
        audio_pad_token_id=size + 4 * 65, pad_token_id=3, bos_token_id=2, codec_config=codec,
    )  # fmt: skip
    model = _sounding(transformers.KyutaiSpeechToTextForConditionalGeneration(config))
    model.save_pretrained(folder)
    transformers.KyutaiSpeechToTextProcessor(
        transformers.KyutaiSpeechToTextFeatureExtractor(
            audio_delay_seconds=0.5, audio_silence_prefix_seconds=1.0
        ),
        tokenizer,
    ).save_pretrained(folder)


def _granite(folder: Path) -> None:
    """Needs torchaudio."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(["<unk>", "<pad>", "</s>", "<|audio|>"]),
        unk_token="<unk>", pad_token="<pad>", eos_token="</s>",
        additional_special_tokens=["<|audio|>"],
    )  # fmt: skip
    tokenizer.chat_template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"
    encoder = {
        "input_dim": 160, "num_layers": 2, "hidden_dim": 32, "num_heads": 2, "output_dim": 8,
        "context_size": 20, "max_pos_emb": 64,
    }  # fmt: skip
    text = {
        "model_type": "granite", "vocab_size": len(tokenizer), "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2,
    }  # fmt: skip
    projector = {
        "model_type": "blip_2_qformer", "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64, "encoder_hidden_size": 32,
        "cross_attention_frequency": 1,
    }  # fmt: skip
    config = transformers.GraniteSpeechConfig(
        encoder_config=encoder, text_config=text, projector_config=projector, audio_token_index=3,
        has_lora_adapter=False, tie_word_embeddings=False,
    )  # fmt: skip
    model = _sounding(transformers.GraniteSpeechForConditionalGeneration(config))
    model.save_pretrained(folder)
    transformers.GraniteSpeechProcessor(
        transformers.GraniteSpeechFeatureExtractor(), tokenizer
    ).save_pretrained(folder)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "parakeet_ctc": partial(_parakeet, "ctc"),
    "parakeet_rnnt": partial(_parakeet, "rnnt"),
    "parakeet_tdt": partial(_parakeet, "tdt"),
    "moonshine": partial(_moonshine, "moonshine"),
    "moonshine_streaming": partial(_moonshine, "moonshine_streaming"),
    "nemotron_asr_streaming": partial(_nemotron, "nemotron_asr_streaming"),
    "nemotron3_5_asr": partial(_nemotron, "nemotron3_5_asr"),
    "canary": _canary,
    "granite_speech": _granite,
    "cohere_asr": _cohere,
    "qwen3_asr": _qwen,
    "kyutai_speech_to_text": _kyutai,
}


if __name__ == "__main__":
    build(Path(sys.argv[1]), json.load(sys.stdin))
