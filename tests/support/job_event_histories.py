"""Anything that can happen to a job, likely or not."""

from collections.abc import AsyncIterator

from generated_edits import steps
from hypothesis import strategies as st
from instrumented_slot import FACTS
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.audio.audio_source import ClientFileRef
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs import job_record
from sidecar.jobs.job_event_log import JobEventLog, JobSubscription
from sidecar.transcripts import transcript

texts = st.text(max_size=8)
seconds = st.floats(0, 1e6)
segments = st.builds(transcript.Segment, seconds, seconds, texts, st.none() | st.integers(0, 9))
reports = st.one_of(
    st.builds(transcript.Progress, seconds, st.none() | seconds),
    st.builds(transcript.Peaks, st.integers(0, 9), st.binary(max_size=9)),
    st.builds(transcript.SegmentReady, st.integers(0, 6), segments),
    st.builds(
        transcript.ResumePoint,
        seconds,
        texts,
        st.lists(segments, max_size=3).map(tuple),
        st.dictionaries(texts, st.integers(), max_size=1),
    ),
)
transcripts = st.builds(
    transcript.Transcript, st.lists(segments, max_size=4).map(tuple), texts, seconds, texts, texts
)
ends: st.SearchStrategy[job_record.JobChange] = st.one_of(
    st.builds(job_record.ReportedChange, st.builds(transcript.Finished, transcripts), seconds),
    st.builds(
        job_record.FailedChange,
        st.sampled_from([*errors.all_errors()]).map(lambda kind: job_record.JobFailure.of(kind())),
    ),
    st.just(job_record.CancelledChange()),
)
on_the_way: st.SearchStrategy[job_record.JobChange] = st.one_of(
    st.builds(job_record.StartedChange, st.booleans()),
    st.builds(job_record.ReportedChange, reports, seconds),
    st.builds(job_record.ReportedChange, reports, seconds),
    st.builds(
        job_record.UnschedulableChange,
        st.none() | st.just(job_record.JobFailure.of(errors.Unschedulable())),
    ),
    *[st.builds(job_record.RequeuedChange, st.sampled_from(job_record.CountsAs))] * 2,
)
edits: st.SearchStrategy[job_record.JobChange] = st.builds(job_record.EditedChange, steps)
histories = st.lists(st.one_of(on_the_way, on_the_way, on_the_way, ends, edits), max_size=30)
"""Mostly ones that go on for a while, some with events behind their end."""


NAMED = ClientFileRef("/recordings/voice.wav", 42, 1_700_000_000_000_000_000)


def submitted(**more: object) -> job_record.JobRecord:
    """A job as it comes."""
    return job_record.JobRecord.submitted(
        1_700_000_000.0, NAMED, FACTS, TranscribeOptions(), **more
    )  # type: ignore[arg-type]


def happen(store: JobEventLog, job_id: str, *changes: job_record.JobChange) -> None:
    """Have these happen to a job of a log."""
    for change in changes:
        store.append(job_id, change)


def added(
    store: JobEventLog, *changes: job_record.JobChange, **more: object
) -> job_record.JobRecord:
    """Add a durable job to a log, and have these happen to it; the job as it came."""
    record = submitted(**{"durable": True, **more})
    store.add(record)
    happen(store, record.id, *changes)
    return record


async def taken(subscription: JobSubscription) -> AsyncIterator[job_record.JobEvent]:
    """The events of a subscription, one by one."""
    async for batch in subscription.batches(PATIENCE_S):
        for event in batch:
            yield event
