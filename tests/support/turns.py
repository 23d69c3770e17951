"""Which tests a run of CI leaves to another, for `VIBEVOICE_TEST_TURN=number`.

A whole run takes two hours on a slow machine. So every tenth file of tests is a turn: a run has
the slow tests, Python for Windows, Python 3.14 and the stress round of the files whose turn it is,
and of those that the change touches, unless these are more than a turn: then they wait for theirs.
All fast tests always run. `make test-all` without a number leaves none.

`python -m tests.support.turns PATH…` prints the turn's files below these paths.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "VIBEVOICE_TEST_TURN"
TURNS = 10
CHANGE_S = 2 * 3600
"""Work before the last commit that counts as the change. In a shallow clone that is everything."""


def files_of_tests(root: Path = ROOT) -> list[str]:
    """Return all files of tests but those of `make test-clients`, from the root on."""
    paths = (*(root / "tests").rglob("test_*.py"), *root.glob("plugins/*/tests/test_*.py"))
    found = (path.relative_to(root).as_posix() for path in paths)
    return sorted(name for name in found if "third_party" not in name)


@functools.cache
def files_of_turn(turn: int, root: Path = ROOT) -> frozenset[str]:
    """Return every tenth file of tests, and those that the change touches if they are no more."""
    files = files_of_tests(root)
    of_turn = frozenset(files[turn % TURNS :: TURNS])
    touched = _touched(root) & set(files)
    return of_turn | touched if len(touched) <= len(of_turn) else of_turn


def below(paths: list[str], turn: int, root: Path = ROOT) -> list[str]:
    """Return the files of the turn that are these paths or below one of them."""
    return [
        name
        for name in sorted(files_of_turn(turn, root))
        if any(name == path or name.startswith(f"{path}/") for path in paths)
    ]


def _touched(root: Path) -> frozenset[str]:
    git = ["git", "-C", str(root), "log", "--format=%ct"]
    last = int(_told(*git, "-1"))
    return frozenset(_told(*git, "--name-only", f"--since={last - CHANGE_S}").split("\n"))


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Turn:
    """A pytest plugin that leaves out slow tests whose turn it is not. Only for these it asks git,
    which Wine has not."""

    def __init__(self, turn: int) -> None:
        self._turn = turn

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave them out."""
        items[:] = [item for item in items if not self._is_left_out(item)]

    def _is_left_out(self, item: pytest.Item) -> bool:
        slow = item.get_closest_marker("slow") is not None
        return slow and item.path.relative_to(ROOT).as_posix() not in files_of_turn(self._turn)


def register(config: pytest.Config) -> None:
    """Register the plugin if the environment names a turn."""
    if turn := os.environ.get(VARIABLE):
        config.pluginmanager.register(Turn(int(turn)), "turn")


if __name__ == "__main__":
    print(*below(sys.argv[1:], int(os.environ[VARIABLE])))
