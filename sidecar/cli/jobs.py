"""Command `jobs`: backup and restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar import errors
from sidecar.cli.common_options import command
from sidecar.cli.output import PROGRAM, print_error_line

if TYPE_CHECKING:
    from sidecar.storage.job_backup import BackupSummary

HELP = f"""
Back up and restore the jobs that a service keeps (--keep-jobs), as they are: encrypted.

Neither needs the key; the service that goes on with them does. They lie in the folder of the
settings (VIBEVOICE_DATA_DIR), or in the one that --jobs-dir names.

Examples:

* `{PROGRAM} jobs backup jobs-monday.tar`: while the service runs, or while it does not
* `{PROGRAM} jobs restore jobs-monday.tar`: into a folder without jobs, with the service stopped
"""

FolderOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the jobs, instead of the settings'.")
]


def build() -> typer.Typer:
    """Return the word `jobs` and the words after it."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    app.command("backup", help="Write jobs and recordings into a new file, 0600.")(command(_backup))
    app.command("restore", help="Put them into a folder in which there are none.")(
        command(_restore)
    )
    return app


def _backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where they go; it must be new.")],
    jobs_dir: FolderOption = None,
) -> None:
    from sidecar.storage.job_backup import back_up_jobs

    _say("backed up", back_up_jobs(_folder(jobs_dir), file))


def _restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `jobs backup` wrote.")],
    jobs_dir: FolderOption = None,
) -> None:
    from sidecar.storage.job_backup import restore_jobs

    _say("restored", restore_jobs(file, _folder(jobs_dir)))


def _folder(named: Path | None) -> Path:
    from sidecar.config.settings import load_settings
    from sidecar.jobs.recovery import jobs_folder

    settings = load_settings()
    if named is None and settings.shares_jobs:
        raise errors.SettingsInvalid(
            "The jobs are in a database that several services share.",
            hint="Use pg_dump, then copy the folder or the bucket of recordings; or name the "
            "folder of one service: --jobs-dir.",
        )
    return named or jobs_folder(settings)


def _say(what: str, found: BackupSummary) -> None:
    size = f"{found.size / 1e6:.1f} MB"
    print_error_line(f"{what}: {found.jobs} jobs, {found.recordings} recordings, {size}")
