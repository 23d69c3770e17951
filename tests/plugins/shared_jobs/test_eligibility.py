"""Why a node cannot do a job, and what is said of jobs that none can."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from instrumented_slot import job_of
from job_event_histories import submitted

from sidecar import errors
from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_engine import JobEngine
from sidecar.jobs.job_record import JobFailure
from sidecar.plugins.shared_jobs.claim_loop import ineligibility
from sidecar.plugins.shared_jobs.claims import are_final, unschedulable_error
from sidecar.workers.engine_lease import EXCLUSIVE, EngineState
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


def test_node_is_ineligible_by_language_translation_length_or_lost_audio_of_a_recording(
    recording: Path,
) -> None:
    settings = Settings(engine="moonshine")
    lodging = RoleEngine("files", settings, choose_engine(settings), MemoryDevices(), EXCLUSIVE)
    engine = JobEngine(settings, lodging)
    job = job_of(recording).record
    german = replace(job, options=TranscribeOptions(language="de"))
    english = replace(job, options=TranscribeOptions(translate=True))
    talk = replace(job, audio_info=replace(job.audio_info, decoder="live"))
    found = [ineligibility(one, engine, 60.0) for one in (job, german, english, talk)]
    found.append(ineligibility(job, engine, 1.0))
    codes = [error and error.code for error in found]
    assert codes == [
        *(None, "language_unsupported", "model_unsuited"),
        *("audio_lost", "audio_too_long"),
    ]


def test_job_that_does_not_fit_in_memory_is_refused() -> None:
    provision = Mock(engine=Mock(state=EngineState.READY))
    provision.refusal.return_value = None
    provision.admit.side_effect = errors.WontFit()
    assert isinstance(ineligibility(submitted(), provision, 1e5), errors.WontFit)


def test_node_with_stuck_engine_is_not_eligible() -> None:
    node = Mock(engine=Mock(state=EngineState.STUCK))
    assert isinstance(ineligibility(submitted(), node, 1e5), errors.EngineStuck)


@pytest.mark.parametrize(("stored", "own"), [("folder", "bucket"), ("bucket", "folder")])
def test_node_with_another_storage_leaves_job_to_others_and_does_not_end_it(
    stored: str, own: str
) -> None:
    node = Mock(engine=Mock(state=EngineState.READY))
    job = replace(submitted(), audio=StoredRecordingRef("name", "sha256", 1, stored))
    error = ineligibility(job, node, 1e5, own)
    assert error is not None
    assert f"in a {stored}" in error.detail
    assert not are_final([JobFailure.of(error)])
