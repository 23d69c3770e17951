"""Who is to blame that those who work on a recording die."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_event_histories import submitted

from sidecar.jobs.job_record import (
    ENOUGH,
    Begun,
    Change,
    Crashed,
    Interrupted,
    JobEvent,
    JobRecord,
    PutBack,
    Reported,
    advance,
    given_up,
)
from sidecar.transcripts.transcript import Checkpoint

few = st.integers(0, 2 * ENOUGH)
SETTLED = Reported(Checkpoint(1.0, "form", (), {}), 1.0)


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
    assert (given_up(crashes, deaths) is not None) is ends


@given(few, few)
def test_one_more_that_dies_never_speaks_for_a_recording(crashes: int, deaths: int) -> None:
    if given_up(crashes, deaths) is not None:
        assert given_up(crashes + 1, deaths) is not None
        assert given_up(crashes, deaths + 1) is not None


@pytest.mark.parametrize(("crashes", "deaths", "says"), [(2, 0, "died"), (1, 6, "6 services")])
def test_what_happened_is_said(crashes: int, deaths: int, says: str) -> None:
    error = given_up(crashes, deaths)
    assert error is not None
    assert error.code == "engine_crashed"
    assert says in error.detail


fatal: st.SearchStrategy[Change] = st.sampled_from(
    [Crashed(), Interrupted(), PutBack(counted=True, alone=True)]
)


@given(st.lists(fatal, min_size=ENOUGH))
def test_however_those_die_who_work_on_it_no_more_than_ten_do_and_no_more_than_two_engines(
    deaths: Sequence[Change],
) -> None:
    record, tried, crashed = submitted(), 0, 0
    for change in deaths:
        if given_up(record.crashes, record.interruptions) is not None:
            break
        record = happened(record, Begun(), change)
        tried += 1
        crashed += not isinstance(change, Interrupted)
        assert record.alone, "the next attempt costs nobody else's"
    assert tried <= ENOUGH
    assert crashed <= 2
    assert given_up(record.crashes, record.interruptions) is not None


@given(st.lists(fatal, max_size=3 * ENOUGH))
def test_a_job_that_gets_further_in_each_attempt_is_never_given_up(deaths: list[Change]) -> None:
    record = submitted()
    for change in deaths:
        record = happened(record, Begun(), SETTLED, change)
        assert given_up(record.crashes, record.interruptions) is None


def test_who_only_waited_and_who_could_not_do_it_do_not_count() -> None:
    record = submitted()
    passed = PutBack(counted=True, passed=True)
    for _ in range(ENOUGH):
        record = happened(record, Begun(), passed, Begun(), Interrupted(waited=True))
    assert (record.crashes, record.interruptions, record.passed) == (0, 0, ENOUGH)
    assert happened(record, Begun(), SETTLED).passed == 0


def happened(record: JobRecord, *changes: Change) -> JobRecord:
    for change in changes:
        record = advance(record, JobEvent(record.seq + 1, 0.0, change))
    return record
