"""Plain values for enrolled speakers, identified speakers and the local speakers of a chunk.

Only services of ours ask each other for it, and only where speakers are wanted. Inside it is
`diarization/`'s own; out here it is asked for, handed on, and forgotten with the answer. Pure.

A vector travels as text: the service keeps it and hands it on, and only a worker looks inside.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sidecar.errors import FieldInvalid

MAX_NAME_CHARACTERS = 200
"""Characters of what somebody is called."""
ROUNDED = 0.01
"""A vector of length 1 is that much off at most, as float16."""


@dataclass(frozen=True, slots=True)
class SpeakerEmbedding:
    """Embedding of a speaker in one recording.

    ``vector``: base64 of 256 little-endian float16, of length 1
    (`diarization.speaker_identification`). ``seconds``: of voice, alone, that it was made of.
    """

    vector: str = field(repr=False)
    seconds: float


def is_valid_embedding(one: SpeakerEmbedding) -> bool:
    """Return whether an embedding from outside is one: 256 numbers, of length 1 as far as they are
    exact."""
    try:
        numbers = struct.unpack("<256e", base64.b64decode(one.vector, validate=True))
    except (ValueError, struct.error):
        return False
    return abs(math.hypot(*numbers) - 1) < ROUNDED and 0 <= one.seconds < math.inf


@dataclass(frozen=True, slots=True)
class SpeakerCandidate:
    """Enrolled speaker to identify in a recording; ``person`` is the caller's id of it."""

    person: str
    name: str
    prints: tuple[SpeakerEmbedding, ...]


@dataclass(frozen=True, slots=True)
class SpeakerProfile:
    """Voice profile of a transcript's speaker.

    ``seconds``: of voice that could be compared. ``person`` and ``name``: the enrolled speaker,
    None if none is similar enough; a ``name`` without a ``person`` was given by hand. ``likeness``:
    the cosine to that person, or to the most similar one that it is not; None if none was compared.
    ``print``: the embedding, only if the client asked for it.
    """

    speaker: int
    seconds: float
    person: str | None = None
    name: str | None = None
    likeness: float | None = None
    print: SpeakerEmbedding | None = None


LOCAL_VOICES_FIELD = "local_voices"
"""Its name in a request, in the answer, and in /health of who offers it."""
WINDOW_FORMAT = "2-9715e399-6e4af7d4"
"""Format of the windows, and the models that made them (the first digits of both digests): those
of another format are not usable here."""
BLOCK_S = 10.0
"""The first window of a piece begins at a multiple of it, by the clock of the recording."""
BLOCK_MARGIN_S = BLOCK_S
"""Audio behind the start of the windows of the next chunk."""
MIN_LAST_S = 2 * BLOCK_S
"""The last piece has at least so much behind where its windows begin: its last one, and the block
that is heard with what is before it, reach back that far."""
MAX_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class WindowEmbeddingsRequest:
    """Windows that are requested of a chunk; seconds from the start of what is sent.

    ``words_s``: behind it the sound is there for its voices, and no words are wanted. ``first_s``:
    where the first window begins. ``until_s``: where the first of the next piece does; None where
    the recording ends with the sound. ``begins``: the recording begins with the first window.
    """

    words_s: float
    first_s: float = 0.0
    until_s: float | None = None
    begins: bool = False

    def to_text(self) -> str:
        """As it stands in a request."""
        return json.dumps({"form": WINDOW_FORMAT, **asdict(self)})


@dataclass(frozen=True, slots=True)
class EncodedWindowEmbeddings:
    """The windows that were asked for, as base64 (`diarization.window_embeddings`).

    ``same``: the piece's own speakers were told apart by such windows as well, but of the piece
    alone, and so say nothing that those of the whole recording do not say better.
    """

    form: str
    windows: str = field(repr=False)
    same: bool = False


def embeddings_request_of(value: object) -> WindowEmbeddingsRequest | None:
    """Return the request for window embeddings in a form; None without one, or for another version.

    Raises:
        FieldInvalid: it means nothing.
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
    """Return the window embeddings of an answer; None if it has nothing that looks like them."""
    match body.get(LOCAL_VOICES_FIELD):
        case {"form": str(form), "windows": str(windows), **rest}:
            return EncodedWindowEmbeddings(form, windows, rest.get("same") is True)
    return None
