"""`transformers serve` with a tiny Whisper of random weights: python serve_transformers_whisper.py
PORT FOLDER.

It says letters that depend on the sound, which is all that is asked of it here.
"""

import sys

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.cli.serve import Serve
from transformers.convert_slow_tokenizer import bytes_to_unicode

END, BEGIN = "<|endoftext|>", "<|startoftranscript|>"
MARKS = (END, BEGIN, "<|en|>", "<|transcribe|>", "<|notimestamps|>")
LETTERS = set("abcdefghijklmnopqrstuvwxyzĠ")


def make(folder: str) -> None:
    """Write the checkpoint."""
    vocabulary = {sign: at for at, sign in enumerate([*bytes_to_unicode().values(), *MARKS])}
    tokenizer = WhisperTokenizer(
        vocab=vocabulary, merges=[], unk_token=END, bos_token=END, eos_token=END, pad_token=END
    )
    torch.manual_seed(3)
    marks = {f"{name}_token_id": vocabulary[END] for name in ("pad", "bos", "eos")}
    marks["decoder_start_token_id"] = vocabulary[BEGIN]
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_target_positions=64,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        init_std=1.0,
        **marks,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_new_tokens=24,
        suppress_tokens=[at for sign, at in vocabulary.items() if sign not in LETTERS],
        **marks,
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    make(sys.argv[2])
    Serve(force_model=sys.argv[2], port=int(sys.argv[1]), host="127.0.0.1", device="cpu")
