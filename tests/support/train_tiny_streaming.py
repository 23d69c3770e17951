"""Trains a tiny VibeVoice-ASR-Streaming checkpoint in the released layout, which knows the windows
of some clips by heart, whatever comes before them.

`python train_tiny_streaming.py FOLDER`, the task as JSON on stdin, is for tests without torch. The
model is VibeVoice-ASR with fewer layers and channels; names, configuration and files are those of
the release, with the decoder of the acoustic tokenizer and a diffusion head, which nobody needs.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from miniature_vibevoice import MARKS, Shape, build_model, build_tokenizer, encoders_of
from safetensors.torch import save_file
from torch import nn

from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.vibevoice.streaming_checkpoint import CHUNK_END, prompt_text

RATE, FRAME, CHUNK, LOOKAHEAD = 24_000, 3_200, 22, 4
SEEDS = (1, 2, 3)
SURE = 0.9
STEPS, MUON, ADAM = 200, 0.02, 1e-2
LESSON_CHUNKS = 6
NOISE = 0.3
"""Deviation of the noise on latents, whose own is 1: other resamplers give other digits."""


@dataclass(frozen=True)
class Window:
    """A window that is learned: the latents of both encoders, (frames, channels) each, and for
    each prompt its text as ids with the mark that closes it."""

    acoustic: torch.Tensor
    semantic: torch.Tensor
    ids: list[list[int]]


def windows_of(samples: Any) -> torch.Tensor:
    """The windows of a clip as the released code cuts them, shape (windows, 1, samples)."""
    count = -(-len(samples) // (CHUNK * FRAME))
    padded = np.pad(samples, (0, (count * CHUNK + LOOKAHEAD) * FRAME - len(samples)))
    starts = [at * CHUNK * FRAME for at in range(count)]
    return torch.from_numpy(
        np.stack([padded[at:][: (CHUNK + LOOKAHEAD) * FRAME] for at in starts])
    )[:, None]


def tuned_windows(model: Any, clips: list[dict[str, Any]], tokenizer: Any) -> list[list[Window]]:
    """What the encoders make of the windows, scaled so that latents have mean 0, deviation 1."""
    sounds = [windows_of(decode_audio_file(clip["path"], RATE)) for clip in clips]
    sounds = [one[: len(clip["texts"])] for one, clip in zip(sounds, clips, strict=True)]
    latents = []
    with torch.no_grad():
        for encoder in encoders_of(model):
            heard = [encoder(sound).latents for sound in sounds]
            every = torch.cat([one.flatten(0, 1) for one in heard])
            conv, mean, deviation = encoder.head.conv, every.mean(0), every.std(0)
            conv.weight /= deviation[:, None, None]
            conv.bias -= mean
            conv.bias /= deviation
            latents.append([(one - mean) / deviation for one in heard])
    end = tokenizer.convert_tokens_to_ids(CHUNK_END)

    def ids_of(text: str) -> list[int]:
        return [*tokenizer.encode(text, add_special_tokens=False), end]

    return [
        [
            Window(acoustic, semantic, [ids_of(text) for text in texts])
            for acoustic, semantic, *texts in zip(*heard, clip["texts"], clip["named"], strict=True)
        ]
        for *heard, clip in zip(*latents, clips, strict=True)
    ]


def loss_of(
    model: Any, lesson: list[Window], prompts: list[list[int]], number: int, marks: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Cross entropy over the texts of the windows in a row behind a prompt, and the least sure of
    their tokens."""
    table, prompt = model.get_input_embeddings(), prompts[number]
    parts, wanted = [table(torch.tensor(prompt))], [torch.full((len(prompt),), -1)]
    for window in lesson:
        heard = [
            one[None] + NOISE * torch.randn_like(one) for one in (window.acoustic, window.semantic)
        ]
        frames = model.model.multi_modal_projector(*heard)[0]
        ids = torch.tensor(window.ids[number])
        parts += [table(marks[:1]), frames, table(marks[1:]), table(ids)]
        wanted += [torch.full((len(frames) + 2,), -1), ids]
    hidden = model.model.language_model(
        inputs_embeds=torch.cat(parts)[None, :-1], use_cache=False
    ).last_hidden_state[0]
    target = torch.cat(wanted)[1:]
    taught = target >= 0
    losses = nn.functional.cross_entropy(
        model.lm_head(hidden[taught]), target[taught], reduction="none"
    )
    return losses.mean(), float(torch.exp(-losses.detach().max()))


