"""Dict of bounded size, which forgets its oldest entries, and the rule of one that owners share."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """Dict of at most ``most`` keys; beyond that the oldest is deleted. One set again is the
    newest."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value, and delete the oldest one if there are too many."""
        self.pop(key, None)
        super().__setitem__(key, value)
        if len(self) > self._most:
            del self[next(iter(self))]


def index_to_drop(owners: Sequence[str], owner: str, each: int, total: int) -> int | None:
    """Return which entry makes room for another of ``owner``; None if there is room.

    ``owners``: of the entries, oldest first. An owner with ``each`` entries loses the oldest one;
    of ``total`` entries the owner with the most does.
    """
    counts = Counter(owners)
    if counts[owner] < each:
        if len(owners) < total:
            return None
        ((owner, _),) = counts.most_common(1)
    return owners.index(owner)
