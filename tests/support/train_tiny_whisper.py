"""Trains a tiny Whisper that knows two clips by heart, each in its language, and converts it.

A process of its own (`python train_tiny_whisper.py FOLDER`, the task as JSON on stdin), so that
seeds, threads and the memory of torch stay out of the tests. The class is transformers' own, the
conversion CTranslate2's, the vocabulary as long as that of the released models: CTranslate2
tells by it whether a model knows languages. One head of the last layer is
taught where each word is, as the heads of a released model know it, for the times of words. The
encoder stays as chance made it, and hears each window once: it would be most of the work.
"""

import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from faster_whisper.audio import pad_or_trim
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizerFast

from sidecar.audio.audio_decoder import decode_audio_file

EOT, VOCABULARY = 50_257, 51_865
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in _LANGUAGE_CODES if code != "yue"),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]
RATE, FRAMES_PER_S = 16_000, 50
LENGTH = 480_000
STEPS, SEEDS, SURE, GOOD = 200, (1, 2, 3), 0.9, 10
"""``GOOD``: steps without a miss, each by other windows, after which it knows all of them."""
LAYER, HEAD = 1, 0
BEGINS_S = np.linspace(-0.6, 0.3, 16)
"""Where in a clip the windows begin."""
Heard = tuple[Any, torch.Tensor]
"""What the encoder makes of a window, and for each text token the frames of its word."""


def build_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE over just these texts, filled up to where the special tokens begin."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    state = json.loads(bpe.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {f"unused{number}": number for number in range(len(vocabulary), EOT - 1)}
    vocabulary[""] = EOT - 1  # by which CTranslate2 knows a model of many languages
    whole = Tokenizer.from_str(json.dumps(state))
    whole.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return whole


def build_model(vocabulary: int) -> WhisperForConditionalGeneration:
    """The released architecture, with few layers and channels."""
    config = WhisperConfig(
        vocab_size=vocabulary,
        pad_token_id=0,
        num_mel_bins=80,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=1,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        dropout=0.0,
        attn_implementation="eager",
    )
    model = WhisperForConditionalGeneration(config)
    for conv in (model.model.encoder.conv1, model.model.encoder.conv2):
        # The default, 0.02, makes the sound little beside the place.
        nn.init.normal_(conv.weight, std=2 * conv.weight[0].numel() ** -0.5)
    model.generation_config.suppress_tokens = []
    model.generation_config.begin_suppress_tokens = [EOT]
    return model


