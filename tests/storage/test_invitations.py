"""Invitations: once, for a day, bounded for each owner, and nothing on the disk that opens one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import errors
from sidecar.storage.invitations import (
    INVITATION_LIFETIME_S,
    MAX_INVITATIONS,
    MAX_PER_OWNER,
    Invitations,
)

OPENED = {"token": "a-token", "signed_in_as": "anna"}


@pytest.fixture
def now() -> list[float]:
    return [1_700_000_000.0]


@pytest.fixture
def clock_of(now: list[float]) -> Callable[[], float]:
    return lambda: now[0]


def test_invitation_is_taken_once_by_another_process_and_leaves_no_file(
    tmp_path: Path, clock_of: Callable[[], float]
) -> None:
    code = Invitations(tmp_path, clock_of).give(OPENED, "anna")
    (file,) = tmp_path.iterdir()
    assert b"a-token" not in file.read_bytes()
    assert code not in file.name
    assert Invitations(tmp_path, clock_of).take(code) == OPENED
    assert not [*tmp_path.iterdir()]
    for wrong in (code, "", "x" * 43, "../" + file.name):
        with pytest.raises(errors.LinkInvalid):
            Invitations(tmp_path, clock_of).take(wrong)


def test_invitation_that_is_a_day_old_or_was_changed_is_refused_and_deleted(
    tmp_path: Path, now: list[float], clock_of: Callable[[], float]
) -> None:
    invitations = Invitations(tmp_path, clock_of)
    old = invitations.give(OPENED, "anna")
    now[0] += INVITATION_LIFETIME_S + 1
    changed = invitations.give(OPENED, "anna")
    with pytest.raises(errors.LinkInvalid):
        invitations.take(old)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.LinkInvalid):
        invitations.take(changed)
    assert not [*tmp_path.iterdir()]


def test_owner_with_too_many_invitations_loses_the_oldest_and_others_none(
    tmp_path: Path, now: list[float], clock_of: Callable[[], float]
) -> None:
    invitations = Invitations(tmp_path, clock_of)
    of_another = invitations.give({"token": "ben's"}, "ben")
    codes = []
    for _ in range(MAX_PER_OWNER + 1):
        now[0] += 1
        codes.append(invitations.give(OPENED, "anna"))
    with pytest.raises(errors.LinkInvalid):
        invitations.take(codes[0])
    assert invitations.take(codes[1]) == OPENED
    assert invitations.take(of_another) == {"token": "ben's"}


def test_full_folder_drops_invitations_of_the_owner_with_most(
    tmp_path: Path, clock_of: Callable[[], float]
) -> None:
    invitations = Invitations(tmp_path, clock_of)
    alone = invitations.give({"token": "ben's"}, "ben")
    for number in range(9):
        for _ in range(MAX_PER_OWNER):
            invitations.give(OPENED, f"one of {number}")
    assert len([*tmp_path.iterdir()]) == MAX_INVITATIONS
    assert invitations.take(alone) == {"token": "ben's"}


def test_service_without_a_folder_refuses_an_invitation_and_knows_none() -> None:
    with pytest.raises(errors.SettingsInvalid, match="folder"):
        Invitations(None).give(OPENED, "anna")
    with pytest.raises(errors.LinkInvalid):
        Invitations(None).take("x")
