"""Model repositories by their names for `pull`, with sizes and the order of preference."""

import re
from dataclasses import dataclass

from sidecar import errors

VIBEVOICE_REPOSITORY = "microsoft/VibeVoice-ASR-HF"
"""VibeVoice-ASR in the layout of transformers."""
ORIGINAL_REPOSITORY = "microsoft/VibeVoice-ASR"
"""The same in Microsoft's own layout."""
VIBEVOICE_REPOSITORY_GB = 16.7
"""Size of the weights of VibeVoice-ASR: 8.33 billion parameters of two bytes."""
_VIBEVOICE_NAMES = frozenset({"vibevoice", "vibevoice-asr", "vibevoice-asr-7b", "vibevoice-asr-hf"})
VOXTRAL_REPOSITORY = "mistralai/Voxtral-Mini-4B-Realtime-2602"
VOXTRAL_NAMES = frozenset(
    {"voxtral", "voxtral-realtime", "mistralai/voxtral-mini-4b-realtime-2602"}
)
STREAMING_REPOSITORIES = {
    "vibevoice-streaming": "microsoft/VibeVoice-ASR-Streaming-7B",
    "vibevoice-streaming-1.5b": "microsoft/VibeVoice-ASR-Streaming-1.5B",
}
"""VibeVoice-ASR-Streaming by its names for `pull`, the better one first; 17.3 and 11.2 GB."""
WHISPER_PREFIX = "whisper:"
"""Prefix of a model's name, as in `vibevoice-asr pull whisper:small`."""
DEFAULT_WHISPER_MODEL = "small"
"""Default model: of those that run on a laptop, the one with the most languages."""

WHISPER_ALIASES = {"large": "large-v3", "turbo": "large-v3-turbo"}


@dataclass(frozen=True, slots=True)
class WhisperModelName:
    """Whisper model with a well-known name.

    ``gb``: size of the download in GB, in fp16 (fp32: tiny.en, base.en).
    """

    repository: str
    gb: float


WHISPER_MODELS = {
    "tiny": WhisperModelName("Systran/faster-whisper-tiny", 0.08),
    "tiny.en": WhisperModelName("Systran/faster-whisper-tiny.en", 0.08),
    "base": WhisperModelName("Systran/faster-whisper-base", 0.15),
    "base.en": WhisperModelName("Systran/faster-whisper-base.en", 0.15),
    "small": WhisperModelName("Systran/faster-whisper-small", 0.48),
    "small.en": WhisperModelName("Systran/faster-whisper-small.en", 0.48),
    "medium": WhisperModelName("Systran/faster-whisper-medium", 1.53),
    "medium.en": WhisperModelName("Systran/faster-whisper-medium.en", 1.53),
    "large-v1": WhisperModelName("Systran/faster-whisper-large-v1", 3.09),
    "large-v2": WhisperModelName("Systran/faster-whisper-large-v2", 3.09),
    "large-v3": WhisperModelName("Systran/faster-whisper-large-v3", 3.09),
    "large-v3-turbo": WhisperModelName("mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1.62),
    "distil-small.en": WhisperModelName("Systran/faster-distil-whisper-small.en", 0.33),
    "distil-medium.en": WhisperModelName("Systran/faster-distil-whisper-medium.en", 0.79),
    "distil-large-v2": WhisperModelName("Systran/faster-distil-whisper-large-v2", 1.51),
    "distil-large-v3": WhisperModelName("Systran/faster-distil-whisper-large-v3", 1.51),
    "distil-large-v3.5": WhisperModelName("distil-whisper/distil-large-v3.5-ct2", 1.51),
}
"""Models by their names in faster-whisper. Sizes: two bytes a parameter of the published counts."""


def vibevoice_repository(name: str) -> str:
    """Return the repository for ``name``; OWNER/NAME of another repository is returned as it is.

    Raises:
        errors.RepositoryNotFound: ``name`` is not a valid name.
    """
    word = name.strip()
    if word.lower() == ORIGINAL_REPOSITORY.lower():
        return ORIGINAL_REPOSITORY
    owner, _, model = word.rpartition("/")
    if owner.lower() in ("", "microsoft") and model.lower() in _VIBEVOICE_NAMES:
        return VIBEVOICE_REPOSITORY
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", word, re.ASCII):
        raise errors.RepositoryNotFound(f"'{name}' is not the name of a model.")
    return word


def streaming_repository(name: str) -> str | None:
    """Return the repository of VibeVoice-ASR-Streaming for ``name``; None if it is of another
    model."""
    word = name.strip().lower()
    known = STREAMING_REPOSITORIES | {one.lower(): one for one in STREAMING_REPOSITORIES.values()}
    return known.get(word)


def whisper_model_named(name: str) -> WhisperModelName:
    """Return the model for ``name``, which has no prefix.

    Raises:
        errors.RepositoryNotFound: there is no such model.
    """
    word = name.strip().lower()
    word = WHISPER_ALIASES.get(word, word)
    if word not in WHISPER_MODELS:
        raise errors.RepositoryNotFound(
            f"'{name}' is not the name of a Whisper model.",
            hint=f"Use one of: {', '.join(WHISPER_MODELS)}.",
        )
    return WHISPER_MODELS[word]


def whisper_pull_command(name: str = DEFAULT_WHISPER_MODEL) -> str:
    """Return the command that downloads a model, with its size."""
    return f"vibevoice-asr pull {WHISPER_PREFIX}{name} ({WHISPER_MODELS[name].gb:g} GB)"
