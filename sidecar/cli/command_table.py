"""Commands, options and help, for typer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidecar import __version__
from sidecar.cli import (
    bench,
    config,
    jobs,
    live,
    monitor,
    people,
    serve,
    talk,
    token,
    transcribe,
)
from sidecar.cli.common_options import ELSE_OURS, addressed, serve_with
from sidecar.cli.output import PROGRAM
from sidecar.cli.transcribe import PrecisionOption

if TYPE_CHECKING:
    from sidecar.cli.backends import Where
from sidecar.config.settings import NODE

HELP = f"""
Speech to text with speakers, on this machine. Without a command it serves.

Examples:

* `{PROGRAM}`: serve on 127.0.0.1:8765
* `{PROGRAM} --port 0 --preload`: serve on a free port, with the engine loaded
* `{PROGRAM} open`: the page of a running service, in the browser
* `{PROGRAM} transcribe talk.m4a`: who said what, on the terminal
* `{PROGRAM} transcribe *.wav --format srt --output subtitles`: a file of subtitles for each
* `{PROGRAM} live`: what is said into the microphone, while it is said
* `{PROGRAM} talk`: a spoken conversation
* `{PROGRAM} pull`: download VibeVoice-ASR, for machines with a GPU
* `{PROGRAM} doctor`: what is here, what is missing, what to do next
"""
SERVE_HELP = f"""
Serve over HTTP until told to stop.

Flags win over the environment, the environment over the file, the file over the defaults. The
file is config.toml in the folder vibevoice-asr of your configuration folder, or the one that
VIBEVOICE_CONFIG or --config names.

Examples:

* `{PROGRAM} serve --port 9000 --keep-alive 1h`
* `{PROGRAM} --engine scripted`: for hosts in development, made-up text at once
"""
NODE_HELP = f"""
Work on the jobs that services share, and take none in: claim what fits this machine when it is
free, until told to stop.

All that share have the same journal, the same key and the same folder for uploads. Of its port only
/health, the probes and /metrics are left. Told to stop it claims no more; what runs has the time of
shutdown_grace to end, then another goes on with it from what is settled.

Examples:

* `{PROGRAM} node --journal postgresql://vibevoice@db/vibevoice --jobs-dir /mnt/jobs`
* `{PROGRAM} node --config node.toml --shutdown-grace 10m`
* `{PROGRAM} serve --role front --config front.toml`: who takes in for nodes
"""
ESTIMATE_HELP = f"""
Say whether a recording fits into the memory that is there, and how long it takes.

The exit code is 1 where it does not fit.

Examples:

* `{PROGRAM} estimate meeting.opus`
* `{PROGRAM} estimate meeting.opus --precision int8 --server http://127.0.0.1:8765`
"""
STATUS_HELP = f"""
Show how a running service is.

Example: `{PROGRAM} status --server http://127.0.0.1:9000`
"""
OPEN_HELP = f"""
Open the page of a running service in the browser: drop recordings, read and search what was said.

Where the service wants a token, the page gets the one that is known here, by a link that counts
once. The token itself is in no address.

Example: `{PROGRAM} open --server http://127.0.0.1:9000`
"""
DEMO_HELP = f"""
Start the service, transcribe a recording through it (one that came along, or yours), keep serving.

Example: `{PROGRAM} demo meeting.m4a`
"""
PULL_HELP = f"""
Download a checkpoint of VibeVoice-ASR (16.7 GB), or check the one that is here.

What was interrupted goes on where it stopped, what is here is not fetched again, and every file is
checked. The folder is printed, and its commit is said; a later pull stays at it unless --revision
names another.

Examples:

* `{PROGRAM} pull`
* `{PROGRAM} pull OWNER/NAME --revision v1.1`, or `OWNER/NAME@v1.1`
* `{PROGRAM} pull --to /mnt/models/vibevoice-asr`

`{PROGRAM} pull voice` brings one that speaks in conversations, to the folder of the setting
voices_dir:

* `{PROGRAM} pull voice`
* `{PROGRAM} pull voice --language de`
* `{PROGRAM} pull voice af_heart`
* `{PROGRAM} pull voice --list --language en-gb`
"""
DOCTOR_HELP = f"""
Say what is here, what is missing, and the one thing to do next.

