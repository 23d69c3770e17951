"""A tiny real Voxtral Realtime with random weights, made here once and kept.

Its words mean nothing, but they hang on the sound: the token table is not the head's, and is large
beside the rest. Nothing here imports torch unless it is run (`python tiny_voxtral.py FOLDER`).
"""

import base64
import json
import sys
from pathlib import Path

HERE = Path(__file__)
SPECIALS, BYTES = 64, 256
NAMED = {
    0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]", 7: "[TOOL_RESULTS]", 8: "[/TOOL_RESULTS]", 9: "[TOOL_CALLS]",
    10: "[IMG]", 11: "<pad>", 12: "[IMG_BREAK]", 13: "[IMG_END]", 14: "[PREFIX]", 15: "[MIDDLE]",
    16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]", 19: "[TOOL_CONTENT]",
    24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[STREAMING_PAD]", 33: "[STREAMING_WORD]",
    34: "[ARGS]", 35: "[CALL_ID]", 36: "[THINK]", 37: "[/THINK]", 38: "[TRANSCRIBE]",
}  # fmt: skip
TEKKEN = {
    "config": {
        "pattern": r"\w+|\s+|[^\w\s]+",
        "num_vocab_tokens": BYTES,
        "default_vocab_size": SPECIALS + BYTES,
        "default_num_special_tokens": SPECIALS,
        "version": "v13",
    },
    "vocab": [
        {"rank": at, "token_bytes": base64.b64encode(bytes([at])).decode(), "token_str": None}
        for at in range(BYTES)
    ],
    "special_tokens": [
        {"rank": at, "token_str": NAMED.get(at, f"<SPECIAL_{at}>"), "is_control": True}
        for at in range(SPECIALS)
    ],
    "audio": {
        "sampling_rate": 16000,
        "frame_rate": 12.5,
        "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
        "transcription_format": "streaming",
        "transcription_delay_ms": 480,
        "streaming_look_ahead_ms": 2.5,
        "streaming_look_back_ms": 52.5,
        "streaming_n_left_pad_tokens": 32,
    },
}


def model() -> Path:
    """The folder of the checkpoint; some ten seconds when it is first asked for."""
    from tiny_vibevoice import written_by

    return written_by(HERE, "voxtral", "voxtral")


def build(folder: Path) -> None:
    """Write it."""
    import torch
    from transformers import (
        VoxtralRealtimeConfig,
        VoxtralRealtimeEncoderConfig,
        VoxtralRealtimeFeatureExtractor,
        VoxtralRealtimeForConditionalGeneration,
        VoxtralRealtimeTextConfig,
    )

    torch.manual_seed(0)
    text = VoxtralRealtimeTextConfig(
        vocab_size=SPECIALS + BYTES,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=64,
        tie_word_embeddings=False,
    )
    audio = VoxtralRealtimeEncoderConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=16,
        sliding_window=40,
    )
    config = VoxtralRealtimeConfig(audio_config=audio, text_config=text, tie_word_embeddings=False)
    model = VoxtralRealtimeForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                scale = 1.5 if "embed_tokens" not in name else 0.5
                weight.normal_(0, scale / weight.shape[-1] ** 0.5)
        model.lm_head.weight[:SPECIALS].mul_(0.5)
    model.save_pretrained(folder)
    VoxtralRealtimeFeatureExtractor().save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(TEKKEN), "utf-8")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
