"""Types of settings (durations, lists, ports, languages) and the base of a group."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
)
from pydantic_settings import NoDecode

from sidecar import errors
from sidecar.files import expand_home
from sidecar.interfaces.language_tags import parse_language
from sidecar.interfaces.request_options import parse_hotwords

ENV_PREFIX = "VIBEVOICE_"
MIN_TOKEN_CHARACTERS = 16
"""Shorter tokens can be guessed."""
MIN_JOURNAL_KEY_CHARACTERS = 32
"""128 bits as hexadecimal digits."""
MAX_REASON_BYTES = 123
"""Maximum bytes of a close frame's reason (RFC 6455, 5.5)."""
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

MIN_SETTING, MAX_SETTING = 0.000_001, 1_000_000_000
"""Limits of the size of numbers but 0: a microsecond to thirty years; up to a petabyte (MB)."""


def parse_duration(value: object) -> object:
    """Return the seconds of ``90``, ``"90s"``, ``"10m"``, ``"1.5h"`` or ``"2d"``; -1 means
    'never'."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", value.strip().lower())
    if match is None:
        raise ValueError("not a duration such as 90, '90s', '10m', '1.5h' or '2d'")
    return float(match[1]) * _UNITS[match[2] or ""]


def format_duration(seconds: float) -> str:
    """Return a duration as text: in whole hours or minutes if possible, else in seconds."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size:g}{unit}"
    return f"{seconds:g}s"


Duration = Annotated[float, BeforeValidator(parse_duration)]
OptionalDuration = Annotated[float | None, BeforeValidator(parse_duration)]


def parse_host(value: object) -> object:
    """Return a host without the brackets that an IPv6 address has in a URL."""
    return re.sub(r"^\[(.*)\]$", r"\1", value) if isinstance(value, str) else value


Host = Annotated[str, BeforeValidator(parse_host)]


def parse_list(value: object) -> object:
    """Return the words of a list, or of comma-separated text."""
    if not isinstance(value, str):
        return value
    return tuple(word for part in value.split(",") if (word := part.strip()))


WordList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_list)]
OptionalPath = Annotated[Path | None, AfterValidator(lambda path: path and expand_home(path))]
"""Path of which ``~`` is the home folder."""
PathText = Annotated[str, AfterValidator(os.path.expanduser)]
"""The same for a text that may also be another word, or an address."""
Folders = Annotated[
    tuple[Path, ...],
    NoDecode,
    BeforeValidator(parse_list),
    AfterValidator(lambda folders: tuple(map(expand_home, folders))),
]


def parse_language_tag(value: object) -> object:
    """Return a language tag, normalised, or 'auto'."""
    if not isinstance(value, str):
        return value
    try:
        return parse_language(value)
    except errors.LanguageInvalid as error:
        raise ValueError(f"{error.detail} {error.hint}") from None


Language = Annotated[str, BeforeValidator(parse_language_tag)]


def parse_hotword_list(value: object) -> object:
    """Return the hotwords in comma-separated text or a list of texts."""
    try:
        return parse_hotwords(", ".join(value) if isinstance(value, list | tuple) else value)
    except errors.FieldInvalid as error:
        raise ValueError(f"{error.detail} {error.hint}") from None


Hotwords = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_hotword_list)]


class DatabaseUrl(SecretStr):
    """Database address that may contain a password, so it is treated as a secret."""

    @property
    def has_password(self) -> bool:
        """Return whether the address has a password."""
        before, at, _ = self.get_secret_value().partition("//")[2].partition("@")
        return (bool(at) and ":" in before) or "password=" in self.get_secret_value()


def at_least(characters: int) -> AfterValidator:
    """Return a validator of a secret's minimum length; a file's content is checked when it is
    read."""

    def check(value: SecretStr | None) -> SecretStr | None:
        said = value.get_secret_value() if value is not None else "@"
        if len(said) < characters and not said.startswith("@"):
            raise ValueError(f"shorter than {characters} characters")
        return value

    return AfterValidator(check)


def setting(default: Any, description: str, **limits: Any) -> Any:
    """Return the field of a setting; ``limits`` are arguments of `pydantic.Field`."""
    return Field(default, description=description, **limits)


class SettingsGroup(BaseModel):
    """Base class of a group of settings. `Settings` inherits the groups of the core, and the class
    of a service's settings those of its plugins, too (`sidecar.plugins.load_settings`)."""

    model_config = ConfigDict(defer_build=True, frozen=True, protected_namespaces=())

    @classmethod
    def of(cls, settings: BaseModel) -> Self:
        """Return this group's part of ``settings``; the defaults if they lack it."""
        return settings if isinstance(settings, cls) else cls()

    @field_validator("*", mode="wrap")
    @classmethod
    def _reasonable(cls, given: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Refuse implausible numbers, in addition to a setting's own limits."""
        value = read(given)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return value
        if isinstance(given, bool) or (value and not MIN_SETTING <= abs(value) <= MAX_SETTING):
            raise ValueError(f"not 0, nor a number from {MIN_SETTING:f} to {MAX_SETTING:,}")
        return value


def with_engines(
    group: type[SettingsGroup], name: str, described: Mapping[str, str]
) -> type[SettingsGroup]:
    """Return a group whose setting ``name`` can name these engines, too, and describes them."""
    field = group.model_fields[name]
    names = (*get_args(field.annotation), *described)
    text = " ".join([field.description or "", *described.values()])
    changed: dict[str, Any] = {name: (Literal[names], setting(field.default, text))}
    return create_model(group.__name__, __base__=group, __doc__=group.__doc__, **changed)
