"""Command table and help for typer."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sidecar.cli import doctor, live, open, people, pull, serve, status, token, transcribe
from sidecar.cli.common_options import (
    SERVER_OR_SETTINGS_HELP,
    command,
    serve_with,
)
from sidecar.cli.jobs import build as build_jobs
from sidecar.cli.output import PROGRAM, print_text
from sidecar.plugins import installed
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
        "transcribe": command(transcribe.run),
        "live": command(live.run, about="source"),
        "estimate": command(transcribe.estimate, about="file"),
        "demo": command(open.demo),
        "status": command(status.status, SERVER_OR_SETTINGS_HELP),
        "open": command(open.open_page, SERVER_OR_SETTINGS_HELP),
        "pull": command(pull.pull),
        "list": command(pull.list_models),
        "rm": command(pull.remove_model),
        "doctor": command(doctor.doctor),
    }
    for name, function in commands.items():
        app.command(name)(function)
    app.add_typer(token.build(), name="token")
    app.add_typer(build_jobs(), name="jobs")
    app.add_typer(people.build(), name="people")
    for plugin in installed().values():
        plugin.add_commands(app)
    return typer.main.get_command(app)


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
