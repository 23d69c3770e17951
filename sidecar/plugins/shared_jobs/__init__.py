"""Jobs that several services share: fronts accept them, nodes run them.

PostgreSQL has the jobs and the enrolled speakers; a folder or a bucket that all services see has
the recordings.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from sidecar.errors import SettingsInvalid
from sidecar.plugin import Plugin
from sidecar.plugins.shared_jobs.settings import ROLE_ALL, SharedJobSettings

if TYPE_CHECKING:
    import typer

    from sidecar.config.settings import Settings
    from sidecar.jobs.job_store import BackendParts, JobBackend
    from sidecar.service.facade import SharedJobs
    from sidecar.service.system_checks import CheckFinding
    from sidecar.storage.speaker_store import SpeakerStore


def _shared_jobs(settings: Settings) -> SharedJobs | None:
    group = SharedJobSettings.of(settings)
    if group.journal is None and group.role == ROLE_ALL:
        if group.uploads is not None and settings.keep_jobs:
            raise SettingsInvalid(
                "A bucket for recordings (setting 'uploads') requires shared jobs.",
                hint="Set VIBEVOICE_JOURNAL (--journal postgresql://…), or unset "
                "VIBEVOICE_UPLOADS.",
            )
        return None
    from sidecar.plugins.shared_jobs.postgres_settings import shared_address
    from sidecar.service.facade import SharedJobs

    address = shared_address(settings)
    return SharedJobs(
        create_backend=partial(_create_backend, address),
        create_speaker_store=partial(_create_speaker_store, settings, address),
    )


def _create_backend(address: str, parts: BackendParts) -> JobBackend:
    from sidecar.plugins.shared_jobs.shared_backend import SharedJobBackend

    return SharedJobBackend(parts, address)


def _create_speaker_store(settings: Settings, address: str) -> SpeakerStore:
    """Open the shared store, even if speakers are off here: the service that accepts a job decides
    whether the job needs them."""
    from sidecar.plugins.shared_jobs.postgres_speaker_store import PostgresSpeakerStore
    from sidecar.storage.encryption import journal_key

    return PostgresSpeakerStore(address, journal_key(settings))


def _checks(settings: Settings) -> Iterable[CheckFinding]:
    from sidecar.service.system_checks import CheckFinding, CheckState

    try:
        shared = _shared_jobs(settings)
    except SettingsInvalid as error:
        yield CheckFinding("shared jobs", CheckState.BAD, error.detail, error.hint)
        return
    if shared is not None:
        from sidecar.plugins.shared_jobs.checks import check_shared_jobs

        yield check_shared_jobs(settings)


def _add_commands(app: typer.Typer) -> None:
    from sidecar.cli.common_options import serve_with
    from sidecar.plugins.shared_jobs.node_command import run_node

    app.command("node")(serve_with(run_node))


PLUGIN = Plugin(
    name="shared_jobs",
    settings=SharedJobSettings,
    shared_jobs=_shared_jobs,
    add_commands=_add_commands,
    checks=_checks,
)
