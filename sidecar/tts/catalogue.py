"""Which voices there are, by what the library says of them, and which one people mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar import errors
from sidecar.interfaces.engine import few

USUAL_LANGUAGE = "en-us"
KINDS = ("kokoro_", "piper_", "zipvoice_")
"""What a voice's name begins with: the model it is of. People may leave it out."""
_OWN_CHOICE = re.compile(r"(?:(kokoro)/voices/(.+)\.kokorovoice|(piper)-voices/(.+)\.onnx)$")

Catalogue = Mapping[str, Sequence[str]]
"""Tags such as 'en-us', and the names of the voices for each."""


@dataclass(frozen=True, slots=True)
class Named:
    """A voice and what it is to speak; ``name`` '' leaves the voice to the library."""

    name: str
    language: str


def choose(catalogue: Catalogue, name: str = "", language: str = "") -> Named:
    """The voice that is meant by ``name`` and ``language``, of which either may be ''.

    Raises:
        errors.VoiceUnknown: there is none.
    """
    if not name:
        return Named("", _language(catalogue, language or USUAL_LANGUAGE))
    tags = [_language(catalogue, language)] if language else sorted(catalogue, key=_rank)
    wanted = {name.lower(), *(f"{kind}{name}".lower() for kind in KINDS)}
    for tag in tags:
        for voice in catalogue[tag]:
            if voice.lower() in wanted:
                return Named(voice, tag)
    there = few(catalogue[tags[0]]) if language else ""
    raise errors.VoiceUnknown(
        f"There is no voice '{name}'" + (f" for {tags[0]}." if language else "."),
        hint=f"There are: {there}." if there else "List them: vibevoice-asr pull voice --list",
    )


def own_choice(keys: Sequence[str]) -> str:
    """The voice that the library takes by itself, by the files it says it needs.

    Raises:
        errors.VoiceUnknown: none of them is a voice's.
    """
    for key in keys:
        if found := _OWN_CHOICE.search(key):
            kind, name = (part for part in found.groups() if part)
            return f"{kind}_{name}"
    raise errors.VoiceUnknown(hint="List them: vibevoice-asr pull voice --list")


def _language(catalogue: Catalogue, language: str) -> str:
    """The tag that is meant: itself, or the first region of a language."""
    wanted = language.strip().lower().replace("_", "-")
    general = [tag for tag in sorted(catalogue, key=_rank) if tag.split("-")[0] == wanted]
    if wanted in catalogue:
        return wanted
    if general:
        return general[0]
    raise errors.VoiceUnknown(
        f"There is no voice for '{language}'.",
        hint=f"There are voices for: {few(sorted(catalogue))}.",
    )


def _rank(tag: str) -> tuple[int, str]:
    """American English first, then languages where they come from ('es-es' before 'es-ar')."""
    language, _, region = tag.partition("-")
    return (0 if tag == USUAL_LANGUAGE else 1 if language == region else 2, tag)
