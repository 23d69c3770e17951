"""Who asks: what is known of it, what it may do, and that nobody sees what is another's."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar import errors
from sidecar.audio.audio_source import open_recording_file
from sidecar.auth.authentication import AccessPolicy, Authenticator
from sidecar.auth.identity import (
    ALL_SCOPES,
    ANONYMOUS,
    AuthMethod,
    Identity,
    RequestOrigin,
    Scope,
    bearer_token,
)
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.jobs.job_record import CancelledChange
from sidecar.jobs.job_runner import Job
from sidecar.server.app import create_service
from sidecar.service.facade import Service

TOKEN = "correct-horse-battery-staple"
ALICE, MALLORY = (Identity(name, AuthMethod.JWT) for name in ("alice", "mallory"))


def from_here(*authorizations: str) -> RequestOrigin:
    return RequestOrigin(["localhost"], [], authorizations, peer="127.0.0.1")


def test_without_a_token_this_machine_is_one_owner_with_all_scopes() -> None:
    access = AccessPolicy(authenticator=Authenticator())
    for approach in (from_here(), from_here("Bearer whatever")):
        assert access.identify(approach) == ANONYMOUS
    assert ANONYMOUS.scopes == ALL_SCOPES


def test_token_of_the_service_identifies_its_owner() -> None:
    access = AccessPolicy(authenticator=Authenticator(TOKEN))
    host = access.identify(from_here(f"Bearer {TOKEN}"))
    assert host.scopes == ALL_SCOPES
    assert host.owner != ANONYMOUS.owner
    assert TOKEN not in repr(access)


@pytest.mark.parametrize(
    "sent",
    [
        *(["Bearer wrong"], [f"Basic {TOKEN}"], [TOKEN], ["Bearer"], ["Bearer ä"]),
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    ],
)
def test_wrong_token_identifies_nobody(sent: list[str]) -> None:
    with pytest.raises(errors.TokenInvalid):
        Authenticator(TOKEN).identify(from_here(*sent))
    with pytest.raises(errors.TokenMissing):
        Authenticator(TOKEN).identify(from_here())


def test_bearer_scheme_is_case_insensitive() -> None:
    assert bearer_token(from_here("bEaReR  a.b.c ")) == "a.b.c"


@pytest.mark.parametrize(
    "approach",
    [
        dataclasses.replace(from_here(f"Bearer {TOKEN}"), peer="192.168.1.5"),
        dataclasses.replace(from_here(f"Bearer {TOKEN}"), peer=None),
        dataclasses.replace(from_here(f"Bearer {TOKEN}"), forwarded=True),
    ],
    ids=["elsewhere", "unknown", "forwarded"],
)
def test_remote_owner_may_not_name_files(approach: RequestOrigin) -> None:
    host = AccessPolicy(authenticator=Authenticator(TOKEN)).identify(approach)
    assert host.scopes == ALL_SCOPES - {Scope.AUDIO_PATH}
    with pytest.raises(errors.AudioPathForbidden, match="scope 'audio_path'") as refused:
        host.demand(Scope.AUDIO_PATH)
    assert refused.value.hint == "Upload the file instead.", "no permission would help"
    host.demand(Scope.RELOAD)


def test_one_name_by_two_methods_is_two_owners() -> None:
    assert len({Identity("everybody", proof).owner for proof in AuthMethod}) == len(AuthMethod)


@pytest.mark.parametrize("scope", sorted(set(Scope) - {Scope.AUDIO_PATH}))
def test_missing_scope_is_named(scope: Scope) -> None:
    with pytest.raises(errors.ScopeMissing, match=f"'{scope}'"):
        ALICE.demand(scope)
    dataclasses.replace(ALICE, scopes=frozenset({scope})).demand(scope)


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "1")
    service = create_service(Settings(engine="scripted", data_dir=tmp_path))
    await service.open()
    yield service
    await service.close()


@pytest.fixture
async def job(service: Service, voice: bytes, tmp_path: Path) -> Job:
    """One of Alice's."""
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    return await service.submissions.submit(
        ALICE, open_recording_file(str(path)), TranscribeOptions()
    )


async def test_job_of_another_owner_is_not_found_by_any_method(service: Service, job: Job) -> None:
    assert await service.owned.job(ALICE, job.id) == job.record
    assert await service.owned.jobs(ALICE) == [job.record]
    for other in (MALLORY, ANONYMOUS):
        assert await service.owned.jobs(other) == []
        for ask in (
            lambda other=other: service.owned.job(other, job.id),
            lambda other=other: service.owned.turns(other, [job.record]),
            lambda other=other: service.owned.events(other, job.record),
            lambda other=other: service.owned.cancel(other, job.record),
            lambda other=other: service.owned.delete(other, job.record),
            lambda other=other: service.owned.written(other, job.record, lambda: b"what was said"),
        ):
            with pytest.raises(errors.JobNotFound):
                await ask()
        with pytest.raises(errors.JobNotFound):
            service.owned.hang_up(other, job.record)
    assert not job.ended
    await service.owned.cancel(ALICE, job.record)
    assert job.ended
    told = [event.change async for event in await service.owned.events(ALICE, job.record)]
    assert told[-1] == CancelledChange()


async def test_missing_scope_is_refused_before_any_work(service: Service, tmp_path: Path) -> None:
    may_reload = dataclasses.replace(ALICE, scopes=frozenset({Scope.RELOAD}))
    for caller, now in ((ALICE, False), (may_reload, True)):
        with pytest.raises(errors.ScopeMissing):
            await service.reload(caller, "int8", now=now)
    assert service.fleet.files.slot.worker_pid is None
    assert await service.reload(may_reload, "int8") == "int8"
    with pytest.raises(errors.AudioPathForbidden):
        await service.submissions.open_path(ALICE, str(tmp_path / "none.wav"))
