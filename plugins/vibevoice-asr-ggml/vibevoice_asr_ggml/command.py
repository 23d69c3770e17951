"""Command `convert-ggml`: an installed checkpoint as a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sidecar.cli.common_options import argument, command, option

HELP = (
    "Convert an installed checkpoint of VibeVoice-ASR to a GGUF file for the engine vibevoice-ggml."
)
_KINDS = ("q4_k", "q8_0", "f16", "f32")


def convert_ggml() -> Callable[..., int]:
    """Return the command for typer."""
    return command(_convert)


def _convert(
    folder: Path = argument(..., "Folder of the checkpoint.", "FOLDER"),
    to: Path = option(Path("vibevoice-asr-ggml"), "Folder of the file, made if it is not there."),
    kind: str = option("q4_k", "Type of its weights", choices=_KINDS),
) -> None:
    """Convert an installed checkpoint of VibeVoice-ASR to a GGUF file."""
    from sidecar.errors import EngineUnavailable, SettingsInvalid
    from vibevoice_asr_ggml.library import Library

    try:
        from vibevoice_asr_ggml.converter import convert
    except ImportError as error:
        raise EngineUnavailable(
            f"The conversion needs a package that is not installed: {error.name}.",
            hint="pip install 'vibevoice-asr-ggml[convert]'",
        ) from None

    if kind not in _KINDS:
        raise SettingsInvalid(f"There is no type {kind!r}.", hint=f"Types: {', '.join(_KINDS)}.")
    to.mkdir(parents=True, exist_ok=True)
    target = to / f"vibevoice-asr-{kind}.gguf"
    convert(folder, target, kind, Library())
    print(target)
