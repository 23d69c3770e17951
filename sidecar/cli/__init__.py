"""Command line `vibevoice-asr`: dispatch without imports.

Serving must start fast, so modules that only other commands need are not imported for it.
"""

from __future__ import annotations

import gc
import os
import sys

from sidecar.cli.output import COMPLETION, INTERRUPTED, PROGRAM, USAGE, print_error_line

ROOT_FLAGS = ("--help", "-h", "--version", "--install-completion", "--show-completion")
"""Options of the root command; all others are those of `serve`, the default command."""

SERVING = ("serve", "node")


def main() -> None:
    """Run the command line and exit."""
    try:
        _run_words(sys.argv[1:])
    except KeyboardInterrupt:  # before a command runs; commands handle it themselves
        sys.exit(INTERRUPTED)


def _run_words(words: list[str]) -> None:
    # Imports leave next to no garbage, and collecting it takes a tenth of the start. A command
    # collects again once it is imported, a service once it is open (`server/app.py`).
    gc.disable()
    if words[:1] == ["worker"]:  # the frozen executable is its own worker process
        from sidecar.workers import worker_main

        gc.enable()
        worker_main.main()
    elif not words and COMPLETION not in os.environ:
        from sidecar.cli import serve

        sys.exit(serve.run({}))
    else:
        sys.exit(run(words))


def run(words: list[str]) -> int:
    """Run one command line; return the exit code."""
    from sidecar.cli.command_table import build_command

    if not words or (words[0].startswith("-") and words[0].partition("=")[0] not in ROOT_FLAGS):
        words = ["serve", *words]
    command = build_command()
    if words[0] not in SERVING:
        gc.enable()
    try:
        code = command.main(
            words, prog_name=PROGRAM, complete_var=COMPLETION, standalone_mode=False
        )
    except Exception as error:
        # By version, Typer brings a click of its own or not; the usage errors of both have this
        # method.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        text = message()
        if text and not text.endswith((".", "?")):
            text += "."
        print_error_line(f"{text} See '{where} --help'.")
        return USAGE
    return code if isinstance(code, int) else 0
