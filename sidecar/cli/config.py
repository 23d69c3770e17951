"""Command `config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidecar import errors
from sidecar.cli.common_options import command
from sidecar.cli.output import PROGRAM, say

HELP = f"""
Read the YAML files of another gRPC server, whose clients this one serves as well.

They are also read as they are: `{PROGRAM} serve --config server.yaml --model-config model.yaml`.
What nothing here corresponds to is said.

Examples:

* `{PROGRAM} config convert server.yaml`
* `{PROGRAM} config convert server.yaml model.yaml --output vibevoice-asr.toml`
"""


def build() -> typer.Typer:
    """Return the word `config` and the words after it."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    app.callback()(lambda: None)  # makes `convert` a word of its own, though it is alone
    app.command("convert", help="Write the TOML file that says the same.")(command(convert))
    return app


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The server's file (YAML).")],
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="The one of its model (YAML).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where it goes, instead of stdout."),
    ] = None,
) -> int:
    """Write the TOML file that says the same, and say what it leaves out; the exit code."""
    from sidecar import files
    from sidecar.config.config_files import is_yaml, read_settings, text_of
    from sidecar.config.settings import load_settings

    if not is_yaml(file):
        raise errors.SettingsInvalid(f"The file {file} is no YAML.", hint="Name it NAME.yaml.")
    meant = read_settings(file, model, ())
    load_settings(**meant.settings)  # what cannot be is said now
    written = text_of(meant, [one.name for one in (file, model) if one is not None])
    if output is None:
        print(written, end="")
    else:
        files.write(output, written.encode(), files.PUBLIC)
    for key in meant.unheeded:
        say(f"nothing here corresponds to {key}")
    return 0
