"""The moonshine-voice library: imported here and nowhere else, when an engine loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar import errors

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber

SAMPLE_RATE = 16_000


def load_library(options: dict[str, str]) -> Transcriber:
    """A transcriber of the library over the weights in its wheel.

    Raises:
        errors.ModelLoadFailed: the library or its weights are not there.
    """
    try:
        from moonshine_voice import ModelArch, MoonshineError, get_model_path
        from moonshine_voice.transcriber import Transcriber
    except (ImportError, OSError) as error:
        raise errors.ModelLoadFailed(
            f"The library moonshine-voice does not load: {error}.",
            hint="pip install --force-reinstall moonshine-voice==0.0.73",
        ) from None
    try:
        return Transcriber(
            get_model_path("tiny-en"),
            ModelArch.TINY,
            options={"return_audio_data": "false", **options},
        )
    except MoonshineError as error:
        raise errors.ModelLoadFailed(str(error)) from None
