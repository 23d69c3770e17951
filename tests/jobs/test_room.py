"""Room that is promised to what is on its way."""

from __future__ import annotations

import pytest

from sidecar import errors
from sidecar.jobs.room import Room


def test_a_place_is_given_back_once_however_often_it_is_let_go() -> None:
    room = Room(2, 100)
    with room.place() as first, room.place():
        assert room.promised == 2
        first.release()
        first.release()
        assert room.promised == 1
    assert room.promised == 0


def test_more_uploads_than_are_read_at_once_are_refused() -> None:
    room = Room(2, 100)
    with room.body():
        with room.body(), pytest.raises(errors.UploadsFull):
            room.body()
        room.body().release()
    assert (room.bodies, room.body_bytes) == (0, 0)


def test_the_one_that_grows_beyond_the_room_is_refused_and_takes_nothing_with_it() -> None:
    room = Room(8, 100)
    with room.body() as first:
        first.grow(60)
        with room.body() as second:
            second.grow(40)
            with pytest.raises(errors.UploadsFull):
                second.grow(1)
        assert room.body_bytes == 60
        first.grow(40)
        with pytest.raises(errors.UploadsFull):
            room.body()
    assert (room.bodies, room.body_bytes) == (0, 0)


def test_one_alone_may_have_more_than_the_room() -> None:
    room = Room(8, 100)
    with room.body() as only:
        only.grow(1000)
    assert room.body_bytes == 0