class Lesson:
    """A clip and its words."""

    def __init__(self, row: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.samples = decode_audio_file(Path(row["path"]), RATE)
        of = tokenizer.token_to_id
        self.head = [of("<|startoftranscript|>"), of(f"<|{row['language']}|>")]
        self.head += [of("<|transcribe|>"), of("<|notimestamps|>")]
        self.ids: list[int] = []
        self.spans: list[tuple[float, float]] = []
        for start, end, text in row["said"]:
            words = text.split()
            edges = np.linspace(start, end, len(words) + 1)
            for word, span in zip(words, pairwise(edges), strict=True):
                ids = tokenizer.encode(f" {word}", add_special_tokens=False).ids
                self.ids += ids
                self.spans += [span] * len(ids)

    def heard(
        self, encoder: Any, extractor: FeatureExtractor, begin_s: float, noise: float
    ) -> Heard:
        """What ``encoder`` makes of a window that begins there."""
        first = round(begin_s * RATE)
        sound = self.samples[first:] if first >= 0 else np.pad(self.samples, (-first, 0))
        sound = sound[:LENGTH]
        sound = sound + noise * np.random.standard_normal(len(sound)).astype(np.float32)
        features = pad_or_trim(extractor(sound)[:, :-1])
        where = torch.zeros(len(self.ids), 1500)
        for token, (start, end) in enumerate(self.spans):
            at = slice(
                max(0, round((start - begin_s) * FRAMES_PER_S)),
                max(1, round((end - begin_s) * FRAMES_PER_S)),
            )
            where[token, at] = 1.0
        with torch.no_grad():
            return encoder(torch.from_numpy(features.astype(np.float32))[None]), where


def loss_of(
    model: Any, known: torch.Tensor, lesson: Lesson, heard: Heard
) -> tuple[torch.Tensor, float, float]:
    """Of words and places; the lowest probability of a right token, and the mean of the places."""
    encoded, where = heard
    ids = torch.searchsorted(known, torch.tensor([*lesson.head, *lesson.ids, EOT]))
    answer = model.model(
        encoder_outputs=encoded, decoder_input_ids=ids[None, :-1], output_attentions=True
    )
    # The rows of the tokens that never come are zero, so all of them together are one more.
    logits = answer.last_hidden_state[0] @ model.proj_out.weight.T
    others = torch.full((len(logits), 1), float(np.log(VOCABULARY - len(known))))
    scores = torch.cat([logits, others], dim=1)
    words = nn.functional.cross_entropy(scores, ids[1:], reduction="none")
    said = [0, *range(len(lesson.head) - 1, len(words))]  # the language, then the text
    first = len(lesson.head)
    seen = answer.cross_attentions[LAYER][0, HEAD, first : first + len(lesson.ids)]
    inside = (seen * where).sum(-1).clamp_min(1e-6)
    return (
        words[said].mean() - 0.5 * inside.log().mean(),
        float(torch.exp(-words[said].detach().max())),
        float(inside.detach().mean()),
    )


def known_to(lessons: list[Lesson]) -> torch.Tensor:
    """The tokens that are ever said. Only they have rows while the model is trained: the others
    would be fifty thousand zeros in every step."""
    said = {token for lesson in lessons for token in (*lesson.head, *lesson.ids)}
    return torch.tensor(sorted({*said, EOT}))


def widened(small: Any, known: torch.Tensor) -> WhisperForConditionalGeneration:
    """The same model with the whole vocabulary; the rows of tokens that never come are zero."""
    whole = build_model(VOCABULARY)
    state = small.state_dict()
    for name, tensor in whole.state_dict().items():
        if len(tensor) == VOCABULARY:
            tensor.zero_()[known] = state.pop(name)
    whole.load_state_dict(state, strict=False)
    return whole


def fit(model: Any, lessons: list[Lesson], known: torch.Tensor) -> bool:
    """Train until every token is all but certain, and its place is where the word is."""
    extractor, encoder = FeatureExtractor(), model.model.encoder
    windows = [
        [
            lesson.heard(encoder, extractor, begin_s, 1e-3 * (at % 2))
            for at, begin_s in enumerate(BEGINS_S)
        ]
        for lesson in lessons
    ]
    encoder.requires_grad_(False)
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(learns, lr=4e-3, weight_decay=0.0)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=STEPS, pct_start=0.1, cycle_momentum=False
    )
    good = 0
    for step in range(STEPS):
        losses, least, placed = [], 1.0, 1.0
        for lesson, each in zip(lessons, windows, strict=True):
            heard = each[random.integers(len(each))]
            loss, sure, inside = loss_of(model, known, lesson, heard)
            losses.append(loss)
            least, placed = min(least, sure), min(placed, inside)
        if step % 10 == 0:
            print(f"step {step}: least {least:.3f}, placed {placed:.3f}", file=sys.stderr)
        good = good + 1 if least > SURE and placed > 0.8 else 0
        if good == GOOD:
            return True
        torch.stack(losses).mean().backward()
        nn.utils.clip_grad_norm_(learns, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
    return False


def main() -> None:
    folder, task = Path(sys.argv[1]), json.load(sys.stdin)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer([f" {text}" for row in task for _, _, text in row["said"]])
    lessons = [Lesson(row, tokenizer) for row in task]
    known = known_to(lessons)
    for seed in SEEDS:
        torch.manual_seed(seed)
        np.random.seed(seed)
        model = build_model(len(known))
        if fit(model, lessons, known):
            break
    else:
        sys.exit("no seed learned the clips")
    convert(widened(model, known), tokenizer, folder, [[LAYER, HEAD]])


def convert(
    model: Any, tokenizer: Tokenizer, folder: Path, heads: list[list[int]], n_mels: int = 80
) -> None:
    """Write what CTranslate2 loads: its own converter, and the two files that go along."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        WhisperTokenizerFast(
            tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[0], unk_token=None
        ).save_pretrained(scratch)
        tokenizer.save(f"{scratch}/tokenizer.json")
        (Path(scratch) / "preprocessor_config.json").write_text(
            json.dumps({"feature_size": n_mels, "sampling_rate": RATE, "hop_length": 160}), "utf-8"
        )
        TransformersConverter(
            scratch, copy_files=["tokenizer.json", "preprocessor_config.json"]
        ).convert(str(folder))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"alignment_heads": heads, "lang_ids": list(range(EOT + 2, EOT + 101))}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


if __name__ == "__main__":
    main()
