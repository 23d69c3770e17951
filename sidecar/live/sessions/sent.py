"""What a client sends, as it is kept: sound, commits and what it did not want, in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.interfaces.live import Encoding

SMALL_BYTES, JOINED_BYTES = 512, 4096
"""A chunk with fewer is joined to the one before it, until both have so many: one of a single
sample costs fifty times its bytes."""
CLOSE_S = 1e-6
"""Times that are no further apart are one: less than a sample at any rate."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sound as it came; ``at``: seconds on the session's clock where it begins."""

    at: float
    raw: bytes
    encoding: Encoding
    rate: int

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.raw) // self.encoding.width

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.raw) / self.encoding.width / self.rate

    def behind(self, at: float) -> Chunk:
        """What of it lies behind ``at``, from the first whole sample on."""
        samples = max(0, round((at - self.at) * self.rate))
        raw = self.raw[samples * self.encoding.width :]
        return Chunk(self.at + samples / self.rate, raw, self.encoding, self.rate)

    def before(self, at: float) -> Chunk:
        """Return what of it lies before ``at``, in whole samples."""
        samples = max(0, round((at - self.at) * self.rate))
        return Chunk(self.at, self.raw[: samples * self.encoding.width], self.encoding, self.rate)

    def joined(self, other: object) -> Chunk | None:
        """Return both as one if ``other`` is small and goes on where this ends, else None."""
        if not isinstance(other, Chunk) or len(other.raw) >= SMALL_BYTES:
            return None
        alike = (self.encoding, self.rate) == (other.encoding, other.rate)
        goes_on = abs(self.at + self.seconds - other.at) < CLOSE_S
        if not (alike and goes_on) or len(self.raw) + len(other.raw) > JOINED_BYTES:
            return None
        return Chunk(self.at, self.raw + other.raw, self.encoding, self.rate)


@dataclass(frozen=True, slots=True)
class Commit:
    """The client ended its turn here; ``number``: of this among its orders, 0 where nobody asks."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class Forget:
    """The client did not want the turn that goes on here; ``number`` as of `Commit`."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class SoundState:
    """All that there is of `KeptSound`, for another one; the fields are that one's."""

    at: float
    samples: int
    settled: float
    rate: int
    at_rate: tuple[float, int]
    items: tuple[Chunk | Commit | Forget, ...]
    past: tuple[Chunk, ...]
    wanted: float


def up_to(
    line: Iterable[Chunk | Commit | Forget], at: float, orders: int
) -> Iterator[Chunk | Commit | Forget]:
    """The beginning of a line: sound before ``at``, and no order behind number ``orders``."""
    for one in line:
        if one.at > at - CLOSE_S if isinstance(one, Chunk) else one.number > orders:
            return
        yield one.before(at) if isinstance(one, Chunk) else one
