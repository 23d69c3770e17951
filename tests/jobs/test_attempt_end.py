"""What becomes of a job at the end of an attempt, by what the attempt met."""

import errno
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_event_histories import submitted

from sidecar import errors
from sidecar.audio.ffmpeg_command import ffmpeg_missing_error
from sidecar.errors import Fault
from sidecar.jobs import job_record
from sidecar.jobs.attempt_end import POISON_WEIGHT, attempt_end, poison_error
from sidecar.jobs.faults import fault_of
from sidecar.plugins.upstream.errors import UpstreamLost, UpstreamUnreachable
from sidecar.transcripts.transcript import ResumePoint
from sidecar.workers.worker_process import WorkerDied

NOTHING, ALONE, CRASH, DEATH, UNABLE_NODE = job_record.CountsAs
TOO_LARGE = errors.WontFit(fault=Fault.RECORDING)
DISK_HUNG = WorkerDied("killed", reading=True)
RESUME_POINT = job_record.ReportedChange(ResumePoint(1.0, "form", (), {}), 1.0)


@pytest.mark.parametrize(
    ("error", "kept", "awaited"),
    [
        (errors.AudioLost(), "audio_lost", "audio_lost"),
        (TOO_LARGE, "wont_fit", "wont_fit"),
        (errors.WontFit(), NOTHING, "wont_fit"),
        (errors.GpuOutOfMemory(), NOTHING, "gpu_out_of_memory"),
        (errors.EngineFailed(), DEATH, "engine_failed"),
        (errors.OutOfMemory(), DEATH, "out_of_memory"),
        (ffmpeg_missing_error("none was found"), NOTHING, NOTHING),
        (errors.DiskFull(), NOTHING, NOTHING),
        (errors.StorageUnreachable(), NOTHING, NOTHING),
        (OSError(errno.EMFILE, "too many"), NOTHING, NOTHING),
        (errors.ModelLoadFailed(), NOTHING, "model_load_failed"),
        (UpstreamUnreachable(), NOTHING, "upstream_unreachable"),
        (UpstreamLost(), DEATH, "upstream_lost"),
        (errors.DecoderStopped(), DEATH, DEATH),
        (ValueError("a bug"), DEATH, "internal"),
        (WorkerDied("killed"), CRASH, CRASH),
        (DISK_HUNG, ALONE, ALONE),
    ],
)
def test_attempt_that_met_an_error_ends_its_job_or_counts_as_one_thing_by_whose_fault_it_is(
    error: Exception, kept: object, awaited: object
) -> None:
    for is_kept, expected in ((True, kept), (False, awaited)):
        end = attempt_end(replace(submitted(), kept=is_kept), error, vain_s=3.0)
        assert [outcome(change) for change in end.changes] == [expected]


@pytest.mark.parametrize(
    ("error", "kept", "passed", "becomes"),
    [
        (TOO_LARGE, True, 0, UNABLE_NODE),
        (TOO_LARGE, True, 1, "wont_fit"),
        (errors.WontFit(), True, 1, NOTHING),
        (errors.WontFit(), False, 0, UNABLE_NODE),
        (errors.GpuOutOfMemory(fault=Fault.RECORDING), False, 0, UNABLE_NODE),
        (errors.ModelLoadFailed(), False, 0, UNABLE_NODE),
        (errors.ModelLoadFailed(), False, 1, "model_load_failed"),
        (errors.ModelLoadFailed(), True, 0, NOTHING),
        (errors.AudioLost(), True, 0, UNABLE_NODE),
        (errors.AudioUndecodable(), True, 0, UNABLE_NODE),
        (errors.AudioUndecodable(), True, 1, "audio_undecodable"),
        (ValueError("a bug"), False, 0, "internal"),
    ],
)
def test_shared_job_that_ends_by_a_fault_of_one_node_is_tried_once_more_by_another(
    error: Exception, kept: bool, passed: int, becomes: object
) -> None:
    record = replace(submitted(), kept=kept, passed=passed)
    (change,) = attempt_end(record, error, shared=True).changes
    assert outcome(change) == becomes


@pytest.mark.parametrize(
    ("error", "crashes", "deaths", "code"),
    [
        (WorkerDied("killed"), 1, 0, "engine_crashed"),
        (UpstreamLost(), 0, 9, "engine_crashed"),
        (UpstreamLost(), 1, 4, "engine_crashed"),
        (ValueError("a bug"), 0, 9, "internal"),
        (errors.EngineFailed(), 0, 9, "engine_failed"),
        (errors.OutOfMemory(), 0, 9, "out_of_memory"),
    ],
)
def test_last_attempt_of_a_poison_job_counts_and_ends_it(
    error: Exception, crashes: int, deaths: int, code: str
) -> None:
    record = replace(submitted(), crashes=crashes, interruptions=deaths)
    counted, failed = attempt_end(record, error).changes
    assert outcome(counted) in (CRASH, DEATH)
    assert outcome(failed) == code


