"""Command line `vibevoice-asr`: dispatch without imports.

Serving must start fast, so modules that only other commands need are not imported for it.
"""

import gc
import os
import sys

from sidecar.cli import output

ROOT_FLAGS = ("--help", "-h", "--version", "--install-completion", "--show-completion")
"""Options of the root command; all others are those of `serve`, the default command."""

SERVING = ("serve", "node", "whisper-server")


def main() -> None:
    """Run the command line and exit."""
    output.open_stderr()
    if "SSLKEYLOGFILE" in os.environ:
        from vibevoice_asr_client.tls import forget_unusable_key_log

        if warning := forget_unusable_key_log():
            output.print_error_line(warning)
    try:
        _run_words(_words_of(*sys.argv))
    except KeyboardInterrupt:  # before a command runs; commands handle it themselves
        sys.exit(output.INTERRUPTED)


def _words_of(program: str, *words: str) -> list[str]:
    """Return the words of the command line: a program with the name of a command that serves is
    that command, if it gets options alone, as hosts start it."""
    name = os.path.splitext(os.path.basename(program))[0]
    if name in SERVING and not (words and not words[0].startswith("-")):
        return [name, *words]
    return [*words]


def _run_words(words: list[str]) -> None:
    # Imports leave next to no garbage, and collecting it takes a tenth of the start. A command
    # collects again once it is imported, a service once it is open (`server/app.py`).
    gc.disable()
    if words[:1] == ["worker"]:  # the frozen executable is its own worker process
        from sidecar.workers import worker_main

        gc.enable()
        worker_main.main()
    elif not words and output.COMPLETION not in os.environ:
        from sidecar.cli import serve

        serve.run({})
    else:
        if sys.stdout is not None or _is_command(words):  # a host may have closed a service's
            output.open_stdout()
        sys.exit(run(words))


def _is_command(words: list[str]) -> bool:
    """Return whether the words are not those of a service."""
    return bool(words) and words[0] not in SERVING and not _is_flag_of_serve(words[0])


def _is_flag_of_serve(word: str) -> bool:
    return word.startswith("-") and word.partition("=")[0] not in ROOT_FLAGS


def run(words: list[str]) -> int:
    """Run one command line; return the exit code."""
    from sidecar.cli.command_table import build_command
    from sidecar.errors import SidecarError

    if not words or _is_flag_of_serve(words[0]):
        words = ["serve", *words]
    try:
        command = build_command()
    except SidecarError as error:  # a plugin of another distribution cannot be imported
        if words[0] not in SERVING:
            return output.report_error(error)
        from sidecar.cli.serve import report_fatal

        return report_fatal(error)
    if words[0] not in SERVING:
        gc.enable()
    try:
        code = command.main(
            words, prog_name=output.PROGRAM, complete_var=output.COMPLETION, standalone_mode=False
        )
    except OSError:
        if failed := output.close_stdout():
            return failed
        raise
    except Exception as error:
        # By version, Typer brings a click of its own or not; the usage errors of both have this
        # method.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        where = getattr(getattr(error, "ctx", None), "command_path", output.PROGRAM)
        text = message()
        if text and not text.endswith((".", "?")):
            text += "."
        output.print_error_line(f"{text} See '{where} --help'.")
        return output.USAGE
    return (code if isinstance(code, int) else 0) or output.close_stdout()
