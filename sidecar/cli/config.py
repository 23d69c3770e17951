"""Command `config`: conversion of YAML files of a gRPC server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sidecar.cli.common_options import argument, option, subcommands
from sidecar.cli.output import print_error_line, print_text

if TYPE_CHECKING:
    from sidecar.config.grpc_yaml_config import ConvertedConfig


def config() -> None:
    """Convert the YAML files of another gRPC server.

    The clients of that server work with this service. Keys without a counterpart are reported.

    Examples:

    * `vibevoice-asr config convert server.yaml`
    * `vibevoice-asr config convert server.yaml model.yaml --output vibevoice-asr.toml`
    """


def build() -> typer.Typer:
    """Return the command group `config`."""
    return subcommands(config, convert)


def convert(
    file: Path = argument(..., "YAML file of the server.", metavar="FILE"),
    model: Path | None = argument(None, "YAML file of its model.", metavar="MODEL"),
    output: Path | None = option(
        None, "Write to this file instead of stdout.", "--output", "-o", metavar="FILE"
    ),
) -> int:
    """Write the corresponding TOML file."""
    from sidecar import files
    from sidecar.config import grpc_yaml_config
    from sidecar.config.settings import load_settings

    paths = [file] if model is None else [file, model]
    meant = grpc_yaml_config.read(paths)
    load_settings(**meant.settings)  # report invalid values now
    written = _text(meant, [path.name for path in paths])
    if output is None:
        print_text(written)
    else:
        files.write(output, written.encode(), files.PUBLIC)
    for key in meant.unheeded:
        print_error_line(f"nothing here corresponds to {key}")
    return 0


def _text(meant: ConvertedConfig, sources: Sequence[str]) -> str:
    """Return the TOML file; ``sources``: the names of the files that it is converted from."""
    lines = [f"# Settings of vibevoice-asr, from {', '.join(sources)}."]
    if meant.unheeded:
        lines += ["# Nothing here corresponds to:", *(f"#   {key}" for key in meant.unheeded)]
    pairs = [f"{name} = {_value(value)}" for name, value in meant.settings.items()]
    return "\n".join([*lines, "", *pairs]) + "\n"


def _value(value: Any) -> str:
    """Return a value as JSON, which is TOML except for one character that TOML requires to be
    escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
