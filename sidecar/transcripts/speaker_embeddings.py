"""Plain values for enrolled speakers, identified speakers and the local speakers of a chunk. Pure.

Local speakers travel only between services of this project, for diarization of a whole recording.
Only `diarization/` knows their content; other code passes them on and drops them with the answer.

A vector travels as text: the service stores and forwards it, and only a worker decodes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sidecar.errors import FieldInvalid

MAX_NAME_CHARACTERS = 200
"""Maximum characters of a speaker's name."""


@dataclass(frozen=True, slots=True)
class SpeakerEmbedding:
    """Embedding of a speaker in one recording.

    ``vector``: base64 of 256 little-endian float16, of length 1
    (`diarization.speaker_identification`). ``seconds``: of this speaker alone, that it was computed
    from.
    """

    vector: str = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class SpeakerCandidate:
    """Enrolled speaker to identify in a recording; ``person`` is the caller's id for the
    speaker."""

    person: str
    name: str
    prints: tuple[SpeakerEmbedding, ...]


@dataclass(frozen=True, slots=True)
class SpeakerProfile:
    """Voice profile of a transcript's speaker.

    ``seconds``: of voice that could be compared. ``person`` and ``name``: the enrolled speaker,
    None if none is similar enough; a ``name`` without a ``person`` was set in an edit.
    ``likeness``: the cosine to that person, or else to the most similar other one; None if none was
    compared. ``print``: the embedding, only if the client asked for it.
    """

    speaker: int
    seconds: float
    person: str | None = None
    name: str | None = None
    likeness: float | None = None
    print: SpeakerEmbedding | None = None


LOCAL_VOICES_FIELD = "local_voices"
"""Name of the field in a request, in the answer, and in /health of a service that offers it."""
WINDOW_FORMAT = "2-9715e399-6e4af7d4"
"""Format of the windows, and the models that made them (first digits of both digests): windows of
another format cannot be used."""
BLOCK_S = 10.0
"""The first window of a chunk begins at a multiple of it, on the clock of the recording."""
BLOCK_MARGIN_S = BLOCK_S
"""Audio behind the start of the windows of the next chunk."""
MIN_LAST_S = 2 * BLOCK_S
"""Minimum audio of the last chunk after the start of its windows. Its last window, and the block
that is processed with the audio before it, reach back that far."""
MAX_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class WindowEmbeddingsRequest:
    """Windows that are requested of a chunk; seconds from the start of what is sent.

    ``words_s``: end of the audio to transcribe; audio after it is only for embeddings. ``first_s``:
    start of the first window. ``until_s``: start of the next chunk's first window; None if the
    recording ends with the audio. ``begins``: the recording begins with the first window.
    """

    words_s: float
    first_s: float = 0.0
    until_s: float | None = None
    begins: bool = False

    def to_text(self) -> str:
        """Return its form as a request field."""
        return json.dumps({"form": WINDOW_FORMAT, **asdict(self)})


@dataclass(frozen=True, slots=True)
class EncodedWindowEmbeddings:
    """Window embeddings that were requested, as base64 (`diarization.window_embeddings`).

    ``same``: the chunk's own speakers come from such windows too, but of the chunk alone. The
    speakers of the whole recording replace them.
    """

    form: str
    windows: str = field(repr=False)
    same: bool = False


def embeddings_request_of(value: object) -> WindowEmbeddingsRequest | None:
    """Return the request in a form field; None if it is empty or of another version.

    Raises:
        FieldInvalid: it is malformed.
    """
    if value is None or value == "":
        return None
    wrong = FieldInvalid(
        f"The field '{LOCAL_VOICES_FIELD}' is invalid.",
        hint="Omit it: it is for requests between services of the same build.",
    )
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(given, Mapping) or not isinstance(given.get("form"), str):
        raise wrong
    if given["form"] != WINDOW_FORMAT:
        return None
    words_s, first_s = _seconds(given.get("words_s")), _seconds(given.get("first_s"))
    until_s = _seconds(given.get("until_s"))
    begins = given.get("begins")
    if words_s is None or first_s is None or not isinstance(begins, bool):
        raise wrong
    if until_s is None and given.get("until_s") is not None:
        raise wrong
    return WindowEmbeddingsRequest(words_s, first_s, until_s, begins)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    seconds = float(value) if abs(value) <= MAX_S else math.nan
    return seconds if 0 <= seconds <= MAX_S else None


def embeddings_in_answer(body: Mapping[str, Any]) -> EncodedWindowEmbeddings | None:
    """Return the window embeddings of an answer; None if it has no such field."""
    match body.get(LOCAL_VOICES_FIELD):
        case {"form": str(form), "windows": str(windows), **rest}:
            return EncodedWindowEmbeddings(form, windows, rest.get("same") is True)
    return None
