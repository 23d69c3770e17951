"""VibeVoice TTS synthesis: voice samples, prompts, speech.

Voices are recordings that the operator has put into the folder `voices` of the checkpoint. A client
cannot send one: the engine does not clone voices for clients.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.checkpoints.installed_checkpoints import voice_samples
from sidecar.engines.vibevoice.vibevoice_decoder import StepCheck
from sidecar.interfaces import engine_interface
from sidecar.tts import vibevoice_tts_memory, vibevoice_tts_model
from sidecar.tts.vibevoice_tts_model import LoadedVibeVoiceTts, gpu_out_of_memory_error

log = logging.getLogger(__name__)

GUIDANCE_SCALE = 1.3
"""Scale of classifier-free guidance; the value of transformers' documentation."""
DEFAULT_DIFFUSION_STEPS = 10
"""Diffusion steps for a latent; the default of transformers."""


OWN_VOICE = "own"
"""Name of the model's own voice, used if there is no sample; it differs with every text."""
_NAME = re.compile(r"[\w][\w .-]{0,63}")


class VoiceSamples:
    """Voice samples in the folder of a checkpoint; each is encoded at its first use."""

    def __init__(self, loaded: LoadedVibeVoiceTts) -> None:
        self._loaded = loaded
        found = voice_samples(loaded.folder)
        self._files = {file.stem: file for file in found if _NAME.fullmatch(file.stem)}
        self.names = tuple(self._files)
        self._heard = lru_cache(maxsize=vibevoice_tts_memory.CACHED_VOICE_SAMPLES)(self._hear)

    def heard(self, name: str) -> Tensor | None:
        """Return embeddings ``(n, hidden)`` of a sample; `None` for the model's own voice.

        Raises:
            errors.VoiceUnknown: the sample cannot be read.
        """
        return self._heard(name) if name in self._files else None

    def _hear(self, name: str) -> Tensor:
        model = self._loaded.model
        try:
            sound = decode_audio_file(self._files[name], VIBEVOICE_SAMPLE_RATE)[
                : round(vibevoice_tts_memory.MAX_SAMPLE_S * VIBEVOICE_SAMPLE_RATE)
            ]
        except (errors.SidecarError, OSError) as error:
            log.error(
                "the sample of the voice %s cannot be read; replace its file: %s", name, error
            )
            raise errors.VoiceUnknown(
                f"The sample of the voice '{name}' cannot be read.", hint="Replace its file."
            ) from None
        extract = self._loaded.processor.feature_extractor
        inputs = extract(sound, sampling_rate=VIBEVOICE_SAMPLE_RATE, return_tensors="pt")
        return sample_embeddings(model.model, inputs["input_values"].view(-1))


def sample_embeddings(inner: Any, sound: Tensor) -> Tensor:
    """Return the language model's embeddings ``(n, hidden)`` of ``sound`` ``(samples,)``.

    ``sound`` has whole frames and is encoded in chunks of a few seconds. The result is that of
    `VibeVoiceModel.get_audio_features`, which encodes all at once, but without its noise: a voice
    has to sound the same every time.
    """
    like = inner.multi_modal_projector.linear_1.weight
    chunks = vibevoice_tts_model.StreamingCodec(partial(inner.audio_tower.encode, sample=False))
    parts = sound.split(round(vibevoice_tts_memory.SAMPLE_CHUNK_S * VIBEVOICE_SAMPLE_RATE))
    latents = torch.cat([chunks.next(part.to(like)[None, None]).latents[0] for part in parts])
    scaled = (latents + inner.latent_bias_factor) * inner.latent_scaling_factor
    heard: Tensor = inner.multi_modal_projector(scaled)
    return heard


def build_prompt_ids(processor: Any, words: str, audio_tokens: int) -> list[int]:
    """Return the token ids of a prompt; ``audio_tokens`` of them stand for the sample."""
    parts: list[dict[str, str]] = [{"type": "text", "text": words}]
    if audio_tokens:
        parts.append({"type": "audio", "audio": ""})  # a placeholder for the template
    rendered = processor.apply_chat_template([{"role": "0", "content": parts}], tokenize=False)
    pad = processor.audio_token
    text = rendered.replace(pad, pad * audio_tokens)
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def sanitize_text(text: str, tokenizer: Any) -> str:
    """Return the text on one line and without added tokens.

    The model would take a new line for another speaker, and some tokens begin and end audio.
    """
    marks = "|".join(map(re.escape, tokenizer.get_added_vocab()))
    return " ".join(re.sub(marks, " ", text).split()) if marks else " ".join(text.split())


FRAME_S = 3_200 / VIBEVOICE_SAMPLE_RATE
"""Seconds of audio that one latent stands for."""
FAST_DIFFUSION_STEPS, MAX_REAL_TIME_FACTOR = 5, 0.8
"""Diffusion steps on a slow machine, and the real-time factor above which they are used: the values
of Microsoft's real-time model (VibeVoice-Realtime)."""
WARM_UP_TEXT = "One, two, three."


class SynthesisCancelled(Exception):
    """Cancellation of a synthesis."""


