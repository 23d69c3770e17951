"""Who asks: what is known of it, what it may do, and that nobody sees what is another's."""

import dataclasses

import pytest

from sidecar import errors
from sidecar.auth.authentication import AccessControl, Authenticator
from sidecar.auth.identity import (
    ALL_SCOPES,
    ANONYMOUS,
    AuthMethod,
    Identity,
    RequestOrigin,
    Scope,
    bearer_token,
)

TOKEN = "correct-horse-battery-staple"
ALICE, MALLORY = (Identity(name, AuthMethod.JWT) for name in ("alice", "mallory"))


def from_here(*authorizations: str) -> RequestOrigin:
    return RequestOrigin(["localhost"], [], authorizations, peer="127.0.0.1")


async def test_without_a_configured_token_local_requests_are_one_owner_with_all_scopes() -> None:
    access = AccessControl(authenticator=Authenticator())
    for origin in (from_here(), from_here("Bearer whatever")):
        assert await access.authenticate(origin) == ANONYMOUS
    assert ANONYMOUS.scopes == ALL_SCOPES


async def test_configured_token_gives_an_owner_with_all_scopes_and_is_not_in_the_repr() -> None:
    access = AccessControl(authenticator=Authenticator(TOKEN))
    host = await access.authenticate(from_here(f"Bearer {TOKEN}"))
    assert host.scopes == ALL_SCOPES
    assert host.owner != ANONYMOUS.owner
    assert TOKEN not in repr(access)


@pytest.mark.parametrize(
    "sent",
    [
        *(["Bearer wrong"], [TOKEN], ["Bearer"], ["Bearer ä"]),
        *([f"Basic {TOKEN}"], [f"Digest {TOKEN}"]),
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    ],
)
def test_wrong_token_is_token_invalid_and_no_token_is_token_missing(sent: list[str]) -> None:
    with pytest.raises(errors.TokenInvalid):
        Authenticator(TOKEN).identify(from_here(*sent))
    with pytest.raises(errors.TokenMissing):
        Authenticator(TOKEN).identify(from_here())


def test_bearer_scheme_is_case_insensitive() -> None:
    assert bearer_token(from_here("bEaReR  a.b.c ")) == "a.b.c"


@pytest.mark.parametrize(
    "origin",
    [
        dataclasses.replace(from_here(f"Bearer {TOKEN}"), peer="192.168.1.5"),
        dataclasses.replace(from_here(f"Bearer {TOKEN}"), peer=None),
        dataclasses.replace(from_here(f"Bearer {TOKEN}"), forwarded=True),
    ],
    ids=["elsewhere", "unknown", "forwarded"],
)
async def test_remote_or_forwarded_request_may_not_use_audio_path(origin: RequestOrigin) -> None:
    host = await AccessControl(authenticator=Authenticator(TOKEN)).authenticate(origin)
    assert host.scopes == ALL_SCOPES - {Scope.AUDIO_PATH}
    with pytest.raises(errors.AudioPathForbidden, match="scope 'audio_path'") as refused:
        host.demand(Scope.AUDIO_PATH)
    assert refused.value.hint == "Upload the file instead.", "no permission would help"
    host.demand(Scope.RELOAD)


def test_same_name_by_two_authentication_methods_is_two_owners() -> None:
    assert len({Identity("everybody", proof).owner for proof in AuthMethod}) == len(AuthMethod)


@pytest.mark.parametrize("scope", sorted(set(Scope) - {Scope.AUDIO_PATH}))
def test_missing_scope_is_named_in_the_error(scope: Scope) -> None:
    with pytest.raises(errors.ScopeMissing, match=f"'{scope}'"):
        ALICE.demand(scope)
    dataclasses.replace(ALICE, scopes=frozenset({scope})).demand(scope)
