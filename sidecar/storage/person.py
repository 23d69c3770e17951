"""A person known by voice: a name, and what they sounded like in some recordings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from sidecar import clock, errors
from sidecar.transcripts.lettering import one_line
from sidecar.transcripts.people import LONGEST_NAME, KnownVoice, VoicePrint

MOST_PEOPLE = 200
"""Of one owner: their vectors, 1.4 MB at the most, go to the engine with each of its jobs."""
MOST_SAMPLES = 10
"""Of one person. More recordings hardly move the mean that a voice is compared with."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A person's voice in one recording; ``added``: when, in seconds since 1970."""

    added: float
    print: VoicePrint

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The sample whose fields these are, as `dataclasses.asdict` has them.

        Raises:
            KeyError, TypeError: they are not.
        """
        return cls(values["added"], VoicePrint(**values["print"]))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom an owner has named. The oldest sample comes first."""

    id: str
    owner: str
    name: str
    created: float
    samples: tuple[Sample, ...]

    @property
    def known(self) -> KnownVoice:
        """What is to be recognised."""
        return KnownVoice(self.id, self.name, tuple(one.print for one in self.samples))

    def hearing(self, sample: Sample) -> Person:
        """The same person with one sample more. What was heard twice counts once; beyond
        `MOST_SAMPLES` the one with the least voice goes, the oldest of these first."""
        if any(one.print.vector == sample.print.vector for one in self.samples):
            return self
        kept = list(self.samples)
        if len(kept) >= MOST_SAMPLES:
            kept.remove(min(kept, key=lambda one: (one.print.seconds, one.added)))
        return replace(self, samples=(*kept, sample))


def parse_name(value: object) -> str:
    """A name as it is shown: on one line, without control characters and space around it.

    Raises:
        errors.FieldInvalid: it is none, or too long.
    """
    if not isinstance(value, str):
        raise errors.FieldInvalid("The field 'name' is not a string.")
    name = one_line(value)
    if not 0 < len(name) <= LONGEST_NAME:
        raise errors.FieldInvalid(
            f"'name' has not 1 to {LONGEST_NAME} characters.", hint="Send the name of the person."
        )
    return name


def exported(person: Person) -> dict[str, Any]:
    """All that is stored of a person; ``vector``: base64 of 256 little-endian float16."""
    return {
        "id": person.id,
        "name": person.name,
        "created": clock.for_people(person.created),
        "voices": [
            {
                "added": clock.for_people(one.added),
                "seconds": one.print.seconds,
                "vector": one.print.vector,
            }
            for one in person.samples
        ],
    }
