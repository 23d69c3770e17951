"""VibeVoice TTS model: loading, language model, diffusion head, DPM-Solver, frame generation.

The rows of all guidance branches go through the layers as one matrix, so that the weights are read
once. Each row attends to the earlier positions of its own branch. Of the model's 151,936 tokens
only four may follow, and only their scores are computed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoProcessor, VibeVoiceForConditionalGeneration

from sidecar import errors
from sidecar.engines.vibevoice.vibevoice_decoder import KeyValueCache, StepCheck, VibeVoiceDecoder
from sidecar.interfaces import engine_interface

log = logging.getLogger(__name__)

TRAINED_DIFFUSION_STEPS = 1_000
_COSINE_OFFSET = 0.008
"""Offset of the cosine schedule: the first step already has a little noise."""
_MAX_NOISE = 0.999
"""Maximum noise that one step of the schedule adds."""


@dataclass(frozen=True, slots=True)
class DiffusionStep:
    """One DPM-Solver step from noise to a latent.

    With the current ``x`` and the head's prediction ``v`` at ``timestep``, the clean latent is
    ``signal * x - noise * v``. The next ``x`` is ``keep * x + clean * this + earlier * that``:
    ``this`` is the clean latent of this step, ``that`` the one of the step before.
    """

    timestep: int
    signal: float
    noise: float
    keep: float
    clean: float
    earlier: float


@cache
def diffusion_steps(count: int) -> tuple[DiffusionStep, ...]:
    """Return the table for ``count`` steps (1 to `TRAINED_DIFFUSION_STEPS`)."""
    times = [round((TRAINED_DIFFUSION_STEPS - 1) * at / count) for at in range(count, 0, -1)]
    levels = [_noise_schedule()[time] for time in times]
    made = []
    for at, (time, (signal, noise)) in enumerate(zip(times, levels, strict=True)):
        if at == count - 1:  # the last step removes all noise: its result is the clean latent
            made.append(DiffusionStep(time, signal, noise, 0.0, 1.0, 0.0))
            continue
        next_signal, next_noise = levels[at + 1]
        width = _log_ratio(next_signal, next_noise) - _log_ratio(signal, noise)
        whole = -next_signal * math.expm1(-width)
        slope = 0.0
        if at:
            slope = whole * width / (_log_ratio(signal, noise) - _log_ratio(*levels[at - 1])) / 2
        made.append(DiffusionStep(time, signal, noise, next_noise / noise, whole + slope, -slope))
    return tuple(made)


@cache
def _noise_schedule() -> tuple[tuple[float, float], ...]:
    """Return signal and noise of each trained step; their squares sum up to 1."""
    made, left = [], 1.0
    for at in range(TRAINED_DIFFUSION_STEPS):
        before, after = at / TRAINED_DIFFUSION_STEPS, (at + 1) / TRAINED_DIFFUSION_STEPS
        ratio = _signal_at(after) / _signal_at(before)
        left *= 1 - min(1 - ratio, _MAX_NOISE)
        made.append((math.sqrt(left), math.sqrt(1 - left)))
    return tuple(made)


def _signal_at(part: float) -> float:
    return math.cos((part + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2


def _log_ratio(signal: float, noise: float) -> float:
    return math.log(signal) - math.log(noise)


@dataclass(frozen=True, slots=True)
class _DiffusionLayer:
    """Weights of one layer of the diffusion head.

    The overhead of module calls would take as long as the computation.
    """

    norm: Tensor
    epsilon: float
    gate: Tensor
    up: Tensor
    down: Tensor
    act: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, layer: Any) -> _DiffusionLayer:
        mlp = layer.ffn
        gate, up, down = (one.weight for one in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        return cls(layer.norm.weight, layer.norm.variance_epsilon, gate, up, down, mlp.act_fn)


class LatentDenoiser:
    """Diffusion head with a fixed number of steps for each latent."""

    def __init__(self, head: Any, count: int) -> None:
        self._head = head
        self._layers = [_DiffusionLayer.of(layer) for layer in head.layers]
        self._epsilon: float = head.final_layer.rms_norm_eps
        self._steps = diffusion_steps(count)
        like = head.noisy_images_proj.weight
        times = torch.tensor([step.timestep for step in self._steps]).to(like.device)
        # As in `VibeVoiceDiffusionHead.forward`: the times have the dtype of the latents.
        embedded = head.timestep_embedding(times.to(like.dtype)).to(like.dtype)
        self._times: Tensor = head.timestep_proj(embedded).unsqueeze(1)

    def latent(
        self, conditions: Tensor, noise: Tensor, guidance: float, check: StepCheck
    ) -> Tensor:
        """Denoise ``(1, channels)`` into a latent of the same shape.

        ``conditions`` ``(branches, hidden)``: with the text, and, if ``guidance`` is not 1, without
        it; the second one is the negative of classifier-free guidance (Ho and Salimans 2022).
        """
        modulations = self._modulations(conditions)
        latent, before = noise.float(), torch.zeros((), device=noise.device)
        for step, modulation in zip(self._steps, modulations, strict=True):
            check()
            velocities = self._velocities(latent.to(conditions.dtype), modulation).float()
            velocity = velocities[:1]
            if len(velocities) > 1:
                velocity = torch.lerp(velocities[1:], velocity, guidance)
            clean = step.signal * latent - step.noise * velocity
            latent = step.keep * latent + step.clean * clean + step.earlier * before
            before = clean
        return latent.to(conditions.dtype)

    def _modulations(self, conditions: Tensor) -> list[list[Tensor]]:
        """Return for each step: shift, scale and gate of each layer, shift and scale of the last.

        Each has the shape ``(branches, hidden)``.
        """
        head = self._head
        meant = head.final_layer.act_fn(head.cond_proj(conditions) + self._times)
        found: list[Tensor] = []
        for layer in head.layers:
            shift, scale, gate = layer.linear(meant).chunk(3, dim=-1)
            found += (shift, scale + 1, gate)
        shift, scale = head.final_layer.linear_1(meant).chunk(2, dim=-1)
        found += (shift, scale + 1)
        return [list(step) for step in zip(*(each.unbind() for each in found), strict=True)]

    def _velocities(self, latent: Tensor, modulation: list[Tensor]) -> Tensor:
        """Return the head's predictions ``(branches, channels)`` for one latent ``(1,
        channels)``."""
        hidden = functional.linear(latent, self._head.noisy_images_proj.weight)
        for at, layer in enumerate(self._layers):
            shift, scale, gate = modulation[3 * at : 3 * at + 3]
            rows = torch.addcmul(shift, _normalize(hidden, layer.norm, layer.epsilon), scale)
            gated = layer.act(functional.linear(rows, layer.gate))
            rows = gated.mul_(functional.linear(rows, layer.up))
            hidden = torch.addcmul(hidden, gate, functional.linear(rows, layer.down))
        shift, scale = modulation[-2:]
        rows = torch.addcmul(shift, _normalize(hidden, None, self._epsilon), scale)
        return functional.linear(rows, self._head.final_layer.linear_2.weight)


def _normalize(hidden: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    return functional.rms_norm(hidden, hidden.shape[-1:], weight, epsilon)


class TtsLanguageModel(VibeVoiceDecoder):
    """Qwen2 with the rows of its head for a few tokens; the caller sets `torch.inference_mode`."""

    def __init__(self, model: Any, words: Sequence[int]) -> None:
        """Use the layers of ``model``; ``words``: the token ids that may follow."""
        super().__init__(model)
        self._words = sorted(words)
        self._rows: Tensor = model.lm_head.weight[self._words]

    def word(self, outputs: Tensor, guidance: float) -> int:
        """Return the token that follows ``outputs[0]`` ``(hidden,)``, the branch with the text.

        If there are two outputs, the last one is the negative of classifier-free guidance.
        """
        scores = functional.linear(outputs, self._rows).float()
        led = torch.lerp(scores[-1], scores[0], guidance) if len(scores) > 1 else scores[0]
        return self._words[int(led.argmax())]

    def run(self, parts: Sequence[tuple[Tensor, KeyValueCache]], check: StepCheck) -> Tensor:
        """Append embeddings ``(n, hidden)`` to their branches.

        Returns:
            The output ``(branches, hidden)`` at the last position of each branch.
        """
        counts = [(len(part), branch) for part, branch in parts]
        rows = self._run(torch.cat([part for part, _ in parts]), counts, check)
        ends = [end - 1 for end in accumulate(count for count, _ in counts)]
        return self.normed(self._norm, rows[ends])

    def normed(self, norm: Any, rows: Tensor) -> Tensor:
        """Return the rows normalized, in one kernel."""
        return functional.rms_norm(rows, rows.shape[-1:], norm.weight, norm.variance_epsilon)


@dataclass(frozen=True, slots=True)
class TtsPrompt:
    """Prompt of a text: token ``ids``, and embeddings for the audio tokens among them.

    ``heard`` ``(n, hidden)``: embeddings of a sample of the voice, for the ``n`` audio tokens;
    `None` if there is no sample.
    """

    ids: Sequence[int]
    heard: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TtsGenerationOptions:
    """Options of one synthesis.

    ``frames``: maximum number of frames. ``guidance``: scale of the classifier-free guidance.
    ``seed``: seed of the noise.
    """

    frames: int
    guidance: float
    seed: int = 0


class VibeVoiceTtsModel:
    """Frame generation for one text at a time; the caller sets `torch.inference_mode`.

    ``steps``: number of diffusion steps for a latent.
    """

    def __init__(self, model: Any, steps: int) -> None:
        config, inner = model.config, model.model
        self._begin, self._sound = config.audio_bos_token_id, config.audio_token_id
        ends = model.generation_config.eos_token_id
        ends = config.eos_token_id if ends is None else ends
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        words = {self._begin, self._sound, config.audio_eos_token_id, config.eos_token_id}
        self._language = TtsLanguageModel(model, tuple(words))
        self._denoiser = LatentDenoiser(inner.diffusion_head, steps)
        self._inner = inner
        self._channels: int = config.audio_config.hidden_size

    def frames(
        self, prompt: TtsPrompt, manner: TtsGenerationOptions, check: StepCheck
    ) -> Iterator[Tensor]:
        """Yield audio frames of shape ``(samples,)``, float; ``check`` may raise to stop.

        The next input is computed from a frame only when the caller requests the next frame.
        """
        language = self._language
        noise = torch.Generator().manual_seed(manner.seed)
        asked = [self._embedded(prompt), *self._beginnings(prompt, manner)]
        branches = [language.empty_cache(len(one) + manner.frames, zeroed=False) for one in asked]
        sound = StreamingCodec(self._inner.audio_tower.decode)
        meaning = StreamingCodec(self._inner.semantic_tokenizer_encoder)
        for _ in range(manner.frames):
            outputs = language.run(list(zip(asked, branches, strict=True)), check)
            word = language.word(outputs[::2], manner.guidance)
            if word in self._ends:
                return
            embedding = written = language.embed(torch.tensor([word]))
            if word == self._sound:
                noisy = torch.randn(2, self._channels, generator=noise)[:1].to(outputs)
                latent = self._denoiser.latent(outputs[:2], noisy, manner.guidance, check)
                inner = self._inner
                scaled = latent / inner.latent_scaling_factor - inner.latent_bias_factor
                audio = sound.next(scaled[:, None]).audio
                yield audio.view(-1).float()
                check()
                features = meaning.next(audio).latents
                embedding = inner.multi_modal_projector(latent)
                embedding = embedding + inner.semantic_connector(features)[0]
            elif len(branches) > 1:
                _reset_branch(branches[1], everything=word == self._begin)
            asked = [embedding, embedding, written][: len(branches)]

    def _beginnings(self, prompt: TtsPrompt, manner: TtsGenerationOptions) -> list[Tensor]:
        """Return the first inputs of the branches without the text; none if guidance is off.

        The first branch gets the audio frames only, and is the negative for latents. The second one
        gets the tokens only, and is the negative for the next token.
        """
        if manner.guidance == 1:
            return []
        first = self._begin, prompt.ids[-1]
        return [self._language.embed(torch.tensor([one])) for one in first]

    def _embedded(self, prompt: TtsPrompt) -> Tensor:
        ids = torch.tensor(prompt.ids)
        embedded = self._language.embed(ids)
        if prompt.heard is not None:
            embedded[ids.to(embedded.device) == self._sound] = prompt.heard.to(embedded)
        return embedded


def _reset_branch(branch: KeyValueCache, *, everything: bool) -> None:
    """Drop the last position of the audio branch, or with ``everything`` all positions.

    The branch keeps only positions of audio frames, and starts empty where new audio begins.
    """
    branch.length = 0 if everything else branch.length - 1


class StreamingCodec:
    """Streaming codec module: it keeps the padding cache of its convolutions between frames."""

    def __init__(self, part: Callable[..., Any]) -> None:
        self._part = part
        self._cache: Any = None

    def next(self, chunk: Tensor) -> Any:
        """Return the module's output for the next frame."""
        output = self._part(chunk, padding_cache=self._cache, use_cache=True)
        self._cache = output.padding_cache
        return output