class VibeVoiceSynthesizer:
    """Synthesizer of VibeVoice TTS, one text at a time."""

    def __init__(self, loaded: LoadedVibeVoiceTts, steps: int = DEFAULT_DIFFUSION_STEPS) -> None:
        self._loaded = loaded
        self._speaker = vibevoice_tts_model.VibeVoiceTtsModel(loaded.model, steps)
        self._samples = VoiceSamples(loaded)
        self.voices: Sequence[str] = self._samples.names or (OWN_VOICE,)
        """Names of the voices, the default first."""

    def say(
        self, text: str, voice: str, cancelled: engine_interface.CancelCheck
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """Yield the audio of a text, one frame at a time, until the end or ``cancelled()``.

        Raises:
            errors.VoiceUnknown: there is no such voice.
        """
        if voice and voice not in self.voices:
            raise errors.VoiceUnknown(
                hint=f"Use one of: {engine_interface.abbreviate_names(self.voices)}."
            )

        def check() -> None:
            if cancelled():
                raise SynthesisCancelled

        words = sanitize_text(text, self._loaded.processor.tokenizer)
        if not words:
            return
        most = vibevoice_tts_memory.max_frames(len(words))
        said = 0
        try:
            check()
            manner = vibevoice_tts_model.TtsGenerationOptions(most, GUIDANCE_SCALE)
            for frame in self._frames(words, voice or self.voices[0], manner, check):
                said += 1
                yield engine_interface.SynthesizedAudio(frame, VIBEVOICE_SAMPLE_RATE)
        except SynthesisCancelled:
            return
        except torch.OutOfMemoryError:
            raise errors.EngineFailed("CUDA out of memory during speech synthesis.") from None
        if said == most:
            log.warning(
                "the speech of a text of %d characters did not end and was cut at the limit of "
                "frames",
                len(words),
            )

    def _frames(
        self,
        words: str,
        voice: str,
        manner: vibevoice_tts_model.TtsGenerationOptions,
        check: StepCheck,
    ) -> Iterator[bytes]:
        """Yield frames as PCM16, outside of torch's inference mode.

        That mode is a state of the thread, and must not apply to the code that receives a frame.
        """
        with torch.inference_mode():
            frames = self._speaker.frames(self._prompt(words, voice), manner, check)
        while True:
            with torch.inference_mode():
                frame = next(frames, None)
                if frame is None:
                    return
                pcm = to_pcm16(frame)
            yield pcm

    def _prompt(self, words: str, voice: str) -> vibevoice_tts_model.TtsPrompt:
        sample = self._samples.heard(voice)
        audio_tokens = len(sample) if sample is not None else 0
        ids = build_prompt_ids(self._loaded.processor, words, audio_tokens)
        return vibevoice_tts_model.TtsPrompt(ids, sample)


def create_synthesizer(loaded: LoadedVibeVoiceTts, steps: int = 0) -> VibeVoiceSynthesizer:
    """Return the synthesizer of a checkpoint; if ``steps`` is 0, the measured speed decides them.

    The warm-up texts are discarded. By them the libraries allocate their memory, and a checkpoint
    that cannot synthesize fails now.

    Raises:
        errors.ModelLoadFailed: the warm-up fails.
    """
    try:
        _measure_frame_s(loaded, steps or DEFAULT_DIFFUSION_STEPS)
        seconds = _measure_frame_s(loaded, steps or DEFAULT_DIFFUSION_STEPS)
    except torch.OutOfMemoryError:
        raise gpu_out_of_memory_error() from None
    is_fast = seconds <= MAX_REAL_TIME_FACTOR * FRAME_S
    steps = steps or (DEFAULT_DIFFUSION_STEPS if is_fast else FAST_DIFFUSION_STEPS)
    log.info(
        "VibeVoice TTS: %.0f ms of work for a frame of %.0f ms; diffusion steps: %d",
        1e3 * seconds,
        1e3 * FRAME_S,
        steps,
    )
    return VibeVoiceSynthesizer(loaded, steps)


def _measure_frame_s(loaded: LoadedVibeVoiceTts, steps: int) -> float:
    """Return the seconds that the computation of a frame takes.

    Raises:
        errors.ModelLoadFailed: the model returns values that are not finite.
    """
    prompt = vibevoice_tts_model.TtsPrompt(build_prompt_ids(loaded.processor, WARM_UP_TEXT, 0))
    times = [time.perf_counter()]
    with torch.inference_mode():
        model = vibevoice_tts_model.VibeVoiceTtsModel(loaded.model, steps)
        for frame in model.frames(
            prompt, vibevoice_tts_model.TtsGenerationOptions(4, GUIDANCE_SCALE), lambda: None
        ):
            if not bool(frame.isfinite().all()):
                raise errors.ModelLoadFailed(
                    "The checkpoint of VibeVoice TTS cannot be run on this machine: its "
                    "values are not finite.",
                    hint=(
                        "Use another precision; 'vibevoice-asr pull vibevoice-1.5b' repairs a "
                        "damaged checkpoint."
                    ),
                )
            times.append(time.perf_counter())
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def to_pcm16(frame: Tensor) -> bytes:
    """Return samples in [-1, 1] as 16 bit, little-endian; louder samples are clipped."""
    samples = (frame * 32_767).round().clamp(-32_768, 32_767).to(torch.int16).cpu().numpy()
    return samples.astype("<i2").tobytes()
