"""Command `jobs`: listing, cancellation, deletion, diarization, backup and restore of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sidecar import errors
from sidecar.cli.backends import ServiceTarget, client_of
from sidecar.cli.common_options import SERVER_OR_SETTINGS_HELP, argument, option, subcommands
from sidecar.cli.output import PROGRAM, counted, print_error_line, print_text, printable
from sidecar.jobs.job_record import JobState

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient
    from vibevoice_asr_client.models import Job

    from sidecar.storage.job_backup import BackupSummary

PAGE_JOBS = 500
"""Maximum that the service returns at once."""
LEAST_TO_DELETE = 6
"""Minimum of an id's characters: a short prefix may be a typing error."""
JOB = argument(..., "Id of the job, or an unambiguous beginning of it.", metavar="ID")
FOLDER = option(None, "Use this folder of jobs instead of that of the settings.", metavar="DIR")


def jobs() -> None:
    """List, cancel, delete, diarize, back up and restore jobs.

    `list`, `cancel`, `delete` and `diarize` see the jobs of the owner of the token in
    VIBEVOICE_CLIENT_TOKEN or --token; all jobs if the service requires no token.

    `backup` and `restore` copy the jobs that a service keeps (--keep-jobs) without decrypting them,
    so they need no key; the service that uses them does. The jobs are in the folder of the settings
    (VIBEVOICE_DATA_DIR), or in the one that --jobs-dir names.

    Examples:

    * `vibevoice-asr jobs list --state queued,running`
    * `vibevoice-asr jobs cancel 0f3a`: cancel by id, or by an unambiguous beginning of it
    * `vibevoice-asr jobs delete 0f3a52`: delete a job with transcript and recording; at least 6
      characters of its id
    * `vibevoice-asr jobs diarize 0f3a --num-speakers 3`: tell its speakers apart again; corrected
      texts and names stay
    * `vibevoice-asr jobs backup jobs-monday.tar`: back up, whether the service runs or not
    * `vibevoice-asr jobs restore jobs-monday.tar`: restore to a folder without jobs, service
      stopped
    """


def build() -> typer.Typer:
    """Return the command group `jobs`."""
    words = _list, _cancel, _delete, _diarize, _backup, _restore
    return subcommands(jobs, *words, server_help=SERVER_OR_SETTINGS_HELP)


async def _list(
    state: str | None = option(
        None, "List only these states, separated by commas", choices=JobState
    ),
    *,
    target: ServiceTarget,
) -> None:
    """List your jobs, oldest first: id, state, submission time, seconds, progress, name of the
    file."""
    async with client_of(target) as client:
        async for job in _jobs(client, state):
            print_text(f"{job_line(job)}\n")


async def _cancel(job: str = JOB, *, target: ServiceTarget) -> None:
    """Cancel a job; a finished one stays unchanged."""
    async with client_of(target) as client:
        found = await _job_of(client, job)
        if found.ended:
            print_error_line(f"already {found.state}, unchanged: {found.id}")
            return
        await client.cancel(found.id, keep=True)
        print_error_line(f"{(await client.job(found.id)).state}: {found.id}")


async def _delete(job: str = JOB, *, target: ServiceTarget) -> None:
    """Delete a job, its transcript and its recording permanently."""
    async with client_of(target) as client:
        found = await _job_of(client, job, LEAST_TO_DELETE)
        await client.cancel(found.id)
        print_error_line(f"deleted: {found.id}")


