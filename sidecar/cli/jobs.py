"""Command `jobs`: those of a running service listed, cancelled and deleted; backup and restore."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar import errors
from sidecar.cli.backends import ServiceTarget, client_of
from sidecar.cli.common_options import SERVER_OR_SETTINGS_HELP, argument, subcommands
from sidecar.cli.output import PROGRAM, print_error_line, printable
from sidecar.jobs.job_record import JobState

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient
    from vibevoice_asr_client.models import Job

    from sidecar.storage.job_backup import BackupSummary

HELP = f"""
List, end, delete, back up and restore jobs.

`list`, `cancel` and `delete` are about the jobs of whoever asks: of the owner of the token in
VIBEVOICE_CLIENT_TOKEN or --token, of everybody where the service asks for none.

`backup` and `restore` are about the jobs that a service keeps (--keep-jobs), as they are:
encrypted. Neither needs the key; the service that goes on with them does. They lie in the folder of
the settings (VIBEVOICE_DATA_DIR), or in the one that --jobs-dir names.

Examples:

* `{PROGRAM} jobs list --state queued,running`
* `{PROGRAM} jobs cancel 0f3a`: an id, or as much of it as no other begins with
* `{PROGRAM} jobs delete 0f3a52`: with its transcript and its recording, for good; of the id at
  least 6 characters
* `{PROGRAM} jobs backup jobs-monday.tar`: while the service runs, or while it does not
* `{PROGRAM} jobs restore jobs-monday.tar`: into a folder without jobs, with the service stopped
"""

PAGE_JOBS = 500
"""As many as the service gives at once."""
LEAST_TO_DELETE = 6
"""Characters of an id: a shorter beginning may be a typing error, and what is deleted is gone."""
JobArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The job's, or how it alone begins.")
]
StateOption = Annotated[
    str | None,
    typer.Option(metavar="STATE", help=f"In this; or several, with commas: {', '.join(JobState)}."),
]
FolderOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the jobs, instead of the settings'.")
]


def build() -> typer.Typer:
    """Return the word `jobs` and the words after it."""
    words = _list, _cancel, _delete, _backup, _restore
    return subcommands(HELP, *words, server_help=SERVER_OR_SETTINGS_HELP)


async def _list(state: StateOption = None, *, where: ServiceTarget) -> None:
    """List your jobs, oldest first: id, state, when it came, seconds, how far."""
    async with client_of(where) as client:
        async for job in _jobs(client, state):
            print(_line(job))


async def _cancel(job: JobArgument, *, where: ServiceTarget) -> None:
    """End a job. One that has ended stays as it is."""
    async with client_of(where) as client:
        found = await _id_of(client, job)
        await client.cancel(found, keep=True)
        print_error_line(f"{(await client.job(found)).state}: {found}")


async def _delete(job: JobArgument, *, where: ServiceTarget) -> None:
    """Delete a job, its transcript and its recording, for good."""
    async with client_of(where) as client:
        found = await _id_of(client, job, LEAST_TO_DELETE)
        await client.cancel(found)
        print_error_line(f"deleted: {found}")


async def _jobs(client: AsyncClient, state: str | None = None) -> AsyncIterator[Job]:
    page = await client.jobs(state, PAGE_JOBS)
    while True:
        for job in page.jobs:
            yield job
        if page.next is None:
            return
        page = await client.jobs(state, PAGE_JOBS, page.next)


async def _id_of(client: AsyncClient, given: str, least: int = 1) -> str:
    """The id that begins so, if there is one, and if ``given`` has ``least`` characters."""
    if len(given) < least:
        raise errors.JobNotFound(
            f"'{printable(given)}' is too short: name the job by its id, or by at least {least} "
            "characters of it.",
            hint=f"{PROGRAM} jobs list",
        )
    found = [job.id async for job in _jobs(client) if given and job.id.startswith(given)]
    if len(found) != 1:
        raise errors.JobNotFound(
            f"{len(found) or 'No'} ids of your jobs begin with '{printable(given)}'.",
            hint=f"{PROGRAM} jobs list",
        )
    return found[0]


def _line(job: Job) -> str:
    """Columns for people and for `awk`; the last says how far, or why not."""
    said = job.raw
    seconds = said.get("duration")
    length = "-" if seconds is None else f"{seconds:.1f} s"
    about = "-"
    if job.error is not None:
        about = job.error.code
    elif job.state == JobState.QUEUED:
        about = f"{said.get('position') or '-'} in the queue"
    elif job.progress.fraction is not None:
        about = f"{100 * job.progress.fraction:.0f} %"
    columns = job.id, f"{job.state:<9}", str(said.get("created", "-")), f"{length:>10}", about
    return printable("  ".join(columns))


def _backup(
    file: Path = argument(..., "Where they go; it must be new.", metavar="FILE"),
    jobs_dir: FolderOption = None,
) -> None:
    """Write jobs and recordings into a new file, 0600."""
    from sidecar.storage.job_backup import back_up_jobs

    _say("backed up", back_up_jobs(_folder(jobs_dir), file))


def _restore(
    file: Path = argument(..., "What `jobs backup` wrote.", metavar="FILE"),
    jobs_dir: FolderOption = None,
) -> None:
    """Put them into a folder in which there are none."""
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
