"""What owners do with their jobs, and on whose time."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from job_event_histories import submitted
from retention_of_jobs import retention_of
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, OwnerLimits
from sidecar.interfaces.request_options import SpeakerCounts
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import EditedChange, JobRecord, ReportedChange, StartedChange
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.jobs.owned_jobs import (
    SPLIT_ATTEMPTS,
    EditsNotCarried,
    OwnedJobs,
    TranscriptEditor,
)
from sidecar.transcripts import transcript_edits
from sidecar.transcripts.diarized_pieces import (
    DiarizedPiece,
    DiarizedPieces,
    SegmentPart,
    WordRange,
)
from sidecar.transcripts.transcript import (
    KEPT_DIARIZATION,
    Finished,
    ResumePoint,
    Segment,
    Transcript,
)
from sidecar.transcripts.transcript_edits import (
    RedoStep,
    RenameSpeaker,
    RewriteSegment,
    UndoStep,
    apply_operations,
)

SAID = Transcript((Segment(0.0, 1.0, "said"),), "en", 3.0, "scripted", "fp32")


def done_in(store: JobEventLog, caller: Identity = ANONYMOUS, kept: str = "") -> JobRecord:
    """A job with a transcript, and what its engine ``kept`` of the diarization."""
    record = submitted(owner=caller.owner)
    store.add(record)
    store.append(record.id, StartedChange())
    if kept:
        point = ResumePoint(3.0, KEPT_DIARIZATION, state={"data": kept})
        store.append(record.id, ReportedChange(point, 1.0))
    return store.append(record.id, ReportedChange(Finished(SAID), 1.0))


async def test_job_of_another_owner_can_be_neither_read_nor_listed_nor_cancelled_nor_deleted() -> (
    None
):
    store = JobEventLog()
    owned = OwnedJobs(LocalJobStore(store, None, retention_of(store)))  # type: ignore[arg-type]
    alice, mallory = (Identity(name, AuthMethod.JWT) for name in ("alice", "mallory"))
    job = done_in(store, alice)
    assert await owned.job(alice, job.id) == job
    assert await owned.jobs(alice) == [job]
    for other in (mallory, ANONYMOUS):
        assert await owned.jobs(other) == []
        asked = [owned.job(other, job.id), owned.written(other, job, lambda: b"what was said")]
        methods = (owned.events, owned.cancel, owned.delete)
        of_job = (method(other, job) for method in methods)
        for call in (*asked, owned.positions(other, [job]), *of_job):
            with pytest.raises(errors.JobNotFound):
                await call
        with pytest.raises(errors.JobNotFound):
            owned.cancel_soon(other, job)
    assert store.get(job.id) == job


async def test_slow_result_rendering_delays_the_next_of_its_owner_and_none_of_another() -> None:
    store, go_on = JobEventLog(), threading.Event()
    results = retention_of(store)
    results.fetch_s = 100 * PATIENCE_S
    owned = OwnedJobs(LocalJobStore(store, None, results))  # type: ignore[arg-type]
    anna, ben = (Identity(name, AuthMethod.JWT) for name in ("anna", "ben"))
    held, other = done_in(store, anna), done_in(store, ben)

    def held_up() -> bytes:
        go_on.wait(PATIENCE_S)
        return b"late"

    first = asyncio.create_task(owned.written(anna, held, held_up))
    second = asyncio.create_task(owned.written(anna, held, lambda: b"next"))
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await owned.written(ben, other, lambda: b"now") == b"now"
        assert not second.done()
    finally:
        go_on.set()
    assert [await first, await second] == [b"late", b"next"]
    await results.all_fetched()  # the end of the service waits for neither


def editor_of(store: JobEventLog) -> TranscriptEditor:
    jobs = LocalJobStore(store, None, retention_of(store))  # type: ignore[arg-type]
    return TranscriptEditor(OwnedJobs(jobs), jobs, None)  # type: ignore[arg-type]


class DiarizingProbe:
    """A probe that gives every word to a speaker of its own, while others do something."""

    def __init__(self, meanwhile: list[Callable[[], object]]) -> None:
        self.meanwhile, self.asked = meanwhile, list[str]()

    async def diarized(
        self, identity: Identity, kept: str, found: Transcript, places: Any, count: Any
    ) -> tuple[bytes, list[str]]:
        self.asked.append(found.text)
        if self.meanwhile:
            self.meanwhile.pop()()
        ends = len(found.segments[0].text)
        parts = [(0, 2), (2, ends)] if places is None else [(0, ends)]
        pieces = tuple(
            DiarizedPiece(
                0.0, 1.0, at, None, WordRange(0, at, at + 1), (SegmentPart(0, *part, 0, 0, False),)
            )
            for at, part in enumerate(parts)
        )
        return DiarizedPieces(pieces, ()).to_bytes(), []


async def test_diarization_overtaken_by_edits_is_redone_a_few_times_or_refused_for_a_revision() -> (
    None
):
    store = JobEventLog()
    job = done_in(store, kept="kept")

    def edited() -> None:
        step = (RewriteSegment(0, f"edit {store.get(job.id).history.revision}"),)
        store.append(job.id, EditedChange(step))

    jobs, probe = LocalJobStore(store, None, retention_of(store)), DiarizingProbe([edited])  # type: ignore[arg-type]
    editor = TranscriptEditor(OwnedJobs(jobs), jobs, probe)  # type: ignore[arg-type]
    _, after, lost = await editor.diarize(ANONYMOUS, job.id, SpeakerCounts(2))
    assert probe.asked[1:] == ["edit 0"]
    assert [one.text for one in after.segments] == ["ed", "it 0"]
    assert lost == EditsNotCarried((), 0)
    probe.meanwhile.append(edited)
    with pytest.raises(errors.TranscriptChanged):
        await editor.diarize(ANONYMOUS, job.id, SpeakerCounts(2), {after.history.revision})
    assert store.get(job.id).history.revision == 3
    probe.meanwhile += [edited] * SPLIT_ATTEMPTS
    with pytest.raises(errors.TranscriptChanged):
        await editor.diarize(ANONYMOUS, job.id, SpeakerCounts(2))


async def test_last_diarization_is_not_parsed_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = JobEventLog()
    job = done_in(store, kept="kept")
    jobs, probe = LocalJobStore(store, None, retention_of(store)), DiarizingProbe([])  # type: ignore[arg-type]
    editor = TranscriptEditor(OwnedJobs(jobs), jobs, probe)  # type: ignore[arg-type]
    await editor.diarize(ANONYMOUS, job.id, SpeakerCounts(2))
    parsed_on_the_loop: list[bool] = []
    parse = DiarizedPieces.from_bytes

    def watched(data: bytes) -> DiarizedPieces:
        parsed_on_the_loop.append(threading.current_thread() is threading.main_thread())
        return parse(data)

    monkeypatch.setattr(DiarizedPieces, "from_bytes", watched)
    await editor.diarize(ANONYMOUS, job.id, SpeakerCounts(2))
    assert parsed_on_the_loop
    assert not any(parsed_on_the_loop)


async def test_edit_is_computed_once_and_not_on_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = JobEventLog()
    job, editor = done_in(store), editor_of(store)
    on_the_loop: list[bool] = []

    def watched(*given: Any) -> Transcript:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return apply_operations(*given)

    monkeypatch.setattr(transcript_edits, "apply_operations", watched)
    for step in ((RewriteSegment(0, "other"),), UndoStep(), RedoStep()):
        before, after, _ = await editor.edit(ANONYMOUS, job.id, step)
        assert before is not after.transcript
    assert on_the_loop == [False, False], "the first and the last: nothing is worked out to undo"
    there_and_back = RewriteSegment(0, "others"), RewriteSegment(0, "other")
    await editor.edit(ANONYMOUS, job.id, there_and_back)
    assert on_the_loop == [False] * 3, "what changes nothing is worked out there, too"
    record = store.get(job.id)
    assert record.segments[0].text == "other"
    assert record.history.revision == 3
    kept = [one.change for one in store.events(job.id) if isinstance(one.change, EditedChange)]
    assert [one.ready for one in kept] == [None, None, None], "no transcript is kept with an edit"


async def test_edit_overtaken_by_another_is_computed_again_and_both_apply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = JobEventLog()
    job, editor = done_in(store), editor_of(store)
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> Transcript:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            go_on.wait()
        return apply_operations(*given)

    monkeypatch.setattr(transcript_edits, "apply_operations", slow)
    editing = asyncio.ensure_future(editor.edit(ANONYMOUS, job.id, (RewriteSegment(0, "other"),)))
    await until(begun.is_set)
    store.append(job.id, EditedChange((RenameSpeaker(0, "Nell"),)))  # as another service does
    go_on.set()
    before, after, _ = await editing
    assert before.name_of(0) == "Nell"
    assert after.transcript is not None
    assert (after.transcript.name_of(0), after.segments[0].text) == ("Nell", "other")


async def test_deletion_of_a_revision_overtaken_by_an_edit_is_refused_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = JobEventLog()
    job, editor = done_in(log), editor_of(log)
    store = LocalJobStore(log, None, retention_of(log))  # type: ignore[arg-type]
    owned, delete = OwnedJobs(store), store.delete

    async def overtaken(job_id: str, seq: int | None = None) -> None:
        monkeypatch.setattr(store, "delete", delete)
        await editor.edit(ANONYMOUS, job_id, (RewriteSegment(0, "corrected"),))
        await delete(job_id, seq)

    monkeypatch.setattr(store, "delete", overtaken)
    with pytest.raises(errors.TranscriptChanged):
        await owned.delete(ANONYMOUS, log.get(job.id), {0})
    assert log.get(job.id).segments[0].text == "corrected"


async def test_edit_without_revision_is_refused_after_a_new_diarization_and_one_with_it_applies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = JobEventLog()
    job = done_in(store, kept="kept")
    jobs, probe = LocalJobStore(store, None, retention_of(store)), DiarizingProbe([])  # type: ignore[arg-type]
    editor = TranscriptEditor(OwnedJobs(jobs), jobs, probe)  # type: ignore[arg-type]
    begun, go_on = threading.Event(), threading.Event()

    def slow(transcript: Transcript, operations: Any) -> Transcript:
        if isinstance(operations[0], RewriteSegment):
            begun.set()
            go_on.wait()
        return apply_operations(transcript, operations)

    monkeypatch.setattr(transcript_edits, "apply_operations", slow)
    editing = asyncio.ensure_future(editor.edit(ANONYMOUS, job.id, (RewriteSegment(0, "other"),)))
    await until(begun.is_set)
    await editor.diarize(ANONYMOUS, job.id, SpeakerCounts(2))
    go_on.set()
    with pytest.raises(errors.TranscriptChanged):
        await editing
    assert [one.text for one in store.get(job.id).segments] == ["sa", "id"]
    with pytest.raises(errors.TranscriptChanged, match="diarized again"):
        await editor.edit(ANONYMOUS, job.id, (RenameSpeaker(0, "Nell"),))
    await editor.edit(ANONYMOUS, job.id, UndoStep())
    with pytest.raises(errors.TranscriptChanged, match="diarized again"):
        await editor.edit(ANONYMOUS, job.id, (RenameSpeaker(0, "Nell"),))
    revision = store.get(job.id).history.revision
    _, after, _ = await editor.edit(ANONYMOUS, job.id, (RewriteSegment(0, "other"),), {revision})
    assert [one.text for one in after.segments] == ["other"]


async def test_many_edits_of_one_owner_do_not_delay_those_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = JobEventLog()
    ada, bob = (
        Identity(name, AuthMethod.JWT, limits=OwnerLimits(shares=True)) for name in ("ada", "bob")
    )
    her_job, his_job = done_in(store, ada).id, done_in(store, bob).id
    editor, go_on = editor_of(store), threading.Event()

    def slow(transcript: Transcript, step: Any) -> Transcript:
        if step[0].text == "slow":
            go_on.wait()
        return apply_operations(transcript, step)

    monkeypatch.setattr(transcript_edits, "apply_operations", slow)
    try:
        hers = [
            asyncio.ensure_future(editor.edit(ada, her_job, (RewriteSegment(0, "slow"),)))
            for _ in range(9)
        ]
        await asyncio.sleep(0)
        _, after, _ = await editor.edit(bob, his_job, (RewriteSegment(0, "quick"),))
        assert after.segments[0].text == "quick"
        assert not any(one.done() for one in hers)
    finally:
        go_on.set()
    assert len(await asyncio.gather(*hers)) == 9
