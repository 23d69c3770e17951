"""Eligibility of nodes for jobs, and unschedulable jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sidecar import errors
from sidecar.jobs.job_backend import EngineProvisioning
from sidecar.jobs.job_record import JobFailure, JobRecord
from sidecar.workers.engine_slot import EngineState

LIVE_DECODER = "live"
"""Decoder of a recording that was transcribed in a live session: it cannot be opened again."""


def ineligibility(
    record: JobRecord, provision: EngineProvisioning, max_s: float
) -> errors.SidecarError | None:
    """Return why this node cannot do a job now; None if it can. ``max_s``: the longest recording
    that it accepts, in seconds."""
    return (
        _engine_refusal(record, provision)
        or _length_refusal(record, max_s)
        or _memory_refusal(record, provision)
    )


def unschedulable_error(refusals: Sequence[JobFailure]) -> errors.Unschedulable:
    """Return the error of a job that all nodes refuse: each reason once, the most frequent first.
    Its hint is that of the most frequent reason."""
    by_code = Counter(one.code for one in refusals)
    one_of: Mapping[str, JobFailure] = {one.code: one for one in reversed(refusals)}
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


def _engine_refusal(record: JobRecord, provision: EngineProvisioning) -> errors.SidecarError | None:
    spec, language = provision.spec, record.options.language
    if provision.slot.state is EngineState.STUCK:
        return errors.EngineStuck()
    if record.facts.decoder == LIVE_DECODER:
        return errors.AudioLost("What was said live was not told to its end.")
    if not spec.speaks(language):
        return errors.LanguageUnsupported(
            f"The engine '{spec.name}' does not know '{language}'.",
            hint=f"It knows: {', '.join(spec.languages)}.",
        )
    return None


def _length_refusal(record: JobRecord, max_s: float) -> errors.SidecarError | None:
    length_s = record.facts.total_s
    if length_s is None or length_s <= max_s:
        return None
    return errors.AudioTooLong(
        f"The recording has {length_s / 3600:.1f} h; the limit is {max_s / 3600:.1f} h."
    )


def _memory_refusal(record: JobRecord, provision: EngineProvisioning) -> errors.SidecarError | None:
    try:
        provision.admitted(record.options, record.facts.total_s)
    except errors.SidecarError as error:
        return error
    return None
