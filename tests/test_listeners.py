"""What serves beside HTTP: begun together, ended together."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar import errors
from sidecar.host.listeners import Listeners


class Noted:
    """Writes down what it is told, and fails where it is to."""

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self._name, self._notes, self._fails = name, notes, fails

    def _note(self, what: str) -> None:
        self._notes.append(f"{self._name} {what}")
        if what == self._fails:
            raise errors.PortInUse()

    async def start(self) -> dict[str, Any]:
        self._note("starts")
        return {self._name: 1}

    def stop_accepting(self) -> None:
        self._note("refuses")

    async def drain(self, grace_s: float) -> None:
        self._note(f"has {grace_s:g} s")

    async def close(self) -> None:
        self._note("closes")


async def test_they_begin_in_order_refuse_together_and_end_in_reverse() -> None:
    notes: list[str] = []
    listeners = Listeners([Noted("a", notes), Noted("b", notes)])
    assert await listeners.start() == {"a": 1, "b": 1}
    listeners.stop_accepting()
    await listeners.close(3)
    assert notes == [
        *("a starts", "b starts", "a refuses", "b refuses"),
        *("b has 3 s", "b closes", "a has 3 s", "a closes"),
    ]
    await listeners.close(3)
    assert len(notes) == 8


async def test_where_one_cannot_serve_none_does() -> None:
    notes: list[str] = []
    listeners = Listeners([Noted("a", notes), Noted("b", notes, "starts"), Noted("c", notes)])
    with pytest.raises(errors.PortInUse):
        await listeners.start()
    assert notes == ["a starts", "b starts", "b closes", "a closes"]


@pytest.mark.parametrize("fails", ["refuses", "has 2 s", "closes"])
async def test_one_that_fails_at_the_end_keeps_no_other_from_ending(fails: str) -> None:
    notes: list[str] = []
    listeners = Listeners([Noted("a", notes), Noted("b", notes, fails)])
    await listeners.start()
    listeners.stop_accepting()
    await listeners.close(2)
    assert {"a refuses", "a has 2 s", "a closes", "b closes"} <= set(notes)
