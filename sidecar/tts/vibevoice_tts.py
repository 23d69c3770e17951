"""VibeVoice TTS engine.

`vibevoice_tts_model` steps the model of transformers: language model, diffusion head and solver.
`vibevoice_tts_synthesis` loads a checkpoint and has the samples of its voices. The speech is
synthetic, and operators have to inform listeners of that (docs/voices.md).
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
    """VibeVoice TTS engine; its voices are samples in the folder of the checkpoint.

    `load` imports torch, which takes seconds.
    """

    def __init__(self) -> None:
        self._speech: VibeVoiceSynthesizer | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load the checkpoint onto its device and synthesize a warm-up text.

        Raises:
            errors.ModelLoadFailed: the checkpoint is missing, damaged, or does not fit.
        """
        yield 0.0  # before torch is imported, which takes seconds
        # Expandable segments lose less memory to fragmentation.
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        # torch creates a folder for compiled code at import; this service compiles nothing.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
        from sidecar.tts import vibevoice_tts_model, vibevoice_tts_synthesis

        if options.checkpoint is None:
            raise errors.ModelLoadFailed(
                "No checkpoint of VibeVoice TTS is set.",
                hint="Run 'vibevoice-asr pull vibevoice-1.5b'.",
            )
        loaded = vibevoice_tts_model.load_vibevoice_tts(options)
        yield 0.8
        self._speech = vibevoice_tts_synthesis.create_synthesizer(loaded, options.steps)
        yield 1.0

    def voices(self) -> Sequence[str]:
        """Return the names of the samples; if there are none, only the model's own voice."""
        assert self._speech is not None
        return self._speech.voices

    def say(
        self,
        text: str,
        options: engine_interface.SynthesisOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> Iterator[engine_interface.SynthesizedAudio]:
        """Synthesize as `TtsEngine.say`; the options' language and speed are ignored."""
        assert self._speech is not None
        yield from self._speech.say(text, options.voice, cancelled)
