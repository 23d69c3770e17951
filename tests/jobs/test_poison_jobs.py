"""Who is to blame that those who work on a recording die."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_event_histories import submitted

from sidecar.jobs.job_record import (
    CrashedChange,
    InterruptedChange,
    JobChange,
    JobEvent,
    JobRecord,
    ReportedChange,
    RequeuedChange,
    StartedChange,
    apply_event,
)
from sidecar.jobs.job_runner import POISON_WEIGHT, poison_error
from sidecar.transcripts.transcript import Checkpoint

few = st.integers(0, 2 * POISON_WEIGHT)
SETTLED = ReportedChange(Checkpoint(1.0, "form", (), {}), 1.0)


@pytest.mark.parametrize(
    ("crashes", "deaths", "ends"),
    [
        (0, 0, False),
        (1, 0, False),
        (2, 0, True),
        (0, 2, False),
        (0, 9, False),
        (0, 10, True),
        (1, 4, False),
        (1, 5, True),
    ],
)
def test_two_crashes_are_enough_and_ten_deaths(crashes: int, deaths: int, ends: bool) -> None:
    assert (poison_error(crashes, deaths) is not None) is ends


@given(few, few)
def test_one_more_that_dies_never_speaks_for_a_recording(crashes: int, deaths: int) -> None:
    if poison_error(crashes, deaths) is not None:
        assert poison_error(crashes + 1, deaths) is not None
        assert poison_error(crashes, deaths + 1) is not None


@pytest.mark.parametrize(("crashes", "deaths", "says"), [(2, 0, "died"), (1, 6, "6 services")])
def test_what_happened_is_said(crashes: int, deaths: int, says: str) -> None:
    error = poison_error(crashes, deaths)
    assert error is not None
    assert error.code == "engine_crashed"
    assert says in error.detail


fatal: st.SearchStrategy[JobChange] = st.sampled_from(
    [CrashedChange(), InterruptedChange(), RequeuedChange(counted=True, alone=True)]
)


@given(st.lists(fatal, min_size=POISON_WEIGHT))
def test_however_those_die_who_work_on_it_no_more_than_ten_do_and_no_more_than_two_engines(
    deaths: Sequence[JobChange],
) -> None:
    record, tried, crashed = submitted(), 0, 0
    for change in deaths:
        if poison_error(record.crashes, record.interruptions) is not None:
            break
        record = happened(record, StartedChange(), change)
        tried += 1
        crashed += not isinstance(change, InterruptedChange)
        assert record.alone, "the next attempt costs nobody else's"
    assert tried <= POISON_WEIGHT
    assert crashed <= 2
    assert poison_error(record.crashes, record.interruptions) is not None


@given(st.lists(fatal, max_size=3 * POISON_WEIGHT))
def test_a_job_that_gets_further_in_each_attempt_is_never_given_up(deaths: list[JobChange]) -> None:
    record = submitted()
    for change in deaths:
        record = happened(record, StartedChange(), SETTLED, change)
        assert poison_error(record.crashes, record.interruptions) is None


def test_who_could_not_do_it_does_not_count() -> None:
    record = submitted()
    passed = RequeuedChange(counted=True, passed=True)
    for _ in range(POISON_WEIGHT):
        record = happened(record, StartedChange(), passed)
    assert (record.crashes, record.interruptions, record.passed) == (0, 0, POISON_WEIGHT)
    assert happened(record, StartedChange(), SETTLED).passed == 0


def happened(record: JobRecord, *changes: JobChange) -> JobRecord:
    for change in changes:
        record = apply_event(record, JobEvent(record.seq + 1, 0.0, change))
    return record
