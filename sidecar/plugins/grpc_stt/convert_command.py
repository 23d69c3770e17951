"""Command `config convert`: conversion of a gRPC server's YAML files."""

from pathlib import Path

import typer

from sidecar.cli.common_options import argument, option, subcommands
from sidecar.cli.output import named_file, print_error_line, print_text, write_new
from sidecar.plugins.grpc_stt import yaml_config


def build() -> typer.Typer:
    """Build the group `config`."""
    return subcommands(config, convert)


def config() -> None:
    """Convert the YAML files of another gRPC server.

    The clients of that server work with this service. Keys without a counterpart are reported.

    Examples:

    * `vibevoice-asr config convert server.yaml`
    * `vibevoice-asr config convert server.yaml model.yaml --output vibevoice-asr.toml`
    """


def convert(
    file: Path = argument(..., "YAML file of the server.", metavar="FILE"),
    model: Path | None = argument(None, "YAML file of its model.", metavar="MODEL"),
    output: Path | None = option(
        None, "Write to this new file instead of stdout.", "--output", "-o", metavar="FILE"
    ),
) -> int:
    """Write the corresponding TOML file."""
    from sidecar.plugins import load_settings

    paths = [file] if model is None else [file, model]
    converted = yaml_config.read(paths)
    load_settings(**converted.settings)  # report invalid values now
    toml = converted.to_toml([path.name for path in paths])
    if (path := named_file(output)) is None:
        print_text(toml)
    else:
        write_new(path, toml)
    for key in converted.ignored:
        print_error_line(f"nothing here corresponds to {key}")
    return 0