With --report it goes into a file for a bug report, with the end of the log and notes of crashes:
no audio, no transcript.

Examples:

* `{PROGRAM} doctor`
* `{PROGRAM} doctor --report`
"""


def build_command() -> Any:
    """The whole command line, as the click command that typer makes of it."""
    app = typer.Typer(
        help=HELP,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_root)
    app.command("serve", help=SERVE_HELP)(serve_with(lambda given: _exit(serve.run(given))))
    app.command("node", help=NODE_HELP)(
        serve_with(lambda given: _exit(serve.run(given | {"role": NODE})))
    )
    app.command("transcribe", help=transcribe.HELP)(addressed(transcribe.Order, run=transcribe.run))
    app.command("live", help=live.HELP)(addressed(live.Order, run=live.run))
    app.command("talk", help=talk.HELP)(addressed(talk.talk))
    app.command("estimate", help=ESTIMATE_HELP)(addressed(_estimate))
    app.command("demo", help=DEMO_HELP)(_demo)
    app.command("status", help=STATUS_HELP)(addressed(_status, ELSE_OURS))
    app.command("monitor", help=monitor.HELP)(addressed(monitor.monitor, ELSE_OURS))
    app.command("open", help=OPEN_HELP)(addressed(_open, ELSE_OURS))
    app.command("pull", help=PULL_HELP)(_pull)
    app.command("doctor", help=DOCTOR_HELP)(_doctor)
    app.add_typer(token.build(), name="token")
    app.add_typer(config.build(), name="config")
    app.add_typer(jobs.build(), name="jobs")
    app.add_typer(people.build(), name="people")
    app.add_typer(bench.build(), name="bench")
    return typer.main.get_command(app)


def _exit(code: int) -> None:
    raise typer.Exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options that go before any command."""


def _estimate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording.")],
    precision: PrecisionOption = None,
    *,
    where: Where,
) -> None:
    from sidecar.cli import estimate

    _exit(estimate.run(file, precision, where))


def _demo(
    audio: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A recording; a sample without it.")
    ] = None,
    port: Annotated[str | None, typer.Option(metavar="integer", help="Port to serve on.")] = None,
) -> None:
    from sidecar.cli import demo

    _exit(demo.run(audio, {"port": port} if port else {}))


def _status(
    *,
    where: Where,
) -> None:
    from sidecar.cli import status

    _exit(status.run(where))


def _open(
    *,
    where: Where,
    show: Annotated[bool, typer.Option("--print", help="Print the link instead.")] = False,
) -> None:
    from sidecar.cli import open

    _exit(open.run(where, show=show))


def _pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="'vibevoice', 'vibevoice-1.5b' (speaks), 'whisper:small' (tiny to large-v3), "
            "'voice', or OWNER/NAME; each with @REV.",
        ),
    ] = "vibevoice",
    voice: Annotated[
        str,
        typer.Argument(metavar="VOICE", help="Of 'voice': which one; a good one if left out."),
    ] = "",
    revision: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Branch, tag or commit; if left out, the commit that is here, else the newest.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the files, instead of the shared cache."),
    ] = None,
    language: Annotated[
        str, typer.Option(metavar="TAG", help="Of 'voice': what it is to speak, such as 'en-us'.")
    ] = "",
    listed: Annotated[
        bool, typer.Option("--list", help="Of 'voice': say which there are, and bring none.")
    ] = False,
) -> None:
    from sidecar.cli import pull

    if name == pull.VOICE:
        _exit(pull.run_voice(voice, language, to, listed=listed))
    if voice or language or listed:
        raise typer.BadParameter(f"VOICE, --language and --list go with 'pull {pull.VOICE}'.")
    name, _, named = name.partition("@")
    if named and revision:
        raise typer.BadParameter("Name the revision once: NAME@REV, or --revision REV.")
    _exit(pull.run(name, named or revision, to))


def _doctor(
    report: Annotated[
        bool, typer.Option("--report", help="Write a file for a bug report instead.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the report goes.")
    ] = None,
) -> None:
    from sidecar.cli import doctor

    _exit(doctor.run(report, file))
