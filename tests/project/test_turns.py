"""What a run of CI leaves to another turn."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from kinds_of_tests import Kinds
from not_tested import missing
from service_process import new_file
from turns import CHANGE_S, TURNS, Turn, below, files_of_turn

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason=missing("git", "git"))


def test_each_turn_has_all_fast_tests_and_all_turns_have_all_tests(
    request: pytest.FixtureRequest,
) -> None:
    kinds = request.config.pluginmanager.getplugin("kinds")
    assert isinstance(kinds, Kinds)
    fast = {item for item in kinds.collected if not item.get_closest_marker("slow")}
    seen = set[pytest.Item]()
    for turn in range(TURNS):
        items = [*kinds.collected]
        Turn(turn).pytest_collection_modifyitems(items)
        assert fast <= set(items)
        seen.update(items)
    assert seen == set(kinds.collected)


def test_file_that_the_change_touches_is_of_every_turn_and_an_older_one_of_one(
    tmp_path: Path,
) -> None:
    _commit(tmp_path, 0, [f"old_{number}" for number in range(2 * TURNS)])
    _commit(tmp_path, CHANGE_S + 1, ["new"])
    _commit(tmp_path, 2 * CHANGE_S, ["newest"])
    turns = [files_of_turn(turn, tmp_path) for turn in range(TURNS)]
    assert all({"tests/test_new.py", "tests/test_newest.py"} <= turn for turn in turns)
    assert ["tests/test_old_0.py" in turn for turn in turns].count(True) == 1
    assert below(["tests/test_new.py"], 0, tmp_path) == ["tests/test_new.py"]
    assert below(["tests"], 0, tmp_path) == sorted(turns[0])


def test_change_that_touches_more_files_than_a_turn_has_waits_for_their_turns(
    tmp_path: Path,
) -> None:
    _commit(tmp_path, 0, [f"any_{number}" for number in range(2 * TURNS)])
    assert [len(files_of_turn(turn, tmp_path)) for turn in range(TURNS)] == [2] * TURNS


def _commit(root: Path, seconds: int, names: list[str]) -> None:
    (root / "tests").mkdir(exist_ok=True)
    for name in names:
        new_file(root / f"tests/test_{name}.py", "")
    when = f"{1_000_000_000 + seconds} +0000"
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "files"]):
        someone = ["-c", "user.name=A", "-c", "user.email=a@example.invalid"]
        git = ["git", *someone, "-C", str(root), *words]
        subprocess.run(git, check=True, env={**os.environ, **dates})
