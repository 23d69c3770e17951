"""Room that is promised to what is on its way."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, OwnerLimits
from sidecar.jobs.reservations import Reservations, UploadReservation, check_queue


def owner(name: str) -> Identity:
    """One who is told apart from others."""
    return Identity(name, AuthMethod.JWT, limits=OwnerLimits(shares=True))


def test_reservation_released_twice_counts_once() -> None:
    room = Reservations(2, 100)
    with room.reserve_position() as first, room.reserve_position():
        assert room.reserved == 2
        first.close()
        first.close()
        assert room.reserved == 1
    assert room.reserved == 0


def test_upload_over_limit_of_concurrent_uploads_is_refused() -> None:
    room = Reservations(2, 100)
    with room.reserve_upload(ANONYMOUS):
        with room.reserve_upload(ANONYMOUS), pytest.raises(errors.UploadsFull):
            room.reserve_upload(ANONYMOUS)
        room.reserve_upload(ANONYMOUS).close()
    assert (room.bodies, room.body_bytes) == (0, 0)


def test_growing_upload_over_byte_limit_of_all_uploads_is_refused_and_the_others_may_grow() -> None:
    room = Reservations(8, 100)
    with room.reserve_upload(ANONYMOUS) as first:
        first.grow(60)
        with room.reserve_upload(ANONYMOUS) as second:
            second.grow(40)
            with pytest.raises(errors.UploadsFull):
                second.grow(1)
        assert room.body_bytes == 60
        first.grow(40)
        with pytest.raises(errors.UploadsFull):
            room.reserve_upload(ANONYMOUS)
    assert (room.bodies, room.body_bytes) == (0, 0)


def test_upload_with_no_other_beside_it_may_exceed_byte_limit_of_all_uploads() -> None:
    room = Reservations(8, 100)
    with room.reserve_upload(ANONYMOUS) as only:
        only.grow(1000)
    assert room.body_bytes == 0


def test_anonymous_owner_may_use_all_uploads_and_bytes() -> None:
    room = Reservations(5, 100)
    bodies = [room.reserve_upload(ANONYMOUS, 90) for _ in range(5)]
    for body in bodies:
        body.grow(20)
    with pytest.raises(errors.UploadsFull):
        bodies[0].grow(1)


def test_one_owner_cannot_take_all_concurrent_uploads() -> None:
    room, ada = Reservations(65, 1000), owner("ada")
    for _ in range(48):
        room.reserve_upload(ada)
    with pytest.raises(errors.UploadsFull, match="concurrent uploads"):
        room.reserve_upload(ada)
    assert room.reserve_upload(owner("bob"))


def test_uploads_of_owner_in_all_places_may_not_grow_once_another_owners_first_is_accepted() -> (
    None
):
    room = Reservations(4, 100)
    first, *_ = [room.reserve_upload(ANONYMOUS) for _ in range(4)]
    newcomer = room.reserve_upload(owner("bob"))
    with pytest.raises(errors.UploadsFull):
        first.grow(1)
    newcomer.grow(1)


def test_declared_upload_bytes_count_only_against_their_owner() -> None:
    room, ada = Reservations(65, 100), owner("ada")
    first = room.reserve_upload(ada, 45)
    with pytest.raises(errors.UploadsFull):
        room.reserve_upload(ada, 6)
    room.reserve_upload(ada, 5)
    assert room.body_bytes == 0, "none has come"
    other = room.reserve_upload(owner("bob"), 90)
    other.grow(90)
    first.grow(10)
    first.close()
    room.reserve_upload(ada, 45)


def test_bytes_of_upload_without_declared_length_count_as_they_arrive() -> None:
    room, ada = Reservations(65, 100), owner("ada")
    room.reserve_upload(ada).grow(46)
    with pytest.raises(errors.UploadsFull):
        room.reserve_upload(ada, 5)


def test_growing_upload_of_owner_over_fair_share_is_refused_and_one_within_it_grows() -> None:
    room, ada, bob = Reservations(65, 100), owner("ada"), owner("bob")
    large = room.reserve_upload(ada)
    large.grow(100)
    small = room.reserve_upload(bob)
    small.grow(30)
    with pytest.raises(errors.UploadsFull):
        large.grow(1)
    small.grow(20)
    large.close()
    small.grow(1)


STEP = st.tuples(st.sampled_from("abcdefg"), st.integers(0, 60), st.booleans())


@given(st.integers(2, 12), st.lists(STEP, max_size=120))
def test_owner_within_fair_share_is_never_refused(
    places: int, steps: list[tuple[str, int, bool]]
) -> None:
    """However others fill the room: an owner within an equal share of both is never refused."""
    room, most_bytes = Reservations(places, 100), 100
    going: list[tuple[str, UploadReservation]] = []
    for name, size, begins in steps:
        has = Counter(one for one, _ in going)
        owners = len({*has, name})
        if begins:
            try:
                going.append((name, room.reserve_upload(owner(name), size)))
            except errors.UploadsFull:
                assert has[name] or owners > places
            continue
        for whose, body in [one for one in going if one[0] == name][:1]:
            try:
                body.grow(size)
            except errors.UploadsFull:
                own = room.uploads[owner(name).owner]
                assert own.bodies * owners > places or own.bytes * owners > most_bytes
                body.close()
                going.remove((whose, body))
    assert room.bodies == len(going) <= 2 * places
    for _, body in going:
        body.close()
    assert not room.uploads


@given(st.integers(2, 200), st.lists(st.sampled_from("abc"), max_size=300))
def test_last_place_in_queue_goes_only_to_owner_without_waiting_jobs(
    limit: int, comes: list[str]
) -> None:
    waiting = Counter[str]()
    for name in ["a"] * limit + comes:
        free = limit - waiting.total()
        try:
            check_queue(owner(name), waiting[name], free)
        except errors.JobsLimited:
            assert waiting[name]
            continue
        if free > 0:
            waiting[name] += 1
            assert waiting.total() < limit or waiting[name] == 1
    check_queue(ANONYMOUS, limit, 0)