async def _diarize(
    job: str = JOB,
    num_speakers: int | None = option(None, "Tell N speakers apart.", metavar="N"),
    min_speakers: int | None = option(None, "Tell at least N speakers apart.", metavar="N"),
    max_speakers: int | None = option(None, "Tell at most N speakers apart.", metavar="N"),
    *,
    target: ServiceTarget,
) -> None:
    """Tell the speakers of a finished job apart again, and list them; without a number, as many as
    there seem to be."""
    async with client_of(target) as client:
        found = await _job_of(client, job)
        result = await client.diarize(
            found.id, num_speakers, min_speakers=min_speakers, max_speakers=max_speakers
        )
        for one in result["speakers"]:
            print_text(f"{printable(one['speaker'])}  {printable(one['name'] or '-')}\n")
        print_error_line(f"diarized, revision {result['revision']}: {found.id}")
        lost = result["not_carried"]
        if lost["names"]:
            names = printable(", ".join(lost["names"]))
            print_error_line(f"nobody has these names now: {names}")
        if lost["reassignments"]:
            edits = counted(lost["reassignments"], "edit")
            print_error_line(f"{edits} of who says a segment: the voices decide again")


async def _jobs(client: AsyncClient, state: str | None = None) -> AsyncIterator[Job]:
    page = await client.jobs(state, PAGE_JOBS)
    while True:
        for job in page.jobs:
            yield job
        if page.next is None:
            return
        page = await client.jobs(state, PAGE_JOBS, page.next)


async def _job_of(client: AsyncClient, given: str, least: int = 1) -> Job:
    """Return the only job whose id has the prefix ``given``, of at least ``least`` characters."""
    found = [job async for job in _jobs(client) if job.id.startswith(given)]
    if len(given) >= least and len(found) == 1:
        return found[0]
    detail = f"{len(found) or 'No'} ids of your jobs begin with '{printable(given)}'."
    if len(given) < least:
        detail = f"'{printable(given)}' is too short: name at least {least} characters of the id."
    raise errors.JobNotFound(detail, hint=f"{PROGRAM} jobs list")


def job_line(job: Job) -> str:
    """Return a job as columns for people and for `awk`: the last before the name of its file, which
    may have spaces, is its progress or error."""
    fields = job.raw
    seconds = fields.get("duration")
    length = "-" if seconds is None else f"{seconds:.1f} s"
    about = "-"
    if job.error is not None:
        about = job.error.code
    elif job.state == JobState.QUEUED:
        before = fields.get("position")
        about = "next" if before == 0 else f"{before or '-'} in the queue"
    elif job.progress.fraction is not None:
        about = f"{100 * job.progress.fraction:.0f} %"
    columns = job.id, f"{job.state:<9}", str(fields.get("created", "-")), f"{length:>10}", about
    return printable("  ".join((*columns, job.name))).rstrip()


def _backup(
    file: Path = argument(..., "New file for the backup.", metavar="FILE"),
    jobs_dir: Path | None = FOLDER,
) -> None:
    """Write jobs and recordings to a new file (mode 0600)."""
    from sidecar.storage.job_backup import back_up_jobs

    print_error_line(f"backed up: {summary_line(back_up_jobs(_folder(jobs_dir), file))}")


def _restore(
    file: Path = argument(..., "What `jobs backup` wrote.", metavar="FILE"),
    jobs_dir: Path | None = FOLDER,
) -> None:
    """Restore jobs and recordings to a folder without jobs."""
    from sidecar.storage.job_backup import restore_jobs

    print_error_line(f"restored: {summary_line(restore_jobs(file, _folder(jobs_dir)))}")


def _folder(named: Path | None) -> Path:
    from sidecar.jobs.recovery import jobs_folder
    from sidecar.plugins import load_settings

    settings = load_settings()
    if named is None and settings.shares_jobs:
        raise errors.SettingsInvalid(
            "The jobs are in a database that several services share.",
            hint="Use pg_dump, then copy the folder or the bucket of recordings; or name the "
            "folder of one service: --jobs-dir.",
        )
    return named or jobs_folder(settings)


def summary_line(summary: BackupSummary) -> str:
    """Return what a backup or a restore has copied, in one line."""
    size = f"{summary.size / 1e6:.1f} MB"
    jobs, recordings = counted(summary.jobs, "job"), counted(summary.recordings, "recording")
    return f"{jobs}, {recordings}, {size}"
