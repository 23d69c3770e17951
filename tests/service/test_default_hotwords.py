"""Hotwords that no client sent: whose they are, how many, and what an engine gets."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_event_histories import submitted
from retention_of_jobs import retention_of
from service_process import Server
from wheel_recordings import clip_wav

from sidecar.auth.token_issuing import TokenIssuer
from sidecar.engines import engine_spec
from sidecar.interfaces.engine_interface import EngineSpec, TranscribeOptions
from sidecar.interfaces.request_fields import MAX_PROMPT_CHARACTERS
from sidecar.jobs.job_event_log import JobEventLog
from sidecar.jobs.job_record import EditedChange, ReportedChange, StartedChange
from sidecar.jobs.local_jobs import LocalJobStore
from sidecar.plugins.upstream import SPEC as UPSTREAM
from sidecar.service.default_hotwords import MAX_HOTWORDS, DefaultHotwords, with_defaults
from sidecar.transcripts.transcript import Finished, Segment, SpeakerCandidate, Transcript
from sidecar.transcripts.transcript_edits import EditOperation, RenameSpeaker, RewriteSegment

EMBEDDED = engine_spec("moonshine")
OWNERS = "ada", "ben", "eve"
SAID = Transcript((Segment(0.0, 1.0, "We met them.", 0),), "en", 1.0, "moonshine", "int8")
edits = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.booleans(), st.integers(0, 9)), min_size=1, max_size=12
)


def edited(log: JobEventLog, owner: str, *operations: EditOperation) -> str:
    """A job of an owner with these edits; its id."""
    record = submitted(owner=owner)
    log.add(record)
    for change in (StartedChange(), ReportedChange(Finished(SAID), 1.0), EditedChange(operations)):
        log.append(record.id, change)
    return record.id


def store_of(log: JobEventLog) -> LocalJobStore:
    return LocalJobStore(log, None, retention_of(log))  # type: ignore[arg-type]


@given(edits=edits)
async def test_no_name_of_an_owner_is_a_hotword_of_another_owners_job(
    edits: list[tuple[str, bool, int]],
) -> None:
    log = JobEventLog(lambda: 0.0)
    for owner, of_speaker, number in edits:
        name = f"{owner.title()}{'abcdefghij'[number]}"
        text = RewriteSegment(0, f"We met {name}.")
        edited(log, owner, RenameSpeaker(0, name) if of_speaker else text)
    defaults = DefaultHotwords(("Hostname",), store_of(log))
    for owner in OWNERS:
        known = (SpeakerCandidate("1", f"{owner.title()}known", ()),)
        options = TranscribeOptions(known_voices=known)
        found = (await defaults.added(options, owner, EMBEDDED)).hotwords
        own = {f"{owner.title()}{'abcdefghij'[number]}" for one, _, number in edits if one == owner}
        assert set(found) == {"Hostname", f"{owner.title()}known", *own}


async def test_names_of_a_deleted_job_are_hotwords_no_more() -> None:
    log = JobEventLog(lambda: 0.0)
    job_id = edited(log, "ada", RenameSpeaker(0, "Nell"))
    defaults = DefaultHotwords((), store_of(log))
    assert (await defaults.added(TranscribeOptions(), "ada", EMBEDDED)).hotwords == ("Nell",)
    log.delete(job_id)
    assert await defaults.added(TranscribeOptions(), "ada", EMBEDDED) == TranscribeOptions()


@pytest.mark.parametrize("prompted", [engine_spec("whisper"), UPSTREAM], ids=lambda one: one.name)
async def test_names_of_the_owner_go_into_no_prompt_and_nowhere_without_recognition(
    prompted: EngineSpec,
) -> None:
    log = JobEventLog(lambda: 0.0)
    edited(log, "ada", RenameSpeaker(0, "Nell"))
    defaults = DefaultHotwords(("Acme",), store_of(log))
    known = (SpeakerCandidate("1", "Nagg", ()),)
    asked = TranscribeOptions(known_voices=known, token_hotwords=("Hamm",), hotwords=("Clov",))
    unwanted = TranscribeOptions(recognise=False, token_hotwords=("Hamm",), hotwords=("Clov",))
    assert (await defaults.added(asked, "ada", prompted)).hotwords == ("Clov", "Hamm", "Acme")
    assert (await defaults.added(unwanted, "ada", EMBEDDED)).hotwords == ("Clov", "Hamm", "Acme")
    every = ("Clov", "Hamm", "Acme", "Nell", "Nagg")
    assert (await defaults.added(asked, "ada", EMBEDDED)).hotwords == every


@given(
    sent=st.integers(0, 70),
    names=st.lists(st.text("aB ,;é", max_size=300), max_size=80),
    prompt=st.integers(0, MAX_PROMPT_CHARACTERS - 600),
)
def test_default_hotwords_are_bounded_and_leave_out_none_of_the_request(
    sent: int, names: list[str], prompt: int
) -> None:
    given = TranscribeOptions(
        prompt="x" * prompt, hotwords=tuple(f"own{number}" for number in range(sent))
    )
    found = with_defaults(given, names)
    assert found.hotwords[:sent] == given.hotwords
    assert len(found.hotwords) <= max(sent, MAX_HOTWORDS)
    assert len(found.prompt_with_hotwords) <= MAX_PROMPT_CHARACTERS
    assert len({one.casefold() for one in found.hotwords}) == len(found.hotwords)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> TokenIssuer:
    return TokenIssuer(tmp_path_factory.mktemp("issuer") / "tokens")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, issuer: TokenIssuer) -> Iterator[Server]:
    issuer.keys.make()
    settings = {"engine": "moonshine", "hotwords": "Acme; Clov", "token_keys": issuer.keys.public}
    with Server(tmp_path_factory.mktemp("hotwords"), **settings) as running:  # type: ignore[arg-type]
        yield running


def test_result_names_the_hotwords_of_request_token_host_and_edits_of_its_owner_alone(
    embedded: Server, issuer: TokenIssuer
) -> None:
    ada, ben = (
        {"Authorization": f"Bearer {issuer.create(name, hotwords=words)[0]}"}
        for name, words in (("ada", "Hamm, Krapp"), ("ben", ""))
    )
    audio = {"audio": clip_wav("beckett")}

    def sent(headers: dict[str, str], **fields: str) -> dict[str, Any]:
        answer = embedded.client.post("/transcribe", files=audio, data=fields, headers=headers)
        return dict(answer.raise_for_status().json()["metadata"])

    path = f"/v1/jobs/{sent(ada | {'Prefer': 'wait=300'})['job_id']}"
    assert sent(ben)["hotwords"] == ["Acme", "Clov"]
    first = sent(ada, hotwords="Nagg, acme")
    assert first["hotwords"] == ["Nagg", "acme", "Hamm", "Krapp", "Clov"]
    job = embedded.client.post("/v1/jobs", files=audio, headers=ada).json()
    path = f"/v1/jobs/{job['id']}"
    embedded.client.get(f"{path}/events", headers=ada)
    rename = {"operations": [{"op": "rename", "speaker": "Speaker_0", "name": "Nell"}]}
    answer = embedded.client.patch(f"{path}/transcript", json=rename, headers=ada)
    assert answer.status_code == 200, answer.text
    assert sent(ada)["hotwords"] == ["Hamm", "Krapp", "Acme", "Clov", "Nell"]
    assert sent(ben)["hotwords"] == ["Acme", "Clov"]


def test_engine_without_hotwords_gets_none_and_warns_of_none(
    tmp_path_factory: pytest.TempPathFactory, voice: bytes
) -> None:
    with Server(tmp_path_factory.mktemp("scripted"), hotwords="Acme") as server:
        about = server.post(voice).json()["metadata"]
    assert "hotwords" not in about
    assert about["warnings"] == []
