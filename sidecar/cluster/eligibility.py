"""Eligibility of nodes for jobs, and unschedulable jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sidecar import errors
from sidecar.jobs.job_backend import Provision
from sidecar.jobs.job_record import Failure, JobRecord
from sidecar.workers.engine_lifecycle import SlotState

HEARD_LIVE = "live"
"""Decoder of a recording that was transcribed in a live session: it cannot be opened again."""


def refusal(record: JobRecord, provision: Provision, max_s: float) -> errors.SidecarError | None:
    """Return why this node cannot do a job now; None if it can. ``max_s``: the longest recording
    that it accepts, in seconds."""
    return (
        _of_engine(record, provision) or _of_length(record, max_s) or _of_memory(record, provision)
    )


def unschedulable(refusals: Sequence[Failure]) -> errors.Unschedulable:
    """Return the error of a job that all nodes refuse: each reason once, the most frequent first.
    Its hint is that of the most frequent reason."""
    by_code = Counter(one.code for one in refusals)
    one_of: Mapping[str, Failure] = {one.code: one for one in reversed(refusals)}
    parts = [
        f"{count} × {code} ({one_of[code].detail.rstrip('.')})"
        for code, count in by_code.most_common()
    ]
    single = len(refusals) == 1
    nodes = "The only node that is there" if single else f"None of {len(refusals)} nodes"
    cannot = "cannot do it" if single else "that are there can do it"
    hint = one_of[by_code.most_common(1)[0][0]].hint
    return errors.Unschedulable(
        f"{nodes} {cannot}: {', '.join(parts)}.",
        hint=f"{hint} Or start a node that can do it.".lstrip(),
    )


def _of_engine(record: JobRecord, provision: Provision) -> errors.SidecarError | None:
    spec, language = provision.spec, record.options.language
    if provision.slot.state is SlotState.STUCK:
        return errors.EngineStuck()
    if record.facts.decoder == HEARD_LIVE:
        return errors.AudioLost("What was said live was not told to its end.")
    if not spec.speaks(language):
        return errors.LanguageUnsupported(
            f"The engine '{spec.name}' does not know '{language}'.",
            hint=f"It knows: {', '.join(spec.languages)}.",
        )
    return None


def _of_length(record: JobRecord, max_s: float) -> errors.SidecarError | None:
    length_s = record.facts.total_s
    if length_s is None or length_s <= max_s:
        return None
    return errors.AudioTooLong(
        f"The recording has {length_s / 3600:.1f} h; the limit is {max_s / 3600:.1f} h."
    )


def _of_memory(record: JobRecord, provision: Provision) -> errors.SidecarError | None:
    try:
        provision.admitted(record.options, record.facts.total_s)
    except errors.SidecarError as error:
        return error
    return None
