"""Languages by the names that OpenAI's answers have for them: English ones, in lower case. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar import errors
from sidecar.interfaces.engine import AUTO, EngineSpec
from sidecar.interfaces.languages import NAMES
from sidecar.interfaces.options import parse_language

UNKNOWN = "unknown"


def code_of(tag: str) -> str | None:
    """The code of a tag's language, None where nobody knows it."""
    return None if tag == AUTO else tag.split("-")[0].lower()


def name_of(tag: str) -> str:
    """The name of a tag's language; its code where it has none."""
    code = code_of(tag)
    return UNKNOWN if code is None else NAMES.get(code, code)


def tag_of(value: str) -> str:
    """The tag that a client means, who may also send a name, as answers have it.

    Raises:
        errors.LanguageInvalid: it is neither.
    """
    codes = {name: code for code, name in NAMES.items()}
    return codes.get(value.strip().lower()) or parse_language(value)


def only(spec: EngineSpec, possible: Sequence[str]) -> str:
    """The tag that an engine is told where a client names the languages that there may be: the one
    that it knows, or that it find out by itself.

    Raises:
        errors.LanguageInvalid: one of them is no language.
        errors.LanguageUnsupported: the engine knows none of them.
    """
    tags = list(dict.fromkeys(tag_of(one) for one in possible))
    known = [tag for tag in tags if spec.speaks(tag)]
    if tags and not known:
        raise errors.LanguageUnsupported(
            f"The engine '{spec.name}' knows none of these languages: {', '.join(tags)}."
        )
    return known[0] if len(known) == 1 else AUTO
