"""Dataclasses as plain values: what JSON has otherwise comes back as it was."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import pytest

from sidecar import errors
from sidecar.serialization import WireValues, from_plain, to_plain
from sidecar.transcripts import transcript


class Colour(StrEnum):
    """A member goes as its value."""

    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    """Nested."""

    number: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outer(WireValues):
    """All kinds of fields that JSON has otherwise."""

    colour: Colour
    inner: Inner | None = None
    several: tuple[Inner | None, ...] = ()
    by_number: Mapping[int, Inner] = field(default_factory=dict)
    names: dict[int, str | None] = field(default_factory=dict)


WHOLE = Outer(Colour.RED, Inner(1, ("a",)), (Inner(2), None), {3: Inner(4)}, {5: None, 6: "b"})


@pytest.mark.parametrize("value", [WHOLE, Outer(Colour.RED)])
def test_dataclass_values_and_their_types_survive_json(value: Outer) -> None:
    again = Outer.from_wire(json.loads(json.dumps(value.to_wire())))
    assert again == value
    assert isinstance(again.colour, Colour)
    assert isinstance(again.several, tuple)


def test_plain_values_equal_asdict_and_containers_are_copied() -> None:
    value = {"outer": [WHOLE, (Inner(2),)], "raw": b"as it is"}
    plain = to_plain(value)
    assert plain == {"outer": [asdict(WHOLE), (asdict(Inner(2)),)], "raw": b"as it is"}
    plain["outer"][0]["names"].clear()
    assert WHOLE.names


def test_missing_optional_field_has_its_default_and_an_unknown_or_invalid_one_raises() -> None:
    assert from_plain(Inner, {"number": 1}) == Inner(1)
    with pytest.raises(TypeError):
        from_plain(Inner, {"number": 1, "other": 2})
    with pytest.raises(TypeError):
        from_plain(Outer, {"colour": "red", "inner": {}})
    with pytest.raises(ValueError, match="blue"):
        from_plain(Outer, {"colour": "blue"})


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"event": "Nothing"},
        {"event": "SegmentReady", "index": 0, "segment": {"start": 0.0}},
        {"event": "Peaks", "first": 0, "levels": "no base64"},
        {"event": "Finished", "transcript": None},
    ],
)
def test_invalid_event_of_an_engine_raises_engine_failed(values: dict[str, object]) -> None:
    with pytest.raises(errors.EngineFailed):
        transcript.from_wire(values)
