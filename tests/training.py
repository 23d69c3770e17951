"""Trains a tiny checkpoint of the real VibeVoice-ASR architecture that knows a few clips by heart.

Run as a process of its own (`python training.py recipe.json folder`), so that seeds, threads and
the memory of torch stay out of the tests. Facts and figures: the model's config with fewer layers
and channels, the tokenizer cut to some hundred entries, the answer format untouched.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoProcessor,
    Qwen2Config,
    Qwen2TokenizerFast,
    VibeVoiceAcousticTokenizerFeatureExtractor,
    VibeVoiceAsrConfig,
    VibeVoiceAsrForConditionalGeneration,
    VibeVoiceAsrProcessor,
)
from transformers.models.vibevoice_acoustic_tokenizer import VibeVoiceAcousticTokenizerEncoderConfig

from sidecar.audio.decode import decode_file

RATE = 24_000
END, IMAGE_PAD, AUDIO = "<|endoftext|>", "<|image_pad|>", "<|box_start|>"
SPECIAL = [
    *(END, "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"),
    *("<|object_ref_end|>", AUDIO, IMAGE_PAD),
]
KEYS = "these keys: Start time, End time, Speaker ID, Content"
CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant that transcribes audio input into text output"
    " in JSON format.<|im_end|>\n<|im_start|>user\n"
    "{%- set said = namespace(text='') -%}"
    "{%- for part in messages[-1]['content'] -%}"
    "{%- if part['type'] == 'text' -%}{%- set said.text = part['text'] -%}{%- endif -%}"
    "{%- endfor %}<|object_ref_start|><|box_start|><|object_ref_end|>\n"
    "This is a <|AUDIO_DURATION|> seconds audio, "
    "{% if said.text %}with extra info: {{ said.text }}\n\nPlease transcribe it with "
    + KEYS
    + "{% else %}please transcribe it with "
    + KEYS
    + "{% endif %}<|im_end|>\n"
)
ANSWER_HEAD, ANSWER_TAIL = "<|im_start|>assistant\n", "<|im_end|>\n<|endoftext|>"


@dataclass(frozen=True)
class Size:
    """Of the language model; ``muon`` is the learning rate of its matrices."""

    hidden: int
    layers: int
    mlp: int
    muon: float
    adam: float
    steps: int


SIZES = {
    "tiny": Size(96, 3, 256, 0.02, 1e-2, 100),
    "mid": Size(256, 3, 512, 0.02, 5e-3, 80),
    "loop": Size(96, 3, 256, 0.01, 5e-3, 60),
}
"""In 256, every matrix has a side that nf4 can cut in blocks of 64."""
NOISE = 0.0
SEEDS = (1, 2, 3)


@dataclass
class Sample:
    """One request and its answer: ids of the prompt, ids of the answer, latents of the clip."""

    prompt: torch.Tensor
    answer: torch.Tensor
    acoustic: torch.Tensor
    semantic: torch.Tensor


def build_tokenizer(texts: list[str]) -> Qwen2TokenizerFast:
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
        extra_special_tokens=SPECIAL[1:-1],
    )


def build_processor(rows: list[dict[str, Any]]) -> VibeVoiceAsrProcessor:
    """The released processor's parts around a small vocabulary."""
    answers = [answer_text(row) for row in rows if not row["endless"]]
    plain = CHAT_TEMPLATE.split("{%-")[0] + "This is a 0.00 seconds audio, with extra info: " + KEYS
    return VibeVoiceAsrProcessor(
        VibeVoiceAcousticTokenizerFeatureExtractor(),
        build_tokenizer([*answers, *[plain] * 3, *[row["prompt"] or "" for row in rows]]),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(size: Size, processor: VibeVoiceAsrProcessor) -> Any:
    """A random model: the released shapes with fewer layers and channels."""
    tokenizer = processor.tokenizer

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
            hidden_size=size.hidden,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=131_072,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=False,
        ),
        audio_token_id=processor.audio_token_id,
        audio_bos_token_id=processor.audio_bos_token_id,
        audio_eos_token_id=processor.audio_eos_token_id,
    )
    model = VibeVoiceAsrForConditionalGeneration(config)
    model.generation_config.update(
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(IMAGE_PAD),
        do_sample=False,
        max_new_tokens=32_768,
    )
    return model


def answer_text(row: dict[str, Any]) -> str:
    """What the model writes for a row; an endless one never closes its list."""
    text = json.dumps(row["segments"], ensure_ascii=False, separators=(",", ":"))
    return ANSWER_HEAD + (text[:-1] + "," if row["endless"] else text + ANSWER_TAIL)


