"""What a job needs of its node, why a node cannot do it, and what is said of jobs that none can."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_claims import ANYTHING, refusal_of
from instrumented_slot import job_of
from job_event_histories import submitted

from sidecar import errors
from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_engine import JobEngine, needs_of, unmet_needs
from sidecar.jobs.job_record import JobFailure, JobRecord
from sidecar.plugins.shared_jobs.claims import are_final, unschedulable_error
from sidecar.plugins.shared_jobs.job_needs import NodeCapabilities, needs_of_job
from sidecar.workers.engine_lease import EXCLUSIVE
from sidecar.workers.engine_memory import MemoryDevices
from sidecar.workers.role_engine import RoleEngine

LONG = JobFailure.of(errors.AudioTooLong("It has 9.0 h.", hint="Cut it."))
GREEK = JobFailure.of(errors.LanguageUnsupported("It knows no 'el'.", hint="It knows: en."))


def test_unschedulable_error_has_reasons_of_nodes_and_a_hint() -> None:
    error = unschedulable_error([LONG, GREEK, LONG])
    assert error.code == "unschedulable"
    assert "None of 3 nodes" in error.detail
    assert "2 × audio_too_long (It has 9.0 h), 1 × language_unsupported" in error.detail
    assert error.hint.startswith("Cut it.")
    assert "The only node" in unschedulable_error([GREEK]).detail


def moonshine() -> JobEngine:
    """The engine of jobs with the embedded engine."""
    settings = Settings(engine="moonshine")
    lodging = RoleEngine("files", settings, choose_engine(settings), MemoryDevices(), EXCLUSIVE)
    return JobEngine(settings, lodging)


def test_node_cannot_do_what_its_service_would_refuse_and_says_why_in_the_same_words() -> None:
    engine = moonshine()
    node = NodeCapabilities(tuple(engine.capabilities), 60.0)
    codes = []
    for options in (
        TranscribeOptions(),
        TranscribeOptions(language="en-GB"),
        TranscribeOptions(language="de"),
        TranscribeOptions(translate=True),
    ):
        refusal = engine.refusal(options)
        again = node.refusal(needs_of(options), 1.0, engine.refusal_of)
        assert (refusal and refusal.to_wire()) == (again and again.to_wire())
        assert bool(refusal) is bool(unmet_needs(needs_of(options), node.words))
        codes.append(refusal and refusal.code)
    assert codes == [None, None, "language_unsupported", "model_unsuited"]


def reason(job: JobRecord, node: NodeCapabilities) -> errors.SidecarError | None:
    """Why a node cannot do a job."""
    return node.refusal(*needs_of_job(job), refusal_of)


def test_node_cannot_do_a_recording_longer_than_its_limit(recording: Path) -> None:
    job = job_of(recording).record
    assert reason(job, ANYTHING) is None
    error = reason(job, replace(ANYTHING, longest_s=1.0))
    assert error is not None
    assert error.code == "audio_too_long"


def test_only_a_long_recording_needs_a_node_that_takes_long_ones() -> None:
    short = submitted()
    long = replace(short, audio_info=replace(short.audio_info, total_s=3600.0))
    unknown = replace(short, audio_info=replace(short.audio_info, total_s=None))
    needs = [needs_of_job(job)[0] for job in (short, long, unknown)]
    unmet = [unmet_needs(one, ANYTHING.without_long().words) for one in needs]
    assert unmet == [[], ["long"], ["long"]]


@pytest.mark.parametrize(("stored", "own"), [("folder", "bucket"), ("bucket", "folder")])
def test_node_with_another_storage_leaves_job_to_others_and_does_not_end_it(
    stored: str, own: str
) -> None:
    job = replace(submitted(), audio=StoredRecordingRef("name", "sha256", 1, stored))
    error = reason(job, replace(ANYTHING, words=(f"storage:{own}", "language:*")))
    assert error is not None
    assert f"in a {stored}" in error.detail
    assert not are_final([JobFailure.of(error)])
