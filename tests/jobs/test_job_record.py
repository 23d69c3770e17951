"""What is known of a job, whatever happens to it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_event_histories import histories, submitted
from many_cases import for_each

from sidecar import errors
from sidecar.jobs.job_record import (
    CancelledChange,
    CountsAs,
    EditedChange,
    FailedChange,
    JobChange,
    JobEvent,
    JobFailure,
    JobRecord,
    JobState,
    ReportedChange,
    RequeuedChange,
    StartedChange,
    UnschedulableChange,
    apply_event,
)
from sidecar.jobs.local_jobs import count_event
from sidecar.observability.metrics import ServiceMetrics
from sidecar.transcripts.transcript import (
    Finished,
    Peaks,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
)
from sidecar.transcripts.transcript_edits import EditHistory, RenameSpeaker, UndoStep

SEGMENT = Segment(0.0, 1.0, "said")
TRANSCRIPT = Transcript((SEGMENT,), "en", 3.0, "scripted", "fp32")
DONE = ReportedChange(Finished(TRANSCRIPT), 2.0)


@given(histories)
def test_any_history_gives_a_record_whose_fields_agree_and_whose_end_no_event_changes(
    history: Sequence[JobChange],
) -> None:
    record = submitted()
    for seq, change in enumerate(history, 1):
        before = record
        record = apply_event(record, JobEvent(seq, float(seq), change))
        if before.over:
            assert as_it_ended(record) == as_it_ended(before), "how it ended never changes"
            assert record is before or isinstance(change, EditedChange)
        assert record is before or record.seq == seq
        assert record.over == (record.ended is not None)
        assert record.attempts >= (record.state is JobState.RUNNING)
        assert (record.transcript is not None) == (record.state is JobState.DONE)
        has_failed = record.state in (JobState.FAILED, JobState.CANCELLED)
        assert (record.error is not None) == has_failed
        if record.state is JobState.QUEUED:
            settled = [segment for one in record.resume_points for segment in one.segments]
            assert [*record.segments] == settled, "who waits has what is settled, and no more"
        same = ("id", "owner", "created", "audio", "options", "audio_info", "kept")
        assert [getattr(record, name) for name in same] == [getattr(before, name) for name in same]


def as_it_ended(record: JobRecord) -> JobRecord:
    """Without what edits change, which is one transcript for another."""
    transcript = record.transcript and TRANSCRIPT
    return replace(record, transcript=transcript, segments=(), history=EditHistory(), seq=0)


def test_edits_apply_only_to_ended_job_with_transcript() -> None:
    rename = EditedChange((RenameSpeaker(0, "Nell"),))
    histories: list[tuple[list[JobChange], bool]] = [
        ([], False),
        ([StartedChange()], False),
        ([CancelledChange()], False),
        ([StartedChange(), DONE], True),
    ]
    for history, changes in histories:
        record = submitted()
        for seq, change in enumerate(history, 1):
            record = apply_event(record, JobEvent(seq, float(seq), change))
        edited = apply_event(record, JobEvent(9, 9.0, rename))
        assert (edited is not record) is changes
        assert (edited.ended, edited.state) == (record.ended, record.state)
    assert edited.transcript is not None
    assert edited.transcript.name_of(0) == "Nell"
    assert (edited.history.revision, edited.touched, edited.seq) == (1, 9.0, 9)
    undone = apply_event(edited, JobEvent(10, 10.0, EditedChange(UndoStep())))
    assert undone.transcript == record.transcript
    assert undone.history.revision == 2
    assert apply_event(undone, JobEvent(11, 11.0, EditedChange(UndoStep()))) is undone, (
        "there is nothing"
    )


def test_same_refusal_as_unschedulable_changes_nothing_and_another_one_replaces_it() -> None:
    def refusal(detail: str) -> UnschedulableChange:
        return UnschedulableChange(JobFailure.of(errors.Unschedulable(detail)))

    refused = apply_event(submitted(), JobEvent(1, 1.0, refusal("The nodes are too small.")))
    again = JobEvent(2, 2.0, refusal("The nodes are too small."))
    assert apply_event(refused, again) is refused
    other = JobEvent(2, 2.0, refusal("No node has the model."))
    assert apply_event(refused, other).refused == other.change.failure


@given(histories, st.data())
def test_repeated_events_change_nothing(history: Sequence[JobChange], data: st.DataObject) -> None:
    events = [JobEvent(seq, float(seq), change) for seq, change in enumerate(history, 1)]
    once = submitted()
    twice = once
    for at, event in enumerate(events):
        once = apply_event(once, event)
        twice = apply_event(twice, event)
        for again in events[data.draw(st.integers(0, at)) : at + 1]:
            if again.seq <= twice.seq:
                assert apply_event(twice, again) is twice
    assert once == twice


AGAIN = [StartedChange(), RequeuedChange(CountsAs.CRASH), StartedChange()]


@pytest.mark.parametrize(
    ("history", "state", "attempts", "alone"),
    [
        ([], JobState.QUEUED, 0, False),
        ([StartedChange()], JobState.RUNNING, 1, False),
        ([StartedChange(), RequeuedChange()], JobState.QUEUED, 0, False),
        ([StartedChange(), RequeuedChange(CountsAs.CRASH)], JobState.QUEUED, 1, True),
        (AGAIN, JobState.RUNNING, 2, True),
        ([*AGAIN, RequeuedChange()], JobState.QUEUED, 1, True),
        ([StartedChange(), DONE], JobState.DONE, 1, False),
        ([StartedChange(), RequeuedChange(CountsAs.ALONE)], JobState.QUEUED, 0, True),
        ([StartedChange(), RequeuedChange(CountsAs.UNABLE_NODE)], JobState.QUEUED, 1, False),
        ([DONE, RequeuedChange(CountsAs.CRASH)], JobState.QUEUED, 0, False),
        ([CancelledChange(), StartedChange(), DONE], JobState.CANCELLED, 0, False),
        ([StartedChange(), DONE, CancelledChange()], JobState.DONE, 1, False),
    ],
)
def test_event_history_gives_state_attempts_and_flag_to_run_alone(
    history: Sequence[JobChange], state: JobState, attempts: int, alone: bool
) -> None:
    record = submitted()
    for seq, change in enumerate(history, 1):
        record = apply_event(record, JobEvent(seq, 0.0, change))
    assert (record.state, record.attempts, record.alone) == (state, attempts, alone)


def test_new_attempt_drops_segments_of_the_last_and_transcript_replaces_segments() -> None:
    record = submitted()
    changes: list[JobChange] = [
        StartedChange(),
        ReportedChange(SegmentReady(0, SEGMENT), 1.0),
        ReportedChange(SegmentReady(1, SEGMENT), 1.5),
        ReportedChange(Progress(2.0, 3.0), 1.6),
    ]
    for seq, change in enumerate(changes, 1):
        record = apply_event(record, JobEvent(seq, 0.0, change))
    assert (record.segments, record.progress) == ((SEGMENT, SEGMENT), Progress(2.0, 3.0))
    again = apply_event(record, JobEvent(5, 0.0, StartedChange()))
    assert (again.segments, again.progress) == ((), Progress(0.0, 3.0))
    done = apply_event(record, JobEvent(5, 99.0, DONE))
    assert (done.segments, done.progress, done.ended) == ((SEGMENT,), Progress(3.0, 3.0), 99.0)
    assert done.processing_s == 2.0


def test_peaks_overwrite_those_from_their_place_on_and_ones_that_leave_a_gap_are_ignored() -> None:
    record = apply_event(submitted(), JobEvent(1, 0.0, StartedChange()))
    for seq, (first, levels) in enumerate(((0, b"abcd"), (2, b"efg"), (6, b"h"), (-1, b"i")), 2):
        record = apply_event(record, JobEvent(seq, 0.0, ReportedChange(Peaks(first, levels))))
    assert record.peaks == b"abefg"


@for_each("kind", errors.all_errors())
def test_failure_of_job_can_be_raised_as_same_error(kind: type[errors.SidecarError]) -> None:
    error = kind("This is what happened.", hint="Do that.", retry_after=3)
    record = apply_event(submitted(), JobEvent(1, 0.0, FailedChange(JobFailure.of(error))))
    assert record.error is not None
    again = record.error.error()
    assert type(again) is kind
    assert again.to_wire() == error.to_wire()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ()),
        ((UnschedulableChange(JobFailure.of(errors.Unschedulable())), UnschedulableChange()), ()),
        ((RequeuedChange(CountsAs.DEATH),), ()),
        ((), (RequeuedChange(), StartedChange())),
        ((), (RequeuedChange(CountsAs.CRASH), StartedChange())),
    ],
)
def test_waiting_time_of_job_is_counted_once_at_first_start(
    before: Sequence[JobChange], after: Sequence[JobChange]
) -> None:
    tally = ServiceMetrics().jobs
    counted, record = partial(count_event, tally), replace(submitted(), created=100.0)
    for seq, change in enumerate((*before, StartedChange(), *after), 1):
        event = JobEvent(seq, 100.0 + seq, change)
        record = apply_event(record, event)
        counted(record, event)
    (spread,) = tally.waited.spreads.values()
    assert (spread.count, spread.largest) == (1, len(before) + 1)
    assert record.begun == 101.0 + len(before)
