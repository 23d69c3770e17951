"""Files with settings, read: TOML of ours, YAML of another server's; nothing in them is run."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidecar import private
from sidecar.config import original
from sidecar.config.original import Meant
from sidecar.errors import SettingsInvalid
from sidecar.version import is_frozen

LARGEST = 256 << 10
"""Bytes."""
YAML = frozenset({".yaml", ".yml"})
DEEPEST = 20
"""Levels of a YAML file, of which two mean something."""


def is_yaml(path: Path) -> bool:
    """Whether a file is one of the other server's, by its name."""
    return path.suffix.lower() in YAML


def read_settings(path: Path | None, model: Path | None, known: Sequence[str]) -> Meant:
    """What a file says, and with it the one that says more of the ``model`` (YAML as well).
    ``known``: the names of settings.

    Raises:
        errors.SettingsInvalid: one cannot be read, or has a key that is not known.
    """
    if model is not None and not is_yaml(model):
        raise SettingsInvalid(f"The file {model} is no YAML.", hint="Name it NAME.yaml.")
    ours = _toml(path, known) if path is not None and not is_yaml(path) else {}
    theirs = [one for one in (path, model) if one is not None and is_yaml(one)]
    meant = original.meant([(str(one), _yaml(one)) for one in theirs])
    return Meant({**ours, **meant.settings}, meant.unheeded)


def _toml(path: Path, known: Sequence[str]) -> dict[str, Any]:
    try:
        given = tomllib.loads(private.read(path, LARGEST).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(f"The file {path} cannot be read: {error}") from None
    for name in given:
        if name not in known:
            raise SettingsInvalid(
                f"{path}: there is no setting '{name}'.", hint=original.suggestion(name, known)
            )
    return given


def _yaml(path: Path) -> object:
    try:
        import yaml
    except ImportError:
        raise SettingsInvalid(
            f"The file {path} is YAML, and the package 'pyyaml' is missing.",
            hint="This executable has it not; 'config convert' elsewhere makes TOML of it."
            if is_frozen()
            else "pip install 'vibevoice-asr[grpc]'",
        ) from None
    data = private.read(path, LARGEST)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise SettingsInvalid(f"{path}: aliases ('*{event.anchor}') are not read.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise SettingsInvalid(f"{path}: this is nested deeper than any key.")
        _refuse_twins(path, yaml.compose(data, Loader=yaml.SafeLoader))
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise SettingsInvalid(f"The file {path} cannot be read: {said}.") from None


def _refuse_twins(path: Path, node: Any) -> None:
    """A key that is there twice: the first would be lost without a word."""
    seen = set()
    for pair in node.value if node is not None and node.id == "mapping" else ():
        key, value = pair
        if key.value in seen and key.id == "scalar":
            line = key.start_mark.line + 1
            raise SettingsInvalid(f"{path}: '{key.value}' is there twice (line {line}).")
        if key.id == "scalar":
            seen.add(key.value)
        _refuse_twins(path, value)
