"""Settings as a TOML file of ours. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.config.original import Meant


def text_of(meant: Meant, sources: Sequence[str]) -> str:
    """The file that says what ``meant`` does; ``sources``: the names of the files it came from."""
    lines = [f"# Settings of vibevoice-asr, from {', '.join(sources)}."]
    if meant.unheeded:
        lines += ["# Nothing here corresponds to:", *(f"#   {key}" for key in meant.unheeded)]
    return "\n".join([*lines, "", *_pairs(meant.settings)]) + "\n"


def _pairs(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in settings.items()]


def _value(value: Any) -> str:
    """JSON's texts, numbers and truths are TOML's too, but for one character that TOML wants
    escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