def fit(model: Any, clips: list[list[Window]], prompts: list[list[int]], marks: Any) -> bool:
    """Train projector and language model on windows in any order, until they are sure."""
    language = model.model.language_model
    matrices = [p for p in language.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    parts = [model.model.multi_modal_projector, language, model.lm_head]
    rest = [p for part in parts for p in part.parameters() if id(p) not in known]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=ADAM, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    plans = [
        torch.optim.lr_scheduler.OneCycleLR(
            one, one.defaults["lr"], total_steps=STEPS, pct_start=0.1, cycle_momentum=False
        )
        for one in optimizers
    ]
    every = [window for clip in clips for window in clip]
    for step in range(STEPS):
        order = torch.randperm(len(every)).tolist()
        lessons = [
            [every[at] for at in order[first : first + LESSON_CHUNKS]]
            for first in range(0, len(order), LESSON_CHUNKS)
        ]
        found = [
            loss_of(model, lesson, prompts, (step + at) % len(prompts), marks)
            for at, lesson in enumerate(lessons)
        ]
        loss, least = torch.stack([one for one, _ in found]).mean(), min(one for _, one in found)
        if least > SURE - 0.1:
            with torch.no_grad():
                numbers = range(len(prompts))
                whole = [
                    loss_of(model, clip, prompts, one, marks)[1]
                    for clip in clips
                    for one in numbers
                ]
            least = min(least, *whole)
        if step % 10 == 0 or least > SURE:
            line = f"step {step}: loss {float(loss.detach()):.4f}, least {least:.4f}"
            print(line, file=sys.stderr, flush=True)
        if least > SURE:
            return True
        loss.backward()
        nn.utils.clip_grad_norm_([*matrices, *rest], 1.0)
        for one, plan in zip(optimizers, plans, strict=True):
            one.step()
            one.zero_grad()
            plan.step()
    return False


_ENCODER, _RELEASED = r"^model\.(\w+)_tokenizer_encoder\.", r"model.\1_tokenizer.encoder."
_PROJECTOR = r"^model\.multi_modal_projector\."
_ORIGINAL = [
    (_ENCODER + r"stem\.conv\.conv\.", _RELEASED + "downsample_layers.0.0.conv.conv."),
    (_ENCODER + r"stem\.stage\.", _RELEASED + "stages.0."),
    (_ENCODER + r"head\.conv\.", _RELEASED + "head.conv.conv."),
    (r"\.mixer\.conv\.", ".mixer.conv.conv.conv."),
    (_PROJECTOR + r"(\w+?)_linear_(\d)\.", r"model.\1_connector.fc\2."),
    (_PROJECTOR + r"(\w+?)_norm\.", r"model.\1_connector.norm."),
]


def original_name(name: str) -> str:
    """The name of a weight in the released layout."""
    for pattern, replacement in _ORIGINAL:
        name = re.sub(pattern, replacement, name)
    later = re.match(r"^model\.(\w+)_tokenizer_encoder\.conv_layers\.(\d+)\.(conv|stage)\.", name)
    if later is None:
        return name
    encoder, number, part = later[1], int(later[2]) + 1, later[3]
    place = f"downsample_layers.{number}.0.conv." if part == "conv" else f"stages.{number}."
    return f"model.{encoder}_tokenizer.encoder.{place}{name[later.end() :]}"


def original_config(model: Any, architecture: str) -> dict[str, Any]:
    """The configuration of a model in the original layout."""
    encoder = {
        "model_type": "vibevoice_acoustic_tokenizer",
        "encoder_depths": "-".join(["1"] * 7),
        "encoder_n_filters": 4,
        "encoder_ratios": [8, 5, 5, 4, 2, 2],
        "layernorm_eps": 1e-5,
        "layer_scale_init_value": 0.1,
        "causal": True,
        "fix_std": 0.5,
    }
    text = model.config.text_config.to_dict()
    return {
        "architectures": [architecture],
        "model_type": "vibevoice",
        "acoustic_vae_dim": 64,
        "semantic_vae_dim": 128,
        "acoustic_tokenizer_config": encoder | {"vae_dim": 64},
        "semantic_tokenizer_config": encoder | {"vae_dim": 128},
        "decoder_config": text,
        "diffusion_head_config": {"model_type": "vibevoice_diffusion_head"},
    }


def write_released(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the checkpoint in the released layout, with weights that nobody needs."""
    weights = {original_name(name): one.contiguous() for name, one in model.state_dict().items()}
    weights["model.acoustic_tokenizer.decoder.head.conv.convtr.weight"] = torch.ones(8, 8)
    weights["model.prediction_head.final_layer.linear.weight"] = torch.ones(8, 8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = original_config(model, "VibeVoiceForASRStreamingTraining")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    processor = {
        "processor_class": "VibeVoiceASRProcessor",
        "target_sample_rate": RATE,
        "speech_tok_compress_ratio": FRAME,
        "chunk_frames": CHUNK,
        "lookahead_frames": LOOKAHEAD,
        "normalize_audio": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    tokenizer.save_pretrained(folder)
    (folder / "added_tokens.json").write_text(json.dumps(tokenizer.get_added_vocab()), "utf-8")


def train(task: dict[str, Any], folder: Path, seed: int) -> bool:
    """One attempt: True if each token of each window is sure."""
    torch.manual_seed(seed)
    texts = [text for clip in task["clips"] for text in (*clip["texts"], *clip["named"])]
    asked = [prompt_text(context) for context in ("", task["context"])]
    tokenizer = build_tokenizer([*texts * 2, *asked * 3], [*MARKS, CHUNK_END])
    model = build_model(Shape(128, 2, 256), tokenizer)
    clips = tuned_windows(model, task["clips"], tokenizer)
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in asked]
    marks = tokenizer.convert_tokens_to_ids(["<|object_ref_start|>", "<|object_ref_end|>"])
    if not fit(model, clips, prompts, torch.tensor(marks)):
        return False
    folder.mkdir(exist_ok=True)
    write_released(model, tokenizer, folder)
    return True


def train_with_any_seed(task: dict[str, Any], folder: str) -> None:
    """Write what the first seed makes that learns the texts.

    Raises:
        RuntimeError: none does.
    """
    if not any(train(task, Path(folder), seed) for seed in SEEDS):
        raise RuntimeError("No seed learned the texts of the windows.")


if __name__ == "__main__":
    train_with_any_seed(json.load(sys.stdin), sys.argv[1])
