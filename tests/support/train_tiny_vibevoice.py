"""Trains a tiny checkpoint of the real VibeVoice-ASR architecture that knows a few clips by heart.

`python train_tiny_vibevoice.py FOLDER`, the task as JSON on stdin, is for tests without torch. The
model is the released one with fewer layers and channels and a vocabulary of some hundred entries;
questions and answers are unchanged.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import torch
from miniature_vibevoice import (
    AUDIO,
    DURATION,
    Shape,
    answer_text,
    build_model,
    build_processor,
    encoders_of,
)
from torch import nn
from transformers import AutoProcessor, VibeVoiceAsrForConditionalGeneration

from sidecar.audio.audio_decoder import decode_audio_file

RATE = 24_000
FRAME_S = 3_200 / RATE
"""Seconds that one latent stands for."""
FRAMES = (40, 226)
"""Shortest and longest (exclusive) lesson; 225 are 30.0 s."""
SEEDS = (1, 2, 3)
SURE = 0.9
"""The probability that every right token must reach: bf16, int8 and nf4 need some of it."""


@dataclass(frozen=True)
class Size:
    """A language model, and how it learns.

    ``muon`` and ``adam`` are the learning rates of its matrices and of the rest. ``noise`` is the
    deviation of the deviation of the noise on the acoustic latents, as in the model itself.
    """

    shape: Shape
    muon: float
    adam: float
    steps: int
    noise: float = 0.625


SIZES = {
    "tiny": Size(Shape(128, 2, 256), muon=0.02, adam=1e-2, steps=90),
    "loop": Size(Shape(128, 2, 256), muon=0.02, adam=5e-3, steps=90, noise=0.0),
}
"""Their widths are multiples of nf4's blocks of 64."""


@dataclass(frozen=True)
class Sample:
    """A request and its answer: two lists of ids, and latents of shape (1, frames, channels)."""

    prompt: torch.Tensor
    answer: torch.Tensor
    acoustic: torch.Tensor
    semantic: torch.Tensor


@dataclass(frozen=True)
class Lesson:
    """A row of the recipe: what is asked as text, what is heard, what is answered."""

    whole: Sample
    question: str
    tokenizer: Any

    def of_any_length(self) -> Sample:
        """The clip cut or repeated by chance, so that only what is heard tells which it is.

        Otherwise the seconds named in the question are all that a model learns to look at.
        """
        count = int(torch.randint(*FRAMES, ()))
        seconds = (count - float(torch.rand(()))) * FRAME_S
        text = self.question.replace(DURATION, f"{seconds:.2f}")
        ids = self.tokenizer(text.replace(AUDIO, AUDIO * count), return_tensors="pt")["input_ids"]
        again = torch.arange(count) % self.whole.acoustic.shape[1]
        return Sample(
            ids[0], self.whole.answer, self.whole.acoustic[:, again], self.whole.semantic[:, again]
        )


Heard = dict[str, list[torch.Tensor]]
"""Of each clip the latents by both encoders, each of shape (1, frames, channels)."""


def hear(model: Any, processor: Any, sounds: dict[str, Any]) -> Heard:
    """What both encoders make of the clips."""
    heard = {}
    for name, sound in sounds.items():
        values = processor.apply_transcription_request(audio=sound)["input_values"]
        with torch.no_grad():
            heard[name] = [encoder(values).latents for encoder in encoders_of(model)]
    return heard


def tune_encoders(model: Any, heard: Heard) -> Heard:
    """Scale both encoders so that the clips get latents of mean 0 and deviation 1: these."""
    tuned: Heard = {name: [] for name in heard}
    with torch.no_grad():
        for at, encoder in enumerate(encoders_of(model)):
            every = torch.cat([latents[at] for latents in heard.values()], dim=1)[0]
            conv, mean, deviation = encoder.head.conv, every.mean(0), every.std(0)
            conv.weight /= deviation[:, None, None]
            conv.bias -= mean
            conv.bias /= deviation
            for name, latents in heard.items():
                tuned[name].append((latents[at] - mean) / deviation)
    return tuned