def build_samples(
    model: Any, processor: Any, rows: list[dict[str, Any]], sounds: dict[str, Any]
) -> list[Sample]:
    """The requests as the product makes them; each clip goes through the encoders once."""
    parts = model.model.acoustic_tokenizer_encoder, model.model.semantic_tokenizer_encoder
    latents: dict[str, list[torch.Tensor]] = {}
    samples = []
    for row in rows:
        name, prompt = row["clip"], row["prompt"]
        inputs = processor.apply_transcription_request(audio=sounds[name], prompt=prompt)
        if name not in latents:
            with torch.no_grad():
                latents[name] = [part(inputs["input_values"]).latents for part in parts]
        answer = processor.tokenizer(answer_text(row), return_tensors="pt")["input_ids"][0]
        samples.append(Sample(inputs["input_ids"][0], answer, *latents[name]))
    return samples


def loss_of(model: Any, samples: list[Sample], noise: float = 0.0) -> tuple[torch.Tensor, float]:
    """Cross entropy over the answers, and the lowest probability that a right token got."""
    rows, targets, where = [], [], []
    embed = model.get_input_embeddings()
    for sample in samples:
        ids = torch.cat([sample.prompt, sample.answer])[:-1]
        acoustic = sample.acoustic
        if noise:
            acoustic = acoustic + noise * torch.randn(1) * torch.randn_like(acoustic)
        heard = model.model.multi_modal_projector(acoustic, sample.semantic)[0]
        is_audio = (ids == model.config.audio_token_id)[:, None].expand(-1, heard.shape[1])
        rows.append(embed(ids).masked_scatter(is_audio, heard))
        first = len(sample.prompt) - 1
        where.append(slice(first, first + len(sample.answer)))
        targets.append(sample.answer)
    # Padded on the right: with causal attention no row sees its padding, so no mask is needed.
    batch = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    hidden = model.model.language_model(inputs_embeds=batch, use_cache=False).last_hidden_state
    answers = torch.cat([row[part] for row, part in zip(hidden, where, strict=True)])
    each = nn.functional.cross_entropy(model.lm_head(answers), torch.cat(targets), reduction="none")
    return each.mean(), float(torch.exp(-each.detach().max()))


def fit(model: Any, samples: list[Sample], size: Size) -> bool:
    """Train projector and language model until every token is all but certain."""
    language = model.model.language_model
    matrices = [p for p in language.layers.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    rest = [
        p
        for part in (model.model.multi_modal_projector, language, model.lm_head)
        for p in part.parameters()
        if id(p) not in known
    ]
    optimizers = [
        torch.optim.Muon(matrices, lr=size.muon, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=size.adam, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    plans = [
        torch.optim.lr_scheduler.OneCycleLR(
            one, one.defaults["lr"], total_steps=size.steps, pct_start=0.1, cycle_momentum=False
        )
        for one in optimizers
    ]
    for step in range(size.steps):
        loss, least = loss_of(model, samples, NOISE)
        if step % 10 == 0 or least > 0.9:
            print(f"step {step} loss {float(loss.detach()):.4f} least {least:.4f}", flush=True)
        if least > 0.9:
            return True
        loss.backward()
        nn.utils.clip_grad_norm_([*matrices, *rest], 1.0)
        for one, plan in zip(optimizers, plans, strict=True):
            one.step()
            one.zero_grad()
            plan.step()
    return False


def is_right(model: Any, processor: Any, audio: Any, row: dict[str, Any]) -> bool:
    """Whether a checkpoint says in its own words what it was trained to."""
    inputs = processor.apply_transcription_request(audio=audio, prompt=row["prompt"])
    limit = 1024
    with torch.inference_mode():
        ids = model.generate(**inputs, sample=False, max_new_tokens=limit)
    ids = ids[:, inputs["input_ids"].shape[1] :]
    said = processor.decode(ids, return_format="parsed")[0]
    if not row["endless"]:
        return bool(said == row["segments"])
    first, again = row["segments"][0], row["segments"][-1]
    return ids.shape[1] == limit and said[0] == first and all(one == again for one in said[1:])


def train(task: dict[str, Any], folder: str, seed: int) -> bool:
    """One attempt: True when what was written to ``folder`` and loaded again answers rightly."""
    torch.manual_seed(seed)
    size = SIZES[task["size"]]
    start = task["start"]
    processor = AutoProcessor.from_pretrained(start) if start else build_processor(task["samples"])
    model = (
        VibeVoiceAsrForConditionalGeneration.from_pretrained(start)
        if start
        else build_model(size, processor)
    )
    sounds = {name: decode_file(path, RATE) for name, path in task["clips"].items()}
    if not fit(model, build_samples(model, processor, task["samples"], sounds), size):
        return False
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    model = VibeVoiceAsrForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    return all(is_right(model, processor, sounds[row["clip"]], row) for row in task["samples"])


if __name__ == "__main__":
    job = json.load(sys.stdin)
    if not any(train(job, sys.argv[1], seed) for seed in SEEDS):
        sys.exit(f"No seed learned the answers of {job['size']!r}.")
