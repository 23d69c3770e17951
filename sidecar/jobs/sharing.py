"""What a service is of those that share their jobs: a front, a node, or both; put together here."""

from __future__ import annotations

from sidecar import clock, errors
from sidecar.jobs.keeping import Keeping
from sidecar.jobs.pace import Pace
from sidecar.jobs.provision import Provision
from sidecar.jobs.pulling import Pulling
from sidecar.jobs.queue import JobQueue
from sidecar.jobs.record import JobRecord
from sidecar.jobs.surveying import Survey
from sidecar.jobs.taking import SharedQueue
from sidecar.settings import ALL, FRONT, Settings
from sidecar.speech.engine import Precision
from sidecar.threads import Threads
from sidecar.workers.lifecycle import SlotState

OPENING = 2
"""Recordings that are opened side by side."""
HEARD_LIVE = "live"
"""What decoded the sound of a talk that is over: there is nothing to be done about it."""


def shared_queue(
    settings: Settings,
    keeping: Keeping | None,
    provision: Provision,
    pace: Pace,
    queue: JobQueue,
    now: clock.Clock,
    instance: str,
) -> SharedQueue | None:
    """Who takes in and works, by what the settings say this service is there for; ``queue`` works
    for it. None where it keeps its jobs to itself. ``instance``: its id among the nodes.

    Raises:
        errors.SettingsInvalid: it has nobody to share jobs with.
    """
    claims = keeping.claims if keeping is not None else None
    if keeping is None or claims is None:
        if settings.role != ALL:
            raise errors.SettingsInvalid(
                f"A service that is only a {settings.role} needs jobs that others share.",
                hint="Set VIBEVOICE_JOURNAL (--journal postgresql://…), or leave the role out.",
            )
        return None

    def work_s(record: JobRecord) -> float:
        wanted = record.options.precision
        precision = provision.spec.resolve_precision(wanted) if wanted is Precision.AUTO else wanted
        return pace.seconds(precision, record.facts.total_s)

    limit = settings.queue_limit
    if settings.role == FRONT:
        return SharedQueue(keeping.store, limit, work_s, now=now)
    max_s = settings.max_audio_hours * 3600

    def refused(record: JobRecord) -> errors.SidecarError | None:
        return refusal(record, provision, max_s)

    pulling = Pulling(
        claims,
        keeping.store,
        queue,
        keeping.open,
        lambda record: refused(record) is None,
        Threads("opening", OPENING),
        provision.beside,
        queue.places,
    )
    survey = Survey(claims, keeping.store, refused, settings.unschedulable_after, instance)
    return SharedQueue(keeping.store, limit, work_s, queue, pulling, survey, now)


def refusal(record: JobRecord, provision: Provision, max_s: float) -> errors.SidecarError | None:
    """Why a job cannot be done here now, for its language, its length, its memory or an engine that
    hangs; None of one that can."""
    spec, language, length_s = provision.spec, record.options.language, record.facts.total_s
    if provision.slot.state is SlotState.STUCK:
        return errors.EngineStuck()
    if record.facts.decoder == HEARD_LIVE:
        return errors.AudioLost("What was said live was not told to its end.")
    if not spec.speaks(language):
        return errors.LanguageUnsupported(
            f"The engine '{spec.name}' does not know '{language}'.",
            hint=f"It knows: {', '.join(spec.languages)}.",
        )
    if length_s is not None and length_s > max_s:
        return errors.AudioTooLong(
            f"The recording has {length_s / 3600:.1f} h; the limit is {max_s / 3600:.1f} h."
        )
    try:
        provision.admitted(record.options, length_s)
    except errors.SidecarError as error:
        return error
    return None
