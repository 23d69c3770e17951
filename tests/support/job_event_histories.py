"""Anything that can happen to a job, likely or not."""

from __future__ import annotations

from generated_edits import steps
from hypothesis import strategies as st
from instrumented_slot import FACTS

from sidecar import errors
from sidecar.audio.audio_source import ClientFileRef
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import (
    CancelledChange,
    CrashedChange,
    EditedChange,
    FailedChange,
    InterruptedChange,
    JobChange,
    JobFailure,
    JobRecord,
    ReportedChange,
    RequeuedChange,
    StartedChange,
    UnschedulableChange,
)
from sidecar.transcripts.transcript import (
    Checkpoint,
    Finished,
    Peaks,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
)

texts = st.text(max_size=8)
seconds = st.floats(0, 1e6)
segments = st.builds(Segment, seconds, seconds, texts, st.none() | st.integers(0, 9))
reports = st.one_of(
    st.builds(Progress, seconds, st.none() | seconds),
    st.builds(Peaks, st.integers(0, 9), st.binary(max_size=9)),
    st.builds(SegmentReady, st.integers(0, 6), segments),
    st.builds(
        Checkpoint,
        seconds,
        texts,
        st.lists(segments, max_size=3).map(tuple),
        st.dictionaries(texts, st.integers(), max_size=1),
    ),
)
transcripts = st.builds(
    Transcript, st.lists(segments, max_size=4).map(tuple), texts, seconds, texts, texts
)
ends: st.SearchStrategy[JobChange] = st.one_of(
    st.builds(ReportedChange, st.builds(Finished, transcripts), seconds),
    st.builds(
        FailedChange,
        st.sampled_from([*errors.all_errors()]).map(lambda kind: JobFailure.of(kind())),
    ),
    st.just(CancelledChange()),
)
on_the_way: st.SearchStrategy[JobChange] = st.one_of(
    st.builds(StartedChange, st.booleans()),
    st.just(InterruptedChange()),
    st.builds(ReportedChange, reports, seconds),
    st.builds(ReportedChange, reports, seconds),
    st.just(CrashedChange()),
    st.builds(UnschedulableChange, st.none() | st.just(JobFailure.of(errors.Unschedulable()))),
    st.builds(RequeuedChange, st.booleans(), st.booleans(), st.booleans()),
)
edits: st.SearchStrategy[JobChange] = st.builds(EditedChange, steps)
histories = st.lists(st.one_of(on_the_way, on_the_way, on_the_way, ends, edits), max_size=30)
"""Mostly ones that go on for a while, some with events behind their end."""


NAMED = ClientFileRef("/recordings/voice.wav", 42, 1_700_000_000_000_000_000)


def submitted(**more: object) -> JobRecord:
    """A job as it comes."""
    return JobRecord.submitted(1_700_000_000.0, NAMED, FACTS, TranscribeOptions(), **more)  # type: ignore[arg-type]
