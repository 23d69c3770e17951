"""Examples of properties: the same in each run, whatever other tests have imported before."""

import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_process import new_file


def examples() -> list[list[int]]:
    found: list[list[int]] = []

    @given(st.lists(st.integers(), max_size=20))
    def look(numbers: list[int]) -> None:
        found.append(numbers)

    look()
    return found


@pytest.mark.skipif("VIBEVOICE_TEST_EXAMPLES" in os.environ, reason="others are asked for")
def test_examples_of_a_property_stay_the_same_after_a_module_with_constants_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = examples()
    assert before == examples()
    name = "module_of_constants"
    module = types.ModuleType(name)
    constants = f"NUMBERS = {list(range(7000, 8000, 3))}\n"
    module.__file__ = str(new_file(tmp_path / f"{name}.py", constants))
    monkeypatch.setitem(sys.modules, name, module)
    assert examples() == before
