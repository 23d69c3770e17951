"""VibeVoice TTS engine.

`utterance` steps the model of transformers: `language` is its language model, `denoiser` its
diffusion head by the numbers of `solver`. `loading` brings a checkpoint into memory, `voices` has
the samples that it speaks like. Its speech is synthetic, which operators have to tell listeners
(docs/voices.md).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.interfaces import engine_interface

if TYPE_CHECKING:
    from sidecar.tts.vibevoice_tts_synthesis import VibeVoiceSynthesizer

SPEC = engine_interface.TtsSpec(
    name="vibevoice",
    title="VibeVoice 1.5B",
    precisions=(engine_interface.Precision.BF16, engine_interface.Precision.FP32),
    requires=("torch", "transformers", "accelerate"),
    planned=True,
    streams=True,
)


class VibeVoiceTts:
    """VibeVoice TTS: its voices are samples in the folder of the checkpoint. Heavy: torch comes
    with `load`."""

    def __init__(self) -> None:
        self._speech: VibeVoiceSynthesizer | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Read the checkpoint onto its device, and say something that nobody hears.

        Raises:
            errors.ModelLoadFailed: it is not there, or no good, or does not fit.
        """
        yield 0.0  # before torch is imported, which takes seconds
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # less is lost
        # torch makes itself a folder for what it compiles as it is imported; we compile nothing.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
        from sidecar.tts import vibevoice_tts_synthesis

        if options.checkpoint is None:
            raise errors.ModelLoadFailed(
                "No checkpoint of VibeVoice TTS is set.",
                hint="Run 'vibevoice-asr pull vibevoice-1.5b'.",
            )
        loaded = vibevoice_tts_synthesis.load_vibevoice_tts(options)
        yield 0.8
        self._speech = vibevoice_tts_synthesis.create_synthesizer(loaded, options.steps)
        yield 1.0

    def voices(self) -> Sequence[str]:
        """The names of the samples; where there are none, the model's own is the only one."""
        assert self._speech is not None
        return self._speech.voices

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """As `TtsEngine.say`; it takes the language from the text, and its own time."""
        assert self._speech is not None
        yield from self._speech.say(text, options.voice, cancelled)