_DTYPES = {
    engine_interface.Precision.FP32: torch.float32,
    engine_interface.Precision.BF16: torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class LoadedVibeVoiceTts:
    """A loaded model, its processor and the folder of its checkpoint."""

    model: Any
    processor: Any
    folder: Path


def load_vibevoice_tts(options: engine_interface.LoadOptions) -> LoadedVibeVoiceTts:
    """Load the weights once, directly onto their device.

    Only safetensors are read, and no code of the checkpoint is run.

    Raises:
        errors.ModelLoadFailed: the checkpoint is damaged or does not fit.
    """
    assert options.checkpoint is not None
    folder = Path(options.checkpoint)
    device = _device(options.device)
    _silence_libraries()
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **common)
        model = VibeVoiceForConditionalGeneration.from_pretrained(
            folder,
            dtype=_DTYPES.get(options.precision, torch.bfloat16),
            device_map={"": device},
            use_safetensors=True,
            **common,
        )
    except torch.OutOfMemoryError:
        raise gpu_out_of_memory_error() from None
    except Exception as error:  # three libraries raise any type: the checkpoint is not usable
        log.exception("the checkpoint could not be loaded")
        reason = errors.cause_of(error).replace(str(folder), folder.name)
        raise errors.ModelLoadFailed(
            f"The checkpoint of VibeVoice could not be loaded: {reason}",
            hint="Download it again: vibevoice-asr pull vibevoice-1.5b",
        ) from None
    return LoadedVibeVoiceTts(model.eval().requires_grad_(False), processor, folder)


def gpu_out_of_memory_error() -> errors.ModelLoadFailed:
    """Return the error for a GPU that is out of memory."""
    return errors.ModelLoadFailed(
        "CUDA out of memory: VibeVoice TTS does not fit beside the other data on the GPU.",
        hint="Close GPU applications, or choose another VIBEVOICE_VOICE_ENGINE.",
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise errors.ModelLoadFailed("torch finds no NVIDIA GPU.")
    on_gpu = wanted != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", 0) if on_gpu else torch.device("cpu")


def _silence_libraries() -> None:
    """Disable the progress bars and log lines that the libraries write at each load."""
    from transformers.utils import logging as chatter

    chatter.disable_progress_bar()
    chatter.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
