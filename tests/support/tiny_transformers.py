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
    from tiny_vibevoice import kept_model, loaded_torch, run_script, skip_without

    skip_without("vibevoice", "torch", "transformers")
    facts = [HERE.read_text(), kind, version("torch"), version("transformers")]

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


def _often_blank(model: Any, blank: int) -> None:
    import torch

    with torch.no_grad():
        model.joint.head.bias[blank] += 5.0


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


BUILDERS: dict[str, Callable[[Path], None]] = {
    "parakeet_ctc": partial(_parakeet, "ctc"),
    "parakeet_rnnt": partial(_parakeet, "rnnt"),
    "parakeet_tdt": partial(_parakeet, "tdt"),
    "moonshine": partial(_moonshine, "moonshine"),
    "moonshine_streaming": partial(_moonshine, "moonshine_streaming"),
}


if __name__ == "__main__":
    build(Path(sys.argv[1]), json.load(sys.stdin))
