"""Microsoft's own class of VibeVoice-ASR with random weights, as `bench.vibevoice_reference` asks.

A program of its own that imports nothing of this project: their package needs transformers 4. It
reads ``request.json`` and ``clips.npz`` in the folder named last, and writes there the checkpoint
(``original/``, in the released layout) and ``reference.npz``, what the class made of each clip:

    python -m bench.microsoft_reference SOURCE TOKENIZER FOLDER
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

SEED, GREEDY_TOKENS = 7, 48


def random_model(vocabulary: int) -> Any:
    """A few layers in the released shapes, whose weights give sounds and tokens apart from each
    other (with the class's own start values all sound is the same to seven digits)."""
    from vibevoice.modular import configuration_vibevoice, modeling_vibevoice_asr

    encoder: dict[str, Any] = {
        "encoder_n_filters": 4,
        "encoder_depths": "2-1-1-1-1-1-2",
        "encoder_ratios": [8, 5, 5, 4, 2, 2],
        "layer_scale_init_value": 0.3,
        "layernorm_eps": 1e-5,
    }
    config = configuration_vibevoice.VibeVoiceASRConfig(
        acoustic_tokenizer_config={
            "vae_dim": 64,
            "decoder_n_filters": 4,
            "fix_std": 0.5,
            "std_dist_type": "gaussian",
            **encoder,
        },
        semantic_tokenizer_config={
            "vae_dim": 128,
            "fix_std": 0,
            "std_dist_type": "none",
            **encoder,
        },
        decoder_config={
            "model_type": "qwen2",
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": vocabulary,
            "max_position_embeddings": 131_072,
            "rope_theta": 1e6,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
        },
        architectures=["VibeVoiceForASRTraining"],
    )
    model = modeling_vibevoice_asr.VibeVoiceASRForConditionalGeneration(config).eval()
    for name, weight in model.named_parameters():
        if "gamma" in name:
            continue  # the scale of a block, as configured
        if weight.ndim == 1:
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            torch.nn.init.normal_(weight, mean=mean, std=0.1)
        else:
            inputs = 1 if "embed_tokens" in name else weight[0].numel()
            gain = 1.0 if "embed_tokens" in name or "_tokenizer." in name else 1.5
            torch.nn.init.normal_(weight, std=gain * inputs**-0.5)
    return model


def main() -> None:
    """Write the checkpoint and what the class makes of the clips."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("source", "tokenizer", "folder"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    tokenizer_folder, folder = str(asked.tokenizer), asked.folder
    sys.path.insert(0, str(asked.source))
    from vibevoice.processor.vibevoice_asr_processor import VibeVoiceASRProcessor

    request = json.loads((folder / "request.json").read_text("utf-8"))
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    original = folder / "original"
    with torch.no_grad():
        model = random_model(request["vocabulary"]).to(getattr(torch, request["dtype"]))
    model.config.torch_dtype = getattr(torch, request["dtype"])
    model.save_pretrained(original, safe_serialization=True)
    model.model.acoustic_tokenizer.std_dist_type = "none"  # the mean, as VIBEVOICE_USE_MEAN does
    processor = VibeVoiceASRProcessor.from_pretrained(
        str(original), language_model_pretrained_name=tokenizer_folder
    )
    answer = processor.tokenizer.encode(request["answer"], add_special_tokens=False)
    found: dict[str, Any] = {"answer": np.array(answer)}
    for name, samples in np.load(folder / "clips.npz").items():
        context = request["context"] if name.endswith("+context") else None
        inputs = processor(audio=samples, return_tensors="pt", context_info=context)
        speech = {name: inputs[name] for name in ("speech_tensors", "speech_masks")}
        ids, mask = inputs["input_ids"], inputs["acoustic_input_mask"]
        with torch.no_grad():
            features = model.encode_speech(**speech)
            whole = torch.cat([ids, torch.tensor([answer])], dim=1)
            logits = model(
                input_ids=whole,
                attention_mask=torch.ones_like(whole),
                acoustic_input_mask=torch.nn.functional.pad(mask, (0, len(answer))),
                use_cache=False,
                return_dict=True,
                **speech,
            ).logits[0, ids.shape[1] - 1 :]
            greedy = model.generate(
                **inputs,
                max_new_tokens=GREEDY_TOKENS,
                do_sample=False,
                pad_token_id=processor.pad_id,
                eos_token_id=processor.tokenizer.eos_token_id,
            )[0, ids.shape[1] :]
        found |= {
            f"{name}/ids": ids[0].numpy(),
            f"{name}/speech": inputs["speech_tensors"][0].numpy(),
            f"{name}/features": features.float().numpy(),
            f"{name}/logits": logits.float().numpy(),
            f"{name}/greedy": greedy.numpy(),
        }
        print(f"reference: {name}, {ids.shape[1]} ids", flush=True)
    np.savez(folder / "reference.npz", **found)


if __name__ == "__main__":
    main()