def build_lessons(
    processor: Any, rows: list[dict[str, Any]], sounds: dict[str, Any], heard: Heard
) -> list[Lesson]:
    """The requests as the product makes them."""
    lessons = []
    for row in rows:
        request = {"audio": sounds[row["clip"]], "prompt": row["prompt"]}
        ids = processor.apply_transcription_request(**request)["input_ids"][0]
        question = processor.apply_transcription_request(**request, tokenize=False)[0]
        answer = processor.tokenizer(answer_text(row), return_tensors="pt")["input_ids"][0]
        whole = Sample(ids, answer, *heard[row["clip"]])
        lessons.append(Lesson(whole, question, processor.tokenizer))
    return lessons


def loss_of(model: Any, samples: list[Sample], noise: float = 0.0) -> tuple[torch.Tensor, float]:
    """Cross entropy over the answers, and the lowest probability that a right token got."""
    each = []
    for sample in samples:  # one by one: rows of such different lengths would be half padding
        ids = torch.cat([sample.prompt, sample.answer])[None, :-1]
        acoustic = sample.acoustic
        if noise:
            acoustic = acoustic + noise * torch.randn(1) * torch.randn_like(acoustic)
        heard = model.model.multi_modal_projector(acoustic, sample.semantic)
        embeds = model.get_input_embeddings()(ids)
        is_audio = (ids == model.config.audio_token_id)[..., None].expand_as(embeds)
        hidden = model.model.language_model(
            inputs_embeds=embeds.masked_scatter(is_audio, heard), use_cache=False
        ).last_hidden_state[0, len(sample.prompt) - 1 :]
        logits = model.lm_head(hidden)
        each.append(nn.functional.cross_entropy(logits, sample.answer, reduction="none"))
    losses = torch.cat(each)
    return losses.mean(), float(torch.exp(-losses.detach().max()))


def fit(model: Any, lessons: list[Lesson], size: Size) -> bool:
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
        torch.optim.AdamW(rest, lr=size.adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    plans = [
        torch.optim.lr_scheduler.OneCycleLR(
            one, one.defaults["lr"], total_steps=size.steps, pct_start=0.1, cycle_momentum=False
        )
        for one in optimizers
    ]
    for step in range(size.steps):
        loss, least = loss_of(model, [lesson.of_any_length() for lesson in lessons], size.noise)
        if least > SURE - 0.1:
            with torch.no_grad():
                least = loss_of(model, [lesson.whole for lesson in lessons])[1]
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


def train(task: dict[str, Any], folder: str, seed: int) -> bool:
    """One attempt: True when each token of each answer is sure, so that they are what is decoded.

    test_vibevoice_decoder.py has them decoded.
    """
    torch.manual_seed(seed)
    size, rows, start = SIZES[task["size"]], task["samples"], task["start"]
    sounds = {name: decode_audio_file(path, RATE) for name, path in task["clips"].items()}
    if start:
        processor = AutoProcessor.from_pretrained(start)
        model = VibeVoiceAsrForConditionalGeneration.from_pretrained(start)
    else:
        processor = build_processor(rows)
        model = build_model(size.shape, processor.tokenizer)
    heard = hear(model, processor, sounds)
    if not start:
        heard = tune_encoders(model, heard)
    if not fit(model, build_lessons(processor, rows, sounds, heard), size):
        return False
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return True


def train_with_any_seed(task: dict[str, Any], folder: str) -> None:
    """Write what the first seed makes that learns the answers.

    Raises:
        RuntimeError: none does.
    """
    if not any(train(task, folder, seed) for seed in SEEDS):
        raise RuntimeError(f"No seed learned the answers of {task['size']!r}.")


if __name__ == "__main__":
    train_with_any_seed(json.load(sys.stdin), sys.argv[1])