def test_memory_of_the_device_that_was_planned_and_lacks_counts_until_the_tenth_time() -> None:
    (change,) = attempt_end(submitted(), errors.GpuOutOfMemory(), planned=True).changes
    assert outcome(change) == DEATH
    (change,) = attempt_end(submitted(), errors.WontFit(), planned=True).changes
    assert outcome(change) == NOTHING
    tenth = replace(submitted(), interruptions=9)
    *_, failed = attempt_end(tenth, errors.GpuOutOfMemory(), planned=True).changes
    assert outcome(failed) == "gpu_out_of_memory"


def test_kept_job_whose_memory_is_there_by_one_reading_waits_for_a_second_one() -> None:
    """Others may have had that memory a moment before it was read."""
    error = errors.GpuOutOfMemory(fault=Fault.RECORDING)
    for shared, second in ((False, "gpu_out_of_memory"), (True, UNABLE_NODE)):
        end = attempt_end(submitted(), error, shared=shared)
        assert [outcome(change) for change in end.changes] == [CRASH]
        assert end.error is not None
        assert fault_of(end.error) is Fault.DEVICE, "others go first"
        (change,) = attempt_end(replace(submitted(), crashes=1), error, shared=shared).changes
        assert outcome(change) == second
    (change,) = attempt_end(replace(submitted(), kept=False), error).changes
    assert outcome(change) == "gpu_out_of_memory"


def test_error_behind_a_report_of_the_engine_weighs_like_a_crash_unless_others_meet_it_too() -> (
    None
):
    for alike, expected in ((False, CRASH), (True, DEATH)):
        (change,) = attempt_end(submitted(), errors.EngineFailed(), late=True, alike=alike).changes
        assert outcome(change) == expected
    *_, failed = attempt_end(
        replace(submitted(), crashes=1), errors.EngineFailed(), late=True
    ).changes
    assert outcome(failed) == "engine_failed"
    request = replace(submitted(), kept=False)
    (change,) = attempt_end(request, errors.EngineFailed(), late=True).changes
    assert outcome(change) == "engine_failed"


def test_only_an_error_that_passes_says_for_how_long_the_engine_was_kept_in_vain() -> None:
    assert attempt_end(submitted(), DISK_HUNG, vain_s=3.0).vain_s == 3.0
    assert attempt_end(submitted(), WorkerDied("killed"), vain_s=3.0).vain_s == 0.0
    assert attempt_end(submitted(), errors.AudioLost(), vain_s=3.0).vain_s == 0.0


def test_crash_counts_less_if_the_engine_died_in_another_recording_too_unless_a_request_waits() -> (
    None
):
    for kept, expected in ((True, DEATH), (False, CRASH)):
        record = replace(submitted(), kept=kept)
        (change,) = attempt_end(record, WorkerDied("killed"), alike=True).changes
        assert outcome(change) == expected


def test_only_an_attempt_that_does_not_end_its_job_says_that_something_else_is_to_blame() -> None:
    record = submitted()
    for error in (WorkerDied("killed"), UpstreamLost()):
        assert attempt_end(record, error).error is not None
        near = replace(record, crashes=1, interruptions=4)
        assert attempt_end(near, error).error is None


def outcome(change: job_record.JobChange) -> object:
    """What an attempt counts as, or the code of the error that ends its job."""
    if isinstance(change, job_record.RequeuedChange):
        return change.counts_as
    assert isinstance(change, job_record.FailedChange)
    return change.failure.code


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
        job_record.RequeuedChange(job_record.CountsAs.CRASH),
        job_record.RequeuedChange(job_record.CountsAs.DEATH),
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
        crashed += change == job_record.RequeuedChange(job_record.CountsAs.CRASH)
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
    passed = job_record.RequeuedChange(job_record.CountsAs.UNABLE_NODE)
    for _ in range(POISON_WEIGHT):
        record = happened(record, job_record.StartedChange(), passed)
    assert (record.crashes, record.interruptions, record.passed) == (0, 0, POISON_WEIGHT)
    assert happened(record, job_record.StartedChange(), RESUME_POINT).passed == 0


def happened(record: job_record.JobRecord, *changes: job_record.JobChange) -> job_record.JobRecord:
    for change in changes:
        record = job_record.apply_event(record, job_record.JobEvent(record.seq + 1, 0.0, change))
    return record
