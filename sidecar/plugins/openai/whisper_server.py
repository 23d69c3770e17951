"""Command `whisper-server`: this service for hosts that start whisper.cpp's server.

A host starts that as `whisper-server -m MODEL --host HOST --port PORT -t THREADS`, waits until
`GET /` answers, and sends recordings to `POST /inference` (`routes.py`). An executable of that name
takes the same words (`sidecar.cli`).
"""

import re
from typing import Any

import typer
from typer.core import TyperCommand

PORT = 8080
"""whisper.cpp's."""


class _WhisperServerCommand(TyperCommand):
    """Command without the short options of several letters, as `-nth 0.6`, which whisper.cpp's
    server has: read as several of one letter they would be a language, or ask for help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        short = [one for one in args if not re.fullmatch(r"-[a-z]{2,}", one)]
        return super().parse_args(ctx, short)


def add_command(app: typer.Typer) -> None:
    """Add the command; options that only whisper.cpp has are taken, and have no effect."""
    app.command(
        "whisper-server",
        cls=_WhisperServerCommand,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(serve)


def serve(
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on."),
    port: int = typer.Option(PORT, "--port", help="Port to listen on."),
    language: str = typer.Option(
        "", "--language", "-l", help="Language of most recordings, such as 'de'.", metavar="TAG"
    ),
    model: str = typer.Option(
        "", "--model", "-m", help="Ignored: the settings choose engine and model.", metavar="FILE"
    ),
) -> int:
    """Serve as whisper.cpp's server does, for hosts that start one.

    Other options of that server have no effect. Settings come from the environment and the file,
    as for `serve`.

    Example: `vibevoice-asr whisper-server --port 8178`
    """
    from sidecar.cli.serve import run

    given: dict[str, Any] = {"host": host, "port": port}
    if language:
        given["language"] = language
    return run(given)
