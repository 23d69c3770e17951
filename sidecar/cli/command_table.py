"""Command table and help for typer; command `config`: conversion of a gRPC server's YAML files."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sidecar import errors
from sidecar.cli import doctor, live, monitor, open, people, pull, serve, talk, token, transcribe
from sidecar.cli.common_options import (
    SERVER_OR_SETTINGS_HELP,
    argument,
    command,
    option,
    serve_with,
    subcommands,
)
from sidecar.cli.jobs import build as build_jobs
from sidecar.cli.output import PROGRAM, print_error_line, print_text
from sidecar.installation import install_command
from sidecar.version import __version__


@functools.cache
def build_command() -> Any:
    """Return the whole command line, as the click command that typer builds."""
    app = typer.Typer(
        rich_markup_mode="markdown", context_settings={"help_option_names": ["--help", "-h"]}
    )
    app.callback()(_root)
    commands: dict[str, Callable[..., int]] = {
        "serve": serve_with(serve.run),
        "node": serve_with(serve.run_node),
        "transcribe": command(transcribe.run),
        "live": command(live.run, about="source"),
        "talk": command(talk.talk, about="file"),
        "estimate": command(transcribe.estimate, about="file"),
        "demo": command(open.demo),
        "status": command(monitor.status, SERVER_OR_SETTINGS_HELP),
        "monitor": command(monitor.monitor, SERVER_OR_SETTINGS_HELP),
        "open": command(open.open_page, SERVER_OR_SETTINGS_HELP),
        "pull": command(pull.pull),
        "list": command(pull.list_models),
        "rm": command(pull.remove_model),
        "doctor": command(doctor.doctor),
    }
    for name, function in commands.items():
        app.command(name)(function)
    app.add_typer(token.build(), name="token")
    app.add_typer(subcommands(config, convert), name="config")
    app.add_typer(build_jobs(), name="jobs")
    app.add_typer(people.build(), name="people")
    _add_bench(app)
    return typer.main.get_command(app)


def _add_bench(app: typer.Typer) -> None:
    """Add the group `bench`. An editable installation of an earlier version lacks its package; then
    `bench` only says so, and all other commands work."""
    try:
        from sidecar.cli import bench
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("vibevoice_asr_load_test"):
            raise
        whatever = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(
            "bench",
            help="Load-test a running service. Its package is not installed.",
            add_help_option=False,
            context_settings=whatever,
        )(command(_refuse_bench))
    else:
        app.add_typer(bench.build(), name="bench")


def _refuse_bench() -> None:
    raise errors.SettingsInvalid(
        "The load test is not installed (missing: vibevoice_asr_load_test).",
        hint=f"Install it again: {install_command('')}",
    )


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
        None, "Write to this file instead of stdout.", "--output", "-o", metavar="FILE"
    ),
) -> int:
    """Write the corresponding TOML file."""
    from sidecar import files
    from sidecar.config import grpc_yaml_config
    from sidecar.plugins import load_settings

    paths = [file] if model is None else [file, model]
    meant = grpc_yaml_config.read(paths)
    load_settings(**meant.settings)  # report invalid values now
    written = meant.to_toml([path.name for path in paths])
    if output is None:
        print_text(written)
    else:
        files.write(output, written.encode(), files.PUBLIC)
    for key in meant.unheeded:
        print_error_line(f"nothing here corresponds to {key}")
    return 0


def _show_version(wanted: bool) -> None:
    if wanted:
        print_text(f"{PROGRAM} {__version__}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Speech to text with speakers, on this machine. Without a command it serves.

    Examples:

    * `vibevoice-asr`: serve on 127.0.0.1:8765
    * `vibevoice-asr --port 0 --preload`: serve on a free port, with the engine loaded
    * `vibevoice-asr open`: open the page of the service in the browser
    * `vibevoice-asr transcribe talk.m4a`: print who said what
    * `vibevoice-asr transcribe *.wav --format srt --output subtitles`: write subtitles for each
    * `vibevoice-asr live`: transcribe the microphone live
    * `vibevoice-asr talk`: hold a spoken conversation
    * `vibevoice-asr pull`: download VibeVoice-ASR, for machines with a GPU
    * `vibevoice-asr doctor`: show what is installed, what is missing, what to do next
    """
