"""Kept jobs, and an upstream that is well by its /health and fails on each recording."""

from pathlib import Path

from instrumented_slot import OverheardSlot, job_of, queue_on, started
from marked_upstreams import MarkedUpstream, marked, words_until
from service_process import new_file, until

from sidecar.engines.engine_selection import choose_engine
from sidecar.errors import Fault
from sidecar.interfaces.engine_interface import Precision
from sidecar.jobs.job_record import JobState
from sidecar.plugins import load_settings
from sidecar.plugins.upstream.errors import UpstreamFailed, UpstreamUnreachable
from sidecar.workers.loaded_model import DEFAULT_MODEL_ID, LoadedModel


def slot_before(url: str) -> OverheardSlot:
    """An engine that sends recordings to one server."""
    choice = choose_engine(load_settings(engine="upstream", upstream=url))
    slot = OverheardSlot()
    slot.model = LoadedModel(DEFAULT_MODEL_ID, choice, choice.spec, Precision.AUTO)
    return slot


async def test_server_error_counts_against_a_recording_only_if_a_second_of_speech_is_answered(
    tmp_path: Path,
) -> None:
    """Only the first does: whose it is was not known yet."""
    recording = new_file(tmp_path / "marked.wav", marked(7).wav())
    with MarkedUpstream("openai") as there:
        async with queue_on(slot_before(there.url), fault_retry_s=0.001) as queue:
            first, job = job_of(recording), job_of(recording)
            await started(queue, first)
            assert (await first.result()).text.split() == words_until(7)
            there.refuses = lambda *_: (500, "CUDA error")
            await queue.submit(job)
            await until(lambda: job.vain_attempts and queue.faults)
            breaker = queue.breakers.open[Fault.UPSTREAM]
            await until(lambda: breaker.tries >= 4 or job.ended)
            assert isinstance(queue.paused, UpstreamFailed)
            assert (job.state, job.record.interruptions) == (JobState.QUEUED, 1)
            there.refuses = lambda *_: (0, "")
            assert (await job.result()).text.split() == words_until(7)
            assert not queue.faults


async def test_full_disk_of_an_upstream_that_takes_a_second_of_speech_counts_against_no_recording(
    tmp_path: Path,
) -> None:
    recording = new_file(tmp_path / "marked.wav", marked(7).wav())
    with MarkedUpstream("sidecar") as there:
        async with queue_on(slot_before(there.url), fault_retry_s=0.001) as queue:
            job = job_of(recording)
            there.refuses = lambda _, seconds: (507, "Disk full.") if seconds > 3 else (0, "")
            await started(queue, job)
            await until(lambda: job.vain_attempts or job.ended)
            assert isinstance(queue.paused, UpstreamUnreachable)
            assert (job.state, job.record.interruptions) == (JobState.QUEUED, 0)
            there.refuses = lambda *_: (0, "")
            assert (await job.result()).text.split() == words_until(7)
