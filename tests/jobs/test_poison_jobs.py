"""Who is to blame that those who work on a recording die."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_event_histories import submitted

from sidecar.jobs import job_record
from sidecar.jobs.faults import POISON_WEIGHT, poison_error
from sidecar.transcripts.transcript import ResumePoint

RESUME_POINT = job_record.ReportedChange(ResumePoint(1.0, "form", (), {}), 1.0)


@pytest.mark.parametrize(
    ("crashes", "deaths", "says"),
    [
        (0, 0, None),
        (1, 0, None),
        (2, 0, "died"),
        (0, 2, None),
        (0, 9, None),
        (0, 10, "10 services"),
        (1, 4, None),
        (1, 5, "5 services"),
    ],
)
def test_job_ends_after_two_crashes_or_ten_deaths_of_services_and_says_what_died(
    crashes: int, deaths: int, says: str | None
) -> None:
    error = poison_error(replace(submitted(), crashes=crashes, interruptions=deaths))
    if says is None:
        assert error is None
    else:
        assert error is not None
        assert error.code == "engine_crashed"
        assert says in error.detail


fatal: st.SearchStrategy[job_record.JobChange] = st.sampled_from(
    [
        job_record.CrashedChange(),
        job_record.InterruptedChange(),
        job_record.RequeuedChange(counted=True, alone=True),
    ]
)


@given(st.lists(fatal, min_size=POISON_WEIGHT))
def test_any_mix_of_deaths_ends_job_within_ten_attempts_and_two_crashes(
    deaths: Sequence[job_record.JobChange],
) -> None:
    record, tried, crashed = submitted(), 0, 0
    for change in deaths:
        if poison_error(record) is not None:
            break
        record = happened(record, job_record.StartedChange(), change)
        tried += 1
        crashed += not isinstance(change, job_record.InterruptedChange)
        assert record.alone, "the next attempt costs nobody else's"
    assert tried <= POISON_WEIGHT
    assert crashed <= 2
    assert poison_error(record) is not None


@given(st.lists(fatal, max_size=3 * POISON_WEIGHT))
def test_job_with_a_new_resume_point_in_each_attempt_is_never_poison(
    deaths: list[job_record.JobChange],
) -> None:
    record = submitted()
    for change in deaths:
        record = happened(record, job_record.StartedChange(), RESUME_POINT, change)
        assert poison_error(record) is None


def test_attempts_at_nodes_that_cannot_do_the_job_count_as_no_crash_or_interruption() -> None:
    record = submitted()
    passed = job_record.RequeuedChange(counted=True, passed=True)
    for _ in range(POISON_WEIGHT):
        record = happened(record, job_record.StartedChange(), passed)
    assert (record.crashes, record.interruptions, record.passed) == (0, 0, POISON_WEIGHT)
    assert happened(record, job_record.StartedChange(), RESUME_POINT).passed == 0


def happened(record: job_record.JobRecord, *changes: job_record.JobChange) -> job_record.JobRecord:
    for change in changes:
        record = job_record.apply_event(record, job_record.JobEvent(record.seq + 1, 0.0, change))
    return record
