"""A loaded checkpoint as one thing: its voices, and what it says with them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sidecar import errors
from sidecar.gpu_memory.speaking import RATE, most_frames
from sidecar.interfaces.engine import Cancelled, few
from sidecar.interfaces.voice import Sound
from sidecar.tts.vibevoice_denoiser import Check
from sidecar.tts.vibevoice_loading import Loaded, no_room
from sidecar.tts.vibevoice_utterance import STEPS, Manner, Prompt, Speaker
from sidecar.tts.vibevoice_voices import OWN, Voices, request, sayable

log = logging.getLogger(__name__)

FRAME_S = 3_200 / RATE
"""Seconds of sound that one latent stands for."""
FEWER_STEPS, TOO_SLOW = 5, 0.8
"""Where a frame takes more of its own length than that, it gets fewer steps: Microsoft's own choice
for the model that is to keep up with people (VibeVoice-Realtime)."""
FIRST_WORDS = "One, two, three."


class Unwanted(Exception):
    """Nobody hears it any more."""


class Speech:
    """One text at a time."""

    def __init__(self, loaded: Loaded, steps: int = STEPS) -> None:
        self._loaded = loaded
        self._speaker = Speaker(loaded.model, steps)
        self._samples = Voices(loaded)
        self.voices: Sequence[str] = self._samples.names or (OWN,)
        """Whose there are, its own choice first."""

    def say(self, text: str, voice: str, cancelled: Cancelled) -> Iterator[Sound]:
        """The sound of a text, a frame at a time; ends early once ``cancelled()``.

        Raises:
            errors.VoiceUnknown: there is no such voice.
        """
        if voice and voice not in self.voices:
            raise errors.VoiceUnknown(hint=f"There are: {few(self.voices)}.")

        def check() -> None:
            if cancelled():
                raise Unwanted

        words = sayable(text, self._loaded.processor.tokenizer)
        if not words:
            return
        most = most_frames(len(words))
        said = 0
        try:
            check()
            for frame in self._frames(words, voice or self.voices[0], Manner(most), check):
                said += 1
                yield Sound(frame, RATE)
        except Unwanted:
            return
        except torch.OutOfMemoryError:
            raise errors.EngineFailed("CUDA out of memory while speaking.") from None
        if said == most:
            log.warning("a text of %d characters did not end, and was cut", len(words))

    def _frames(self, words: str, voice: str, manner: Manner, check: Check) -> Iterator[bytes]:
        """Whoever hears a frame is not in torch's mode of inference, which is a thread's."""
        with torch.inference_mode():
            frames = self._speaker.frames(self._prompt(words, voice), manner, check)
        while True:
            with torch.inference_mode():
                frame = next(frames, None)
                if frame is None:
                    return
                pcm = pcm16(frame)
            yield pcm

    def _prompt(self, words: str, voice: str) -> Prompt:
        sample = self._samples.heard(voice)
        ids = request(self._loaded.processor, words, len(sample) if sample is not None else 0)
        return Prompt(ids, sample)


def begin(loaded: Loaded, steps: int = 0) -> Speech:
    """The speech of a checkpoint, with so many ``steps``; 0: as many as this machine has time for.

    What is said first nobody hears: libraries allocate what they keep, what cannot speak fails now.

    Raises:
        errors.ModelLoadFailed: it cannot.
    """
    try:
        _trial(loaded, steps or STEPS)
        seconds = _trial(loaded, steps or STEPS)
    except torch.OutOfMemoryError:
        raise no_room() from None
    steps = steps or (STEPS if seconds <= TOO_SLOW * FRAME_S else FEWER_STEPS)
    log.info("%.0f ms for a frame of %.0f ms: %d steps", 1e3 * seconds, 1e3 * FRAME_S, steps)
    return Speech(loaded, steps)


def _trial(loaded: Loaded, steps: int) -> float:
    """Seconds that a frame takes."""
    prompt = Prompt(request(loaded.processor, FIRST_WORDS, 0))
    times = [time.perf_counter()]
    with torch.inference_mode():
        for frame in Speaker(loaded.model, steps).frames(prompt, Manner(4), lambda: None):
            if not bool(frame.isfinite().all()):
                raise errors.ModelLoadFailed(
                    "The checkpoint of VibeVoice does not run here: its numbers are not finite.",
                    hint="Use another precision; 'vibevoice-asr pull vibevoice-1.5b' mends a "
                    "damaged one.",
                )
            times.append(time.perf_counter())
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def pcm16(frame: Tensor) -> bytes:
    """Samples in [-1, 1] as 16 bit, little-endian; what is louder is cut."""
    samples = (frame * 32_767).round().clamp(-32_768, 32_767).to(torch.int16).cpu().numpy()
    return samples.astype("<i2").tobytes()
