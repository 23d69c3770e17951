"""Who of ours has what of one device's memory, and what each will still take. Pure.

Several engines of ours may live on one card. What each has taken the driver shows; what it will
come to have it says here, so that a plan of another leaves room for it. `devices` looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """An engine's process: its id, None while there is none, and what its weights take.

    ``coming``: a new engine is on its way, and nobody knows how much of it is there.
    """

    pid: int | None = None
    weights_bytes: int = 0
    coming: bool = False


class DeviceLedger:
    """The memory of one card, or of the host, as engines of ours share it; each has a name.

    What one of them may take in all is what nobody has, what it holds itself, and nothing of what
    another has reserved. Where an engine is no more, its owner says so (`release`).
    """

    def __init__(self) -> None:
        self.strangers_bytes = 0
        """What others than engines of ours took when somebody looked last."""
        self._engines: dict[str, Callable[[], Holding]] = {}
        self._reserved: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def enlist(self, who: str, holding: Callable[[], Holding]) -> None:
        """An engine that may live here, and who tells what it holds."""
        self._engines[who] = holding

    def holdings(self) -> dict[str, Holding]:
        """What each engine holds now."""
        return {who: holding() for who, holding in self._engines.items()}

    def reserve(self, who: str, size: int) -> None:
        """From now on ``who`` comes to have ``size`` bytes in all, and not what it said before."""
        self._reserved[who] = size

    def release(self, who: str) -> None:
        """Nothing of it is here any more, and nothing is coming."""
        self._reserved.pop(who, None)

    def reserved_bytes(self, who: str) -> int:
        """What ``who`` will come to have in all."""
        return self._reserved.get(who, 0)

    def see(
        self, holdings: Mapping[str, Holding], used_bytes: int, processes: Mapping[int, int]
    ) -> None:
        """Take in a look: what all take, and the bytes of processes of which the driver tells."""
        present = {who: one for who, one in holdings.items() if one.pid is not None or one.coming}
        self._taken = {who: _taken(one, processes) for who, one in present.items()}
        if not any(one.coming for one in present.values()):  # else they are who they were
            before = self.strangers_bytes
            self.strangers_bytes = strangers_bytes(before, used_bytes, processes, present)

    def promised_bytes(self, who: str) -> int:
        """What others of ours will take of what was free when somebody looked last."""
        others = (one for one in self._reserved if one != who)
        return sum(max(0, self._reserved[one] - self._taken.get(one, 0)) for one in others)

    def own_bytes(self, who: str, used_bytes: int) -> int:
        """What ``who`` took then of the ``used_bytes``: neither strangers' nor another's."""
        if who not in self._taken:
            return 0
        others = sum(taken for one, taken in self._taken.items() if one != who)
        return max(0, used_bytes - self.strangers_bytes - others)


def _taken(holding: Holding, processes: Mapping[int, int]) -> int:
    """What an engine has, as far as the driver tells; else its weights."""
    if holding.pid is None:
        return 0
    return processes.get(holding.pid, holding.weights_bytes)


def strangers_bytes(
    before: int, used_bytes: int, processes: Mapping[int, int], holdings: Mapping[str, Holding]
) -> int:
    """What others take of a device: what is not our engines'.

    Where the driver does not say how much one of these takes beside its weights, others are taken
    for what they were ``before``, or for less where that leaves too little for the weights.
    """
    here = [one for one in holdings.values() if one.pid is not None]
    rest = max(0, used_bytes - sum(_taken(one, processes) for one in here))
    told = all(one.pid in processes for one in here if one.weights_bytes)
    return rest if told else min(before, rest)
